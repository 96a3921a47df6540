//! Records in and out of ring memory: the only code that turns ring bytes into heads and payloads.

use std::ptr::NonNull;

use super::consumer::Run;
use super::layout::{Completion, IOK_COMPLETION_BYTES, IOK_SUBMISSION_BYTES, Submission, aligned};
use super::producer::Producer;
use super::{Cells, Corrupt};

const SUBMISSION_BYTES: usize = IOK_SUBMISSION_BYTES as usize;
const COMPLETION_BYTES: usize = IOK_COMPLETION_BYTES as usize;

/// The submissions of a run, each head copied out and its size checked against the run.
pub struct Submitted<'a> {
    run: Run,
    at: usize,
    _life: std::marker::PhantomData<&'a [u8]>,
}

impl<'a> Submitted<'a> {
    /// The run stays readable while `'a` lasts: its consumer must not be advanced meanwhile.
    pub(crate) fn new(run: Run) -> Self {
        Submitted { run, at: 0, _life: std::marker::PhantomData }
    }

    /// Bytes of the records given out so far: what to advance by.
    pub fn done_bytes(&self) -> usize {
        self.at
    }

    /// The next record, without taking it.
    #[inline]
    pub fn peek(&self) -> Result<Option<(Submission, &'a [u8])>, Corrupt> {
        let left = self.run.bytes - self.at;
        if left == 0 {
            return Ok(None);
        }
        if left < SUBMISSION_BYTES {
            return Err(Corrupt);
        }
        // SAFETY: at least a whole head is left in the run, whose bytes are mapped and 8-aligned. The head is copied
        // once and only the copy is judged, so that a writer who changes it afterwards changes nothing.
        let head = unsafe { self.run.start.add(self.at).cast::<Submission>().read_volatile() };
        let size = head.size as usize;
        if size < SUBMISSION_BYTES || aligned(size) > left {
            return Err(Corrupt);
        }
        // SAFETY: `size` bytes from here are inside the run.
        let payload = unsafe {
            let start = self.run.start.add(self.at + SUBMISSION_BYTES);
            std::slice::from_raw_parts(start.as_ptr(), size - SUBMISSION_BYTES)
        };
        Ok(Some((head, payload)))
    }

    /// Takes the record that `peek` showed.
    #[inline]
    pub fn take(&mut self, head: &Submission) {
        self.at += aligned(head.size as usize);
    }
}

/// Writes one completion whose `size` is `payload` and a head. False while the ring is too full.
#[inline]
pub fn write_completion<C: Cells>(ring: &mut Producer<C>, head: &Completion, payload: &[u8]) -> Result<bool, Corrupt> {
    let size = COMPLETION_BYTES + payload.len();
    let Some(place) = ring.reserve(size)? else { return Ok(false) };
    let head = Completion { size: size as u32, ..*head };
    // SAFETY: `reserve` gave `size` writable, 8-aligned bytes that the reader does not look at before `publish`.
    unsafe {
        place.cast::<Completion>().write(head);
        let to = place.add(COMPLETION_BYTES).as_ptr();
        std::ptr::copy_nonoverlapping(payload.as_ptr(), to, payload.len());
    }
    ring.push(size);
    Ok(true)
}

/// Writes one submission, its payload taken from `payload`, which holds `head.size` less a head. False while full.
#[inline]
pub fn write_submission<C: Cells>(ring: &mut Producer<C>, head: &Submission, payload: &[u8]) -> Result<bool, Corrupt> {
    let size = SUBMISSION_BYTES + payload.len();
    let Some(place) = ring.reserve(size)? else { return Ok(false) };
    let head = Submission { size: size as u32, ..*head };
    // SAFETY: as in `write_completion`.
    unsafe {
        place.cast::<Submission>().write(head);
        let to = place.add(SUBMISSION_BYTES).as_ptr();
        std::ptr::copy_nonoverlapping(payload.as_ptr(), to, payload.len());
    }
    ring.push(size);
    Ok(true)
}

/// How many whole completions a run holds, and their bytes. A record that does not fit ends the count.
pub fn count_completions(run: Run) -> (usize, usize) {
    let (mut count, mut at) = (0, 0);
    while run.bytes - at >= COMPLETION_BYTES {
        // SAFETY: a whole head is inside the run, 8-aligned.
        let size = unsafe { run.start.add(at).cast::<u32>().read_volatile() } as usize;
        if size < COMPLETION_BYTES || aligned(size) > run.bytes - at {
            break;
        }
        at += aligned(size);
        count += 1;
    }
    (count, at)
}

/// The head of the completion at `at` in a run, if one is there.
pub fn completion_in(run: Run, at: usize) -> Option<Completion> {
    if !at.is_multiple_of(8) || at + COMPLETION_BYTES > run.bytes {
        return None;
    }
    // SAFETY: a whole head is inside the run, 8-aligned.
    Some(unsafe { run.start.add(at).cast::<Completion>().read_volatile() })
}

/// Raw parts of a reserved submission: the head's place; the payload's follows it.
#[inline]
pub fn submission_at(place: NonNull<u8>) -> *mut Submission {
    place.cast::<Submission>().as_ptr()
}
