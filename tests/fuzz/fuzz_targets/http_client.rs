//! Sequences of operations on a conn of an HTTP service: requests, bodies, replies, cancels, time, ends.
#![no_main]

#[path = "../../rig/mod.rs"]
mod rig;

libfuzzer_sys::fuzz_target!(|data: &[u8]| rig::http::client(data));
