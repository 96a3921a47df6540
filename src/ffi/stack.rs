//! The program's stack, for the admin endpoint's `/stack`.

use super::kernel::{iok_kernel, live};
use super::{fail, guard, null};
use crate::status::{IOK_STATUS_BAD_CONFIG, Status};

/// For `iok_stack_arm`: the runtime's handler writes its text later, at its next safe point, and ends it with a zero
/// byte. Without this flag it writes before it returns.
pub const IOK_STACK_LATE: u32 = 1;

/// Begins to let the admin endpoint ask the program's threads where they are, by a signal to the very thread; the
/// kernel's `stack_signal=` says which, SIGURG by default. `*signal` becomes its number and `*fd` a descriptor to which a
/// handler of the runtime's own may write its frames as text (at most 64 KiB; non-blocking, never closed in this
/// process, closed in forked children). For a process, not for a kernel: of several kernels the first one's signal holds.
///
/// After this call the runtime installs its handler for `*signal`, if it has one, and then comes `iok_stack_arm`. In
/// CPython the handler is `faulthandler.register(signal, file=fd, all_threads=False)`. Where a runtime delivers signals
/// at safe points only (Ruby's `trap`, Perl's `%SIG`, a Lua hook that a handler in C sets) it is one that writes its lines
/// and a zero byte. It runs for our asks alone. Without any there are native frames, which every program has.
///
/// Signals of that number which are not ours still reach the handler that the program had before. A forked child takes
/// the runtime's handler away, if it has one, and opens its own; until then nothing of this happens there. Any thread. [N]
///
/// Errors: NULL, BAD_HANDLE, FORKED, NO_FILES, SYSTEM.
///
/// # Safety
/// `signal` and `fd` are NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn iok_stack_open(kernel: *mut iok_kernel, signal: *mut i32, fd: *mut i32) -> Status {
    guard(|| {
        if signal.is_null() || fd.is_null() {
            return Err(null("signal, fd"));
        }
        let (number, descriptor) = live(kernel)?.open_stack()?;
        // SAFETY: not NULL, and writable by the caller's promise.
        unsafe { (*signal, *fd) = (number, descriptor) };
        Ok(())
    })
}

/// Puts the library's handler on top of the one that is installed, which it calls first. `flags`: 0 or
/// `IOK_STACK_LATE`. Arming twice is harmless. Any thread. [N]
///
/// Errors: BAD_HANDLE, BAD_CONFIG (not opened, or an unknown flag), FORKED, SYSTEM.
#[unsafe(no_mangle)]
pub extern "C" fn iok_stack_arm(kernel: *mut iok_kernel, flags: u32) -> Status {
    guard(|| {
        if flags & !IOK_STACK_LATE != 0 {
            return Err(fail(IOK_STATUS_BAD_CONFIG, format!("flags: {flags}: expected 0 or IOK_STACK_LATE")));
        }
        live(kernel)?.arm_stack(flags & IOK_STACK_LATE != 0)
    })
}

/// Ends what `iok_stack_open` began; `iok_kernel_close` does so too. `*restored` becomes true if no kernel of this process
/// uses it any more and the program's handler is in its place again: the runtime may then take its own away. It becomes
/// false if the program has installed another handler since: that one stays. Closing twice is harmless. Any thread. [N]
///
/// Errors: NULL, BAD_HANDLE, FORKED.
///
/// # Safety
/// `restored` is NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn iok_stack_close(kernel: *mut iok_kernel, restored: *mut bool) -> Status {
    guard(|| {
        if restored.is_null() {
            return Err(null("restored"));
        }
        let ours = live(kernel)?.close_stack();
        // SAFETY: not NULL, and writable by the caller's promise.
        unsafe { *restored = ours };
        Ok(())
    })
}
