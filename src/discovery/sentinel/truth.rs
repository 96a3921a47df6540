//! Which of the sentinels' answers is believed.
//!
//! An answer is the epoch of the sentinel's configuration (`config-epoch`) and the master that it names by
//! GET-MASTER-ADDR-BY-NAME. The rules, first to last:
//!
//! 1. A higher epoch than the believed one wins at once: each failover raises it, and the sentinel that leads one raises
//!    it as soon as the replica is promoted, seconds before the others hear of it.
//! 2. A sentinel that named the believed master and, at that epoch or a higher one, comes to name another is believed
//!    at once. What the others still say at that epoch is older, and cannot undo it for [`HOLD`].
//! 3. Among answers of the believed epoch the majority wins, then the one that was formed last.
//! 4. Lower epochs are passed over: a partitioned sentinel does not bring a demoted master back. But when more than
//!    half of all sentinels can be heard, none with the believed epoch, and they have named one and the same master
//!    for [`LOWER_FOR`], they are believed: they have been reset, or the promotion that was seen has come to nothing.
//!
//! The first belief waits until every sentinel was heard or failed, for [`SETTLE`] at most, so that a stale one that
//! happens to be the quickest is not believed.

use std::time::{Duration, Instant};

use super::reply::Replica;
use crate::peer::{Peer, Role};

pub const HOLD: Duration = Duration::from_secs(3);
pub const LOWER_FOR: Duration = Duration::from_secs(10);
pub const SETTLE: Duration = Duration::from_millis(100);

/// What one sentinel says.
#[derive(Clone, Debug)]
struct View {
    epoch: u64,
    master: Peer,
    replicas: Vec<Replica>,
    /// When it began to say so.
    since: Instant,
    reachable: bool,
}

#[derive(Debug)]
struct Belief {
    epoch: u64,
    master: Peer,
    /// When a sentinel changed its mind (rule 2).
    moved: Option<Instant>,
}

/// What is heard from each sentinel, by its place in the URL, and what is believed.
#[derive(Debug)]
pub struct Truth {
    views: Vec<Option<View>>,
    heard: Vec<bool>,
    belief: Option<Belief>,
    settle_by: Option<Instant>,
    /// The master of rule 4, and since when.
    lower: Option<(String, Instant)>,
}

impl Truth {
    pub fn new(sentinels: usize) -> Self {
        let (views, heard) = (vec![None; sentinels], vec![false; sentinels]);
        Truth { views, heard, belief: None, settle_by: None, lower: None }
    }

    pub fn hear(&mut self, now: Instant, sentinel: usize, epoch: u64, master: Peer, replicas: Vec<Replica>) {
        let before = self.views[sentinel].take();
        let same = |view: &&View| view.epoch == epoch && view.master.name == master.name;
        let since = before.as_ref().filter(same).map_or(now, |view| view.since);
        if self.is_move(before.as_ref(), epoch, &master) {
            self.belief = Some(Belief { epoch, master: master.clone(), moved: Some(now) });
        }
        self.views[sentinel] = Some(View { epoch, master, replicas, since, reachable: true });
        self.heard[sentinel] = true;
        self.settle_by.get_or_insert(now + SETTLE);
        self.settle(now);
    }

    /// The sentinel cannot be reached, or knows nothing of the master. What it said last is kept for rule 2.
    pub fn lose(&mut self, now: Instant, sentinel: usize) {
        self.heard[sentinel] = true;
        if let Some(view) = &mut self.views[sentinel] {
            view.reachable = false;
        }
        self.settle(now);
    }

    /// When [`Truth::settle`] is due though nothing was heard.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.settle_by.filter(|_| self.belief.is_none() && self.reachable().next().is_some())
    }

    pub fn settle(&mut self, now: Instant) {
        let Some(top) = self.reachable().map(|view| view.epoch).max() else {
            self.lower = None;
            return;
        };
        let Some(belief) = &self.belief else {
            let waits = self.settle_by.is_some_and(|by| now < by) && !self.heard.iter().all(|heard| *heard);
            if !waits {
                self.believe(top);
            }
            return;
        };
        if top < belief.epoch {
            return self.settle_lower(now, top);
        }
        self.lower = None;
        let held = belief.moved.is_some_and(|moved| now < moved + HOLD);
        if top > belief.epoch || !held {
            self.believe(top);
        }
    }

    /// Rule 4.
    fn settle_lower(&mut self, now: Instant, top: u64) {
        let masters: Vec<&str> = self.reachable().map(|view| view.master.name.as_str()).collect();
        let agreed = masters.iter().all(|master| *master == masters[0]) && masters.len() * 2 > self.views.len();
        if !agreed {
            self.lower = None;
            return;
        }
        let since = match &self.lower {
            Some((master, since)) if master == masters[0] => *since,
            _ => now,
        };
        self.lower = Some((masters[0].to_string(), since));
        if now >= since + LOWER_FOR {
            self.lower = None;
            self.believe(top);
        }
    }

    /// Rule 3 among the reachable views of one epoch.
    fn believe(&mut self, epoch: u64) {
        let views: Vec<&View> = self.reachable().filter(|view| view.epoch == epoch).collect();
        let votes = |view: &View| views.iter().filter(|other| other.master.name == view.master.name).count();
        if let Some(best) = views.iter().max_by_key(|view| (votes(view), view.since)) {
            let master = best.master.clone();
            self.belief = Some(Belief { epoch, master, moved: None });
        }
    }

    /// Rule 2.
    fn is_move(&self, before: Option<&View>, epoch: u64, master: &Peer) -> bool {
        let (Some(before), Some(belief)) = (before, &self.belief) else { return false };
        before.master.name == belief.master.name && epoch >= belief.epoch && master.name != belief.master.name
    }

    fn reachable(&self) -> impl Iterator<Item = &View> {
        self.views.iter().flatten().filter(|view| view.reachable)
    }

    pub fn is_deaf(&self) -> bool {
        self.reachable().next().is_none()
    }

    /// The master and its replicas. None while nothing is believed, or nobody who agrees can be heard.
    pub fn peers(&self) -> Option<Vec<Peer>> {
        let master = &self.belief.as_ref()?.master;
        let agreeing: Vec<&View> = self.reachable().filter(|view| view.master.name == master.name).collect();
        if agreeing.is_empty() {
            return None;
        }
        let mut peers = vec![Peer { role: Role::Primary, ..master.clone() }];
        for replica in agreeing.iter().flat_map(|view| &view.replicas) {
            if !peers.iter().any(|known| known.name == replica.peer.name) && is_usable(&agreeing, &replica.peer) {
                peers.push(Peer { role: Role::Replica, ..replica.peer.clone() });
            }
        }
        Some(peers)
    }
}

/// At least half of those who know the replica can use it, so that one sentinel's view does not make it come and go.
fn is_usable(views: &[&View], peer: &Peer) -> bool {
    let lines = || views.iter().flat_map(|view| &view.replicas).filter(|line| line.peer.name == peer.name);
    lines().filter(|line| line.usable).count() * 2 >= lines().count()
}
