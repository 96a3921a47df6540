//! Protocols without I/O: bytes and time come in, wire bytes and events go out.
//!
//! One folder per protocol, one row each in [`TABLE`]. A protocol is two things: a [`Driver`], made once for an endpoint
//! from its URL, which knows what a request means before there is any conn; and a [`Protocol`], one per conn, which
//! holds that conn's state. Client and server sides implement the same trait.
//!
//! # Architecture invariants
//! No socket, no clock, no thread, no libc and no unsafe in this room: time and bytes are passed in. Nothing outside a
//! protocol's folder names that protocol, except its row in the table.
//!
//! # The laws (`tests/laws.rs` proves them for every row)
//! 1. Any split of the input gives the same events.
//! 2. No input panics.
//! 3. Every request ends exactly once: by one `Reply`, or by being named once in `abandon`.
//! 4. `Progress::Need(n)` grows while no byte is consumed, and stays within the limits.
//! 5. After `handle_timeout(t)`, `poll_timeout()` is later than `t`, or None.
//! 6. Buffers stay under their limits.
//! 7. After a fault: silence.

use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::config::{ConfigError, Url};
use crate::peer::Role;
use crate::value::{Reader, Token};

#[cfg(feature = "http")]
pub mod http;
#[cfg(any(feature = "redis", feature = "postgres"))]
mod liveness;
#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(feature = "redis")]
pub mod redis;
#[cfg(feature = "http")]
pub mod websocket;

/// Every protocol there is. A scheme appears in one row only.
pub static TABLE: &[Scheme] = &[
    #[cfg(feature = "redis")]
    redis::SCHEME,
    #[cfg(all(feature = "redis", feature = "tls"))]
    redis::SCHEME_TLS,
    #[cfg(feature = "http")]
    http::SCHEME,
    #[cfg(all(feature = "http", feature = "tls"))]
    http::SCHEME_TLS,
    #[cfg(feature = "postgres")]
    postgres::SCHEME,
    #[cfg(feature = "postgres")]
    postgres::SCHEME_LONG,
];

/// One row: a protocol as its URL scheme selects it.
pub struct Scheme {
    pub name: &'static str,
    /// Its conns are TLS from their first byte.
    pub tls: bool,
    /// Its conns become TLS if the peer is asked for it before anything else is said.
    pub starttls: Option<StartTls>,
    /// What is offered by ALPN (RFC 7301), the best first. Which one was taken is in [`Transport`].
    pub alpn: &'static [&'static [u8]],
    /// What a client is told that speaks in the clear to a listener that wants TLS.
    pub rebuff: &'static [u8],
    pub default_port: u16,
    pub sharing: Sharing,
    /// Puts what a service's URL says in words of its own into those of every endpoint, before anybody reads them.
    pub adapt: Option<AdaptUrl>,
    /// How spans of its requests are described.
    pub tracing: Tracing,
    /// Reads the protocol's own parts of the URL (user, password, path, options it knows).
    pub open: OpenDriver,
    /// Bytes as a server sends them and as clients send them, for tests and fuzzing: `(name, side, bytes)`.
    pub samples: &'static [Sample],
}

/// How ordinary requests share conns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// All have the same few: a server does one thing after the other, on however many.
    Shared,
    /// One, and more while what the server executes for one of them keeps the rest of its requests waiting.
    Growing,
    /// A request has a conn to itself ([`Class::Exchange`]): there are as many as the load asks for.
    Exclusive,
}

/// How a service's peer is asked for TLS: both answers are one byte.
#[derive(Clone, Copy)]
pub struct StartTls {
    pub ask: &'static [u8],
    pub yes: u8,
    pub no: u8,
    /// What a URL says of it. The protocol's own options of TLS are put into those that are called `tls_...`.
    pub wish: fn(&mut Url) -> Result<Wish, ConfigError>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// The peer is not asked.
    No,
    /// A peer that has no TLS is spoken with in the clear.
    IfOffered,
    Must,
}

/// The names that OpenTelemetry's semantic conventions have for what a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tracing {
    /// An attribute that every span has, and its value: `("db.system.name", "redis")`.
    pub system: (&'static str, &'static str),
    /// The attribute with the name of the command.
    pub operation: &'static str,
    /// The attribute with the code of an error reply.
    pub error_code: &'static str,
}

/// The conventions of databases (OpenTelemetry semantic conventions 1.38, "Database client spans").
pub const fn database_tracing(system: &'static str) -> Tracing {
    Tracing {
        system: ("db.system.name", system),
        operation: "db.operation.name",
        error_code: "db.response.status_code",
    }
}

/// See [`Scheme::adapt`].
pub type AdaptUrl = fn(&mut Url) -> Result<(), ConfigError>;

/// See [`Scheme::open`].
pub type OpenDriver = fn(&mut Url, &Limits) -> Result<Box<dyn Driver>, ConfigError>;

/// One recorded conversation side.
pub struct Sample {
    pub name: &'static str,
    /// The endpoint that it was recorded for.
    pub url: &'static str,
    /// What was followed then.
    pub follow: Follow,
    /// True: a server wrote these bytes (input of the client side). False: a client did.
    pub from_server: bool,
    /// Requests (MessagePack) that a client has under way while the bytes arrive, so that replies find their slots.
    pub requests: &'static [&'static [u8]],
    pub bytes: &'static [u8],
}

/// The row for a scheme.
pub fn scheme(name: &str) -> Option<&'static Scheme> {
    TABLE.iter().find(|scheme| scheme.name == name)
}

/// Bounds that every parser keeps.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Exchanges are logged: tell them by [`Event::Access`].
    pub access: bool,
    /// Of a listener, whose options are others than a service's.
    pub listener: bool,
    /// Bytes of one message from a peer.
    pub message_bytes_max: usize,
    /// Nesting of aggregates in requests and replies.
    pub depth_max: usize,
    /// Requests that one conn may have under way.
    pub inflight_max: usize,
    /// Silence after which a client conn sends a heartbeat.
    pub heartbeat: Duration,
    /// Time a peer has to answer a heartbeat before the conn is at fault.
    pub silence_max: Duration,
    /// Deliver frames as they are on the wire (`raw=true`).
    pub raw: bool,
    /// What the router wants to hear of the peer.
    pub follow: Follow,
    /// Requests go to replicas too: a conn to one asks for leave to read there, where the protocol wants that.
    pub reads_replicas: bool,
}

/// What a conn tells of its peer, and which replies it takes for rejections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Follow {
    /// Nothing: each reply goes to whoever asked.
    #[default]
    Nothing,
    /// Its role, by [`Fact::Role`]: before `Ready`, with each heartbeat, and when a reply shows it.
    Roles,
    /// Who serves which slots, by [`Fact::Topology`]: when asked by [`Command::Probe`].
    Topology,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            access: false,
            listener: false,
            message_bytes_max: 128 << 20,
            depth_max: 32,
            inflight_max: 65_536,
            heartbeat: Duration::from_secs(5),
            silence_max: Duration::from_secs(5),
            raw: false,
            follow: Follow::Nothing,
            reads_replicas: false,
        }
    }
}

/// The kernel's number for a request; never seen on the wire. Numbers are not used again, so a late reply to a
/// cancelled request finds nobody.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// Why one request cannot be sent. The conn lives on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// One upper-case word, the `code` of the error.
    pub code: &'static str,
    pub message: String,
}

/// Why a conn must be closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub kind: FaultKind,
    pub message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// The peer broke the protocol, or speaks another one.
    Protocol,
    /// The peer sent more than a limit allows.
    TooLarge,
    /// The peer refused the handshake: trying again with the same URL is useless until someone changes something.
    Refused,
    /// The peer did not answer in time.
    Silent,
    /// The peer closed the conn, or said that it will.
    Closed,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// What a request needs of a conn, judged before there is any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Class {
    /// Shares the ordinary conn.
    Shared,
    /// Has a conn for itself until its reply is complete; there are as many conns as the load asks for, up to `pool`. It
    /// may come as a request or as a stream, and may take more messages.
    Exchange,
    /// May wait in the server for long: a lane of its own until its reply.
    Waiting,
    /// Moves much data: comes as a stream, in pieces both ways, on a lane of its own until its reply is complete.
    Flow,
    /// Changes the conn's state: only with a lease. The text says so to the caller.
    Pinned(&'static str),
    /// Begins pushes on these topics; comes as a stream. The same topic may be asked for by many streams of one conn.
    Topics(Vec<Vec<u8>>),
    /// Takes a conn over for good: every push of that conn belongs to this stream.
    Takeover,
}

/// Where a request belongs, as far as its own words tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Route {
    /// The slot of its keys, where slots are followed. None: any peer will do.
    pub slot: Option<u16>,
    /// A hash of what it concerns, for consistent hashing. None: it concerns nothing in particular.
    pub hash: Option<u64>,
}

/// What a request needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    pub class: Class,
    /// It may be sent again when its fate is in doubt, whatever its caller says (a GET).
    pub idempotent: bool,
    pub route: Route,
}

/// One endpoint's view of its protocol.
pub trait Driver: Send {
    /// What this request (MessagePack) needs. Inside a lease only `Topics` and `Takeover` differ from `Shared`.
    /// Slots are told where [`Follow::Topology`] is set, hashes where `hashes` is.
    fn classify(&self, body: &[u8], hashes: bool) -> Result<Need, Refusal>;
    /// The name of what this request asks for, to be shown: never an argument.
    fn command<'a>(&self, body: &'a [u8]) -> &'a [u8] {
        first_word(body)
    }
    /// The arguments of this request may be credentials: they are shown to nobody.
    fn is_secret(&self, body: &[u8]) -> bool;
    /// A new conn of a service.
    fn client(&self) -> Box<dyn Protocol>;
    /// A new conn of a listener.
    fn server(&self) -> Box<dyn Protocol>;
}

/// The first word of a request that is an array of words; of a batch, the first word of its first request.
fn first_word(body: &[u8]) -> &[u8] {
    let mut reader = Reader::new(body);
    for _ in 0..2 {
        match reader.token() {
            Ok(Token::Array(1..)) => {}
            Ok(Token::Str(word) | Token::Bin(word)) => return word,
            _ => return b"",
        }
    }
    match reader.token() {
        Ok(Token::Str(word) | Token::Bin(word)) => word,
        _ => b"",
    }
}

/// What the kernel asks of a conn.
#[derive(Debug)]
pub enum Command<'a> {
    /// Client side: send this request (MessagePack). Its one `Event::Reply` comes later. `Never` was excluded by `admit`.
    /// `asking`: the peer does not own what it concerns yet, and is to serve it nonetheless (Redis: ASKING).
    /// `streams`: its reply is wanted as it comes, by `Event::Accepted`, `Event::Chunk` and, at its end, `Event::Reply`.
    Request { id: RequestId, body: &'a [u8], asking: bool, streams: bool },
    /// Client side: one more message (MessagePack) of a request whose command said [`Then::Open`].
    Send { id: RequestId, body: &'a [u8] },
    /// Client side: tell anew what is followed ([`Follow`]).
    Probe,
    /// Client side: this request will not be waited for. Its slot stays, deaf.
    Cancel { id: RequestId },
    /// Client side: the conn of an [`Event::Aside`] is gone: what it said has arrived, or will not.
    AsideOver,
    /// Client side: begin pushes on a topic that this conn does not yet carry.
    Subscribe { topic: &'a [u8] },
    /// Client side: end pushes on a topic.
    Unsubscribe { topic: &'a [u8] },
    /// Server side: the reply (one MessagePack value) to the request of that slot, in any order. A value that cannot be
    /// sent is refused, and the client gets an error in its place, so that it does not wait for ever.
    Reply { slot: u64, body: &'a [u8] },
    /// Server side: one more message of a reply whose command said [`Then::Open`].
    SendTo { slot: u64, body: &'a [u8] },
}

/// What may follow a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// It was whole. Server side: the slot is settled.
    Done,
    /// More messages for the same request or slot may follow.
    Open,
}

/// Whose a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    /// Client side.
    Request(RequestId),
    /// Server side.
    Slot(u64),
}

/// Bytes of a file that the program has open, to be sent from there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub fd: i32,
    pub offset: u64,
    pub length: u64,
}

/// What a conn runs over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transport {
    /// None for unix sockets.
    pub peer: Option<SocketAddr>,
    pub local: Option<SocketAddr>,
    pub secure: bool,
    /// Client side: what the peer showed of itself (X.509, DER).
    pub certificate: Option<Vec<u8>>,
    /// What ALPN agreed on.
    pub alpn: Option<Vec<u8>>,
    /// Server side: the name that the client asked for (SNI).
    pub server_name: Option<String>,
    /// An instant, and the time that had passed since the Unix epoch then: for protocols that tell dates.
    pub wall: Option<(Instant, Duration)>,
}

/// One exchange of a listener, as an access log tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access<'a> {
    /// Of the client, as its conn or a proxy tells it; None for unix sockets.
    pub peer: Option<SocketAddr>,
    pub method: &'a [u8],
    pub target: &'a [u8],
    /// 10 or 11.
    pub version: u8,
    pub status: u16,
    /// Of the body.
    pub sent_bytes: u64,
    pub referer: &'a [u8],
    pub user_agent: &'a [u8],
    /// When its first byte was seen.
    pub began: Instant,
}

/// Whether a request may be given to a conn at this moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admit {
    Now,
    Later,
    Never(Refusal),
}

/// How far a conn's state has moved from that of a fresh one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tenancy {
    /// Any request may be sent by anyone.
    Clean,
    /// Somebody's state is on it; `reset` can take it off.
    Dirty,
    /// Nobody else may ever have it.
    Spoiled,
}

/// What one call of `handle_input` did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// So many bytes are done with (more than 0); at most one frame was handled. Call again with the rest.
    Consumed(usize),
    /// Call again when at least so many bytes, from the start of the same input, are there.
    Need(usize),
}

/// A message's payload, as `iok_completion.encoding` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body<'a> {
    None,
    /// One MessagePack value.
    Msgpack(&'a [u8]),
    Bytes(&'a [u8]),
    Text(&'a [u8]),
    Raw(&'a [u8]),
}

#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// Client side: the reply of a request. `error`: the peer refused it, and the body is MessagePack `[code, message]`.
    Reply {
        id: RequestId,
        error: bool,
        body: Body<'a>,
    },
    /// Client side: the peer did not execute the request, and says what that means for the next try. The body is the error
    /// that its caller gets if there is none.
    Rejected {
        id: RequestId,
        why: Rejection<'a>,
        body: Body<'a>,
    },
    /// Client side: a request that was taken cannot be sent after all, as what was learnt since shows. Nothing of it was.
    Refused {
        id: RequestId,
        refusal: Refusal,
    },
    /// Client side: a streamed request has its reply's beginning. Its end is a `Reply`.
    Accepted {
        id: RequestId,
        body: Body<'a>,
    },
    /// A piece of a message, or one of many messages.
    Chunk {
        of: Of,
        body: Body<'a>,
    },
    /// The peer sends no more of it; what we send still goes.
    End {
        of: Of,
        body: Body<'a>,
    },
    /// Server side: nothing more can be sent for this slot, though the program has not said that it is done.
    Settled {
        slot: u64,
    },
    /// Server side: the client asks whether the program is well. The kernel replies to the slot: `[status, headers, body]`.
    Health {
        slot: u64,
    },
    /// Server side: an exchange is over.
    Access(Access<'a>),
    /// Client side: a message that nobody asked for one by one. `topic` is one of `Command::Subscribe`'s, or None for
    /// pushes that belong to the conn's only tenant.
    Push {
        topic: Option<&'a [u8]>,
        body: Body<'a>,
    },
    /// Client side: pushes on this topic are flowing.
    Subscribed {
        topic: &'a [u8],
    },
    /// Client side: the peer refused the topic (`[code, message]`), or withdrew it.
    Unsubscribed {
        topic: &'a [u8],
        error: Option<Body<'a>>,
    },
    /// Client side: to be said to the same peer on a conn of its own, which the peer then closes; `Command::AsideOver`
    /// follows. One at a time.
    Aside {
        say: &'a [u8],
    },
    /// Server side: a client's request; `slot` orders the replies of this conn.
    Request {
        slot: u64,
        body: Body<'a>,
    },
    Fact(Fact<'a>),
}

/// Why a peer did not execute a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection<'a> {
    /// It is no primary (Redis: READONLY).
    NotPrimary,
    /// It serves nobody at present (Redis: LOADING, MASTERDOWN, CLUSTERDOWN).
    NotServing,
    /// The same peer will take it in a moment (Redis: TRYAGAIN).
    TryAgain,
    /// Another peer serves it: `host:port`, where an empty host is this peer's own. `once`: for this request alone, and
    /// with `asking`.
    Moved { slot: u16, to: &'a str, once: bool },
}

/// Who serves a part of a service's slots. Addresses are `host:port`; an empty host is the telling peer's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shard {
    /// First and last.
    pub slots: Vec<(u16, u16)>,
    pub primary: String,
    pub replicas: Vec<String>,
}

/// What a conn learnt about its peer, for the router.
#[derive(Debug, PartialEq, Eq)]
pub enum Fact<'a> {
    /// What the peer is. `follows`: the `host:port` of a replica's primary, if it is known. Told when it is asked, changed
    /// or not.
    Role { role: Role, follows: Option<&'a str> },
    /// A primary tells which in the row of primaries it is, before it tells its role: who is promoted counts on from the one
    /// before.
    Reign(u64),
    /// Who serves what, as this peer sees it.
    Topology(&'a [Shard]),
    /// The handshake is done; requests may flow. `topics_beside_requests`: one conn can carry pushes and requests.
    Ready { topics_beside_requests: bool, description: &'a str },
    /// Client side: the peer asks to be left: no new requests; close once the replies are in. Server side: the client
    /// said goodbye and has every reply: close once the wire is flushed.
    Draining,
}

/// Where events go. Called in the order in which things happened on the wire.
pub trait Emit {
    fn emit(&mut self, event: Event<'_>);
}

/// Where a protocol writes.
pub struct Out<'a> {
    /// Appended to; the kernel sends it.
    pub wire: &'a mut Vec<u8>,
    /// Spans of files, and before which byte of `wire` each of them goes. Ordered.
    pub files: &'a mut Vec<(usize, Span)>,
    pub events: &'a mut dyn Emit,
}

/// One conn.
pub trait Protocol: Send {
    /// The transport is up.
    fn handle_open(&mut self, now: Instant, transport: &Transport, out: &mut Out<'_>) -> Result<(), Fault>;
    /// Bytes from the peer: at most one frame is handled. `input` starts where the last `Consumed` ended.
    fn handle_input(&mut self, now: Instant, input: &[u8], out: &mut Out<'_>) -> Result<Progress, Fault>;
    /// The peer will send nothing more. `Ok`: replies are still to be written; `Fact::Draining` follows the last.
    fn handle_eof(&mut self, now: Instant, out: &mut Out<'_>) -> Result<(), Fault>;
    /// `poll_timeout` has come.
    fn handle_timeout(&mut self, now: Instant, out: &mut Out<'_>) -> Result<(), Fault>;
    /// When to call `handle_timeout`. May be early: the protocol then moves it.
    fn poll_timeout(&self) -> Option<Instant>;
    /// Server side: as many requests are under way as the limits allow, so `handle_input` must not be called until some
    /// were replied to. A call nonetheless is a fault.
    fn paused(&self) -> bool {
        false
    }
    /// May this request be sent now? Pure. Asked before each `Command::Request`.
    fn admit(&self, body: &[u8]) -> Admit;
    /// A command that was admitted. An error is this request's alone; nothing was written for it.
    fn command(&mut self, now: Instant, command: Command<'_>, out: &mut Out<'_>) -> Result<Then, Refusal>;
    /// Everything that will ever be sent is in the wire: once that is written, the transport's sending side is closed, and
    /// what the peer still sends is read on.
    fn has_sent_all(&self) -> bool {
        false
    }
    /// That has happened.
    fn handle_sent_all(&mut self, _out: &mut Out<'_>) {}
    /// A client that is said goodbye to may still be sending what nobody wants. If its conn were closed at once, its system
    /// might throw away what we said last (RFC 9112, 9.6).
    fn leaves_unread(&self) -> bool {
        false
    }
    /// Requests whose reply is due, cancelled ones included; our own heartbeats and the like are not.
    fn inflight(&self) -> usize;
    fn tenancy(&self) -> Tenancy;
    /// A tenant left a dirty conn: write what makes it clean. `tenancy` says `Clean` once the next tenant may write.
    fn reset(&mut self, now: Instant, out: &mut Out<'_>) -> Result<(), Fault>;
    /// We are leaving: say goodbye if the protocol has a word for it.
    fn close(&mut self, now: Instant, out: &mut Out<'_>);
    /// The conn is gone: name each request that has had no reply, in the order of sending.
    fn abandon(&mut self, each: &mut dyn FnMut(RequestId));
}
