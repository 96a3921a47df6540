//! `iok_channel`.

use std::ffi::c_char;
use std::sync::Arc;
use std::time::Duration;

use super::handle::{Table, unusable};
use super::kernel::{iok_kernel, live};
use super::{guard, guard_status, null};
use crate::kernel::Kernel;
use crate::ring::app::AppSide;
use crate::status::Status;

/// One submission ring and one completion ring, used by one thread at a time. Opaque.
#[allow(non_camel_case_types)]
pub struct iok_channel {
    _opaque: [u8; 0],
}

/// A channel as its handle holds it.
pub(super) struct Held {
    pub app: AppSide,
    key: u64,
    pub kernel: Arc<Kernel>,
}

static CHANNELS: Table<Held, 4096> = Table::new();

/// The channel of a handle.
///
/// # Safety
/// The ABI's thread rule: one thread at a time uses a channel, its closing included.
#[inline]
pub(super) unsafe fn held<'a>(channel: *const iok_channel) -> Result<&'a mut Held, Status> {
    // SAFETY: the table gives live objects only; by the thread rule nobody else has it now.
    CHANNELS.get(channel as usize).map(|held| unsafe { &mut *held })
}

/// Opens a channel of a kernel. `config`: `ring=1MiB` (each way, a power of two), `credits=65536` (requests under way),
/// `push_buffer=4MiB` and `reply_buffer=256MiB` (what waits beside the ring for a program that does not poll),
/// `max_request=128MiB`. NULL or "" for the defaults. The handle goes to `*out` and belongs to the caller until
/// `iok_channel_close`. One thread at a time uses a channel. [N]
///
/// Errors: BAD_CONFIG, BAD_HANDLE, FORKED, CLOSED, NO_FILES, NO_MEMORY, SYSTEM, OVERLOADED.
///
/// # Safety
/// `config` is NULL or a string; `out` is NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn iok_channel_open(
    kernel: *mut iok_kernel,
    config: *const c_char,
    out: *mut *mut iok_channel,
) -> Status {
    guard(|| {
        if out.is_null() {
            return Err(null("out"));
        }
        let kernel = live(kernel)?;
        // SAFETY: the caller's promise.
        let (app, key) = kernel.open_channel(unsafe { super::config(config) }?)?;
        let handle = CHANNELS.insert(Box::new(Held { app, key, kernel }))?;
        // SAFETY: not NULL, and writable by the caller's promise.
        unsafe { *out = handle as *mut iok_channel };
        Ok(())
    })
}

/// Closes a channel: what it had under way ends as cancelled, its leases go back, its listeners close. Pointers from
/// `iok_poll` and `iok_reserve` are of no use afterwards. Closing twice is BAD_HANDLE and harmless. [N][F]
///
/// Errors: BAD_HANDLE, NULL, FORKED (the parent's channel is not touched).
#[unsafe(no_mangle)]
pub extern "C" fn iok_channel_close(channel: *mut iok_channel) -> Status {
    guard(|| {
        let held = CHANNELS.remove(channel as usize).map_err(|status| unusable("channel", status))?;
        held.kernel.close_channel(held.key);
        Ok(())
    })
}

/// A descriptor for poll, epoll or select, level-triggered: readable while completions wait, until `iok_poll` gave 0;
/// once when room came back after FULL; once when the channel has ended. It belongs to the channel: watch it, never read,
/// write or close it. A wake may find nothing. -1 for a handle that cannot be used. [N]
///
/// # Safety
/// The thread rule of channels.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn iok_channel_fd(channel: *const iok_channel) -> i32 {
    // SAFETY: the caller's promise.
    unsafe { held(channel) }.map_or(-1, |held| held.app.fd())
}

/// Has what was submitted taken: once after a burst of submissions. Submitting alone publishes; without a flush (or a
/// wait) the kernel may sleep on. Wakes the I/O thread, or, for a little at a time and in a program that does not watch
/// the descriptor, has this thread take and write it, which costs less than a wake. Before a wait it is of no use. [N]
///
/// # Safety
/// The thread rule of channels.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn iok_flush(channel: *mut iok_channel) -> Status {
    guard_status(|| {
        // SAFETY: the caller's promise.
        match unsafe { held(channel) } {
            Ok(held) => {
                held.kernel.flush(&mut held.app);
                crate::status::IOK_STATUS_OK
            }
            Err(status) => super::error::leave(unusable("channel", status)),
        }
    })
}

/// Flushes, then sleeps until completions wait, or room came back after FULL, or `timeout_ms` is over (0: look only;
/// below 0: no limit). Drop your lock around it. [B]
///
/// Meanwhile this thread turns the kernel's loop, if no other does, so that what it waits for comes without a wake from
/// one thread to another. In the process's first thread signals are held back but where it sleeps.
///
/// Returns OK, TIMEOUT, INTERRUPTED (a signal came: run its handler, wait again), or, when nothing is left to read, what
/// ended the channel: CLOSED, CORRUPT, PANIC.
///
/// # Safety
/// The thread rule of channels.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn iok_wait(channel: *mut iok_channel, timeout_ms: i32) -> Status {
    guard_status(|| {
        // SAFETY: the caller's promise.
        match unsafe { held(channel) } {
            Ok(held) => {
                let timeout = u64::try_from(timeout_ms).ok().map(Duration::from_millis);
                held.kernel.wait(&mut held.app, timeout)
            }
            Err(status) => super::error::leave(unusable("channel", status)),
        }
    })
}
