//! Ordinary requests: admitted, given to a peer, sent on its shared conn, and again where that is safe.

use std::time::{Duration, Instant};

use super::members::{Member, MemberId};
use super::{Service, overloaded, refuse};
use crate::peer::{Role, Wanted};
use crate::proto::{Class, Need, Rejection, RequestId, Route};
use crate::router::balance::{self, Load};
use crate::router::{Act, ConnId, How, Returned, Sent};

/// One request in a queue.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    pub request: RequestId,
    pub route: Route,
    /// For a peer that does not own what it concerns.
    pub asking: bool,
}

impl Entry {
    pub fn new(request: RequestId, route: Route) -> Self {
        Entry { request, route, asking: false }
    }

    /// The same without a certain peer.
    pub fn anew(self) -> Self {
        Entry { asking: false, ..self }
    }
}

/// The span in which a request that is to be tried again in a moment comes again.
const DELAY_MS: std::ops::Range<u64> = 5..20;

impl Service {
    #[inline]
    pub(super) fn shared_request(&mut self, now: Instant, request: RequestId, route: Route, act: &mut dyn Act) {
        self.budget.request();
        if let Some(conn) = self.fast.filter(|conn| self.queued == 0 && !self.is_held_up(*conn, act))
            && act.send(conn, request, How::Shared) == Sent::Gone
        {
            self.fast_sent += 1;
            return;
        }
        self.admit(now, Entry::new(request, route), act);
    }

    fn admit(&mut self, now: Instant, entry: Entry, act: &mut dyn Act) {
        if let Some(down) = self.refusal().cloned() {
            return refuse(act, entry.request, &down);
        }
        if !self.waiting.is_empty() || !self.has_credit(now, act) {
            if self.has_room(entry.request, act) {
                self.queued += 1;
                self.waiting.push_back(entry);
            }
            return;
        }
        self.place(now, entry, act);
    }

    /// One more may wait. If not, it is refused at once.
    fn has_room(&mut self, request: RequestId, act: &mut dyn Act) -> bool {
        let room = !self.is_full(act);
        if !room {
            overloaded(act, request, self.config.queue_max);
        }
        room
    }

    fn is_full(&mut self, act: &dyn Act) -> bool {
        if self.queued >= self.config.queue_max {
            self.forget_ended(act);
        }
        self.queued >= self.config.queue_max
    }

    /// Takes a credit of the endpoint, if there is one.
    fn has_credit(&mut self, now: Instant, act: &dyn Act) -> bool {
        if self.config.inflight_max != usize::MAX {
            let placed = self.queued - self.waiting.len();
            if act.inflight() + placed >= self.config.inflight_max {
                return false;
            }
        }
        let Some(rate) = self.config.rate else { return true };
        let bucket = self.bucket.get_or_insert_with(|| crate::router::throttle::Bucket::new(rate, now));
        let there = bucket.take(now);
        if !there {
            let next = bucket.next();
            self.throttle_until(next);
        }
        there
    }

    fn throttle_until(&mut self, next: Instant) {
        self.throttled_until = Some(self.throttled_until.map_or(next, |until| until.min(next)));
    }

    /// Gives a request to a peer, or lets it wait for one.
    fn place(&mut self, now: Instant, entry: Entry, act: &mut dyn Act) {
        match self.pick(entry.route, act) {
            Some(member) => self.give(now, member, entry, act),
            None if self.has_room(entry.request, act) => {
                self.queued += 1;
                self.stuck.push_back(entry);
                self.hurry(now, act);
            }
            None => {}
        }
    }

    /// The peer for a request, of those that can take it.
    pub(super) fn pick(&mut self, route: Route, act: &dyn Act) -> Option<MemberId> {
        let able = self.slots.able(route.slot).unwrap_or(&self.able);
        match able {
            [] => return None,
            [only] => return Some(*only),
            _ => {}
        }
        let load = |index: usize| {
            let member = &self.members[&able[index]];
            if self.config.exclusive {
                let (pool, weight) = (&member.pool, member.peer.weight);
                return Load { inflight: pool.under_way + member.queue.len(), latency_ns: pool.latency_ns, weight };
            }
            Load {
                inflight: member.ready.iter().map(|conn| act.tenancy(*conn).0).sum::<usize>() + member.queue.len(),
                latency_ns: member.ready.iter().map(|conn| act.latency_ns(*conn)).min().unwrap_or(0),
                weight: member.peer.weight,
            }
        };
        let hash = route.hash.filter(|_| route.slot.is_none());
        let index = match (hash, self.config.wanted) {
            (Some(hash), _) => balance::rendezvous(
                hash,
                able.iter().map(|id| {
                    let peer = &self.members[id].peer;
                    (peer.name.as_str(), peer.weight)
                }),
            ),
            (None, Wanted::Nearest) => balance::nearest(&mut self.rng, able.len(), load),
            (None, _) => balance::least(&mut self.rng, able.len(), load),
        };
        Some(able[index])
    }

    /// Sends a request to a peer, or puts it into its queue.
    fn give(&mut self, now: Instant, id: MemberId, entry: Entry, act: &mut dyn Act) {
        let waits = self.members.get(&id).is_none_or(|member| !member.queue.is_empty());
        if !waits && self.send(now, id, entry, act) {
            return;
        }
        if self.has_room(entry.request, act)
            && let Some(member) = self.members.get_mut(&id)
        {
            member.queue.push_back(entry);
            self.queued += 1;
            if self.config.exclusive {
                self.dial_pool(now, id, act);
            }
        }
    }

    /// Sends a request on one of a peer's shared conns. False if none takes it at present.
    fn send(&mut self, now: Instant, id: MemberId, entry: Entry, act: &mut dyn Act) -> bool {
        let Some(member) = self.members.get_mut(&id) else { return false };
        if member.ejected_until.is_some() {
            return false;
        }
        let inflight = |conn: &ConnId| act.tenancy(*conn).0;
        let limit = member.adaptive.as_ref().map_or(self.config.peer_inflight_max, |adaptive| adaptive.limit());
        let under_way = |member: &Member| member.ready.iter().map(inflight).sum::<usize>();
        let pooled = self.config.exclusive;
        if limit < usize::MAX && (if pooled { member.pool.under_way } else { under_way(member) }) >= limit {
            return false;
        }
        if let Some(bucket) = &mut member.bucket
            && !bucket.has(now)
        {
            let next = bucket.next();
            self.throttle_until(next);
            return false;
        }
        let how = if entry.asking { How::Asking } else { How::Shared };
        let sent = if pooled {
            self.send_pooled(now, id, entry.request, how, act)
        } else {
            let conn = self.best_shared(now, id, act);
            conn.is_some_and(|conn| act.send(conn, entry.request, how) == Sent::Gone)
        };
        let Some(member) = self.members.get_mut(&id).filter(|_| sent) else { return false };
        member.requests += 1;
        if let Some(bucket) = &mut member.bucket {
            bucket.take(now);
        }
        true
    }

    /// Sends what waits for one peer, while its conn takes it.
    pub(super) fn pump_member(&mut self, now: Instant, id: MemberId, act: &mut dyn Act) {
        loop {
            let Some(entry) = self.members.get(&id).and_then(|member| member.queue.front().copied()) else { return };
            if act.is_live(entry.request) && !self.send(now, id, entry, act) {
                return;
            }
            if let Some(member) = self.members.get_mut(&id) {
                member.queue.pop_front();
                self.queued -= 1;
            }
        }
    }

    pub(super) fn pump_all(&mut self, now: Instant, act: &mut dyn Act) {
        let with: Vec<MemberId> =
            self.members.iter().filter(|(_, member)| !member.queue.is_empty()).map(|(id, _)| *id).collect();
        for id in with {
            self.pump_member(now, id, act);
        }
    }

    /// Lets in what the endpoint's throttles held back.
    pub(super) fn pump_waiting(&mut self, now: Instant, act: &mut dyn Act) {
        while let Some(entry) = self.waiting.front().copied() {
            let live = act.is_live(entry.request);
            if live && !self.has_credit(now, act) {
                return;
            }
            self.waiting.pop_front();
            self.queued -= 1;
            if live {
                self.place(now, entry, act);
            }
        }
    }

    /// Tries again what no peer could take.
    pub(super) fn unstick(&mut self, now: Instant, act: &mut dyn Act) {
        if self.stuck.is_empty() || !self.serves_some() {
            return;
        }
        let mut stuck = std::mem::take(&mut self.stuck);
        // Numbers grow, so this is the order in which they came.
        stuck.make_contiguous().sort_unstable_by_key(|entry| entry.request);
        self.queued -= stuck.len();
        for entry in stuck {
            if act.is_live(entry.request) {
                self.place(now, entry, act);
            }
        }
    }

    pub(super) fn retry_delayed(&mut self, now: Instant, act: &mut dyn Act) {
        let (due, later): (Vec<_>, Vec<_>) = self.delayed.drain(..).partition(|(at, _)| *at <= now);
        self.delayed = later;
        self.queued -= due.len();
        for (_, entry) in due {
            if act.is_live(entry.request) {
                self.place(now, entry, act);
            }
        }
    }

    /// A peer did not execute a request. True if it goes on its way again.
    pub(super) fn rejected(&mut self, now: Instant, returned: Returned<'_>, act: &mut dyn Act) -> bool {
        let Returned { conn, request, need, why } = returned;
        let entry = Entry::new(request, need.route);
        let known = conn.and_then(|conn| Some((conn, self.conns.get(&conn)?.member)));
        let Some((conn, id)) = known else {
            match need.class {
                Class::Shared | Class::Exchange => self.admit(now, entry, act),
                _ => self.handle_lane_again(now, request, need, act),
            }
            return true;
        };
        // Another replica would say the same.
        if why == Rejection::NotPrimary && self.config.wanted != Wanted::Primary && !self.config.topology {
            return false;
        }
        self.free_lane(now, conn, request, act);
        match why {
            Rejection::TryAgain => self.try_later(now, entry, act),
            Rejection::Moved { slot, to, once } => {
                let Some(to) = self.redirected(now, id, slot, to, once, act) else { return false };
                self.go_to(now, to, Entry { asking: once, ..entry }, need, act);
                true
            }
            Rejection::NotPrimary | Rejection::NotServing => {
                self.wait_for_better(now, (conn, id), entry, need, why, act);
                true
            }
        }
    }

    /// Tries again in a moment, if the budget for retries allows.
    fn try_later(&mut self, now: Instant, entry: Entry, act: &dyn Act) -> bool {
        if self.is_full(act) || !self.budget.take() {
            return false;
        }
        let delay = Duration::from_millis(self.rng.u64(DELAY_MS));
        self.delayed.push((now + delay, entry));
        self.queued += 1;
        true
    }

    /// Goes where a redirect led.
    fn go_to(&mut self, now: Instant, to: MemberId, entry: Entry, need: Need, act: &mut dyn Act) {
        if !matches!(need.class, Class::Shared | Class::Exchange) {
            self.handle_lane_again(now, entry.request, need, act);
        } else if self.members.get(&to).is_some_and(|member| member.is_sound()) {
            self.give(now, to, entry, act);
        } else {
            self.hold(now, to, entry, act);
        }
    }

    /// Waits until some peer is known to take it.
    fn wait_for_better(
        &mut self,
        now: Instant,
        (conn, id): (ConnId, MemberId),
        entry: Entry,
        need: Need,
        why: Rejection<'_>,
        act: &mut dyn Act,
    ) {
        let shared = matches!(need.class, Class::Shared | Class::Exchange);
        if shared {
            // It keeps its place among those in flight, whoever else is let in below.
            self.queued += 1;
            self.stuck.push_back(entry);
        }
        if why == Rejection::NotPrimary && !self.config.topology {
            self.learn_role(now, conn, Role::Replica, None, act);
        } else {
            // In a divided service a replica redirects: one that does neither does not know its place yet.
            self.leave_alone(now, id, act);
        }
        if shared {
            self.unstick(now, act);
            self.bound_stuck(entry.request, act);
        } else {
            self.handle_lane_again(now, entry.request, need, act);
        }
    }

    /// A peer serves nobody at present.
    fn leave_alone(&mut self, now: Instant, id: MemberId, act: &mut dyn Act) {
        if let Some(member) = self.members.get_mut(&id) {
            member.eject(now, "it said that it serves nobody at present");
        }
        if self.config.topology {
            self.slots.doubt(now);
        }
        act.doubt();
        self.reshape(now, act);
    }

    /// A request that no peer can take may be one too many.
    fn bound_stuck(&mut self, request: RequestId, act: &mut dyn Act) {
        if self.queued <= self.config.queue_max {
            return;
        }
        self.forget_ended(act);
        let at = self.stuck.iter().position(|entry| entry.request == request);
        if let Some(at) = at.filter(|_| self.queued > self.config.queue_max) {
            self.stuck.remove(at);
            self.queued -= 1;
            overloaded(act, request, self.config.queue_max);
        }
    }

    /// A request waits until a peer can take it, or until its conn is ready.
    fn hold(&mut self, now: Instant, id: MemberId, entry: Entry, act: &mut dyn Act) {
        self.dial_missing(now, act);
        if self.has_room(entry.request, act)
            && let Some(member) = self.members.get_mut(&id)
        {
            member.queue.push_back(entry);
            self.queued += 1;
        }
    }

    pub(super) fn learn_latency(&mut self, now: Instant, conn: ConnId, id: MemberId, inflight: usize, act: &dyn Act) {
        let Some(member) = self.members.get_mut(&id) else { return };
        if let Some(adaptive) = &mut member.adaptive {
            adaptive.learn(now, act.latency_ns(conn), inflight);
        }
    }

    /// Looks through who waits, if anyone has ended: the cost of that is shared by as many as have ended.
    pub(super) fn forget_ended(&mut self, act: &dyn Act) {
        if std::mem::take(&mut self.ended) == 0 {
            return;
        }
        let live = |entry: &Entry| act.is_live(entry.request);
        self.waiting.retain(live);
        self.stuck.retain(live);
        self.delayed.retain(|(_, entry)| live(entry));
        let mut queued = self.waiting.len() + self.stuck.len() + self.delayed.len();
        for member in self.members.values_mut() {
            member.queue.retain(live);
            queued += member.queue.len();
        }
        self.queued = queued;
        self.wants.retain(|want| act.is_live(want.request));
    }

    /// Empties every queue of requests.
    pub(super) fn take_queued(&mut self) -> Vec<RequestId> {
        let mut all: Vec<Entry> = self.waiting.drain(..).chain(self.stuck.drain(..)).collect();
        all.extend(self.delayed.drain(..).map(|(_, entry)| entry));
        for member in self.members.values_mut() {
            all.extend(member.queue.drain(..));
        }
        self.queued = 0;
        all.into_iter().map(|entry| entry.request).collect()
    }
}
