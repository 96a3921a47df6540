//! The only `extern "C"`: one file per noun of the header.
//!
//! Every function goes through [`guard`]: a panic becomes `IOK_STATUS_PANIC`, an error leaves its text for
//! `iok_last_error`. Handles are numbers in the clothes of pointers ([`handle`]), so that a stale one is known as such.

pub mod cell;
pub mod channel;
pub mod error;
pub mod handle;
pub mod kernel;
pub mod record;
pub mod stack;
pub mod version;

use std::ffi::{CStr, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::kernel::Failure;
use crate::status::{IOK_STATUS_BAD_CONFIG, IOK_STATUS_NULL, IOK_STATUS_OK, IOK_STATUS_PANIC, Status};

/// Runs the body of a function of the ABI.
#[inline]
pub(crate) fn guard(body: impl FnOnce() -> Result<(), Failure>) -> Status {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => IOK_STATUS_OK,
        Ok(Err(failure)) => error::leave(failure),
        Err(_) => error::leave(fail(IOK_STATUS_PANIC, "a fault inside iokernel was contained")),
    }
}

/// The same for functions of the hot path, whose errors have no text beyond their status.
#[inline]
pub(crate) fn guard_status(body: impl FnOnce() -> Status) -> Status {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or(IOK_STATUS_PANIC)
}

pub(crate) fn fail(status: Status, message: impl Into<String>) -> Failure {
    Failure { status, message: message.into() }
}

pub(crate) fn null(name: &str) -> Failure {
    fail(IOK_STATUS_NULL, format!("{name}: NULL: expected a pointer"))
}

/// A configuration string; NULL is the empty one.
///
/// # Safety
/// `text` is NULL or points to a string that ends with a zero byte.
pub(crate) unsafe fn config<'a>(text: *const c_char) -> Result<&'a str, Failure> {
    if text.is_null() {
        return Ok("");
    }
    // SAFETY: the caller's promise.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str()
        .map_err(|_| fail(IOK_STATUS_BAD_CONFIG, format!("config: {:?}: expected UTF-8", text.to_string_lossy())))
}
