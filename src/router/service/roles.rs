//! Who is primary: what the peers of a service say of themselves, and who is believed.

use std::time::Instant;

use super::lanes::{Lane, Lease};
use super::members::{Member, MemberId};
use super::{Held, Part, Service};
use crate::peer::{Role, Wanted};
use crate::router::{Act, ConnId};

impl Service {
    pub(super) fn learn_role(
        &mut self,
        now: Instant,
        conn: ConnId,
        role: Role,
        follows: Option<&str>,
        act: &mut dyn Act,
    ) {
        let Some(id) = self.conns.get(&conn).map(|held| held.member) else { return };
        let Some(member) = self.members.get_mut(&id) else { return };
        let wanted = matches!(self.config.wanted, Wanted::Primary | Wanted::Replica | Wanted::PreferReplica);
        let followed_here = wanted && !self.config.topology;
        if !followed_here {
            // Nobody asked: a write was refused. The name may lead elsewhere by now.
            if role == Role::Replica {
                act.doubt();
            }
            return;
        }
        let before = std::mem::replace(&mut member.role, role);
        let followed = std::mem::replace(&mut member.follows, follows.map(str::to_string));
        let restored = role == Role::Replica && self.restore(id, followed.as_deref());
        if before == role && !restored {
            return;
        }
        match (before, role, followed) {
            (Role::Replica, Role::Primary, followed) => self.supersede(id, followed.as_deref(), act),
            (_, Role::Replica, _) => self.demoted(id, before, act),
            _ => {}
        }
        self.reshape(now, act);
    }

    /// A primary says which in the row it is: of several that call themselves primary, the last one is. A server that was the
    /// last and tells a lower number begins a new row: it was set up anew.
    pub(super) fn learn_reign(&mut self, conn: ConnId, number: u64, act: &mut dyn Act) {
        let Some(id) = self.conns.get(&conn).map(|held| held.member) else { return };
        if let Some((last, holder)) = self.reign
            && number < last
            && holder != id
            && self.members.contains_key(&holder)
        {
            return self.overthrow(id, holder, act);
        }
        self.reign = Some((number, id));
        self.members.entry(id).and_modify(|member| member.superseded = None);
        for other in self.ids(|other| other.reign.is_some_and(|reign| reign < number) && other.role == Role::Primary) {
            if other != id {
                self.overthrow(other, id, act);
            }
        }
        self.members.entry(id).and_modify(|member| member.reign = Some(number));
    }

    /// A primary is none any more, though it says so.
    fn overthrow(&mut self, id: MemberId, by: MemberId, act: &mut dyn Act) {
        let Some(member) = self.members.get(&id) else { return };
        if member.superseded.is_none() && member.role == Role::Primary {
            self.evict(id, "another peer was promoted in its place", act);
        }
        self.members.entry(id).and_modify(|member| member.superseded = Some(by));
    }

    /// A replica says so. It may be what supersedes another, or was superseded itself, and a change of its primary shows
    /// who that is by now. True if somebody is believed again.
    fn restore(&mut self, replica: MemberId, followed: Option<&str>) -> bool {
        let follows = self.members.get(&replica).and_then(|member| member.follows.clone());
        let moved_to = follows.filter(|follows| followed.is_some_and(|before| before != follows));
        let is_over = |id: MemberId, member: &Member| {
            id == replica
                || member.superseded == Some(replica)
                || moved_to.as_deref().is_some_and(|to| member.is_at(to))
        };
        if self.reign.is_some_and(|(_, holder)| holder == replica) {
            self.reign = None;
        }
        let mut any = false;
        for (id, member) in &mut self.members {
            if member.superseded.is_some() && is_over(*id, member) {
                member.superseded = None;
                any = true;
            }
        }
        any
    }

    /// A replica was promoted: whom it followed is not to be written to, until it has been somebody's replica itself.
    /// Where replicas do not tell whom they follow (PostgreSQL), that is every other primary: the set has one.
    fn supersede(&mut self, promoted: MemberId, followed: Option<&str>, act: &mut dyn Act) {
        let was_followed = |it: &Member| followed.is_none_or(|primary| it.is_at(primary));
        let primaries = self.ids(|it| was_followed(it) && it.role == Role::Primary && it.peer.role == Role::Unknown);
        for id in primaries {
            if id != promoted {
                self.overthrow(id, promoted, act);
            }
        }
    }

    /// A peer says that it is no primary any more. What is under way there it refuses itself; leases on it are of no use.
    /// What it was is not known where its shared conns had been lost: a lease may have outlived them.
    fn demoted(&mut self, id: MemberId, before: Role, act: &mut dyn Act) {
        if before == Role::Primary {
            act.doubt();
        }
        if self.config.wanted != Wanted::Primary {
            return;
        }
        let useless = |held: &Held| {
            held.member == id && matches!(held.part, Part::Lane(Lane::Leased(_) | Lane::Idle { .. } | Lane::Resetting))
        };
        let lanes: Vec<ConnId> = self.conns.iter().filter(|(_, held)| useless(held)).map(|(conn, _)| *conn).collect();
        for conn in lanes {
            if let Some(Part::Lane(Lane::Leased(lease))) = self.conns.get(&conn).map(|held| held.part) {
                self.leases.insert(lease, Lease::Lost("its peer was demoted".into()));
            }
            self.drop_conn(conn, "its peer was demoted", act);
        }
    }
}
