//! Whether a file is still the one that was read.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Changes when a file is written or replaced, or when a symlink comes to name another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
}

impl Stamp {
    /// What the path leads to; only regular files are read.
    pub fn of(path: &Path) -> io::Result<Self> {
        let meta: Metadata = std::fs::metadata(path)?;
        if !meta.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        let modified = (meta.mtime(), meta.mtime_nsec());
        Ok(Stamp { device: meta.dev(), inode: meta.ino(), bytes: meta.size(), modified })
    }

    /// The same file, whatever is written in it.
    pub fn is_same_file(&self, other: &Stamp) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }
}
