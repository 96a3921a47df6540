//! A thread that takes no signals, and how many processors there are for it.

use std::io;
use std::thread::JoinHandle;

use super::mask::Held;

/// Starts a named thread with every signal blocked, so that handlers run on the program's own threads.
pub fn spawn_without_signals(name: String, body: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    let held = Held::new();
    // The new thread inherits the mask of its maker.
    let made = std::thread::Builder::new().name(name).stack_size(1 << 20).spawn(|| {
        take_short_slices();
        body();
    });
    drop(held);
    made
}

/// As the system has it (sched_setattr(2)).
#[repr(C)]
#[derive(Default)]
struct SchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime_ns: u64,
    deadline_ns: u64,
    period_ns: u64,
}

/// How long this thread wants to run at a time. A thread that asks for less is let in sooner among threads that compute.
const SLICE_NS: u64 = 100_000;

/// Asks for short slices, from Linux 6.12 on; before that the system does not care. Policy and nice value stay.
fn take_short_slices() {
    let mut attr = SchedAttr::default();
    let bytes = size_of::<SchedAttr>() as u32;
    // SAFETY: `attr` has the size that is told, and lives for both calls; 0 is the thread that calls.
    unsafe {
        let read = libc::syscall(libc::SYS_sched_getattr, 0, &mut attr, bytes, 0);
        if read == 0 && attr.policy == libc::SCHED_OTHER as u32 {
            (attr.size, attr.flags, attr.runtime_ns) = (bytes, 0, SLICE_NS);
            // One that may not is served as all others are.
            libc::syscall(libc::SYS_sched_setattr, 0, &attr, 0);
        }
    }
}

/// The number by which the system knows the thread that calls.
pub fn id() -> u32 {
    // SAFETY: no arguments.
    unsafe { libc::gettid() as u32 }
}

/// The thread that calls is the process's first.
pub fn is_first() -> bool {
    thread_local! {
        static FIRST: bool = id() == std::process::id();
    }
    FIRST.with(|first| *first)
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
