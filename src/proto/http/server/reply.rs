//! What the program replies: read, checked, and written as a response (RFC 9112, 4 and 6).

use std::time::Instant;

use super::date::Clock;
use super::sink::Sink;
use crate::proto::http::value::{DEPTH_MAX, bad_request, headers, malformed, span, text, trailers};
use crate::proto::http::wire::{self, Pairs, decimal, is_value, lists};
use crate::proto::{Refusal, Span};
use crate::ring::layout::IOK_EXT_ERROR;
use crate::value::{Reader, Token};

/// What of a request decides how its response looks.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    pub is_head: bool,
    pub is_connect: bool,
    /// 10 or 11.
    pub version: u8,
    /// The conn may serve another request after this.
    pub keeps: bool,
}

/// How the body goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is none on the wire, whatever the program gives (RFC 9112, 6.3).
    Nothing,
    /// So many bytes are still to come.
    Length(u64),
    Chunked,
    /// It ends with the conn.
    Close,
}

/// What a reply's head led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begun {
    pub status: u16,
    pub framing: Framing,
    pub keeps: bool,
}

/// A reply before its headers are read.
pub struct Reply<'a> {
    pub status: u16,
    reason: &'a [u8],
    headers: Reader<'a>,
    pub body: Content<'a>,
    pub trailers: Option<Pairs<'a>>,
}

#[derive(Clone, Debug)]
pub enum Content<'a> {
    None,
    Bytes(&'a [u8]),
    Parts { first: Reader<'a>, count: u32, bytes: u64 },
    File(Span),
    Follows,
}

impl Content<'_> {
    fn bytes(&self) -> u64 {
        match self {
            Content::None | Content::Follows => 0,
            Content::Bytes(bytes) => bytes.len() as u64,
            Content::Parts { bytes, .. } => *bytes,
            Content::File(span) => span.length,
        }
    }
}

/// The program failed: its reply is an error.
pub fn is_error(body: &[u8]) -> bool {
    matches!(Reader::new(body).token(), Ok(Token::Ext(IOK_EXT_ERROR, _)))
}

impl<'a> Reply<'a> {
    pub fn read(body: &'a [u8]) -> Result<Self, Refusal> {
        let mut reader = Reader::new(body);
        let Token::Array(count @ 1..=4) = reader.token().map_err(malformed)? else {
            return Err(bad_request("a reply is [status, headers, body] or [status, headers, body, trailers]"));
        };
        let (status, reason) = status(&mut reader)?;
        const NIL: &[u8] = b"\xc0";
        let headers = if count > 1 { reader.clone() } else { Reader::new(NIL) };
        if count > 1 {
            reader.skip(DEPTH_MAX).map_err(malformed)?;
        }
        let body = if count > 2 { content(&mut reader)? } else { Content::None };
        let mut last = reader.clone();
        if count > 3 {
            reader.skip(DEPTH_MAX).map_err(malformed)?;
        }
        if !reader.is_at_end() {
            return Err(bad_request("bytes follow the reply"));
        }
        let has_trailers = count > 3 && last.clone().token() != Ok(Token::Nil);
        let trailers = if has_trailers { Some(trailers(&mut last)?) } else { None };
        Ok(Reply { status, reason, headers, body, trailers })
    }

    pub fn is_interim(&self) -> bool {
        self.status < 200 && self.status != 101
    }

    /// The first value of a header.
    pub fn header(&self, name: &[u8]) -> Option<&'a [u8]> {
        let mut found = None;
        let _ = headers(&mut self.headers.clone(), |given, value| {
            if found.is_none() && given.eq_ignore_ascii_case(name) {
                found = Some(value);
            }
            Ok(())
        });
        found
    }

    /// Writes a 1xx response: it has no body and leaves everything as it is (RFC 9110, 15.2). `lines`: what goes with a
    /// 101, of which the program's own headers of those names are left out.
    pub fn write_interim(&self, lines: &[(&str, Vec<u8>)], wire: &mut Vec<u8>) -> Result<(), Refusal> {
        status_line(wire, self.status, self.reason);
        headers(&mut self.headers.clone(), |name, value| {
            refuse_coding(name)?;
            let is_ours = lines.iter().any(|(ours, _)| ours.as_bytes().eq_ignore_ascii_case(name));
            let is_hop = [b"connection".as_slice(), b"content-length"].iter().any(|it| name.eq_ignore_ascii_case(it));
            if !is_ours && !is_hop {
                wire::field(wire, name, value);
            }
            Ok(())
        })?;
        lines.iter().for_each(|(name, value)| wire::field(wire, name.as_bytes(), value));
        wire.extend_from_slice(b"\r\n");
        Ok(())
    }

    /// Writes a final response up to its body. After an error the caller cuts the wire back.
    pub fn write_head(&self, asked: Asked, ours: &mut Ours<'_>, wire: &mut Vec<u8>) -> Result<Begun, Refusal> {
        status_line(wire, self.status, self.reason);
        let mut seen = Seen::default();
        headers(&mut self.headers.clone(), |name, value| {
            if seen.note(name, value)? {
                wire.extend_from_slice(name);
                wire.extend_from_slice(b": ");
                wire.extend_from_slice(value);
                wire.extend_from_slice(b"\r\n");
            }
            Ok(())
        })?;
        let bodiless = asked.is_head || matches!(self.status, 100..=199 | 204 | 205 | 304);
        let is_tunnel = asked.is_connect && matches!(self.status, 200..=299);
        let follows = matches!(self.body, Content::Follows);
        let given = self.body.bytes();
        let mut keeps = asked.keeps && !seen.closes;
        let framing = if is_tunnel {
            // RFC 9110, 9.3.6: neither length nor coding.
            keeps = false;
            Framing::Close
        } else if bodiless {
            // RFC 9110, 8.6: the length that GET would have told, none at all with 204, and nothing with 205 (15.3.6).
            let length = match (self.status, seen.length) {
                (204 | 100..=199, _) => None,
                (205, _) => Some(0),
                (_, Some(length)) => Some(length),
                (304, None) => None,
                (_, None) => (!follows).then_some(given),
            };
            if let Some(length) = length {
                content_length(wire, length);
            }
            Framing::Nothing
        } else if let Some(length) = seen.length {
            content_length(wire, length);
            Framing::Length(length)
        } else if asked.version < 11 && follows {
            keeps = false;
            Framing::Close
        } else if asked.version >= 11 && (follows || self.trailers.is_some()) {
            wire.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
            Framing::Chunked
        } else {
            content_length(wire, given);
            Framing::Length(given)
        };
        if !is_tunnel {
            ours.finish(asked.version, keeps, !seen.date, !seen.server, wire);
        } else {
            wire.extend_from_slice(b"\r\n");
        }
        Ok(Begun { status: self.status, framing, keeps })
    }
}

fn status<'a>(reader: &mut Reader<'a>) -> Result<(u16, &'a [u8]), Refusal> {
    const EXPECTED: &str = "a status is a number from 100 to 999, or text such as \"200 OK\"";
    match reader.token().map_err(malformed)? {
        Token::Int(status @ 100..=999) => Ok((status as u16, reason(status as u16).as_bytes())),
        Token::Str(line) | Token::Bin(line) => {
            let Some((digits @ [b'1'..=b'9', b'0'..=b'9', b'0'..=b'9'], rest)) = line.split_first_chunk::<3>() else {
                return Err(bad_request(EXPECTED));
            };
            let status = digits.iter().fold(0, |number, digit| number * 10 + u16::from(digit - b'0'));
            match rest {
                [] => Ok((status, reason(status).as_bytes())),
                [b' ', reason @ ..] if is_value(reason) => Ok((status, reason)),
                _ => Err(bad_request(EXPECTED)),
            }
        }
        _ => Err(bad_request(EXPECTED)),
    }
}

fn content<'a>(reader: &mut Reader<'a>) -> Result<Content<'a>, Refusal> {
    let start = reader.clone();
    Ok(match reader.token().map_err(malformed)? {
        Token::Nil | Token::Bool(false) => Content::None,
        Token::Bool(true) => Content::Follows,
        Token::Str(bytes) | Token::Bin(bytes) => Content::Bytes(bytes),
        Token::Array(count) => {
            let first = reader.clone();
            let mut bytes = 0;
            for _ in 0..count {
                bytes += text(reader.token().map_err(malformed)?, "a part of a body")?.len() as u64;
            }
            Content::Parts { first, count, bytes }
        }
        Token::Map(_) => {
            *reader = start;
            Content::File(span(reader)?)
        }
        other => return Err(bad_request(format!("{} is no body", other.kind()))),
    })
}

/// How a body ends is for us to say.
fn refuse_coding(name: &[u8]) -> Result<(), Refusal> {
    match name.eq_ignore_ascii_case(b"transfer-encoding") {
        true => Err(bad_request("Transfer-Encoding is not the program's to give")),
        false => Ok(()),
    }
}

/// What was seen among the headers of the program.
#[derive(Default)]
struct Seen {
    length: Option<u64>,
    closes: bool,
    date: bool,
    server: bool,
}

impl Seen {
    /// False: the header is not written as it is.
    #[inline]
    fn note(&mut self, name: &[u8], value: &[u8]) -> Result<bool, Refusal> {
        let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
        match name.len() {
            4 if is(b"date") => self.date = true,
            6 if is(b"server") => self.server = true,
            10 if is(b"connection") => {
                self.closes |= lists(value, b"close");
                return Ok(false);
            }
            10 if is(b"keep-alive") => return Ok(false),
            14 if is(b"content-length") => {
                let number = wire::number(value).map_err(|why| bad_request(why.what))?;
                if self.length.is_some_and(|length| length != number) {
                    return Err(bad_request("there are two Content-Length headers"));
                }
                self.length = Some(number);
                return Ok(false);
            }
            17 => refuse_coding(name)?,
            _ => {}
        }
        Ok(true)
    }
}

/// What the conn adds to each head.
pub struct Ours<'a> {
    pub clock: &'a mut Clock,
    pub server: &'a [u8],
    pub now: Instant,
}

impl Ours<'_> {
    fn finish(&mut self, version: u8, keeps: bool, date: bool, server: bool, wire: &mut Vec<u8>) {
        if date {
            wire.extend_from_slice(self.clock.line(self.now));
        }
        if server && !self.server.is_empty() {
            wire.extend_from_slice(b"Server: ");
            wire.extend_from_slice(self.server);
            wire.extend_from_slice(b"\r\n");
        }
        wire.extend_from_slice(match (keeps, version) {
            (false, _) => b"Connection: close\r\n\r\n".as_slice(),
            (true, 11) => b"\r\n",
            (true, _) => b"Connection: keep-alive\r\n\r\n",
        });
    }

    /// A whole response of our own, with a line of text.
    pub fn own(&mut self, asked: Asked, status: u16, line: &str, extra: &str, wire: &mut Vec<u8>) {
        status_line(wire, status, reason(status).as_bytes());
        wire.extend_from_slice(b"Content-Type: text/plain; charset=utf-8\r\n");
        wire.extend_from_slice(extra.as_bytes());
        content_length(wire, line.len() as u64 + 1);
        self.finish(asked.version, asked.keeps, true, true, wire);
        if !asked.is_head {
            wire.extend_from_slice(line.as_bytes());
            wire.push(b'\n');
        }
    }
}

fn status_line(wire: &mut Vec<u8>, status: u16, reason: &[u8]) {
    if status == 200 && reason == b"OK" {
        return wire.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
    }
    wire.extend_from_slice(b"HTTP/1.1 ");
    decimal(wire, status.into());
    wire.push(b' ');
    wire.extend_from_slice(reason);
    wire.extend_from_slice(b"\r\n");
}

fn content_length(wire: &mut Vec<u8>, length: u64) {
    wire.extend_from_slice(b"Content-Length: ");
    decimal(wire, length);
    wire.extend_from_slice(b"\r\n");
}

/// Writes a body or a piece of one as its framing wants it. An error: the program gave more than it had said, and what
/// fits was written.
pub fn write_content(content: &Content<'_>, framing: &mut Framing, sink: &mut Sink<'_>) -> Result<u64, Refusal> {
    let bytes = content.bytes();
    let fits = match framing {
        Framing::Nothing => 0,
        Framing::Length(left) => bytes.min(*left),
        Framing::Chunked | Framing::Close => bytes,
    };
    if fits > 0 {
        if *framing == Framing::Chunked {
            wire::chunk_head(sink.wire, fits);
        }
        match content {
            Content::None | Content::Follows => {}
            Content::Bytes(bytes) => sink.wire.extend_from_slice(&bytes[..fits as usize]),
            Content::Parts { first, count, .. } => {
                let (mut reader, mut left) = (first.clone(), fits as usize);
                for _ in 0..*count {
                    let part = text(reader.token().map_err(malformed)?, "a part of a body")?;
                    let part = &part[..part.len().min(left)];
                    sink.wire.extend_from_slice(part);
                    left -= part.len();
                }
            }
            Content::File(span) => sink.file(Span { length: fits, ..*span }),
        }
        if *framing == Framing::Chunked {
            sink.wire.extend_from_slice(b"\r\n");
        }
    }
    if let Framing::Length(left) = framing {
        *left -= fits;
        if bytes > fits {
            return Err(bad_request("the body is longer than its Content-Length: the rest was cut off"));
        }
    }
    Ok(fits)
}

/// The usual reason phrase (RFC 9110, 15; the IANA registry).
pub fn reason(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        102 => "Processing",
        103 => "Early Hints",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        203 => "Non-Authoritative Information",
        204 => "No Content",
        205 => "Reset Content",
        206 => "Partial Content",
        207 => "Multi-Status",
        208 => "Already Reported",
        226 => "IM Used",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        305 => "Use Proxy",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        423 => "Locked",
        424 => "Failed Dependency",
        425 => "Too Early",
        426 => "Upgrade Required",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        451 => "Unavailable For Legal Reasons",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        506 => "Variant Also Negotiates",
        507 => "Insufficient Storage",
        508 => "Loop Detected",
        510 => "Not Extended",
        511 => "Network Authentication Required",
        _ => "",
    }
}
