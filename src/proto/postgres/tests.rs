//! Unit tests of a conn: what it writes, and what it makes of what a server says.
mod flows;
mod interrupts;
mod requests;
mod tenants;

use std::time::{Duration, Instant};

use super::wire::{Step, step};
use crate::config::Url;
use crate::proto::{
    Body, Command, Driver, Emit, Event, Fault, Limits, Out, Progress, Protocol, Refusal, RequestId, Transport,
};
use crate::value::{Reader, Token, write};

pub const URL: &str = "postgres://me:secret@localhost/db";
/// Nothing is to be proven; two settings; a process; ready.
pub const WELCOME: &[u8] =
    b"R\0\0\0\x08\0\0\0\0S\0\0\0\x1cserver_version\x0015.4 (x)\0S\0\0\0\x17in_hot_standby\0off\0\
    K\0\0\0\x0c\0\0\0\x07\0\0\0\x01Z\0\0\0\x05I";

pub fn driver(url: &str, limits: Limits) -> Box<dyn Driver> {
    try_driver(url, limits).unwrap()
}

pub fn try_driver(url: &str, limits: Limits) -> Result<Box<dyn Driver>, String> {
    let mut url = Url::parse(url, |_| Some(5432)).unwrap();
    let driver = super::open(&mut url, &limits).map_err(|error| error.to_string())?;
    url.options.finish().map_err(|error| error.to_string())?;
    Ok(driver)
}

/// `["sql", 1, "text", None]`, the numbers as int.
pub fn request(sql: &str, parameters: &[&str]) -> Vec<u8> {
    let mut out = Vec::new();
    write::array(&mut out, 1 + parameters.len() as u32);
    write::str(&mut out, sql.as_bytes());
    for parameter in parameters {
        match parameter.parse() {
            Ok(number) => write::int(&mut out, number),
            Err(_) if *parameter == "nil" => write::nil(&mut out),
            Err(_) => write::str(&mut out, parameter.as_bytes()),
        }
    }
    out
}

pub fn script(sql: &str) -> Vec<u8> {
    let mut out = vec![0x81];
    write::str(&mut out, b"simple");
    write::str(&mut out, sql.as_bytes());
    out
}

/// A message of a server.
pub fn said(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![kind];
    out.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
    out.extend_from_slice(body);
    out
}

pub fn error(code: &str, message: &str) -> Vec<u8> {
    said(b'E', format!("SERROR\0VERROR\0C{code}\0M{message}\0\0").as_bytes())
}

pub fn fatal(code: &str) -> Vec<u8> {
    said(b'E', format!("SFATAL\0VFATAL\0C{code}\0Mbye\0\0").as_bytes())
}

pub fn ready(status: u8) -> Vec<u8> {
    said(b'Z', &[status])
}

pub fn columns(all: &[(&str, u32)], format: u16) -> Vec<u8> {
    let mut body = (all.len() as u16).to_be_bytes().to_vec();
    for (name, oid) in all {
        body.extend_from_slice(name.as_bytes());
        body.extend_from_slice(b"\0\0\0\0\0\0\0");
        body.extend_from_slice(&oid.to_be_bytes());
        body.extend_from_slice(b"\0\x04\xff\xff\xff\xff");
        body.extend_from_slice(&format.to_be_bytes());
    }
    said(b'T', &body)
}

/// What the server says of a statement.
pub fn described(parameters: &[u32], all: &[(&str, u32)]) -> Vec<u8> {
    let mut oids = (parameters.len() as u16).to_be_bytes().to_vec();
    parameters.iter().for_each(|oid| oids.extend_from_slice(&oid.to_be_bytes()));
    let rows = if all.is_empty() { said(b'n', b"") } else { columns(all, 0) };
    [said(b'1', b""), said(b't', &oids), rows, ready(b'I')].concat()
}

/// One row of one int4 each, and the end.
pub fn int_rows(numbers: &[i32], status: u8) -> Vec<u8> {
    let mut out = said(b'2', b"");
    for number in numbers {
        let mut row = b"\0\x01\0\0\0\x04".to_vec();
        row.extend_from_slice(&number.to_be_bytes());
        out.extend(said(b'D', &row));
    }
    out.extend(said(b'C', format!("SELECT {}\0", numbers.len()).as_bytes()));
    out.extend(ready(status));
    out
}

/// MessagePack as text.
pub fn show(bytes: &[u8]) -> String {
    fn value(reader: &mut Reader<'_>) -> String {
        let members = |reader: &mut Reader<'_>, count| (0..count).map(|_| value(reader)).collect::<Vec<_>>().join(", ");
        match reader.token().unwrap() {
            Token::Nil => "nil".into(),
            Token::Int(number) => number.to_string(),
            Token::Str(text) => format!("{:?}", String::from_utf8_lossy(text)),
            Token::Array(count) => format!("[{}]", members(reader, count)),
            Token::Ext(kind, payload) => format!("!{kind}({})", show(payload)),
            other => format!("{other:?}"),
        }
    }
    value(&mut Reader::new(bytes))
}

#[derive(Default)]
pub struct Log(pub Vec<String>);

impl Emit for Log {
    fn emit(&mut self, event: Event<'_>) {
        let body_text = |body: &Body<'_>| match body {
            Body::Msgpack(value) => show(value),
            other => format!("{other:?}"),
        };
        self.0.push(match event {
            Event::Reply { id, error, body } => {
                format!("{}{} {}", id.0, if error { "!" } else { "" }, body_text(&body))
            }
            Event::Rejected { id, why, body } => format!("{}? {why:?} {}", id.0, body_text(&body)),
            Event::Refused { id, refusal } => format!("{}- {}", id.0, refusal.message),
            Event::Push { topic, body } => {
                format!("push {} {}", topic.unwrap_or_default().escape_ascii(), body_text(&body))
            }
            Event::Accepted { id, body } => format!("{} accepted {}", id.0, body_text(&body)),
            Event::Chunk { body, .. } => format!("rows {}", body_text(&body)),
            Event::Fact(fact) => format!("{fact:?}"),
            other => format!("{other:?}"),
        });
    }
}

pub struct Rig {
    pub conn: Box<dyn Protocol>,
    pub now: Instant,
    wire: Vec<u8>,
    log: Log,
}

impl Rig {
    pub fn new(driver: &dyn Driver) -> Self {
        let mut rig = Rig { conn: driver.client(), now: Instant::now(), wire: Vec::new(), log: Log::default() };
        let mut out = Out { wire: &mut rig.wire, files: &mut Vec::new(), events: &mut rig.log };
        rig.conn.handle_open(rig.now, &Transport::default(), &mut out).unwrap();
        rig
    }

    /// Through the start-up.
    pub fn up(driver: &dyn Driver) -> Self {
        let mut rig = Rig::new(driver);
        rig.wire.clear();
        rig.hear(WELCOME).unwrap();
        rig.events();
        rig
    }

    pub fn hear(&mut self, mut bytes: &[u8]) -> Result<(), Fault> {
        while !bytes.is_empty() {
            let mut out = Out { wire: &mut self.wire, files: &mut Vec::new(), events: &mut self.log };
            match self.conn.handle_input(self.now, bytes, &mut out)? {
                Progress::Consumed(used) => bytes = &bytes[used..],
                Progress::Need(need) => panic!("{need} bytes are needed: {bytes:?}"),
            }
        }
        Ok(())
    }

    pub fn ask(&mut self, id: u64, body: &[u8]) -> Result<(), Refusal> {
        self.command(Command::Request { id: RequestId(id), body, asking: false, streams: false })
    }

    pub fn command(&mut self, command: Command<'_>) -> Result<(), Refusal> {
        let mut out = Out { wire: &mut self.wire, files: &mut Vec::new(), events: &mut self.log };
        self.conn.command(self.now, command, &mut out).map(|_| ())
    }

    pub fn reset(&mut self) {
        let mut out = Out { wire: &mut self.wire, files: &mut Vec::new(), events: &mut self.log };
        self.conn.reset(self.now, &mut out).unwrap();
    }

    pub fn pass(&mut self, span: Duration) -> Result<(), Fault> {
        self.now += span;
        let mut out = Out { wire: &mut self.wire, files: &mut Vec::new(), events: &mut self.log };
        self.conn.handle_timeout(self.now, &mut out)
    }

    pub fn events(&mut self) -> Vec<String> {
        std::mem::take(&mut self.log.0)
    }

    /// The kinds of the messages written since the last time: `PDS BES`, and the SQL of scripts.
    pub fn wrote(&mut self) -> String {
        let wire = std::mem::take(&mut self.wire);
        let (mut text, mut rest) = (String::new(), &wire[..]);
        while let Ok(Step::Message { bytes, kind, body }) = step(rest, usize::MAX, false) {
            match kind {
                b'Q' => text.push_str(&format!("Q({})", body[..body.len() - 1].escape_ascii())),
                b'S' => text.push_str("S "),
                kind => text.push(char::from(kind)),
            }
            rest = &rest[bytes..];
        }
        assert!(rest.is_empty());
        text.trim_end().into()
    }

    pub fn wire(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.wire)
    }
}

#[test]
fn a_conn_says_who_it_is_and_learns_whom_it_has() {
    let url = "postgres://me:secret@localhost/db?application_name=shop&options=-c%20geqo%3Doff";
    let mut rig = Rig::new(&*driver(url, Limits::default()));
    let said_first = b"\0\x03\0\0user\0me\0database\0db\0application_name\0shop\0client_encoding\0UTF8\0\
        DateStyle\0ISO\0options\0-c geqo=off\0\0";
    assert_eq!(rig.wire()[4..], said_first[..]);
    rig.hear(&said(b'R', b"\0\0\0\x05\x01\x02\x03\x04")).unwrap();
    let proof = super::scram::md5("me", "secret", &[1, 2, 3, 4]);
    assert_eq!(rig.wire(), said(b'p', format!("{proof}\0").as_bytes()));
    rig.hear(WELCOME).unwrap();
    let ready = "Ready { topics_beside_requests: true, description: \"postgresql 15.4 (x) pid=7\" }";
    assert_eq!(rig.events(), [ready]);
}

#[test]
fn who_is_turned_away_is_told_why_and_whether_to_try_again() {
    use crate::proto::FaultKind::{Closed, Refused};
    for (code, kind) in [("28P01", Refused), ("3D000", Refused), ("57P03", Closed), ("53300", Closed)] {
        let fault = Rig::new(&*driver(URL, Limits::default())).hear(&fatal(code)).unwrap_err();
        assert_eq!(fault.kind, kind, "{code}");
        assert!(fault.message.contains(code), "{}", fault.message);
    }
    let hear = |url: &str, bytes: &[u8]| Rig::new(&*driver(url, Limits::default())).hear(bytes).unwrap_err();
    let fault = hear("postgres://me@localhost", &said(b'R', b"\0\0\0\x05abcd"));
    assert_eq!((fault.kind, fault.message.contains("has none")), (Refused, true));
    let fault = hear(URL, &said(b'R', b"\0\0\0\x0aSCRAM-SHA-256-PLUS\0\0"));
    assert_eq!((fault.kind, fault.message.contains("offers SCRAM-SHA-256-PLUS")), (Refused, true));
    let offer = said(b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0");
    let fault = hear(URL, &[offer, said(b'R', b"\0\0\0\0")].concat());
    assert_eq!((fault.kind, fault.message.contains("without its signature")), (Refused, true));
    assert_eq!(hear(URL, b"HTTP/1.1 400").kind, crate::proto::FaultKind::Protocol);
}

#[test]
fn options_are_checked() {
    let fails = |url: &str, limits: Limits| try_driver(url, limits).err().unwrap_or_default();
    let plain = Limits::default();
    for url in ["postgres://me@h", "postgresql://h?user=me", "postgres://me@h/d?prepare=false&statements=1"] {
        assert_eq!(fails(url, plain), "", "{url}");
    }
    assert!(fails("postgres://h/d", plain).contains("expected a name"));
    assert!(fails("postgres://me@h/d?dbname=e", plain).contains("dbname"));
    assert!(fails("postgres://me@h/d?sslmode=on", plain).contains("a known option: application_name"));
    assert!(fails(URL, Limits { listener: true, ..plain }).contains("no server"));
    assert!(fails(URL, Limits { raw: true, ..plain }).contains("raw"));
}
