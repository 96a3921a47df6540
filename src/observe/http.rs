//! The server's side of one HTTP/1.1 connection, for small questions without a body: GET and HEAD.
//!
//! Bytes come in by [`Session::handle_input`], [`Session::poll`] tells what was asked, [`Session::answer`] writes what is
//! to be sent. One request is under way at a time; what a client sends ahead waits, here or in its socket. No clock and
//! no socket: whoever drives a session decides how long it waits for a head.
//!
//! Rules are those of RFC 9110 (semantics) and RFC 9112 (messages). A head has at most [`HEAD_BYTES_MAX`] bytes and
//! [`HEADERS_MAX`] fields. A message whose framing is in doubt ends the connection, as does one with a body.

use std::net::{Ipv4Addr, Ipv6Addr};

use memchr::memmem;

/// The longest head of a request.
pub const HEAD_BYTES_MAX: usize = 8 << 10;
/// The most fields in one head.
pub const HEADERS_MAX: usize = 100;

/// What the page may do: its own style and script, and questions to where it came from.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
     connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Methods of RFC 9110, section 9, and RFC 5789 that no resource here allows.
const METHODS_REFUSED: [&str; 7] = ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT"];

/// Which `Host` is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hosts {
    /// Only who may open a unix socket can ask.
    Any,
    /// An address, `localhost`, or this name. A browser that a stranger's name was bent to this address (DNS rebinding)
    /// sends that name, and is refused.
    Known(String),
}

/// A question that is well-formed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Percent-decoded, with its leading slash.
    pub path: String,
    /// What follows the `?`, as it was sent.
    pub query: String,
    /// The values of `Accept`, between commas.
    pub accept: String,
}

/// A question that is not answered, and why. It wants [`Session::answer`] like any other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub status: u16,
    pub text: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Request(Request),
    Refusal(Refusal),
}

/// How the answer that is due is written.
#[derive(Clone, Copy, Debug, Default)]
struct Due {
    /// HEAD: everything but the body.
    head: bool,
    close: bool,
    /// A client of HTTP/1.0 has asked for more than one answer.
    says_keep_alive: bool,
}

/// One connection.
#[derive(Debug)]
pub struct Session {
    hosts: Hosts,
    input: Vec<u8>,
    /// No head ends before this byte of `input`.
    searched: usize,
    /// The request line was looked at, so that what is not HTTP is told so at once.
    begun: bool,
    due: Option<Due>,
    closing: bool,
}

/// What a head came to: what is due after its answer, and what it asks.
type Read = (Due, Result<Request, Refusal>);

impl Session {
    pub fn new(hosts: Hosts) -> Self {
        Session { hosts, input: Vec::new(), searched: 0, begun: false, due: None, closing: false }
    }

    /// Bytes that are taken for now. 0: an answer is due first, or [`Session::poll`] was not asked.
    pub fn room(&self) -> usize {
        if self.due.is_some() || self.closing { 0 } else { HEAD_BYTES_MAX - self.input.len() }
    }

    /// Takes input, at most [`Session::room`] of it; more is cut off.
    pub fn handle_input(&mut self, bytes: &[u8]) {
        let count = bytes.len().min(self.room());
        self.input.extend_from_slice(&bytes[..count]);
    }

    /// The client has begun a head that is not complete.
    pub fn is_in_head(&self) -> bool {
        self.due.is_none() && !self.closing && !self.input.is_empty()
    }

    /// The last answer was written: nothing more is read.
    pub fn is_closing(&self) -> bool {
        self.closing
    }

    /// The next question. None: input is missing, or an answer is due.
    pub fn poll(&mut self) -> Option<Event> {
        if self.due.is_some() || self.closing {
            return None;
        }
        self.skip_empty_lines();
        match self.read_head() {
            Ok(None) => None,
            Ok(Some((due, outcome))) => {
                self.due = Some(due);
                Some(match outcome {
                    Ok(request) => Event::Request(request),
                    Err(refusal) => Event::Refusal(refusal),
                })
            }
            Err(refusal) => Some(self.refuse(refusal)),
        }
    }

    /// The head did not come in time: RFC 9110, section 15.5.9.
    pub fn time_out(&mut self) -> Event {
        self.refuse(refusal(408, "the head of the request did not come in time"))
    }

    fn refuse(&mut self, refusal: Refusal) -> Event {
        self.input.clear();
        self.due = Some(Due { close: true, ..Due::default() });
        Event::Refusal(refusal)
    }

    /// No answer after the one that is due.
    pub fn close_after_answer(&mut self) {
        if let Some(due) = &mut self.due {
            due.close = true;
        }
    }

    /// Writes the answer that is due. Of no effect when none is.
    pub fn answer(&mut self, out: &mut Vec<u8>, status: u16, content_type: &str, body: &[u8]) {
        let Some(due) = self.due.take() else { return };
        self.closing = due.close;
        out.extend_from_slice(head(status, content_type, body.len(), due).as_bytes());
        if !due.head {
            out.extend_from_slice(body);
        }
    }

    /// RFC 9112, section 2.2: empty lines before a request line are ignored.
    fn skip_empty_lines(&mut self) {
        let mut at = 0;
        loop {
            match &self.input[at..] {
                [b'\r', b'\n', ..] => at += 2,
                [b'\n', ..] => at += 1,
                _ => break,
            }
        }
        if at > 0 {
            self.input.drain(..at);
            self.searched = 0;
        }
    }

    /// The head in front of the input. An error leaves the framing in doubt.
    fn read_head(&mut self) -> Result<Option<Read>, Refusal> {
        if self.input.first().is_some_and(|byte| !is_token(*byte) && (*byte != b'\r' || self.input.len() > 1)) {
            return Err(refusal(400, "this is no HTTP request"));
        }
        let read = match self.find_end() {
            true => parse(&self.input, &self.hosts)?,
            false => self.look_at_line()?,
        };
        let Some(read) = read else {
            return if self.input.len() < HEAD_BYTES_MAX { Ok(None) } else { Err(self.too_long()) };
        };
        self.input.drain(..read.bytes);
        self.searched = 0;
        self.begun = false;
        Ok(Some((read.due, read.outcome)))
    }

    /// Errors of the request line are told before the rest is there.
    fn look_at_line(&mut self) -> Result<Option<Head>, Refusal> {
        let end = if self.begun { None } else { memchr::memchr(b'\n', &self.input) };
        let Some(end) = end else { return Ok(None) };
        self.begun = true;
        parse(&self.input[..=end], &self.hosts)
    }

    /// True if the input may hold the end of a head: an empty line.
    fn find_end(&mut self) -> bool {
        let from = self.searched.saturating_sub(2);
        self.searched = self.input.len();
        let fresh = &self.input[from..];
        memmem::find(fresh, b"\n\r\n").is_some() || memmem::find(fresh, b"\n\n").is_some()
    }

    fn too_long(&self) -> Refusal {
        match memchr::memchr(b'\n', &self.input) {
            Some(_) => refusal(431, format!("the head of a request has at most {HEAD_BYTES_MAX} bytes")),
            None => refusal(414, format!("a request line has less than {HEAD_BYTES_MAX} bytes")),
        }
    }
}

fn refusal(status: u16, text: impl Into<String>) -> Refusal {
    Refusal { status, text: text.into() }
}

/// `tchar` of RFC 9110, section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// A complete head.
struct Head {
    bytes: usize,
    due: Due,
    outcome: Result<Request, Refusal>,
}

/// None: the head is not complete.
fn parse(input: &[u8], hosts: &Hosts) -> Result<Option<Head>, Refusal> {
    let mut fields = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut head = httparse::Request::new(&mut fields);
    let bytes = match head.parse(input) {
        Ok(httparse::Status::Partial) => return Ok(None),
        Ok(httparse::Status::Complete(bytes)) => bytes,
        Err(httparse::Error::TooManyHeaders) => {
            return Err(refusal(431, format!("a request has at most {HEADERS_MAX} fields")));
        }
        Err(httparse::Error::Version) => return Err(refusal(505, "the version is HTTP/1.1 or HTTP/1.0")),
        Err(error) => return Err(refusal(400, format!("bad request: {error}"))),
    };
    let fields = Fields::read(head.headers)?;
    let is_1_1 = head.version == Some(1);
    let method = head.method.unwrap_or_default();
    let target = Target::read(head.path.unwrap_or_default(), method)?;
    let host = host(&fields, target.authority, is_1_1)?;
    let keeps = if is_1_1 { !fields.close } else { fields.keep_alive && !fields.close };
    let due = Due { head: method == "HEAD", close: !keeps || fields.has_body, says_keep_alive: keeps && !is_1_1 };
    let outcome = judge(method, hosts, host, fields.has_body).map(|()| Request {
        path: decode(target.path),
        query: target.query.into(),
        accept: fields.accept,
    });
    Ok(Some(Head { bytes, due, outcome }))
}

/// What a well-formed head is refused for.
fn judge(method: &str, hosts: &Hosts, host: &str, has_body: bool) -> Result<(), Refusal> {
    if !matches!(method, "GET" | "HEAD") {
        // RFC 9110, section 9.1: 405 for a method that is known, 501 for one that is not.
        let status = if METHODS_REFUSED.contains(&method) { 405 } else { 501 };
        return Err(refusal(status, format!("{method}: only GET and HEAD are answered")));
    }
    if !is_host_of(hosts, host) {
        let text = format!("host {host:?}: expected an IP address, localhost or the host of admin=");
        return Err(refusal(421, text));
    }
    if has_body {
        return Err(refusal(413, "a question has no body"));
    }
    Ok(())
}

/// What the fields of a head say.
#[derive(Debug, Default)]
struct Fields {
    host: Option<String>,
    accept: String,
    close: bool,
    keep_alive: bool,
    has_body: bool,
}

impl Fields {
    fn read(headers: &[httparse::Header<'_>]) -> Result<Self, Refusal> {
        let mut fields = Fields::default();
        let (mut length, mut encoded) = (false, false);
        for header in headers {
            let value = String::from_utf8_lossy(header.value);
            let value = value.trim_matches([' ', '\t']);
            match header.name.to_ascii_lowercase().as_str() {
                "host" if fields.host.is_some() => return Err(refusal(400, "more than one Host")),
                "host" => fields.host = Some(value.into()),
                "accept" if fields.accept.is_empty() => fields.accept = value.into(),
                "accept" => fields.accept = format!("{}, {value}", fields.accept),
                "connection" => fields.read_connection(value),
                "content-length" => {
                    fields.has_body |= length_of(value, length)? > 0;
                    length = true;
                }
                "transfer-encoding" => encoded = true,
                _ => {}
            }
        }
        // RFC 9112, section 6.1: both together are an attempt to smuggle a request.
        if length && encoded {
            return Err(refusal(400, "Content-Length beside Transfer-Encoding"));
        }
        fields.has_body |= encoded;
        Ok(fields)
    }

    fn read_connection(&mut self, value: &str) {
        for word in value.split(',').map(|word| word.trim_matches([' ', '\t'])) {
            self.close |= word.eq_ignore_ascii_case("close");
            self.keep_alive |= word.eq_ignore_ascii_case("keep-alive");
        }
    }
}

/// RFC 9112, section 6.3: a length that is no number, or given twice, leaves the framing in doubt.
fn length_of(value: &str, given: bool) -> Result<u64, Refusal> {
    let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    match value.parse() {
        Ok(length) if digits && !given => Ok(length),
        // More than a number holds is more than we take.
        Err(_) if digits && !given => Ok(u64::MAX),
        _ => Err(refusal(400, "Content-Length is one whole number")),
    }
}

/// What was asked for: RFC 9112, section 3.2.
struct Target<'a> {
    /// Of the absolute form.
    authority: Option<&'a str>,
    path: &'a str,
    query: &'a str,
}

impl<'a> Target<'a> {
    fn read(text: &'a str, method: &str) -> Result<Self, Refusal> {
        let (authority, rest) = match text.split_once("://") {
            _ if text.starts_with('/') => (None, text),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => {
                let end = rest.find(['/', '?']).unwrap_or(rest.len());
                (Some(&rest[..end]), &rest[end..])
            }
            // OPTIONS * and CONNECT host:port, which are refused for their methods.
            _ if matches!(method, "OPTIONS" | "CONNECT") => (None, "/"),
            _ => return Err(refusal(400, format!("{text:?}: expected a path, as in /state"))),
        };
        if rest.contains('#') {
            return Err(refusal(400, "a request has no fragment (#)"));
        }
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        Ok(Target { authority, path: if path.is_empty() { "/" } else { path }, query })
    }
}

/// The host that was asked: RFC 9112, section 3.2, wants one in HTTP/1.1, and prefers the target's own.
fn host<'a>(fields: &'a Fields, authority: Option<&'a str>, is_1_1: bool) -> Result<&'a str, Refusal> {
    let given = match &fields.host {
        Some(host) => host.as_str(),
        None if is_1_1 => return Err(refusal(400, "no Host")),
        None => "",
    };
    let host = authority.unwrap_or(given);
    let name = without_port(given).and(without_port(host));
    name.ok_or_else(|| refusal(400, format!("{host:?}: expected a host and perhaps a port")))
}

/// `uri-host [":" port]` without the port; an address in brackets keeps them.
fn without_port(host: &str) -> Option<&str> {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => host.split_at(rest.find(']')? + 2),
        None => host.split_at(host.find(':').unwrap_or(host.len())),
    };
    let port_fits = port.is_empty() || port.strip_prefix(':')?.bytes().all(|byte| byte.is_ascii_digit());
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=[]:".contains(&byte);
    (port_fits && name.bytes().all(fits)).then_some(name)
}

fn is_host_of(hosts: &Hosts, host: &str) -> bool {
    let Hosts::Known(known) = hosts else { return true };
    let literal = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    match literal {
        Some(literal) => literal.parse::<Ipv6Addr>().is_ok(),
        None => {
            host.parse::<Ipv4Addr>().is_ok()
                || host.eq_ignore_ascii_case("localhost")
                || !host.is_empty() && host.eq_ignore_ascii_case(known)
        }
    }
}

fn decode(path: &str) -> String {
    percent_encoding::percent_decode_str(path).decode_utf8_lossy().into_owned()
}

fn head(status: u16, content_type: &str, length: usize, due: Due) -> String {
    let mut text = format!(
        "HTTP/1.1 {status} {}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\nCache-Control: no-store\r\n\
         X-Content-Type-Options: nosniff\r\nContent-Security-Policy: {CONTENT_SECURITY_POLICY}\r\n",
        reason(status)
    );
    if status == 405 {
        text.push_str("Allow: GET, HEAD\r\n");
    }
    if due.close {
        text.push_str("Connection: close\r\n");
    } else if due.says_keep_alive {
        text.push_str("Connection: keep-alive\r\n");
    }
    text.push_str("\r\n");
    text
}

/// The phrases of RFC 9110, section 15.
fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        414 => "URI Too Long",
        421 => "Misdirected Request",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}

#[cfg(test)]
mod tests;
