//! The only room that calls libc. Linux; what another system needs differently goes here and nowhere else.
//!
//! # Architecture invariants
//! Each function is one or two system calls. Nothing here knows rings, protocols or endpoints. Whatever has a
//! descriptor, in any room, is an [`owned::Owned`], so that forked children are rid of it.

pub mod clock;
pub mod epoll;
pub mod event;
pub mod file;
pub mod fork;
pub mod futex;
pub mod map;
pub mod marker;
pub mod mask;
pub mod owned;
pub mod process;
pub mod shared;
pub mod signal;
pub mod socket;
pub mod thread;

use std::io;

/// `-1` becomes the error that errno names.
pub(crate) fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// True for EMFILE and ENFILE: no file descriptor is left.
pub fn out_of_files(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

/// Takes a file or folder for this descriptor alone among those who ask for that; WouldBlock if another has it. It is
/// given back when the descriptor closes.
pub fn lock(file: &std::fs::File) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    // SAFETY: the descriptor is open for as long as `file` lives.
    check(unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) }).map(drop)
}

/// The user whose rights this process has.
pub fn user_id() -> u32 {
    // SAFETY: no arguments; it cannot fail.
    unsafe { libc::geteuid() }
}
