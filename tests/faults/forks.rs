//! Forks under load: the child is told at once, the parent notices nothing, the server sees conns end when they end.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use iokernel::ffi::channel::{iok_channel_close, iok_channel_fd, iok_flush};
use iokernel::ffi::kernel::iok_kernel_close;
use iokernel::ffi::record::{iok_poll, iok_reserve};
use iokernel::ring::layout::*;
use iokernel::status::*;

use crate::alone::alone;
use crate::client::{Channel, Kernel, LONG, PLAIN};
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
