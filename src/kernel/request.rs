//! Requests under way: one entry from submission to final completion.

use super::wheel::TimerKey;
use crate::proto::RequestId;

/// No conn.
pub const NO_CONN: u32 = u32::MAX;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    Request,
    Stream,
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
    /// The conn it was given to.
    pub conn: u32,
    /// How often it was sent again.
    pub retries: u8,
    /// Where its first byte lies in what that conn ever wrote.
    pub wire_start: u64,
    pub queued_ns: u64,
    pub sent_ns: u64,
    /// Kept while it may have to be sent (again).
    pub payload: Option<Box<[u8]>>,
    /// For streams: pushes dropped since the last LOST.
    pub lost: u64,
}

/// All of them. Numbers carry a generation, so that a late reply to an ended request finds nobody.
#[derive(Default)]
pub struct Requests {
    entries: Vec<Entry>,
    free: Vec<u32>,
    live: usize,
}

struct Entry {
    generation: u32,
    request: Option<Request>,
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
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                self.entries.push(Entry { generation: 0, request: None });
                (self.entries.len() - 1) as u32
            }
        };
        let entry = &mut self.entries[index as usize];
        entry.request = Some(request);
        RequestId(u64::from(entry.generation) << 32 | u64::from(index))
    }

    #[inline]
    pub fn get(&self, id: RequestId) -> Option<&Request> {
        let entry = self.entries.get(id.0 as u32 as usize)?;
        if entry.generation == (id.0 >> 32) as u32 { entry.request.as_ref() } else { None }
    }

    #[inline]
    pub fn get_mut(&mut self, id: RequestId) -> Option<&mut Request> {
        let entry = self.entries.get_mut(id.0 as u32 as usize)?;
        if entry.generation == (id.0 >> 32) as u32 { entry.request.as_mut() } else { None }
    }

    pub fn remove(&mut self, id: RequestId) -> Option<Request> {
        let index = id.0 as u32;
        let entry = self.entries.get_mut(index as usize)?;
        if entry.generation != (id.0 >> 32) as u32 {
            return None;
        }
        let request = entry.request.take()?;
        // Generation and index together stay below 2^63 for longer than any process lives.
        entry.generation = (entry.generation + 1) & 0x7fff_ffff;
        self.free.push(index);
        self.live -= 1;
        Some(request)
    }

    /// Every live request that `wanted` names.
    pub fn ids(&self, wanted: impl Fn(&Request) -> bool) -> Vec<RequestId> {
        let live = self.entries.iter().enumerate();
        live.filter_map(|(index, entry)| {
            let request = entry.request.as_ref()?;
            wanted(request).then_some(RequestId(u64::from(entry.generation) << 32 | index as u64))
        })
        .collect()
    }
}
