//! Where a conn's protocol sends its events: completions at once, everything else as a note for after the call.

use std::collections::VecDeque;

use super::conn::Conn;
use super::core::{Core, Ending};
use super::endpoint::Endpoint;
use super::observing::own::PeerMeter;
use super::request::What;
use crate::peer::Role;
use crate::proto::{Body, Emit, Event, Fact, Rejection, RequestId, Shard};
use crate::ring::layout::{IOK_KIND_ACCEPTED, IOK_KIND_PUSH};
use crate::router::{ConnId, Router};
use crate::status::IOK_STATUS_BAD_REQUEST;
use crate::value::{Reader, Token};

/// What the router has to hear once the protocol's call is over.
pub enum Note {
    Ready { topics_beside_requests: bool, description: String },
    Draining,
    Topic { topic: Vec<u8>, end: Option<(String, String)> },
    Role { role: Role, follows: Option<String> },
    Reign(u64),
    Topology(Vec<Shard>),
    Rejected { id: RequestId, why: Why, body: Vec<u8> },
    Settled { slot: u64 },
    Health { slot: u64 },
    Aside { say: Vec<u8> },
}

/// A [`Rejection`] that outlives the conn's input.
pub enum Why {
    NotPrimary,
    NotServing,
    TryAgain,
    Moved { slot: u16, to: String, once: bool },
}

impl Why {
    fn of(rejection: Rejection<'_>) -> Self {
        match rejection {
            Rejection::NotPrimary => Why::NotPrimary,
            Rejection::NotServing => Why::NotServing,
            Rejection::TryAgain => Why::TryAgain,
            Rejection::Moved { slot, to, once } => Why::Moved { slot, to: to.into(), once },
        }
    }

    pub fn rejection(&self) -> Rejection<'_> {
        match self {
            Why::NotPrimary => Rejection::NotPrimary,
            Why::NotServing => Rejection::NotServing,
            Why::TryAgain => Rejection::TryAgain,
            Why::Moved { slot, to, once } => Rejection::Moved { slot: *slot, to, once: *once },
        }
    }
}

/// How often one request may be rejected before its caller hears of it: redirects are bounded.
pub const REJECTIONS_MAX: u8 = 16;

/// See [`Sink::finish`].
pub struct Learnt {
    incoming: VecDeque<(u64, RequestId)>,
    latency_ns: u64,
    choked: bool,
    freed: bool,
    replied_ns: u64,
}

impl Learnt {
    pub fn keep(self, conn: &mut Conn) {
        conn.incoming.extend(self.incoming);
        (conn.latency_ns, conn.replied_ns) = (self.latency_ns, self.replied_ns);
        conn.choked = self.choked || conn.choked && !self.freed;
    }
}

pub struct Sink<'a> {
    core: &'a mut Core,
    router: Option<&'a dyn Router>,
    /// The channel of a listener.
    channel: u32,
    endpoint: u32,
    key: u32,
    number: u32,
    first_byte_ns: u64,
    latency_ns: u64,
    meter: Option<PeerMeter>,
    /// Requests of the client that the program has, and those that came just now.
    known: &'a VecDeque<(u64, RequestId)>,
    incoming: VecDeque<(u64, RequestId)>,
    window: usize,
    /// A request of the conn has no window left.
    pub choked: bool,
    /// The request that its window belonged to has ended.
    freed: bool,
    /// When the last reply came.
    replied_ns: u64,
    notes: &'a mut Vec<Note>,
}

impl<'a> Sink<'a> {
    pub fn new(
        core: &'a mut Core,
        endpoint: &'a Endpoint,
        key: u32,
        conn: &Conn,
        known: &'a VecDeque<(u64, RequestId)>,
        notes: &'a mut Vec<Note>,
    ) -> Self {
        Sink {
            core,
            router: endpoint.router.as_deref(),
            channel: endpoint.listener.as_ref().map_or(u32::MAX, |listener| listener.channel),
            endpoint: endpoint.number,
            key,
            number: conn.number,
            first_byte_ns: conn.first_byte_ns,
            latency_ns: conn.latency_ns,
            meter: conn.meter,
            known,
            incoming: VecDeque::new(),
            window: endpoint.options.window,
            choked: false,
            freed: false,
            replied_ns: conn.replied_ns,
            notes,
        }
    }

    /// Keeps with the conn what was learnt of it: the requests of a listener's client that came, and its latency.
    pub fn finish(self) -> Learnt {
        let Sink { incoming, latency_ns, choked, freed, replied_ns, .. } = self;
        Learnt { incoming, latency_ns, choked, freed, replied_ns }
    }

    #[inline]
    fn reply(&mut self, id: RequestId, error: bool, body: Body<'_>) {
        (self.choked, self.freed, self.replied_ns) = (false, true, self.core.now_ns);
        let stands = !error && self.core.requests.get(id).is_some_and(|request| request.what == What::Stream);
        if stands {
            self.core.push(id, IOK_KIND_ACCEPTED, body, self.number);
        } else if let Some(request) = self.core.reply(id, error, body, self.number, self.first_byte_ns) {
            self.learn(request.sent_ns);
        }
    }

    #[inline]
    fn learn(&mut self, sent_ns: u64) {
        let took_ns = self.first_byte_ns.saturating_sub(sent_ns);
        if sent_ns != 0 && took_ns != 0 {
            let before = if self.latency_ns == 0 { took_ns } else { self.latency_ns };
            self.latency_ns = before - before / 8 + took_ns / 8;
            if let Some(meter) = &self.meter {
                meter.wire.observe(took_ns);
            }
        }
    }

    /// A peer did not execute a request: what can be sent again is the router's, the rest has its answer.
    fn rejected(&mut self, id: RequestId, why: Rejection<'_>, body: Body<'_>) {
        let Some(request) = self.core.requests.get(id) else { return };
        let may_repeat = request.payload.is_some() && request.lease == 0 && request.rejections < REJECTIONS_MAX;
        match body {
            Body::Msgpack(body) if may_repeat => {
                self.notes.push(Note::Rejected { id, why: Why::of(why), body: body.to_vec() });
            }
            body => self.reply(id, true, body),
        }
    }

    fn push(&mut self, topic: Option<&[u8]>, body: Body<'_>) {
        let Some(router) = self.router else { return };
        let owner = router.owner(ConnId(self.key));
        let streams = match topic {
            Some(topic) => router.listeners(ConnId(self.key), topic),
            None => owner.as_slice(),
        };
        for stream in streams {
            self.core.push(*stream, IOK_KIND_PUSH, body, self.number);
        }
    }
}

impl Emit for Sink<'_> {
    #[inline]
    fn emit(&mut self, event: Event<'_>) {
        match event {
            Event::Reply { id, error, body } => self.reply(id, error, body),
            Event::Rejected { id, why, body } => self.rejected(id, why, body),
            Event::Push { topic, body } => self.push(topic, body),
            Event::Refused { id, refusal } => {
                let ending = Ending::not_sent(IOK_STATUS_BAD_REQUEST);
                self.core.fail(id, ending, refusal.code, &refusal.message);
            }
            Event::Accepted { id, body } => self.core.accepted(id, body, self.number),
            Event::Chunk { of, body } => {
                let known = [self.known, &self.incoming];
                self.choked |= self.core.chunk(of, body, self.window, self.number, known);
            }
            Event::End { of, body } => self.core.ended(of, body, self.number, [self.known, &self.incoming]),
            Event::Settled { slot } => self.notes.push(Note::Settled { slot }),
            Event::Health { slot } => self.notes.push(Note::Health { slot }),
            Event::Aside { say } => self.notes.push(Note::Aside { say: say.to_vec() }),
            Event::Access(access) => self.core.log_access(self.endpoint, &access),
            Event::Request { slot, body } => {
                let id = self.core.incoming(self.channel, self.endpoint, self.key, slot, self.number, body);
                self.incoming.push_back((slot, id));
            }
            Event::Subscribed { topic } => self.notes.push(Note::Topic { topic: topic.to_vec(), end: None }),
            Event::Unsubscribed { topic, error } => {
                let end = error.and_then(read_error).unwrap_or(("WITHDRAWN".into(), "the peer ended it".into()));
                self.notes.push(Note::Topic { topic: topic.to_vec(), end: Some(end) });
            }
            Event::Fact(Fact::Ready { topics_beside_requests, description }) => {
                self.notes.push(Note::Ready { topics_beside_requests, description: description.into() });
            }
            Event::Fact(Fact::Role { role, follows }) => {
                self.notes.push(Note::Role { role, follows: follows.map(str::to_string) });
            }
            Event::Fact(Fact::Reign(number)) => self.notes.push(Note::Reign(number)),
            Event::Fact(Fact::Topology(shards)) => self.notes.push(Note::Topology(shards.to_vec())),
            Event::Fact(Fact::Draining) => self.notes.push(Note::Draining),
        }
    }
}

/// The code and message of an error's payload.
fn read_error(body: Body<'_>) -> Option<(String, String)> {
    let Body::Msgpack(bytes) = body else { return None };
    let mut reader = Reader::new(bytes);
    let Ok(Token::Array(2)) = reader.token() else { return None };
    let mut text = || match reader.token() {
        Ok(Token::Str(text)) => Some(String::from_utf8_lossy(text).into_owned()),
        _ => None,
    };
    Some((text()?, text()?))
}
