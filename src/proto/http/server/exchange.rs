//! One request and its response.

use std::net::SocketAddr;
use std::time::Instant;

use super::head::Line;
use super::reply::{Asked, Framing};
use super::sink::{Held, Sink};
use crate::proto::http::wire::Headers;
use crate::proto::websocket::handshake::Offer;
use crate::proto::{Access, Out};

/// How far a response is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Its head is not written; interim responses may have been.
    Waiting,
    /// Pieces follow.
    Open(Framing),
    Over,
}

/// What the client would rather speak (RFC 9110, 7.8).
#[derive(Debug)]
pub enum Upgrade {
    /// The protocol as it names it.
    Other(Vec<u8>),
    WebSocket(Box<Offer>),
}

#[derive(Debug)]
pub struct Exchange {
    pub asked: Asked,
    /// The program knows of it.
    pub told: bool,
    pub stage: Stage,
    pub upgrade: Option<Upgrade>,
    pub status: u16,
    /// Bytes of the body.
    pub sent_bytes: u64,
    /// What waits for the responses before this one.
    pub held: Held,
    began: Instant,
    /// Method, target, Referer and User-Agent, one after the other, and where each of the first three ends.
    notes: Vec<u8>,
    ends: [usize; 3],
}

impl Exchange {
    /// `notes`: memory that may be used.
    pub fn new(asked: Asked, began: Instant, mut notes: Vec<u8>) -> Self {
        notes.clear();
        Exchange {
            asked,
            told: false,
            stage: Stage::Waiting,
            upgrade: None,
            status: 0,
            sent_bytes: 0,
            held: Held::default(),
            began,
            notes,
            ends: [0; 3],
        }
    }

    /// Keeps what an access log wants to know.
    pub fn note(&mut self, line: &Line<'_>, headers: Headers<'_>) {
        let parts = [line.method, line.target, headers.get("referer").unwrap_or(b"")];
        for (end, part) in self.ends.iter_mut().zip(parts) {
            self.notes.extend_from_slice(part);
            *end = self.notes.len();
        }
        self.notes.extend_from_slice(headers.get("user-agent").unwrap_or(b""));
    }

    pub fn access(&self, peer: Option<SocketAddr>) -> Access<'_> {
        let [method, target, referer] = self.ends;
        Access {
            peer,
            method: &self.notes[..method],
            target: &self.notes[method..target],
            version: self.asked.version,
            status: self.status,
            sent_bytes: self.sent_bytes,
            referer: &self.notes[target..referer],
            user_agent: &self.notes[referer..],
            began: self.began,
        }
    }

    /// The memory of its notes, for another.
    pub fn into_notes(self) -> Vec<u8> {
        self.notes
    }

    /// Writes to the wire if this exchange is the first, else to what waits; returns what was done and how many bytes
    /// wait more than before.
    pub fn write<T>(
        &mut self,
        is_first: bool,
        out: &mut Out<'_>,
        write: impl FnOnce(&mut Sink<'_>) -> T,
    ) -> (T, usize) {
        if is_first {
            return (write(&mut Sink { wire: out.wire, files: out.files }), 0);
        }
        let before = self.held.wire.len();
        let done = write(&mut Sink { wire: &mut self.held.wire, files: &mut self.held.files });
        (done, self.held.wire.len() - before)
    }
}
