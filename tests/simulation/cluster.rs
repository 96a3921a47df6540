//! Who is whose primary, and who owns which slots: the truth, and what each node has heard of it.

use std::collections::{BTreeMap, BTreeSet};

use crate::profile::Servers;
use crate::resp;
use crate::world::{Event, Heal, World};

/// Slots move in ranges of this many.
const RANGES: usize = 16;
const RANGE_SLOTS: usize = 16_384 / RANGES;

#[derive(Default)]
pub struct Cluster {
    /// Whom each node follows.
    pub follows: Vec<Option<usize>>,
    pub owners: Vec<usize>,
    /// From whom to whom a range is on its way.
    pub moving: BTreeMap<usize, (usize, usize)>,
    /// Hash tags whose keys have arrived.
    arrived: BTreeSet<Vec<u8>>,
    /// Raised by each failover.
    pub epoch: u64,
}

impl World {
    pub fn build_cluster(&mut self) {
        self.cluster.follows = self.nodes.iter().map(|node| node.follows).collect();
        self.cluster.epoch = 1;
        if self.profile.is_cluster() {
            let primaries = self.nodes.len() / 2;
            self.cluster.owners = (0..RANGES).map(|range| range % primaries).collect();
            for node in &mut self.nodes {
                node.view = self.cluster.owners.clone();
            }
        }
    }

    /// A node hears of a change after a while.
    pub fn hears_soon(&mut self, node: usize) {
        let wait = self.rng.u64(1..300);
        self.in_ms(wait, Event::Gossip { node });
    }

    fn everyone_hears(&mut self) {
        (0..self.nodes.len()).for_each(|node| self.hears_soon(node));
        if self.profile.has_sentinels() {
            for sentinel in 0..3 {
                let wait = self.rng.u64(1..1500);
                self.in_ms(wait, Event::SentinelHears { sentinel });
            }
        }
    }

    pub fn gossip(&mut self, node: usize) {
        if !self.nodes[node].alive || self.nodes[node].stopped || self.nodes[node].is_cut_off() {
            return self.in_ms(100, Event::Gossip { node });
        }
        let follows = self.cluster.follows[node];
        self.nodes[node].view = self.cluster.owners.clone();
        self.set_role(node, follows);
        if self.profile.is_cluster() {
            self.withdraw(node);
        }
    }

    /// A replica takes its primary's place.
    pub fn promote(&mut self, node: usize) {
        let Some(before) = self.cluster.follows[node] else { return };
        if !self.nodes[node].is_well() {
            return;
        }
        self.cluster.epoch += 1;
        self.cluster.follows[node] = None;
        for of in 0..self.nodes.len() {
            if of == before || self.cluster.follows[of] == Some(before) {
                self.cluster.follows[of] = Some(node);
            }
        }
        self.cluster.owners.iter_mut().filter(|owner| **owner == before).for_each(|owner| *owner = node);
        self.cluster.moving.clear();
        self.nodes[node].view = self.cluster.owners.clone();
        self.set_role(node, None);
        self.everyone_hears();
    }

    pub fn may_promote(&self, node: usize) -> bool {
        self.profile.servers != Servers::Alike && self.cluster.follows[node].is_some() && self.nodes[node].is_well()
    }

    /// A range of slots begins to move.
    pub fn begin_move(&mut self) {
        let range = self.rng.usize(..RANGES);
        let from = self.cluster.owners[range];
        let others: Vec<usize> =
            (0..self.nodes.len()).filter(|node| *node != from && self.cluster.follows[*node].is_none()).collect();
        if others.is_empty() || self.cluster.moving.contains_key(&range) {
            return;
        }
        let to = others[self.rng.usize(..others.len())];
        self.cluster.moving.insert(range, (from, to));
        let wait = self.rng.u64(20..500);
        self.in_ms(wait, Event::Heal(Heal::FinishMove(range)));
    }

    pub fn finish_move(&mut self, range: usize) {
        let Some((from, to)) = self.cluster.moving.remove(&range) else { return };
        if self.cluster.owners[range] == from && self.cluster.follows[to].is_none() {
            self.cluster.owners[range] = to;
            self.nodes[to].view[range] = to;
            self.everyone_hears();
        }
    }

    /// Why a node does not serve these keys; None if it does.
    pub fn redirect(&mut self, link: usize, keys: &[Vec<u8>], write: bool, asking: bool) -> Option<String> {
        let key = keys.first().filter(|_| self.profile.is_cluster())?;
        let node = self.links[link].node;
        let slot = resp::slot(key);
        let range = usize::from(slot) / RANGE_SLOTS;
        let owner = self.nodes[node].view[range];
        let tag = key.split(|byte| *byte == b'}').next().unwrap_or_default().to_vec();
        let address = |world: &World, of: usize| world.nodes[of].address;
        match self.cluster.moving.get(&range).copied() {
            Some((from, to)) if owner == node && from == node && self.nodes[node].primary => {
                if keys.len() > 1 && self.rng.usize(..3) == 0 {
                    return Some("-TRYAGAIN Multiple keys request during rehashing of slot".into());
                }
                if self.cluster.arrived.contains(&tag) || self.rng.usize(..3) == 0 {
                    self.cluster.arrived.insert(tag);
                    return Some(format!("-ASK {slot} {}", address(self, to)));
                }
                None
            }
            Some((_, to)) if to == node && asking => None,
            _ if owner == node && self.nodes[node].primary => None,
            _ if self.nodes[node].follows == Some(owner) && !write && self.links[link].session.readonly => None,
            _ => {
                let to = if owner == node { self.nodes[node].follows.unwrap_or(owner) } else { owner };
                Some(format!("-MOVED {slot} {}", address(self, to)))
            }
        }
    }

    /// CLUSTER SLOTS as a node sees it.
    pub fn cluster_slots(&self, node: usize) -> Vec<u8> {
        let view = &self.nodes[node].view;
        let describe = |of: usize| {
            let address = self.nodes[of].address;
            let port = resp::line(&format!(":{}", address.port()));
            // A node does not always know its own address.
            let ip = if of == node && node.is_multiple_of(2) { String::new() } else { address.ip().to_string() };
            resp::array(&[resp::bulk(&ip), port, resp::bulk(&format!("id{of}"))])
        };
        let parts: Vec<Vec<u8>> = (0..RANGES)
            .map(|range| {
                let owner = view[range];
                let first = resp::line(&format!(":{}", range * RANGE_SLOTS));
                let last = resp::line(&format!(":{}", (range + 1) * RANGE_SLOTS - 1));
                let replicas = (0..self.nodes.len()).filter(|of| self.cluster.follows[*of] == Some(owner));
                let mut part = vec![first, last, describe(owner)];
                part.extend(replicas.map(describe));
                resp::array(&part)
            })
            .collect();
        resp::array(&parts)
    }
}
