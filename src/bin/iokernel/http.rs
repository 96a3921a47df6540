//! GET over a socket: one request a connection, HTTP/1.1 (RFC 9112), with one deadline over everything.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use super::target::Address;

const BODY_BYTES_MAX: usize = 64 << 20;
const HEAD_BYTES_MAX: usize = 64 << 10;
const HEADERS_MAX: usize = 64;

/// An answer, whatever its status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
}

/// Asks `address` for `path`, with its query; `accept` is empty or what the request accepts.
pub fn get(address: &Address, path: &str, accept: &str, timeout: Duration) -> io::Result<Answer> {
    let deadline = Instant::now() + timeout;
    match address {
        Address::Tcp(host, port) => talk(tcp(host, *port, deadline)?, address, path, accept, deadline),
        Address::Path(name) => talk(unix(&SocketAddrUnix::new(name)?, deadline)?, address, path, accept, deadline),
        Address::Abstract(name) => {
            let name = SocketAddrUnix::new_abstract_name(name.as_bytes())?;
            talk(unix(&name, deadline)?, address, path, accept, deadline)
        }
    }
}

/// What both kinds of sockets can do.
trait Stream: Read + Write {
    fn limit(&self, left: Duration) -> io::Result<()>;
}

impl Stream for TcpStream {
    fn limit(&self, left: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(left))?;
        self.set_write_timeout(Some(left))
    }
}

impl Stream for UnixStream {
    fn limit(&self, left: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(left))?;
        self.set_write_timeout(Some(left))
    }
}

fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(too_late()) } else { Ok(left) }
}

fn too_late() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "no answer in time")
}

fn tcp(host: &str, port: u16, deadline: Instant) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    for place in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&place, left(deadline)?) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// std cannot bound the time of a connect to a unix socket, and one with a full backlog would keep us forever.
fn unix(place: &SocketAddrUnix, deadline: Instant) -> io::Result<UnixStream> {
    let socket: OwnedFd = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    set_socket_timeout(&socket, Timeout::Send, Some(left(deadline)?))?;
    connect(&socket, place).map_err(|error| match io::Error::from(error) {
        error if error.kind() == io::ErrorKind::WouldBlock => too_late(),
        error => error,
    })?;
    Ok(UnixStream::from(socket))
}

fn talk(mut stream: impl Stream, to: &Address, path: &str, accept: &str, deadline: Instant) -> io::Result<Answer> {
    let host = match to {
        Address::Tcp(..) => to.to_string(),
        _ => "localhost".into(),
    };
    let accept = if accept.is_empty() { String::new() } else { format!("Accept: {accept}\r\n") };
    stream.limit(left(deadline)?)?;
    let ask = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{accept}Connection: close\r\n\r\n");
    stream.write_all(ask.as_bytes()).map_err(in_time)?;
    let mut held = Vec::new();
    loop {
        if let Some(answer) = parse(&held, false)? {
            return Ok(answer);
        }
        stream.limit(left(deadline)?)?;
        let mut piece = [0; 16 << 10];
        match stream.read(&mut piece).map_err(in_time)? {
            0 => return parse(&held, true)?.ok_or_else(|| broken("the connection ended before the answer did")),
            count => held.extend_from_slice(&piece[..count]),
        }
    }
}

fn in_time(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::WouldBlock { too_late() } else { error }
}

fn broken(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// The answer, if all of it is there. `ended` says that nothing follows.
fn parse(held: &[u8], ended: bool) -> io::Result<Option<Answer>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut head = httparse::Response::new(&mut headers);
    let body_at = match head.parse(held) {
        Ok(httparse::Status::Complete(bytes)) => bytes,
        Ok(httparse::Status::Partial) if held.len() <= HEAD_BYTES_MAX => return Ok(None),
        Ok(httparse::Status::Partial) => return Err(broken("no HTTP answer: its head has no end")),
        Err(error) => return Err(broken(&format!("no HTTP answer: {error}"))),
    };
    let (status, rest) = (head.code.unwrap_or(0), &held[body_at..]);
    if header(&head, "transfer-encoding").is_some() {
        return Ok(unchunked(rest)?.map(|body| Answer { status, body }));
    }
    let body = match header(&head, "content-length") {
        None if ended => Some(rest),
        None => None,
        Some(text) => {
            let bytes: usize = text.parse().map_err(|_| broken("no HTTP answer: Content-Length is no number"))?;
            if bytes > BODY_BYTES_MAX {
                return Err(broken("the answer is longer than 64 MiB"));
            }
            rest.get(..bytes)
        }
    };
    if rest.len() > BODY_BYTES_MAX {
        return Err(broken("the answer is longer than 64 MiB"));
    }
    Ok(body.map(|body| Answer { status, body: body.to_vec() }))
}

fn header<'a>(head: &httparse::Response<'_, 'a>, name: &str) -> Option<&'a str> {
    let found = head.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
    std::str::from_utf8(found.value).ok().map(str::trim)
}

/// The body of RFC 9112, section 7.1, if its last chunk is there.
fn unchunked(mut rest: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let mut body = Vec::new();
    loop {
        let (at, bytes) = match httparse::parse_chunk_size(rest) {
            Ok(httparse::Status::Complete(found)) => found,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => return Err(broken("no HTTP answer: a chunk without a size")),
        };
        if bytes == 0 {
            return Ok(Some(body));
        }
        let bytes = usize::try_from(bytes).ok().filter(|bytes| body.len() + bytes <= BODY_BYTES_MAX);
        let Some(bytes) = bytes else { return Err(broken("the answer is longer than 64 MiB")) };
        let Some(chunk) = rest[at..].get(..bytes + 2) else { return Ok(None) };
        body.extend_from_slice(&chunk[..bytes]);
        rest = &rest[at + bytes + 2..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, ended: bool) -> io::Result<Option<Answer>> {
        parse(text.as_bytes(), ended)
    }

    #[test]
    fn an_answer_is_whole_at_its_last_byte_and_not_before() {
        for text in [
            "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 4\r\n\r\nbusy",
            "HTTP/1.1 503 Busy\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nb\r\n3\r\nusy\r\n0\r\n",
        ] {
            for cut in 0..text.len() {
                assert_eq!(read(&text[..cut], false).unwrap(), None, "{cut} bytes of {text}");
            }
            let whole = Answer { status: 503, body: b"busy".to_vec() };
            assert_eq!(read(text, false).unwrap(), Some(whole));
        }
    }

    #[test]
    fn without_a_length_the_end_of_the_connection_is_the_end() {
        let text = "HTTP/1.1 200 OK\r\n\r\nfine";
        assert_eq!(read(text, false).unwrap(), None);
        assert_eq!(read(text, true).unwrap().unwrap().body, b"fine");
    }

    #[test]
    fn what_is_no_http_or_too_long_is_an_error() {
        assert!(read("-ERR unknown command\r\n", false).is_err());
        let text = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", BODY_BYTES_MAX + 1);
        assert!(read(&text, false).unwrap_err().to_string().contains("64 MiB"));
        let endless = "HTTP/1.1 200 OK\r\nx: ".to_string() + &"x".repeat(HEAD_BYTES_MAX);
        assert!(read(&endless, false).is_err());
    }

    #[test]
    fn a_socket_that_never_answers_costs_the_timeout_and_no_more() {
        let name = format!("iokernel-test-{}", std::process::id());
        let place = SocketAddrUnix::new_abstract_name(name.as_bytes()).unwrap();
        let silent = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
        rustix::net::bind(&silent, &place).unwrap();
        rustix::net::listen(&silent, 0).unwrap();
        let address = Address::Abstract(name);
        let timeout = Duration::from_millis(50);
        // The first fills the backlog, so that later ones cannot even connect.
        let _first = UnixStream::from({
            let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
            connect(&socket, &place).unwrap();
            socket
        });
        for _ in 0..3 {
            let error = get(&address, "/state", "", timeout).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
        }
    }
}
