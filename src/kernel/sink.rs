//! Where a conn's protocol sends its events: completions at once, everything else as a note for after the call.

use std::collections::VecDeque;

use super::conn::Conn;
use super::core::Core;
use super::endpoint::Endpoint;
use super::request::What;
use crate::proto::{Body, Emit, Event, Fact, RequestId};
use crate::ring::layout::{IOK_KIND_ACCEPTED, IOK_KIND_PUSH};
use crate::router::{ConnId, Router};
use crate::value::{Reader, Token};

/// What the router has to hear once the protocol's call is over.
pub enum Note {
    Ready { topics_beside_requests: bool, description: String },
    Draining,
    Topic { topic: Vec<u8>, end: Option<(String, String)> },
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
    incoming: VecDeque<(u64, RequestId)>,
    notes: &'a mut Vec<Note>,
}

impl<'a> Sink<'a> {
    pub fn new(core: &'a mut Core, endpoint: &'a Endpoint, key: u32, conn: &Conn, notes: &'a mut Vec<Note>) -> Self {
        Sink {
            core,
            router: endpoint.router.as_deref(),
            channel: endpoint.listener.as_ref().map_or(u32::MAX, |listener| listener.channel),
            endpoint: endpoint.number,
            key,
            number: conn.number,
            first_byte_ns: conn.first_byte_ns,
            incoming: VecDeque::new(),
            notes,
        }
    }

    /// The requests of a listener's client that came.
    pub fn incoming(self) -> VecDeque<(u64, RequestId)> {
        self.incoming
    }

    #[inline]
    fn reply(&mut self, id: RequestId, error: bool, body: Body<'_>) {
        let stands = !error && self.core.requests.get(id).is_some_and(|request| request.what == What::Stream);
        if stands {
            self.core.push(id, IOK_KIND_ACCEPTED, body, self.number);
        } else {
            self.core.reply(id, error, body, self.number, self.first_byte_ns);
        }
    }

    fn push(&mut self, topic: Option<&[u8]>, body: Body<'_>) {
        let Some(router) = self.router else { return };
        let owner = router.owner(ConnId(self.key));
        let streams = match topic {
            Some(topic) => router.listeners(topic),
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
            Event::Rejected { id, body, .. } => self.reply(id, true, body),
            Event::Push { topic, body } => self.push(topic, body),
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
            Event::Fact(Fact::Role { .. } | Fact::Topology(_)) => {}
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
