//! The client's handshake: HELLO 3 with everything else in the same packet, and RESP2 for servers that lack it.
use super::follow::Question;
use super::number;
use super::session::Conn;
use super::slots::Kind;
use super::wire::{Shape, split_error};
use super::{Options, Tracking, Version};
use crate::proto::{Event, Fact, Fault, FaultKind, Follow, Out};
use crate::value::{Reader, Token};

/// The replies that the handshake waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Hello,
    Auth,
    Select,
    Name,
    Track,
    Probe,
    Ask(Question),
}

impl Step {
    fn name(self) -> &'static str {
        match self {
            Step::Hello => "HELLO",
            Step::Auth => "AUTH",
            Step::Select => "SELECT",
            Step::Name => "CLIENT SETNAME",
            Step::Track => "CLIENT TRACKING",
            Step::Probe => "PING",
            Step::Ask(question) => question.name(),
        }
    }
}

/// Codes of errors that pass by themselves.
const TRANSIENT: &[&[u8]] = &[b"LOADING", b"MASTERDOWN", b"BUSY", b"TRYAGAIN", b"CLUSTERDOWN", b"UNBLOCKED"];

/// One command's wire form.
fn command(wire: &mut Vec<u8>, words: &[&[u8]]) {
    number::head(wire, b'*', words.len() as u64);
    for word in words {
        number::bulk(wire, word);
    }
}

/// Writes the first packet.
pub fn open(conn: &mut Conn, wire: &mut Vec<u8>) {
    let options = conn.options.clone();
    if options.version == Version::Two {
        return open_resp2(conn, &options, wire);
    }
    let mut hello: Vec<&[u8]> = vec![b"HELLO", b"3"];
    if let Some(password) = &options.password {
        let user = options.user.as_deref().unwrap_or("default");
        hello.extend([&b"AUTH"[..], user.as_bytes(), password.as_bytes()]);
    }
    if let Some(name) = &options.client_name {
        hello.extend([&b"SETNAME"[..], name.as_bytes()]);
    }
    command(wire, &hello);
    conn.expect(Step::Hello);
    select(conn, &options, wire);
    let track: Option<&[&[u8]]> = match options.tracking {
        Tracking::Off => None,
        Tracking::On => Some(&[b"CLIENT", b"TRACKING", b"ON"]),
        Tracking::Broadcast => Some(&[b"CLIENT", b"TRACKING", b"ON", b"BCAST"]),
    };
    if let Some(track) = track {
        command(wire, track);
        conn.expect(Step::Track);
    }
    if conn.limits.follow != Follow::Nothing {
        probe(conn, wire);
    }
    follow(conn, wire);
    introduce(conn, wire);
}

/// The handshake of servers older than 6.0.
fn open_resp2(conn: &mut Conn, options: &Options, wire: &mut Vec<u8>) {
    match (&options.user, &options.password) {
        (Some(user), Some(password)) => command(wire, &[b"AUTH", user.as_bytes(), password.as_bytes()]),
        (None, Some(password)) => command(wire, &[b"AUTH", password.as_bytes()]),
        (_, None) => {}
    }
    if options.password.is_some() {
        conn.expect(Step::Auth);
    }
    if let Some(name) = &options.client_name {
        command(wire, &[b"CLIENT", b"SETNAME", name.as_bytes()]);
        conn.expect(Step::Name);
    }
    select(conn, options, wire);
    probe(conn, wire);
    follow(conn, wire);
    introduce(conn, wire);
}

/// HELLO and ROLE are answered by a server that serves nobody yet; PING is not.
fn probe(conn: &mut Conn, wire: &mut Vec<u8>) {
    command(wire, &[b"PING"]);
    conn.expect(Step::Probe);
}

fn follow(conn: &mut Conn, wire: &mut Vec<u8>) {
    match conn.limits.follow {
        Follow::Roles => ask(conn, Question::Role, wire),
        // A primary takes the word too, and it does not matter there.
        Follow::Topology if conn.limits.reads_replicas => {
            command(wire, &[b"READONLY"]);
            conn.slots.own(Kind::Ignored);
        }
        _ => {}
    }
}

fn ask(conn: &mut Conn, question: Question, wire: &mut Vec<u8>) {
    wire.extend_from_slice(question.wire());
    conn.expect(Step::Ask(question));
}

fn select(conn: &mut Conn, options: &Options, wire: &mut Vec<u8>) {
    if options.database != 0 {
        command(wire, &[b"SELECT", number::Decimal::unsigned(u64::from(options.database)).as_bytes()]);
        conn.expect(Step::Select);
    }
}

/// Says who we are to CLIENT LIST. Servers before 7.2 answer an error, which does not matter.
fn introduce(conn: &mut Conn, wire: &mut Vec<u8>) {
    for (key, value) in [(&b"LIB-NAME"[..], "iokernel"), (b"LIB-VER", env!("CARGO_PKG_VERSION"))] {
        command(wire, &[b"CLIENT", b"SETINFO", key, value.as_bytes()]);
        conn.slots.own(Kind::Ignored);
    }
}

/// Takes the reply to a step. The last one makes the conn ready.
pub fn answer(conn: &mut Conn, step: Step, shape: Shape<'_>, out: &mut Out<'_>) -> Result<(), Fault> {
    match (step, shape) {
        (Step::Hello, Shape::Error(text)) if lacks_hello(text) && conn.options.version == Version::Auto => {
            return fall_back(conn, text, out.wire);
        }
        (Step::Hello, Shape::Value(reply)) => conn.server = Server::read(reply),
        (Step::Hello, Shape::Error(_)) => return Err(refused(step, shape)),
        (Step::Hello, _) => {
            let message = "the peer does not speak RESP3: its answer to HELLO is no map".into();
            return Err(Fault { kind: FaultKind::Protocol, message });
        }
        // Anything but these errors shows that it serves us, even if this user may not PING.
        (Step::Probe, Shape::Error(text)) if !stops_probe(text) => {}
        (Step::Ask(_), Shape::Error(text)) if stops_probe(text) => return Err(refused(step, shape)),
        (Step::Ask(question), shape) => {
            if let Some(next) = conn.learn(question, shape, out) {
                ask(conn, next, out.wire);
            }
        }
        (_, Shape::Error(_)) => return Err(refused(step, shape)),
        _ => {}
    }
    conn.steps_left -= 1;
    if conn.steps_left == 0 {
        ready(conn, out);
    }
    Ok(())
}

fn ready(conn: &mut Conn, out: &mut Out<'_>) {
    conn.ready = true;
    let description = conn.server.describe();
    let topics_beside_requests = conn.resp3();
    out.events.emit(Event::Fact(Fact::Ready { topics_beside_requests, description: &description }));
}

fn lacks_hello(text: &[u8]) -> bool {
    let (code, message) = split_error(text);
    matches!(code, b"NOPROTO" | b"NOPERM") || (code == b"ERR" && message.starts_with(b"unknown command"))
}

fn stops_probe(text: &[u8]) -> bool {
    let (code, message) = split_error(text);
    matches!(code, b"NOAUTH" | b"DENIED") || TRANSIENT.contains(&code) || is_full(message)
}

/// Whether an error passes by itself.
pub fn is_transient(text: &[u8]) -> bool {
    TRANSIENT.contains(&split_error(text).0)
}

fn is_full(message: &[u8]) -> bool {
    message.starts_with(b"max number of clients")
}

fn fall_back(conn: &mut Conn, text: &[u8], wire: &mut Vec<u8>) -> Result<(), Fault> {
    if conn.options.tracking != Tracking::Off {
        let text = String::from_utf8_lossy(text);
        let message = format!("tracking needs RESP3, which the server refused: {text}");
        return Err(Fault { kind: FaultKind::Refused, message });
    }
    conn.slots.ignore_handshake();
    conn.steps_left = 0;
    let options = conn.options.clone();
    open_resp2(conn, &options, wire);
    Ok(())
}

fn refused(step: Step, shape: Shape<'_>) -> Fault {
    let text = if let Shape::Error(text) = shape { text } else { b"" };
    let (code, message) = split_error(text);
    let passes = TRANSIENT.contains(&code) || is_full(message);
    let kind = if passes { FaultKind::Closed } else { FaultKind::Refused };
    let text = String::from_utf8_lossy(text);
    Fault { kind, message: format!("the server refused the handshake's {}: {text}", step.name()) }
}

/// What HELLO told of the server.
#[derive(Debug, Default)]
pub struct Server {
    server: String,
    version: String,
    /// RESP version; 0 when HELLO was not answered.
    pub protocol: i64,
    mode: String,
    role: String,
    id: i64,
}

impl Server {
    fn read(reply: &[u8]) -> Self {
        let mut server = Server::default();
        let mut reader = Reader::new(reply);
        let pairs = match reader.token() {
            Ok(Token::Map(pairs)) => pairs,
            Ok(Token::Array(values)) => values / 2,
            _ => 0,
        };
        for _ in 0..pairs {
            let (Ok(Token::Bin(key) | Token::Str(key)), mut value) = (reader.token(), reader.clone()) else { break };
            if reader.skip(8).is_err() {
                break;
            }
            match (key, value.token()) {
                (b"proto", Ok(Token::Int(number))) => server.protocol = number,
                (b"id", Ok(Token::Int(number))) => server.id = number,
                (key, Ok(Token::Bin(text) | Token::Str(text))) => server.set(key, &String::from_utf8_lossy(text)),
                _ => {}
            }
        }
        server
    }

    fn set(&mut self, key: &[u8], text: &str) {
        let field = match key {
            b"server" => &mut self.server,
            b"version" => &mut self.version,
            b"mode" => &mut self.mode,
            b"role" => &mut self.role,
            _ => return,
        };
        *field = text.chars().filter(|c| !c.is_control()).take(64).collect();
    }

    /// `redis 7.0.15 resp3 standalone master id=7`.
    fn describe(&self) -> String {
        if self.protocol == 0 {
            return "redis resp2".into();
        }
        let Server { server, version, protocol, mode, role, id } = self;
        format!("{server} {version} resp{protocol} {mode} {role} id={id}")
    }
}
