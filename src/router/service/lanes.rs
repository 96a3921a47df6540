//! Lanes: conns for what waits in the server or owns a conn. A lane is taken idle, or dialled for whoever wants it.

use std::time::Instant;

use super::conns::Held;
use super::members::MemberId;
use super::{Part, Service, overloaded, refuse};
use crate::proto::{Class, Need, RequestId, Route, Tenancy};
use crate::router::{Act, ConnId, How, Sent};
use crate::status::{IOK_STATUS_BAD_REQUEST, IOK_STATUS_LOST, IOK_STATUS_NO_LEASE, IOK_STATUS_OVERLOADED};

/// What a lane is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    Dialling,
    Idle { since: Instant },
    Waiting(RequestId),
    Leased(u64),
    Resetting,
    TakenOver(RequestId),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Waiting,
    Lease,
    Takeover,
}

/// Somebody who wants a lane.
#[derive(Clone, Copy, Debug)]
pub struct Want {
    pub request: RequestId,
    route: Route,
    purpose: Purpose,
    /// Dialled for it.
    conn: Option<ConnId>,
}

impl Want {
    fn new(request: RequestId, route: Route, purpose: Purpose) -> Self {
        Want { request, route, purpose, conn: None }
    }

    pub fn waiting(request: RequestId, route: Route) -> Self {
        Want::new(request, route, Purpose::Waiting)
    }

    pub fn lease(request: RequestId, route: Route) -> Self {
        Want::new(request, route, Purpose::Lease)
    }

    pub fn takeover(request: RequestId, route: Route) -> Self {
        Want::new(request, route, Purpose::Takeover)
    }
}

#[derive(Clone, Debug)]
pub enum Lease {
    Held(ConnId),
    Lost(String),
}

impl Service {
    pub(super) fn want(&mut self, now: Instant, want: Want, act: &mut dyn Act) {
        if let Some(down) = self.refusal().cloned() {
            return refuse(act, want.request, &down);
        }
        if self.wants.len() >= self.config.queue_max {
            self.forget_ended(act);
        }
        if self.wants.len() >= self.config.queue_max {
            return overloaded(act, want.request, self.config.queue_max);
        }
        self.wants.push_back(want);
        self.pump_lanes(now, act);
    }

    /// What waited in a server that has refused it wants another lane.
    pub(super) fn handle_lane_again(&mut self, now: Instant, request: RequestId, need: Need, act: &mut dyn Act) {
        match need.class {
            Class::Takeover => self.want(now, Want::takeover(request, need.route), act),
            _ => self.want(now, Want::waiting(request, need.route), act),
        }
    }

    fn lanes(&self) -> impl Iterator<Item = (ConnId, Lane)> {
        self.conns.lanes().filter_map(|(conn, held)| match held.part {
            Part::Lane(lane) => Some((conn, lane)),
            _ => None,
        })
    }

    fn set_lane(&mut self, conn: ConnId, lane: Lane) {
        self.conns.set_part(conn, Part::Lane(lane));
    }

    /// Keeps a clean lane for the next who wants one, unless its peer is elsewhere by now.
    fn keep_lane(&mut self, now: Instant, conn: ConnId, act: &mut dyn Act) {
        let places = self.conns.get(&conn).and_then(|held| self.members.get(&held.member));
        let places = places.map_or(&[][..], |member| &member.peer.places);
        if !places.is_empty() && act.place(conn).is_some_and(|place| !places.contains(&place)) {
            self.conns.remove(&conn);
            return act.drop_conn(conn, "its peer has moved");
        }
        self.set_lane(conn, Lane::Idle { since: now });
    }

    /// Gives idle lanes to whoever wants one, and dials for the rest.
    pub(super) fn pump_lanes(&mut self, now: Instant, act: &mut dyn Act) {
        let mut at = 0;
        while let Some(want) = self.wants.get(at).copied() {
            if !act.is_live(want.request) {
                self.wants.remove(at);
                continue;
            }
            if let Some(conn) = self.idle_lane(want.route, act) {
                self.wants.remove(at);
                self.assign(now, conn, want, act);
                continue;
            }
            if want.conn.is_none() && !self.dial_lane(now, at, act) {
                // Nobody behind it fares better, unless it wants another peer.
                if !self.config.topology {
                    return;
                }
            }
            at += 1;
        }
    }

    /// The lane used last, of those to peers that will do: its peer is the likeliest to be alive, and the others may go.
    fn idle_lane(&mut self, route: Route, act: &dyn Act) -> Option<ConnId> {
        // What belongs to one peer takes no other one's lane.
        let own = route.hash.and_then(|_| self.pick(route, act));
        let able = match &own {
            Some(own) => std::slice::from_ref(own),
            None => self.slots.able(route.slot).unwrap_or(&self.able),
        };
        let idle = self.lanes().filter_map(|(conn, lane)| match lane {
            Lane::Idle { since } if able.contains(&self.conns[&conn].member) => Some((since, conn)),
            _ => None,
        });
        idle.max().map(|(_, conn)| conn)
    }

    /// Dials a lane for a want. False if none can be dialled at present.
    fn dial_lane(&mut self, now: Instant, at: usize, act: &mut dyn Act) -> bool {
        if self.lanes().count() >= self.config.lanes_max {
            return false;
        }
        let Some(id) = self.pick(self.wants[at].route, act) else { return false };
        if !self.members.get_mut(&id).is_some_and(|member| member.backoff.may_try(now)) {
            return false;
        }
        self.wants[at].conn = self.dial(id, Part::Lane(Lane::Dialling), act);
        true
    }

    pub(super) fn lane_ready(&mut self, now: Instant, conn: ConnId, lane: Lane, act: &mut dyn Act) {
        if lane != Lane::Dialling {
            return;
        }
        if !self.may_serve(conn) {
            // Its peer has become another while it was dialled; `pump_lanes` follows, and finds one that will do.
            return self.drop_conn(conn, "its peer does not serve what it was dialled for", act);
        }
        self.set_lane(conn, Lane::Idle { since: now });
        let wanted = self.wants.iter().position(|want| want.conn == Some(conn));
        let Some(want) = wanted.and_then(|at| self.wants.remove(at)) else { return };
        if act.is_live(want.request) {
            self.assign(now, conn, want, act);
        }
    }

    /// Its peer has the role that requests are for.
    fn may_serve(&self, conn: ConnId) -> bool {
        let member = self.conns.get(&conn).and_then(|held| self.members.get(&held.member));
        member.is_some_and(|member| member.has_role(self.config.wanted))
    }

    fn assign(&mut self, now: Instant, conn: ConnId, want: Want, act: &mut dyn Act) {
        let request = want.request;
        match want.purpose {
            Purpose::Lease => {
                let lease = self.next_lease;
                self.next_lease += 1;
                self.leases.insert(lease, Lease::Held(conn));
                self.set_lane(conn, Lane::Leased(lease));
                act.lease(request, lease);
            }
            Purpose::Waiting => {
                self.set_lane(conn, Lane::Waiting(request));
                self.send_on_lane(now, conn, want, act);
            }
            Purpose::Takeover => {
                self.set_lane(conn, Lane::TakenOver(request));
                self.send_on_lane(now, conn, want, act);
            }
        }
    }

    fn send_on_lane(&mut self, now: Instant, conn: ConnId, want: Want, act: &mut dyn Act) {
        let sent = act.send(conn, want.request, How::Own);
        if !act.is_live(want.request) {
            self.keep_lane(now, conn, act);
        } else if sent == Sent::Later {
            // A lane that takes nothing is none.
            self.conns.remove(&conn);
            act.drop_conn(conn, "the lane takes no requests");
            self.wants.push_front(Want { conn: None, ..want });
        }
    }

    pub(super) fn leased_request(&mut self, request: RequestId, class: Class, lease: u64, act: &mut dyn Act) {
        if crate::router::is_stream(&class) {
            let message = "streams do not travel on leases; ask the endpoint itself";
            return act.fail(request, IOK_STATUS_BAD_REQUEST, "BADREQUEST", message);
        }
        match self.leases.get(&lease) {
            Some(Lease::Held(conn)) => {
                if act.send(*conn, request, How::Own) == Sent::Later {
                    let message = "too many requests under way on this lease";
                    act.fail(request, IOK_STATUS_OVERLOADED, "OVERLOADED", message);
                }
            }
            Some(Lease::Lost(why)) => {
                let message = format!("the conn of lease {lease} was lost ({why}); release it and take another");
                act.fail(request, IOK_STATUS_LOST, "LOST", &message);
            }
            None => act.fail(request, IOK_STATUS_NO_LEASE, "NOLEASE", &format!("no lease {lease} is held")),
        }
    }

    pub(super) fn release(&mut self, now: Instant, lease: u64, act: &mut dyn Act) -> bool {
        let Some(lease) = self.leases.remove(&lease) else { return false };
        let Lease::Held(conn) = lease else { return true };
        match act.tenancy(conn) {
            (0, Tenancy::Clean) => self.keep_lane(now, conn, act),
            (0, Tenancy::Dirty) => {
                self.set_lane(conn, Lane::Resetting);
                act.reset(conn);
            }
            _ => {
                self.conns.remove(&conn);
                act.drop_conn(conn, "its lease was given back with state that cannot be taken off");
            }
        }
        self.leave_lane(now, act);
        true
    }

    /// A lane may be free: whoever wants one, or the peer that leaves, is next.
    fn leave_lane(&mut self, now: Instant, act: &mut dyn Act) {
        if self.members.values().any(|member| member.leaving) {
            self.reshape(now, act);
        } else {
            self.pump_lanes(now, act);
        }
    }

    /// A request that had a lane to itself has ended without a reply.
    pub(super) fn lane_left(&mut self, now: Instant, conn: ConnId, request: RequestId, act: &mut dyn Act) {
        let mine = [Part::Lane(Lane::Waiting(request)), Part::Lane(Lane::TakenOver(request))];
        if self.conns.get(&conn).is_some_and(|held| mine.contains(&held.part)) {
            self.conns.remove(&conn);
            act.drop_conn(conn, "the request that waited on this lane has ended");
            self.leave_lane(now, act);
        }
    }

    /// A request that had a lane to itself goes another way.
    pub(super) fn free_lane(&mut self, now: Instant, conn: ConnId, request: RequestId, act: &mut dyn Act) {
        let mine = [Part::Lane(Lane::Waiting(request)), Part::Lane(Lane::TakenOver(request))];
        if self.conns.get(&conn).is_some_and(|held| mine.contains(&held.part)) {
            self.keep_lane(now, conn, act);
        }
    }

    pub(super) fn lane_progress(
        &mut self,
        now: Instant,
        conn: ConnId,
        lane: Lane,
        inflight: usize,
        tenancy: Tenancy,
        act: &mut dyn Act,
    ) {
        if inflight == 0 && self.conns.get(&conn).is_some_and(|held| held.leaving) {
            self.drop_conn(conn, "its peer asked to be left", act);
            return self.leave_lane(now, act);
        }
        let done = match lane {
            Lane::Waiting(request) => !act.is_live(request) && inflight == 0,
            Lane::Resetting => tenancy == Tenancy::Clean,
            _ => false,
        };
        if !done {
            return;
        }
        if tenancy == Tenancy::Clean {
            self.keep_lane(now, conn, act);
        } else {
            self.conns.remove(&conn);
            act.drop_conn(conn, "its request left state that cannot be taken off");
        }
        self.leave_lane(now, act);
    }

    /// A lane's peer asks to be left: nobody is given it any more.
    pub(super) fn lane_leaves(&mut self, conn: ConnId, held: Held, act: &mut dyn Act) {
        if let Some(held) = self.conns.get_mut(&conn) {
            held.leaving = true;
        }
        if matches!(held.part, Part::Lane(Lane::Idle { .. } | Lane::Leased(_))) && act.tenancy(conn).0 == 0 {
            self.drop_conn(conn, "its peer asked to be left", act);
        }
    }

    /// A lane is gone: its lease is lost, its stream goes on with another.
    pub(super) fn lane_gone(&mut self, conn: ConnId, lane: Lane, why: &str, act: &dyn Act) {
        match lane {
            Lane::Leased(lease) => {
                self.leases.insert(lease, Lease::Lost(why.into()));
            }
            Lane::TakenOver(stream) if act.is_live(stream) => {
                self.wants.push_back(Want::takeover(stream, Route::default()));
            }
            Lane::Dialling => {
                for want in self.wants.iter_mut().filter(|want| want.conn == Some(conn)) {
                    want.conn = None;
                }
            }
            _ => {}
        }
    }

    /// Streams that took conns of a peer over go on elsewhere: they would never end by themselves.
    pub(super) fn move_takeovers(&mut self, id: MemberId, act: &mut dyn Act) -> bool {
        let taken = |held: &Held| held.member == id && matches!(held.part, Part::Lane(Lane::TakenOver(_)));
        let conns: Vec<ConnId> = self.conns.iter().filter(|(_, held)| taken(held)).map(|(conn, _)| *conn).collect();
        for conn in &conns {
            self.drop_conn(*conn, "its peer has left", act);
        }
        !conns.is_empty()
    }

    /// Closes lanes that nobody has used for long.
    pub(super) fn trim_lanes(&mut self, now: Instant, act: &mut dyn Act) {
        let idle_max = self.config.lane_idle;
        let old: Vec<ConnId> = self
            .lanes()
            .filter(|(_, lane)| matches!(lane, Lane::Idle { since } if now >= *since + idle_max))
            .map(|(conn, _)| conn)
            .collect();
        for conn in old {
            self.conns.remove(&conn);
            act.drop_conn(conn, "the lane was idle");
        }
    }
}
