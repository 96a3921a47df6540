//! A door to a thread that does not come out by itself: a signal, whose handler writes where the thread is to a pipe.
//!
//! The handler runs on the thread that is asked about. It neither waits, nor allocates, nor takes a lock, nor walks a
//! stack: it writes the registers of the moment and a copy of the stack's innermost bytes, and whoever reads the pipe
//! makes frames of them. Memory that is not there ends the copy (`write` fails with EFAULT; nothing faults). A runtime
//! may have installed a handler of its own for the signal beforehand: it runs first and writes what it knows as text.
//!
//! # Architecture invariants
//! One door a process, whoever uses it. Signals that are not ours go on to the handler that the program had. In a
//! forked child the handler does nothing but that until the child opens the door itself. The pipe is never closed in
//! the process that made it, so that a late handler writes to no stranger's descriptor.

use std::cell::UnsafeCell;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicUsize, Ordering};

use super::fork;
use super::owned::Owned;

/// What is copied of a stack, at most.
const STACK_BYTES: usize = 64 << 10;
/// Room in the pipe: a copy, and text. Where the system grants less, the copy is shorter.
const PIPE_BYTES: libc::c_int = 256 << 10;
/// Writes of at most so many bytes go into a pipe whole or not at all (PIPE_BUF).
const CHUNK: usize = 4096;

/// Begins each record. No text has it: it is not UTF-8.
pub const MAGIC: u64 = 0xff6b_6f69_fe57_ac01;
/// Words of a record: `MAGIC`, kind, ask, thread, then what its kind says.
pub const RECORD_WORDS: usize = 8;
/// Text of the runtime's handler follows.
pub const BEGIN: u64 = 1;
/// Program counter, stack pointer, frame pointer, link register (0 where there is none); the stack's copy follows.
pub const REGISTERS: u64 = 2;
/// How many bytes the copy has.
pub const END: u64 = 3;

/// In the upper half of a signal's value: it is ours.
const COOKIE: u64 = 0x696f_6b73;

struct Saved(UnsafeCell<MaybeUninit<libc::sigaction>>);
// SAFETY: touched under `fork::exclusive` alone.
unsafe impl Sync for Saved {}

/// A handler as another handler calls it.
struct Slot {
    address: AtomicUsize,
    flags: AtomicI32,
}

impl Slot {
    const fn new() -> Self {
        Slot { address: AtomicUsize::new(libc::SIG_DFL), flags: AtomicI32::new(0) }
    }

    fn keep(&self, action: &libc::sigaction) {
        self.flags.store(action.sa_flags, Ordering::Relaxed);
        self.address.store(action.sa_sigaction, Ordering::Release);
    }
}

static USERS: AtomicU32 = AtomicU32::new(0);
/// The fork epoch that everything here is of.
static EPOCH: AtomicU32 = AtomicU32::new(0);
static READ_FD: AtomicI32 = AtomicI32::new(-1);
static WRITE_FD: AtomicI32 = AtomicI32::new(-1);
static SIGNAL: AtomicI32 = AtomicI32::new(0);
/// The text comes after the record, at the runtime's next safe point.
static LATE: AtomicBool = AtomicBool::new(false);
static ARMED: AtomicBool = AtomicBool::new(false);
/// The ask that no thread has answered yet; 0: none.
static ASKED: AtomicU32 = AtomicU32::new(0);
static ASKS: AtomicU32 = AtomicU32::new(0);
/// Whether somebody reads the pipe.
static CLAIMED: AtomicBool = AtomicBool::new(false);
/// What the program had, whole and as the handler calls it.
static PROGRAMS: Saved = Saved(UnsafeCell::new(MaybeUninit::uninit()));
static PROGRAM: Slot = Slot::new();
/// The runtime's, or SIG_DFL.
static DUMPER: Slot = Slot::new();

/// Names of the signals that may be used: those that no runtime, no debugger and no terminal needs for itself.
const NAMES: &[(&str, libc::c_int)] = &[
    ("URG", libc::SIGURG),
    ("USR1", libc::SIGUSR1),
    ("USR2", libc::SIGUSR2),
    ("WINCH", libc::SIGWINCH),
    ("IO", libc::SIGIO),
    ("PWR", libc::SIGPWR),
];

/// SIGURG: ignored unless a program asks for it.
pub const DEFAULT_SIGNAL: i32 = libc::SIGURG;

/// What [`parse`] takes.
pub const EXPECTED: &str = "one of URG, USR1, USR2, WINCH, IO, PWR, RTMIN+0 and up, or the number of one of them";

/// The number of a signal that may be used: `URG`, `SIGURG`, `23`, `RTMIN+3`.
pub fn parse(text: &str) -> Option<i32> {
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some((_, number)) = NAMES.iter().find(|(known, _)| *known == name) {
        return Some(*number);
    }
    let (first, last) = (libc::SIGRTMIN(), libc::SIGRTMAX());
    let number = match name.strip_prefix("RTMIN") {
        Some("") => first,
        Some(more) => first.checked_add(more.strip_prefix('+')?.parse::<u16>().ok()?.into())?,
        None => name.parse().ok()?,
    };
    let known = NAMES.iter().any(|(_, known)| *known == number) || (first..=last).contains(&number);
    known.then_some(number)
}

/// The name of a signal as `kill -l` has it.
pub fn name(signal: i32) -> String {
    match NAMES.iter().find(|(_, number)| *number == signal) {
        Some((name, _)) => format!("SIG{name}"),
        None => format!("SIGRTMIN+{}", signal - libc::SIGRTMIN()),
    }
}

/// One use of the door. The last one that is dropped gives the signal back.
#[derive(Debug)]
pub struct Door {
    epoch: u32,
}

impl Door {
    /// Opens the door, or joins those who have: of several signals the first one's holds. The program's handler is
    /// still the one that runs: whoever has a handler for the runtime's text installs it, and then comes [`Door::arm`].
    pub fn open(signal: i32) -> io::Result<Self> {
        fork::exclusive(|| {
            if EPOCH.load(Ordering::Relaxed) != fork::epoch() {
                forget_parent();
                let (read, write) = pipe()?;
                READ_FD.store(read, Ordering::Relaxed);
                WRITE_FD.store(write, Ordering::Relaxed);
                EPOCH.store(fork::epoch(), Ordering::Release);
            }
            if USERS.load(Ordering::Relaxed) == 0 {
                keep_programs(&current(signal)?);
                SIGNAL.store(signal, Ordering::Relaxed);
            }
            USERS.fetch_add(1, Ordering::Relaxed);
            Ok(Door { epoch: fork::epoch() })
        })
    }

    pub fn signal(&self) -> i32 {
        SIGNAL.load(Ordering::Relaxed)
    }

    /// Where the runtime's handler writes its text.
    pub fn text_fd(&self) -> RawFd {
        WRITE_FD.load(Ordering::Relaxed)
    }

    /// Puts our handler on top of what is installed. Arming twice is harmless.
    pub fn arm(&self, late: bool) -> io::Result<()> {
        fork::exclusive(|| {
            let there = current(self.signal())?;
            if is_ours(&there) {
                return Ok(());
            }
            // SAFETY: under the lock; `open` has filled it.
            let programs = unsafe { (*PROGRAMS.0.get()).assume_init() };
            if there.sa_sigaction == programs.sa_sigaction {
                DUMPER.address.store(libc::SIG_DFL, Ordering::Relaxed);
            } else {
                DUMPER.keep(&there);
            }
            LATE.store(late, Ordering::Relaxed);
            install(self.signal(), &ours(&programs))?;
            ARMED.store(true, Ordering::Release);
            Ok(())
        })
    }

    /// Gives this use back. True if it was the last one and the program's handler is in its place again; false as well
    /// if the program has installed another one since, which then stays.
    pub fn close(mut self) -> bool {
        self.give_back()
    }

    fn give_back(&mut self) -> bool {
        fork::exclusive(|| {
            if self.epoch != fork::epoch() || self.epoch != EPOCH.load(Ordering::Relaxed) {
                return false;
            }
            self.epoch = 0;
            if USERS.fetch_sub(1, Ordering::Relaxed) > 1 {
                return false;
            }
            ARMED.store(false, Ordering::Relaxed);
            ASKED.store(0, Ordering::Relaxed);
            restore(self.signal())
        })
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.give_back();
    }
}

/// In a child that opens the door for itself: the parent's handler goes, as if the program had never had it.
fn forget_parent() {
    let signal = SIGNAL.load(Ordering::Relaxed);
    if signal != 0 {
        restore(signal);
    }
    USERS.store(0, Ordering::Relaxed);
    ARMED.store(false, Ordering::Relaxed);
    ASKED.store(0, Ordering::Relaxed);
    CLAIMED.store(false, Ordering::Relaxed);
}

/// Both ends, non-blocking and closed on exec. They are closed in forked children, and never here.
fn pipe() -> io::Result<(RawFd, RawFd)> {
    let ends = Owned::with(|| {
        let mut fds: [RawFd; 2] = [-1; 2];
        // SAFETY: room for two descriptors.
        super::check(unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_NONBLOCK | libc::O_CLOEXEC) })?;
        // SAFETY: plain numbers. Where the system grants no more, the usual 64 KiB do.
        unsafe { libc::fcntl(fds[1], libc::F_SETPIPE_SZ, PIPE_BYTES) };
        // SAFETY: both were just made and are owned here alone.
        let ends = unsafe { (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])) };
        Ok::<_, io::Error>((ends, [fds[0], fds[1], -1]))
    })?;
    let fds = (ends.0.as_raw_fd(), ends.1.as_raw_fd());
    std::mem::forget(ends);
    Ok(fds)
}

fn current(signal: i32) -> io::Result<libc::sigaction> {
    let mut action = MaybeUninit::uninit();
    // SAFETY: room for one action; it is whole when the call succeeds.
    unsafe {
        super::check(libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()))?;
        Ok(action.assume_init())
    }
}

fn install(signal: i32, action: &libc::sigaction) -> io::Result<()> {
    // SAFETY: a whole action, whose handler lives as long as the process (-z nodelete).
    super::check(unsafe { libc::sigaction(signal, action, std::ptr::null_mut()) }).map(drop)
}

fn is_ours(action: &libc::sigaction) -> bool {
    action.sa_sigaction == handler as *const () as usize
}

fn keep_programs(action: &libc::sigaction) {
    if is_ours(action) {
        // Left by a door that could not be closed: what it kept still holds.
        return;
    }
    // SAFETY: under the lock of `open`.
    unsafe { (*PROGRAMS.0.get()).write(*action) };
    PROGRAM.keep(action);
}

/// Puts the program's handler back if ours is there. False if it is not.
fn restore(signal: i32) -> bool {
    match current(signal) {
        // SAFETY: under the caller's lock; it was filled before ours was installed.
        Ok(there) if is_ours(&there) => install(signal, unsafe { (*PROGRAMS.0.get()).assume_init_ref() }).is_ok(),
        _ => false,
    }
}

/// Our action: it interrupts calls and blocks signals only as the program's own does.
fn ours(programs: &libc::sigaction) -> libc::sigaction {
    let mut action = *programs;
    action.sa_sigaction = handler as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    if programs.sa_sigaction == libc::SIG_DFL || programs.sa_sigaction == libc::SIG_IGN {
        // SAFETY: a plain set.
        unsafe { libc::sigemptyset(&mut action.sa_mask) };
        action.sa_flags |= libc::SA_RESTART;
    } else {
        action.sa_flags |= programs.sa_flags & libc::SA_RESTART;
    }
    action
}

/// How it is with the door in this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nobody has armed it.
    Closed,
    Armed,
    /// The program has put another handler in place of ours.
    Replaced,
}

pub fn state() -> State {
    if EPOCH.load(Ordering::Acquire) != fork::epoch() || !ARMED.load(Ordering::Acquire) {
        return State::Closed;
    }
    match current(SIGNAL.load(Ordering::Relaxed)) {
        Ok(there) if is_ours(&there) => State::Armed,
        _ => State::Replaced,
    }
}

/// The signal in use.
pub fn signal() -> i32 {
    SIGNAL.load(Ordering::Relaxed)
}

/// Whether text comes after the record, ended by a zero byte.
pub fn is_late() -> bool {
    LATE.load(Ordering::Relaxed) && DUMPER.address.load(Ordering::Relaxed) != libc::SIG_DFL
}

/// The reading end, for a poll; below 0 if there is none.
pub fn read_fd() -> RawFd {
    READ_FD.load(Ordering::Relaxed)
}

/// The right to ask and to read: one I/O thread at a time has it.
#[derive(Debug)]
pub struct Claim {
    epoch: u32,
}

impl Claim {
    pub fn take() -> Option<Self> {
        let free = CLAIMED.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok();
        free.then(|| Claim { epoch: fork::epoch() })
    }

    /// Has the signal sent to a thread of this process. The ask's number.
    pub fn ask(&self, tid: i32) -> io::Result<u32> {
        let ask = ASKS.fetch_add(1, Ordering::Relaxed).wrapping_add(1).max(1);
        ASKED.store(ask, Ordering::SeqCst);
        self.ask_again(ask, tid)?;
        Ok(ask)
    }

    /// The same ask once more: of signals of one number, a thread keeps one.
    pub fn ask_again(&self, ask: u32, tid: i32) -> io::Result<()> {
        // SAFETY: no arguments.
        let (pid, uid) = unsafe { (libc::getpid(), libc::getuid()) };
        let info = Info {
            signal: signal(),
            error: 0,
            code: libc::SI_QUEUE,
            _gap: 0,
            pid,
            uid,
            value: COOKIE << 32 | u64::from(ask),
            _rest: [0; 12],
        };
        // SAFETY: `info` is a whole siginfo_t. The system refuses a thread that is not of this process.
        let sent = unsafe { libc::syscall(libc::SYS_rt_tgsigqueueinfo, pid, tid, signal(), &raw const info) };
        super::check(sent as libc::c_int).map(drop)
    }

    /// Nobody need answer any more.
    pub fn withdraw(&self) {
        ASKED.store(0, Ordering::SeqCst);
    }

    /// Reads what is in the pipe. WouldBlock when there is no more.
    pub fn read(&self, into: &mut [u8]) -> io::Result<usize> {
        // SAFETY: writable bytes, and a descriptor that is open for as long as the process lives.
        let count = unsafe { libc::read(read_fd(), into.as_mut_ptr().cast(), into.len()) };
        usize::try_from(count).map_err(|_| io::Error::last_os_error())
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if self.epoch == fork::epoch() {
            self.withdraw();
            CLAIMED.store(false, Ordering::Release);
        }
    }
}

/// siginfo_t of a signal that was queued, as 64-bit Linux has it.
#[repr(C)]
struct Info {
    signal: i32,
    error: i32,
    code: i32,
    _gap: i32,
    pid: i32,
    uid: u32,
    value: u64,
    _rest: [u64; 12],
}

/// The ask that a signal carries; None if it is a stranger's.
fn ask_of(info: *const libc::siginfo_t) -> Option<u32> {
    // SAFETY: the system hands a whole siginfo_t to a handler with SA_SIGINFO; a program that calls this handler itself
    // without one is checked for NULL.
    let info = unsafe { info.cast::<Info>().as_ref() }?;
    // SAFETY: no arguments.
    let own = info.code == libc::SI_QUEUE && info.pid == unsafe { libc::getpid() };
    (own && info.value >> 32 == COOKIE).then_some(info.value as u32)
}

extern "C" fn handler(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the thread's own errno.
    let errno = unsafe { *libc::__errno_location() };
    match ask_of(info) {
        None => pass(&PROGRAM, signal, info, context),
        Some(ask) if EPOCH.load(Ordering::Acquire) == fork::epoch() => {
            // Whoever is asked twice answers once.
            if ask != 0 && ASKED.compare_exchange(ask, 0, Ordering::SeqCst, Ordering::Relaxed).is_ok() {
                answer(ask, signal, info, context);
            }
        }
        Some(_) => {}
    }
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
}

/// Calls a handler as the system would have.
fn pass(slot: &Slot, signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    match slot.address.load(Ordering::Acquire) {
        libc::SIG_IGN => {}
        libc::SIG_DFL => by_default(signal),
        address if slot.flags.load(Ordering::Relaxed) & libc::SA_SIGINFO != 0 => {
            type Three = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);
            // SAFETY: sigaction told this address together with SA_SIGINFO.
            let call = unsafe { std::mem::transmute::<usize, Three>(address) };
            call(signal, info, context);
        }
        address => {
            // SAFETY: sigaction told this address without SA_SIGINFO.
            let call = unsafe { std::mem::transmute::<usize, extern "C" fn(libc::c_int)>(address) };
            call(signal);
        }
    }
}

/// What the signal does where no handler is: nothing, or the process's end.
fn by_default(signal: libc::c_int) {
    if signal == libc::SIGURG || signal == libc::SIGWINCH {
        return;
    }
    // SAFETY: both calls are async-signal-safe. The signal is blocked while its handler runs, and ends the process
    // right after it.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        libc::raise(signal);
    }
}

/// Writes everything there is to tell.
fn answer(ask: u32, signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let fd = WRITE_FD.load(Ordering::Relaxed);
    // SAFETY: no arguments.
    let tid = unsafe { libc::syscall(libc::SYS_gettid) } as u64;
    let record = |kind, words: [u64; 4]| {
        let [a, b, c, d] = words;
        let words: [u64; RECORD_WORDS] = [MAGIC, kind, u64::from(ask), tid, a, b, c, d];
        write(fd, words.as_ptr() as usize, RECORD_WORDS * 8)
    };
    if !record(BEGIN, [0; 4]) {
        return;
    }
    if DUMPER.address.load(Ordering::Relaxed) != libc::SIG_DFL {
        pass(&DUMPER, signal, info, context);
    }
    // SAFETY: the system hands the context of what it interrupted to a handler with SA_SIGINFO.
    let registers = unsafe { registers(context.cast()) };
    record(REGISTERS, registers);
    let copied = copy_stack(fd, registers[1] as usize);
    record(END, [copied as u64, 0, 0, 0]);
}

/// Program counter, stack pointer, frame pointer, link register.
///
/// # Safety
/// `context` is NULL or what the system gave to a handler.
#[cfg(target_arch = "x86_64")]
unsafe fn registers(context: *const libc::ucontext_t) -> [u64; 4] {
    // SAFETY: the caller's promise.
    let Some(context) = (unsafe { context.as_ref() }) else { return [0; 4] };
    let of = |register: libc::c_int| context.uc_mcontext.gregs[register as usize] as u64;
    [of(libc::REG_RIP), of(libc::REG_RSP), of(libc::REG_RBP), 0]
}

#[cfg(target_arch = "aarch64")]
unsafe fn registers(context: *const libc::ucontext_t) -> [u64; 4] {
    // SAFETY: the caller's promise.
    let Some(context) = (unsafe { context.as_ref() }) else { return [0; 4] };
    let machine = &context.uc_mcontext;
    [machine.pc, machine.sp, machine.regs[29], machine.regs[30]]
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
unsafe fn registers(_context: *const libc::ucontext_t) -> [u64; 4] {
    [0; 4]
}

/// Copies a stack from its innermost byte outwards, a page at a time, until it ends or the pipe is full.
fn copy_stack(fd: RawFd, from: usize) -> usize {
    let mut at = from;
    while at != 0 && at - from < STACK_BYTES {
        let bytes = CHUNK - at % CHUNK;
        if !write(fd, at, bytes) {
            break;
        }
        at += bytes;
    }
    at - from
}

/// All or nothing; never waits. By the bare system call: a sanitizer would take the copy of a stack for a fault.
fn write(fd: RawFd, address: usize, bytes: usize) -> bool {
    // SAFETY: the system checks the address; what is not there is an error.
    let written = unsafe { libc::syscall(libc::SYS_write, fd, address, bytes) };
    written == bytes as libc::c_long
}
