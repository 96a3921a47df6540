//! Records in and out of a channel.

use super::channel::{held, iok_channel};
use super::handle::unusable;
use super::{error, fail, guard, guard_status, null};
use crate::ring::layout::{Completion, IOK_SUBMISSION_BYTES, Submission};
use crate::status::*;

/// The text of a submission that was not taken.
#[cold]
fn refused(status: Status, bytes: usize) -> Status {
    let message = match status {
        IOK_STATUS_FULL => "the submission ring is full: poll, or wait, and submit again".to_string(),
        IOK_STATUS_TOO_LARGE => {
            format!("{bytes} bytes: expected at most a quarter of the ring in a record, and max_request in a message")
        }
        IOK_STATUS_BAD_RECORD => "size: expected at least a head, and no more than was reserved or given".to_string(),
        status => row(status).map_or_else(String::new, |row| row.sentence.to_string()),
    };
    error::leave(fail(status, message))
}

/// Makes room for one submission with up to `payload_bytes`, to be written in place: fill the head (its `size` is set
/// already; make it smaller if less was written) and the payload that follows it, then `iok_commit`. The pointer is good
/// until then. [N]
///
/// Errors: FULL (nothing is lost: poll or wait, then again), TOO_LARGE (more than a quarter of the ring: send fragments),
/// CLOSED and other ends of the channel, BAD_HANDLE, FORKED, NULL.
///
/// # Safety
/// `out` is NULL or writable; the thread rule of channels.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn iok_reserve(
    channel: *mut iok_channel,
    payload_bytes: u32,
    out: *mut *mut Submission,
) -> Status {
    guard_status(|| {
        if out.is_null() {
            return error::leave(null("out"));
        }
        // SAFETY: the caller's promise.
        let held = match unsafe { held(channel) } {
            Ok(held) => held,
            Err(status) => return error::leave(unusable("channel", status)),
        };
        match held.app.reserve(payload_bytes as usize) {
            Ok(place) => {
                // SAFETY: not NULL, and writable by the caller's promise.
                unsafe { *out = place };
                IOK_STATUS_OK
            }
            Err(status) => refused(status, payload_bytes as usize),
        }
    })
}

/// Publishes what was reserved. BAD_RECORD if nothing was, or its `size` has grown. [N]
///
/// # Safety
/// The thread rule of channels.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn iok_commit(channel: *mut iok_channel) -> Status {
    guard_status(|| {
        // SAFETY: the caller's promise.
        match unsafe { held(channel) } {
            Ok(held) => match held.app.commit() {
                IOK_STATUS_OK => IOK_STATUS_OK,
                status => refused(status, 0),
            },
            Err(status) => error::leave(unusable("channel", status)),
        }
    })
}

/// Copies one record in and publishes it: `head`, and the `head->size - sizeof *head` bytes at `payload` (may be NULL
/// when that is 0). [N]
///
/// Errors: as `iok_reserve`; BAD_RECORD for a `size` below that of a head.
///
/// # Safety
/// `head` and `payload` are readable for that long; the thread rule of channels.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn iok_submit(
    channel: *mut iok_channel,
    head: *const Submission,
    payload: *const std::ffi::c_void,
) -> Status {
    guard_status(|| {
        // SAFETY: the caller's promise.
        let held = match unsafe { held(channel) } {
            Ok(held) => held,
            Err(status) => return error::leave(unusable("channel", status)),
        };
        if head.is_null() {
            return error::leave(null("head"));
        }
        // SAFETY: not NULL, and readable by the caller's promise.
        let head = unsafe { head.read_unaligned() };
        let Some(bytes) = head.size.checked_sub(IOK_SUBMISSION_BYTES) else {
            return refused(IOK_STATUS_BAD_RECORD, 0);
        };
        if payload.is_null() && bytes > 0 {
            return error::leave(null("payload"));
        }
        let payload = match bytes {
            0 => &[],
            // SAFETY: not NULL, and readable for `bytes` by the caller's promise.
            _ => unsafe { std::slice::from_raw_parts(payload.cast::<u8>(), bytes as usize) },
        };
        match held.app.submit(&head, payload) {
            IOK_STATUS_OK => IOK_STATUS_OK,
            status => refused(status, bytes as usize),
        }
    })
}

/// Copies whole records in, each starting at a multiple of 8, as many as fit, publishes them at once and wakes the kernel
/// if it sleeps. `*taken` says how many bytes went in; give the rest again after FULL. One call for a whole turn of a
/// script's loop: no `iok_flush` is needed after it. [N]
///
/// Errors: as `iok_submit`; what was taken before the error stands.
///
/// # Safety
/// `records` is readable for `bytes`; `taken` is writable; the thread rule of channels.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn iok_submit_batch(
    channel: *mut iok_channel,
    records: *const std::ffi::c_void,
    bytes: usize,
    taken: *mut usize,
) -> Status {
    guard_status(|| {
        // SAFETY: the caller's promise.
        let held = match unsafe { held(channel) } {
            Ok(held) => held,
            Err(status) => return error::leave(unusable("channel", status)),
        };
        if taken.is_null() || (records.is_null() && bytes > 0) {
            return error::leave(null(if taken.is_null() { "taken" } else { "records" }));
        }
        let records = match bytes {
            0 => &[],
            // SAFETY: not NULL, and readable for `bytes` by the caller's promise.
            _ => unsafe { std::slice::from_raw_parts(records.cast::<u8>(), bytes) },
        };
        let (count, status) = held.app.submit_batch(records);
        held.kernel.flush(&mut held.app);
        // SAFETY: not NULL, and writable by the caller's promise.
        unsafe { *taken = count };
        match status {
            IOK_STATUS_OK => IOK_STATUS_OK,
            status => refused(status, bytes - count),
        }
    })
}

/// Looks at the completions that wait: returns how many, `*first` the first of them, `*bytes` the length of the run, in
/// which each record starts at the next multiple of 8 after the one before. 0 when there is none. The run is good until
/// `iok_advance`. A channel that has ended and is empty gives 0, and `iok_last_error` says why. [N]
///
/// # Safety
/// `first` and `bytes` are writable; the thread rule of channels.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn iok_poll(
    channel: *mut iok_channel,
    first: *mut *const Completion,
    bytes: *mut usize,
) -> usize {
    let mut count = 0;
    guard_status(|| {
        if first.is_null() || bytes.is_null() {
            return error::leave(null(if first.is_null() { "first" } else { "bytes" }));
        }
        // SAFETY: the caller's promise.
        let polled = unsafe { held(channel) }.and_then(|held| Ok((held.app.poll()?, held.app.ended())));
        match polled {
            Ok(((found, run), ended)) => {
                count = found;
                // SAFETY: not NULL, and writable by the caller's promise.
                unsafe {
                    *first = run.start.as_ptr().cast();
                    *bytes = run.bytes;
                }
                if found == 0 && ended != IOK_STATUS_OK {
                    return error::leave(unusable("channel", ended));
                }
                IOK_STATUS_OK
            }
            Err(status) => {
                // SAFETY: as above.
                unsafe {
                    *first = std::ptr::null();
                    *bytes = 0;
                }
                error::leave(unusable("channel", status))
            }
        }
    });
    count
}

/// Done with the first `bytes` of the run: a whole number of records with their padding. BAD_RECORD if it is not, or
/// more than the run had. [N]
///
/// # Safety
/// The thread rule of channels.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn iok_advance(channel: *mut iok_channel, bytes: usize) -> Status {
    guard(|| {
        // SAFETY: the caller's promise.
        let held = unsafe { held(channel) }.map_err(|status| unusable("channel", status))?;
        match held.app.advance(bytes) {
            IOK_STATUS_OK => Ok(()),
            status => Err(fail(status, format!("bytes: {bytes}: expected whole records of the run"))),
        }
    })
}

/// What ended the channel, or OK while it lives. [N]
///
/// # Safety
/// The thread rule of channels.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn iok_channel_status(channel: *const iok_channel) -> Status {
    guard_status(|| {
        // SAFETY: the caller's promise.
        match unsafe { held(channel) } {
            Ok(held) => held.app.ended(),
            Err(status) => error::leave(unusable("channel", status)),
        }
    })
}
