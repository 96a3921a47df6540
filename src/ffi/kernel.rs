//! `iok_kernel`.

use std::ffi::c_char;
use std::sync::Arc;
use std::time::Duration;

use super::handle::{Table, unusable};
use super::{fail, guard, null};
use crate::kernel::{Failure, Kernel};
use crate::status::{IOK_STATUS_TIMEOUT, Status};
use crate::sys::fork;

/// An I/O thread and all it owns. Opaque.
#[allow(non_camel_case_types)]
pub struct iok_kernel {
    _opaque: [u8; 0],
}

static KERNELS: Table<Arc<Kernel>, 1024> = Table::new();

/// The kernel of a handle, kept alive for as long as the caller needs it.
pub(super) fn live(handle: *mut iok_kernel) -> Result<Arc<Kernel>, Failure> {
    fork::exclusive(|| {
        let object = KERNELS.get(handle as usize)?;
        // SAFETY: closing takes the same lock, so the object is there while this runs.
        Ok(unsafe { (*object).clone() })
    })
    .map_err(|status| unusable("kernel", status))
}

/// Starts a kernel: its I/O thread, without any network. `config`: `name=web-1` names the thread (at most 15 bytes);
/// `resolv_conf=` and `hosts=` name files to read instead of the system's; `admin=`, `busy_limit=`, `metrics=`, `statsd=`,
/// `graphite=`, `otlp=` and those beside them say who may ask the kernel, and whom it tells (docs/observability.md). NULL or "" for the defaults. The handle goes
/// to `*out` and belongs to the caller until `iok_kernel_close`. Any thread. [N]
///
/// Errors: BAD_CONFIG (the text names the key), NULL, NO_FILES, NO_MEMORY, SYSTEM.
///
/// # Safety
/// `config` is NULL or a string; `out` is NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn iok_kernel_open(config: *const c_char, out: *mut *mut iok_kernel) -> Status {
    guard(|| {
        if out.is_null() {
            return Err(null("out"));
        }
        fork::watch();
        // SAFETY: the caller's promise.
        let kernel = Kernel::open(unsafe { super::config(config) }?)?;
        let handle = KERNELS.insert(Box::new(Arc::new(kernel)))?;
        // SAFETY: not NULL, and writable by the caller's promise.
        unsafe { *out = handle as *mut iok_kernel };
        Ok(())
    })
}

/// Closes a kernel: takes no new requests, lets those under way finish for at most `drain_ms`, ends the rest with
/// CLOSED, closes every connection and waits for the thread. Bounded, whatever peers, names or other threads do. Closing
/// twice is BAD_HANDLE and harmless. Its channels stay readable until they are closed. Any thread. [B][F]
///
/// Errors: BAD_HANDLE, FORKED (the parent's kernel is not touched), TIMEOUT (it ends by itself later).
#[unsafe(no_mangle)]
pub extern "C" fn iok_kernel_close(kernel: *mut iok_kernel, drain_ms: u32) -> Status {
    guard(|| {
        let kernel = KERNELS.remove(kernel as usize).map_err(|status| unusable("kernel", status))?;
        if kernel.close(Duration::from_millis(u64::from(drain_ms))) {
            return Ok(());
        }
        Err(fail(IOK_STATUS_TIMEOUT, "the I/O thread has not ended in time; it ends by itself"))
    })
}
