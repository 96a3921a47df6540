//! Sequences of operations on a conn of an HTTP listener: requests, replies, bodies both ways, time, ends.
#![no_main]

#[path = "../../rig/mod.rs"]
mod rig;

libfuzzer_sys::fuzz_target!(|data: &[u8]| rig::http::server(data));
