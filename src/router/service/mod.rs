//! The router of a service.
//!
//! * [`members`]: the peers; who is dialled, who drains, who serves, which roles they have.
//! * [`requests`]: ordinary requests, from admission over the choice of a peer to its shared conn, and again if need be.
//! * [`lanes`]: conns for what waits in the server or owns a conn; leases.
//! * [`pool`]: conns that requests have to themselves, as many as the load asks for.
//! * [`growth`]: one more shared conn where those that there are are held up.
//! * [`streams`]: topics, which ride on a shared conn where the protocol can carry pushes beside requests.
//! * [`slots`]: who serves which slots, where a service is divided.
//!
//! Whatever changes who can serve ends in [`Service::reshape`], which brings everything else in line.

mod conns;
mod growth;
mod lanes;
mod members;
mod pool;
mod requests;
mod roles;
mod slots;
mod streams;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use super::balance::Balance;
use super::throttle::{Bucket, Budget, Rate};
use super::topics::Topics;
use super::{Act, Again, ConnId, Down, PeerState, Returned, Router, State};
use crate::peer::{Peer, Wanted};
use crate::proto::{Body, Class, Fact, Need, RequestId, Route, Tenancy};
use crate::status::{IOK_STATUS_BAD_REQUEST, IOK_STATUS_LOST, IOK_STATUS_OVERLOADED};
use conns::{Conns, Held};
use lanes::{Lane, Lease, Want};
use members::{Member, MemberId};
use requests::Entry;
use slots::Slots;

/// Limits and times of a service.
#[derive(Clone, Copy, Debug)]
pub struct ServiceConfig {
    /// Requests that wait for a conn, at most.
    pub queue_max: usize,
    /// Lanes beside the shared conns, at most.
    pub lanes_max: usize,
    /// How long an unused lane is kept.
    pub lane_idle: Duration,
    pub backoff_min: Duration,
    pub backoff_max: Duration,
    pub seed: u64,
    /// Which peers are sent to.
    pub wanted: Wanted,
    /// Peers tell who serves which slots.
    pub topology: bool,
    pub balance: Balance,
    /// Shared conns to each peer; of an exclusive service, at most.
    pub pool: usize,
    /// One shared conn at first, and one more, up to `pool`, when every one was held up for so long.
    pub grows: Option<Duration>,
    /// A request has a conn to itself until its reply is complete: conns come and go with the load.
    pub exclusive: bool,
    /// Idle conns that an exclusive service keeps to each peer.
    pub warm: usize,
    /// What waits while nobody serves ends with the next attempt to connect that fails.
    pub fails_down: bool,
    /// How long a peer that leaves may take to answer what it was given.
    pub drain: Duration,
    /// Ordinary requests under way, at most.
    pub inflight_max: usize,
    /// The same for each peer.
    pub peer_inflight_max: usize,
    pub rate: Option<Rate>,
    pub peer_rate: Option<Rate>,
    /// The peers' limits find themselves.
    pub adaptive: bool,
    /// Retries, as a share of the requests.
    pub retry_share: f64,
}

impl Default for ServiceConfig {
    fn default() -> Self {
        ServiceConfig {
            queue_max: 65_536,
            lanes_max: 128,
            lane_idle: Duration::from_secs(60),
            backoff_min: Duration::from_millis(50),
            backoff_max: Duration::from_secs(5),
            seed: 0,
            wanted: Wanted::Any,
            topology: false,
            balance: Balance::Least,
            pool: 1,
            grows: None,
            exclusive: false,
            warm: 0,
            fails_down: false,
            drain: Duration::from_secs(30),
            inflight_max: usize::MAX,
            peer_inflight_max: 65_536,
            rate: None,
            peer_rate: None,
            adaptive: false,
            retry_share: 0.2,
        }
    }
}

/// What a conn is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// Ordinary requests.
    Shared,
    /// The same, but its place is not the peer's any more: until its successor is ready.
    Stale,
    /// Nothing more; it closes once its replies are in, or at this moment.
    Draining(Instant),
    /// Topics, where they cannot ride beside requests.
    Topics,
    Lane(Lane),
}

pub struct Service {
    config: ServiceConfig,
    rng: fastrand::Rng,
    members: BTreeMap<MemberId, Member>,
    members_made: u32,
    conns: Conns,
    /// Who may get a request that belongs nowhere in particular.
    able: Vec<MemberId>,
    slots: Slots,
    /// The last in the row of primaries, and its number, where they tell.
    reign: Option<(u64, MemberId)>,
    /// The only conn that ordinary requests can take, and nothing to ask about them.
    fast: Option<ConnId>,
    /// Requests that took it, not yet counted with their member.
    fast_sent: u64,
    /// Requests that a throttle holds back.
    waiting: VecDeque<Entry>,
    /// Requests that no peer can take at present.
    stuck: VecDeque<Entry>,
    /// Requests that are tried again at a moment.
    delayed: Vec<(Instant, Entry)>,
    /// Entries of these queues and of the members'.
    queued: usize,
    bucket: Option<Bucket>,
    budget: Budget,
    /// Requests that come again through no fault of their peer's: the budget does not pay for them.
    forgiven: HashSet<RequestId>,
    /// When a bucket that had nothing left has something.
    throttled_until: Option<Instant>,
    wants: VecDeque<Want>,
    leases: HashMap<u64, Lease>,
    next_lease: u64,
    /// Of the queues: those that have ended since they were last looked through, at most.
    ended: usize,
    topics: Topics,
    topics_member: Option<MemberId>,
    waiters: Vec<RequestId>,
    description: String,
    last_failure: Option<Down>,
    /// Why the source of the peers knows no more.
    unknown: Option<String>,
    version: u64,
    shape: u64,
}

impl Service {
    pub fn new(config: ServiceConfig) -> Self {
        Service {
            config,
            rng: fastrand::Rng::with_seed(config.seed),
            members: BTreeMap::new(),
            members_made: 0,
            conns: Conns::default(),
            able: Vec::new(),
            slots: Slots::default(),
            reign: None,
            fast: None,
            fast_sent: 0,
            waiting: VecDeque::new(),
            stuck: VecDeque::new(),
            delayed: Vec::new(),
            queued: 0,
            bucket: None,
            budget: Budget::new(config.retry_share),
            forgiven: HashSet::new(),
            throttled_until: None,
            wants: VecDeque::new(),
            leases: HashMap::new(),
            next_lease: 1,
            ended: 0,
            topics: Topics::default(),
            topics_member: None,
            waiters: Vec::new(),
            description: String::new(),
            last_failure: None,
            unknown: None,
            version: 1,
            shape: 0,
        }
    }

    /// Every peer refuses us for good, as far as is known.
    fn refusal(&self) -> Option<&Down> {
        let mut present = self.members.values().filter(|member| !member.leaving);
        let first = present.next()?.refusal()?;
        present.all(|member| member.refusal().is_some()).then_some(first)
    }

    /// Tells everyone who waits that waiting is useless.
    fn flush_refused(&mut self, down: &Down, act: &mut dyn Act) {
        let mut waiting: Vec<RequestId> = self.take_queued();
        waiting.extend(self.wants.drain(..).map(|want| want.request));
        waiting.append(&mut self.waiters);
        let streams = self.topics.streams();
        for request in waiting.iter().chain(&streams) {
            refuse(act, *request, down);
        }
        for stream in streams {
            self.topics.remove(stream);
        }
    }

    fn word(&self) -> &'static str {
        let present = || self.members.values().filter(|member| !member.leaving);
        if self.serves_all() {
            let whole = present().all(|member| member.is_sound() || !self.is_dialled(member));
            return if whole { "up" } else { "degraded" };
        }
        if self.serves_some() {
            return "degraded";
        }
        let failed = self.last_failure.is_some() || present().any(|member| member.failures > 0 || member.is_sound());
        if failed || (self.members.is_empty() && self.unknown.is_some()) { "down" } else { "connecting" }
    }

    /// Why nobody serves.
    fn why_down(&self) -> Option<String> {
        if self.members.is_empty() {
            return self.unknown.clone();
        }
        let sound = self.members.values().filter(|member| member.is_sound()).count();
        let failure = self.last_failure.as_ref().map(|down| down.message.clone());
        if sound == 0 || self.serves_some() {
            return failure;
        }
        let wanted = match self.config.wanted {
            Wanted::Primary => "primary",
            Wanted::Replica => "replica",
            _ => "serving peer",
        };
        let failure = failure.map(|failure| format!(" ({failure})")).unwrap_or_default();
        Some(format!("no {wanted} among the {} peers that are connected{failure}", sound))
    }

    fn attempts(&self) -> u32 {
        self.members.values().map(|member| member.backoff.attempts()).max().unwrap_or(0)
    }
}

fn refuse(act: &mut dyn Act, request: RequestId, down: &Down) {
    act.fail(request, down.status, "REFUSED", &down.message);
}

fn overloaded(act: &mut dyn Act, request: RequestId, max: usize) {
    let message = format!("max_queue={max} requests wait for a conn already");
    act.fail(request, IOK_STATUS_OVERLOADED, "OVERLOADED", &message);
}

impl Router for Service {
    fn handle_peers(&mut self, now: Instant, peers: &[Peer], act: &mut dyn Act) {
        self.unknown = None;
        if self.config.topology {
            self.slots.seeds = peers.to_vec();
        }
        if !self.config.topology || self.slots.is_unknown() {
            self.set_members(now, peers, act);
        }
        self.reshape(now, act);
    }

    fn handle_unknown(&mut self, why: &str, act: &mut dyn Act) {
        if self.unknown.as_deref() != Some(why) {
            self.unknown = Some(why.into());
            self.version += 1;
        }
        if self.members.is_empty() {
            self.end_waiting("NONAME", why, act);
        }
    }

    #[inline]
    fn handle_request(&mut self, now: Instant, request: RequestId, need: Need, lease: u64, act: &mut dyn Act) {
        if lease != 0 {
            return self.leased_request(request, need.class, lease, act);
        }
        let Need { class, route, .. } = need;
        match class {
            Class::Shared | Class::Exchange => self.shared_request(now, request, route, act),
            Class::Waiting | Class::Flow => self.want(now, Want::waiting(request, route), act),
            Class::Takeover => self.want(now, Want::takeover(request, route), act),
            Class::Pinned(why) => act.fail(request, IOK_STATUS_BAD_REQUEST, "NEEDSLEASE", why),
            Class::Topics(topics) => self.add_stream(now, request, topics, route.slot, act),
        }
    }

    fn handle_again(&mut self, now: Instant, request: RequestId, need: Need, why: Again, act: &mut dyn Act) {
        if self.wants.iter().any(|want| want.request == request) {
            return;
        }
        let forgiven = self.forgiven.remove(&request);
        if why == Again::Idempotent && !forgiven && !self.budget.take() {
            let message = "the budget for retries (retry_budget=) is used up";
            return act.fail(request, IOK_STATUS_LOST, "LOST", message);
        }
        self.handle_request(now, request, need, 0, act);
    }

    fn handle_rejected(&mut self, now: Instant, returned: Returned<'_>, act: &mut dyn Act) -> bool {
        self.rejected(now, returned, act)
    }

    fn handle_lease(&mut self, now: Instant, request: RequestId, route: Route, act: &mut dyn Act) {
        self.want(now, Want::lease(request, route), act);
    }

    fn handle_release(&mut self, now: Instant, lease: u64, act: &mut dyn Act) -> bool {
        self.release(now, lease, act)
    }

    fn handle_silence(&mut self, now: Instant, why: &str, act: &mut dyn Act) {
        let held = self.leases.iter().filter_map(|(lease, held)| match held {
            Lease::Held(conn) => Some((*lease, *conn)),
            Lease::Lost(_) => None,
        });
        let mut held: Vec<(u64, ConnId)> = held.collect();
        held.sort_unstable();
        for (lease, conn) in held {
            self.leases.insert(lease, Lease::Lost(why.into()));
            self.conns.remove(&conn);
            act.drop_conn(conn, why);
        }
        self.pump_lanes(now, act);
    }

    fn handle_waiter(&mut self, request: RequestId, act: &mut dyn Act) {
        if self.serves_all() {
            act.finish(request, Body::None);
        } else if let Some(down) = self.refusal().cloned() {
            refuse(act, request, &down);
        } else {
            self.waiters.retain(|waiter| act.is_live(*waiter));
            self.waiters.push(request);
        }
    }

    fn handle_ended(&mut self, now: Instant, request: RequestId, conn: Option<ConnId>, act: &mut dyn Act) {
        if self.topics.contains(request) {
            return self.drop_stream(request, act);
        }
        self.forgiven.remove(&request);
        let Some(conn) = conn else {
            self.ended += 1;
            if self.ended > 64.max((self.queued + self.wants.len()) / 2) {
                self.forget_ended(act);
            }
            return;
        };
        self.lane_left(now, conn, request, act);
        if self.is_pooled(conn) {
            self.exchange_left(now, conn, act);
        }
        self.pump_waiting(now, act);
    }

    fn handle_ready(
        &mut self,
        now: Instant,
        conn: ConnId,
        topics_beside_requests: bool,
        description: &str,
        act: &mut dyn Act,
    ) {
        self.description = description.into();
        self.conn_ready(now, conn, topics_beside_requests, act);
    }

    fn handle_fact(&mut self, now: Instant, conn: ConnId, fact: &Fact<'_>, act: &mut dyn Act) {
        match fact {
            Fact::Role { role, follows } => self.learn_role(now, conn, *role, *follows, act),
            Fact::Reign(number) => self.learn_reign(conn, *number, act),
            Fact::Topology(shards) => self.learn_topology(now, conn, shards, act),
            Fact::Draining => self.peer_leaves(now, conn, act),
            Fact::Ready { .. } => {}
        }
    }

    fn handle_down(&mut self, now: Instant, conn: ConnId, down: &Down, act: &mut dyn Act) {
        self.conn_down(now, conn, down, act);
    }

    fn handle_progress(&mut self, now: Instant, conn: ConnId, inflight: usize, tenancy: Tenancy, act: &mut dyn Act) {
        let Some(held) = self.conns.get(&conn).copied() else { return };
        match held.part {
            Part::Shared | Part::Stale if self.config.exclusive => {
                self.pool_progress(now, conn, inflight, tenancy, act);
            }
            Part::Shared | Part::Stale => {
                self.learn_latency(now, conn, held.member, inflight, act);
                self.pump_member(now, held.member, act);
                self.pump_waiting(now, act);
            }
            Part::Draining(_) => {
                if inflight == 0 && !self.topics.uses(conn) {
                    self.drop_conn(conn, "it was drained", act);
                    if self.bury(act) {
                        self.reshape(now, act);
                    }
                    self.note_shape();
                }
                self.pump_waiting(now, act);
            }
            Part::Topics => {}
            Part::Lane(lane) => self.lane_progress(now, conn, lane, inflight, tenancy, act),
        }
    }

    fn handle_topic(&mut self, now: Instant, conn: ConnId, topic: &[u8], end: Option<(&str, &str)>, act: &mut dyn Act) {
        self.topic_moved(now, conn, topic, end, act);
    }

    fn listeners(&self, conn: ConnId, topic: &[u8]) -> &[RequestId] {
        self.topics.listeners(conn, topic)
    }

    fn owner(&self, conn: ConnId) -> Option<RequestId> {
        match self.conns.get(&conn)?.part {
            Part::Lane(Lane::TakenOver(stream)) => Some(stream),
            _ => None,
        }
    }

    #[inline]
    fn wants_progress(&self, conn: ConnId) -> bool {
        if self.fast == Some(conn) {
            return self.queued > 0;
        }
        match self.conns.get(&conn).map(|held| held.part) {
            Some(Part::Shared | Part::Stale) => self.config.exclusive || self.queued > 0 || self.config.adaptive,
            Some(Part::Draining(_) | Part::Lane(_)) => true,
            Some(Part::Topics) | None => false,
        }
    }

    fn handle_timeout(&mut self, now: Instant, act: &mut dyn Act) {
        self.throttled_until = self.throttled_until.filter(|until| *until > now);
        self.trim_lanes(now, act);
        self.trim_pools(now, act);
        self.shrink(now, act);
        self.end_draining(now, act);
        self.refresh_topology(now, act);
        self.retry_delayed(now, act);
        if self.readmit(now) {
            self.reshape(now, act);
        }
        self.pump_all(now, act);
        self.pump_waiting(now, act);
        self.dial_missing(now, act);
        self.ask_topics(now, act);
        self.pump_lanes(now, act);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let conns = self.conns.lanes().chain(self.conns.draining()).filter_map(|(_, held)| match held.part {
            Part::Lane(Lane::Idle { since }) => Some(since + self.config.lane_idle),
            Part::Draining(by) => Some(by),
            _ => None,
        });
        let members = self.members.values().flat_map(|member| member.timeouts().chain(self.trims_at(member)));
        let delayed = self.delayed.iter().map(|(at, _)| *at);
        let others = [self.throttled_until, self.slots.poll_timeout()];
        conns.chain(members).chain(delayed).chain(others.into_iter().flatten()).min()
    }

    fn state(&self, act: &dyn Act) -> State {
        let peers: Vec<PeerState> = self.members.values().map(|member| self.peer_state(member, act)).collect();
        State {
            word: self.word(),
            conns: self.conns.len(),
            queued: self.queued + self.wants.len(),
            leases: self.leases.len(),
            topics: self.topics.len(),
            attempts: self.attempts(),
            last_error: self.why_down(),
            description: self.description.clone(),
            peers,
        }
    }

    fn version(&self) -> u64 {
        self.version
    }

    fn why_unavailable(&self) -> Option<String> {
        if self.serves_some() {
            return None;
        }
        Some(match self.why_down() {
            Some(error) => format!("no connection in time: {error} ({} attempts)", self.attempts()),
            None => "no connection in time".into(),
        })
    }

    fn is_up(&self) -> bool {
        self.serves_all()
    }
}
