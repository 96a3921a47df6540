//! The I/O thread's world: endpoints and conns, and what happens to a conn from dialling to its end.

use std::collections::VecDeque;
use std::time::Instant;

use mio::{Poll, Registry, Token};
use slab::Slab;

use super::conn::{Conn, Link, OUT_BYTES_SOFT};
use super::core::{Core, Ending, Target};
use super::dial::{DialOptions, DialState, Dialer, Stream};
use super::endpoint::Endpoint;
use super::line::Line;
use super::observing::Observing;
use super::observing::own::Own;
use super::request::NO_CONN;
use super::silence::Silence;
use super::sink::{Note, Sink};
use super::sources::Sources;
use super::wheel::TimerKey;
use crate::discovery::dns::{LookupId, Resolver};
use crate::peer::{Peer, Place};
use crate::proto::{Fact, FaultKind, Out, RequestId, Transport};
use crate::ring::layout::*;
use crate::router::{Again, ConnId, Down};
use crate::status::*;

/// Which kind of thing an event is for; the rest of the token is its key.
pub const CONN_TOKENS: usize = 1 << 32;
pub const LISTENER_TOKENS: usize = 2 << 32;
pub const DNS_TOKENS: usize = 3 << 32;
/// The first of the kinds of [`Part`](super::observing::Part)s.
pub const PART_TOKENS: usize = 4;
pub const BELL_TOKEN: Token = Token(0);

/// One read of the socket, shared by all conns that hold no unfinished frame.
const SCRATCH_BYTES: usize = 256 << 10;
/// Everything the I/O thread owns.
pub struct Io {
    pub poll: Poll,
    pub registry: Registry,
    pub core: Core,
    pub endpoints: Slab<Endpoint>,
    pub conns: Slab<Conn>,
    pub resolver: Resolver,
    /// Conns with bytes to write.
    pub to_flush: Vec<u32>,
    /// Conns that may have more to read.
    pub to_read: Vec<u32>,
    /// Conns whose handshakes of TLS have something to do.
    pub handshakes: VecDeque<u32>,
    /// Requests that were given a conn, and for which more was sent before.
    pub to_send: Vec<RequestId>,
    /// Listeners that leave.
    pub leavers: Vec<u32>,
    /// Endpoints whose router may have a new timeout.
    pub touched: Vec<u32>,
    pub generation: u32,
    pub conn_numbers: u32,
    pub(super) scratch: Box<[u8]>,
    /// Leases and the channels that hold them.
    pub leases: Vec<(u32, u64, u32)>,
    /// What a router could not hear because it was acting.
    pub unheard: Vec<Unheard>,
    /// What sources of peers have asked.
    pub sources: Sources,
    /// Whether the program lives.
    pub silence: Silence,
    /// Streams of the kernel's own state, and who waits for it to be ready.
    pub kernel_watchers: Vec<RequestId>,
    pub readiness_waiters: Vec<RequestId>,
    /// What the kernel shows of itself and its program.
    pub observing: Observing,
}

/// News for a router that was at work when it happened.
pub enum Unheard {
    Down { endpoint: u32, conn: u32, down: Down },
    SendAgain(RequestId, Again),
    Note { conn: u32, number: u32, note: Note },
}

impl Io {
    pub fn new(poll: Poll, resolver: Resolver, observing: Observing, own: Own) -> std::io::Result<Self> {
        Ok(Io {
            registry: poll.registry().try_clone()?,
            poll,
            core: Core::new(own),
            endpoints: Slab::new(),
            conns: Slab::new(),
            resolver,
            to_flush: Vec::new(),
            to_read: Vec::new(),
            handshakes: VecDeque::new(),
            to_send: Vec::new(),
            leavers: Vec::new(),
            touched: Vec::new(),
            generation: fastrand::u32(0..0x7fff),
            conn_numbers: 0,
            scratch: vec![0; SCRATCH_BYTES].into(),
            leases: Vec::new(),
            unheard: Vec::new(),
            sources: Sources::default(),
            silence: Silence::default(),
            kernel_watchers: Vec::new(),
            readiness_waiters: Vec::new(),
            observing,
        })
    }

    /// What was read to may have gone with who had it.
    pub(super) fn renew_scratch(&mut self) {
        if self.scratch.is_empty() {
            self.scratch = vec![0; SCRATCH_BYTES].into();
        }
    }

    pub fn token(key: u32) -> Token {
        Token(CONN_TOKENS + key as usize)
    }

    /// A new conn of a service begins.
    pub fn dial(&mut self, endpoint: u32, peer: &Peer) -> u32 {
        let now = self.core.now();
        self.conn_numbers += 1;
        let of = &self.endpoints[endpoint as usize];
        let proto = of.driver.client();
        let mut conn = Conn::new(self.conn_numbers, endpoint, false, Link::Resolving, proto);
        conn.connect_by = Some(now + of.options.connect_timeout);
        conn.peer_name = peer.name.clone();
        conn.server_name = of.tls.as_ref().and_then(|tls| tls.name_of(peer));
        conn.meter = Some(self.core.own.peer(endpoint, &peer.name));
        self.dial_conn(conn, peer)
    }

    pub(super) fn dial_conn(&mut self, conn: Conn, peer: &Peer) -> u32 {
        let now = self.core.now();
        let key = self.insert_conn(conn);
        match (&peer.places[..], peer.host()) {
            _ if self.dial_proxy(key, peer) => {}
            ([], Some((host, _))) => self.resolver.lookup(now, LookupId(u64::from(key)), host),
            (places, _) => self.start_dialling(key, places.to_vec()),
        }
        self.rearm(key);
        key
    }

    /// A key for a conn that nobody has yet to hear of under the same key.
    fn insert_conn(&mut self, conn: Conn) -> u32 {
        let mut passed_over = Vec::new();
        while self.is_unheard(self.conns.vacant_key() as u32) {
            let proto = self.endpoints[conn.endpoint as usize].driver.client();
            passed_over.push(self.conns.insert(Conn::new(0, conn.endpoint, false, Link::Resolving, proto)));
        }
        let key = self.conns.insert(conn) as u32;
        for other in passed_over {
            self.conns.remove(other);
        }
        key
    }

    fn is_unheard(&self, key: u32) -> bool {
        self.unheard.iter().any(|news| match news {
            Unheard::Down { conn, .. } | Unheard::Note { conn, .. } => *conn == key,
            Unheard::SendAgain(..) => false,
        })
    }

    /// The name of a conn's peer has come to addresses, or not.
    pub fn resolved(&mut self, key: u32, outcome: Result<Vec<std::net::IpAddr>, String>) {
        let Some(conn) = self.conns.get(key as usize) else { return };
        if !matches!(conn.link, Link::Resolving) {
            return;
        }
        let port = conn.peer_name.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).unwrap_or(0);
        let through = conn.tunnel.is_some();
        match outcome {
            Ok(ips) => {
                let port = if through { self.resolved_for_proxy(key, &ips) } else { Some(port) };
                let Some(port) = port else { return };
                let places = ips.into_iter().map(|ip| Place::Tcp((ip, port).into())).collect();
                self.start_dialling(key, places);
                self.advance_dial(key);
            }
            Err(message) => {
                let message = self.through_proxy(key, message);
                self.conn_failed(key, IOK_STATUS_UNAVAILABLE, false, message);
            }
        }
    }

    /// The first look at the sockets comes with the conn's timer, so that a router never hears of a conn's end before it
    /// has its name.
    pub(super) fn start_dialling(&mut self, key: u32, places: Vec<Place>) {
        let now = self.core.now();
        let conn = &mut self.conns[key as usize];
        let options = &self.endpoints[conn.endpoint as usize].options;
        let options = DialOptions {
            timeout: options.connect_timeout,
            keepalive: options.keepalive,
            user_timeout: options.user_timeout,
        };
        conn.link = Link::Dialling(Dialer::new(places, options, now));
    }

    pub(super) fn advance_dial(&mut self, key: u32) {
        let now = self.core.now();
        let Some(conn) = self.conns.get_mut(key as usize) else { return };
        let Link::Dialling(dialer) = &mut conn.link else { return };
        match dialer.advance(now, &self.registry, Self::token(key)) {
            DialState::Pending => self.rearm(key),
            DialState::Failed(error) => {
                let status = if error.timed_out { IOK_STATUS_TIMEOUT } else { IOK_STATUS_UNAVAILABLE };
                let message = self.through_proxy(key, error.message);
                self.conn_failed(key, status, false, message);
            }
            DialState::Connected(stream) => {
                let Some(stream) = self.greet(key, stream) else { return };
                let conn = &mut self.conns[key as usize];
                conn.peer_name = stream.peer_name();
                conn.place = stream.place();
                self.socket_stands(key, stream);
            }
        }
    }

    /// A conn has its way to its peer, through a proxy or not.
    pub(super) fn socket_stands(&mut self, key: u32, stream: Stream) {
        let Some(conn) = self.conns.get_mut(key as usize) else { return };
        self.core.names.peer(conn.number, &conn.peer_name);
        match &self.endpoints[conn.endpoint as usize].tls {
            None => self.plain(key, stream),
            Some(tls) => match tls.start() {
                None => self.secure(key, stream),
                Some(start) => self.begin_greeting(key, stream, start),
            },
        }
    }

    /// A conn has its way to its peer, and no TLS on it.
    pub(super) fn plain(&mut self, key: u32, stream: Stream) {
        let transport = Transport { wall: Some(self.core.wall()), ..stream.transport() };
        self.line_stands(key, stream.into(), &transport);
    }

    /// What a conn's protocol says goes to its peer from here on.
    pub(super) fn line_stands(&mut self, key: u32, line: Line, transport: &Transport) {
        let Some(conn) = self.conns.get_mut(key as usize) else { return };
        if !conn.is_server {
            conn.count(|meter| meter.connects.add(1));
        }
        conn.link = Link::Up(line);
        conn.readable = true;
        self.drive(key, |conn, now, out| conn.proto.handle_open(now, transport, out));
        self.flush(key);
        self.read(key);
    }

    /// Lets the protocol of a conn do something, and sees to what came of it. False if the conn is gone.
    pub fn drive(
        &mut self,
        key: u32,
        act: impl FnOnce(&mut Conn, Instant, &mut Out<'_>) -> Result<(), crate::proto::Fault>,
    ) -> bool {
        let now = self.core.now();
        let Some(conn) = self.conns.get_mut(key as usize) else { return false };
        let mut notes = Vec::new();
        let mut wire = std::mem::take(&mut conn.out);
        let incoming = std::mem::take(&mut conn.incoming);
        let of = &self.endpoints[conn.endpoint as usize];
        let mut sink = Sink::new(&mut self.core, of, key, conn, &incoming, &mut notes);
        let mut files = Vec::new();
        let outcome = act(conn, now, &mut Out { wire: &mut wire, files: &mut files, events: &mut sink });
        let learnt = sink.finish();
        conn.incoming = incoming;
        conn.out = wire;
        conn.queue_files(files);
        learnt.keep(conn);
        let number = conn.number;
        self.after_protocol(key, number, notes);
        self.is_conn(key, number) && self.judge(key, outcome)
    }

    /// The conn still stands under its key: a router that hears of it may close it, and dial another.
    pub(super) fn is_conn(&self, key: u32, number: u32) -> bool {
        self.conns.get(key as usize).is_some_and(|conn| conn.number == number)
    }

    /// A fault ends the conn. True if it lives.
    pub(super) fn judge(&mut self, key: u32, outcome: Result<(), crate::proto::Fault>) -> bool {
        let Err(fault) = outcome else {
            self.rearm(key);
            self.queue_flush(key);
            return self.conns.contains(key as usize);
        };
        // What was written before the fault (a last error reply) still goes, as far as the socket takes it.
        let _ = self.flush_once(key);
        let status = match fault.kind {
            FaultKind::Protocol | FaultKind::TooLarge => IOK_STATUS_PROTOCOL,
            FaultKind::Refused => IOK_STATUS_REFUSED,
            FaultKind::Silent | FaultKind::Closed => IOK_STATUS_LOST,
        };
        let refused = match fault.kind {
            FaultKind::Refused => true,
            FaultKind::Protocol => self.conns.get(key as usize).is_some_and(|conn| !conn.ready),
            _ => false,
        };
        self.conn_failed(key, status, refused, fault.message);
        false
    }

    /// What events asked for beyond completions.
    pub(super) fn after_protocol(&mut self, key: u32, number: u32, notes: Vec<Note>) {
        for note in notes {
            let conn = self.conns.get_mut(key as usize).filter(|conn| conn.number == number);
            let Some((endpoint, is_server)) = conn.map(|conn| (conn.endpoint, conn.is_server)) else {
                // What the conn has told of a request outlives it.
                if let Note::Rejected { id, why, body } = note {
                    self.rejected(None, id, &why, &body);
                }
                continue;
            };
            if self.is_acting(endpoint) {
                self.unheard.push(Unheard::Note { conn: key, number, note });
                continue;
            }
            let conn = &mut self.conns[key as usize];
            match note {
                Note::Ready { topics_beside_requests, description } if !is_server => {
                    conn.ready = true;
                    conn.connect_by = None;
                    self.with_router(endpoint, |router, now, act| {
                        router.handle_ready(now, ConnId(key), topics_beside_requests, &description, act);
                    });
                }
                Note::Ready { .. } => conn.ready = true,
                Note::Draining => {
                    conn.draining = true;
                    self.queue_flush(key);
                    self.leave_when_flushed(key);
                    self.tell_fact(endpoint, key, &Fact::Draining);
                }
                Note::Topic { topic, end } => {
                    self.with_router(endpoint, |router, now, act| {
                        let end = end.as_ref().map(|(code, message)| (code.as_str(), message.as_str()));
                        router.handle_topic(now, ConnId(key), &topic, end, act);
                    });
                }
                Note::Role { role, follows } => {
                    self.tell_fact(endpoint, key, &Fact::Role { role, follows: follows.as_deref() });
                }
                Note::Reign(number) => self.tell_fact(endpoint, key, &Fact::Reign(number)),
                Note::Topology(shards) => self.tell_fact(endpoint, key, &Fact::Topology(&shards)),
                Note::Rejected { id, why, body } => self.rejected(Some(key), id, &why, &body),
                Note::Settled { slot } => self.settled_by_itself(key, slot),
                Note::Health { slot } => self.tell_health(key, slot),
                Note::Aside { say } => self.begin_aside(key, say),
            }
        }
    }

    fn tell_fact(&mut self, endpoint: u32, key: u32, fact: &Fact<'_>) {
        self.with_router(endpoint, |router, now, act| router.handle_fact(now, ConnId(key), fact, act));
    }

    /// Tells the router that a conn has heard from its peer, if it wants to know.
    pub(super) fn progress(&mut self, key: u32) {
        let Some(conn) = self.conns.get(key as usize).filter(|conn| !conn.is_server && conn.ready) else { return };
        let endpoint = conn.endpoint;
        let wants =
            self.endpoints[endpoint as usize].router.as_ref().is_some_and(|router| router.wants_progress(ConnId(key)));
        if wants {
            let (inflight, tenancy) = (conn.proto.inflight(), conn.proto.tenancy());
            self.with_router(endpoint, |router, now, act| {
                router.handle_progress(now, ConnId(key), inflight, tenancy, act);
            });
        }
    }

    /// Sets a conn's timer to the next moment that it needs.
    pub fn rearm(&mut self, key: u32) {
        let Some(conn) = self.conns.get_mut(key as usize) else { return };
        let dialling = match &conn.link {
            Link::Dialling(dialer) => dialer.poll_timeout(),
            _ => None,
        };
        let muted = !conn.is_server && self.endpoints[conn.endpoint as usize].muted;
        let proto = if matches!(conn.link, Link::Up(_)) && !muted { conn.proto.poll_timeout() } else { None };
        let next = [dialling, proto, conn.connect_by, conn.lingers_until, conn.send_by].into_iter().flatten().min();
        let Some(next) = next else { return };
        // A later moment waits for the timer that is set: most timeouts move on long before they come.
        if conn.timer_at.is_some_and(|at| at <= next) {
            return;
        }
        self.core.wheel.clear(std::mem::replace(&mut conn.timer, TimerKey::NONE));
        conn.timer_at = Some(next);
        conn.timer = self.core.timer_at(next, Target::Conn(key));
    }

    /// A conn's timer has come.
    pub fn conn_timer(&mut self, key: u32) {
        let now = self.core.now();
        let Some(conn) = self.conns.get_mut(key as usize) else { return };
        (conn.timer, conn.timer_at) = (TimerKey::NONE, None);
        if conn.send_by.is_some_and(|by| by <= now) {
            let message = format!("{}: took nothing of what waits for it for too long", conn.peer_name);
            return self.conn_failed(key, IOK_STATUS_TIMEOUT, false, message);
        }
        if conn.lingers_until.is_some_and(|until| until <= now) {
            self.remove_conn(key, IOK_STATUS_LOST, "the client was said goodbye to");
            return;
        }
        if conn.connect_by.is_some_and(|by| by <= now) {
            if matches!(conn.link, Link::Securing(_)) {
                return self.handshake_late(key);
            }
            let what = match conn.link {
                Link::Resolving => "no address for",
                Link::Dialling(_) => "no connection to",
                Link::Greeting(_) if conn.tunnel.is_some() => "no tunnel through the proxy to",
                Link::Greeting(_) => "no answer about TLS from",
                Link::Securing(_) | Link::Up(_) => "no answer to the handshake from",
            };
            let within = self.endpoints[conn.endpoint as usize].options.connect_timeout;
            let message = match &mut conn.link {
                Link::Dialling(dialer) => match dialer.advance(now, &self.registry, Self::token(key)) {
                    DialState::Failed(error) => error.message,
                    _ => format!("{what} {} within {within:?}", conn.peer_name),
                },
                _ => format!("{what} {} within {within:?}", conn.peer_name),
            };
            return self.conn_failed(key, IOK_STATUS_TIMEOUT, false, message);
        }
        match &conn.link {
            Link::Dialling(_) => self.advance_dial(key),
            // Input that waits in the socket comes first: it may be the very answer that is missed.
            Link::Up(_) if conn.readable => self.read(key),
            Link::Up(_) if !conn.is_server && self.endpoints[conn.endpoint as usize].muted => {}
            Link::Up(_) if conn.proto.poll_timeout().is_some_and(|at| at <= now) => {
                self.drive(key, |conn, now, out| {
                    let before = out.wire.len();
                    let outcome = conn.proto.handle_timeout(now, out);
                    conn.count(|meter| meter.heartbeats.add(u64::from(out.wire.len() > before)));
                    outcome
                });
            }
            _ => {}
        }
        self.rearm(key);
    }

    /// A conn is of no use any more: its requests end, its router hears of it.
    pub fn conn_failed(&mut self, key: u32, status: Status, refused: bool, message: String) {
        let Some(conn) = self.conns.get(key as usize) else { return };
        let (endpoint, was_ready, is_server) = (conn.endpoint, conn.ready, conn.is_server);
        let under_way = conn.proto.inflight();
        conn.count(|meter| meter.failures.add(1));
        let aside_of = conn.aside_of;
        let again = self.remove_conn(key, status, &message);
        if let Some(aside) = aside_of {
            return self.aside_over(aside);
        }
        if is_server {
            return;
        }
        let down = Down { was_ready, under_way, refused, status, message };
        self.unheard.push(Unheard::Down { endpoint, conn: key, down });
        self.unheard.extend(again.into_iter().map(|(id, why)| Unheard::SendAgain(id, why)));
        self.hear();
    }

    /// Tells routers what they have not heard; what a router that is at work has not heard it hears afterwards.
    pub fn hear(&mut self) {
        for news in std::mem::take(&mut self.unheard) {
            match news {
                Unheard::Down { endpoint, conn, down } if self.is_acting(endpoint) => {
                    self.unheard.push(Unheard::Down { endpoint, conn, down });
                }
                Unheard::Down { endpoint, conn, down } => {
                    self.with_router(endpoint, |router, now, act| router.handle_down(now, ConnId(conn), &down, act));
                }
                Unheard::SendAgain(id, why) => self.send_again(id, why),
                Unheard::Note { conn, number, note } => self.after_protocol(conn, number, vec![note]),
            }
        }
    }

    /// The endpoint's router is at work further up the stack.
    pub(super) fn is_acting(&self, endpoint: u32) -> bool {
        self.endpoints.get(endpoint as usize).is_some_and(|of| of.router.is_none() && of.listener.is_none())
    }

    /// Closes a conn and ends its requests, except those that may be sent again, which are handed back.
    pub fn remove_conn(&mut self, key: u32, status: Status, message: &str) -> Vec<(RequestId, Again)> {
        let Some(mut conn) = self.conns.try_remove(key as usize) else { return Vec::new() };
        self.core.wheel.clear(conn.timer);
        if conn.is_server && matches!(conn.link, Link::Securing(_)) {
            self.handshake_left(conn.endpoint);
        }
        // A client must not take half of a reply for the whole.
        let whole = conn.is_flushed() && conn.incoming.is_empty();
        match &mut conn.link {
            Link::Up(line) => {
                let _ = self.registry.deregister(&mut line.socket);
                line.close(whole && !conn.half_closed);
            }
            Link::Securing(securing) => {
                let _ = self.registry.deregister(&mut securing.socket);
                let _ = securing.socket.shutdown(std::net::Shutdown::Both);
            }
            Link::Greeting(greeting) => {
                let _ = self.registry.deregister(&mut greeting.stream);
                let _ = greeting.stream.shutdown(std::net::Shutdown::Both);
            }
            Link::Dialling(dialer) => dialer.abandon(&self.registry),
            Link::Resolving => self.resolver.cancel(LookupId(u64::from(key))),
        }
        for (id, payload) in conn.kept_payloads() {
            if let Some(request) = self.core.requests.get_mut(id).filter(|request| request.payload.is_none()) {
                request.payload = Some(payload.into());
            }
        }
        self.lose_acks(std::mem::take(&mut conn.acks));
        let mut named = Vec::new();
        conn.proto.abandon(&mut |id| named.push(id));
        let stream = conn.stream.and_then(|id| self.core.requests.get_mut(id));
        if let Some(stream) = stream.filter(|stream| stream.conn == key) {
            stream.conn = NO_CONN;
        }
        let mut again = Vec::new();
        for id in named {
            self.abandoned(id, &conn, status, message, &mut again);
        }
        for (_, id) in conn.incoming {
            if let Some(request) = self.core.end(id, Ending::not_sent(IOK_STATUS_LOST), crate::proto::Body::None) {
                let (channel, endpoint) = (request.channel, request.endpoint);
                self.core.tell(channel, IOK_KIND_GONE, endpoint, id, conn.number, crate::proto::Body::None);
            }
        }
        if conn.is_server
            && let Some(listener) = self.endpoints.get_mut(conn.endpoint as usize).and_then(|e| e.listener.as_mut())
        {
            listener.conns -= 1;
        }
        self.core.names.forget_peer(conn.number);
        again
    }

    /// The key of the endpoint that a program calls by this number; past the end if the number is stale.
    pub fn endpoint_key(number: u32) -> u32 {
        (number & 0xffff).wrapping_sub(1)
    }

    /// The endpoint of that number, if it is open.
    #[inline]
    pub fn endpoint(&self, number: u32) -> Option<&Endpoint> {
        self.endpoints.get(Self::endpoint_key(number) as usize).filter(|endpoint| endpoint.number == number)
    }

    /// True while a conn may be given another request.
    #[inline]
    pub fn takes_requests(conn: &Conn) -> bool {
        conn.ready && !conn.draining && conn.pending_bytes() < OUT_BYTES_SOFT
    }
}
