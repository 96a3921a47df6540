//! FIFO correlation: the replies that are due, in the order of their requests.
use std::collections::VecDeque;

use super::commands::Mark;
use super::encode::Written;
use super::follow::Question;
use super::handshake::Step;
use crate::proto::RequestId;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Request,
    /// So many replies are to come before the one reply is whole.
    Batch {
        left: u32,
    },
    /// One reply of a batch with other slots in between, and how many are to come after it.
    Part {
        left: u32,
    },
    Handshake(Step),
    /// A reply of our own that tells nothing.
    Ignored,
    Ping,
    /// What the router wants to know.
    Ask(Question),
    /// Takes a tenant's state off the conn.
    Cleanup,
    /// The next of the pending topics.
    Subscribe,
    Unsubscribe,
}

#[derive(Clone, Copy, Debug)]
pub struct Slot {
    pub kind: Kind,
    /// For our own: the number of the request before, so that numbers never descend.
    id: RequestId,
    /// Somebody waits for it.
    pub live: bool,
    pub waits: bool,
    pub monitors: bool,
    pub mark: Option<Mark>,
    /// Part of a tenant's doings, so that it cannot be sent elsewhere: an error is the tenant's, whatever it says.
    pub bound: bool,
    pub scripts: bool,
    pub transactions: bool,
}

impl Slot {
    fn own(kind: Kind, id: RequestId) -> Self {
        Slot {
            kind,
            id,
            live: false,
            waits: false,
            monitors: false,
            mark: None,
            bound: false,
            scripts: false,
            transactions: false,
        }
    }

    /// A request ends with this slot's reply.
    fn ends_request(&self) -> bool {
        matches!(self.kind, Kind::Request | Kind::Batch { .. } | Kind::Part { left: 0 })
    }
}

/// The queue of replies that are due.
#[derive(Debug, Default)]
pub struct Slots {
    queue: VecDeque<Slot>,
    /// Topics of the `Subscribe` and `Unsubscribe` slots, in the same order.
    topics: VecDeque<Box<[u8]>>,
    last_id: u64,
    /// Numbers did descend somewhere in the queue, so that it must be searched from end to end.
    unordered: bool,
    waiting: u32,
    waiting_deaf: u32,
    requests: usize,
}

impl Slots {
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Slots that are not our own, deaf ones included.
    pub fn requests(&self) -> usize {
        self.requests
    }

    pub fn front(&self) -> Option<&Slot> {
        self.queue.front()
    }

    /// Requests under way that wait in the server.
    pub fn waiting(&self) -> u32 {
        self.waiting
    }

    /// Those of them that nobody waits for any more.
    pub fn waiting_deaf(&self) -> u32 {
        self.waiting_deaf
    }

    pub fn has_topics(&self) -> bool {
        !self.topics.is_empty()
    }

    pub fn own(&mut self, kind: Kind) {
        let id = RequestId(self.last_id);
        self.queue.push_back(Slot::own(kind, id));
    }

    /// A reply of our own that comes before one of this request, and whose number is the request's, so that the parts
    /// of one request stand together.
    pub fn own_before(&mut self, id: RequestId) {
        if self.queue.is_empty() {
            self.unordered = false;
        } else if id.0 < self.last_id {
            self.unordered = true;
        }
        self.last_id = id.0;
        self.queue.push_back(Slot::own(Kind::Ignored, id));
    }

    pub fn topic(&mut self, kind: Kind, topic: &[u8]) {
        self.topics.push_back(topic.into());
        self.own(kind);
    }

    #[inline(always)]
    pub fn request(&mut self, id: RequestId, kind: Kind, written: &Written, bound: bool) {
        let Written { waits, mark, monitors, scripts, transactions, .. } = *written;
        if self.queue.is_empty() {
            self.unordered = false;
        } else if id.0 < self.last_id {
            self.unordered = true;
        }
        self.last_id = id.0;
        let slot = Slot { kind, id, live: true, waits, monitors, mark, bound, scripts, transactions };
        self.waiting += u32::from(waits);
        self.requests += usize::from(slot.ends_request());
        self.queue.push_back(slot);
    }

    /// Takes one reply off the head; a batch leaves with its last one.
    #[inline]
    pub fn answered(&mut self) -> Option<(Slot, RequestId)> {
        let slot = self.queue.front_mut()?;
        if let Kind::Batch { left } = &mut slot.kind {
            *left = left.saturating_sub(1);
            if *left > 0 {
                return Some((*slot, slot.id));
            }
        }
        let slot = self.queue.pop_front()?;
        self.requests -= usize::from(slot.ends_request());
        if slot.waits {
            self.waiting -= 1;
            self.waiting_deaf -= u32::from(!slot.live);
        }
        Some((slot, slot.id))
    }

    /// The topic at the head, whose slot is of this kind; the slot leaves.
    pub fn topic_answered(&mut self, kind: Kind, topic: &[u8]) -> bool {
        let is_it =
            self.front().is_some_and(|slot| slot.kind == kind) && self.topics.front().is_some_and(|t| **t == *topic);
        if is_it {
            self.topics.pop_front();
            self.queue.pop_front();
        }
        is_it
    }

    /// Takes the topic of a slot that `answered` returned.
    pub fn next_topic(&mut self) -> Option<Box<[u8]>> {
        self.topics.pop_front()
    }

    /// Nobody waits for this request any more; its slot stays.
    pub fn cancel(&mut self, id: RequestId) {
        let Some(first) = self.find(id) else { return };
        // The parts of one request stand close together, with nothing but slots of our own in between.
        for slot in self.queue.range_mut(first..).take_while(|slot| slot.id == id) {
            self.waiting_deaf += u32::from(slot.waits && slot.live);
            slot.live = false;
        }
    }

    fn find(&self, id: RequestId) -> Option<usize> {
        let is_it =
            |slot: &Slot| slot.id == id && matches!(slot.kind, Kind::Request | Kind::Batch { .. } | Kind::Part { .. });
        if self.unordered {
            return self.queue.iter().position(is_it);
        }
        let first = self.queue.partition_point(|slot| slot.id < id);
        self.queue.range(first..).take_while(|slot| slot.id == id).position(is_it).map(|at| first + at)
    }

    /// What is left of the handshake tells nothing any more.
    pub fn ignore_handshake(&mut self) {
        for slot in self.queue.iter_mut().filter(|slot| matches!(slot.kind, Kind::Handshake(_))) {
            slot.kind = Kind::Ignored;
        }
    }

    /// Empties the queue and names everyone who waited, in the order of sending.
    pub fn abandon(&mut self, each: &mut dyn FnMut(RequestId)) {
        for slot in self.queue.drain(..).filter(|slot| slot.live && slot.ends_request()) {
            each(slot.id);
        }
        self.topics.clear();
        (self.waiting, self.waiting_deaf, self.requests) = (0, 0, 0);
    }
}
