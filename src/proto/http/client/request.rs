//! Requests of a program: read, judged, written.
use crate::proto::Refusal;
use crate::proto::http::coding;
use crate::proto::http::value::{self, bad_request, malformed, text};
use crate::proto::http::wire::{self, lists};
use crate::value::{Reader, Token};

use super::Settings;

/// `[method, target, headers, body, options]`.
#[derive(Debug)]
pub struct Asked<'a> {
    pub method: &'a [u8],
    pub target: &'a [u8],
    pub headers: Vec<(&'a [u8], &'a [u8])>,
    pub body: Given<'a>,
    pub decode: bool,
    pub expect: bool,
    pub upgrade: Option<&'a [u8]>,
    /// Subprotocols of a WebSocket.
    pub protocols: Vec<&'a [u8]>,
    pub compress: bool,
    /// By a header, for a body that comes in pieces.
    pub length: Option<u64>,
    /// The program wants the conn closed after the reply.
    pub closes: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Given<'a> {
    None,
    Whole(&'a [u8]),
    Pieces,
}

impl<'a> Asked<'a> {
    pub fn read(body: &'a [u8]) -> Result<Self, Refusal> {
        let mut reader = Reader::new(body);
        let count = match reader.token().map_err(malformed)? {
            Token::Array(count @ 2..=5) => count,
            _ => return Err(bad_request("a request must be [method, target, headers, body, options]")),
        };
        let mut asked = Asked {
            method: text(reader.token().map_err(malformed)?, "the method")?,
            target: text(reader.token().map_err(malformed)?, "the target")?,
            headers: Vec::new(),
            body: Given::None,
            decode: false,
            expect: false,
            upgrade: None,
            protocols: Vec::new(),
            compress: true,
            length: None,
            closes: false,
        };
        if count > 2 {
            asked.headers.reserve(HEADERS_USUAL);
            value::headers(&mut reader, |name, value| {
                asked.headers.push((name, value));
                Ok(())
            })?;
        }
        if count > 3 {
            asked.body = match reader.token().map_err(malformed)? {
                Token::Nil => Given::None,
                Token::Bin(bytes) | Token::Str(bytes) => Given::Whole(bytes),
                Token::Bool(true) => Given::Pieces,
                other => return Err(bad_request(format!("a body must be bytes, true or nil, not {}", other.kind()))),
            };
        }
        if count > 4 {
            asked.options(&mut reader)?;
        }
        if !reader.is_at_end() {
            return Err(bad_request("bytes follow the request"));
        }
        asked.check_line()?;
        asked.check_headers()?;
        Ok(asked)
    }

    fn options(&mut self, reader: &mut Reader<'a>) -> Result<(), Refusal> {
        let count = match reader.token().map_err(malformed)? {
            Token::Nil => 0,
            Token::Map(count) => count,
            other => return Err(bad_request(format!("options must be a map, not {}", other.kind()))),
        };
        for _ in 0..count {
            let key = text(reader.token().map_err(malformed)?, "an option's name")?;
            let token = reader.token().map_err(malformed)?;
            match (key, token) {
                (b"decode", Token::Bool(value)) => self.decode = value,
                (b"expect", Token::Bool(value)) => self.expect = value,
                (b"compress", Token::Bool(value)) => self.compress = value,
                (b"upgrade", Token::Nil) => {}
                (b"upgrade", token) => self.upgrade = Some(text(token, "upgrade")?),
                (b"protocols", Token::Array(count)) => {
                    for _ in 0..count {
                        self.protocols.push(text(reader.token().map_err(malformed)?, "a subprotocol")?);
                    }
                }
                (b"decode" | b"expect" | b"compress" | b"protocols", token) => {
                    let key = String::from_utf8_lossy(key);
                    return Err(bad_request(format!("the option {key} cannot be {}", token.kind())));
                }
                _ => {
                    let expected = "decode, expect, upgrade, protocols or compress";
                    let key = String::from_utf8_lossy(key);
                    return Err(bad_request(format!("the option {key:?} is unknown; expected {expected}")));
                }
            }
        }
        Ok(())
    }

    /// The method and the forms of a target (RFC 9112, 3.2).
    fn check_line(&self) -> Result<(), Refusal> {
        if !wire::is_token(self.method) {
            return Err(bad_request("the method is no token (RFC 9110, 9.1)"));
        }
        let form = match self.target {
            [b'/', ..] => self.method != b"CONNECT",
            b"*" => self.method == b"OPTIONS",
            target if self.method == b"CONNECT" => target.contains(&b':'),
            target => authority(target).is_some(),
        };
        if !form || !wire::is_target(self.target) {
            let expected =
                "/path?query, percent-encoded; * for OPTIONS; host:port for CONNECT; http://host/path for a proxy";
            return Err(bad_request(format!("the target must be {expected}")));
        }
        Ok(())
    }

    /// Framing is ours. So are the handshakes: what the options ask for.
    fn check_headers(&mut self) -> Result<(), Refusal> {
        let mut hosts = 0;
        for (name, value) in std::mem::take(&mut self.headers) {
            let refused = |why: &str| Err(bad_request(format!("{}: {why}", String::from_utf8_lossy(name))));
            match known(name) {
                b"host" if hosts > 0 => return refused("only once"),
                b"host" => hosts += 1,
                b"content-length" => {
                    let Ok(length) = wire::number(value) else { return refused("a number") };
                    let fits = match self.body {
                        Given::None => length == 0,
                        Given::Whole(body) => length == body.len() as u64,
                        Given::Pieces => self.length.is_none_or(|other| other == length),
                    };
                    if !fits {
                        return refused("another length than the body's");
                    }
                    self.length = Some(length);
                    continue;
                }
                b"transfer-encoding" => {
                    return refused("bodies in pieces are chunked unless their Content-Length is given");
                }
                b"expect" => return refused("ask with the option expect"),
                b"upgrade" => return refused("ask with the option upgrade"),
                // What goes without saying stays: there are servers that want to hear it. An upgrade has its own.
                b"connection" if value.eq_ignore_ascii_case(b"keep-alive") || value.eq_ignore_ascii_case(b"close") => {
                    self.closes |= value.eq_ignore_ascii_case(b"close");
                    if self.upgrade.is_some() {
                        continue;
                    }
                }
                b"connection" => return refused("nothing but close or keep-alive"),
                b"sec-websocket-key" if self.is_websocket() => {}
                b"sec-websocket-version" | b"sec-websocket-extensions" | b"sec-websocket-protocol"
                    if self.is_websocket() =>
                {
                    return refused("ask with the options protocols and compress");
                }
                _ => {}
            }
            self.headers.push((name, value));
        }
        if self.upgrade.is_some_and(|protocol| !protocol.split(|byte| *byte == b'/').all(wire::is_token)) {
            return Err(bad_request("the option upgrade must name a protocol"));
        }
        if self.is_websocket() && (self.method != b"GET" || self.body != Given::None) {
            return Err(bad_request("a WebSocket is asked for by a GET without a body (RFC 6455, 4.1)"));
        }
        if self.method == b"CONNECT" && (self.body != Given::None || self.upgrade.is_some()) {
            return Err(bad_request("CONNECT has no body and no upgrade"));
        }
        // A body in pieces never ends up beside the pieces of a lane.
        if self.upgrade.is_some() && self.body == Given::Pieces {
            return Err(bad_request("a request for an upgrade has its whole body in it"));
        }
        Ok(())
    }

    pub fn is_websocket(&self) -> bool {
        self.upgrade.is_some_and(|protocol| protocol.eq_ignore_ascii_case(b"websocket"))
    }

    pub fn may_become_lane(&self) -> bool {
        self.upgrade.is_some() || self.method == b"CONNECT"
    }

    /// RFC 9110, 9.2.2; and we have the whole of it.
    pub fn is_idempotent(&self) -> bool {
        let methods: [&[u8]; 6] = [b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"];
        methods.contains(&self.method) && self.body != Given::Pieces && !self.may_become_lane()
    }

    /// May follow a request whose reply is still to come (RFC 9112, 9.3.2).
    pub fn may_be_pipelined(&self) -> bool {
        self.is_idempotent() && self.body == Given::None && !self.closes
    }

    pub fn is_secret(&self) -> bool {
        let secret: [&[u8]; 3] = [b"authorization", b"cookie", b"proxy-authorization"];
        self.headers.iter().any(|(name, _)| secret.iter().any(|it| it.eq_ignore_ascii_case(name)))
    }

    pub fn header(&self, name: &[u8]) -> Option<&'a [u8]> {
        self.headers.iter().find(|(it, _)| it.eq_ignore_ascii_case(name)).map(|(_, value)| *value)
    }

    /// Writes the head. `lines` are those of a WebSocket.
    pub fn write(&self, settings: &Settings, lines: &[(&str, Vec<u8>)], out: &mut Vec<u8>) {
        out.extend_from_slice(self.method);
        out.push(b' ');
        if self.target.starts_with(b"/") {
            out.extend_from_slice(&settings.base);
        }
        out.extend_from_slice(self.target);
        out.extend_from_slice(b" HTTP/1.1\r\n");
        let named = match self.target {
            target if self.method == b"CONNECT" => target,
            target => authority(target).unwrap_or(&settings.host),
        };
        wire::field(out, b"Host", self.header(b"host").unwrap_or(named));
        let is_host = |name: &[u8]| name.eq_ignore_ascii_case(b"host");
        let is_key = |name: &[u8]| !lines.is_empty() && name.eq_ignore_ascii_case(b"sec-websocket-key");
        for (name, value) in self.headers.iter().filter(|(name, _)| !is_host(name) && !is_key(name)) {
            wire::field(out, name, value);
        }
        // The URL's credentials are for its own host, not for one that is reached through it.
        let is_own = matches!(self.target, [b'/' | b'*', ..]);
        if let (true, Some(credentials), None) = (is_own, &settings.authorization, self.header(b"authorization")) {
            wire::field(out, b"Authorization", credentials);
        }
        if self.decode && self.header(b"accept-encoding").is_none() {
            wire::field(out, b"Accept-Encoding", coding::ACCEPTED);
        }
        self.write_framing(out);
        for (name, value) in lines {
            wire::field(out, name.as_bytes(), value);
        }
        if let (Some(protocol), []) = (self.upgrade, lines) {
            wire::field(out, b"Upgrade", protocol);
            wire::field(out, b"Connection", b"Upgrade");
        }
        out.extend_from_slice(b"\r\n");
    }

    /// How long the body is (RFC 9110, 8.6: methods that mean to have one say so even if it is empty).
    fn write_framing(&self, out: &mut Vec<u8>) {
        let length = match (self.body, self.length) {
            (Given::Whole(body), _) => Some(body.len() as u64),
            (Given::Pieces, None) => None,
            (_, Some(length)) => Some(length),
            (Given::None, None) if matches!(self.method, b"POST" | b"PUT" | b"PATCH") => Some(0),
            (Given::None, None) => return,
        };
        match length {
            Some(length) => wire::field(out, b"Content-Length", length.to_string().as_bytes()),
            None => wire::field(out, b"Transfer-Encoding", b"chunked"),
        }
        if self.expect && length != Some(0) {
            wire::field(out, b"Expect", b"100-continue");
        }
    }

    /// The server was asked to say when the body may come.
    pub fn waits_to_send(&self) -> bool {
        self.expect
            && match self.body {
                Given::None => false,
                Given::Whole(body) => !body.is_empty(),
                Given::Pieces => self.length != Some(0),
            }
    }
}

/// Headers that most requests have at the most.
const HEADERS_USUAL: usize = 8;

/// A header's name in lower case, if it is one that is looked at; else nothing.
fn known(name: &[u8]) -> &'static [u8] {
    const KNOWN: [&[u8]; 10] = [
        b"host",
        b"content-length",
        b"transfer-encoding",
        b"expect",
        b"upgrade",
        b"connection",
        b"sec-websocket-key",
        b"sec-websocket-version",
        b"sec-websocket-extensions",
        b"sec-websocket-protocol",
    ];
    KNOWN.into_iter().find(|known| known.eq_ignore_ascii_case(name)).unwrap_or(b"")
}

/// The authority of `http://host:port/path`, without user and password.
fn authority(target: &[u8]) -> Option<&[u8]> {
    let at = target.windows(3).position(|three| three == b"://")?;
    let rest = &target[at + 3..];
    let end = rest.iter().position(|byte| b"/?".contains(byte)).unwrap_or(rest.len());
    let named = rest[..end].rsplit(|byte| *byte == b'@').next()?;
    (at > 0 && !named.is_empty()).then_some(named)
}

/// Whether an answer's Upgrade names what was asked for (RFC 9110, 7.8).
pub fn agrees(upgrade: &[u8], asked: &[u8]) -> bool {
    lists(upgrade, asked)
}
