//! The conns of a service, and which of them are more than ordinary ones: looking for those costs no more than there are.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;
use std::time::Instant;

use super::Part;
use super::members::MemberId;
use crate::router::ConnId;

/// One conn.
#[derive(Clone, Copy, Debug)]
pub struct Held {
    pub member: MemberId,
    pub ready: bool,
    pub topics_beside_requests: bool,
    /// Changed by [`Conns::set_part`] alone.
    pub part: Part,
    /// Its peer asked to be left while a lease holds it.
    pub leaving: bool,
    pub turns: Turns,
}

impl Held {
    pub fn new(member: MemberId, part: Part) -> Self {
        let turns = Turns::default();
        Held { member, ready: false, topics_beside_requests: false, part, leaving: false, turns }
    }
}

/// What a conn of an elastic pool is doing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Turns {
    /// Requests that it was given and that are not done, as far as it was heard of.
    pub under_way: usize,
    /// It was given requests before.
    pub served: bool,
    /// It is among the idle ones since then.
    pub idle: Option<Instant>,
    /// What it was given last, after it had been idle since then, while not a byte has come.
    pub rested: Option<Instant>,
    pub last: Option<crate::proto::RequestId>,
}

#[derive(Default)]
pub struct Conns {
    all: BTreeMap<ConnId, Held>,
    draining: BTreeSet<ConnId>,
    lanes: BTreeSet<ConnId>,
}

impl Deref for Conns {
    type Target = BTreeMap<ConnId, Held>;

    fn deref(&self) -> &Self::Target {
        &self.all
    }
}

impl Conns {
    pub fn insert(&mut self, conn: ConnId, held: Held) {
        self.all.insert(conn, held);
        self.set_part(conn, held.part);
    }

    pub fn remove(&mut self, conn: &ConnId) -> Option<Held> {
        self.draining.remove(conn);
        self.lanes.remove(conn);
        self.all.remove(conn)
    }

    pub fn get_mut(&mut self, conn: &ConnId) -> Option<&mut Held> {
        self.all.get_mut(conn)
    }

    pub fn set_part(&mut self, conn: ConnId, part: Part) {
        let Some(held) = self.all.get_mut(&conn) else { return };
        held.part = part;
        for (set, belongs) in
            [(&mut self.draining, matches!(part, Part::Draining(_))), (&mut self.lanes, matches!(part, Part::Lane(_)))]
        {
            if belongs {
                set.insert(conn);
            } else {
                set.remove(&conn);
            }
        }
    }

    pub fn draining(&self) -> impl Iterator<Item = (ConnId, Held)> {
        self.draining.iter().map(|conn| (*conn, self.all[conn]))
    }

    pub fn lanes(&self) -> impl Iterator<Item = (ConnId, Held)> {
        self.lanes.iter().map(|conn| (*conn, self.all[conn]))
    }
}
