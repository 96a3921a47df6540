//! The kernel's end of a channel: takes submissions, puts completions, holds what the ring has no room for.
//!
//! Memory is bounded whatever the program does. Requests: by credits. Replies that wait because the program does not
//! poll: up to `backlog_max` bytes whole, beyond that without their payload. Pushes: up to `push_buffer` bytes, beyond
//! that counted and reported as LOST.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::config::{ConfigError, Options};
use crate::proto::RequestId;
use crate::ring::Corrupt;
use crate::ring::consumer::Consumer;
use crate::ring::layout::*;
use crate::ring::producer::Producer;
use crate::ring::record::{Submitted, write_completion};
use crate::ring::region::{Completions, RING_BYTES, Region, Submissions};
use crate::status::{IOK_STATUS_CORRUPT, IOK_STATUS_NO_MEMORY, IOK_STATUS_OK, IOK_STATUS_REPLY_DROPPED, Status};

/// What `iok_channel_open` takes.
#[derive(Clone, Copy, Debug)]
pub struct ChannelConfig {
    /// Bytes of each ring, a power of two.
    pub ring_bytes: usize,
    /// Requests under way, and their completions that were not read, at most.
    pub credits: usize,
    /// Bytes of pushes that wait for the program, beside the ring.
    pub push_buffer_bytes: usize,
    /// Bytes of replies that wait for the program, beside the ring.
    pub reply_buffer_bytes: usize,
    /// Bytes of one message to the kernel.
    pub message_bytes_max: usize,
    /// The thread that opened it.
    pub thread: u32,
}

impl ChannelConfig {
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let mut options = Options::parse(text)?;
        let ring_bytes = options.bytes("ring", 1 << 20)?;
        if !ring_bytes.is_power_of_two() || !RING_BYTES.contains(&ring_bytes) {
            let expected = "a power of two from 64KiB to 1GiB";
            return Err(ConfigError::new("ring", &ring_bytes.to_string(), expected));
        }
        let config = ChannelConfig {
            ring_bytes,
            credits: options.number("credits", 65_536, 1..=1 << 24)? as usize,
            push_buffer_bytes: options.bytes("push_buffer", 4 << 20)?,
            reply_buffer_bytes: options.bytes("reply_buffer", 256 << 20)?,
            message_bytes_max: options.bytes("max_request", 128 << 20)?.min(u32::MAX as usize / 2),
            thread: crate::sys::thread::id(),
        };
        options.finish()?;
        Ok(config)
    }
}

/// A completion that waits for room.
struct Waiting {
    head: Completion,
    payload: Box<[u8]>,
    sent: usize,
}

/// Messages of which fragments are still to come, at most.
const ASSEMBLIES_MAX: usize = 1024;

/// A submission of which fragments are still to come.
struct Assembly {
    head: Submission,
    payload: Vec<u8>,
    /// Too large: what comes is thrown away.
    refused: bool,
}

/// What one record amounts to.
pub enum Taken<'a> {
    /// A whole message.
    Message(Submission, Message<'a>),
    /// A message that is larger than its limit; to be refused.
    TooLarge(Submission),
    /// A message that the system has no memory for; to be refused.
    NoMemory(Submission),
    /// A fragment; more follow.
    Fragment,
    /// No sane program writes this.
    Nonsense,
}

/// A payload, in the ring or put together from fragments.
pub enum Message<'a> {
    InRing(&'a [u8]),
    Whole(Vec<u8>),
}

impl Message<'_> {
    pub fn bytes(&self) -> &[u8] {
        match self {
            Message::InRing(bytes) => bytes,
            Message::Whole(bytes) => bytes,
        }
    }
}

pub struct Channel {
    /// The number by which the program closes it.
    pub id: u64,
    region: Arc<Region>,
    pub submissions: Consumer<Submissions>,
    completions: Producer<Completions>,
    backlog: VecDeque<Waiting>,
    backlog_bytes: usize,
    push_bytes: usize,
    assemblies: Vec<Assembly>,
    config: ChannelConfig,
    /// The next submission waits for a credit.
    pub stalled: bool,
    /// Requests without their final completion.
    pub live: usize,
    /// Pushes were dropped, and not all of that was reported yet.
    pub has_losses: bool,
    /// Where the request of a tag probably is: `hints[tag % len]`.
    hints: Vec<RequestId>,
    /// Completions were written that the program was not told of.
    unpublished: bool,
    corrupt: bool,
}

impl Channel {
    pub fn new(region: Arc<Region>, config: ChannelConfig, id: u64) -> Self {
        Channel {
            id,
            submissions: Consumer::new(Submissions(region.clone())),
            completions: Producer::new(Completions(region.clone())),
            region,
            backlog: VecDeque::new(),
            backlog_bytes: 0,
            push_bytes: 0,
            assemblies: Vec::new(),
            config,
            stalled: false,
            live: 0,
            has_losses: false,
            hints: vec![RequestId(u64::MAX); 64],
            unpublished: false,
            corrupt: false,
        }
    }

    pub fn has_submissions(&self) -> bool {
        !self.corrupt && self.submissions.has_more() && (!self.stalled || self.has_credit())
    }

    /// True if a turn would get anything done for this channel.
    pub fn has_work(&self) -> bool {
        self.has_submissions() || self.has_room_again()
    }

    /// The program has read since it was asked to make room for what waits.
    fn has_room_again(&self) -> bool {
        !self.backlog.is_empty() && self.region.words().kernel_wants_room.0.load(Ordering::Acquire) == 0
    }

    /// Grows whenever the program takes a completion or submits something.
    pub fn activity(&self) -> u64 {
        let words = self.region.words();
        let taken = words.completion_tail.0.load(Ordering::Relaxed);
        taken.wrapping_add(words.submission_head.0.load(Ordering::Relaxed))
    }

    /// How full the fuller of its rings is, 0 to 1.
    pub fn fill(&self) -> f64 {
        let words = self.region.words();
        let used = |head: u64, tail: u64| head.saturating_sub(tail) as f64 / self.config.ring_bytes as f64;
        let ring =
            |head: &AtomicU64, tail: &AtomicU64| used(head.load(Ordering::Relaxed), tail.load(Ordering::Relaxed));
        let submissions = ring(&words.submission_head.0, &words.submission_tail.0);
        submissions.max(ring(&words.completion_head.0, &words.completion_tail.0)).min(1.0)
    }

    /// The program has taken all there is.
    pub fn is_read_dry(&self) -> bool {
        let words = self.region.words();
        let shown = words.completion_head.0.load(Ordering::Relaxed);
        !self.corrupt && self.backlog.is_empty() && words.completion_tail.0.load(Ordering::Relaxed) == shown
    }

    /// May one more request begin?
    #[inline]
    pub fn has_credit(&self) -> bool {
        self.live + self.backlog.len() < self.config.credits
    }

    /// The process's first thread opened it.
    pub fn is_of_main(&self) -> bool {
        self.config.thread == std::process::id()
    }

    /// An event loop watches it: what comes is taken as soon as the loop turns.
    pub fn is_of_loop(&self) -> bool {
        self.region.words().app_watches.0.load(Ordering::Relaxed) != 0
    }

    /// Completions that the ring has no room for.
    pub fn backlog(&self) -> usize {
        self.backlog.len()
    }

    /// Joins fragments into messages. Records of other tags may stand between the fragments of one.
    #[inline]
    pub fn assemble<'a>(&mut self, head: Submission, payload: &'a [u8]) -> Taken<'a> {
        let more = head.flags & IOK_FLAG_MORE != 0;
        if self.assemblies.is_empty() && !more {
            return Taken::Message(head, Message::InRing(payload));
        }
        match self.assemblies.iter().position(|assembly| assembly.head.tag == head.tag) {
            None if !more => Taken::Message(head, Message::InRing(payload)),
            None => self.begin_assembly(head, payload),
            Some(at) => self.continue_assembly(at, more, payload),
        }
    }

    fn begin_assembly<'a>(&mut self, mut head: Submission, payload: &[u8]) -> Taken<'a> {
        if self.assemblies.len() == ASSEMBLIES_MAX {
            return Taken::Nonsense;
        }
        head.flags &= !IOK_FLAG_MORE;
        let refused = head.bytes_total as usize > self.config.message_bytes_max;
        self.assemblies.push(Assembly { head, payload: Vec::new(), refused });
        if refused {
            return Taken::TooLarge(head);
        }
        self.continue_assembly(self.assemblies.len() - 1, true, payload)
    }

    /// The messages under assembly have the limit of one message together, so that unfinished ones cost no more.
    fn continue_assembly<'a>(&mut self, at: usize, more: bool, payload: &[u8]) -> Taken<'a> {
        let held: usize = self.assemblies.iter().map(|assembly| assembly.payload.len()).sum();
        let assembly = &mut self.assemblies[at];
        let too_large = !assembly.refused && held + payload.len() > self.config.message_bytes_max;
        if too_large {
            (assembly.refused, assembly.payload) = (true, Vec::new());
        }
        // Memory is taken as bytes arrive: a total that lies costs nothing.
        let no_memory = !assembly.refused && assembly.payload.try_reserve(payload.len()).is_err();
        if no_memory {
            (assembly.refused, assembly.payload) = (true, Vec::new());
        }
        if !assembly.refused {
            assembly.payload.extend_from_slice(payload);
        }
        let head = assembly.head;
        let whole = (!more).then(|| self.assemblies.remove(at));
        match whole {
            _ if too_large => Taken::TooLarge(head),
            _ if no_memory => Taken::NoMemory(head),
            Some(assembly) if !assembly.refused => Taken::Message(head, Message::Whole(assembly.payload)),
            _ => Taken::Fragment,
        }
    }

    /// The submissions that wait. They stay where they are until `done_with`.
    pub fn submitted<'a>(&mut self) -> Result<Submitted<'a>, Corrupt> {
        Ok(Submitted::new(self.submissions.run()?))
    }

    /// Their place may be used again; says so to a program that waits for room.
    pub fn done_with(&mut self, bytes: usize) {
        if bytes == 0 {
            return;
        }
        self.submissions.advance(bytes);
        let wants = &self.region.words().app_wants_room.0;
        std::sync::atomic::fence(Ordering::SeqCst);
        if wants.load(Ordering::Relaxed) != 0 {
            wants.store(0, Ordering::Relaxed);
            self.region.wake_app();
        }
    }

    /// Remembers where the request of a tag is.
    #[inline]
    pub fn begin(&mut self, tag: u64, id: RequestId) {
        self.live += 1;
        if self.live * 2 > self.hints.len() {
            self.hints = vec![RequestId(u64::MAX); self.hints.len() * 4];
        }
        let at = tag as usize & (self.hints.len() - 1);
        self.hints[at] = id;
    }

    /// Where the request of a tag probably is.
    pub fn hint(&self, tag: u64) -> RequestId {
        self.hints[tag as usize & (self.hints.len() - 1)]
    }

    /// Gives the program a completion, now or when there is room.
    #[inline]
    pub fn put(&mut self, head: Completion, payload: &[u8]) {
        if self.corrupt {
            return;
        }
        let head = Completion { bytes_total: payload.len() as u32, ..head };
        let fits = payload.len() + IOK_COMPLETION_BYTES as usize <= self.config.ring_bytes / 4;
        if fits && self.backlog.is_empty() {
            match write_completion(&mut self.completions, &head, payload) {
                Ok(true) => return self.unpublished = true,
                Ok(false) => {}
                Err(Corrupt) => return self.end(IOK_STATUS_CORRUPT),
            }
        }
        self.put_aside(head, payload);
    }

    /// Like `put` for pushes; false if it had to be dropped.
    pub fn put_push(&mut self, head: Completion, payload: &[u8]) -> bool {
        if !self.backlog.is_empty() && self.push_bytes + payload.len() > self.config.push_buffer_bytes {
            return false;
        }
        self.put(head, payload);
        true
    }

    fn put_aside(&mut self, mut head: Completion, payload: &[u8]) {
        let over = head.kind == IOK_KIND_DONE && self.backlog_bytes + payload.len() > self.config.reply_buffer_bytes;
        let mut kept = Vec::new();
        let no_memory = !over && kept.try_reserve_exact(payload.len()).is_err();
        if over || no_memory {
            head.bytes_total = 0;
            head.encoding = IOK_ENCODING_NONE;
            if head.status == IOK_STATUS_OK {
                head.status = if over { IOK_STATUS_REPLY_DROPPED } else { IOK_STATUS_NO_MEMORY };
            }
        } else {
            kept.extend_from_slice(payload);
        }
        let payload = kept.into_boxed_slice();
        self.backlog_bytes += payload.len();
        if head.kind == IOK_KIND_PUSH {
            self.push_bytes += payload.len() + IOK_COMPLETION_BYTES as usize;
        }
        self.backlog.push_back(Waiting { head, payload, sent: 0 });
        self.unpublished = true;
    }

    /// Moves what waits into the ring, in its order, large ones in fragments.
    fn pump(&mut self) -> Result<(), Corrupt> {
        let fragment_max = self.config.ring_bytes / 4 - IOK_COMPLETION_BYTES as usize;
        while let Some(waiting) = self.backlog.front_mut() {
            loop {
                let left = waiting.payload.len() - waiting.sent;
                let bytes = left.min(fragment_max);
                let mut head = waiting.head;
                head.flags = if left > bytes { head.flags | IOK_FLAG_MORE } else { head.flags };
                let part = &waiting.payload[waiting.sent..waiting.sent + bytes];
                if !write_completion(&mut self.completions, &head, part)? {
                    return Ok(());
                }
                waiting.sent += bytes;
                if left == bytes {
                    break;
                }
            }
            self.backlog_bytes -= waiting.payload.len();
            if waiting.head.kind == IOK_KIND_PUSH {
                self.push_bytes -= waiting.payload.len() + IOK_COMPLETION_BYTES as usize;
            }
            self.backlog.pop_front();
        }
        Ok(())
    }

    /// Shows the program what was put, and wakes it if it sleeps.
    #[inline]
    pub fn publish(&mut self) {
        if !self.unpublished || self.corrupt {
            return;
        }
        self.unpublished = false;
        if !self.backlog.is_empty() && self.pump_or_ask().is_err() {
            return self.end(IOK_STATUS_CORRUPT);
        }
        self.completions.publish();
        self.region.wake_app();
    }

    /// Moves what fits; if something is left, asks the program to ring when it has read.
    fn pump_or_ask(&mut self) -> Result<(), Corrupt> {
        self.pump()?;
        if self.backlog.is_empty() {
            return Ok(());
        }
        self.completions.publish();
        self.region.words().kernel_wants_room.0.store(1, Ordering::Relaxed);
        std::sync::atomic::fence(Ordering::SeqCst);
        self.pump()
    }

    /// Looks whether there is room for what waits.
    pub fn retry(&mut self) {
        if self.has_room_again() {
            self.unpublished = true;
            self.publish();
        }
    }

    /// The channel is of no use any more: says so to the program, now and at each later call.
    pub fn end(&mut self, status: Status) {
        self.corrupt = true;
        self.backlog.clear();
        self.backlog_bytes = 0;
        self.region.words().ended.0.store(status as u32, Ordering::SeqCst);
        self.region.wake_app();
    }

    /// The kernel ends: what was put stays readable, nothing more comes.
    pub fn close(&mut self, status: Status) {
        self.publish();
        if !self.corrupt {
            self.end(status);
        }
    }

    pub fn is_corrupt(&self) -> bool {
        self.corrupt
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::app::AppSide;
    use crate::ring::wake::Bell;

    const MESSAGE_BYTES_MAX: usize = 1 << 20;

    fn pair(options: &str) -> (Channel, AppSide) {
        let config = ChannelConfig::parse(&format!("ring=64KiB&max_request=1MiB&{options}")).unwrap();
        let region = Arc::new(Region::new(config.ring_bytes, config.ring_bytes).unwrap());
        let bell = Arc::new(Bell::new().unwrap());
        let app = AppSide::new(region.clone(), bell, config.ring_bytes, config.message_bytes_max);
        (Channel::new(region, config, 1), app)
    }

    fn fragment(tag: u64, more: bool, bytes_total: u32) -> Submission {
        let flags = if more { IOK_FLAG_MORE } else { 0 };
        Submission { op: IOK_OP_ECHO, tag, flags, bytes_total, ..Submission::default() }
    }

    fn completion(kind: u16, tag: u64) -> Completion {
        Completion { kind, tag, encoding: IOK_ENCODING_BYTES, ..Completion::default() }
    }

    /// Everything the program can read at this moment: tag, status, MORE, payload length.
    fn read(app: &mut AppSide) -> Vec<(u64, Status, bool, usize)> {
        let mut found = Vec::new();
        loop {
            let (count, run) = app.poll().unwrap();
            if count == 0 {
                return found;
            }
            let mut at = 0;
            for _ in 0..count {
                let head = crate::ring::record::completion_in(run, at).unwrap();
                let bytes = head.size as usize - IOK_COMPLETION_BYTES as usize;
                found.push((head.tag, head.status, head.flags & IOK_FLAG_MORE != 0, bytes));
                at += aligned(head.size as usize);
            }
            assert_eq!(app.advance(run.bytes), IOK_STATUS_OK);
        }
    }

    fn whole(taken: Taken<'_>) -> Option<(u64, Vec<u8>)> {
        match taken {
            Taken::Message(head, message) => Some((head.tag, message.bytes().to_vec())),
            _ => None,
        }
    }

    #[test]
    fn fragments_become_messages_though_others_stand_between() {
        let (mut channel, _app) = pair("");
        assert_eq!(whole(channel.assemble(fragment(9, false, 0), b"alone")), Some((9, b"alone".to_vec())));
        assert!(whole(channel.assemble(fragment(1, true, 6), b"ab")).is_none());
        assert!(whole(channel.assemble(fragment(2, true, 4), b"AB")).is_none());
        assert_eq!(whole(channel.assemble(fragment(3, false, 0), b"between")), Some((3, b"between".to_vec())));
        assert!(whole(channel.assemble(fragment(1, true, 0), b"cd")).is_none());
        assert_eq!(whole(channel.assemble(fragment(2, false, 0), b"CD")), Some((2, b"ABCD".to_vec())));
        assert_eq!(whole(channel.assemble(fragment(1, false, 0), b"ef")), Some((1, b"abcdef".to_vec())));
    }

    #[test]
    fn a_message_beyond_its_limit_is_refused_once_and_swallowed() {
        let (mut channel, _app) = pair("");
        let total = MESSAGE_BYTES_MAX as u32 + 1;
        assert!(matches!(channel.assemble(fragment(1, true, total), b"x"), Taken::TooLarge(_)));
        assert!(matches!(channel.assemble(fragment(1, true, 0), b"x"), Taken::Fragment));
        assert!(matches!(channel.assemble(fragment(1, false, 0), b"x"), Taken::Fragment));
        // A total that lies.
        let part = vec![0; MESSAGE_BYTES_MAX / 2 + 1];
        assert!(matches!(channel.assemble(fragment(2, true, 8), &part), Taken::Fragment));
        assert!(matches!(channel.assemble(fragment(2, true, 0), &part), Taken::TooLarge(_)));
        assert!(matches!(channel.assemble(fragment(2, false, 0), &part), Taken::Fragment));
        assert_eq!(whole(channel.assemble(fragment(2, false, 0), b"anew")), Some((2, b"anew".to_vec())));
    }

    #[test]
    fn what_the_ring_cannot_take_waits_in_its_order() {
        let (mut channel, mut app) = pair("");
        channel.put(completion(IOK_KIND_DONE, 0), &[0; 40_000]);
        for tag in 1..100 {
            channel.put(completion(IOK_KIND_DONE, tag), &[0; 2000]);
        }
        assert!(channel.backlog() > 0);
        let mut found = Vec::new();
        while found.len() < 102 {
            channel.publish();
            channel.retry();
            found.extend(read(&mut app));
        }
        let fragments: Vec<usize> = found[..3].iter().map(|(_, _, _, bytes)| *bytes).collect();
        assert_eq!(fragments.iter().sum::<usize>(), 40_000);
        let more: Vec<bool> = found[..4].iter().map(|(_, _, more, _)| *more).collect();
        assert_eq!(more, [true, true, false, false]);
        assert!(found[3..].iter().zip(1..).all(|((tag, _, _, bytes), wanted)| (*tag, *bytes) == (wanted, 2000)));
        assert_eq!(channel.backlog(), 0);
    }

    #[test]
    fn pushes_have_a_budget_and_replies_another() {
        let (mut channel, mut app) = pair("push_buffer=100KiB&reply_buffer=100KiB");
        let kept = (0..1000).filter(|tag| channel.put_push(completion(IOK_KIND_PUSH, *tag), &[0; 1000])).count();
        assert!((150..200).contains(&kept), "{kept} of a ring of 64 KiB and 100 KiB beside it");
        for tag in 1000..1300 {
            channel.put(completion(IOK_KIND_DONE, tag), &[0; 1000]);
        }
        let mut found = Vec::new();
        while found.len() < kept + 300 {
            channel.publish();
            channel.retry();
            found.extend(read(&mut app));
        }
        let replies: Vec<_> = found.iter().filter(|(tag, ..)| *tag >= 1000).collect();
        assert_eq!(replies.len(), 300, "each reply is told, with or without its payload");
        for (tag, status, _, bytes) in replies {
            let expected = if *bytes == 1000 { IOK_STATUS_OK } else { IOK_STATUS_REPLY_DROPPED };
            assert_eq!(*status, expected, "{tag}");
        }
        assert!(found.iter().any(|(_, status, _, _)| *status == IOK_STATUS_REPLY_DROPPED));
    }
}
