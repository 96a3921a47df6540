//! Statuses and the text of the last error.

use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char};

use crate::kernel::Failure;
use crate::status::{self, Status};

thread_local! {
    static LAST: RefCell<CString> = RefCell::default();
}

/// Keeps the text for `iok_last_error` and hands on the status.
#[cold]
pub(crate) fn leave(failure: Failure) -> Status {
    let text = CString::new(failure.message.replace('\0', "\\0")).unwrap_or_default();
    // A thread that is ending has no place for the text any more.
    let _ = LAST.try_with(|last| *last.borrow_mut() = text);
    failure.status
}

fn c_row(status: Status) -> Option<&'static (Status, &'static CStr, &'static CStr)> {
    status::C_NAMES.iter().find(|row| row.0 == status)
}

/// The name of a status, as `"IOK_STATUS_TIMEOUT"`; `"IOK_STATUS_UNKNOWN"` for a number that is none. Static. [N][F]
#[unsafe(no_mangle)]
pub extern "C" fn iok_status_name(status: Status) -> *const c_char {
    c_row(status).map_or(c"IOK_STATUS_UNKNOWN", |row| row.1).as_ptr()
}

/// What a status means, in one sentence. Static. [N][F]
#[unsafe(no_mangle)]
pub extern "C" fn iok_status_text(status: Status) -> *const c_char {
    c_row(status).map_or(c"not a status of this version", |row| row.2).as_ptr()
}

/// True if the same request may succeed later (whether it may be sent again, its fate says). [N][F]
#[unsafe(no_mangle)]
pub extern "C" fn iok_status_retriable(status: Status) -> bool {
    status::row(status).is_some_and(|row| row.retriable)
}

/// True if the handle that the status came from is of no use any more. [N][F]
#[unsafe(no_mangle)]
pub extern "C" fn iok_status_fatal(status: Status) -> bool {
    status::row(status).is_some_and(|row| row.fatal)
}

/// The text of this thread's last error: which key, which value, what was expected. Empty if there was none. Valid until
/// this thread's next error. [N][F]
#[unsafe(no_mangle)]
pub extern "C" fn iok_last_error() -> *const c_char {
    LAST.try_with(|last| last.borrow().as_ptr()).unwrap_or(c"".as_ptr())
}
