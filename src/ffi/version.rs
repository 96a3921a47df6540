//! What this library is.

use crate::ring::layout::IOK_ABI_VERSION;
use crate::ring::page::FEATURES;

/// The version of the ABI: a program built for another one must not go on. [N][F]
#[unsafe(no_mangle)]
pub extern "C" fn iok_abi_version() -> u32 {
    IOK_ABI_VERSION
}

/// `IOK_FEATURE_*` bits. [N][F]
#[unsafe(no_mangle)]
pub extern "C" fn iok_features() -> u64 {
    FEATURES
}
