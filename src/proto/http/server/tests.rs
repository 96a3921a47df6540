//! One conn of a listener under a fake clock.
mod bodies;
mod corpus;
mod lanes;
mod responses;
mod told;

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Options, Server};
use crate::config::Url;
use crate::proto::{Body, Command, Emit, Event, Limits, Out, Progress, Protocol, Span, Then, Transport};
use crate::value::{Reader, Token, write};

#[derive(Default)]
struct Log(Vec<String>);

impl Emit for Log {
    fn emit(&mut self, event: Event<'_>) {
        self.0.push(match event {
            Event::Request { slot, body } => format!("request {slot} {}", show_body(&body)),
            Event::Chunk { of, body } => format!("chunk {of:?} {}", show_body(&body)),
            Event::End { of, body } => format!("end {of:?} {}", show_body(&body)),
            Event::Access(access) => format!(
                "access {} {} {} {} {} {} {}",
                access.method.escape_ascii(),
                access.target.escape_ascii(),
                access.version,
                access.status,
                access.sent_bytes,
                access.referer.escape_ascii(),
                access.user_agent.escape_ascii()
            ),
            Event::Fact(fact) => format!("{fact:?}"),
            other => format!("{other:?}"),
        });
    }
}

fn show_body(body: &Body<'_>) -> String {
    match body {
        Body::None => "none".into(),
        Body::Msgpack(value) => show(value),
        Body::Bytes(bytes) => format!("bytes:{}", bytes.escape_ascii()),
        Body::Text(text) => format!("text:{}", text.escape_ascii()),
        Body::Raw(raw) => format!("raw:{}", raw.escape_ascii()),
    }
}

/// MessagePack as text: `[1, "str", b"bin"]`.
fn show(bytes: &[u8]) -> String {
    let mut reader = Reader::new(bytes);
    let shown = show_value(&mut reader);
    assert!(reader.is_at_end(), "{bytes:?}");
    shown
}

fn show_value(reader: &mut Reader<'_>) -> String {
    let members =
        |reader: &mut Reader<'_>, count: u32| (0..count).map(|_| show_value(reader)).collect::<Vec<_>>().join(", ");
    match reader.token().unwrap() {
        Token::Nil => "nil".into(),
        Token::Bool(value) => value.to_string(),
        Token::Int(value) => value.to_string(),
        Token::Str(text) => format!("{:?}", String::from_utf8_lossy(text)),
        Token::Bin(bytes) => format!("b\"{}\"", bytes.escape_ascii()),
        Token::Array(count) => format!("[{}]", members(reader, count)),
        Token::Map(count) => {
            let pairs = (0..count).map(|_| format!("{}: {}", show_value(reader), show_value(reader)));
            format!("{{{}}}", pairs.collect::<Vec<_>>().join(", "))
        }
        other => format!("{other:?}"),
    }
}

/// A body as a reply names it.
#[derive(Clone, Copy)]
enum Give<'a> {
    Nil,
    Text(&'a str),
    Follows,
    Parts(&'a [&'a str]),
    File(i32, u64, u64),
}

/// `[status, headers, body]`
fn made(status: i64, headers: &[(&str, &str)], body: Give<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    write::array(&mut out, 3);
    write::int(&mut out, status);
    out.extend(pairs(headers));
    match body {
        Give::Nil => write::nil(&mut out),
        Give::Text(text) => write::str(&mut out, text.as_bytes()),
        Give::Follows => write::bool(&mut out, true),
        Give::Parts(parts) => {
            write::array(&mut out, parts.len() as u32);
            parts.iter().for_each(|part| write::bin(&mut out, part.as_bytes()));
        }
        Give::File(fd, offset, length) => out.extend(span(fd, offset, length)),
    }
    out
}

fn pairs(headers: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    write::array(&mut out, headers.len() as u32);
    for (name, value) in headers {
        write::array(&mut out, 2);
        write::str(&mut out, name.as_bytes());
        write::bin(&mut out, value.as_bytes());
    }
    out
}

fn span(fd: i32, offset: u64, length: u64) -> Vec<u8> {
    let mut out = Vec::new();
    write::map(&mut out, 3);
    for (name, value) in [("fd", fd as u64), ("offset", offset), ("length", length)] {
        write::str(&mut out, name.as_bytes());
        write::uint(&mut out, value);
    }
    out
}

fn bin(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    write::bin(&mut out, text.as_bytes());
    out
}

struct Rig {
    conn: Server,
    now: Instant,
    wire: Vec<u8>,
    files: Vec<(usize, Span)>,
    log: Log,
    input: Vec<u8>,
}

fn options(query: &str) -> Result<Options, String> {
    let mut url = Url::parse(&format!("http://h?{query}"), |_| Some(80)).unwrap();
    let options = Options::take(&mut url).map_err(|error| error.to_string())?;
    url.options.finish().map_err(|error| error.to_string())?;
    Ok(options)
}

const LIMITS: Limits = Limits {
    access: true,
    listener: true,
    message_bytes_max: 1 << 20,
    depth_max: 8,
    inflight_max: 4,
    heartbeat: Duration::from_secs(5),
    silence_max: Duration::from_secs(5),
    raw: false,
    follow: crate::proto::Follow::Nothing,
    reads_replicas: false,
};

impl Rig {
    /// Without Server and Date headers.
    fn new(query: &str) -> Self {
        Rig::over(&format!("server=&{query}"), &Transport::default())
    }

    fn over(query: &str, transport: &Transport) -> Self {
        let mut rig = Rig {
            conn: Server::new(Arc::new(options(query).unwrap()), LIMITS),
            now: transport.wall.map_or_else(Instant::now, |wall| wall.0),
            wire: Vec::new(),
            files: Vec::new(),
            log: Log::default(),
            input: Vec::new(),
        };
        rig.with(|conn, now, out| conn.handle_open(now, transport, out)).unwrap();
        rig
    }

    fn with<T>(&mut self, act: impl FnOnce(&mut Server, Instant, &mut Out<'_>) -> T) -> T {
        let mut out = Out { wire: &mut self.wire, files: &mut self.files, events: &mut self.log };
        act(&mut self.conn, self.now, &mut out)
    }

    fn feed(&mut self, bytes: impl AsRef<[u8]>) -> Result<(), String> {
        self.input.extend_from_slice(bytes.as_ref());
        self.pump()
    }

    fn pump(&mut self) -> Result<(), String> {
        let mut need = 0;
        while !self.input.is_empty() && !self.conn.paused() {
            let input = std::mem::take(&mut self.input);
            let progress = self.with(|conn, now, out| conn.handle_input(now, &input, out));
            self.input = input;
            match progress {
                Ok(Progress::Consumed(used)) => {
                    assert!(used > 0);
                    self.input.drain(..used);
                    need = 0;
                }
                Ok(Progress::Need(more)) => {
                    assert!(more > self.input.len() && more >= need);
                    break;
                }
                Err(fault) => return Err(format!("{:?}: {fault}", fault.kind)),
            }
        }
        Ok(())
    }

    fn reply(&mut self, slot: u64, body: &[u8]) -> Result<Then, String> {
        self.command(Command::Reply { slot, body })
    }

    fn send(&mut self, slot: u64, body: &[u8]) -> Result<Then, String> {
        self.command(Command::SendTo { slot, body })
    }

    fn command(&mut self, command: Command<'_>) -> Result<Then, String> {
        let then = self.with(|conn, now, out| conn.command(now, command, out)).map_err(|refusal| refusal.message);
        self.pump().unwrap();
        then
    }

    fn sent(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.wire)).into_owned()
    }

    fn events(&mut self) -> Vec<String> {
        std::mem::take(&mut self.log.0)
    }

    fn drains(&self) -> bool {
        self.log.0.last().is_some_and(|line| line == "Draining")
    }

    /// Lets time pass, calling for timeouts on the way. Law 5.
    fn pass(&mut self, span: Duration) {
        let end = self.now + span;
        while let Some(at) = self.conn.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.with(|conn, now, out| conn.handle_timeout(now, out)).unwrap();
            assert!(self.conn.poll_timeout().is_none_or(|next| next > self.now));
        }
        self.now = end;
    }
}

const GET: &str = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";
const SECOND: Duration = Duration::from_secs(1);
