//! Signals that a thread holds back for a while.

/// Size of a set as the system has it; the C library's is larger.
pub(super) const SET_BYTES: usize = 8;

/// Until it is dropped, this thread takes no signal.
///
/// For the process's first thread, to which the system gives what is for the whole process. Another that lets signals in
/// again takes those that wait for the first one to be scheduled, and interpreters run handlers there alone.
pub struct Held {
    before: libc::sigset_t,
    /// It belongs to its thread.
    _here: std::marker::PhantomData<*const ()>,
}

impl Held {
    /// In the process's first thread; in others, which keep their signals, None.
    pub fn in_first_thread() -> Option<Self> {
        super::thread::is_first().then(Held::new)
    }

    pub(super) fn new() -> Self {
        // SAFETY: both sets are plain data on this stack.
        unsafe {
            let mut all: libc::sigset_t = std::mem::zeroed();
            let mut before: libc::sigset_t = std::mem::zeroed();
            libc::sigfillset(&mut all);
            libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before);
            Held { before, _here: std::marker::PhantomData }
        }
    }

    /// Those that the thread held back by itself.
    pub(super) fn before(&self) -> *const libc::sigset_t {
        &self.before
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // SAFETY: filled by the call in `new`, in this thread.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.before, std::ptr::null_mut()) };
    }
}
