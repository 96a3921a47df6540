//! Sequences of operations on either side of every protocol in the table, under the laws of `proto`.
#![no_main]

#[path = "../../rig/mod.rs"]
mod rig;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    for scheme in iokernel::proto::TABLE {
        rig::script(scheme, data);
    }
});
