//! Requests under way: one entry from submission to final completion.

use super::core::Ending;
use super::exchange::Exchange;
use super::observing::trace::Context;
use super::wheel::TimerKey;
use crate::proto::RequestId;
use crate::ring::layout::{IOK_FATE_MAYBE_EXECUTED, IOK_FATE_NOT_SENT};

/// The channel of requests that the kernel itself makes, for sources of peers.
pub const OWN_CHANNEL: u32 = u32::MAX - 1;
/// No conn.
pub const NO_CONN: u32 = u32::MAX;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    Request,
    Stream,
    /// A request whose reply comes in pieces.
    Exchange,
    Lease,
    /// Waits for the endpoint to be up.
    UntilUp,
    /// A listener's client asked; the program's reply is awaited.
    Incoming {
        slot: u64,
    },
}

/// One request as the kernel holds it.
pub struct Request {
    pub channel: u32,
    pub endpoint: u32,
    pub tag: u64,
    pub what: What,
    pub flags: u16,
    pub timer: TimerKey,
    /// The lease it travels on, or 0.
    pub lease: u64,
    /// The route key that the program gave.
    pub route: Option<u64>,
    /// The conn it was given to.
    pub conn: u32,
    /// How often it was sent again because its conn was lost.
    pub retries: u8,
    /// And because a peer did not execute it.
    pub rejections: u8,
    /// It counts as in flight.
    pub counted: bool,
    /// Where its first byte lies in what that conn ever wrote.
    pub wire_start: u64,
    pub queued_ns: u64,
    pub sent_ns: u64,
    /// A conn that it was written to is gone: it may have been executed there.
    pub doubtful: bool,
    /// How that conn was lost.
    pub loss: Option<Box<str>>,
    /// Kept while it may have to be sent (again).
    pub payload: Option<Box<[u8]>>,
    /// Once more than one message belongs to it.
    pub exchange: Option<Box<Exchange>>,
    /// For streams: pushes dropped since the last LOST.
    pub lost: u64,
    /// Whose span it is to have, if it is to have one.
    pub trace: Option<Box<Context>>,
    pub command: Name,
    /// Of its payload.
    pub bytes: u32,
    /// The payload's beginning, where its endpoint has it kept to be shown.
    pub arguments: Option<Box<[u8]>>,
    /// The marker that the program was in when it was submitted, or 0.
    pub marker: u32,
}

impl Request {
    /// How far it came, all conns that it was given to together.
    pub fn fate(&self, ending: &Ending) -> u8 {
        let doubtful = self.doubtful && ending.fate == IOK_FATE_NOT_SENT;
        if doubtful { IOK_FATE_MAYBE_EXECUTED } else { ending.fate }
    }
}

/// The name of a command, as far as it fits.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Name {
    length: u8,
    bytes: [u8; 23],
}

impl Name {
    #[inline]
    pub fn of(text: &[u8]) -> Self {
        let mut name = Name::default();
        let length = text.len().min(name.bytes.len());
        name.bytes[..length].copy_from_slice(&text[..length]);
        name.length = length as u8;
        name
    }

    /// In upper case, whatever the program wrote.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes[..usize::from(self.length)]).to_uppercase()
    }
}

/// Bits of a number that say where its entry is; those above count the requests there ever were.
pub const INDEX_BITS: u32 = 22;
/// Requests under way in one kernel, at most.
pub const REQUESTS_MAX: usize = 1 << INDEX_BITS;

/// All of them. Numbers grow with each request, so that a late reply to an ended request finds nobody, and a queue of
/// them in the order of sending is sorted.
#[derive(Default)]
pub struct Requests {
    entries: Vec<Entry>,
    free: Vec<u32>,
    live: usize,
    count: u64,
}

struct Entry {
    id: RequestId,
    request: Option<Request>,
}

fn index(id: RequestId) -> usize {
    id.0 as usize & (REQUESTS_MAX - 1)
}

impl Requests {
    pub fn len(&self) -> usize {
        self.live
    }

    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    pub fn insert(&mut self, request: Request) -> RequestId {
        self.live += 1;
        self.count += 1;
        let at = match self.free.pop() {
            Some(at) => at as usize,
            None => {
                self.entries.push(Entry { id: RequestId(0), request: None });
                self.entries.len() - 1
            }
        };
        let id = RequestId(self.count << INDEX_BITS | at as u64);
        self.entries[at] = Entry { id, request: Some(request) };
        id
    }

    #[inline]
    pub fn get(&self, id: RequestId) -> Option<&Request> {
        self.entries.get(index(id)).filter(|entry| entry.id == id)?.request.as_ref()
    }

    #[inline]
    pub fn get_mut(&mut self, id: RequestId) -> Option<&mut Request> {
        self.entries.get_mut(index(id)).filter(|entry| entry.id == id)?.request.as_mut()
    }

    pub fn remove(&mut self, id: RequestId) -> Option<Request> {
        let entry = self.entries.get_mut(index(id)).filter(|entry| entry.id == id)?;
        let request = entry.request.take()?;
        self.free.push(index(id) as u32);
        self.live -= 1;
        Some(request)
    }

    /// Every live request that `wanted` names.
    pub fn ids(&self, wanted: impl Fn(&Request) -> bool) -> Vec<RequestId> {
        let live = self.entries.iter().filter(|entry| entry.request.as_ref().is_some_and(&wanted));
        live.map(|entry| entry.id).collect()
    }
}
