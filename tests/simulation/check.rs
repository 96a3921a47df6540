//! What must hold: after each step, at each send, at each end, and once everything is calm.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use iokernel::peer::{Peer, Role, Wanted};
use iokernel::ring::layout::{IOK_FATE_NOT_SENT, IOK_FATE_REPLIED};
use iokernel::router::{How, State};
use iokernel::status::*;

use crate::kernel::{Expect, What};
use crate::world::{MS, SECOND, World};

/// The router's timer may come so often in a second of the world.
const TIMEOUTS_MAX: u64 = 600;
/// Faults are over for so long at most before the endpoint is up.
const UP_WITHIN: u64 = 60 * SECOND;
/// A timer's tick, and the steps between two looks.
const LEFT_WITHIN: u64 = 100 * MS;
/// A replica was promoted for so long at most before it takes writes.
const WRITES_WITHIN: u64 = 3 * SECOND;

#[derive(Default)]
pub struct Checks {
    pub replied: u64,
    pub probes: u64,
    /// What each peer said it is, last.
    told: BTreeMap<String, Role>,
    /// By lease: the serial of its conn; and the other way round.
    leases: BTreeMap<u64, u64>,
    leased: BTreeMap<u64, u64>,
    /// Serials of conns that carried ordinary requests.
    common: BTreeSet<u64>,
    admitted: u64,
    pub first_ns: Option<u64>,
    by_peer: BTreeMap<String, VecDeque<u64>>,
    second: u64,
    timeouts: u64,
    /// The set as the source tells it, with the roles that it knows.
    peers: Vec<(String, Role)>,
    /// Since when they are seen to drain while another serves.
    leaving: BTreeMap<String, u64>,
    /// Who executed a request last.
    writer: Option<usize>,
}

impl Checks {
    pub fn told_peers(&mut self, peers: &[Peer]) {
        self.peers = peers.iter().map(|peer| (peer.name.clone(), peer.role)).collect();
    }

    pub fn lease_ends(&mut self, lease: u64) {
        if let Some(serial) = self.leases.remove(&lease) {
            self.leased.remove(&serial);
        }
    }
}

impl World {
    pub fn learnt_role(&mut self, key: u32, role: Role) {
        if let Some(peer) = self.conns.get(&key).map(|conn| conn.peer.clone()) {
            self.note(&format!("  told on {key} {peer} {role:?}"));
            self.checks.told.insert(peer, role);
        }
    }

    /// A request is about to be given to a conn.
    pub fn check_send(&mut self, key: u32, id: u64, how: How) {
        let Some(conn) = self.conns.get(&key) else { self.fail(&format!("{id} is sent on conn {key}, which is gone")) };
        if !conn.ready {
            self.fail(&format!("{id} is sent on conn {key}, which is not ready"));
        }
        let (serial, lease) = (conn.serial, self.requests[&id].lease);
        if how == How::Own {
            self.check_own(serial, key, id, lease);
        } else {
            self.checks.common.insert(serial);
            if self.checks.leased.contains_key(&serial) {
                self.fail(&format!("{id} is sent on conn {key}, which is leased"));
            }
        }
        let wanted = self.options.service.wanted;
        let told = self.checks.told.get(&self.conns[&key].peer).copied().unwrap_or_default();
        if wanted == Wanted::Primary && !self.profile.is_cluster() && told != Role::Primary {
            self.fail(&format!("{id} is sent to {}, which said that it is {told:?}", self.conns[&key].peer));
        }
        let names_primary = self.checks.peers.iter().any(|(_, role)| *role == Role::Primary);
        let is_it = |(name, role): &(String, Role)| *name == self.conns[&key].peer && *role == Role::Primary;
        if wanted == Wanted::Primary && names_primary && !self.checks.peers.iter().any(is_it) {
            self.fail(&format!("{id} is sent to {}, which the source does not call a primary", self.conns[&key].peer));
        }
    }

    fn check_own(&mut self, serial: u64, key: u32, id: u64, lease: u64) {
        if self.checks.common.contains(&serial) {
            self.fail(&format!("{id} wants a conn of its own and is sent on conn {key}, which others use"));
        }
        if lease == 0 {
            if self.checks.leased.contains_key(&serial) || self.conns[&key].proto.inflight() > 0 {
                self.fail(&format!("{id} is sent on lane {key}, which is not free"));
            }
            return;
        }
        let known = *self.checks.leases.entry(lease).or_insert(serial);
        let holder = *self.checks.leased.entry(serial).or_insert(lease);
        if known != serial || holder != lease {
            self.fail(&format!("{id} of lease {lease} is sent on conn {key}, which is that of lease {holder}"));
        }
    }

    /// A request was given to a conn.
    pub fn sent(&mut self, key: u32, id: u64, how: How) {
        if self.prints() {
            self.note(&format!("  sent {id} on {key} {how:?}"));
        }
        if how == How::Own {
            return;
        }
        let service = self.options.service;
        if self.inflight > service.inflight_max {
            self.fail(&format!("{} requests are in flight, of {}", self.inflight, service.inflight_max));
        }
        let peer = self.conns[&key].peer.clone();
        let of_peer = self.live_ids.iter().filter(|id| {
            let req = &self.requests[id];
            req.counted && req.conn.and_then(|key| self.conns.get(&key)).is_some_and(|conn| conn.peer == peer)
        });
        if service.peer_inflight_max < 1000 && of_peer.count() > service.peer_inflight_max {
            self.fail(&format!("{peer} has more in flight than its limit"));
        }
        let now_ns = self.now_ns;
        if self.requests[&id].sends == 1 {
            self.checks.admitted += 1;
        }
        let first_ns = self.checks.first_ns.unwrap_or(now_ns);
        if let Some(rate) = service.rate {
            let most = (now_ns - first_ns) as f64 / 1e9 * rate.per_second + rate.burst + 1.0;
            if self.checks.admitted as f64 > most {
                self.fail(&format!("{} requests were admitted, of {most}", self.checks.admitted));
            }
        }
        if let Some(rate) = service.peer_rate.filter(|_| self.profile.is_fixed()) {
            let sends = self.checks.by_peer.entry(peer).or_default();
            sends.push_back(now_ns);
            while sends.front().is_some_and(|at| at + SECOND < now_ns) {
                sends.pop_front();
            }
            if sends.len() as f64 > rate.per_second + rate.burst + 1.0 {
                self.fail("a peer was given more than its rate");
            }
        }
    }

    pub fn check_topic(&self, key: u32, topic: &[u8]) {
        if !self.conns.get(&key).is_some_and(|conn| conn.ready) {
            self.fail(&format!(
                "topic {:?} is asked for on conn {key}, which is not ready",
                String::from_utf8_lossy(topic)
            ));
        }
    }

    /// A server has executed a request.
    pub fn executed(&mut self, id: u64, node: usize) {
        let Some(req) = self.requests.get_mut(&id) else { self.fail(&format!("node {node} executed {id}, unknown")) };
        req.executions += 1;
        self.checks.writer = Some(node);
        let (executions, idempotent, ended) = (req.executions, req.idempotent, req.ended);
        if executions > 1 && !idempotent {
            self.fail(&format!("{id} was executed {executions} times"));
        }
        if ended.is_some_and(|ended| ended.fate == IOK_FATE_NOT_SENT) {
            self.fail(&format!("node {node} executed {id}, which ended as not sent"));
        }
    }

    /// A request has ended.
    pub fn check_end(&mut self, id: u64, body: &[u8]) {
        self.live_ids.remove(&id);
        let req = &self.requests[&id];
        let Some(ended) = req.ended else { return };
        if ended.fate == IOK_FATE_NOT_SENT && req.executions > 0 {
            self.fail(&format!("{id} ended as not sent and was executed"));
        }
        let text = String::from_utf8_lossy(body);
        if ended.status == IOK_STATUS_OK && ended.fate == IOK_FATE_REPLIED && req.what == What::Request {
            self.checks.replied += 1;
            let marked = text.contains(&format!("#{id}#"));
            // In a batch, one command may have been refused.
            let refused = req.words.contains(';');
            if req.expect == Expect::Mark && !marked && !refused {
                self.fail(&format!("{id} ({}) was answered {text:?}", req.words));
            }
            if marked && req.executions == 0 {
                self.fail(&format!("{id} was answered and never executed"));
            }
        }
        if req.due_ns.is_some_and(|due| ended.at_ns > due + MS) {
            self.fail(&format!("{id} ended after its time"));
        }
    }

    /// The router's timer came: the next moment is a later one.
    pub fn check_timeout(&mut self) {
        let Some(router) = &self.router else { return };
        if router.poll_timeout().is_some_and(|next| next <= self.now()) {
            self.fail("after handle_timeout the next timeout is not later");
        }
        if self.checks.second != self.now_ns / SECOND {
            (self.checks.second, self.checks.timeouts) = (self.now_ns / SECOND, 0);
        }
        self.checks.timeouts += 1;
        // A rate lets its requests in one at a time.
        let paced = self.options.service.rate.map_or(0, |rate| rate.per_second as u64);
        if self.checks.timeouts > TIMEOUTS_MAX + paced {
            self.fail("the router's timer comes too often");
        }
    }

    pub fn check_step(&mut self) {
        if !self.unheard.is_empty() {
            self.fail("news was not heard");
        }
        if self.step.is_multiple_of(4) {
            self.check_state();
        }
    }

    fn check_state(&mut self) {
        let mut router = self.router.take();
        let state = router.as_ref().map(|router| router.state(&crate::acts::Acts { world: self, fresh: None }));
        self.router = router.take();
        let Some(state) = state else { return };
        if state.conns != self.conns.len() {
            self.fail(&format!("the router knows {} conns of {}", state.conns, self.conns.len()));
        }
        let waits = |id: &&u64| {
            let req = &self.requests[id];
            req.conn.is_none() && req.lease == 0 && matches!(req.what, What::Request | What::Lease)
        };
        let (common, own): (Vec<u64>, Vec<u64>) =
            self.live_ids.iter().filter(waits).partition(|id| self.requests[id].shared);
        let max = self.options.service.queue_max;
        if common.len() > max || own.len() > max {
            self.fail(&format!("{} and {} requests wait, of {max}", common.len(), own.len()));
        }
        if common.len() + own.len() > state.queued {
            let waiting = [common, own].concat();
            self.fail(&format!("{} of the requests {waiting:?} are queued", state.queued));
        }
        self.check_leaving(&state);
        let peers = state.peers.len().max(1);
        let most = peers * (2 * self.options.service.pool + 1) + self.options.service.lanes_max;
        if state.conns > most + 8 {
            self.fail(&format!("{} conns to {peers} peers", state.conns));
        }
    }

    /// Peers that have left are gone once they had their time and another serves.
    fn check_leaving(&mut self, state: &State) {
        let serves = matches!(self.options.service.wanted, Wanted::Any | Wanted::Nearest)
            && state.peers.iter().any(|peer| peer.word == "up");
        let (now_ns, drain) = (self.now_ns, self.options.service.drain.as_nanos() as u64);
        let mut leaving = std::mem::take(&mut self.checks.leaving);
        let is_leaving = |name: &String| state.peers.iter().any(|peer| peer.name == *name && peer.word == "draining");
        leaving.retain(|name, _| serves && is_leaving(name));
        for peer in state.peers.iter().filter(|peer| peer.word == "draining" && serves) {
            let since = *leaving.entry(peer.name.clone()).or_insert(now_ns);
            if now_ns > since + drain + LEFT_WITHIN {
                self.fail(&format!("{} has left {} ms ago and has conns: {state:?}", peer.name, (now_ns - since) / MS));
            }
        }
        self.checks.leaving = leaving;
    }

    /// After the faults: the endpoint comes up, everything that is asked succeeds, and nothing is left over.
    pub fn settle(&mut self) {
        let end = self.now_ns + UP_WITHIN;
        while !self.router.as_ref().is_some_and(|router| router.is_up()) {
            if self.now_ns >= end {
                let why = self.why();
                self.fail(&format!("the endpoint is not up: {why}"));
            }
            self.run_until(self.now_ns + 100 * MS);
        }
        self.run_until(self.now_ns + 15 * SECOND);
        self.program.silent = true;
        while !self.program.leases.is_empty() {
            self.give_back(0);
        }
        self.turn();
        let drain = self.options.service.drain.as_nanos() as u64;
        self.run_until(self.now_ns + 42 * SECOND + drain);
        self.check_quiet();
        self.check_service();
        self.check_promotion();
        self.check_streams();
    }

    fn why(&mut self) -> String {
        let router = self.router.take();
        let state = router.as_ref().map(|router| router.state(&crate::acts::Acts { world: self, fresh: None }));
        self.router = router;
        format!("{state:?}")
    }

    /// Nothing is under way but streams.
    fn check_quiet(&mut self) {
        let left: Vec<u64> =
            self.live_ids.iter().copied().filter(|id| self.requests[id].what != What::Stream).collect();
        if !left.is_empty() {
            self.fail(&format!("requests {left:?} never ended"));
        }
        if self.inflight != 0 {
            self.fail(&format!("{} requests count as in flight", self.inflight));
        }
        let why = self.why();
        if why.contains("\"draining\"") {
            self.fail(&format!("peers that have left are still there: {why}"));
        }
    }

    /// Requests succeed, one after the other.
    fn check_service(&mut self) {
        for _ in 0..20 {
            let mut words = self.some_words();
            if self.options.service.wanted == Wanted::Replica {
                words = format!("GET {{k1}} #{}#", self.requests_made + 1);
            }
            let mut req = self.request(words, What::Request);
            req.due_ns = Some(self.timeout_ms(3000));
            let id = self.submit(req);
            self.turn();
            self.run_until(self.now_ns + 200 * MS);
            let ended = self.requests[&id].ended;
            if ended.is_none_or(|ended| ended.status != IOK_STATUS_OK) {
                let why = self.why();
                self.fail(&format!("{id} ({}) did not succeed: {ended:?} {why}", self.requests[&id].words));
            }
        }
    }

    /// Writes go on soon after a replica was promoted.
    fn check_promotion(&mut self) {
        let heir = (0..self.nodes.len()).find(|node| self.may_promote(*node));
        let Some(heir) = heir.filter(|_| self.options.service.wanted == Wanted::Primary) else { return };
        self.promote(heir);
        let promoted_ns = self.now_ns;
        loop {
            let words = format!("SET {{k1}} #{}#", self.requests_made + 1);
            let mut req = self.request(words, What::Request);
            req.due_ns = Some(self.timeout_ms(3000));
            let id = self.submit(req);
            self.turn();
            self.run_until(self.now_ns + 100 * MS);
            let done = self.requests[&id].ended.is_some_and(|ended| ended.status == IOK_STATUS_OK);
            if done && (self.profile.is_cluster() || self.checks.writer == Some(heir)) {
                break;
            }
            if self.now_ns > promoted_ns + WRITES_WITHIN {
                let why = self.why();
                self.fail(&format!("no write reached node {heir} after its promotion: {why}"));
            }
        }
        self.run_until(self.now_ns + 5 * SECOND);
    }

    /// Each live stream hears a message once.
    fn check_streams(&mut self) {
        let streams: Vec<u64> = self.live_ids.iter().copied().collect();
        for topic in ["t0", "t1", "t2", "t3", "t4", "{s0}", "{s1}", "{s2}"] {
            let message = format!("news of {topic}");
            let wanted = streams.iter().any(|id| self.requests[id].words.split(' ').any(|word| word == topic));
            let carried = self.subscribers(topic);
            if carried.len() != usize::from(wanted) {
                self.fail(&format!("{topic} is wanted: {wanted}, and subscribed on conns {carried:?}"));
            }
            self.publish(topic, &message);
            self.run_until(self.now_ns + 500 * MS);
            for id in &streams {
                let req = &self.requests[id];
                let expected = usize::from(req.words.split(' ').any(|word| word == topic));
                let holds = |body: &&Vec<u8>| String::from_utf8_lossy(body).contains(&message);
                let heard = req.pushes.iter().filter(holds).count();
                if heard != expected || (expected == 1 && !req.accepted) {
                    self.fail(&format!("stream {id} ({}) heard {heard} of {message:?}: {}", req.words, self.step));
                }
            }
        }
    }
}
