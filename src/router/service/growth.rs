//! Shared pools that grow: where what a server executes for one conn keeps the rest of that conn's requests waiting, others
//! are given to another one. It is made when every conn of a peer was held up for so long (`head_wait`), up to `pool`, and
//! closed when it has nothing to do.

use std::time::Instant;

use super::members::MemberId;
use super::{Part, Service};
use crate::proto::Tenancy;
use crate::router::{Act, ConnId};

impl Service {
    /// What is at the head of this conn keeps others waiting.
    #[inline]
    pub(super) fn is_held_up(&self, conn: ConnId, act: &dyn Act) -> bool {
        self.config.grows.is_some_and(|head_wait| act.is_held_up(conn, head_wait))
    }

    /// The shared conn of a peer that a request is best given to. None: one is being made.
    pub(super) fn best_shared(&mut self, now: Instant, id: MemberId, act: &mut dyn Act) -> Option<ConnId> {
        let member = self.members.get(&id)?;
        let load = |conn: &ConnId| (self.is_held_up(*conn, act), act.tenancy(*conn).0);
        let best = member.ready.iter().copied().min_by_key(load)?;
        if !self.is_held_up(best, act) {
            return Some(best);
        }
        let conns = member.ready.len() + member.dialling.len();
        let may = member.dialling.is_empty() && conns < self.config.pool && !member.leaving;
        if may && self.members.get_mut(&id).is_some_and(|member| member.backoff.may_try(now)) {
            self.dial(id, Part::Shared, act);
        }
        self.members[&id].dialling.is_empty().then_some(best)
    }

    /// A peer has one more conn: whether it is needed is looked at from time to time.
    pub(super) fn has_grown(&mut self, now: Instant, id: MemberId) {
        let (grows, idle) = (self.config.grows.is_some(), self.config.lane_idle);
        if let Some(member) = self.members.get_mut(&id).filter(|member| grows && member.ready.len() > 1) {
            member.shrinks_at.get_or_insert(now + idle);
        }
    }

    /// Closes conns that a peer has for no reason any more, one at a time.
    pub(super) fn shrink(&mut self, now: Instant, act: &mut dyn Act) {
        for id in self.ids(|member| member.shrinks_at.is_some_and(|at| at <= now)) {
            let Some(member) = self.members.get_mut(&id) else { continue };
            member.shrinks_at = None;
            let idle = |conn: &ConnId| act.tenancy(*conn) == (0, Tenancy::Clean) && !self.topics.uses(*conn);
            let spare = self.members[&id].ready.iter().copied().skip(1).rfind(idle);
            if let Some(conn) = spare {
                self.drop_conn(conn, "the others are enough", act);
                self.reshape(now, act);
            }
            self.has_grown(now, id);
        }
    }
}
