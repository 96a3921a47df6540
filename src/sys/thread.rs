//! A thread that takes no signals, and how many processors there are for it.

use std::io;
use std::thread::JoinHandle;

/// Starts a named thread with every signal blocked, so that handlers run on the program's own threads.
pub fn spawn_without_signals(name: String, body: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    // SAFETY: both sets are plain data on this stack; the mask that was there is put back before returning.
    let before = unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        let mut before: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before);
        before
    };
    // The new thread inherits the mask of its maker.
    let made = std::thread::Builder::new().name(name).stack_size(1 << 20).spawn(body);
    // SAFETY: `before` was filled by the call above.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &before, std::ptr::null_mut()) };
    made
}

/// The number by which the system knows the thread that calls.
pub fn id() -> u32 {
    // SAFETY: no arguments.
    unsafe { libc::gettid() as u32 }
}

/// A thread of this process has that number.
pub fn is_alive(tid: u32) -> bool {
    // SAFETY: plain numbers; signal 0 only asks.
    unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), tid as libc::c_int, 0) == 0 }
}

/// How many processors this process may run on.
pub fn processors() -> usize {
    // SAFETY: the set is plain data of the size that is passed.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        match libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set) {
            0 => libc::CPU_COUNT(&set).max(1) as usize,
            _ => 1,
        }
    }
}
