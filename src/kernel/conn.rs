//! One conn: a socket, its buffers, and the protocol that knows what they mean.

use std::collections::VecDeque;
use std::io;
use std::time::Instant;

use super::dial::Dialer;
use super::exchange::Ack;
use super::files::FileSpan;
use super::greeting::Greeting;
use super::line::{Got, Line};
use super::observing::own::PeerMeter;
use super::proxy::Target;
use super::tls::Securing;
use super::wheel::TimerKey;
use crate::peer::Place;
use crate::proto::{Protocol, RequestId, Span};
use crate::sys::clock::monotonic_ns;

/// Bytes that may wait for a slow peer before it is given no more requests.
pub const OUT_BYTES_SOFT: usize = 1 << 20;
/// Bytes of replies that may wait for a client of a listener before it is dropped.
pub const OUT_BYTES_HARD: usize = 256 << 20;
/// Bytes written to one conn in a turn, so that one busy conn starves no other.
const WRITE_BUDGET: usize = 1 << 20;
/// Payloads up to this size are kept until they are written, so that a request that never left can go by another conn.
const PAYLOAD_KEPT_MAX: usize = 64 << 10;
/// A buffer larger than this is given back once it is empty.
const KEPT_BYTES: usize = 256 << 10;

/// What stands between us and the peer.
pub enum Link {
    /// The name is being looked up.
    Resolving,
    Dialling(Dialer),
    /// A proxy is asked for a tunnel, or the peer for TLS.
    Greeting(Box<Greeting>),
    /// The peer and we agree on keys.
    Securing(Box<Securing>),
    Up(Line),
}

/// Bytes that came and were not consumed.
#[derive(Default)]
pub struct Input {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Input {
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    pub fn filled(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    pub fn consume(&mut self, bytes: usize) {
        self.start += bytes;
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            if self.bytes.len() > KEPT_BYTES {
                self.bytes = Vec::new();
            }
        }
    }

    /// What one read left over, which is small.
    pub fn append(&mut self, more: &[u8]) {
        self.bytes.truncate(self.end);
        self.bytes.extend_from_slice(more);
        self.end += more.len();
    }

    /// At least `wanted` writable bytes after what is filled. An error when the system has no memory for them: how much
    /// is wanted is the peer's to say.
    fn room(&mut self, wanted: usize) -> io::Result<&mut [u8]> {
        if self.bytes.len() - self.end < wanted {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            let length = self.end + wanted;
            self.bytes.try_reserve(length.saturating_sub(self.bytes.len()))?;
            if self.bytes.len() < length {
                self.bytes.resize(length, 0);
            }
        }
        Ok(&mut self.bytes[self.end..])
    }

    /// Reads once. A frame that is announced as huge gets memory as its bytes arrive. `scratch` is where a line decrypts.
    pub fn read_from(&mut self, line: &mut Line, need: usize, scratch: &mut [u8]) -> io::Result<Got> {
        if line.is_secure() {
            let got = line.read(scratch)?;
            self.room(got.bytes)?[..got.bytes].copy_from_slice(&scratch[..got.bytes]);
            self.end += got.bytes;
            return Ok(got);
        }
        let held = self.end - self.start;
        let wanted = need.saturating_sub(held).clamp(16 << 10, held.max(1 << 20));
        let got = line.read(self.room(wanted)?)?;
        self.end += got.bytes;
        // Its room says nothing of what the socket has.
        Ok(Got { more: true, ..got })
    }
}

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flushed {
    All,
    /// The socket takes no more at present.
    Blocked,
    /// The budget is used up.
    More,
}

/// A request that was encoded and is not written to its end.
struct Unsent {
    /// Where it ends in what is ever written.
    end: u64,
    id: RequestId,
    /// Where its payload lies.
    payload: Option<std::ops::Range<usize>>,
}

pub struct Conn {
    /// Told to the program as `peer`: grows with each conn of the kernel.
    pub number: u32,
    pub endpoint: u32,
    /// The conn for which it says a word (its key and number). No router knows of it.
    pub aside_of: Option<(u32, u32)>,
    /// A client of a listener, not a conn of ours.
    pub is_server: bool,
    /// Nothing is read: the program has not taken what came.
    pub choked: bool,
    /// Sends to be acknowledged when there is room.
    pub acks: VecDeque<Ack>,
    /// Spans of files, each before the byte of the wire that follows it.
    files: VecDeque<(u64, FileSpan)>,
    pub link: Link,
    pub proto: Box<dyn Protocol>,
    pub ready: bool,
    pub draining: bool,
    pub out: Vec<u8>,
    out_at: usize,
    /// Bytes ever written to the socket.
    pub written: u64,
    pub input: Input,
    /// Bytes of input that the protocol wants to see next.
    pub need: usize,
    /// Input was left because the client has too much under way.
    pub held_back: bool,
    /// The socket may have more to read.
    pub readable: bool,
    pub writable: bool,
    /// The requests that are not written to their end.
    unsent: VecDeque<Unsent>,
    /// Their payloads, one after the other.
    kept: Vec<u8>,
    /// The stream that has it for itself.
    pub stream: Option<RequestId>,
    /// Requests of a listener's client that the program has.
    pub incoming: VecDeque<(u64, RequestId)>,
    pub timer: TimerKey,
    pub timer_at: Option<Instant>,
    /// When a conn that is not ready fails.
    pub connect_by: Option<Instant>,
    pub queued_for_flush: bool,
    pub first_byte_ns: u64,
    /// When it was given a request and had none, and when a reply came last.
    pub begun_ns: u64,
    pub replied_ns: u64,
    /// From the last byte sent to the first byte received of a reply, smoothed over about eight; 0: not known.
    pub latency_ns: u64,
    /// Where its peer's cells are.
    pub meter: Option<PeerMeter>,
    /// Where it leads, once it is connected.
    pub place: Option<Place>,
    /// Where the tunnel leads that it goes through.
    pub tunnel: Option<Target>,
    pub peer_name: String,
    /// Whose certificate the peer must have.
    pub server_name: Option<String>,
    /// The peer sends no more, or the socket has an error: read until that shows.
    pub peer_hung_up: bool,
    /// Everything that the peer will ever send was read.
    pub at_eof: bool,
    /// The peer was told that nothing more comes.
    pub half_closed: bool,
    /// When a client that takes nothing of what waits for it is let go.
    pub send_by: Option<Instant>,
    /// A client that was said goodbye to: until then, what it still sends is read and thrown away.
    pub lingers_until: Option<Instant>,
}

impl Conn {
    pub fn new(number: u32, endpoint: u32, is_server: bool, link: Link, proto: Box<dyn Protocol>) -> Self {
        Conn {
            number,
            endpoint,
            aside_of: None,
            is_server,
            choked: false,
            acks: VecDeque::new(),
            files: VecDeque::new(),
            link,
            proto,
            ready: false,
            draining: false,
            out: Vec::new(),
            out_at: 0,
            written: 0,
            input: Input::default(),
            need: 0,
            held_back: false,
            readable: false,
            writable: true,
            unsent: VecDeque::new(),
            kept: Vec::new(),
            stream: None,
            incoming: VecDeque::new(),
            timer: TimerKey::NONE,
            timer_at: None,
            connect_by: None,
            queued_for_flush: false,
            first_byte_ns: 0,
            begun_ns: 0,
            replied_ns: 0,
            latency_ns: 0,
            meter: None,
            place: None,
            tunnel: None,
            peer_name: String::new(),
            server_name: None,
            peer_hung_up: false,
            at_eof: false,
            half_closed: false,
            send_by: None,
            lingers_until: None,
        }
    }

    /// Counts something of its peer.
    #[inline]
    pub fn count(&self, what: impl FnOnce(&PeerMeter)) {
        if let Some(meter) = &self.meter {
            what(meter);
        }
    }

    /// The request of that slot was answered.
    pub fn forget_incoming(&mut self, slot: u64) {
        if let Ok(at) = self.incoming.binary_search_by_key(&slot, |(slot, _)| *slot) {
            self.incoming.remove(at);
        }
    }

    /// It is not read from: the program does not take what came, or a client has too much under way, or does not take its replies.
    pub fn is_paused(&self) -> bool {
        let is_full = || self.is_server && (self.proto.paused() || self.pending_bytes() > OUT_BYTES_SOFT);
        self.lingers_until.is_none() && (self.choked || is_full())
    }

    /// Bytes that wait to be written.
    #[inline]
    pub fn pending_bytes(&self) -> usize {
        self.out.len() - self.out_at
    }

    /// Where the next byte that a protocol appends lies in what is ever written.
    #[inline]
    pub fn wire_position(&self) -> u64 {
        self.written + self.pending_bytes() as u64
    }

    /// A request was appended and ends here; its payload is kept until then.
    #[inline]
    pub fn mark(&mut self, id: RequestId, payload: &[u8]) {
        let start = self.kept.len();
        let keeps = !payload.is_empty() && payload.len() <= PAYLOAD_KEPT_MAX;
        if keeps {
            self.kept.extend_from_slice(payload);
        }
        self.unsent.push_back(Unsent {
            end: self.wire_position(),
            id,
            payload: keeps.then_some(start..self.kept.len()),
        });
    }

    /// The payloads that were kept of requests that did not leave whole.
    pub fn kept_payloads(&self) -> impl Iterator<Item = (RequestId, &[u8])> {
        self.unsent.iter().filter_map(|unsent| Some((unsent.id, &self.kept[unsent.payload.clone()?])))
    }

    /// Bytes that wait to be written, those of files included.
    pub fn unwritten(&self) -> usize {
        let files: u64 = self.files.iter().map(|(_, span)| span.left).sum();
        self.pending_bytes().saturating_add(usize::try_from(files).unwrap_or(usize::MAX))
    }

    /// Nothing waits to be written.
    #[inline]
    pub fn is_flushed(&self) -> bool {
        self.is_taken() && !matches!(&self.link, Link::Up(line) if !line.is_settled())
    }

    /// Its line has taken everything, though it may not have written it.
    #[inline]
    fn is_taken(&self) -> bool {
        self.out_at == self.out.len() && self.files.is_empty()
    }

    /// Spans of files that a protocol has put among its bytes: before which of them, and what.
    #[inline]
    pub fn queue_files(&mut self, files: Vec<(usize, Span)>) {
        for (at, span) in files.into_iter().filter(|(_, span)| span.length > 0) {
            let position = self.written + (at - self.out_at) as u64;
            self.files.push_back((position, FileSpan::new(span)));
        }
    }

    /// Writes what is there, within the budget. `sent` is told of each request whose last byte went, and when.
    pub fn flush(&mut self, mut sent: impl FnMut(RequestId, u64)) -> io::Result<Flushed> {
        let mut budget = WRITE_BUDGET;
        let mut now_ns = 0;
        let flushed = loop {
            if self.is_taken() {
                match self.settle() {
                    Ok(()) => break Flushed::All,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        self.writable = false;
                        break Flushed::Blocked;
                    }
                    Err(error) => return Err(error),
                }
            }
            if budget == 0 {
                break Flushed::More;
            }
            // Before the write: it wakes the peer, which may run in our place at once.
            let begun_ns = if self.unsent.is_empty() { 0 } else { monotonic_ns() };
            match self.write_some(budget) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    now_ns = begun_ns;
                    if let Some(meter) = &self.meter {
                        meter.sent_bytes.add(count as u64);
                    }
                    budget -= count;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.writable = false;
                    break Flushed::Blocked;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        };
        self.compact();
        if self.unsent.is_empty() {
            return Ok(flushed);
        }
        while self.unsent.front().is_some_and(|unsent| unsent.end <= self.written) {
            if let Some(unsent) = self.unsent.pop_front() {
                sent(unsent.id, now_ns);
            }
        }
        if self.unsent.is_empty() {
            self.kept.clear();
            if self.kept.capacity() > KEPT_BYTES {
                self.kept = Vec::new();
            }
        }
        Ok(flushed)
    }

    /// Has the line write what it has taken.
    fn settle(&mut self) -> io::Result<()> {
        match &mut self.link {
            Link::Up(line) => line.settle(),
            _ => Ok(()),
        }
    }

    /// One write: of the wire, or of the file whose turn it is.
    fn write_some(&mut self, budget: usize) -> io::Result<usize> {
        let Link::Up(line) = &mut self.link else { return Err(io::ErrorKind::WouldBlock.into()) };
        if let Some((position, span)) = self.files.front_mut()
            && *position == self.written
        {
            let count = span.send(line, budget)?;
            if span.left == 0 {
                self.files.pop_front();
            }
            return Ok(count);
        }
        let until_file = self.files.front().map_or(usize::MAX, |(position, _)| (position - self.written) as usize);
        let chunk = &self.out[self.out_at..];
        let count = line.write(&chunk[..chunk.len().min(budget).min(until_file)])?;
        self.out_at += count;
        self.written += count as u64;
        Ok(count)
    }

    /// The peer has done nothing of what was written, and says so.
    pub fn untouched(&mut self) {
        self.written = 0;
    }

    /// Gives back the place of what was written.
    fn compact(&mut self) {
        if self.out_at == self.out.len() {
            self.out.clear();
            self.out_at = 0;
            if self.out.capacity() > KEPT_BYTES {
                self.out = Vec::new();
            }
        } else if self.out_at > KEPT_BYTES {
            self.out.drain(..self.out_at);
            self.out_at = 0;
        }
    }
}
