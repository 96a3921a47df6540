//! How a request's head is told to the program: as a message, as the variables of CGI, or as a scope of ASGI.

use std::borrow::Cow;
use std::net::SocketAddr;

use memchr::memchr;
use percent_encoding::percent_decode;

use super::head::Head;
use super::options::Form;
use crate::proto::Transport;
use crate::proto::websocket::handshake::Offer;
use crate::value::write;

/// What is told of a conn with each of its requests.
#[derive(Debug, Default)]
pub struct About {
    pub client: Option<SocketAddr>,
    /// `ip:port`, or nothing for unix sockets.
    client_text: String,
    client_ip: String,
    client_port: String,
    local: Option<SocketAddr>,
    local_ip: String,
    secure: bool,
}

impl About {
    pub fn new(transport: &Transport) -> Self {
        let mut about = About { secure: transport.secure, ..About::default() };
        about.set(transport.peer, transport.local);
        about
    }

    /// Whom the transport, or a proxy, connects with whom.
    pub fn set(&mut self, client: Option<SocketAddr>, local: Option<SocketAddr>) {
        let ip = |address: Option<SocketAddr>| address.map(|address| address.ip().to_canonical().to_string());
        self.client = client;
        self.local = local;
        self.client_ip = ip(client).unwrap_or_default();
        self.local_ip = ip(local).unwrap_or_default();
        self.client_port = client.map(|client| client.port().to_string()).unwrap_or_default();
        let canonical = client.map(|client| SocketAddr::new(client.ip().to_canonical(), client.port()));
        self.client_text = canonical.map(|client| client.to_string()).unwrap_or_default();
    }

    fn default_port(&self) -> u16 {
        if self.secure { 443 } else { 80 }
    }
}

/// One request's head, and what it came with.
pub struct Told<'a> {
    pub head: &'a Head<'a>,
    pub about: &'a About,
    /// It is a valid handshake of WebSocket.
    pub offer: Option<&'a Offer>,
}

impl Told<'_> {
    /// Appends the head in that form.
    pub fn write(&self, form: Form, out: &mut Vec<u8>) {
        match form {
            Form::Message => self.message(out),
            Form::Cgi => self.cgi(out),
            Form::Scope => self.scope(out),
        }
    }

    fn message(&self, out: &mut Vec<u8>) {
        let head = self.head;
        write::array(out, 5);
        write::str(out, head.line.method);
        write::str(out, head.line.target);
        write::array(out, head.headers.len() as u32);
        for (name, value) in head.fields() {
            write::array(out, 2);
            write::bin(out, name);
            write::bin(out, value);
        }
        write::uint(out, head.line.version.into());
        write::str(out, self.about.client_text.as_bytes());
    }

    /// The path of the target, never empty, and what follows its question mark.
    fn path_and_query(&self) -> (&[u8], &[u8]) {
        let path = self.head.line.path;
        let (path, query) = match memchr(b'?', path) {
            Some(at) => (&path[..at], &path[at + 1..]),
            None => (path, &path[path.len()..]),
        };
        (if path.is_empty() { b"/" } else { path }, query)
    }

    /// Host and port as the client names them.
    fn host_and_port(&self) -> (&[u8], Option<u16>) {
        let host = self.head.host;
        let colon = host.iter().rposition(|byte| *byte == b':').filter(|at| !host[*at..].contains(&b']'));
        let (name, port) = colon.map_or((host, &host[host.len()..]), |at| (&host[..at], &host[at + 1..]));
        let port = std::str::from_utf8(port).ok().and_then(|port| port.parse().ok());
        (name, port)
    }

    fn server_name(&self) -> &[u8] {
        match (self.host_and_port().0, self.about.local_ip.as_bytes()) {
            (b"", b"") => b"localhost",
            (b"", local) => local,
            (name, _) => name,
        }
    }

    fn server_port(&self) -> u16 {
        let local = self.about.local.map(|local| local.port());
        local.or(self.host_and_port().1).unwrap_or(self.about.default_port())
    }

    fn cgi(&self, out: &mut Vec<u8>) {
        let Told { head, about, .. } = *self;
        let (path, query) = self.path_and_query();
        let open = write::map_open(out);
        let mut count = 0;
        let mut pair = |out: &mut Vec<u8>, name: &[u8], value: &[u8]| {
            write::str(out, name);
            latin1(out, value);
            count += 1;
        };
        pair(out, b"REQUEST_METHOD", head.line.method);
        pair(out, b"SCRIPT_NAME", b"");
        pair(out, b"PATH_INFO", &Cow::from(percent_decode(path)));
        pair(out, b"QUERY_STRING", query);
        pair(out, b"REQUEST_URI", head.line.target);
        pair(out, b"RAW_URI", head.line.target);
        pair(out, b"SERVER_NAME", self.server_name());
        pair(out, b"SERVER_PORT", self.server_port().to_string().as_bytes());
        pair(out, b"SERVER_PROTOCOL", if head.line.version == 11 { b"HTTP/1.1" } else { b"HTTP/1.0" });
        pair(out, b"REMOTE_ADDR", about.client_ip.as_bytes());
        pair(out, b"REMOTE_PORT", about.client_port.as_bytes());
        if about.secure {
            pair(out, b"HTTPS", b"on");
        }
        let mut name = Vec::with_capacity(64);
        let mut joined = Vec::new();
        for (index, (given, mut value)) in head.fields().enumerate() {
            // A name with an underscore would pass for one with a hyphen; Proxy for the variable of a proxy (httpoxy).
            if given.contains(&b'_') || given.eq_ignore_ascii_case(b"proxy") {
                continue;
            }
            let is_same = |other: &(&[u8], &[u8])| other.0.eq_ignore_ascii_case(given);
            if head.fields().take(index).any(|other| is_same(&other)) {
                continue;
            }
            variable(&mut name, given);
            let mut others = head.fields().skip(index + 1).filter(is_same).peekable();
            if others.peek().is_some() {
                let comma: &[u8] = if given.eq_ignore_ascii_case(b"cookie") { b"; " } else { b"," };
                joined.clear();
                joined.extend_from_slice(value);
                for (_, other) in others {
                    joined.extend_from_slice(comma);
                    joined.extend_from_slice(other);
                }
                value = &joined;
            }
            pair(out, &name, value);
        }
        write::count_close(out, open, count);
    }

    fn scope(&self, out: &mut Vec<u8>) {
        let Told { head, about, offer } = *self;
        let (path, query) = self.path_and_query();
        write::map(out, 10);
        let text = |out: &mut Vec<u8>, name: &[u8], value: &[u8]| {
            write::str(out, name);
            write::str(out, value);
        };
        text(out, b"type", if offer.is_some() { b"websocket" } else { b"http" });
        text(out, b"http_version", if head.line.version == 11 { b"1.1" } else { b"1.0" });
        let scheme: &[u8] = match (offer.is_some(), about.secure) {
            (false, false) => b"http",
            (false, true) => b"https",
            (true, false) => b"ws",
            (true, true) => b"wss",
        };
        text(out, b"scheme", scheme);
        text(out, b"path", percent_decode(path).decode_utf8_lossy().as_bytes());
        write::str(out, b"raw_path");
        write::bin(out, path);
        write::str(out, b"query_string");
        write::bin(out, query);
        write::str(out, b"headers");
        write::array(out, head.headers.len() as u32);
        for (name, value) in head.fields() {
            write::array(out, 2);
            write::bin(out, name);
            let start = out.len() - name.len();
            out[start..].make_ascii_lowercase();
            write::bin(out, value);
        }
        write::str(out, b"client");
        match about.client {
            Some(client) => {
                write::array(out, 2);
                write::str(out, about.client_ip.as_bytes());
                write::uint(out, client.port().into());
            }
            None => write::nil(out),
        }
        write::str(out, b"server");
        write::array(out, 2);
        write::str(out, self.server_name());
        write::uint(out, self.server_port().into());
        match offer {
            None => text(out, b"method", head.line.method),
            Some(offer) => {
                write::str(out, b"subprotocols");
                write::array(out, offer.protocols.len() as u32);
                offer.protocols.iter().for_each(|protocol| write::str(out, protocol));
            }
        }
    }
}

/// `Content-Type` as CONTENT_TYPE, `Accept` as HTTP_ACCEPT (RFC 3875, 4.1.18).
fn variable(name: &mut Vec<u8>, given: &[u8]) {
    name.clear();
    let is_bare = given.eq_ignore_ascii_case(b"content-type") || given.eq_ignore_ascii_case(b"content-length");
    if !is_bare {
        name.extend_from_slice(b"HTTP_");
    }
    name.extend(given.iter().map(|byte| if *byte == b'-' { b'_' } else { byte.to_ascii_uppercase() }));
}

/// Text whose characters are these bytes, as WSGI wants them.
fn latin1(out: &mut Vec<u8>, bytes: &[u8]) {
    if bytes.is_ascii() {
        return write::str(out, bytes);
    }
    let text: String = bytes.iter().map(|byte| char::from(*byte)).collect();
    write::str(out, text.as_bytes());
}
