//! FIFO correlation: the replies that are due, in the order of their requests.
use std::collections::VecDeque;

use super::commands::Mark;
use super::handshake::Step;
use crate::proto::RequestId;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Request,
    /// So many replies are to come before the one reply is whole.
    Batch {
        left: u32,
    },
    Handshake(Step),
    /// A reply of our own that tells nothing.
    Ignored,
    Ping,
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
        self.queue.push_back(Slot { kind, id, live: false, waits: false, monitors: false, mark: None });
    }

    pub fn topic(&mut self, kind: Kind, topic: &[u8]) {
        self.topics.push_back(topic.into());
        self.own(kind);
    }

    #[inline]
    pub fn request(&mut self, id: RequestId, kind: Kind, waits: bool, monitors: bool, mark: Option<Mark>) {
        if self.queue.is_empty() {
            self.unordered = false;
        } else if id.0 <= self.last_id {
            self.unordered = true;
        }
        self.last_id = id.0;
        self.waiting += u32::from(waits);
        self.requests += 1;
        self.queue.push_back(Slot { kind, id, live: true, waits, monitors, mark });
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
        self.requests -= usize::from(matches!(slot.kind, Kind::Request | Kind::Batch { .. }));
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
        let Some(slot) = self.find(id) else { return };
        let slot = &mut self.queue[slot];
        self.waiting_deaf += u32::from(slot.waits && slot.live);
        slot.live = false;
    }

    fn find(&self, id: RequestId) -> Option<usize> {
        let is_it = |slot: &Slot| slot.id == id && matches!(slot.kind, Kind::Request | Kind::Batch { .. });
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
        for slot in self.queue.drain(..).filter(|slot| slot.live) {
            each(slot.id);
        }
        self.topics.clear();
        (self.waiting, self.waiting_deaf, self.requests) = (0, 0, 0);
    }
}
