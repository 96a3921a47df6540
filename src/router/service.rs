//! The router of a service: one shared conn for ordinary requests, lanes for what waits or owns a conn.
//!
//! Lanes are pooled: a request that may wait in the server, a lease and a takeover each take an idle lane or have one
//! dialled. Topics ride on the shared conn where the protocol can carry pushes beside requests, else on one more conn.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::backoff::Backoff;
use super::topics::Topics;
use super::{Act, ConnId, Down, Router, Sent, State};
use crate::proto::{Body, Class, RequestId, Tenancy};
use crate::status::{IOK_STATUS_BAD_REQUEST, IOK_STATUS_LOST, IOK_STATUS_NO_LEASE, IOK_STATUS_OVERLOADED};

/// Limits and times of a service.
#[derive(Clone, Copy, Debug)]
pub struct ServiceConfig {
    /// Requests that wait for a conn, at most.
    pub queue_max: usize,
    /// Lanes beside the shared conn, at most.
    pub lanes_max: usize,
    /// How long an unused lane is kept.
    pub lane_idle: Duration,
    pub backoff_min: Duration,
    pub backoff_max: Duration,
    pub seed: u64,
}

/// What a lane is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lane {
    Dialling,
    Idle { since: Instant },
    Waiting(RequestId),
    Leased(u64),
    Resetting,
    TakenOver(RequestId),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Want {
    Waiting(RequestId),
    Lease(RequestId),
    Takeover(RequestId),
}

impl Want {
    fn request(self) -> RequestId {
        match self {
            Want::Waiting(id) | Want::Lease(id) | Want::Takeover(id) => id,
        }
    }
}

#[derive(Clone, Debug)]
enum Lease {
    Held(ConnId),
    Lost(String),
}

/// The conn that carries topics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TopicConn {
    None,
    Dialling(ConnId),
    Ready(ConnId),
}

pub struct Service {
    config: ServiceConfig,
    rng: fastrand::Rng,
    backoff: Backoff,
    shared: Option<ConnId>,
    shared_ready: bool,
    topics_beside_requests: bool,
    description: String,
    queue: VecDeque<RequestId>,
    lanes: HashMap<ConnId, Lane>,
    wants: VecDeque<Want>,
    /// Of `queue` and `wants`: those that have ended since they were last looked through, at most.
    ended: usize,
    leases: HashMap<u64, Lease>,
    next_lease: u64,
    topics: Topics,
    topic_conn: TopicConn,
    waiters: Vec<RequestId>,
    last_failure: Option<Down>,
}

impl Service {
    pub fn new(config: ServiceConfig) -> Self {
        Service {
            config,
            rng: fastrand::Rng::with_seed(config.seed),
            backoff: Backoff::new(config.backoff_min, config.backoff_max),
            shared: None,
            shared_ready: false,
            topics_beside_requests: false,
            description: String::new(),
            queue: VecDeque::new(),
            lanes: HashMap::new(),
            wants: VecDeque::new(),
            ended: 0,
            leases: HashMap::new(),
            next_lease: 1,
            topics: Topics::default(),
            topic_conn: TopicConn::None,
            waiters: Vec::new(),
            last_failure: None,
        }
    }

    /// The peer refuses us for good, as far as is known.
    fn refusal(&self) -> Option<&Down> {
        self.last_failure.as_ref().filter(|down| down.refused)
    }

    /// Dials what is missing, if it is time.
    fn dial_missing(&mut self, now: Instant, act: &mut dyn Act) {
        if !self.backoff.may_try(now) {
            return;
        }
        if self.shared.is_none() {
            self.shared = Some(act.dial());
        }
        if self.topic_conn == TopicConn::None
            && self.shared_ready
            && !self.topics_beside_requests
            && !self.topics.is_empty()
        {
            self.topic_conn = TopicConn::Dialling(act.dial());
        }
        let dialling = self.lanes.values().filter(|lane| matches!(lane, Lane::Dialling | Lane::Resetting)).count();
        let room = self.config.lanes_max.saturating_sub(self.lanes.len());
        for _ in 0..self.wants.len().saturating_sub(dialling).min(room) {
            self.lanes.insert(act.dial(), Lane::Dialling);
        }
    }

    /// Gives waiting requests to the shared conn while it takes them.
    fn pump_shared(&mut self, act: &mut dyn Act) {
        let Some(conn) = self.shared.filter(|_| self.shared_ready) else { return };
        while let Some(request) = self.queue.pop_front() {
            if act.is_live(request) && act.send(conn, request) == Sent::Later {
                self.queue.push_front(request);
                return;
            }
        }
    }

    /// Gives idle lanes to whoever wants one, then dials for the rest.
    fn pump_lanes(&mut self, now: Instant, act: &mut dyn Act) {
        while let Some(want) = self.wants.front().copied() {
            if !act.is_live(want.request()) {
                self.wants.pop_front();
                continue;
            }
            let idle = self.lanes.iter().filter_map(|(conn, lane)| match lane {
                Lane::Idle { since } => Some((*since, *conn)),
                _ => None,
            });
            // The lane used last: its peer is the likeliest to be alive, and the others may go.
            let Some((_, conn)) = idle.max_by_key(|(since, conn)| (*since, conn.0)) else { break };
            self.wants.pop_front();
            self.assign(now, conn, want, act);
        }
        self.dial_missing(now, act);
    }

    fn assign(&mut self, now: Instant, conn: ConnId, want: Want, act: &mut dyn Act) {
        match want {
            Want::Lease(request) => {
                let lease = self.next_lease;
                self.next_lease += 1;
                self.leases.insert(lease, Lease::Held(conn));
                self.lanes.insert(conn, Lane::Leased(lease));
                act.lease(request, lease);
            }
            Want::Waiting(request) => {
                self.lanes.insert(conn, Lane::Waiting(request));
                self.send_on_lane(now, conn, request, act);
            }
            Want::Takeover(request) => {
                self.lanes.insert(conn, Lane::TakenOver(request));
                self.send_on_lane(now, conn, request, act);
            }
        }
    }

    fn send_on_lane(&mut self, now: Instant, conn: ConnId, request: RequestId, act: &mut dyn Act) {
        let sent = act.send(conn, request);
        if !act.is_live(request) {
            self.lanes.insert(conn, Lane::Idle { since: now });
        } else if sent == Sent::Later {
            // A lane that takes nothing is none.
            let lane = self.lanes.remove(&conn);
            act.drop_conn(conn, "the lane takes no requests");
            self.wants.push_front(match lane {
                Some(Lane::TakenOver(_)) => Want::Takeover(request),
                _ => Want::Waiting(request),
            });
        }
    }

    fn want(&mut self, now: Instant, want: Want, act: &mut dyn Act) {
        if let Some(down) = self.refusal().cloned() {
            return refuse(act, want.request(), &down);
        }
        if self.wants.len() >= self.config.queue_max {
            self.forget_ended(act);
        }
        if self.wants.len() >= self.config.queue_max {
            return overloaded(act, want.request(), self.config.queue_max);
        }
        self.wants.push_back(want);
        self.pump_lanes(now, act);
    }

    fn shared_request(&mut self, request: RequestId, act: &mut dyn Act) {
        if let Some(conn) = self.shared.filter(|_| self.shared_ready && self.queue.is_empty())
            && act.send(conn, request) == Sent::Gone
        {
            return;
        }
        if let Some(down) = self.refusal().cloned() {
            return refuse(act, request, &down);
        }
        if self.queue.len() >= self.config.queue_max {
            self.forget_ended(act);
            if self.queue.len() >= self.config.queue_max {
                return overloaded(act, request, self.config.queue_max);
            }
        }
        self.queue.push_back(request);
    }

    /// Looks through who waits, if anyone has ended: the cost of that is shared by as many as have ended.
    fn forget_ended(&mut self, act: &mut dyn Act) {
        if std::mem::take(&mut self.ended) > 0 {
            self.queue.retain(|request| act.is_live(*request));
            self.wants.retain(|want| act.is_live(want.request()));
        }
    }

    fn leased_request(&mut self, request: RequestId, class: Class, lease: u64, act: &mut dyn Act) {
        if matches!(class, Class::Topics(_) | Class::Takeover) {
            let message = "streams do not travel on leases; ask the endpoint itself";
            return act.fail(request, IOK_STATUS_BAD_REQUEST, "BADREQUEST", message);
        }
        match self.leases.get(&lease) {
            Some(Lease::Held(conn)) => {
                if act.send(*conn, request) == Sent::Later {
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

    /// Where topics travel at present.
    fn topics_conn(&self) -> Option<ConnId> {
        match self.topic_conn {
            TopicConn::Ready(conn) => Some(conn),
            _ => self.shared.filter(|_| self.shared_ready && self.topics_beside_requests),
        }
    }

    fn ask_topics(&mut self, act: &mut dyn Act) {
        let Some(conn) = self.topics_conn() else { return };
        for topic in self.topics.ask() {
            act.subscribe(conn, &topic);
        }
        self.accept_streams(act);
    }

    fn accept_streams(&mut self, act: &mut dyn Act) {
        for stream in self.topics.to_accept() {
            act.accept(stream);
        }
    }

    fn drop_stream(&mut self, stream: RequestId, act: &mut dyn Act) {
        for topic in self.topics.remove(stream) {
            if let Some(conn) = self.topics_conn() {
                act.unsubscribe(conn, &topic);
            }
        }
    }

    /// Tells everyone who waits that waiting is useless.
    fn flush_refused(&mut self, down: &Down, act: &mut dyn Act) {
        let streams = self.topics.streams();
        let queued = self.queue.drain(..).chain(self.wants.drain(..).map(Want::request)).chain(self.waiters.drain(..));
        for request in queued.chain(streams.iter().copied()) {
            refuse(act, request, down);
        }
        for stream in streams {
            self.topics.remove(stream);
        }
    }

    /// A lane is gone: its lease is lost, its stream goes on with another.
    fn lane_down(&mut self, conn: ConnId, down: &Down, act: &dyn Act) {
        match self.lanes.remove(&conn) {
            Some(Lane::Leased(lease)) => {
                self.leases.insert(lease, Lease::Lost(down.message.clone()));
            }
            Some(Lane::TakenOver(stream)) if act.is_live(stream) => self.wants.push_back(Want::Takeover(stream)),
            _ => {}
        }
    }

    /// Closes lanes that nobody has used for long.
    fn trim(&mut self, now: Instant, act: &mut dyn Act) {
        let idle_max = self.config.lane_idle;
        let old: Vec<ConnId> = self
            .lanes
            .iter()
            .filter(|(_, lane)| matches!(lane, Lane::Idle { since } if now >= *since + idle_max))
            .map(|(conn, _)| *conn)
            .collect();
        for conn in old {
            self.lanes.remove(&conn);
            act.drop_conn(conn, "the lane was idle");
        }
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
    fn handle_open(&mut self, now: Instant, act: &mut dyn Act) {
        self.dial_missing(now, act);
    }

    fn handle_request(&mut self, now: Instant, request: RequestId, class: Class, lease: u64, act: &mut dyn Act) {
        if lease != 0 {
            return self.leased_request(request, class, lease, act);
        }
        match class {
            Class::Shared => self.shared_request(request, act),
            Class::Waiting => self.want(now, Want::Waiting(request), act),
            Class::Takeover => self.want(now, Want::Takeover(request), act),
            Class::Pinned(why) => act.fail(request, IOK_STATUS_BAD_REQUEST, "NEEDSLEASE", why),
            Class::Topics(topics) => {
                if let Some(down) = self.refusal().cloned() {
                    return refuse(act, request, &down);
                }
                self.topics.add(request, topics);
                self.ask_topics(act);
                self.dial_missing(now, act);
            }
        }
    }

    fn handle_lease(&mut self, now: Instant, request: RequestId, act: &mut dyn Act) {
        self.want(now, Want::Lease(request), act);
    }

    fn handle_release(&mut self, now: Instant, lease: u64, act: &mut dyn Act) -> bool {
        let Some(lease) = self.leases.remove(&lease) else { return false };
        let Lease::Held(conn) = lease else { return true };
        match act.tenancy(conn) {
            (0, Tenancy::Clean) => {
                self.lanes.insert(conn, Lane::Idle { since: now });
                self.pump_lanes(now, act);
            }
            (0, Tenancy::Dirty) => {
                self.lanes.insert(conn, Lane::Resetting);
                act.reset(conn);
            }
            _ => {
                self.lanes.remove(&conn);
                act.drop_conn(conn, "its lease was given back with state that cannot be taken off");
                self.pump_lanes(now, act);
            }
        }
        true
    }

    fn handle_waiter(&mut self, request: RequestId, act: &mut dyn Act) {
        if self.shared_ready {
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
        let Some(conn) = conn else {
            self.ended += 1;
            if self.ended > 64.max((self.queue.len() + self.wants.len()) / 2) {
                self.forget_ended(act);
            }
            return;
        };
        let mine = [Lane::Waiting(request), Lane::TakenOver(request)];
        if self.lanes.get(&conn).is_some_and(|lane| mine.contains(lane)) {
            self.lanes.remove(&conn);
            act.drop_conn(conn, "the request that waited on this lane has ended");
            self.pump_lanes(now, act);
        }
    }

    fn handle_ready(
        &mut self,
        now: Instant,
        conn: ConnId,
        topics_beside_requests: bool,
        description: &str,
        act: &mut dyn Act,
    ) {
        self.backoff.succeeded();
        self.last_failure = None;
        if self.shared == Some(conn) {
            self.shared_ready = true;
            self.topics_beside_requests = topics_beside_requests;
            self.description = description.into();
            for waiter in std::mem::take(&mut self.waiters) {
                act.finish(waiter, Body::None);
            }
            self.pump_shared(act);
        } else if self.topic_conn == TopicConn::Dialling(conn) {
            self.topic_conn = TopicConn::Ready(conn);
        } else if self.lanes.contains_key(&conn) {
            self.lanes.insert(conn, Lane::Idle { since: now });
        }
        self.ask_topics(act);
        self.pump_lanes(now, act);
    }

    fn handle_down(&mut self, now: Instant, conn: ConnId, down: &Down, act: &mut dyn Act) {
        let carried_topics = self.topics_conn() == Some(conn);
        if self.shared == Some(conn) {
            (self.shared, self.shared_ready) = (None, false);
        }
        if matches!(self.topic_conn, TopicConn::Ready(c) | TopicConn::Dialling(c) if c == conn) {
            self.topic_conn = TopicConn::None;
        }
        if carried_topics {
            self.topics.forget_conn();
        }
        self.lane_down(conn, down, act);
        self.backoff.failed(now, &mut self.rng);
        self.last_failure = Some(down.clone());
        if down.refused {
            self.flush_refused(down, act);
        }
        self.dial_missing(now, act);
    }

    fn handle_progress(&mut self, now: Instant, conn: ConnId, inflight: usize, tenancy: Tenancy, act: &mut dyn Act) {
        if self.shared == Some(conn) {
            return self.pump_shared(act);
        }
        let done = match self.lanes.get(&conn) {
            Some(Lane::Waiting(request)) => !act.is_live(*request) && inflight == 0,
            Some(Lane::Resetting) => tenancy == Tenancy::Clean,
            _ => false,
        };
        if !done {
            return;
        }
        if tenancy == Tenancy::Clean {
            self.lanes.insert(conn, Lane::Idle { since: now });
        } else {
            self.lanes.remove(&conn);
            act.drop_conn(conn, "its request left state that cannot be taken off");
        }
        self.pump_lanes(now, act);
    }

    fn handle_topic(&mut self, conn: ConnId, topic: &[u8], end: Option<(&str, &str)>, act: &mut dyn Act) {
        if self.topics_conn() != Some(conn) {
            return;
        }
        let Some((code, message)) = end else {
            self.topics.flows(topic);
            return self.accept_streams(act);
        };
        for stream in self.topics.listeners(topic).to_vec() {
            self.drop_stream(stream, act);
            act.fail(stream, crate::status::IOK_STATUS_REMOTE, code, message);
        }
    }

    fn listeners(&self, topic: &[u8]) -> &[RequestId] {
        self.topics.listeners(topic)
    }

    fn owner(&self, conn: ConnId) -> Option<RequestId> {
        match self.lanes.get(&conn) {
            Some(Lane::TakenOver(stream)) => Some(*stream),
            _ => None,
        }
    }

    #[inline]
    fn wants_progress(&self, conn: ConnId) -> bool {
        if self.shared == Some(conn) { !self.queue.is_empty() } else { self.lanes.contains_key(&conn) }
    }

    fn handle_timeout(&mut self, now: Instant, act: &mut dyn Act) {
        self.trim(now, act);
        self.dial_missing(now, act);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let trim = self.lanes.values().filter_map(|lane| match lane {
            Lane::Idle { since } => Some(*since + self.config.lane_idle),
            _ => None,
        });
        trim.chain(self.backoff.until()).min()
    }

    fn state(&self) -> State {
        let word = match (self.shared_ready, &self.last_failure) {
            (true, _) => "up",
            (false, None) => "connecting",
            (false, Some(_)) => "down",
        };
        State {
            word,
            conns: self.lanes.len()
                + usize::from(self.shared.is_some())
                + usize::from(self.topic_conn != TopicConn::None),
            queued: self.queue.len() + self.wants.len(),
            leases: self.leases.len(),
            topics: self.topics.len(),
            attempts: self.backoff.attempts(),
            last_error: self.last_failure.as_ref().map(|down| down.message.clone()),
            description: self.description.clone(),
        }
    }

    fn close(&mut self) -> Vec<ConnId> {
        let topic_conn = match self.topic_conn {
            TopicConn::Ready(conn) | TopicConn::Dialling(conn) => Some(conn),
            TopicConn::None => None,
        };
        self.lanes.keys().copied().chain(self.shared).chain(topic_conn).collect()
    }
}

/// The status that an expired request has, and why, if it never left the queue.
pub fn unavailable(state: &State) -> Option<String> {
    match state.word {
        "up" => None,
        _ => Some(match &state.last_error {
            Some(error) => format!("no connection in time: {error} ({} attempts)", state.attempts),
            None => "no connection in time".into(),
        }),
    }
}
