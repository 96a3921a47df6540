//! The C ABI as a Rust test wants it: handles that close themselves, messages put together from their fragments.

use std::collections::VecDeque;
use std::ffi::{CStr, CString};
use std::time::{Duration, Instant};

use iokernel::ffi::channel::{iok_channel, iok_channel_close, iok_channel_fd, iok_channel_open, iok_flush, iok_wait};
use iokernel::ffi::error::iok_last_error;
use iokernel::ffi::kernel::{iok_kernel, iok_kernel_close, iok_kernel_open};
use iokernel::ffi::record::{iok_advance, iok_channel_status, iok_poll, iok_submit};
use iokernel::ring::layout::*;
use iokernel::status::*;

use super::values::{self, Value};

/// Longer than anything may take; reached only by a test that fails.
pub const LONG: Duration = Duration::from_secs(60);

/// The text of this thread's last error.
pub fn last_error() -> String {
    // SAFETY: the library returns a C string that is valid until this thread's next error.
    unsafe { CStr::from_ptr(iok_last_error()) }.to_string_lossy().into_owned()
}

/// A status with its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused(pub Status, pub String);

fn judge(status: Status) -> Result<(), Refused> {
    if status == IOK_STATUS_OK { Ok(()) } else { Err(Refused(status, last_error())) }
}

/// An open kernel; closed on drop.
#[derive(Debug)]
pub struct Kernel(pub *mut iok_kernel);

// SAFETY: kernels may be used by any thread.
unsafe impl Send for Kernel {}
// SAFETY: as above.
unsafe impl Sync for Kernel {}

impl Kernel {
    pub fn open(config: &str) -> Result<Self, Refused> {
        let config = CString::new(config).unwrap();
        let mut handle = std::ptr::null_mut();
        // SAFETY: a C string, and a place for a handle.
        judge(unsafe { iok_kernel_open(config.as_ptr(), &mut handle) })?;
        Ok(Kernel(handle))
    }

    pub fn start() -> Self {
        Kernel::open("name=test").unwrap()
    }

    pub fn channel(&self, config: &str) -> Result<Channel, Refused> {
        let config = CString::new(config).unwrap();
        let mut handle = std::ptr::null_mut();
        // SAFETY: a C string, and a place for a handle.
        judge(unsafe { iok_channel_open(self.0, config.as_ptr(), &mut handle) })?;
        Ok(Channel { handle, last_tag: 0, inbox: VecDeque::new(), partial: None })
    }

    pub fn close(&self, drain: Duration) -> Status {
        iok_kernel_close(self.0, drain.as_millis() as u32)
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        self.close(Duration::ZERO);
    }
}

/// One whole completion.
#[derive(Clone, Debug)]
pub struct Message {
    pub head: Completion,
    pub payload: Vec<u8>,
}

impl Message {
    pub fn status(&self) -> Status {
        self.head.status
    }

    /// The payload as a value, whatever its encoding.
    pub fn value(&self) -> Value {
        match self.head.encoding {
            IOK_ENCODING_NONE => Value::Nil,
            IOK_ENCODING_MSGPACK => values::read(&self.payload),
            IOK_ENCODING_TEXT => Value::Text(String::from_utf8_lossy(&self.payload).into_owned()),
            _ => Value::Bytes(self.payload.clone()),
        }
    }

    /// The code and message of an error.
    pub fn error(&self) -> (String, String) {
        assert!(self.head.status < 0, "expected an error, got {self:?}");
        match values::read(&self.payload).items() {
            [code, message] => (code.text(), message.text()),
            other => panic!("expected [code, message], got {other:?}"),
        }
    }

    /// Asserts success and gives the value.
    #[track_caller]
    pub fn ok(&self) -> Value {
        let text = String::from_utf8_lossy(&self.payload);
        assert_eq!(self.head.status, IOK_STATUS_OK, "{text} {:?}", self.head);
        self.value()
    }
}

/// What a submission says beside its op and payload.
#[derive(Clone, Copy, Debug, Default)]
pub struct With {
    pub flags: u16,
    pub timeout_ms: u32,
    pub key: u64,
}

pub const PLAIN: With = With { flags: 0, timeout_ms: 0, key: 0 };

/// An open channel; closed on drop.
#[derive(Debug)]
pub struct Channel {
    pub handle: *mut iok_channel,
    last_tag: u64,
    inbox: VecDeque<Message>,
    partial: Option<Message>,
}

// SAFETY: a channel may move between threads; `&mut self` keeps it to one at a time.
unsafe impl Send for Channel {}

impl Channel {
    /// Submits one record as it is.
    pub fn submit_raw(&mut self, head: Submission, payload: &[u8]) -> Result<(), Refused> {
        let head = Submission { size: IOK_SUBMISSION_BYTES + payload.len() as u32, ..head };
        // SAFETY: head and payload are readable for their sizes; this thread has the channel.
        judge(unsafe { iok_submit(self.handle, &head, payload.as_ptr().cast()) })
    }

    /// Submits a message, in fragments if it is large, and waits for room as long as it takes.
    pub fn submit(&mut self, op: u16, tag: u64, endpoint: u32, with: With, payload: &[u8]) -> Result<(), Refused> {
        const PART: usize = 8 << 10;
        let With { flags, timeout_ms, key } = with;
        let head = Submission { op, flags, endpoint, timeout_ms, tag, key, ..Submission::default() };
        let mut parts = payload.chunks(PART).peekable();
        let mut first = true;
        loop {
            let part = parts.next().unwrap_or_default();
            let more = parts.peek().is_some();
            let bytes_total = if first && more { payload.len() as u32 } else { 0 };
            let flags = if more { flags | IOK_FLAG_MORE } else { flags };
            loop {
                match self.submit_raw(Submission { flags, bytes_total, ..head }, part) {
                    Err(Refused(IOK_STATUS_FULL, _)) => {
                        self.wait(LONG);
                        self.take_all();
                    }
                    other => break other?,
                }
            }
            first = false;
            if !more {
                return Ok(());
            }
        }
    }

    pub fn tag(&mut self) -> u64 {
        self.last_tag += 1;
        self.last_tag
    }

    /// Submits an op under a fresh tag and rings.
    pub fn ask(&mut self, op: u16, endpoint: u32, with: With, payload: &[u8]) -> u64 {
        let tag = self.tag();
        self.submit(op, tag, endpoint, with, payload).unwrap();
        self.flush();
        tag
    }

    pub fn request(&mut self, endpoint: u32, with: With, words: &[&str]) -> u64 {
        self.ask(IOK_OP_REQUEST, endpoint, with, &values::request(words))
    }

    pub fn stream(&mut self, endpoint: u32, words: &[&str]) -> u64 {
        self.ask(IOK_OP_STREAM, endpoint, PLAIN, &values::request(words))
    }

    pub fn cancel(&mut self, tag: u64) {
        self.submit(IOK_OP_CANCEL, tag, 0, PLAIN, &[]).unwrap();
        self.flush();
    }

    /// Opens a service and gives its number.
    pub fn open(&mut self, url: &str) -> Result<u32, Refused> {
        let tag = self.ask(IOK_OP_OPEN, 0, PLAIN, url.as_bytes());
        let done = self.done(tag);
        if done.status() == IOK_STATUS_OK {
            Ok(done.head.endpoint)
        } else {
            Err(Refused(done.status(), done.error().1))
        }
    }

    /// Waits until an endpoint is up.
    #[track_caller]
    pub fn until_up(&mut self, endpoint: u32) {
        let with = With { flags: IOK_FLAG_UNTIL_UP, timeout_ms: LONG.as_millis() as u32, key: 0 };
        let tag = self.ask(IOK_OP_STATE, endpoint, with, &[]);
        self.done(tag).ok();
    }

    pub fn state(&mut self, endpoint: u32) -> Value {
        let tag = self.ask(IOK_OP_STATE, endpoint, PLAIN, &[]);
        self.done(tag).ok()
    }

    #[track_caller]
    pub fn lease(&mut self, endpoint: u32) -> u64 {
        let tag = self.ask(IOK_OP_LEASE, endpoint, PLAIN, &[]);
        self.done(tag).ok().int() as u64
    }

    pub fn release(&mut self, endpoint: u32, lease: u64) -> Message {
        let tag = self.ask(IOK_OP_RELEASE, endpoint, With { key: lease, ..PLAIN }, &[]);
        self.done(tag)
    }

    /// One request and its final completion.
    #[track_caller]
    pub fn call(&mut self, endpoint: u32, with: With, words: &[&str]) -> Message {
        let tag = self.request(endpoint, with, words);
        self.done(tag)
    }

    pub fn flush(&mut self) {
        // SAFETY: this thread has the channel.
        unsafe { iok_flush(self.handle) };
    }

    pub fn fd(&self) -> i32 {
        // SAFETY: this thread has the channel.
        unsafe { iok_channel_fd(self.handle) }
    }

    pub fn status(&self) -> Status {
        // SAFETY: this thread has the channel.
        unsafe { iok_channel_status(self.handle) }
    }

    pub fn wait(&mut self, timeout: Duration) -> Status {
        // SAFETY: this thread has the channel.
        unsafe { iok_wait(self.handle, timeout.as_millis() as i32) }
    }

    /// Moves everything that waits in the ring to the inbox. How many records there were.
    pub fn take_all(&mut self) -> usize {
        let mut total = 0;
        loop {
            let (mut first, mut bytes) = (std::ptr::null(), 0);
            // SAFETY: two writable places; this thread has the channel.
            let count = unsafe { iok_poll(self.handle, &mut first, &mut bytes) };
            if count == 0 {
                return total;
            }
            total += count;
            let mut at = 0;
            for _ in 0..count {
                // SAFETY: the run holds `count` whole records, each at a multiple of 8.
                let head = unsafe { first.cast::<u8>().add(at).cast::<Completion>().read() };
                // SAFETY: a record's payload follows its head, inside the run.
                let payload = unsafe {
                    let start = first.cast::<u8>().add(at + IOK_COMPLETION_BYTES as usize);
                    std::slice::from_raw_parts(start, head.size as usize - IOK_COMPLETION_BYTES as usize)
                };
                self.take(head, payload);
                at += (head.size as usize + 7) & !7;
            }
            assert_eq!(at, bytes);
            // SAFETY: this thread has the channel.
            assert_eq!(unsafe { iok_advance(self.handle, bytes) }, IOK_STATUS_OK);
        }
    }

    fn take(&mut self, head: Completion, payload: &[u8]) {
        let mut message = match self.partial.take() {
            Some(partial) => {
                assert_eq!((partial.head.tag, partial.head.kind), (head.tag, head.kind), "fragments in a row");
                partial
            }
            None => Message { head, payload: Vec::new() },
        };
        message.payload.extend_from_slice(payload);
        if head.flags & IOK_FLAG_MORE != 0 {
            self.partial = Some(message);
        } else {
            message.head = head;
            assert_eq!(message.payload.len(), head.bytes_total as usize, "{head:?}");
            self.inbox.push_back(message);
        }
    }

    /// The next completion, if one comes in time.
    pub fn next(&mut self, timeout: Duration) -> Option<Message> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(message) = self.inbox.pop_front() {
                return Some(message);
            }
            if self.take_all() > 0 {
                continue;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || self.status() != IOK_STATUS_OK {
                return None;
            }
            self.wait(left.max(Duration::from_millis(1)));
        }
    }

    /// The next completion of a tag that `wanted` names, while the others stay in their order.
    #[track_caller]
    pub fn find(&mut self, timeout: Duration, wanted: impl Fn(&Message) -> bool) -> Option<Message> {
        let deadline = Instant::now() + timeout;
        let mut seen = 0;
        loop {
            if let Some(at) = self.inbox.iter().skip(seen).position(&wanted) {
                return self.inbox.remove(seen + at);
            }
            seen = self.inbox.len();
            if self.take_all() > 0 {
                continue;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || self.status() != IOK_STATUS_OK {
                return None;
            }
            self.wait(left.max(Duration::from_millis(1)));
        }
    }

    /// The final completion of a tag.
    #[track_caller]
    pub fn done(&mut self, tag: u64) -> Message {
        let found = self.find(LONG, |message| message.head.tag == tag && message.head.kind == IOK_KIND_DONE);
        found.unwrap_or_else(|| panic!("no final completion of tag {tag}; the channel: {}", self.status()))
    }

    /// The next completion of a tag that has this kind.
    #[track_caller]
    pub fn of_kind(&mut self, tag: u64, kind: u16) -> Message {
        let found = self.find(LONG, |message| message.head.tag == tag && message.head.kind == kind);
        found.unwrap_or_else(|| panic!("no completion of kind {kind} for tag {tag}"))
    }

    pub fn close(&self) -> Status {
        iok_channel_close(self.handle)
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.close();
    }
}
