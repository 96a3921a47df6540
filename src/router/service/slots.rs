//! Services divided by slots: who owns what, as the peers themselves tell.

use std::time::{Duration, Instant};

use super::Service;
use super::members::MemberId;
use crate::peer::{Peer, Role};
use crate::proto::Shard;
use crate::router::{Act, ConnId};

/// Slots there are (Redis Cluster specification).
pub const SLOTS: usize = 16_384;
const NOBODY: u16 = u16::MAX;
/// Topology is asked for this often, at most, when there is reason to doubt it.
const DOUBT_EVERY: Duration = Duration::from_millis(100);
/// And this often without.
const REFRESH_EVERY: Duration = Duration::from_secs(10);

struct Owner {
    primary: MemberId,
    replicas: Vec<MemberId>,
    able: Vec<MemberId>,
}

/// Who owns what.
#[derive(Default)]
pub struct Slots {
    /// What the source of peers told: whom to ask when nobody else is left.
    pub seeds: Vec<Peer>,
    owners: Vec<Owner>,
    /// Index into `owners` of each slot; empty while nothing is known.
    slots: Vec<u16>,
    asked: Option<Instant>,
    next: Option<Instant>,
}

impl Slots {
    pub fn is_unknown(&self) -> bool {
        self.slots.is_empty()
    }

    /// Who can take requests for a slot. None: anybody, as far as is known.
    pub fn able(&self, slot: Option<u16>) -> Option<&[MemberId]> {
        let owner = *self.slots.get(usize::from(slot?))?;
        self.owners.get(usize::from(owner)).map(|owner| &owner.able[..])
    }

    /// There is reason to ask anew.
    pub fn doubt(&mut self, now: Instant) {
        let soon = self.asked.map_or(now, |asked| (asked + DOUBT_EVERY).max(now));
        self.next = Some(self.next.map_or(soon, |next| next.min(soon)));
    }

    pub fn asked(&mut self, now: Instant) {
        self.asked = Some(now);
        self.next = Some(now + REFRESH_EVERY);
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        self.next
    }

    /// True if each slot has an owner, and each owner can serve.
    fn is_whole(&self) -> bool {
        !self.is_unknown() && !self.slots.contains(&NOBODY) && self.owners.iter().all(|owner| !owner.able.is_empty())
    }

    fn set_owner(&mut self, slot: u16, primary: MemberId) {
        let known = self.owners.iter().position(|owner| owner.primary == primary);
        let index = known.unwrap_or_else(|| {
            self.owners.push(Owner { primary, replicas: Vec::new(), able: Vec::new() });
            self.owners.len() - 1
        });
        if let Some(place) = self.slots.get_mut(usize::from(slot)) {
            *place = index as u16;
        }
    }
}

impl Service {
    /// Requests can be served, wherever they belong.
    pub(super) fn serves_all(&self) -> bool {
        if self.config.topology { self.slots.is_whole() } else { !self.able.is_empty() }
    }

    /// Some requests can be served.
    pub(super) fn serves_some(&self) -> bool {
        !self.able.is_empty()
    }

    /// Asks somebody who owns what, if it is time.
    pub(super) fn refresh_topology(&mut self, now: Instant, act: &mut dyn Act) {
        if !self.config.topology || self.slots.next.is_some_and(|next| next > now) {
            return;
        }
        let ready: Vec<ConnId> = self.members.values().filter_map(|member| member.ready.first().copied()).collect();
        if ready.is_empty() {
            // Whoever is ready first is asked; until then there is nothing to wait for.
            self.slots.next = None;
            let seeds = self.slots.seeds.clone();
            return self.add_seeds(now, &seeds, act);
        }
        self.slots.asked(now);
        if !self.slots.is_whole() {
            self.slots.doubt(now);
        }
        act.probe(ready[self.rng.usize(..ready.len())]);
    }

    /// Nobody who is known answers: those that the URL names are tried as well.
    fn add_seeds(&mut self, now: Instant, seeds: &[Peer], act: &mut dyn Act) {
        for seed in seeds {
            match self.member_named(&seed.name) {
                None => {
                    self.new_member(now, seed.clone());
                }
                Some(id) => {
                    self.members.entry(id).and_modify(|member| member.leaving = false);
                }
            }
        }
        self.dial_missing(now, act);
    }

    /// A peer told who owns what.
    pub(super) fn learn_topology(&mut self, now: Instant, conn: ConnId, shards: &[Shard], act: &mut dyn Act) {
        let Some(teller) = self.conns.get(&conn).map(|held| held.member) else { return };
        if shards.iter().all(|shard| shard.slots.is_empty()) {
            // A node that knows of nothing is no witness.
            return;
        }
        let host = self.host_of(teller);
        let mut peers: Vec<Peer> = Vec::new();
        for shard in shards {
            let primary = std::iter::once((&shard.primary, Role::Primary));
            let replicas = shard.replicas.iter().map(|replica| (replica, Role::Replica));
            for (address, role) in primary.chain(replicas) {
                let Some(peer) = read_address(address, &host) else { continue };
                if !peers.iter().any(|known| known.name == peer.name) {
                    peers.push(Peer { role, ..peer });
                }
            }
        }
        self.set_members(now, &peers, act);
        self.set_slots(shards, &host);
        if self.slots.is_whole() {
            self.last_failure = None;
        } else {
            self.slots.doubt(now);
        }
        self.reshape(now, act);
    }

    fn set_slots(&mut self, shards: &[Shard], host: &str) {
        self.slots.slots = vec![NOBODY; SLOTS];
        self.slots.owners.clear();
        let find = |service: &Self, address: &str| {
            read_address(address, host).and_then(|peer| service.member_named(&peer.name))
        };
        for shard in shards {
            let Some(primary) = find(self, &shard.primary) else { continue };
            let replicas = shard.replicas.iter().filter_map(|replica| find(self, replica)).collect();
            for (first, last) in &shard.slots {
                for slot in *first..=(*last).min(SLOTS as u16 - 1) {
                    self.slots.set_owner(slot, primary);
                }
            }
            if let Some(owner) = self.slots.owners.iter_mut().find(|owner| owner.primary == primary) {
                owner.replicas = replicas;
            }
        }
    }

    fn host_of(&self, id: MemberId) -> String {
        let host = self.members.get(&id).and_then(|member| member.peer.host());
        host.map(|(host, _)| host.to_string()).unwrap_or_default()
    }

    /// Who can serve which slots at present.
    pub(super) fn reshape_slots(&mut self) {
        let mut owners = std::mem::take(&mut self.slots.owners);
        for owner in &mut owners {
            let all = std::iter::once(owner.primary).chain(owner.replicas.iter().copied());
            owner.able = self.able_among(all, self.config.wanted);
        }
        self.slots.owners = owners;
    }

    /// A peer said who serves a slot: the member it named, once it is one.
    pub(super) fn redirected(
        &mut self,
        now: Instant,
        by: MemberId,
        slot: u16,
        to: &str,
        once: bool,
        act: &mut dyn Act,
    ) -> Option<MemberId> {
        if !self.config.topology {
            // The caller opened one service, not its cluster: it is to hear where its request belongs.
            return None;
        }
        let peer = read_address(to, &self.host_of(by))?;
        let id = match self.member_named(&peer.name) {
            Some(id) => id,
            None => self.new_member(now, Peer { role: Role::Primary, ..peer }),
        };
        if let Some(member) = self.members.get_mut(&id) {
            member.leaving = false;
            if !once {
                member.peer.role = Role::Primary;
            }
        }
        if !once && id != by {
            self.slots.set_owner(slot, id);
            self.reshape_slots();
        }
        self.slots.doubt(now);
        self.refresh_topology(now, act);
        Some(id)
    }
}

/// `host:port` of a peer as another one tells it, where an empty host is the teller's own.
fn read_address(text: &str, host: &str) -> Option<Peer> {
    match text.strip_prefix(':') {
        Some(port) => port.parse().ok().map(|port| Peer::at(host, port)),
        None => Peer::parse(text),
    }
}
