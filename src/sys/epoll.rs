//! epoll: waiting for what was registered with a poll, by more than one thread at a time. mio registers; its own wait
//! lets one thread in.

use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

use super::mask::Held;

/// Readiness of one registered descriptor, as epoll(7) tells it.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Event(libc::epoll_event);

impl Event {
    pub const NONE: Event = Event(libc::epoll_event { events: 0, u64: 0 });

    fn has(&self, bits: i32) -> bool {
        self.0.events & bits as u32 != 0
    }

    /// The token under which it was registered.
    pub fn token(&self) -> usize {
        self.0.u64 as usize
    }

    pub fn is_readable(&self) -> bool {
        self.has(libc::EPOLLIN | libc::EPOLLPRI)
    }

    pub fn is_writable(&self) -> bool {
        self.has(libc::EPOLLOUT)
    }

    pub fn is_error(&self) -> bool {
        self.has(libc::EPOLLERR)
    }

    /// The peer sends nothing more.
    pub fn is_read_closed(&self) -> bool {
        self.has(libc::EPOLLHUP) || self.has(libc::EPOLLIN) && self.has(libc::EPOLLRDHUP)
    }
}

/// Waits until something is ready, at most for `timeout`, rounded up to milliseconds. How many events there are; an error
/// of the kind `Interrupted` if a signal came. Of threads that wait at once, the one that came last is woken first.
///
/// `signals`: the thread takes those that it has held back, but only while it waits.
pub fn wait(poll: RawFd, events: &mut [Event], timeout: Option<Duration>, signals: Option<&Held>) -> io::Result<usize> {
    let timeout = timeout.map_or(-1, |span| {
        let ms = span.as_nanos().div_ceil(1_000_000);
        libc::c_int::try_from(ms).unwrap_or(libc::c_int::MAX)
    });
    let signals = signals.map_or(std::ptr::null(), Held::before);
    // SAFETY: `Event` is an epoll_event; there is room for as many as are asked for; the set outlives the call. Not the
    // function of the C library: that one is a place where a thread may be cancelled.
    let result = unsafe {
        let (room, set_bytes) = (events.len() as libc::c_int, super::mask::SET_BYTES);
        libc::syscall(libc::SYS_epoll_pwait, poll, events.as_mut_ptr(), room, timeout, signals, set_bytes)
    };
    super::check(result as libc::c_int).map(|count| count as usize)
}
