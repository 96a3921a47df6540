//! The program's end of a channel: submit, poll, wait. Used by one thread at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::consumer::{Consumer, Run};
use super::layout::{IOK_SUBMISSION_BYTES, Submission, aligned};
use super::producer::Producer;
use super::record::{count_completions, submission_at, write_submission};
use super::region::{Completions, Region, Submissions};
use super::spin::{self, SPIN_MAX, Spin};
use super::wake::{self, Bell, Doze};
use crate::status::{
    IOK_STATUS_BAD_RECORD, IOK_STATUS_CORRUPT, IOK_STATUS_FULL, IOK_STATUS_INTERRUPTED, IOK_STATUS_OK,
    IOK_STATUS_TIMEOUT, IOK_STATUS_TOO_LARGE, Status,
};
use crate::sys::futex::{self, Woken};
use crate::sys::marker;

/// Flushes between two waits, and bytes in each, for which a thread is lent.
const FLUSHES_LENT: u32 = 2;
const BYTES_LENT: u64 = 64 << 10;

/// A channel as its program holds it.
pub struct AppSide {
    region: Arc<Region>,
    bell: Arc<Bell>,
    submissions: Producer<Submissions>,
    completions: Consumer<Completions>,
    message_bytes_max: usize,
    record_bytes_max: usize,
    reserved: Option<*mut Submission>,
    reserved_bytes: usize,
    fd_watched: bool,
    /// FULL was answered, and nobody was told since that there is room.
    was_full: bool,
    /// The descriptor told of the channel's end.
    end_told: bool,
    /// How often it was lent since it last led.
    flushes: u32,
    doze: Doze,
    spin: Spin,
    /// Where the program's threads say what they are doing.
    markers: &'static [AtomicU64],
}

// SAFETY: `reserved` points into the region, which moves with the channel; one thread uses it at a time.
unsafe impl Send for AppSide {}

impl AppSide {
    pub fn new(region: Arc<Region>, bell: Arc<Bell>, submissions_bytes: usize, message_bytes_max: usize) -> Self {
        AppSide {
            submissions: Producer::new(Submissions(region.clone())),
            completions: Consumer::new(Completions(region.clone())),
            region,
            bell,
            message_bytes_max,
            record_bytes_max: submissions_bytes / 4,
            reserved: None,
            reserved_bytes: 0,
            fd_watched: false,
            was_full: false,
            end_told: false,
            flushes: 0,
            doze: Doze::default(),
            spin: Spin::new(),
            markers: &[],
        }
    }

    /// Submissions carry the marker of their thread, by its word among these.
    pub fn mark_by(&mut self, markers: &'static [AtomicU64]) {
        self.markers = markers;
    }

    /// The file descriptor that is readable while completions wait. From this call on it is kept so.
    pub fn fd(&mut self) -> i32 {
        use std::os::fd::AsRawFd;
        if !self.fd_watched {
            self.fd_watched = true;
            self.region.words().app_watches.0.store(1, Ordering::Relaxed);
            self.arm();
        }
        self.region.bell.as_raw_fd()
    }

    /// What ended the channel, or OK.
    #[inline]
    pub fn ended(&self) -> Status {
        self.region.words().ended.0.load(Ordering::Acquire) as Status
    }

    /// Room for a submission with `payload_bytes`, to be filled in place and then committed.
    pub fn reserve(&mut self, payload_bytes: usize) -> Result<*mut Submission, Status> {
        let size = IOK_SUBMISSION_BYTES as usize + payload_bytes;
        if size > self.record_bytes_max {
            return Err(IOK_STATUS_TOO_LARGE);
        }
        let place = match self.ended() {
            IOK_STATUS_OK => self.submissions.reserve(size).map_err(|_| IOK_STATUS_CORRUPT)?,
            ended => return Err(ended),
        };
        let place = match place {
            Some(place) => place,
            None => self.full(size)?,
        };
        let head = submission_at(place);
        // SAFETY: `place` has room for a head and is not yet visible to the kernel.
        unsafe { head.write(Submission { size: size as u32, ..Submission::default() }) };
        self.reserved = Some(head);
        self.reserved_bytes = size;
        Ok(head)
    }

    /// Publishes what was reserved. Its `size` may have shrunk to what was used.
    pub fn commit(&mut self) -> Status {
        let Some(head) = self.reserved.take() else { return IOK_STATUS_BAD_RECORD };
        // SAFETY: written by `reserve`, still unpublished, so only this thread has it.
        let size = unsafe { (*head).size } as usize;
        if size < IOK_SUBMISSION_BYTES as usize || size > self.reserved_bytes {
            return IOK_STATUS_BAD_RECORD;
        }
        // SAFETY: as above.
        unsafe {
            if (*head).marker == 0 {
                (*head).marker = marker::current(self.markers);
            }
        }
        self.submissions.push(size);
        self.submissions.publish();
        IOK_STATUS_OK
    }

    /// Copies one record in and publishes it.
    #[inline]
    pub fn submit(&mut self, head: &Submission, payload: &[u8]) -> Status {
        let status = self.stage(head, payload);
        self.submissions.publish();
        status
    }

    #[inline]
    fn stage(&mut self, head: &Submission, payload: &[u8]) -> Status {
        let size = IOK_SUBMISSION_BYTES as usize + payload.len();
        if head.bytes_total as usize > self.message_bytes_max || size > self.record_bytes_max {
            return IOK_STATUS_TOO_LARGE;
        }
        match self.ended() {
            IOK_STATUS_OK => {}
            ended => return ended,
        }
        let marker = if head.marker == 0 { marker::current(self.markers) } else { head.marker };
        let head = &Submission { marker, ..*head };
        match write_submission(&mut self.submissions, head, payload) {
            Ok(true) => IOK_STATUS_OK,
            Ok(false) => match self.full(size) {
                Err(status) => status,
                Ok(_) => match write_submission(&mut self.submissions, head, payload) {
                    Ok(true) => IOK_STATUS_OK,
                    _ => IOK_STATUS_FULL,
                },
            },
            Err(_) => IOK_STATUS_CORRUPT,
        }
    }

    /// The ring is full: asks the kernel to say when there is room, and looks once more.
    fn full(&mut self, size: usize) -> Result<std::ptr::NonNull<u8>, Status> {
        self.submissions.publish();
        self.region.words().app_wants_room.0.store(1, Ordering::Relaxed);
        std::sync::atomic::fence(Ordering::SeqCst);
        match self.submissions.reserve(size) {
            Ok(Some(place)) => Ok(place),
            Ok(None) => {
                self.was_full = true;
                self.flush();
                Err(IOK_STATUS_FULL)
            }
            Err(_) => Err(IOK_STATUS_CORRUPT),
        }
    }

    /// Copies whole records in, as many as fit, publishes them at once. How many bytes were taken, and why not all.
    pub fn submit_batch(&mut self, records: &[u8]) -> (usize, Status) {
        let mut at = 0;
        let mut status = IOK_STATUS_OK;
        while at < records.len() {
            let Some(head) = read_head(&records[at..]) else {
                status = IOK_STATUS_BAD_RECORD;
                break;
            };
            let size = head.size as usize;
            status = self.stage(&head, &records[at + IOK_SUBMISSION_BYTES as usize..at + size]);
            if status != IOK_STATUS_OK {
                break;
            }
            at = (at + aligned(size)).min(records.len());
        }
        self.submissions.publish();
        (at, status)
    }

    /// A program that does not watch the descriptor will probably wait next. Then its own thread may as well do what a wake
    /// would have the kernel's do; but not for ever, and not for much.
    pub fn is_worth_lending(&mut self) -> bool {
        let bytes = self.submissions.unread().unwrap_or(0);
        let worth = !self.fd_watched && self.flushes < FLUSHES_LENT && (1..=BYTES_LENT).contains(&bytes);
        self.flushes += u32::from(worth);
        worth
    }

    /// Wakes the kernel if it sleeps.
    #[inline]
    pub fn flush(&self) {
        self.bell.ring();
    }

    /// The completions that wait: their number, and one contiguous run of them.
    #[inline]
    pub fn poll(&mut self) -> Result<(usize, Run), Status> {
        let mut run = self.completions.run().map_err(|_| IOK_STATUS_CORRUPT)?;
        if run.bytes == 0 && self.fd_watched {
            self.settle();
            run = self.completions.run().map_err(|_| IOK_STATUS_CORRUPT)?;
        }
        let (count, bytes) = count_completions(run);
        if count == 0 && run.bytes != 0 {
            return Err(IOK_STATUS_CORRUPT);
        }
        Ok((count, Run { bytes, ..run }))
    }

    /// Done with so many bytes of the run.
    #[inline]
    pub fn advance(&mut self, bytes: usize) -> Status {
        if !self.completions.advance(bytes) {
            return IOK_STATUS_BAD_RECORD;
        }
        let wants = &self.region.words().kernel_wants_room.0;
        std::sync::atomic::fence(Ordering::SeqCst);
        if wants.load(Ordering::Relaxed) != 0 && wants.swap(0, Ordering::Relaxed) != 0 {
            self.bell.ring();
        }
        IOK_STATUS_OK
    }

    /// The ring was found empty: makes the descriptor unreadable and asks to be told of what comes next.
    fn settle(&mut self) {
        let AppSide { region, completions, was_full, end_told, doze, .. } = self;
        let news = || has_news(region, completions, was_full, end_told);
        doze.settle(&region.words().app_sleep.0, &region.bell, news);
    }

    /// Asks for a signal on the descriptor.
    fn arm(&mut self) {
        let AppSide { region, completions, was_full, end_told, doze, .. } = self;
        let news = || has_news(region, completions, was_full, end_told);
        doze.arm(&region.words().app_sleep.0, &region.bell, news);
    }

    /// True if a wait would return at once.
    #[inline]
    pub fn has_cause(&mut self) -> bool {
        self.completions.has_more() || self.ended() != IOK_STATUS_OK || room_came(&self.region, &mut self.was_full)
    }

    /// Sleeps until completions wait, room came back after FULL, a signal came, or the time is over.
    pub fn wait(&mut self, timeout: Option<Duration>) -> Status {
        self.flush();
        if self.has_cause() {
            return self.cause();
        }
        if timeout == Some(Duration::ZERO) {
            return IOK_STATUS_TIMEOUT;
        }
        let start = Instant::now();
        let looked = self.spin.begin();
        let status = if looked && spin::look(start, SPIN_MAX, || self.completions.has_more()) {
            IOK_STATUS_OK
        } else {
            self.sleep(timeout.map(|timeout| start + timeout))
        };
        if status != IOK_STATUS_OK {
            return status;
        }
        self.spin.end(looked, start.elapsed());
        self.cause()
    }

    /// What a wait that has met something tells: OK, or, when nothing is left to read, what ended the channel.
    pub fn cause(&self) -> Status {
        if self.completions.has_more() { IOK_STATUS_OK } else { self.ended() }
    }

    /// Before the thread leads the kernel's loop: it sees by itself what comes.
    pub fn lead(&mut self) -> Arc<Region> {
        self.flushes = 0;
        self.doze.disarm(&self.region.words().app_sleep.0);
        self.region.clone()
    }

    /// It leads no more.
    pub fn follow(&mut self) {
        wake::withdraw(&self.region.words().app_sleep.0);
        if self.fd_watched {
            self.arm();
        }
    }

    /// What was learnt of looking before sleeping.
    pub fn spin(&mut self) -> &mut Spin {
        &mut self.spin
    }

    /// Sleeps on the word until there is a cause to wake.
    fn sleep(&mut self, deadline: Option<Instant>) -> Status {
        let region = self.region.clone();
        let flag = &region.words().app_sleep.0;
        self.doze.disarm(flag);
        let status = loop {
            wake::announce(flag, wake::ON_WORD);
            if self.has_cause() {
                break IOK_STATUS_OK;
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let woken =
                if left == Some(Duration::ZERO) { Woken::TimedOut } else { futex::wait(flag, wake::ON_WORD, left) };
            if self.has_cause() {
                break IOK_STATUS_OK;
            }
            match woken {
                Woken::Look => {}
                Woken::TimedOut => break IOK_STATUS_TIMEOUT,
                Woken::Interrupted => break IOK_STATUS_INTERRUPTED,
            }
        };
        wake::withdraw(flag);
        if self.fd_watched {
            self.arm();
        }
        status
    }
}

/// True if the descriptor is to wake the program: for completions always, for room and for the end once.
fn has_news(region: &Region, completions: &Consumer<Completions>, was_full: &mut bool, end_told: &mut bool) -> bool {
    let ended = region.words().ended.0.load(Ordering::Acquire) != 0 && !std::mem::replace(end_told, true);
    ended || completions.has_more() || room_came(region, was_full)
}

/// True once after FULL, when there is room again.
fn room_came(region: &Region, was_full: &mut bool) -> bool {
    let came = *was_full && region.words().app_wants_room.0.load(Ordering::Acquire) == 0;
    *was_full &= !came;
    came
}

/// The head at the start of `bytes`, if its size fits them.
fn read_head(bytes: &[u8]) -> Option<Submission> {
    if bytes.len() < IOK_SUBMISSION_BYTES as usize {
        return None;
    }
    // SAFETY: enough bytes are there; `Submission` is plain data; the read needs no alignment.
    let head = unsafe { bytes.as_ptr().cast::<Submission>().read_unaligned() };
    let size = head.size as usize;
    (size >= IOK_SUBMISSION_BYTES as usize && size <= bytes.len()).then_some(head)
}
