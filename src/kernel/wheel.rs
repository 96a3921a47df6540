//! Timers: a hierarchical wheel of milliseconds. Setting and clearing cost the same with one timer pending or 100,000.

const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;
const LEVELS: usize = 7;
const NONE: u32 = u32::MAX;

/// A pending timer; stale once it fired or was cleared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimerKey {
    index: u32,
    /// Which of the timers that this place has held.
    generation: u32,
}

impl TimerKey {
    pub const NONE: TimerKey = TimerKey { index: NONE, generation: 0 };
}

impl Default for TimerKey {
    fn default() -> Self {
        TimerKey::NONE
    }
}

struct Node<T> {
    previous: u32,
    next: u32,
    place: u16,
    generation: u32,
    due_ms: u64,
    target: Option<T>,
}

/// Slots double as list heads; each level's slots span 64 times the time of the level below.
pub struct Wheel<T> {
    now_ms: u64,
    occupied: [u64; LEVELS],
    heads: [u32; LEVELS * SLOTS],
    nodes: Vec<Node<T>>,
    free: u32,
    pending: usize,
}

impl<T> Wheel<T> {
    pub fn new(now_ms: u64) -> Self {
        Wheel {
            now_ms,
            occupied: [0; LEVELS],
            heads: [NONE; LEVELS * SLOTS],
            nodes: Vec::new(),
            free: NONE,
            pending: 0,
        }
    }

    pub fn pending(&self) -> usize {
        self.pending
    }

    /// Fires `target` at the first `advance` whose time is `due_ms` or later.
    pub fn set(&mut self, due_ms: u64, target: T) -> TimerKey {
        let index = match self.free {
            NONE => {
                self.nodes.push(Node { previous: NONE, next: NONE, place: 0, generation: 0, due_ms: 0, target: None });
                (self.nodes.len() - 1) as u32
            }
            index => {
                self.free = self.nodes[index as usize].next;
                index
            }
        };
        let node = &mut self.nodes[index as usize];
        node.target = Some(target);
        node.due_ms = due_ms.max(self.now_ms + 1).min(self.now_ms + (1 << (SLOT_BITS * LEVELS as u32 - 1)));
        let generation = node.generation;
        self.pending += 1;
        self.link(index);
        TimerKey { index, generation }
    }

    /// Forgets a pending timer. One that has fired, and `NONE`, are nothing to forget.
    pub fn clear(&mut self, key: TimerKey) {
        let Some(node) = self.nodes.get(key.index as usize) else { return };
        if node.generation != key.generation || node.target.is_none() {
            return;
        }
        self.unlink(key.index);
        self.release(key.index);
    }

    fn release(&mut self, index: u32) -> Option<T> {
        let node = &mut self.nodes[index as usize];
        node.next = self.free;
        node.generation = node.generation.wrapping_add(1);
        self.free = index;
        self.pending -= 1;
        node.target.take()
    }

    fn link(&mut self, index: u32) {
        let due = self.nodes[index as usize].due_ms;
        let distance = (due ^ self.now_ms) | (SLOTS as u64 - 1);
        let level = ((63 - distance.leading_zeros()) / SLOT_BITS) as usize;
        let slot = (due >> (SLOT_BITS * level as u32)) as usize & (SLOTS - 1);
        let place = level * SLOTS + slot;
        let next = self.heads[place];
        let node = &mut self.nodes[index as usize];
        (node.previous, node.next, node.place) = (NONE, next, place as u16);
        if next != NONE {
            self.nodes[next as usize].previous = index;
        }
        self.heads[place] = index;
        self.occupied[level] |= 1 << slot;
    }

    fn unlink(&mut self, index: u32) {
        let Node { previous, next, place, .. } = self.nodes[index as usize];
        if next != NONE {
            self.nodes[next as usize].previous = previous;
        }
        if previous != NONE {
            self.nodes[previous as usize].next = next;
            return;
        }
        let place = place as usize;
        self.heads[place] = next;
        if next == NONE {
            self.occupied[place / SLOTS] &= !(1 << (place % SLOTS));
        }
    }

    /// The next slot in time: its level, its index, and the moment it begins.
    fn next_slot(&self) -> Option<(usize, usize, u64)> {
        let level = self.occupied.iter().position(|bits| *bits != 0)?;
        let shift = SLOT_BITS * level as u32;
        let here = (self.now_ms >> shift) & (SLOTS as u64 - 1);
        let ahead = self.occupied[level].rotate_right(here as u32).trailing_zeros() as u64;
        let slot = (here + ahead) & (SLOTS as u64 - 1);
        let begin = ((self.now_ms >> shift) + ahead) << shift;
        Some((level, slot as usize, begin))
    }

    /// When to call `advance` next, at the latest; early by less than a slot of its level.
    pub fn next_ms(&self) -> Option<u64> {
        self.next_slot().map(|(_, _, begin)| begin)
    }

    /// Moves time forward and hands over what is due, in no particular order within a millisecond.
    pub fn advance(&mut self, now_ms: u64, due: &mut Vec<T>) {
        while let Some((level, slot, begin)) = self.next_slot().filter(|(_, _, begin)| *begin <= now_ms) {
            self.now_ms = self.now_ms.max(begin);
            let place = level * SLOTS + slot;
            let mut index = std::mem::replace(&mut self.heads[place], NONE);
            self.occupied[level] &= !(1 << slot);
            while index != NONE {
                let next = self.nodes[index as usize].next;
                if self.nodes[index as usize].due_ms <= self.now_ms {
                    due.extend(self.release(index));
                } else {
                    self.link(index);
                }
                index = next;
            }
        }
        self.now_ms = self.now_ms.max(now_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fires_each_timer_once_at_its_time() {
        let mut rng = fastrand::Rng::with_seed(7);
        let mut wheel = Wheel::new(1_000_003);
        let mut expected = std::collections::BTreeMap::new();
        let mut keys = Vec::new();
        for id in 0..50_000_u64 {
            let span = rng.u32(1..33);
            let due = 1_000_003 + rng.u64(0..1 << span);
            keys.push((id, wheel.set(due, id)));
            expected.insert(id, due.max(1_000_004));
        }
        for (id, key) in keys.iter().filter(|(id, _)| id % 3 == 0) {
            wheel.clear(*key);
            expected.remove(id);
        }
        let mut now = 1_000_003;
        while let Some(next) = wheel.next_ms() {
            assert!(next > now, "time stands still at {now}");
            now = next.max(now + rng.u64(0..5));
            let mut due = Vec::new();
            wheel.advance(now, &mut due);
            for id in due {
                let at = expected.remove(&id).expect("fires once, and only if it was not cleared");
                assert!(at <= now, "timer {id} for {at} fired at {now}");
            }
            assert!(expected.len() > 2_000 || expected.values().all(|at| *at > now));
        }
        assert!(expected.is_empty());
        assert_eq!(wheel.pending(), 0);
    }

    #[test]
    fn clearing_a_timer_that_fired_leaves_the_one_in_its_place() {
        let mut wheel = Wheel::new(0);
        let fired = wheel.set(5, "fired");
        let mut due = Vec::new();
        wheel.advance(5, &mut due);
        let later = wheel.set(9, "later");
        assert_eq!(fired.index, later.index);
        wheel.clear(fired);
        wheel.advance(9, &mut due);
        assert_eq!(due, ["fired", "later"]);
    }

    #[test]
    fn a_timer_set_while_time_stands_still_waits_for_the_next_millisecond() {
        let mut wheel = Wheel::new(64);
        wheel.set(10, "late");
        wheel.set(128, "on the edge");
        let mut due = Vec::new();
        wheel.advance(65, &mut due);
        assert_eq!(due, ["late"]);
        due.clear();
        wheel.advance(127, &mut due);
        assert!(due.is_empty());
        wheel.advance(128, &mut due);
        assert_eq!(due, ["on the edge"]);
    }
}
