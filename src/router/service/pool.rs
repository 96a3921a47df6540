//! Elastic pools: a request has a conn to itself until its reply is complete, and there are as many conns to a peer as
//! the load asks for, up to `pool`.
//!
//! The idle conns of a peer are a stack. Those at its bottom are closed after `lane_idle`, down to `warm`. A peer without
//! conns whose last one ended well is dormant: it counts as up, and is dialled again for the next request.

use std::collections::VecDeque;
use std::time::Instant;

use super::conns::Turns;
use super::members::{Member, MemberId};
use super::requests::Entry;
use super::{Held, Part, Service};
use crate::proto::{RequestId, Tenancy};
use crate::router::{Act, ConnId, Down, How, Sent};
use crate::status::{IOK_STATUS_LOST, IOK_STATUS_UNAVAILABLE};

/// Conns of one peer that requests have to themselves.
#[derive(Default)]
pub struct Pool {
    /// Since when each has been idle: the one used last is at the end.
    idle: VecDeque<(Instant, ConnId)>,
    /// Requests on all of them.
    pub under_way: usize,
    /// Of the ready ones, those to places that the peer has left.
    pub stale: usize,
    /// The last attempt to connect went well.
    pub proven: bool,
    /// Smoothed over about eight replies.
    pub latency_ns: u64,
    /// Who heard of its peer last, and may take one more beside what it has.
    hint: Option<ConnId>,
}

impl Pool {
    fn take_out(&mut self, conn: ConnId, since: Instant) {
        let first = self.idle.partition_point(|(at, _)| *at < since);
        let at = self.idle.range(first..).position(|(_, other)| *other == conn);
        if let Some(at) = at {
            self.idle.remove(first + at);
        }
    }

    fn learn(&mut self, latency_ns: u64) {
        let before = if self.latency_ns == 0 { latency_ns } else { self.latency_ns };
        self.latency_ns = before - before / 8 + latency_ns / 8;
    }

    /// A conn takes part no more.
    pub fn forget(&mut self, conn: ConnId, held: &Held) {
        self.under_way = self.under_way.saturating_sub(held.turns.under_way);
        if let Some(since) = held.turns.idle {
            self.take_out(conn, since);
        }
        if held.part == Part::Stale {
            self.stale = self.stale.saturating_sub(1);
        }
        self.hint = self.hint.filter(|hint| *hint != conn);
    }
}

impl Service {
    /// It belongs to an elastic pool.
    pub(super) fn is_pooled(&self, conn: ConnId) -> bool {
        let takes_part = |held: &Held| held.ready && matches!(held.part, Part::Shared | Part::Stale);
        self.config.exclusive && self.conns.get(&conn).is_some_and(takes_part)
    }

    /// Puts a conn that has nothing to do on the stack.
    pub(super) fn rest(&mut self, now: Instant, conn: ConnId) {
        let Some(held) = self.conns.get_mut(&conn) else { return };
        (held.turns.idle, held.turns.rested) = (Some(now), None);
        if let Some(member) = self.members.get_mut(&held.member) {
            member.pool.idle.push_back((now, conn));
        }
    }

    /// A conn takes part no more, though it may have replies to wait for.
    pub(super) fn leave_pool(&mut self, conn: ConnId) {
        let Some(held) = self.conns.get_mut(&conn) else { return };
        if let Some(member) = self.members.get_mut(&held.member) {
            member.pool.forget(conn, held);
        }
        held.turns = Turns::default();
    }

    /// Sends a request on an idle conn of a peer, or beside another where that is possible. False if it has to wait.
    pub(super) fn send_pooled(
        &mut self,
        now: Instant,
        id: MemberId,
        request: RequestId,
        how: How,
        act: &mut dyn Act,
    ) -> bool {
        while let Some((since, conn)) = self.members.get_mut(&id).and_then(|member| member.pool.idle.pop_back()) {
            let Some(held) = self.conns.get_mut(&conn) else { continue };
            held.turns.idle = None;
            let served = held.turns.served;
            if act.send(conn, request, how) == Sent::Later {
                // One that was never used may not be ready to be; another is of no use.
                if served {
                    self.drop_conn(conn, "it was idle and takes no requests", act);
                }
                continue;
            }
            self.gave(conn, request, (served || since < now).then_some(since), act);
            if self.conns.get(&conn).is_some_and(|held| held.turns.under_way == 0) {
                self.rest(since, conn);
            }
            return true;
        }
        self.send_beside(id, request, how, act)
    }

    /// Notes a request that a conn was given, unless it was refused for good.
    fn gave(&mut self, conn: ConnId, request: RequestId, rested: Option<Instant>, act: &dyn Act) {
        if !act.is_live(request) {
            return;
        }
        let Some(held) = self.conns.get_mut(&conn) else { return };
        let before = held.turns;
        held.turns = Turns { under_way: before.under_way + 1, served: true, idle: None, rested, last: Some(request) };
        if let Some(member) = self.members.get_mut(&held.member) {
            member.pool.under_way += 1;
        }
    }

    /// Once there are no more conns to be had, some may take a request behind another (pipelining).
    fn send_beside(&mut self, id: MemberId, request: RequestId, how: How, act: &mut dyn Act) -> bool {
        let Some(member) = self.members.get(&id) else { return false };
        if member.ready.is_empty() || member.ready.len() + member.dialling.len() < self.config.pool {
            return false;
        }
        let hint = member.pool.hint.unwrap_or_else(|| member.ready[self.rng.usize(..member.ready.len())]);
        let sent = act.send(hint, request, how) == Sent::Gone;
        if sent {
            let rested = self.conns.get(&hint).and_then(|held| held.turns.rested);
            self.gave(hint, request, rested, act);
        } else if let Some(member) = self.members.get_mut(&id) {
            member.pool.hint = None;
        }
        sent
    }

    /// A conn has heard from its peer.
    pub(super) fn pool_progress(
        &mut self,
        now: Instant,
        conn: ConnId,
        inflight: usize,
        tenancy: Tenancy,
        act: &mut dyn Act,
    ) {
        let Some(held) = self.conns.get_mut(&conn) else { return };
        let (id, before) = (held.member, held.turns.under_way);
        (held.turns.under_way, held.turns.rested) = (inflight, None);
        let is_idle = held.turns.idle.is_some();
        let Some(member) = self.members.get_mut(&id) else { return };
        member.pool.under_way = (member.pool.under_way + inflight).saturating_sub(before);
        if inflight < before {
            member.pool.learn(act.latency_ns(conn));
            member.pool.hint = Some(conn);
            let under_way = member.pool.under_way;
            self.learn_latency(now, conn, id, under_way + 1, act);
        }
        if inflight == 0 && tenancy != Tenancy::Clean {
            self.drop_conn(conn, "its request left state that cannot be taken off", act);
        } else if inflight == 0 && !is_idle {
            self.rest(now, conn);
        } else if inflight >= before {
            return;
        }
        self.pump_member(now, id, act);
        self.pump_waiting(now, act);
        self.pool_shrank(now, id, act);
    }

    /// A request that was given to this conn has ended without its reply.
    pub(super) fn exchange_left(&mut self, now: Instant, conn: ConnId, act: &mut dyn Act) {
        let (inflight, tenancy) = act.tenancy(conn);
        if tenancy != Tenancy::Spoiled {
            return self.pool_progress(now, conn, inflight, tenancy, act);
        }
        let Some(id) = self.conns.get(&conn).map(|held| held.member) else { return };
        self.drop_conn(conn, "the request that it had has ended", act);
        self.pump_member(now, id, act);
        self.pool_shrank(now, id, act);
    }

    /// A peer may have fewer conns than before: more are dialled if somebody waits for them.
    pub(super) fn pool_shrank(&mut self, now: Instant, id: MemberId, act: &mut dyn Act) {
        let Some(member) = self.members.get_mut(&id) else { return };
        if member.is_reachable() {
            if !member.queue.is_empty() || self.config.warm > 0 {
                self.dial_pool(now, id, act);
            }
            return;
        }
        let queue = std::mem::take(&mut member.queue);
        self.stuck.extend(queue.into_iter().map(Entry::anew));
        self.reshape(now, act);
    }

    /// How many conns are to be dialled to a peer.
    pub(super) fn missing(&mut self, now: Instant, id: MemberId) -> usize {
        let Some(member) = self.members.get_mut(&id) else { return 0 };
        let conns = member.ready.len() + member.dialling.len();
        let fresh = conns - member.pool.stale.min(conns);
        let least = usize::from(!member.pool.proven || member.pool.stale > 0).max(self.config.warm);
        let basic = least.min(self.config.pool).saturating_sub(fresh);
        let mut wanted = if member.pool.idle.is_empty() { member.queue.len() } else { 0 };
        if wanted > 0 {
            let limit = member.adaptive.as_ref().map_or(self.config.peer_inflight_max, |adaptive| adaptive.limit());
            wanted = wanted.min(limit.saturating_sub(member.pool.under_way));
        }
        if let Some(bucket) = member.bucket.as_mut().filter(|_| wanted > 0) {
            wanted = wanted.min(bucket.count(now));
        }
        let room = self.config.pool.saturating_sub(conns);
        basic.max(wanted.saturating_sub(member.dialling.len()).min(room))
    }

    /// Dials what one peer's requests ask for, if it is time.
    pub(super) fn dial_pool(&mut self, now: Instant, id: MemberId, act: &mut dyn Act) {
        let Some(member) = self.members.get_mut(&id) else { return };
        let may = member.backoff.may_try(now);
        if !may || !self.is_dialled(&self.members[&id]) {
            return;
        }
        for _ in 0..self.missing(now, id) {
            self.dial(id, Part::Shared, act);
        }
    }

    /// True if the end of this conn says nothing against its peer: a keep-alive is over. A request that was given to a
    /// conn whose end was on its way has met nobody.
    pub(super) fn ended_well(&self, held: &Held, down: &Down) -> bool {
        let pooled = self.config.exclusive && matches!(held.part, Part::Shared | Part::Stale);
        let unheard = down.under_way == 0 || held.turns.rested.is_some();
        pooled && held.ready && down.was_ready && down.status == IOK_STATUS_LOST && unheard
    }

    /// What follows a conn that ended well.
    pub(super) fn pool_conn_ended(&mut self, now: Instant, held: Held, act: &mut dyn Act) {
        let id = held.member;
        if let Some(since) = held.turns.rested {
            self.forgiven.extend(held.turns.last.filter(|request| act.is_live(*request)));
            // Those that have been idle for longer are no better.
            while let Some(conn) = self.members.get(&id).and_then(|member| member.pool.idle.front().copied()) {
                if conn.0 > since {
                    break;
                }
                self.drop_conn(conn.1, "another that was idle had been closed by its peer", act);
            }
        }
        self.pool_shrank(now, id, act);
    }

    /// When an idle conn of this peer is to be closed.
    pub(super) fn trims_at(&self, member: &Member) -> Option<Instant> {
        let (since, _) = member.pool.idle.front()?;
        (member.ready.len() > self.config.warm).then_some(*since + self.config.lane_idle)
    }

    /// Closes conns that nothing has used for long.
    pub(super) fn trim_pools(&mut self, now: Instant, act: &mut dyn Act) {
        if !self.config.exclusive {
            return;
        }
        let ids: Vec<MemberId> = self.members.keys().copied().collect();
        for id in ids {
            let due = |service: &Self| service.trims_at(&service.members[&id]).is_some_and(|at| at <= now);
            while due(self) {
                let Some((_, conn)) = self.members[&id].pool.idle.front().copied() else { break };
                self.drop_conn(conn, "it was idle", act);
            }
            if !self.members[&id].is_reachable() {
                self.pool_shrank(now, id, act);
            }
        }
    }

    /// An attempt to connect has failed, or there is nobody to connect to: where that is wanted, who waits is told, unless
    /// another attempt is under way.
    pub(super) fn end_waiting(&mut self, code: &str, why: &str, act: &mut dyn Act) {
        let trying = self.members.values().any(|member| !member.dialling.is_empty());
        if !self.config.fails_down || trying || self.members.values().any(Member::is_sound) {
            return;
        }
        let mut waiting = self.take_queued();
        let wants = self.wants.drain(..).map(|want| want.request);
        waiting.extend(wants);
        for request in waiting {
            if act.is_live(request) {
                act.fail(request, IOK_STATUS_UNAVAILABLE, code, why);
            }
        }
    }

    /// Somebody who is not to wait wants a peer, and none is there: one attempt is made ahead of its time.
    pub(super) fn hurry(&mut self, now: Instant, act: &mut dyn Act) {
        let trying = self.members.values().any(|member| !member.dialling.is_empty());
        if !self.config.fails_down || trying || self.members.values().any(Member::is_sound) {
            return;
        }
        if self.members.is_empty() {
            return act.doubt();
        }
        self.members.values_mut().for_each(|member| member.backoff.hurry());
        self.dial_missing(now, act);
    }
}
