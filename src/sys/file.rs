//! Files that are read: opened as the library's own, so that no child that is forked meanwhile keeps them.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

use super::check;
use super::fork;
use super::owned::Owned;

/// Opens to read. It must be a plain file or a folder: another kind might make the caller wait.
pub fn open(path: impl AsRef<Path>) -> io::Result<Owned<File>> {
    Owned::make(|| File::open(path))
}

/// What stands in a file, up to `bytes_max` of it.
pub fn read(path: impl AsRef<Path>, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.take(bytes_max).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The names in a folder of the system's (`/proc`, `/sys`), up to `count_max` of them.
pub fn names(folder: impl AsRef<Path>, count_max: usize) -> io::Result<Vec<String>> {
    fork::exclusive(|| {
        let entries = std::fs::read_dir(folder)?.flatten();
        Ok(entries.filter_map(|entry| entry.file_name().into_string().ok()).take(count_max).collect())
    })
}

/// Opens to write at its end, and makes it where it is missing, for its owner to write and its group to read.
pub fn append(path: impl AsRef<Path>) -> io::Result<Owned<File>> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = File::options();
    options.append(true).create(true).mode(0o640).custom_flags(libc::O_NONBLOCK);
    Owned::make(|| options.open(path))
}

/// What polls as ready to be written takes a few bytes without blocking.
pub fn takes_bytes(file: &File) -> bool {
    let mut poll = libc::pollfd { fd: file.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
    // SAFETY: one pollfd, which outlives the call; it does not wait.
    unsafe { libc::poll(&mut poll, 1, 0) == 1 }
}

/// Another descriptor of a file that the program has open.
pub fn duplicate(fd: RawFd) -> io::Result<Owned<File>> {
    Owned::make(|| {
        // SAFETY: any number may be asked for; one that is not open is an error.
        let copy = check(unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 0) })?;
        // SAFETY: just made, and nobody else's.
        Ok(File::from(unsafe { OwnedFd::from_raw_fd(copy) }))
    })
}

/// Sends up to `count` bytes of a file to a socket (sendfile(2)): how many it took; 0 at the file's end.
pub fn send(socket: BorrowedFd<'_>, file: BorrowedFd<'_>, offset: u64, count: usize) -> io::Result<usize> {
    let mut from = i64::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: both descriptors are open for the call, and `from` outlives it.
    let sent = unsafe { libc::sendfile(socket.as_raw_fd(), file.as_raw_fd(), &mut from, count) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// Reads at an offset, wherever the file stands.
pub fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, buffer, offset)
}

impl Read for Owned<File> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (**self).read(buffer)
    }
}

impl Seek for Owned<File> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        (**self).seek(to)
    }
}
