//! What the head of a request means (RFC 9112, 3 and 6; RFC 9110, 7), strictly: what two servers could read in two ways is
//! refused.
use memchr::memchr;

use crate::proto::http::wire::{self, Framing, Headers, Length, Malformed, RequestLine};

/// A request line, and what its target names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    pub method: &'a [u8],
    pub target: &'a [u8],
    /// 10 or 11.
    pub version: u8,
    /// The target's authority, in the forms that have one.
    authority: Option<&'a [u8]>,
    /// The target from its path on; may be empty in the absolute form.
    pub path: &'a [u8],
}

/// What a head says.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    pub line: Line<'a>,
    pub headers: Headers<'a>,
    /// Of the body; never empty, and never until the conn's end.
    pub length: Length,
    /// The Host header, or the authority of the target, which goes before it (RFC 9112, 3.2.2).
    pub host: &'a [u8],
    /// The client keeps the conn open.
    pub keeps: bool,
    pub expects_continue: bool,
    /// What it would rather speak (RFC 9110, 7.8).
    pub upgrade: Option<&'a [u8]>,
}

const fn bad(what: &'static str) -> Malformed {
    Malformed { status: 400, what }
}

impl<'a> Line<'a> {
    /// Reads a request line, its CRLF included: the four forms of targets (RFC 9112, 3.2).
    pub fn read(line: &'a [u8]) -> Result<Self, Malformed> {
        let RequestLine { method, target, version } = wire::request_line(line)?;
        let line = Line { method, target, version, authority: None, path: target };
        match target {
            _ if method == b"CONNECT" => {
                let port = target.iter().rposition(|byte| *byte == b':');
                match port.is_some_and(|at| at > 0 && at + 1 < target.len()) && is_host(target) {
                    true => Ok(Line { authority: Some(target), ..line }),
                    false => Err(bad("a target of CONNECT that is not host:port")),
                }
            }
            [b'/', ..] => Ok(line),
            b"*" if method == b"OPTIONS" => Ok(line),
            b"*" => Err(bad("the target * of a method that is not OPTIONS")),
            _ => line.absolute(),
        }
    }

    fn absolute(self) -> Result<Self, Malformed> {
        let target = self.target;
        let Some(scheme) = target.windows(3).position(|three| three == b"://") else {
            return Err(bad("a target that is neither a path nor a URL"));
        };
        if !(target[..scheme].eq_ignore_ascii_case(b"http") || target[..scheme].eq_ignore_ascii_case(b"https")) {
            return Err(bad("a target that is a URL of another scheme"));
        }
        let rest = &target[scheme + 3..];
        let (host, path) = rest.split_at(rest.iter().position(|byte| b"/?".contains(byte)).unwrap_or(rest.len()));
        if host.is_empty() || !is_host(host) {
            return Err(bad("a target that is a URL without a valid host"));
        }
        Ok(Line { authority: Some(host), path, ..self })
    }

    pub fn is_connect(&self) -> bool {
        self.method == b"CONNECT"
    }
}

impl<'a> Head<'a> {
    /// What line and fields mean together.
    pub fn read(line: Line<'a>, headers: Headers<'a>) -> Result<Self, Malformed> {
        let (mut framing, mut hosts, mut host, mut expects_continue, mut upgrade) =
            (Framing::default(), 0, &b""[..], false, None);
        for (name, value) in headers.iter() {
            let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
            match name.len() {
                4 if is(b"host") => (hosts, host) = (hosts + 1, value),
                6 if is(b"expect") => expects_continue = expects(line.version, value)?,
                7 if is(b"upgrade") => upgrade = Some(value).filter(|value| !value.is_empty()),
                _ => framing.note(name, value),
            }
        }
        let length = match framing.request_length(line.version)? {
            Length::Exact(0) => Length::None,
            length => length,
        };
        if line.is_connect() && length != Length::None {
            return Err(bad("CONNECT with a body"));
        }
        // RFC 9112, 3.2.
        if hosts > 1 || hosts == 0 && line.version == 11 {
            return Err(bad("not exactly one Host header"));
        }
        if !host.is_empty() && !is_host(host) {
            return Err(bad("a Host header that is no host"));
        }
        Ok(Head {
            line,
            headers,
            length,
            host: line.authority.unwrap_or(host),
            keeps: framing.connection.persists(line.version),
            expects_continue,
            // RFC 9110, 7.8: only with the connection option, and never from HTTP/1.0.
            upgrade: upgrade.filter(|_| framing.connection.upgrade && line.version == 11),
        })
    }

    /// The fields as they are to be understood: Host is that of the target, if that has one (RFC 9112, 3.2.2).
    pub fn fields(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        let authority = self.line.authority;
        self.headers.iter().map(move |(name, value)| match authority {
            Some(host) if name.eq_ignore_ascii_case(b"host") => (name, host),
            _ => (name, value),
        })
    }
}

/// RFC 9110, 10.1.1; clients of HTTP/1.0 know no expectations.
fn expects(version: u8, value: &[u8]) -> Result<bool, Malformed> {
    match value.eq_ignore_ascii_case(b"100-continue") {
        _ if version < 11 => Ok(false),
        true => Ok(true),
        false => Err(Malformed { status: 417, what: "an expectation that is unknown" }),
    }
}

/// `uri-host [":" port]` (RFC 9110, 7.2; RFC 3986, 3.2.2).
fn is_host(text: &[u8]) -> bool {
    let (host, port) = match text {
        [b'[', ..] => match memchr(b']', text) {
            Some(end) => {
                let inside = text[1..end].iter().all(|byte| byte.is_ascii_alphanumeric() || b":.-_~".contains(byte));
                if !inside || end < 3 {
                    return false;
                }
                (b"".as_slice(), &text[end + 1..])
            }
            None => return false,
        },
        _ => text.split_at(memchr(b':', text).unwrap_or(text.len())),
    };
    let is_name_byte = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=".contains(byte);
    let is_port = match port {
        [] => true,
        [b':', digits @ ..] => {
            digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit) && number(digits) <= u32::from(u16::MAX)
        }
        _ => false,
    };
    is_port && host.iter().all(is_name_byte)
}

fn number(digits: &[u8]) -> u32 {
    digits.iter().fold(0, |number, digit| number * 10 + u32::from(digit - b'0'))
}
