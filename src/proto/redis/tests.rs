//! Unit tests of both sides, against bytes that redis-server and redis-cli 7.0.15 wrote.
mod client;
mod follow;
mod leases;
mod listener;
mod routes;

use std::time::{Duration, Instant};

use crate::config::Url;
use crate::proto::{Body, Command, Driver, Emit, Event, Limits, Out, Progress, Protocol, RequestId, Transport};
use crate::value::{Reader, Token, write};

pub const HELLO3: &[u8] = b"%7\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$6\r\n7.0.15\r\n$5\r\nproto\r\n:3\r\n$2\r\nid\r\n:3\r\n$4\r\nmode\r\n$10\r\nstandalone\r\n$4\r\nrole\r\n$6\r\nmaster\r\n$7\r\nmodules\r\n*0\r\n";
pub const NO_SETINFO: &[u8] = b"-ERR unknown subcommand 'SETINFO'. Try CLIENT HELP.\r\n";

pub fn driver(url: &str, limits: Limits) -> Box<dyn Driver> {
    try_driver(url, limits).unwrap()
}

pub fn try_driver(url: &str, limits: Limits) -> Result<Box<dyn Driver>, String> {
    let mut url = Url::parse(url, |_| Some(6379)).unwrap();
    let driver = super::open(&mut url, &limits).map_err(|error| error.to_string())?;
    url.options.finish().map_err(|error| error.to_string())?;
    Ok(driver)
}

/// `GET key 1` as MessagePack, every word as str.
pub fn request(words: &str) -> Vec<u8> {
    let words: Vec<&str> = words.split(' ').collect();
    let mut out = Vec::new();
    write::array(&mut out, words.len() as u32);
    for word in words {
        write::str(&mut out, word.as_bytes());
    }
    out
}

pub fn batch(commands: &[&str]) -> Vec<u8> {
    let mut out = Vec::new();
    write::array(&mut out, commands.len() as u32);
    commands.iter().for_each(|command| out.extend(request(command)));
    out
}

/// MessagePack as text: `[1, "str", b"bin", !4(..)]`.
pub fn show(bytes: &[u8]) -> String {
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
        Token::Uint(value) => value.to_string(),
        Token::Float(value) => format!("{value:?}"),
        Token::Str(text) => format!("\"{}\"", text.escape_ascii()),
        Token::Bin(bytes) => format!("b\"{}\"", bytes.escape_ascii()),
        Token::Array(count) => format!("[{}]", members(reader, count)),
        Token::Map(count) => format!("{{{}}}", members(reader, 2 * count)),
        Token::Ext(kind @ (1 | 4 | 5), payload) => format!("!{kind}({})", show(payload)),
        Token::Ext(kind, payload) => format!("!{kind}({})", payload.escape_ascii()),
    }
}

#[derive(Default)]
pub struct Log(pub Vec<String>);

fn show_body(body: &Body<'_>) -> String {
    match body {
        Body::None => "none".into(),
        Body::Msgpack(value) => show(value),
        Body::Bytes(bytes) => format!("bytes:{}", bytes.escape_ascii()),
        Body::Text(text) => format!("text:{}", text.escape_ascii()),
        Body::Raw(raw) => format!("raw:{}", raw.escape_ascii()),
    }
}

impl Emit for Log {
    fn emit(&mut self, event: Event<'_>) {
        self.0.push(match event {
            Event::Reply { id, error, body } => {
                format!("{}{} {}", id.0, if error { "!" } else { "" }, show_body(&body))
            }
            Event::Rejected { id, why, body } => format!("{}? {why:?} {}", id.0, show_body(&body)),
            Event::Push { topic, body } => {
                format!("push {} {}", topic.unwrap_or(b"-").escape_ascii(), show_body(&body))
            }
            Event::Subscribed { topic } => format!("subscribed {}", topic.escape_ascii()),
            Event::Unsubscribed { topic, error } => {
                let error = error.map(|error| show_body(&error)).unwrap_or_default();
                format!("unsubscribed {} {error}", topic.escape_ascii())
            }
            Event::Request { slot, body } => format!("request {slot} {}", show_body(&body)),
            Event::Fact(fact) => format!("{fact:?}"),
            other => format!("{other:?}"),
        });
    }
}

/// One conn with its clock, its wire and the events it made.
pub struct Rig {
    pub conn: Box<dyn Protocol>,
    pub now: Instant,
    pub wire: Vec<u8>,
    pub log: Log,
    input: Vec<u8>,
}

impl Rig {
    pub fn new(conn: Box<dyn Protocol>) -> Self {
        let mut rig = Rig { conn, now: Instant::now(), wire: Vec::new(), log: Log::default(), input: Vec::new() };
        rig.conn
            .handle_open(
                rig.now,
                &Transport::default(),
                &mut Out { wire: &mut rig.wire, files: &mut Vec::new(), events: &mut rig.log },
            )
            .unwrap();
        rig
    }

    pub fn client(url: &str, limits: Limits) -> Self {
        Rig::new(driver(url, limits).client())
    }

    /// A RESP3 client after its handshake.
    pub fn ready(url: &str, limits: Limits) -> Self {
        let mut rig = Rig::client(url, limits);
        rig.feed(HELLO3).unwrap();
        if url.contains("tracking") {
            rig.feed(b"+OK\r\n").unwrap();
        }
        rig.feed(&[NO_SETINFO, NO_SETINFO].concat()).unwrap();
        assert_eq!(
            rig.events(),
            ["Ready { topics_beside_requests: true, description: \"redis 7.0.15 resp3 standalone master id=3\" }"]
        );
        rig.sent();
        rig
    }

    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.input.extend_from_slice(bytes);
        while !self.input.is_empty() {
            let mut out = Out { wire: &mut self.wire, files: &mut Vec::new(), events: &mut self.log };
            match self.conn.handle_input(self.now, &self.input, &mut out) {
                Ok(Progress::Consumed(used)) => drop(self.input.drain(..used)),
                Ok(Progress::Need(need)) => {
                    assert!(need > self.input.len());
                    break;
                }
                Err(fault) => return Err(format!("{:?}: {fault}", fault.kind)),
            }
        }
        Ok(())
    }

    pub fn command(&mut self, command: Command<'_>) -> Result<(), String> {
        let mut out = Out { wire: &mut self.wire, files: &mut Vec::new(), events: &mut self.log };
        self.conn.command(self.now, command, &mut out).map(|_| ()).map_err(|refusal| refusal.message)
    }

    pub fn ask(&mut self, id: u64, words: &str) {
        self.command(Command::Request { id: RequestId(id), body: &request(words), asking: false, streams: false })
            .unwrap();
    }

    pub fn sent(&mut self) -> String {
        std::mem::take(&mut self.wire).escape_ascii().to_string()
    }

    pub fn events(&mut self) -> Vec<String> {
        std::mem::take(&mut self.log.0)
    }

    /// Lets time pass, calling for timeouts on the way.
    pub fn pass(&mut self, span: Duration) -> Result<(), String> {
        let end = self.now + span;
        while let Some(at) = self.conn.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            let mut out = Out { wire: &mut self.wire, files: &mut Vec::new(), events: &mut self.log };
            self.conn.handle_timeout(self.now, &mut out).map_err(|fault| format!("{:?}: {fault}", fault.kind))?;
            assert!(self.conn.poll_timeout().is_none_or(|next| next > self.now));
        }
        self.now = end;
        Ok(())
    }
}
