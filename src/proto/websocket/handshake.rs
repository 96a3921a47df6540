//! The heads of the upgrade (RFC 6455, 4): a client's request and its check of the answer; a server's check and answer.
//!
//! Headers are given as `(name, value)` in any case and order; they are returned as lines to be added to a head.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::deflate::Params;
use super::{extensions, frame};
use crate::proto::http::wire::{is_token, lists, members};

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
    /// 400; 426 for another version, to be answered with [`VERSION_LINE`].
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

/// The headers that the handshake is made of.
#[derive(Default)]
struct Fields<'a> {
    is_upgrade: bool,
    /// Upgrade names nothing else.
    is_upgrade_alone: bool,
    is_connection: bool,
    keys: Vec<&'a [u8]>,
    accepts: Vec<&'a [u8]>,
    versions: Vec<&'a [u8]>,
    protocols: Vec<&'a [u8]>,
    extensions: Vec<&'a [u8]>,
}

impl<'a> Fields<'a> {
    fn read(headers: impl IntoIterator<Item = (&'a [u8], &'a [u8])>) -> Self {
        let mut fields = Fields { is_upgrade_alone: true, ..Fields::default() };
        for (name, value) in headers {
            let value = value.trim_ascii();
            let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
            if is("upgrade") {
                fields.is_upgrade |= lists(value, b"websocket");
                fields.is_upgrade_alone &= value.eq_ignore_ascii_case(b"websocket");
            } else if is("connection") {
                fields.is_connection |= lists(value, b"upgrade");
            } else if is("sec-websocket-key") {
                fields.keys.push(value);
            } else if is("sec-websocket-accept") {
                fields.accepts.push(value);
            } else if is("sec-websocket-version") {
                fields.versions.push(value);
            } else if is("sec-websocket-protocol") {
                fields.protocols.push(value);
            } else if is("sec-websocket-extensions") {
                fields.extensions.push(value);
            }
        }
        fields
    }
}

/// Reads a request's head (RFC 6455, 4.2.1). `version` is 10 or 11; an upgrade in HTTP/1.0 is none (RFC 9110, 7.8).
pub fn read_request<'a>(method: &[u8], version: u8, headers: impl IntoIterator<Item = (&'a [u8], &'a [u8])>) -> Asked {
    let fields = Fields::read(headers);
    if !fields.is_upgrade || version < 11 {
        return Asked::No;
    }
    offer(method, &fields).map_or_else(Asked::Wrong, Asked::Yes)
}

fn offer(method: &[u8], fields: &Fields<'_>) -> Result<Offer, Wrong> {
    let wrong = |message| Wrong { status: 400, message };
    if method != b"GET" {
        return Err(wrong("a WebSocket is asked for by GET"));
    }
    if !fields.is_connection {
        return Err(wrong("Connection does not name Upgrade"));
    }
    match fields.versions[..] {
        [] => return Err(wrong("Sec-WebSocket-Version is missing")),
        [b"13"] => {}
        [_] => return Err(Wrong { status: 426, message: "the version of WebSocket is 13" }),
        _ => return Err(wrong("Sec-WebSocket-Version is there twice")),
    }
    let key = match fields.keys[..] {
        [] => return Err(wrong("Sec-WebSocket-Key is missing")),
        [key] => key,
        _ => return Err(wrong("Sec-WebSocket-Key is there twice")),
    };
    if !STANDARD.decode(key).is_ok_and(|bytes| bytes.len() == 16) {
        return Err(wrong("Sec-WebSocket-Key is not 16 bytes in base64"));
    }
    let protocols: Vec<Vec<u8>> =
        fields.protocols.iter().flat_map(|value| members(value)).map(<[u8]>::to_vec).collect();
    check_protocols(&protocols).map_err(wrong)?;
    let mut deflate = None;
    for value in &fields.extensions {
        let offers = extensions::read(value).ok_or(wrong("Sec-WebSocket-Extensions is malformed"))?;
        deflate = deflate.or_else(|| offers.iter().find_map(extensions::accept));
    }
    Ok(Offer { accept: accept_key(key), protocols, deflate })
}

/// Subprotocols are distinct tokens (RFC 6455, 4.1, number 10).
fn check_protocols(protocols: &[Vec<u8>]) -> Result<(), &'static str> {
    for (index, protocol) in protocols.iter().enumerate() {
        if !is_token(protocol) {
            return Err("a subprotocol of WebSocket that is no token");
        }
        if protocols[..index].contains(protocol) {
            return Err("a subprotocol of WebSocket that is named twice");
        }
    }
    Ok(())
}

/// What proves that a server has read the key (RFC 6455, 4.2.2, number 5).
pub fn accept_key(key: &[u8]) -> String {
    let mut hash = sha1_smol::Sha1::new();
    hash.update(key);
    hash.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(hash.digest().bytes())
}

impl Offer {
    /// What a 101 must say: Upgrade, Connection, Sec-WebSocket-Accept, the subprotocol if there is one, and, if
    /// `compress` and it was offered, Sec-WebSocket-Extensions: make the codec with `self.deflate` then, and without
    /// otherwise. `protocol` must be one of `self.protocols`.
    pub fn answer(&self, protocol: Option<&[u8]>, compress: bool) -> Result<Lines, &'static str> {
        let mut lines = upgrade();
        lines.push(("Sec-WebSocket-Accept", self.accept.clone().into_bytes()));
        if let Some(protocol) = protocol {
            if self.select(&[protocol]).is_none() {
                return Err("a subprotocol of WebSocket that the client did not offer");
            }
            lines.push(("Sec-WebSocket-Protocol", protocol.to_vec()));
        }
        if let Some(params) = self.deflate.as_ref().filter(|_| compress) {
            lines.push(("Sec-WebSocket-Extensions", extensions::answer(params).into_bytes()));
        }
        Ok(lines)
    }

    /// The first of the client's subprotocols that is among ours.
    pub fn select<'a>(&'a self, ours: &[&[u8]]) -> Option<&'a [u8]> {
        self.protocols.iter().map(Vec::as_slice).find(|protocol| ours.contains(protocol))
    }
}

fn upgrade() -> Lines {
    vec![("Upgrade", b"websocket".to_vec()), ("Connection", b"Upgrade".to_vec())]
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
    /// `seed` is randomness, another for every conn; it may be the one of [`super::Config::mask_seed`]. Subprotocols are
    /// distinct tokens (RFC 6455, 4.1).
    pub fn new(seed: u64, protocols: Vec<Vec<u8>>, compress: bool) -> Result<Self, &'static str> {
        check_protocols(&protocols)?;
        Ok(Request { key: STANDARD.encode(&frame::digest(seed, b"key", 0)[..16]), protocols, compress })
    }

    /// What the request (GET, HTTP/1.1) must say: Upgrade, Connection, Sec-WebSocket-Key, Sec-WebSocket-Version, and
    /// what is offered.
    pub fn lines(&self) -> Lines {
        let mut lines = upgrade();
        lines.push(("Sec-WebSocket-Key", self.key.clone().into_bytes()));
        lines.push(("Sec-WebSocket-Version", b"13".to_vec()));
        if !self.protocols.is_empty() {
            lines.push(("Sec-WebSocket-Protocol", self.protocols.join(b", ".as_slice())));
        }
        if self.compress {
            lines.push(("Sec-WebSocket-Extensions", extensions::NAME.into()));
        }
        lines
    }

    /// Judges the head of a 101 (RFC 6455, 4.1). Other statuses are no affair of ours. An error: close the conn.
    pub fn check<'a>(&self, headers: impl IntoIterator<Item = (&'a [u8], &'a [u8])>) -> Result<Agreed, &'static str> {
        let fields = Fields::read(headers);
        if !(fields.is_upgrade && fields.is_upgrade_alone) {
            return Err("the server upgrades to something else than websocket");
        }
        if !fields.is_connection {
            return Err("the server's Connection does not name Upgrade");
        }
        if fields.accepts != [accept_key(self.key.as_bytes()).as_bytes()] {
            return Err("the server's Sec-WebSocket-Accept does not belong to our key");
        }
        let protocol = match fields.protocols[..] {
            [] => None,
            [protocol] if self.protocols.iter().any(|ours| ours == protocol) => Some(protocol.to_vec()),
            _ => return Err("the server chose a subprotocol that was not offered"),
        };
        Ok(Agreed { protocol, deflate: self.check_extensions(&fields.extensions)? })
    }

    fn check_extensions(&self, values: &[&[u8]]) -> Result<Option<Params>, &'static str> {
        let mut deflate = None;
        for value in values {
            for extension in extensions::read(value).ok_or("the server's Sec-WebSocket-Extensions is malformed")? {
                if !self.compress || deflate.is_some() {
                    return Err("the server answers with an extension that was not offered");
                }
                deflate = Some(extensions::check(&extension)?);
            }
        }
        Ok(deflate)
    }
}
