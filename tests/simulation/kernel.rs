//! The life of a request, as the I/O thread leads it.

use iokernel::discovery::News;
use iokernel::proto::{Command, Fact, Need, Rejection, RequestId, Shard};
use iokernel::ring::layout::{IOK_FATE_MAYBE_EXECUTED, IOK_FATE_NOT_SENT, IOK_FATE_REPLIED};
use iokernel::router::{Again, ConnId, Down, Returned, Router};
use iokernel::status::*;

use crate::acts::Acts;
use crate::io::Conn;
use crate::names::OwnedNews;
use crate::world::{Event, MS, World};

/// How often a request that was written, and may be repeated, is sent again; and one of which nothing was written.
const REPEATS_MAX: u8 = 3;
const RETRIES_MAX: u8 = 16;
pub const REJECTIONS_MAX: u8 = 16;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum What {
    Request,
    Stream,
    Lease,
    UntilUp,
}

/// What a reply must contain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expect {
    /// The number of the request.
    Mark,
    Anything,
}

/// How a request ended.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    pub status: Status,
    pub fate: u8,
    pub at_ns: u64,
}

/// One request, kept after its end.
pub struct Req {
    pub what: What,
    pub body: Vec<u8>,
    pub words: String,
    pub expect: Expect,
    /// It is an ordinary one: it counts as in flight.
    pub shared: bool,
    pub idempotent: bool,
    pub route: Option<u64>,
    pub lease: u64,
    pub due_ns: Option<u64>,
    pub has_payload: bool,
    pub conn: Option<u32>,
    pub retries: u8,
    pub rejections: u8,
    pub counted: bool,
    pub wire_start: u64,
    pub sent_ns: u64,
    pub doubtful: bool,
    pub ended: Option<Ended>,
    pub executions: u32,
    pub sends: u32,
    pub accepted: bool,
    pub pushes: Vec<Vec<u8>>,
}

/// News for a router that was at work when it happened.
pub enum Unheard {
    Down { conn: u32, down: Down },
    SendAgain(RequestId, Again),
    Note { conn: u32, serial: u64, note: Note },
}

/// What the router has to hear once the protocol's call is over.
pub enum Note {
    Ready { topics_beside_requests: bool, description: String },
    Draining,
    Topic { topic: Vec<u8>, end: Option<(String, String)> },
    Role { role: iokernel::peer::Role, follows: Option<String> },
    Topology(Vec<Shard>),
    Rejected { id: RequestId, why: Why },
}

#[derive(Debug)]
pub enum Why {
    NotPrimary,
    NotServing,
    TryAgain,
    Moved { slot: u16, to: String, once: bool },
}

impl Why {
    pub fn of(rejection: Rejection<'_>) -> Self {
        match rejection {
            Rejection::NotPrimary => Why::NotPrimary,
            Rejection::NotServing => Why::NotServing,
            Rejection::TryAgain => Why::TryAgain,
            Rejection::Moved { slot, to, once } => Why::Moved { slot, to: to.into(), once },
        }
    }

    fn rejection(&self) -> Rejection<'_> {
        match self {
            Why::NotPrimary => Rejection::NotPrimary,
            Why::NotServing => Rejection::NotServing,
            Why::TryAgain => Rejection::TryAgain,
            Why::Moved { slot, to, once } => Rejection::Moved { slot: *slot, to, once: *once },
        }
    }
}

impl World {
    /// Lets the router act.
    pub fn with_router<R>(
        &mut self,
        fresh: Option<u64>,
        body: impl FnOnce(&mut dyn Router, std::time::Instant, &mut Acts<'_>) -> R,
    ) -> R {
        let now = self.now();
        let Some(mut router) = self.router.take() else { self.fail("the router is at work already") };
        self.touched = true;
        let result = body(&mut *router, now, &mut Acts { world: self, fresh });
        self.router = Some(router);
        if !self.unheard.is_empty() {
            self.hear();
        }
        result
    }

    /// A request begins.
    pub fn begin(&mut self, req: Req) -> u64 {
        self.requests_made += 1;
        let id = self.requests_made;
        if let Some(due) = req.due_ns {
            self.at(due, Event::Deadline(id));
        }
        self.requests.insert(id, req);
        self.live_ids.insert(id);
        id
    }

    pub fn live(&self, id: u64) -> Option<&Req> {
        self.requests.get(&id).filter(|req| req.ended.is_none())
    }

    pub fn live_mut(&mut self, id: u64) -> Option<&mut Req> {
        self.requests.get_mut(&id).filter(|req| req.ended.is_none())
    }

    pub fn count(&mut self, id: u64, counted: bool) {
        let Some(req) = self.requests.get_mut(&id) else { return };
        if req.counted != counted {
            req.counted = counted;
            self.inflight = if counted { self.inflight + 1 } else { self.inflight - 1 };
        }
    }

    /// Ends a request with its one final completion.
    pub fn end(&mut self, id: u64, status: Status, fate: u8, body: &[u8]) {
        let now_ns = self.now_ns;
        self.count(id, false);
        let Some(req) = self.live_mut(id) else { return };
        let fate = if req.doubtful && fate == IOK_FATE_NOT_SENT { IOK_FATE_MAYBE_EXECUTED } else { fate };
        req.ended = Some(Ended { status, fate, at_ns: now_ns });
        if self.prints() {
            self.note(&format!("  end {id} {status} fate {fate} {:?}", String::from_utf8_lossy(body)));
        }
        self.check_end(id, body);
    }

    pub fn need_of(&self, id: u64) -> Option<Need> {
        let req = self.live(id)?;
        if !req.has_payload {
            return None;
        }
        let mut need = self.driver.classify(&req.body, self.profile_hashes()).ok()?;
        need.route.hash = req.route.or(need.route.hash);
        Some(need)
    }

    pub fn profile_hashes(&self) -> bool {
        self.options.service.balance == iokernel::router::balance::Balance::Hash
    }

    /// Gives a request that just came to the router.
    pub fn route(&mut self, id: u64, mut need: Need) {
        let (lease, route) = self.requests.get(&id).map_or((0, None), |req| (req.lease, req.route));
        need.route.hash = route.or(need.route.hash);
        self.with_router(Some(id), |router, now, act| router.handle_request(now, RequestId(id), need, lease, act));
        if let Some(req) = self.live_mut(id)
            && req.conn.is_none()
        {
            req.has_payload = true;
        }
    }

    pub fn deadline(&mut self, id: u64) {
        if self.live(id).is_some() {
            self.end_early(id, IOK_STATUS_TIMEOUT);
        }
    }

    /// Ends a request before its reply: cancelled, or its time is over.
    pub fn end_early(&mut self, id: u64, status: Status) {
        let Some(req) = self.live(id) else { return };
        let conn = req.conn;
        let fate = if conn.is_some() { IOK_FATE_MAYBE_EXECUTED } else { IOK_FATE_NOT_SENT };
        self.end(id, status, fate, b"");
        if let Some(key) = conn.filter(|key| self.conns.contains_key(key)) {
            self.drive(key, |conn, now, out| {
                let _ = conn.proto.command(now, Command::Cancel { id: RequestId(id) }, out);
                Ok(())
            });
        }
        self.with_router(None, |router, now, act| {
            router.handle_ended(now, RequestId(id), conn.map(ConnId), act);
        });
    }

    /// What events asked for beyond completions.
    pub fn after_protocol(&mut self, key: u32, serial: u64, notes: Vec<Note>) {
        for note in notes {
            if self.conn(key, serial).is_none() {
                // What the conn has told of a request outlives it.
                if let Note::Rejected { id, why } = note {
                    self.rejected(None, id.0, &why);
                }
                continue;
            }
            if self.router.is_none() {
                self.unheard.push(Unheard::Note { conn: key, serial, note });
                continue;
            }
            self.take_note(key, note);
        }
    }

    fn take_note(&mut self, key: u32, note: Note) {
        let conn = ConnId(key);
        match note {
            Note::Ready { topics_beside_requests, description } => {
                if let Some(conn) = self.conns.get_mut(&key) {
                    (conn.ready, conn.connect_by) = (true, None);
                }
                self.with_router(None, |router, now, act| {
                    router.handle_ready(now, conn, topics_beside_requests, &description, act);
                });
            }
            Note::Draining => self.tell_fact(key, &Fact::Draining),
            Note::Topic { topic, end } => self.with_router(None, |router, now, act| {
                let end = end.as_ref().map(|(code, message)| (code.as_str(), message.as_str()));
                router.handle_topic(now, conn, &topic, end, act);
            }),
            Note::Role { role, follows } => {
                self.learnt_role(key, role);
                self.tell_fact(key, &Fact::Role { role, follows: follows.as_deref() });
            }
            Note::Topology(shards) => self.tell_fact(key, &Fact::Topology(&shards)),
            Note::Rejected { id, why } => self.rejected(Some(key), id.0, &why),
        }
    }

    fn tell_fact(&mut self, key: u32, fact: &Fact<'_>) {
        self.with_router(None, |router, now, act| router.handle_fact(now, ConnId(key), fact, act));
    }

    fn rejected(&mut self, key: Option<u32>, id: u64, why: &Why) {
        let acting = self.router.is_none();
        let Some(req) = self.live_mut(id) else { return };
        if acting {
            // The request goes on as one that lost its conn.
            (req.conn, req.sent_ns) = (None, 0);
            self.count(id, false);
            return self.unheard.push(Unheard::SendAgain(RequestId(id), Again::NotSent));
        }
        req.rejections += 1;
        (req.conn, req.sent_ns) = (None, 0);
        self.count(id, false);
        if let (Why::NotPrimary, Some(key)) = (why, key) {
            self.learnt_role(key, iokernel::peer::Role::Replica);
        }
        let taken = self.need_of(id).map(|need| {
            self.with_router(None, |router, now, act| {
                let conn = key.map(ConnId);
                let returned = Returned { conn, request: RequestId(id), need, why: why.rejection() };
                router.handle_rejected(now, returned, act)
            })
        });
        if taken != Some(true) {
            self.end(id, IOK_STATUS_REMOTE, IOK_FATE_REPLIED, format!("{why:?}").as_bytes());
        }
    }

    /// Tells the router that a conn has heard from its peer, if it wants to know.
    pub fn progress(&mut self, key: u32) {
        let Some(conn) = self.conns.get(&key).filter(|conn| conn.ready) else { return };
        let (inflight, tenancy) = (conn.proto.inflight(), conn.proto.tenancy());
        if self.router.as_ref().is_some_and(|router| router.wants_progress(ConnId(key))) {
            self.with_router(None, |router, now, act| {
                router.handle_progress(now, ConnId(key), inflight, tenancy, act);
            });
        }
    }

    /// A conn is of no use any more: its requests end, its router hears of it.
    pub fn conn_failed(&mut self, key: u32, status: Status, refused: bool, message: &str) {
        let Some(conn) = self.conns.get(&key) else { return };
        let (was_ready, under_way) = (conn.ready, conn.proto.inflight());
        let again = self.remove_conn(key, status);
        let down = Down { was_ready, under_way, refused, status, message: message.into() };
        self.unheard.push(Unheard::Down { conn: key, down });
        self.unheard.extend(again.into_iter().map(|(id, why)| Unheard::SendAgain(id, why)));
        self.hear();
    }

    pub fn hear(&mut self) {
        for news in std::mem::take(&mut self.unheard) {
            if self.router.is_none() {
                self.unheard.push(news);
                continue;
            }
            match news {
                Unheard::Down { conn, down } => {
                    self.with_router(None, |router, now, act| router.handle_down(now, ConnId(conn), &down, act));
                }
                Unheard::SendAgain(id, why) => self.send_again(id, why),
                Unheard::Note { conn, serial, note } => self.after_protocol(conn, serial, vec![note]),
            }
        }
    }

    fn send_again(&mut self, id: RequestId, why: Again) {
        if let Some(need) = self.need_of(id.0) {
            self.with_router(None, |router, now, act| router.handle_again(now, id, need, why, act));
        }
    }

    /// Closes a conn and ends its requests, except those that may be sent again.
    pub fn remove_conn(&mut self, key: u32, status: Status) -> Vec<(RequestId, Again)> {
        let Some(mut conn) = self.conns.remove(&key) else { return Vec::new() };
        self.free_keys.push(key);
        self.hang_up(&mut conn);
        for (_, id) in &conn.unsent {
            if let Some(req) = self.live_mut(*id) {
                req.has_payload = true;
            }
        }
        let mut named = Vec::new();
        conn.proto.abandon(&mut |id| named.push(id.0));
        let mut again = Vec::new();
        for id in named {
            self.abandoned(id, &conn, status, &mut again);
        }
        again
    }

    fn abandoned(&mut self, id: u64, conn: &Conn, status: Status, again: &mut Vec<(RequestId, Again)>) {
        let Some(req) = self.live_mut(id) else { return };
        let touched = conn.written > req.wire_start;
        let may_repeat = if touched { req.idempotent && req.retries < REPEATS_MAX } else { req.retries < RETRIES_MAX };
        if may_repeat && req.has_payload && req.lease == 0 {
            req.retries += 1;
            req.doubtful |= touched;
            (req.conn, req.sent_ns) = (None, 0);
            self.count(id, false);
            return again.push((RequestId(id), if touched { Again::Idempotent } else { Again::NotSent }));
        }
        let fate = if touched { IOK_FATE_MAYBE_EXECUTED } else { IOK_FATE_NOT_SENT };
        let status = if status == IOK_STATUS_PROTOCOL { status } else { IOK_STATUS_LOST };
        self.end(id, status, fate, b"lost");
    }

    /// Gives a lease back; what is still under way on it ends as cancelled.
    pub fn release_lease(&mut self, lease: u64) -> bool {
        let mine: Vec<u64> = self.live_ids.iter().copied().filter(|id| self.requests[id].lease == lease).collect();
        for id in mine {
            self.end_early(id, IOK_STATUS_CANCELLED);
        }
        self.with_router(None, |router, now, act| router.handle_release(now, lease, act))
    }

    /// The end of a turn of the loop: writes, and sets timers.
    pub fn turn(&mut self) {
        self.flush_all();
        while std::mem::take(&mut self.touched) {
            if std::mem::take(&mut self.doubted) {
                self.tell_source(OwnedNews::Doubt);
            }
            let next = self.router.as_ref().and_then(|router| router.poll_timeout());
            if let Some(next) = next {
                let at = self.tick_of(next).max(self.now_ns);
                if self.router_timer.is_none_or(|set| at < set) {
                    self.router_timer = Some(at);
                    self.at(at, Event::RouterTimer(at));
                }
            }
            self.flush_all();
        }
    }

    pub fn router_timer_came(&mut self, at: u64) {
        if self.router_timer != Some(at) {
            return;
        }
        self.router_timer = None;
        self.with_router(None, |router, now, act| router.handle_timeout(now, act));
        self.check_timeout();
    }

    pub fn source_timer_came(&mut self, at: u64) {
        if self.source_timer == Some(at) {
            self.source_timer = None;
            self.tell_source(OwnedNews::Time);
        }
    }

    pub fn rearm_source(&mut self) {
        let Some(next) = self.source.as_ref().and_then(|source| source.poll_timeout()) else { return };
        let at = self.tick_of(next).max(self.now_ns);
        if self.source_timer != Some(at) {
            self.source_timer = Some(at);
            self.at(at, Event::SourceTimer(at));
        }
    }

    pub fn timeout_ms(&self, given: u64) -> u64 {
        self.now_ns.div_ceil(MS) * MS + given.max(1) * MS
    }

    pub fn open_source(&mut self) {
        self.with_source(|source, now, asks| source.handle(now, News::Open, asks));
    }
}
