//! Forks under load: the child is told at once, the parent notices nothing, the server sees conns end when they end.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use iokernel::ffi::channel::{iok_channel_close, iok_channel_fd, iok_flush};
use iokernel::ffi::kernel::iok_kernel_close;
use iokernel::ffi::record::{iok_poll, iok_reserve};
use iokernel::ring::layout::*;
use iokernel::status::*;

use crate::alone::{alone, soak};
use crate::client::{Channel, Kernel, LONG, PLAIN};
use crate::record::Recorder;
use crate::redis_or_skip;

/// What the child finds: 0, or the number of the check that failed. It allocates as little as it can, because other
/// threads may have held locks when it was made.
fn in_child(kernel: &Kernel, channel: &Channel) -> i32 {
    // SAFETY: handles of the parent's, which the library must know as such; valid places.
    unsafe {
        let (mut first, mut bytes, mut place) = (std::ptr::null(), 0, std::ptr::null_mut());
        let checks = [
            iok_flush(channel.handle) == IOK_STATUS_FORKED,
            iok_reserve(channel.handle, 8, &mut place) == IOK_STATUS_FORKED,
            iok_poll(channel.handle, &mut first, &mut bytes) == 0 && bytes == 0,
            iok_channel_fd(channel.handle) == -1,
            iok_channel_close(channel.handle) == IOK_STATUS_FORKED,
            iok_kernel_close(kernel.0, 0) == IOK_STATUS_FORKED,
        ];
        checks.iter().position(|held| !held).map_or(0, |at| at as i32 + 1)
    }
}

fn fork(child: impl FnOnce() -> i32) -> i32 {
    // SAFETY: the child runs `child` and leaves without destructors.
    unsafe {
        match libc::fork() {
            -1 => panic!("fork failed"),
            0 => libc::_exit(child()),
            pid => pid,
        }
    }
}

fn wait_for(pid: i32) -> i32 {
    let mut status = 0;
    let deadline = Instant::now() + LONG;
    // SAFETY: a child of ours, and a valid place.
    while unsafe { libc::waitpid(pid, &mut status, libc::WNOHANG) } == 0 {
        assert!(Instant::now() < deadline, "the child hangs");
        std::thread::sleep(Duration::from_millis(1));
    }
    if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { 1000 + libc::WTERMSIG(status) }
}

#[test]
fn a_child_is_told_and_the_parent_notices_nothing() {
    alone("forks::a_child_is_told_and_the_parent_notices_nothing", || {
        let server = redis_or_skip!();
        let kernel = Kernel::start();
        let mut channel = kernel.channel("").unwrap();
        let endpoint = channel.open(&server.url("")).unwrap();
        channel.until_up(endpoint);
        let over = AtomicBool::new(false);
        let calls = std::thread::scope(|scope| {
            let loads: Vec<_> = (0..3)
                .map(|_| {
                    scope.spawn(|| {
                        let mut channel = kernel.channel("ring=64KiB").unwrap();
                        let mut calls = 0;
                        while !over.load(Ordering::SeqCst) {
                            let word = format!("word-{calls}");
                            assert_eq!(channel.call(endpoint, PLAIN, &["ECHO", &word]).ok().text(), word);
                            calls += 1;
                        }
                        calls
                    })
                })
                .collect();
            for _ in 0..100 {
                let pid = fork(|| in_child(&kernel, &channel));
                channel.call(endpoint, PLAIN, &["INCR", "n"]).ok();
                assert_eq!(wait_for(pid), 0, "this check of the child failed");
            }
            over.store(true, Ordering::SeqCst);
            loads.into_iter().map(|load| load.join().unwrap()).sum::<usize>()
        });
        assert!(calls > 100);
        assert_eq!(server.direct().call(&["GET", "n"]).int(), 100);
    });
}

#[test]
fn a_child_opens_its_own_kernel() {
    alone("forks::a_child_opens_its_own_kernel", || {
        let server = redis_or_skip!();
        let kernel = Kernel::start();
        let mut channel = kernel.channel("").unwrap();
        let endpoint = channel.open(&server.url("")).unwrap();
        channel.call(endpoint, PLAIN, &["SET", "k", "parent"]).ok();
        let url = server.url("");
        let pid = fork(|| {
            let kernel = Kernel::open("name=child").unwrap();
            let mut channel = kernel.channel("").unwrap();
            let endpoint = channel.open(&url).unwrap();
            let seen = channel.call(endpoint, PLAIN, &["GET", "k"]).ok().text();
            channel.call(endpoint, PLAIN, &["SET", "k", "child"]).ok();
            let closed = kernel.close(Duration::ZERO);
            i32::from(seen != "parent" || closed != IOK_STATUS_OK)
        });
        assert_eq!(wait_for(pid), 0);
        assert_eq!(channel.call(endpoint, PLAIN, &["GET", "k"]).ok().text(), "child");
    });
}

/// A child holds copies of the sockets; a conn that the parent drops ends nonetheless.
#[test]
fn a_child_keeps_no_conn_open() {
    alone("forks::a_child_keeps_no_conn_open", || {
        let server = redis_or_skip!();
        let kernel = Kernel::start();
        let mut channel = kernel.channel("").unwrap();
        let endpoint = channel.open(&server.url("")).unwrap();
        let waiting = channel.request(endpoint, PLAIN, &["BLPOP", "list", "0"]);
        let mut direct = server.direct();
        let clients = |direct: &mut crate::redis::Direct, count: usize| {
            let deadline = Instant::now() + LONG;
            while direct.clients().len() != count {
                assert!(Instant::now() < deadline, "{:?}", direct.clients());
                std::thread::sleep(Duration::from_millis(2));
            }
        };
        clients(&mut direct, 2);
        let pid = fork(|| {
            std::thread::sleep(LONG);
            0
        });
        channel.cancel(waiting);
        assert_eq!(channel.done(waiting).status(), IOK_STATUS_CANCELLED);
        clients(&mut direct, 1);
        direct.call(&["RPUSH", "list", "kept"]);
        assert_eq!(direct.call(&["LLEN", "list"]).int(), 1);
        let close = channel.ask(IOK_OP_CLOSE, endpoint, PLAIN, &[]);
        channel.done(close).ok();
        clients(&mut direct, 0);
        // SAFETY: a child of ours.
        unsafe { libc::kill(pid, libc::SIGKILL) };
        wait_for(pid);
    });
}

/// Ends the loads of a test, also when it fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// How a child ends.
#[derive(Clone, Copy)]
enum End {
    /// Without a destructor or an exit handler.
    AtOnce,
    /// As a program does that returns from main.
    Normal,
}

fn fork_and(end: End, child: impl FnOnce() -> i32) -> i32 {
    // At its exit, the leak checker takes what the parent's threads held for lost.
    let end = if std::env::var_os("IOKERNEL_SANITIZER").is_some() { End::AtOnce } else { end };
    // SAFETY: both ways of leaving run no more than `child` and what the program registered.
    fork(|| match end {
        End::AtOnce => child(),
        End::Normal => unsafe { libc::exit(child()) },
    })
}

/// A kernel, an endpoint and two requests of a child's own. 0, or the number of what was wrong.
fn use_the_library(url: &str, key: &str) -> i32 {
    let Ok(kernel) = Kernel::open("name=child") else { return 1 };
    let Ok(mut channel) = kernel.channel("ring=64KiB") else { return 2 };
    let Ok(endpoint) = channel.open(url) else { return 3 };
    let value = "v".repeat(10_000);
    if channel.call(endpoint, PLAIN, &["SET", key, &value]).status() != IOK_STATUS_OK {
        return 4;
    }
    if channel.call(endpoint, PLAIN, &["GET", key]).ok().text() != value {
        return 5;
    }
    if kernel.close(Duration::ZERO) == IOK_STATUS_OK { 0 } else { 6 }
}

/// Keeps the I/O thread and the program allocating: replies of many sizes, and endpoints that come and go. What it said
/// on the conn of `endpoint`.
fn allocate(kernel: &Kernel, endpoint: u32, url: &str, word: &str, over: &AtomicBool) -> Vec<String> {
    let mut channel = kernel.channel("ring=256KiB").unwrap();
    let mut said = Vec::new();
    while !over.load(Ordering::SeqCst) {
        let text = format!("{word}-{}-{}", said.len(), "x".repeat(fastrand::usize(0..200)));
        assert_eq!(channel.call(endpoint, PLAIN, &["ECHO", &text]).ok().text(), text);
        said.push(text);
        if said.len().is_multiple_of(16) {
            let other = channel.open(url).unwrap();
            let large = "x".repeat(fastrand::usize(0..400_000));
            assert_eq!(channel.call(other, PLAIN, &["ECHO", &large]).ok().text().len(), large.len());
            let close = channel.ask(IOK_OP_CLOSE, other, PLAIN, &[]);
            channel.done(close).ok();
        }
    }
    said
}

/// Forks come while the I/O thread and the program allocate, free, open and close. Each child uses the library at once;
/// what the parent's conn carried was what the parent said, to the byte.
#[test]
fn forks_under_load_harm_neither_side() {
    alone("forks::forks_under_load_harm_neither_side", || {
        let server = redis_or_skip!();
        let recorder = Recorder::start(server.port);
        let kernel = Kernel::start();
        let mut channel = kernel.channel("").unwrap();
        let url = server.url("");
        let endpoint = channel.open(&recorder.url()).unwrap();
        let id = channel.call(endpoint, PLAIN, &["CLIENT", "ID"]).ok().int();
        let over = AtomicBool::new(false);
        let rounds = if soak() { 10_000 } else { 1000 };
        let said = std::thread::scope(|scope| {
            let loads = ["a", "b"].map(|word| {
                let (kernel, url, over) = (&kernel, &url, &over);
                scope.spawn(move || allocate(kernel, endpoint, url, word, over))
            });
            let stop = Over(&over);
            for round in 0..rounds {
                let end = if round % 4 == 0 { End::Normal } else { End::AtOnce };
                let pid = fork_and(end, || use_the_library(&url, &format!("child:{round}")));
                assert_eq!(wait_for(pid), 0, "what the child said in round {round}");
            }
            drop(stop);
            loads.into_iter().flat_map(|load| load.join().unwrap()).collect::<Vec<_>>()
        });
        assert_eq!(channel.call(endpoint, PLAIN, &["CLIENT", "ID"]).ok().int(), id, "the conn is the same");
        assert_eq!(recorder.conns(), 1);
        let mut heard = recorder.words("ECHO");
        let mut said: Vec<Vec<u8>> = said.into_iter().map(String::into_bytes).collect();
        assert!(said.len() > rounds / 10, "there was a load");
        heard.sort();
        said.sort();
        assert!(heard == said, "{} were said and {} heard", said.len(), heard.len());
        for round in [0, rounds - 1] {
            assert_eq!(server.direct().call(&["STRLEN", &format!("child:{round}")]).int(), 10_000);
        }
    });
}

/// The descriptors of this process: number and what it stands for.
fn descriptors() -> Vec<(i32, String)> {
    let folder = std::fs::read_dir("/proc/self/fd").unwrap();
    let each = folder.filter_map(|entry| {
        let entry = entry.ok()?;
        let target = std::fs::read_link(entry.path()).ok()?.to_string_lossy().into_owned();
        Some((entry.file_name().to_string_lossy().parse().ok()?, target))
    });
    // A sanitizer talks to its symbolizer by pipes, which it opens when it likes; the library makes none.
    let sanitized = std::env::var_os("IOKERNEL_SANITIZER").is_some();
    let passed_over = |target: &str| target.starts_with("/proc/") || sanitized && target.starts_with("pipe:");
    let mut all: Vec<(i32, String)> = each.filter(|(_, target)| !passed_over(target)).collect();
    all.sort();
    all
}

#[test]
fn a_child_has_no_descriptor_of_ours() {
    alone("forks::a_child_has_no_descriptor_of_ours", || {
        let server = redis_or_skip!();
        // The area of metrics is the one thing of ours that children keep.
        drop(Kernel::start());
        let before = descriptors();
        let kernel = Kernel::start();
        let url = server.url("backoff=1ms");
        let mut channel = kernel.channel("").unwrap();
        let endpoint = channel.open(&url).unwrap();
        let tag = channel.ask(IOK_OP_LISTEN, 0, PLAIN, b"redis://127.0.0.1:0");
        channel.done(tag).ok();
        // A name that nobody answers for, so that sockets to a name server are open too.
        channel.open("redis://no.such.name.invalid").unwrap();
        channel.until_up(endpoint);
        assert!(descriptors().len() >= before.len() + 6, "{:?}", descriptors());
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| allocate(&kernel, endpoint, &url, "w", &over));
            scope.spawn(|| {
                while !over.load(Ordering::SeqCst) {
                    let other = Kernel::start();
                    drop(other.channel("ring=64KiB").unwrap());
                }
            });
            let _stop = Over(&over);
            for round in 0..if soak() { 10_000 } else { 1000 } {
                let pid = fork(|| {
                    let left = descriptors();
                    let is_ours = |one: &&(i32, String)| !before.contains(one);
                    left.iter().filter(is_ours).for_each(|one| eprintln!("open in a child: {one:?}"));
                    i32::from(left != before)
                });
                assert_eq!(wait_for(pid), 0, "other descriptors than {before:?} in the child of round {round}");
            }
        });
    });
}

/// Numbers of ours that the child's own files have taken are the child's: nothing of the parent's closes them.
#[test]
fn files_of_a_child_are_left_alone() {
    alone("forks::files_of_a_child_are_left_alone", || {
        let server = redis_or_skip!();
        let kernel = Kernel::start();
        let mut channel = kernel.channel("").unwrap();
        let endpoint = channel.open(&server.url("")).unwrap();
        channel.call(endpoint, PLAIN, &["PING"]).ok();
        let (url, ours) = (server.url(""), descriptors().len());
        let pid = fork(|| {
            let open = || std::fs::File::create(std::env::temp_dir().join(format!("iok-{}", std::process::id())));
            let mut files: Vec<std::fs::File> = (0..2 * ours).map(|_| open().unwrap()).collect();
            let stale = in_child(&kernel, &channel);
            let fresh = use_the_library(&url, "files");
            let whole = files.iter_mut().all(|file| std::io::Write::write_all(file, b"mine").is_ok());
            let _ = std::fs::remove_file(std::env::temp_dir().join(format!("iok-{}", std::process::id())));
            stale * 100 + fresh * 10 + i32::from(!whole)
        });
        assert_eq!(wait_for(pid), 0);
        channel.call(endpoint, PLAIN, &["PING"]).ok();
    });
}

/// Other programs get nothing of ours, whether they were started by fork and exec or by a spawn without our handlers.
#[test]
fn other_programs_get_no_descriptor_of_ours() {
    alone("forks::other_programs_get_no_descriptor_of_ours", || {
        let server = redis_or_skip!();
        let list = || {
            let output = std::process::Command::new("ls").args(["-l", "/proc/self/fd"]).output().unwrap();
            let text = String::from_utf8(output.stdout).unwrap();
            let names = text.lines().filter_map(|line| line.split(" -> ").nth(1));
            let ours = |name: &&str| ["socket:", "anon_inode:", "/memfd:"].iter().any(|kind| name.starts_with(kind));
            names.filter(ours).map(str::to_string).collect::<Vec<_>>()
        };
        let before = list();
        let kernel = Kernel::start();
        let mut channel = kernel.channel("").unwrap();
        let endpoint = channel.open(&server.url("")).unwrap();
        channel.call(endpoint, PLAIN, &["PING"]).ok();
        for _ in 0..20 {
            assert_eq!(list(), before);
        }
    });
}
