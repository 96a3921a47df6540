//! The heads of the upgrade (RFC 6455, 4): a client's request and its check of the answer; a server's check and answer.
//!
//! Headers are given as `(name, value)` in any case and order; they are returned as lines to be added to a head.

use super::deflate::Params;

/// Header lines to be written.
pub type Lines = Vec<(&'static str, Vec<u8>)>;

/// What the head of a request says about WebSocket, to a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// It asks for no upgrade to WebSocket: an ordinary request.
    No,
    /// It does, and breaks a rule.
    Wrong(Wrong),
    Yes(Offer),
}

/// Why a handshake is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// 400; 405 for a method other than GET; 426 for another version, to be answered with [`VERSION_LINE`].
    pub status: u16,
    pub message: &'static str,
}

/// Goes with 426 (RFC 6455, 4.4).
pub const VERSION_LINE: (&str, &str) = ("Sec-WebSocket-Version", "13");

/// A valid request, as a server keeps it until the program has decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The value of Sec-WebSocket-Accept.
    pub accept: String,
    /// Subprotocols, the client's favourite first.
    pub protocols: Vec<Vec<u8>>,
    /// The first offer of permessage-deflate that we can keep.
    pub deflate: Option<Params>,
}

/// Reads a request's head (RFC 6455, 4.2.1). `version` is 10 or 11.
pub fn read_request<'a>(
    _method: &[u8],
    _version: u8,
    _headers: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
) -> Asked {
    unimplemented!()
}

impl Offer {
    /// What a 101 must say: Upgrade, Connection, Sec-WebSocket-Accept and, if `compress` and it was offered,
    /// Sec-WebSocket-Extensions: make the codec with `self.deflate` then. `protocol` must be one of `self.protocols`.
    pub fn answer(&self, _protocol: Option<&[u8]>, _compress: bool) -> Result<Lines, &'static str> {
        unimplemented!()
    }

    /// The first of the client's subprotocols that is among ours.
    pub fn select<'a>(&'a self, _ours: &[&[u8]]) -> Option<&'a [u8]> {
        unimplemented!()
    }
}

/// A client's request, kept until the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The value of Sec-WebSocket-Key.
    pub key: String,
    pub protocols: Vec<Vec<u8>>,
    /// permessage-deflate is offered.
    pub compress: bool,
}

/// What a client and its server agreed on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Agreed {
    pub protocol: Option<Vec<u8>>,
    pub deflate: Option<Params>,
}

impl Request {
    /// `seed` is randomness, another for every conn. Subprotocols are distinct tokens (RFC 6455, 4.1).
    pub fn new(_seed: u64, _protocols: Vec<Vec<u8>>, _compress: bool) -> Result<Self, &'static str> {
        unimplemented!()
    }

    /// What the request (GET, HTTP/1.1) must say: Upgrade, Connection, Sec-WebSocket-Key, Sec-WebSocket-Version, and
    /// what is offered.
    pub fn lines(&self) -> Lines {
        unimplemented!()
    }

    /// Judges the head of a 101 (RFC 6455, 4.1). Other statuses are no affair of ours. An error: close the conn.
    pub fn check<'a>(&self, _headers: impl IntoIterator<Item = (&'a [u8], &'a [u8])>) -> Result<Agreed, &'static str> {
        unimplemented!()
    }
}
