//! A sealed memfd, mapped so that each ring area lies twice in a row: what wraps in the file is contiguous in memory.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;

use super::owned::Owned;

/// Every size is a multiple of this. 64 KiB serves each page size of the supported machines.
pub const PAGE_BYTES: usize = 1 << 16;

/// One page, then two mirrored areas: `[page][first][first again][second][second again]`.
#[derive(Debug)]
pub struct MirroredMap {
    base: NonNull<u8>,
    mapped_bytes: usize,
    first_bytes: usize,
    epoch: u32,
    _file: Owned<OwnedFd>,
}

// SAFETY: the mapping is plain memory with a fixed address; who may read and write what is the ring's business.
unsafe impl Send for MirroredMap {}
// SAFETY: as above.
unsafe impl Sync for MirroredMap {}

impl MirroredMap {
    /// `first_bytes` and `second_bytes` are powers of two and multiples of [`PAGE_BYTES`].
    pub fn new(first_bytes: usize, second_bytes: usize) -> io::Result<Self> {
        assert!(first_bytes.is_power_of_two() && first_bytes.is_multiple_of(PAGE_BYTES));
        assert!(second_bytes.is_power_of_two() && second_bytes.is_multiple_of(PAGE_BYTES));
        let file = Owned::make(|| sealed_memfd(PAGE_BYTES + first_bytes + second_bytes))?;
        let mapped_bytes = PAGE_BYTES + 2 * first_bytes + 2 * second_bytes;
        let fork_safe = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a fresh anonymous mapping, at an address that the system chooses.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), mapped_bytes, libc::PROT_NONE, fork_safe, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast::<u8>()).ok_or_else(io::Error::last_os_error)?;
        let map = MirroredMap { base, mapped_bytes, first_bytes, epoch: super::fork::epoch(), _file: file };
        let second_at = PAGE_BYTES + first_bytes;
        let views = [
            (0, 0, PAGE_BYTES),
            (PAGE_BYTES, PAGE_BYTES, first_bytes),
            (second_at, PAGE_BYTES, first_bytes),
            (second_at + first_bytes, second_at, second_bytes),
            (second_at + first_bytes + second_bytes, second_at, second_bytes),
        ];
        for (at, offset, bytes) in views {
            map.view(at, offset, bytes)?;
        }
        if !super::fork::register(map.base.as_ptr() as usize, mapped_bytes) {
            // SAFETY: the range was mapped above. A child then has no such range at all.
            unsafe { libc::madvise(map.base.as_ptr().cast(), mapped_bytes, libc::MADV_DONTFORK) };
        }
        Ok(map)
    }

    fn view(&self, at: usize, offset: usize, bytes: usize) -> io::Result<()> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_FIXED;
        // SAFETY: `at + bytes` lies inside the range reserved by `new`, which nobody else uses yet.
        let view = unsafe {
            let place = self.base.as_ptr().add(at).cast();
            libc::mmap(place, bytes, access, flags, self._file.as_raw_fd(), offset as libc::off_t)
        };
        if view == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Start of the page; [`PAGE_BYTES`] long, zeros at first.
    pub fn page(&self) -> NonNull<u8> {
        self.base
    }

    /// Start of the first area; twice its size may be read and written from here.
    pub fn first(&self) -> NonNull<u8> {
        // SAFETY: inside the mapping.
        unsafe { self.base.add(PAGE_BYTES) }
    }

    /// Start of the second area; twice its size may be read and written from here.
    pub fn second(&self) -> NonNull<u8> {
        // SAFETY: inside the mapping.
        unsafe { self.base.add(PAGE_BYTES + 2 * self.first_bytes) }
    }
}

impl Drop for MirroredMap {
    fn drop(&mut self) {
        if self.epoch == super::fork::epoch() {
            super::fork::unregister(self.base.as_ptr() as usize);
        }
        // SAFETY: this range was mapped by `new` (or laid over by `blank`), and nobody holds a pointer into it.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.mapped_bytes) };
    }
}

fn sealed_memfd(bytes: usize) -> io::Result<OwnedFd> {
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    // SAFETY: the name is a C string; the descriptor returned is owned by nobody else.
    let fd = super::check(unsafe { libc::memfd_create(c"iokernel".as_ptr(), flags) })?;
    // SAFETY: `fd` was just made.
    let file = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: plain numbers.
    super::check(unsafe { libc::ftruncate(fd, bytes as libc::off_t) })?;
    let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
    // SAFETY: plain numbers.
    super::check(unsafe { libc::fcntl(fd, libc::F_ADD_SEALS, seals) })?;
    Ok(file)
}

/// In a forked child: lays private zero pages over a range, so that it is the parent's no more. One system call, fit
/// for the moment right after a fork.
pub(super) fn blank(start: usize, bytes: usize) {
    let access = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED | libc::MAP_NORESERVE;
    // SAFETY: the range is one of our regions, registered by its owner and not yet unmapped.
    unsafe { libc::mmap(start as *mut libc::c_void, bytes, access, flags, -1, 0) };
}
