//! A file of memory that processes share: a common part, and a block for each of them.
//!
//! A process has its block by a lock on one byte of the file (POSIX record locks: they belong to the process, are not
//! inherited by its children, and go when it does). So a dead process's block is known by its missing lock, whatever
//! became of its pid, and is simply taken over by the next process, with all that was counted in it.
//!
//! The block is mapped at one address for the life of the process. A forked child takes a block of its own and maps it at
//! the very same address, before anything else runs: pointers into the block lead to the child's own words from then on.
//!
//! # Architecture invariants
//! A file stays open, mapped and locked for as long as the process lives: closing any descriptor of it would drop the
//! locks of all. It is the one thing of ours that forked children keep.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

use super::fork;
use super::map::PAGE_BYTES;

/// Files that one process may have.
const FILES_MAX: usize = 64;
static FILES: [AtomicPtr<SharedFile>; FILES_MAX] = [const { AtomicPtr::new(std::ptr::null_mut()) }; FILES_MAX];

/// No block.
const NONE: u32 = u32::MAX;
/// The lock of whoever speaks for all.
const LEADER: u32 = NONE - 1;

/// How a file is divided. Sizes are multiples of 64 KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    pub common_bytes: usize,
    pub block_bytes: usize,
    pub blocks_max: u32,
    /// The word of the common part that holds how many blocks were ever used.
    pub used_word: usize,
    /// Words of a block that a new owner finds as zeros, whatever the one before left.
    pub fresh_words: (usize, usize),
}

#[derive(Debug)]
pub struct SharedFile {
    file: File,
    layout: Layout,
    /// It has a path: its file system may be full, which a write to a mapping would learn by SIGBUS.
    reserves: bool,
    common: NonNull<u8>,
    own: NonNull<u8>,
    block: AtomicU32,
}

// SAFETY: the mappings live as long as the process; both are used as atomics only.
unsafe impl Send for SharedFile {}
// SAFETY: as above.
unsafe impl Sync for SharedFile {}

impl SharedFile {
    /// The file of that path (made with mode 0600 where there is none), or one without a name for this process and its
    /// children. A path that was opened before gives the same file.
    pub fn open(path: Option<&Path>, layout: Layout) -> io::Result<&'static SharedFile> {
        assert!(layout.common_bytes.is_multiple_of(PAGE_BYTES) && layout.block_bytes.is_multiple_of(PAGE_BYTES));
        fork::exclusive(|| {
            let file = std::mem::ManuallyDrop::new(open(path)?);
            if let Some(known) = known(&file)? {
                return Ok(known);
            }
            let Some(place) = FILES.iter().find(|place| place.load(Ordering::Relaxed).is_null()) else {
                return Err(io::Error::other(format!("{FILES_MAX} files are open already")));
            };
            let reserves = path.is_some();
            extend(&file, 0, layout.common_bytes, reserves)?;
            let shared = SharedFile {
                common: map(&file, 0, layout.common_bytes, None)?,
                own: nothing(layout.block_bytes, None)?,
                block: AtomicU32::new(NONE),
                file: std::mem::ManuallyDrop::into_inner(file),
                layout,
                reserves,
            };
            shared.claim();
            let shared: &'static mut SharedFile = Box::leak(Box::new(shared));
            place.store(shared, Ordering::Release);
            Ok(&*shared)
        })
    }

    /// The common part.
    pub fn common(&self) -> &[AtomicU64] {
        // SAFETY: mapped for the life of the process, aligned, and every bit pattern is a number.
        unsafe { std::slice::from_raw_parts(self.common.as_ptr().cast(), self.layout.common_bytes / 8) }
    }

    /// This process's block. In a forked child the same words are those of the child's block.
    pub fn own(&self) -> &[AtomicU64] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts(self.own.as_ptr().cast(), self.layout.block_bytes / 8) }
    }

    /// The number of this process's block. None if there was none left: what is counted then is its own alone.
    pub fn block(&self) -> Option<u32> {
        Some(self.block.load(Ordering::Relaxed)).filter(|block| *block != NONE)
    }

    pub fn file(&self) -> &File {
        &self.file
    }

    /// Takes the first block that no living process has. Fit for the moment right after a fork.
    fn claim(&self) {
        self.block.store(NONE, Ordering::Relaxed);
        let fd = self.file.as_raw_fd();
        let taken = (0..self.layout.blocks_max).find(|block| lock(fd, *block));
        let mapped = taken.filter(|block| self.map_block(*block).is_ok());
        let Some(block) = mapped else {
            // Words of nobody else. If even that fails, the ones before stay.
            let _ = nothing(self.layout.block_bytes, Some(self.own));
            return;
        };
        let (first, end) = self.layout.fresh_words;
        for word in &self.own()[first..end] {
            // Only what is not zero is written: pages that nobody used stay unused.
            if word.load(Ordering::Relaxed) != 0 {
                word.store(0, Ordering::Relaxed);
            }
        }
        self.block.store(block, Ordering::Relaxed);
        self.common()[self.layout.used_word].fetch_max(u64::from(block) + 1, Ordering::AcqRel);
    }

    fn map_block(&self, block: u32) -> io::Result<()> {
        let at = self.layout.common_bytes + block as usize * self.layout.block_bytes;
        extend(&self.file, at, self.layout.block_bytes, self.reserves)?;
        map(&self.file, at, self.layout.block_bytes, Some(self.own)).map(|_| ())
    }

    /// A living process has that block.
    pub fn is_live(&self, block: u32) -> bool {
        self.block() == Some(block) || is_locked(&self.file, block)
    }

    /// True for one of the processes that share the file: the one that speaks for all. When it ends, the next to ask is.
    pub fn is_leader(&self) -> bool {
        lock(self.file.as_raw_fd(), LEADER)
    }

    /// Lets another speak for all.
    pub fn resign(&self) {
        let range = libc::flock { l_type: libc::F_UNLCK as libc::c_short, ..range_of(LEADER) };
        // SAFETY: the range is valid for the call, which does not keep it.
        unsafe { libc::fcntl(self.file.as_raw_fd(), libc::F_SETLK, &range) };
    }
}

/// In a forked child: a block of its own for each file.
pub(super) fn follow() {
    for place in &FILES {
        // SAFETY: a place holds NULL or a leaked box, which lives as long as the process.
        if let Some(shared) = unsafe { place.load(Ordering::Relaxed).as_ref() } {
            shared.claim();
        }
    }
}

fn open(path: Option<&Path>) -> io::Result<File> {
    if let Some(path) = path {
        let flags = libc::O_CLOEXEC | libc::O_NOFOLLOW;
        let file = File::options().read(true).write(true).create(true).mode(0o600).custom_flags(flags).open(path)?;
        // SAFETY: no arguments.
        if file.metadata()?.uid() != unsafe { libc::geteuid() } {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "it belongs to another user"));
        }
        return Ok(file);
    }
    // SAFETY: the name is a C string; the descriptor returned is owned by nobody else.
    unsafe {
        let fd = super::check(libc::memfd_create(c"iokernel-metrics".as_ptr(), libc::MFD_CLOEXEC))?;
        Ok(File::from_raw_fd(fd))
    }
}

/// The same file, if this process has it open.
fn known(file: &File) -> io::Result<Option<&'static SharedFile>> {
    let new = file.metadata()?;
    for place in &FILES {
        // SAFETY: as in `follow`.
        let Some(shared) = (unsafe { place.load(Ordering::Relaxed).as_ref() }) else { continue };
        let old = shared.file.metadata()?;
        if (old.dev(), old.ino()) == (new.dev(), new.ino()) {
            return Ok(Some(shared));
        }
    }
    Ok(None)
}

/// Makes the file reach to the end of that range; never shorter, though others do the same.
fn extend(file: &File, at: usize, bytes: usize, reserve: bool) -> io::Result<()> {
    if reserve {
        // SAFETY: plain numbers.
        super::check(unsafe { libc::fallocate(file.as_raw_fd(), 0, at as libc::off_t, bytes as libc::off_t) })?;
    } else if file.metadata()?.len() < (at + bytes) as u64 {
        file.write_at(&[0], (at + bytes) as u64 - 1)?;
    }
    Ok(())
}

fn map(file: &File, at: usize, bytes: usize, over: Option<NonNull<u8>>) -> io::Result<NonNull<u8>> {
    place(bytes, over, libc::MAP_SHARED, file.as_raw_fd(), at)
}

/// Private words of no file.
fn nothing(bytes: usize, over: Option<NonNull<u8>>) -> io::Result<NonNull<u8>> {
    place(bytes, over, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE, -1, 0)
}

fn place(bytes: usize, over: Option<NonNull<u8>>, flags: i32, fd: i32, at: usize) -> io::Result<NonNull<u8>> {
    let (address, fixed) = over.map_or((std::ptr::null_mut(), 0), |over| (over.as_ptr().cast(), libc::MAP_FIXED));
    let access = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: either at an address that the system chooses, or over a mapping of ours of the same size.
    let mapped = unsafe { libc::mmap(address, bytes, access, flags | fixed, fd, at as libc::off_t) };
    if mapped == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(mapped.cast()).ok_or_else(io::Error::last_os_error)
}

/// Where the locks lie, beyond anything that is ever written.
const LOCKS_AT: i64 = 1 << 40;

fn range_of(block: u32) -> libc::flock {
    // SAFETY: plain data.
    let mut range: libc::flock = unsafe { std::mem::zeroed() };
    range.l_type = libc::F_WRLCK as libc::c_short;
    range.l_whence = libc::SEEK_SET as libc::c_short;
    range.l_start = LOCKS_AT + i64::from(block);
    range.l_len = 1;
    range
}

/// This process has the lock, from here on if not before.
fn lock(fd: i32, block: u32) -> bool {
    let range = range_of(block);
    // SAFETY: the range is valid for the call, which does not keep it.
    unsafe { libc::fcntl(fd, libc::F_SETLK, &range) == 0 }
}

/// Another process has the lock.
pub fn is_locked(file: &File, block: u32) -> bool {
    let mut range = range_of(block);
    // SAFETY: as above.
    let asked = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETLK, &mut range) };
    asked == 0 && range.l_type != libc::F_UNLCK as libc::c_short
}

/// Held by tests that fork: a child takes a block of every file of its process.
#[cfg(test)]
static FORKS: std::sync::Mutex<()> = std::sync::Mutex::new(());

/// For tests: forks; the child does its part and stays until the parent has done its own. `word` is shared, and 0.
#[cfg(test)]
pub fn beside_a_child(word: &AtomicU64, child: impl FnOnce(), parent: impl FnOnce()) {
    let _alone = FORKS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let wait_for = |value| {
        while word.load(Ordering::SeqCst) != value {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    };
    // SAFETY: the child uses atomics, sleeps and leaves; the parent waits for it.
    unsafe {
        let pid = libc::fork();
        if pid == 0 {
            child();
            word.store(1, Ordering::SeqCst);
            wait_for(2);
            libc::_exit(0);
        }
        wait_for(1);
        parent();
        word.store(2, Ordering::SeqCst);
        libc::waitpid(pid, std::ptr::null_mut(), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alone() -> std::sync::MutexGuard<'static, ()> {
        FORKS.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    const LAYOUT: Layout =
        Layout { common_bytes: PAGE_BYTES, block_bytes: PAGE_BYTES, blocks_max: 3, used_word: 1, fresh_words: (8, 16) };

    fn word(shared: &SharedFile, block: usize, word: usize) -> u64 {
        let mut bytes = [0; 8];
        let at = LAYOUT.common_bytes + block * LAYOUT.block_bytes + word * 8;
        shared.file().read_exact_at(&mut bytes, at as u64).unwrap();
        u64::from_ne_bytes(bytes)
    }

    /// Forks; the child runs `body` and leaves. Its pid.
    fn fork(body: impl FnOnce()) -> i32 {
        // SAFETY: the child calls nothing but atomics, sleeps and _exit.
        unsafe {
            match libc::fork() {
                0 => {
                    body();
                    libc::_exit(0)
                }
                pid => pid,
            }
        }
    }

    fn wait(pid: i32) {
        // SAFETY: a child of ours.
        unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
    }

    #[test]
    fn children_count_in_blocks_of_their_own_which_the_next_ones_take_over() {
        let _alone = alone();
        let shared = SharedFile::open(None, LAYOUT).unwrap();
        let (counter, gauge) = (&shared.own()[0], &shared.own()[8]);
        counter.store(1, Ordering::Relaxed);
        assert_eq!(shared.block(), Some(0));
        for generation in 1..=20 {
            let pid = fork(|| {
                counter.fetch_add(5, Ordering::Relaxed);
                gauge.fetch_add(7, Ordering::Relaxed);
            });
            wait(pid);
            assert_eq!(word(shared, 0, 0), 1);
            assert_eq!(word(shared, 1, 0), 5 * generation, "the next one counts on");
            assert_eq!(word(shared, 1, 8), 7, "a gauge begins anew");
        }
        assert_eq!(shared.common()[1].load(Ordering::Relaxed), 2);
        assert!(shared.is_live(0) && !shared.is_live(1));
    }

    #[test]
    fn a_process_without_a_block_counts_for_itself() {
        let _alone = alone();
        let shared = SharedFile::open(None, LAYOUT).unwrap();
        let (ready, go) = (&shared.common()[100], &shared.common()[101]);
        let pids: Vec<i32> = (0..4)
            .map(|_| {
                fork(|| {
                    shared.own()[0].fetch_add(1, Ordering::Relaxed);
                    shared.common()[102].fetch_add(u64::from(shared.block().is_none()), Ordering::SeqCst);
                    ready.fetch_add(1, Ordering::SeqCst);
                    while go.load(Ordering::SeqCst) == 0 {
                        std::thread::sleep(std::time::Duration::from_millis(1));
                    }
                })
            })
            .collect();
        while ready.load(Ordering::SeqCst) < 4 {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        assert!((0..3).all(|block| shared.is_live(block)));
        assert_eq!(shared.common()[102].load(Ordering::SeqCst), 2);
        assert_eq!((word(shared, 0, 0), word(shared, 1, 0), word(shared, 2, 0)), (0, 1, 1));
        go.store(1, Ordering::SeqCst);
        pids.into_iter().for_each(wait);
        assert!(!shared.is_live(1) && !shared.is_live(2));
    }

    #[test]
    fn one_of_them_leads_until_it_ends() {
        let _alone = alone();
        let shared = SharedFile::open(None, LAYOUT).unwrap();
        let led = &shared.common()[100];
        let pid = fork(|| led.store(u64::from(shared.is_leader()) + 1, Ordering::SeqCst));
        wait(pid);
        assert_eq!(led.load(Ordering::SeqCst), 2, "nobody else had asked");
        assert!(shared.is_leader() && shared.is_leader());
        let pid = fork(|| led.store(u64::from(shared.is_leader()) + 1, Ordering::SeqCst));
        wait(pid);
        assert_eq!(led.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_path_names_one_file() {
        let path = std::env::temp_dir().join(format!("iokernel-shared-{}", std::process::id()));
        let first = SharedFile::open(Some(&path), LAYOUT).unwrap();
        let again = SharedFile::open(Some(&path), LAYOUT).unwrap();
        assert!(std::ptr::eq(first, again));
        let mode = std::fs::metadata(&path).unwrap().mode();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(mode & 0o777, 0o600);
    }
}
