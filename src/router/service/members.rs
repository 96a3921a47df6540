//! The peers of a service: dialled, ejected, readmitted, replaced, drained.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use super::lanes::Lane;
use super::pool::Pool;
use super::requests::Entry;
use super::{Held, Part, Service};
use crate::peer::{Peer, Role, Wanted};
use crate::proto::Body;
use crate::router::backoff::Backoff;
use crate::router::throttle::{Adaptive, Bucket};
use crate::router::{Act, ConnId, Down, PeerState};
use crate::status::IOK_STATUS_TIMEOUT;

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct MemberId(pub u32);

/// One peer, as this endpoint knows it.
pub struct Member {
    pub peer: Peer,
    /// Shared conns whose handshake is not done.
    pub dialling: Vec<ConnId>,
    /// Shared conns that serve.
    pub ready: Vec<ConnId>,
    /// What an exclusive service knows of them.
    pub pool: Pool,
    /// What it says of itself.
    pub role: Role,
    /// `host:port` of its primary, as it says.
    pub follows: Option<String>,
    /// Which in the row of primaries it is, as it told last.
    pub reign: Option<u64>,
    /// Who was promoted in its place, so that what it says of itself is out of date.
    pub superseded: Option<MemberId>,
    /// Not of the set any more: it serves until somebody else can, and goes.
    pub leaving: bool,
    /// When its last conns are closed, whatever they do.
    pub leave_by: Option<Instant>,
    /// Until then it is not asked: it said that it serves nobody.
    pub ejected_until: Option<Instant>,
    ejections: u32,
    /// When it was left alone the last time.
    ejected_at: Option<Instant>,
    /// Requests that are its own and wait for its conn.
    pub queue: VecDeque<Entry>,
    pub backoff: Backoff,
    pub bucket: Option<Bucket>,
    pub adaptive: Option<Adaptive>,
    pub requests: u64,
    pub failures: u64,
    /// When it is looked for shared conns that are not needed.
    pub shrinks_at: Option<Instant>,
    pub refused: Option<Down>,
    pub last_error: Option<String>,
}

impl Member {
    /// What it may be taken for: the source and the peer itself must agree.
    pub fn role(&self) -> Role {
        match (self.peer.role, self.role) {
            (Role::Unknown, own) => own,
            (told, Role::Unknown) => told,
            (told, own) if told == own => own,
            _ => Role::Unknown,
        }
    }

    /// When something is to be done about it.
    pub fn timeouts(&self) -> impl Iterator<Item = Instant> {
        [self.backoff.until(), self.ejected_until, self.shrinks_at, self.leaves_at()].into_iter().flatten()
    }

    fn leaves_at(&self) -> Option<Instant> {
        self.leave_by.filter(|_| self.leaving)
    }

    /// It refuses us for good, as far as is known: who has a conn is served by it, though one more was refused.
    pub fn refusal(&self) -> Option<&Down> {
        self.refused.as_ref().filter(|_| !self.is_reachable())
    }

    /// It has a conn, or needs none before the next request comes.
    pub fn is_reachable(&self) -> bool {
        !self.ready.is_empty() || self.pool.proven && !self.leaving
    }

    /// It can be reached, and serves.
    pub fn is_sound(&self) -> bool {
        self.is_reachable() && self.ejected_until.is_none()
    }

    pub fn has_role(&self, wanted: Wanted) -> bool {
        match wanted {
            Wanted::Primary => self.role() == Role::Primary && self.superseded.is_none(),
            Wanted::Replica => self.role() == Role::Replica,
            Wanted::PreferReplica | Wanted::Any | Wanted::Nearest => true,
        }
    }

    /// Its address is this `host:port`.
    pub fn is_at(&self, address: &str) -> bool {
        self.peer.name == address || self.peer.places.iter().any(|place| place.to_string() == address)
    }

    fn word(&self) -> &'static str {
        match () {
            () if self.leaving => "draining",
            () if self.ejected_until.is_some() => "ejected",
            () if self.superseded.is_some() => "superseded",
            () if self.is_reachable() => "up",
            () if self.failures > 0 => "down",
            () if self.dialling.is_empty() => "idle",
            () => "connecting",
        }
    }

    /// It said that it serves nobody: it is left alone for a while, longer each time.
    pub fn eject(&mut self, now: Instant, why: &str) {
        if self.ejected_until.is_none() {
            if self.ejected_at.is_some_and(|at| now > at + EJECTIONS_KEPT) {
                self.ejections = 0;
            }
            self.ejected_at = Some(now);
            let span = EJECTED_MIN.saturating_mul(1 << self.ejections.min(8)).min(EJECTED_MAX);
            self.ejected_until = Some(now + span);
            self.ejections += 1;
            self.failures += 1;
            self.last_error = Some(why.into());
        }
    }
}

/// How long a peer that serves nobody is left alone at first.
const EJECTED_MIN: Duration = Duration::from_millis(50);
const EJECTED_MAX: Duration = Duration::from_secs(2);
/// A peer that served for so long is left alone no longer than one that always did.
const EJECTIONS_KEPT: Duration = Duration::from_secs(10);

impl Service {
    pub(super) fn new_member(&mut self, now: Instant, peer: Peer) -> MemberId {
        self.members_made += 1;
        let id = MemberId(self.members_made);
        let config = &self.config;
        let member = Member {
            peer,
            dialling: Vec::new(),
            ready: Vec::new(),
            pool: Pool::default(),
            role: Role::Unknown,
            follows: None,
            reign: None,
            superseded: None,
            leaving: false,
            leave_by: None,
            ejected_until: None,
            ejections: 0,
            ejected_at: None,
            queue: VecDeque::new(),
            backoff: Backoff::new(config.backoff_min, config.backoff_max),
            bucket: config.peer_rate.map(|rate| Bucket::new(rate, now)),
            adaptive: config.adaptive.then(|| Adaptive::new(config.peer_inflight_max)),
            requests: 0,
            failures: 0,
            shrinks_at: None,
            refused: None,
            last_error: None,
        };
        self.members.insert(id, member);
        id
    }

    pub(super) fn member_named(&self, name: &str) -> Option<MemberId> {
        self.members.iter().find(|(_, member)| member.peer.name == name).map(|(id, _)| *id)
    }

    /// Makes the members be these peers: new ones join, others leave.
    pub(super) fn set_members(&mut self, now: Instant, peers: &[Peer], act: &mut dyn Act) {
        for member in self.members.values_mut() {
            member.leaving |= !peers.iter().any(|peer| peer.name == member.peer.name);
        }
        for peer in peers {
            match self.member_named(&peer.name) {
                None => {
                    self.new_member(now, peer.clone());
                }
                Some(id) => self.update_member(id, peer, act),
            }
        }
        // Where the source itself knows the primary, nobody whom it does not name may take another write.
        if self.config.wanted == Wanted::Primary && peers.iter().any(|peer| peer.role == Role::Primary) {
            let gone: Vec<MemberId> = self.ids(|member| member.leaving && member.has_role(Wanted::Primary));
            for id in gone {
                self.evict(id, "it is not the primary any more", act);
            }
        }
    }

    pub(super) fn ids(&self, wanted: impl Fn(&Member) -> bool) -> Vec<MemberId> {
        self.members.iter().filter(|(_, member)| wanted(member)).map(|(id, _)| *id).collect()
    }

    fn update_member(&mut self, id: MemberId, peer: &Peer, act: &mut dyn Act) {
        let Some(member) = self.members.get_mut(&id) else { return };
        let demoted = member.peer.role == Role::Primary && peer.role != Role::Primary && !self.config.topology;
        let moved = member.peer.places != peer.places;
        member.peer = peer.clone();
        member.leaving = false;
        if demoted {
            self.evict(id, "it was demoted", act);
        } else if moved && !peer.places.is_empty() {
            self.mark_stale(id, act);
        }
    }

    /// Conns that lead where the peer is not any more serve until another one is ready.
    fn mark_stale(&mut self, id: MemberId, act: &mut dyn Act) {
        let Some(member) = self.members.get(&id) else { return };
        let places = &member.peer.places;
        let (mut dropped, mut changed) = (Vec::new(), Vec::new());
        for (conn, held) in self.conns.iter().filter(|(_, held)| held.member == id) {
            let elsewhere = act.place(*conn).is_some_and(|place| !places.contains(&place));
            match held.part {
                Part::Shared if elsewhere && held.ready => changed.push((*conn, Part::Stale)),
                // It may be on its way to a place that is gone.
                Part::Shared if !held.ready => dropped.push(*conn),
                Part::Lane(Lane::Idle { .. }) if elsewhere => dropped.push(*conn),
                Part::Stale if !elsewhere => changed.push((*conn, Part::Shared)),
                _ => {}
            }
        }
        for (conn, part) in changed {
            self.conns.set_part(conn, part);
            let stale = usize::from(part == Part::Stale);
            self.members.entry(id).and_modify(|member| {
                member.pool.stale = (member.pool.stale + stale).saturating_sub(1 - stale);
            });
        }
        for conn in dropped {
            self.drop_conn(conn, "its peer has moved", act);
        }
    }

    /// Closes every conn to a peer at once: what it says is not to be believed.
    pub(super) fn evict(&mut self, id: MemberId, why: &str, act: &mut dyn Act) {
        let of = |held: &Held| held.member == id;
        let conns: Vec<ConnId> = self.conns.iter().filter(|(_, held)| of(held)).map(|(conn, _)| *conn).collect();
        for conn in conns {
            self.drop_conn(conn, why, act);
        }
        if let Some(member) = self.members.get_mut(&id) {
            (member.role, member.follows) = (Role::Unknown, None);
            member.pool.proven = false;
            let queue = std::mem::take(&mut member.queue);
            self.stuck.extend(queue.into_iter().map(Entry::anew));
        }
    }

    /// Closes a conn of ours, and forgets what it was for.
    pub(super) fn drop_conn(&mut self, conn: ConnId, why: &str, act: &mut dyn Act) {
        self.forget_conn(conn, why, act);
        act.drop_conn(conn, why);
    }

    /// Forgets a conn that is gone or about to be. What it was for, if it was ours.
    fn forget_conn(&mut self, conn: ConnId, why: &str, act: &mut dyn Act) -> Option<Held> {
        let held = self.conns.remove(&conn)?;
        if self.fast == Some(conn) {
            self.count_fast(held.member);
            self.fast = None;
        }
        if let Some(member) = self.members.get_mut(&held.member) {
            member.dialling.retain(|other| *other != conn);
            member.ready.retain(|other| *other != conn);
            member.pool.forget(conn, &held);
        }
        self.topics.forget_conn(conn);
        if let Part::Lane(lane) = held.part {
            self.lane_gone(conn, lane, why, act);
        }
        Some(held)
    }

    pub(super) fn count_fast(&mut self, id: MemberId) {
        let sent = std::mem::take(&mut self.fast_sent);
        if let Some(member) = self.members.get_mut(&id) {
            member.requests += sent;
        }
    }

    pub(super) fn dial(&mut self, id: MemberId, part: Part, act: &mut dyn Act) -> Option<ConnId> {
        let member = self.members.get_mut(&id)?;
        let conn = act.dial(&member.peer);
        if part == Part::Shared {
            member.dialling.push(conn);
        }
        self.conns.insert(conn, Held::new(id, part));
        Some(conn)
    }

    /// Whether a member is to have conns at all.
    pub(super) fn is_dialled(&self, member: &Member) -> bool {
        let other = match self.config.wanted {
            Wanted::Primary => Role::Replica,
            Wanted::Replica => Role::Primary,
            Wanted::PreferReplica | Wanted::Any | Wanted::Nearest => return !member.leaving,
        };
        // In a divided service, others are many and of no use, unless a redirect leads there; elsewhere one of them is the
        // next primary.
        let useless = self.config.topology && member.peer.role == other && member.queue.is_empty();
        !(member.leaving || useless)
    }

    /// Dials what is missing, if it is time.
    pub(super) fn dial_missing(&mut self, now: Instant, act: &mut dyn Act) {
        for id in self.ids(|_| true) {
            let Some(member) = self.members.get_mut(&id) else { continue };
            let may = member.backoff.may_try(now);
            let member = &self.members[&id];
            if !may || !self.is_dialled(member) {
                continue;
            }
            let missing = if self.config.exclusive {
                self.missing(now, id)
            } else {
                let fresh = member.ready.iter().filter(|conn| self.conns.get(conn).is_some_and(is_shared)).count();
                let wanted = if self.config.grows.is_some() { 1 } else { self.config.pool };
                wanted.saturating_sub(fresh + member.dialling.len())
            };
            for _ in 0..missing {
                self.dial(id, Part::Shared, act);
            }
        }
    }

    pub(super) fn conn_ready(&mut self, now: Instant, conn: ConnId, topics_beside_requests: bool, act: &mut dyn Act) {
        let Some(held) = self.conns.get_mut(&conn) else { return };
        (held.ready, held.topics_beside_requests) = (true, topics_beside_requests);
        let held = *held;
        self.last_failure = None;
        let Some(member) = self.members.get_mut(&held.member) else { return };
        member.backoff.succeeded();
        (member.refused, member.last_error) = (None, None);
        let known = member.is_reachable();
        member.pool.proven = self.config.exclusive;
        match held.part {
            Part::Shared => {
                member.dialling.retain(|other| *other != conn);
                member.ready.push(conn);
                let stale = !self.config.exclusive || member.pool.stale > 0;
                if self.config.exclusive {
                    self.rest(now, conn);
                }
                if known && !stale {
                    // One more conn to who serves anyway changes nothing else.
                    return self.pump_member(now, held.member, act);
                }
                self.replace_stale(now, held.member);
                self.has_grown(now, held.member);
                if self.config.topology && self.slots.is_unknown() {
                    self.slots.asked(now);
                    act.probe(conn);
                }
                self.reshape(now, act);
                self.pump_member(now, held.member, act);
            }
            Part::Lane(lane) => {
                self.lane_ready(now, conn, lane, act);
                self.pump_lanes(now, act);
            }
            _ => self.ask_topics(now, act),
        }
    }

    /// A successor is ready: conns to where the peer was take nothing more.
    fn replace_stale(&mut self, now: Instant, id: MemberId) {
        let by = now + self.config.drain;
        let stale = self.conns.iter().filter(|(_, held)| held.member == id && held.part == Part::Stale);
        let stale: Vec<ConnId> = stale.map(|(conn, _)| *conn).collect();
        for conn in stale {
            self.let_drain(conn, by);
        }
    }

    /// A conn takes nothing more.
    fn let_drain(&mut self, conn: ConnId, by: Instant) {
        self.leave_pool(conn);
        self.conns.set_part(conn, Part::Draining(by));
        let id = self.conns.get(&conn).map(|held| held.member);
        if let Some(member) = id.and_then(|id| self.members.get_mut(&id)) {
            member.ready.retain(|other| *other != conn);
        }
    }

    pub(super) fn conn_down(&mut self, now: Instant, conn: ConnId, down: &Down, act: &mut dyn Act) {
        let Some(held) = self.forget_conn(conn, &down.message, act) else { return };
        let drained = matches!(held.part, Part::Draining(_));
        if self.ended_well(&held, down) {
            return self.pool_conn_ended(now, held, act);
        }
        if drained && self.config.exclusive && self.members.get(&held.member).is_some_and(|member| !member.leaving) {
            return;
        }
        if let Some(member) = self.members.get_mut(&held.member).filter(|_| !drained) {
            member.failures += 1;
            member.last_error = Some(down.message.clone());
            member.refused = down.refused.then(|| down.clone());
            member.backoff.failed(now, &mut self.rng);
            member.pool.proven = false;
            if member.ready.is_empty() {
                // It may be another server, with another role, that answers there next.
                (member.role, member.follows) = (Role::Unknown, None);
                let queue = std::mem::take(&mut member.queue);
                self.stuck.extend(queue.into_iter().map(Entry::anew));
            }
            self.last_failure = Some(down.clone());
            act.doubt();
        }
        if self.config.topology {
            self.slots.doubt(now);
        }
        if let Some(down) = self.refusal().cloned() {
            self.flush_refused(&down, act);
        }
        self.reshape(now, act);
        // What waited for one more conn goes to those that there are.
        self.pump_member(now, held.member, act);
        if !down.was_ready {
            let code = if down.status == IOK_STATUS_TIMEOUT { "NOANSWER" } else { "UNAVAILABLE" };
            self.end_waiting(code, &down.message, act);
        }
    }

    /// The peer asks to be left: its conn takes nothing more.
    pub(super) fn peer_leaves(&mut self, now: Instant, conn: ConnId, act: &mut dyn Act) {
        let by = now + self.config.drain;
        let Some(held) = self.conns.get(&conn).copied() else { return };
        if !is_shared(&held) {
            return self.lane_leaves(conn, held, act);
        }
        self.let_drain(conn, by);
        if !self.config.exclusive || self.members.get(&held.member).is_none_or(|member| member.leaving) {
            return self.reshape(now, act);
        }
        if act.tenancy(conn).0 == 0 {
            self.drop_conn(conn, "it was drained", act);
        }
        self.pool_shrank(now, held.member, act);
    }

    /// Ends the time of peers that were left alone. True if there was one.
    pub(super) fn readmit(&mut self, now: Instant) -> bool {
        let mut any = false;
        for member in self.members.values_mut().filter(|member| member.ejected_until.is_some_and(|at| at <= now)) {
            member.ejected_until = None;
            any = true;
        }
        any
    }

    /// Of these members, those that may be given requests.
    pub(super) fn able_among(&self, ids: impl Iterator<Item = MemberId>, wanted: Wanted) -> Vec<MemberId> {
        let sound = |id: &MemberId| self.members.get(id).is_some_and(|m| m.is_sound() && m.has_role(wanted));
        let able: Vec<MemberId> = ids.filter(sound).collect();
        let present = able.iter().any(|id| !self.members[id].leaving);
        let kept = |id: &MemberId| !present || !self.members[id].leaving;
        let best = able.iter().filter(|id| kept(id)).map(|id| self.members[id].peer.priority).min();
        able.into_iter().filter(|id| kept(id) && Some(self.members[id].peer.priority) == best).collect()
    }

    /// Those of all members.
    fn able(&self) -> Vec<MemberId> {
        let of_role = |wanted| self.able_among(self.members.keys().copied(), wanted);
        match self.config.wanted {
            Wanted::PreferReplica => {
                let replicas = of_role(Wanted::Replica);
                if replicas.is_empty() { of_role(Wanted::Any) } else { replicas }
            }
            wanted => of_role(wanted),
        }
    }

    /// Something changed about who can serve: everything else follows.
    pub(super) fn reshape(&mut self, now: Instant, act: &mut dyn Act) {
        self.able = self.able();
        self.retire(now);
        self.take_back();
        self.reshape_slots();
        self.choose_fast();
        if self.serves_all() {
            for waiter in std::mem::take(&mut self.waiters) {
                act.finish(waiter, Body::None);
            }
        }
        self.unstick(now, act);
        self.pump_waiting(now, act);
        self.dial_missing(now, act);
        self.move_topics(now, act);
        self.pump_lanes(now, act);
        self.finish_draining(act);
        if self.bury(act) {
            return self.reshape(now, act);
        }
        self.note_shape();
    }

    /// Peers that leave take nothing more once somebody else can.
    fn retire(&mut self, now: Instant) {
        let by = now + self.config.drain;
        self.members.values_mut().filter(|member| !member.leaving).for_each(|member| member.leave_by = None);
        let replaced = self.able.iter().any(|id| !self.members[id].leaving);
        // One that never had a conn may have requests that wait for it all the same.
        for id in self.ids(|member| member.leaving) {
            if !replaced && self.able.contains(&id) && !self.config.topology {
                continue;
            }
            let Some(member) = self.members.get_mut(&id) else { continue };
            member.leave_by.get_or_insert(by);
            let (ready, queue) = (std::mem::take(&mut member.ready), std::mem::take(&mut member.queue));
            self.stuck.extend(queue.into_iter().map(Entry::anew));
            for conn in ready {
                self.let_drain(conn, by);
            }
            self.able.retain(|able| *able != id);
        }
    }

    /// What waits for peers that have conns and may not be sent to any more is for others. What is to be asked of one
    /// peer alone stays.
    fn take_back(&mut self) {
        let wanted = self.config.wanted;
        for member in self.members.values_mut().filter(|member| !member.queue.is_empty()) {
            let serves = member.ejected_until.is_none() && member.has_role(wanted);
            if member.is_reachable() && !serves {
                let (kept, taken): (VecDeque<Entry>, VecDeque<Entry>) =
                    member.queue.drain(..).partition(|entry| entry.asking);
                member.queue = kept;
                self.stuck.extend(taken);
            }
        }
    }

    /// The one conn that needs no thought, if there is only one.
    fn choose_fast(&mut self) {
        let only = match self.able[..] {
            [id] => self.members.get(&id).filter(|member| member.ready.len() == 1).map(|member| (id, member)),
            _ => None,
        };
        let plain = self.config.rate.is_none()
            && self.config.peer_rate.is_none()
            && !self.config.adaptive
            && !self.config.topology
            && !self.config.exclusive
            && self.config.inflight_max == usize::MAX;
        let fast = only.filter(|_| plain).map(|(_, member)| member.ready[0]);
        if fast != self.fast {
            if let Some(held) = self.fast.and_then(|conn| self.conns.get(&conn)) {
                self.count_fast(held.member);
            }
            self.fast = fast;
        }
    }

    /// A new version, if what the program can see has changed.
    pub(super) fn note_shape(&mut self) {
        let mut hasher = DefaultHasher::new();
        self.word().hash(&mut hasher);
        for member in self.members.values() {
            (&member.peer.name, member.word(), member.role()).hash(&mut hasher);
        }
        let shape = hasher.finish();
        if shape != self.shape {
            self.shape = shape;
            self.version += 1;
        }
    }

    /// Closes drained conns whose replies are in.
    pub(super) fn finish_draining(&mut self, act: &mut dyn Act) {
        let drained: Vec<ConnId> = self
            .conns
            .draining()
            .map(|(conn, _)| conn)
            .filter(|conn| act.tenancy(*conn).0 == 0 && !self.topics.uses(*conn))
            .collect();
        for conn in drained {
            self.drop_conn(conn, "it was drained", act);
        }
    }

    /// Closes what took too long to drain, and lanes of peers that have left.
    pub(super) fn end_draining(&mut self, now: Instant, act: &mut dyn Act) {
        let gone = self.ids(|member| member.leaves_at().is_some_and(|by| by <= now));
        let over = |held: &Held| matches!(held.part, Part::Draining(by) if by <= now) || gone.contains(&held.member);
        let late: Vec<ConnId> = self.conns.iter().filter(|(_, held)| over(held)).map(|(conn, _)| *conn).collect();
        if late.is_empty() {
            return;
        }
        for conn in late {
            self.drop_conn(conn, "it did not drain in time (drain=)", act);
        }
        self.reshape(now, act);
    }

    /// Forgets peers that have left and have nothing more. True if that gives somebody something to do: a stream that had
    /// a conn there wants another, or a primary is believed again.
    pub(super) fn bury(&mut self, act: &mut dyn Act) -> bool {
        let mut any = false;
        for id in self.ids(|member| member.leaving && member.ready.is_empty()) {
            let idle = |held: &Held| {
                held.member == id
                    && matches!(held.part, Part::Shared | Part::Topics | Part::Lane(Lane::Idle { .. } | Lane::Dialling))
            };
            let conns: Vec<ConnId> = self.conns.iter().filter(|(_, held)| idle(held)).map(|(conn, _)| *conn).collect();
            for conn in conns {
                self.drop_conn(conn, "its peer has left", act);
            }
            any |= self.move_takeovers(id, act);
            if !self.conns.values().any(|held| held.member == id) {
                self.members.remove(&id);
                for member in self.members.values_mut().filter(|member| member.superseded == Some(id)) {
                    member.superseded = None;
                    any = true;
                }
            }
        }
        any
    }

    pub(super) fn peer_state(&self, member: &Member, act: &dyn Act) -> PeerState {
        let conns = || {
            let of = |held: &Held| self.members.get(&held.member).is_some_and(|of| std::ptr::eq(of, member));
            self.conns.iter().filter(move |(_, held)| of(held)).map(|(conn, _)| *conn)
        };
        let fast = self.fast.is_some_and(|conn| member.ready.contains(&conn));
        PeerState {
            name: member.peer.name.clone(),
            word: member.word(),
            role: member.role(),
            conns: conns().count(),
            inflight: conns().map(|conn| act.tenancy(conn).0).sum(),
            latency_ns: member.ready.iter().map(|conn| act.latency_ns(*conn)).min().unwrap_or(0),
            requests: member.requests + if fast { self.fast_sent } else { 0 },
            failures: member.failures,
            weight: member.peer.weight,
            priority: member.peer.priority,
            last_error: member.last_error.clone(),
        }
    }
}

/// A shared conn that leads where its peer is.
fn is_shared(held: &Held) -> bool {
    held.part == Part::Shared && held.ready
}
