//! Files that are read: opened as the library's own, so that no child that is forked meanwhile keeps them.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

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
