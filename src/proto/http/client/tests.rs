//! One conn of a service, under a fake clock.
mod corpus;
mod lanes;
mod laws;

use std::io::Write;
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

use crate::config::Url;
use crate::proto::http::open;
use crate::proto::{
    Admit, Body, Command, Driver, Emit, Event, Fact, FaultKind, Limits, Out, Progress, Protocol, RequestId, Span,
    Tenancy, Then, Transport,
};
use crate::value::{Reader, Token, write};

/// A value to be written as MessagePack.
#[derive(Clone, Debug)]
enum V {
    Nil,
    True,
    Int(i64),
    Str(&'static str),
    Bin(Vec<u8>),
    Array(Vec<V>),
    Map(Vec<(&'static str, V)>),
}

fn pack(value: &V) -> Vec<u8> {
    let mut out = Vec::new();
    pack_to(&mut out, value);
    out
}

fn pack_to(out: &mut Vec<u8>, value: &V) {
    match value {
        V::Nil => write::nil(out),
        V::True => write::bool(out, true),
        V::Int(number) => write::int(out, *number),
        V::Str(text) => write::str(out, text.as_bytes()),
        V::Bin(bytes) => write::bin(out, bytes),
        V::Array(values) => {
            write::array(out, values.len() as u32);
            values.iter().for_each(|value| pack_to(out, value));
        }
        V::Map(pairs) => {
            write::map(out, pairs.len() as u32);
            for (key, value) in pairs {
                write::str(out, key.as_bytes());
                pack_to(out, value);
            }
        }
    }
}

fn show(bytes: &[u8]) -> String {
    fn value(reader: &mut Reader<'_>) -> String {
        let members =
            |reader: &mut Reader<'_>, count: u32| (0..count).map(|_| value(reader)).collect::<Vec<_>>().join(", ");
        match reader.token().unwrap() {
            Token::Nil => "nil".into(),
            Token::Int(number) => number.to_string(),
            Token::Str(text) => format!("{:?}", String::from_utf8_lossy(text)),
            Token::Bin(bytes) => format!("'{}'", bytes.escape_ascii()),
            Token::Array(count) => format!("[{}]", members(reader, count)),
            other => format!("{other:?}"),
        }
    }
    value(&mut Reader::new(bytes))
}

fn show_body(body: &Body<'_>) -> String {
    match body {
        Body::None => "none".into(),
        Body::Msgpack(value) => show(value),
        Body::Bytes(bytes) | Body::Raw(bytes) => format!("bytes {}", bytes.escape_ascii()),
        Body::Text(text) => format!("text {}", text.escape_ascii()),
    }
}

#[derive(Default)]
struct Log(Vec<String>);

impl Emit for Log {
    fn emit(&mut self, event: Event<'_>) {
        self.0.push(match event {
            Event::Reply { id, error, body } => {
                format!("reply {}{} {}", id.0, if error { "!" } else { "" }, show_body(&body))
            }
            Event::Accepted { id, body } => format!("accepted {} {}", id.0, show_body(&body)),
            Event::Chunk { body, .. } => format!("chunk {}", show_body(&body)),
            Event::End { body, .. } => format!("end {}", show_body(&body)),
            Event::Fact(Fact::Ready { .. }) => return,
            Event::Fact(fact) => format!("{fact:?}"),
            other => format!("{other:?}"),
        });
    }
}

struct Rig {
    driver: Box<dyn Driver>,
    conn: Box<dyn Protocol>,
    now: Instant,
    wire: Vec<u8>,
    files: Vec<(usize, Span)>,
    log: Log,
    next: u64,
    /// What the conn has not taken.
    input: Vec<u8>,
}

impl Rig {
    fn new(url: &str) -> Self {
        let mut url = Url::parse(url, |scheme| Some(if scheme == "https" { 443 } else { 80 })).unwrap();
        let limits = Limits { message_bytes_max: 8192, ..Limits::default() };
        let driver = open(&mut url, &limits).unwrap();
        url.options.finish().unwrap();
        let conn = driver.client();
        let mut rig = Rig {
            driver,
            conn,
            now: Instant::now(),
            wire: Vec::new(),
            files: Vec::new(),
            log: Log::default(),
            next: 0,
            input: Vec::new(),
        };
        let mut out = Out { wire: &mut rig.wire, files: &mut rig.files, events: &mut rig.log };
        rig.conn.handle_open(rig.now, &Transport::default(), &mut out).unwrap();
        rig
    }

    fn out(&mut self) -> (&mut Box<dyn Protocol>, Out<'_>) {
        (&mut self.conn, Out { wire: &mut self.wire, files: &mut self.files, events: &mut self.log })
    }

    fn ask(&mut self, body: &V, streams: bool) -> Result<Then, String> {
        let body = pack(body);
        self.driver.classify(&body, false).map_err(|refusal| refusal.message)?;
        self.next += 1;
        let (id, now) = (RequestId(self.next), self.now);
        let (conn, mut out) = self.out();
        let command = Command::Request { id, body: &body, asking: false, streams };
        conn.command(now, command, &mut out).map_err(|refusal| refusal.message)
    }

    fn get(&mut self) {
        self.ask(&request("GET", vec![]), false).unwrap();
    }

    fn send(&mut self, value: &V) -> Result<Then, String> {
        let (id, now, body) = (RequestId(self.next), self.now, pack(value));
        let (conn, mut out) = self.out();
        conn.command(now, Command::Send { id, body: &body }, &mut out).map_err(|refusal| refusal.message)
    }

    fn feed(&mut self, bytes: &[u8]) -> Option<FaultKind> {
        let now = self.now;
        let mut input = std::mem::take(&mut self.input);
        input.extend_from_slice(bytes);
        let (conn, mut out) = self.out();
        let mut at = 0;
        let mut fault = None;
        while at < input.len() {
            match conn.handle_input(now, &input[at..], &mut out) {
                Ok(Progress::Consumed(used)) => at += used,
                Ok(Progress::Need(_)) => break,
                Err(why) => {
                    fault = Some(why.kind);
                    break;
                }
            }
        }
        self.input = input.split_off(at);
        fault
    }

    fn eof(&mut self) -> Option<FaultKind> {
        let now = self.now;
        let (conn, mut out) = self.out();
        conn.handle_eof(now, &mut out).err().map(|fault| fault.kind)
    }

    fn cancel(&mut self) {
        let (id, now) = (RequestId(self.next), self.now);
        let (conn, mut out) = self.out();
        conn.command(now, Command::Cancel { id }, &mut out).unwrap();
    }

    /// Lets time pass, calling for timeouts on the way. Law 5.
    fn pass(&mut self, span: Duration) -> Option<FaultKind> {
        let end = self.now + span;
        while let Some(at) = self.conn.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            let now = self.now;
            let (conn, mut out) = self.out();
            if let Err(fault) = conn.handle_timeout(now, &mut out) {
                return Some(fault.kind);
            }
            assert!(self.conn.poll_timeout().is_none_or(|next| next > now), "law 5");
        }
        self.now = end;
        None
    }

    fn close(&mut self) {
        let now = self.now;
        let (conn, mut out) = self.out();
        conn.close(now, &mut out);
    }

    /// The system has taken what was written, if it is all.
    fn flushed(&mut self) -> bool {
        let ends = self.conn.has_sent_all();
        if ends {
            let (conn, mut out) = self.out();
            conn.handle_sent_all(&mut out);
        }
        ends
    }

    fn wrote(&mut self) -> String {
        String::from_utf8(std::mem::take(&mut self.wire)).unwrap()
    }

    fn told(&mut self) -> Vec<String> {
        std::mem::take(&mut self.log.0)
    }
}

fn request(method: &'static str, rest: Vec<V>) -> V {
    V::Array([vec![V::Str(method), V::Str("/a?b=c")], rest].concat())
}

/// What a GET's reply becomes.
fn reply(bytes: &[u8]) -> (Vec<String>, Option<FaultKind>) {
    let mut rig = Rig::new("http://x");
    rig.get();
    let fault = rig.feed(bytes);
    (rig.told(), fault)
}

fn streamed(options: V, bytes: &[u8]) -> (Vec<String>, Option<FaultKind>) {
    let mut rig = Rig::new("http://x");
    rig.ask(&request("GET", vec![V::Nil, V::Nil, options]), true).unwrap();
    let fault = rig.feed(bytes);
    (rig.told(), fault)
}

#[test]
fn a_request_is_written_with_what_its_url_says() {
    let mut rig = Rig::new("http://me:se%3Acret@h:8080/v%201/");
    rig.ask(&request("POST", vec![V::Map(vec![("X", V::Array(vec![V::Str("1"), V::Int(2)]))])]), false).unwrap_err();
    rig.ask(&request("POST", vec![V::Map(vec![("X", V::Array(vec![V::Str("1"), V::Str("2")]))]), V::Str("hi")]), false)
        .unwrap();
    let expected = "POST /v%201/a?b=c HTTP/1.1\r\nHost: h:8080\r\nX: 1\r\nX: 2\r\nAuthorization: Basic bWU6c2U6Y3JldA==\r\n\
                    Content-Length: 2\r\n\r\nhi";
    assert_eq!(rig.wrote(), expected);
    for (url, host) in [
        ("http://h:80", "h"),
        ("https://h", "h"),
        ("https://h:80", "h:80"),
        ("http://[::1]:81", "[::1]:81"),
        ("http://[::1]", "[::1]"),
        ("http+unix:///run/x", "localhost"),
    ] {
        let mut rig = Rig::new(url);
        rig.get();
        assert_eq!(rig.wrote(), format!("GET /a?b=c HTTP/1.1\r\nHost: {host}\r\n\r\n"), "{url}");
    }
}

#[test]
fn credentials_go_to_no_other_host() {
    for (ask, is_own) in [("/x", true), ("http://other/x", false)] {
        let mut rig = Rig::new("http://me:secret@h");
        rig.ask(&V::Array(vec![V::Str("GET"), V::Str(ask)]), false).unwrap();
        assert_eq!(rig.wrote().contains("Authorization"), is_own, "{ask}");
    }
}

#[test]
fn targets_and_hosts_of_every_form() {
    let line = |method, target, streams| {
        let mut rig = Rig::new("http://h/base");
        rig.ask(&V::Array(vec![V::Str(method), V::Str(target)]), streams).map(|_| rig.wrote())
    };
    assert_eq!(line("OPTIONS", "*", false).unwrap(), "OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(line("CONNECT", "o:1", true).unwrap(), "CONNECT o:1 HTTP/1.1\r\nHost: o:1\r\n\r\n");
    assert_eq!(line("GET", "http://u@o:1/x", false).unwrap(), "GET http://u@o:1/x HTTP/1.1\r\nHost: o:1\r\n\r\n");
    assert_eq!(line("DELETE", "/x", false).unwrap(), "DELETE /base/x HTTP/1.1\r\nHost: h\r\n\r\n");
    for (method, target) in [
        ("GET", "*"),
        ("GET", "x"),
        ("GET", ""),
        ("GET", "/a b"),
        ("GET", "/a#b"),
        ("GET", "/a\r\nX: y"),
        ("G T", "/"),
        ("GET\r\n", "/"),
        ("", "/"),
        ("CONNECT", "/"),
    ] {
        assert!(line(method, target, true).is_err(), "{method:?} {target:?}");
    }
    assert!(line("CONNECT", "o:1", false).is_err(), "a lane is a stream");
}

#[test]
fn framing_is_ours_and_nothing_is_injected() {
    for (name, value) in [
        ("Transfer-Encoding", "chunked"),
        ("Content-Length", "3"),
        ("Content-Length", "+2"),
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Expect", "100-continue"),
        ("X", "a\r\nY: b"),
        ("X", "a\0"),
        ("X\r\nY", "a"),
        ("X ", "a"),
        ("", "a"),
    ] {
        let mut rig = Rig::new("http://x");
        let headers = V::Array(vec![V::Array(vec![V::Str(name), V::Str(value)])]);
        let refused = rig.ask(&request("POST", vec![headers, V::Str("hi")]), false);
        assert!(refused.is_err(), "{name:?}: {value:?}");
        assert!(rig.wire.is_empty());
    }
    for options in [V::Map(vec![("trailers", V::True)]), V::Map(vec![("decode", V::Int(1))]), V::Int(1)] {
        assert!(Rig::new("http://x").ask(&request("GET", vec![V::Nil, V::Nil, options]), false).is_err());
    }
}

#[test]
fn replies_are_told_whole() {
    let headers = "[['A', 'b c'], ['Content-Length', '2']]";
    let (told, fault) = reply(b"HTTP/1.1 404 Not Found\r\nA:  b c \r\nContent-Length: 2\r\n\r\nhi");
    assert_eq!((told, fault), (vec![format!("reply 1 [404, {headers}, 'hi', \"Not Found\", 11, nil]")], None));
    let (told, fault) = reply(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n1\r\n!\r\n0\r\nT: v\r\nHost: x\r\n\r\n",
    );
    let chunked = "[['Transfer-Encoding', 'chunked']]";
    assert_eq!((told, fault), (vec![format!("reply 1 [200, {chunked}, 'hi!', \"OK\", 11, [['T', 'v']]]")], None));
    let (told, _) = reply(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 204 No\r\n\r\n");
    assert_eq!(told, ["reply 1 [204, [], '', \"No\", 11, nil]"]);
}

#[test]
fn rfc_9112_s6_3_bodies_end_where_they_should() {
    let mut rig = Rig::new("http://x");
    for (method, head) in [
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"),
        ("GET", "HTTP/1.1 304 OK\r\nContent-Length: 9\r\n\r\n"),
        ("GET", "HTTP/1.1 204 OK\r\n\r\n"),
        ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ] {
        rig.ask(&request(method, vec![]), false).unwrap();
        assert_eq!(rig.feed(head.as_bytes()), None);
        assert_eq!(rig.told().len(), 1, "{method} {head}");
        assert_eq!((rig.conn.admit(b""), rig.conn.inflight()), (Admit::Now, 0));
    }
    rig.get();
    rig.feed(b"HTTP/1.1 200 OK\r\n\r\nto the");
    assert!(rig.told().is_empty());
    rig.feed(b" end");
    assert_eq!(rig.eof(), None);
    assert_eq!(
        rig.told(),
        ["reply 1 [200, [], 'to the end', \"OK\", 11, nil]".replace("reply 1", "reply 5"), "Draining".into()]
    );
    for bad in [
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1, 1\r\n\r\n",
        "HTTP/1.1 101 OK\r\n\r\n",
        "HTTP/2.0 200 OK\r\n\r\n",
        "SSH-2.0-x\r\n\r\n",
    ] {
        assert_eq!(reply(bad.as_bytes()).1, Some(FaultKind::Protocol), "{bad}");
    }
    assert_eq!(reply("HTTP/1.1 100 C\r\n\r\n".repeat(40).as_bytes()).1, Some(FaultKind::Protocol));
}

#[test]
fn rfc_9112_s9_3_conns_are_reused_only_when_they_may() {
    for (text, reused) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", true),
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", false),
        ("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", false),
        ("HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n", true),
    ] {
        let mut rig = Rig::new("http://x");
        rig.get();
        rig.feed(text.as_bytes());
        assert_eq!(rig.told().contains(&"Draining".to_string()), !reused, "{text}");
        assert_eq!(rig.conn.admit(&pack(&request("GET", vec![]))) == Admit::Now, reused, "{text}");
    }
    let (_, fault) = reply(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 408 Timeout\r\n\r\n");
    assert_eq!(fault, Some(FaultKind::Closed), "bytes that nobody asked for");
    for start in ["", "HTTP/1.1 2", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nh"] {
        let mut rig = Rig::new("http://x");
        rig.get();
        rig.feed(start.as_bytes());
        assert_eq!(rig.eof(), Some(FaultKind::Closed), "{start}");
        let mut named = Vec::new();
        rig.conn.abandon(&mut |id| named.push(id.0));
        assert_eq!(named, [1]);
    }
}

#[test]
fn rfc_9110_s15_5_9_a_408_that_crossed_the_request_is_no_reply() {
    const LATE: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let late = |served: bool, ask: &V| {
        let mut rig = Rig::new("http://x");
        if served {
            rig.get();
            rig.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        }
        rig.ask(ask, false).unwrap();
        rig.told();
        let fault = rig.feed(LATE);
        (fault, rig.told().len())
    };
    assert_eq!(late(true, &request("GET", vec![])), (Some(FaultKind::Closed), 0), "it may be sent again elsewhere");
    assert_eq!(late(false, &request("GET", vec![])).0, None, "the server was asked nothing before");
    assert_eq!(late(true, &request("POST", vec![V::Nil, V::Str("x")])).0, None, "nobody may repeat this one");
}

#[test]
fn leaving_lets_a_body_end_with_its_conn() {
    let mut rig = Rig::new("http://x");
    rig.get();
    rig.feed(b"HTTP/1.1 200 OK\r\n\r\nto the");
    rig.close();
    rig.feed(b" end");
    assert_eq!((rig.eof(), rig.told()[0].contains("'to the end'")), (None, true));
}

#[test]
fn a_stream_is_told_as_it_comes() {
    let mut rig = Rig::new("http://x");
    rig.ask(&request("GET", vec![]), true).unwrap();
    rig.feed(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    assert_eq!(rig.told(), ["accepted 1 [200, [['Transfer-Encoding', 'chunked']], nil, \"OK\", 11]"]);
    rig.feed(b"5\r\nhello\r\n");
    assert_eq!(rig.told(), ["chunk bytes hello"]);
    rig.feed(b"0\r\nX: y\r\n\r\n");
    assert_eq!(rig.told(), ["reply 1 [['X', 'y']]"]);
    let big = [b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n".to_vec(), vec![b'x'; 200_000]].concat();
    let (told, fault) = streamed(V::Nil, &big);
    assert_eq!(fault, None, "streams have no max_reply");
    assert_eq!(told.len(), 6, "pieces of 64 KiB");
}

#[test]
fn whole_replies_have_a_limit() {
    let long = "HTTP/1.1 200 OK\r\nContent-Length: 8193\r\n\r\n";
    assert_eq!(reply(long.as_bytes()), (vec![], Some(FaultKind::TooLarge)));
    let chunked = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2001\r\n{}", "x".repeat(8193));
    assert_eq!(reply(chunked.as_bytes()), (vec![], Some(FaultKind::TooLarge)));
    let head = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(9000));
    assert_eq!(reply(head.as_bytes()), (vec![], Some(FaultKind::TooLarge)));
}

#[test]
fn bodies_are_sent_in_pieces() {
    let mut rig = Rig::new("http://x");
    assert_eq!(rig.ask(&request("PUT", vec![V::Nil, V::True]), false), Ok(Then::Open));
    assert_eq!(rig.wrote(), "PUT /a?b=c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    assert_eq!(rig.send(&V::Str("hello")), Ok(Then::Open));
    let span = V::Map(vec![("fd", V::Int(3)), ("offset", V::Int(7)), ("length", V::Int(16))]);
    assert_eq!(rig.send(&span), Ok(Then::Open));
    assert_eq!(rig.files, [(14, Span { fd: 3, offset: 7, length: 16 })]);
    assert!(rig.send(&V::Array(vec![V::Array(vec![V::Str("Host"), V::Str("x")])])).is_err(), "no trailer");
    assert_eq!(rig.send(&V::Array(vec![V::Array(vec![V::Str("T"), V::Str("v")])])), Ok(Then::Done));
    assert_eq!(rig.wrote(), "5\r\nhello\r\n10\r\n\r\n0\r\nT: v\r\n\r\n");
    assert!(rig.send(&V::Nil).is_err(), "it is whole");
    rig.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(rig.told().len(), 1);

    let length = V::Map(vec![("Content-Length", V::Str("5"))]);
    rig.ask(&request("PUT", vec![length, V::True]), false).unwrap();
    assert!(rig.send(&V::Str("hello!")).is_err());
    assert_eq!(rig.send(&V::Str("hel")), Ok(Then::Open));
    assert!(rig.send(&V::Nil).is_err(), "two bytes are missing");
    assert_eq!(rig.send(&V::Str("lo")), Ok(Then::Open));
    assert_eq!(rig.send(&V::Nil), Ok(Then::Done));
    assert!(rig.wrote().ends_with("\r\nContent-Length: 5\r\n\r\nhello"));
}

#[test]
fn a_reply_before_the_whole_body_ends_the_conn() {
    let mut rig = Rig::new("http://x");
    rig.ask(&request("PUT", vec![V::Nil, V::True]), false).unwrap();
    rig.feed(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(rig.told()[1..], ["Draining"]);
    assert!(rig.send(&V::Str("x")).is_err());
}

#[test]
fn rfc_9110_s10_1_1_a_body_waits_for_leave() {
    let expects = V::Map(vec![("expect", V::True)]);
    let body = || request("PUT", vec![V::Nil, V::Str("body"), expects.clone()]);
    let mut rig = Rig::new("http://x");
    rig.ask(&body(), false).unwrap();
    assert!(rig.wrote().ends_with("\r\nExpect: 100-continue\r\n\r\n"));
    rig.feed(b"HTTP/1.1 100 Continue\r\n\r\n");
    assert_eq!((rig.wrote().as_str(), rig.conn.poll_timeout()), ("body", None));

    let mut rig = Rig::new("http://x");
    rig.ask(&body(), false).unwrap();
    rig.wire.clear();
    assert_eq!(rig.conn.poll_timeout(), Some(rig.now + Duration::from_secs(1)));
    assert_eq!(rig.pass(Duration::from_secs(1)), None);
    assert_eq!((rig.wrote().as_str(), rig.conn.poll_timeout()), ("body", None));

    let mut rig = Rig::new("http://x");
    rig.ask(&request("PUT", vec![V::Nil, V::True, expects]), false).unwrap();
    rig.wire.clear();
    rig.send(&V::Str("held")).unwrap();
    rig.feed(b"HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(rig.wrote(), "", "nobody wants it");
    assert_eq!(rig.told()[1..], ["Draining"]);
    assert_eq!(rig.conn.poll_timeout(), None);
}

#[test]
fn pipelines_keep_the_order_and_take_only_what_may_be_repeated() {
    let mut rig = Rig::new("http://x?pipeline=true");
    let get = pack(&request("GET", vec![]));
    rig.get();
    assert_eq!(rig.conn.admit(&get), Admit::Now);
    assert_eq!(rig.conn.admit(&pack(&request("POST", vec![]))), Admit::Later);
    rig.ask(&request("HEAD", vec![]), false).unwrap();
    rig.feed(b"HTTP/1.1 200 A\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 B\r\nContent-Length: 9\r\n\r\n");
    let told = rig.told();
    assert!(told[0].starts_with("reply 1") && told[1].starts_with("reply 2"), "{told:?}");
    rig.get();
    rig.get();
    let fault = rig.feed(b"HTTP/1.1 200 A\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    assert_eq!(fault, Some(FaultKind::Closed), "the second is not served any more");
    let mut plain = Rig::new("http://x");
    plain.get();
    assert_eq!(plain.conn.admit(&get), Admit::Later);
}

#[test]
fn who_cancels_is_told_nothing_and_spoils_the_conn() {
    let mut rig = Rig::new("http://x");
    rig.get();
    rig.cancel();
    assert_eq!((rig.conn.tenancy(), rig.conn.inflight()), (Tenancy::Spoiled, 1));
    rig.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
    assert!(rig.told().is_empty());
    assert_eq!(rig.conn.inflight(), 0);
    rig.conn.abandon(&mut |id| panic!("{id:?}"));
}

#[test]
fn credentials_are_secrets_and_methods_have_names() {
    let driver = Rig::new("http://x").driver;
    let with = |name| pack(&request("GET", vec![V::Map(vec![(name, V::Str("v"))])]));
    for name in ["authorization", "Cookie", "PROXY-Authorization"] {
        assert!(driver.is_secret(&with(name)), "{name}");
    }
    assert!(!driver.is_secret(&with("X")) && driver.is_secret(b"\xc1"));
    assert_eq!(driver.command(&with("X")), b"GET");
    let idempotent =
        |method, body| driver.classify(&pack(&request(method, vec![V::Nil, body])), false).unwrap().idempotent;
    assert!(idempotent("GET", V::Nil) && idempotent("PUT", V::Str("x")));
    assert!(!idempotent("PUT", V::True) && !idempotent("POST", V::Nil) && !idempotent("PATCH", V::Nil));
}

fn zipped(coding: &str, data: &[u8]) -> Vec<u8> {
    fn finish<W: Write>(mut encoder: W, data: &[u8]) -> W {
        encoder.write_all(data).unwrap();
        encoder
    }
    let level = Compression::default();
    match coding {
        "gzip" => finish(GzEncoder::new(Vec::new(), level), data).finish().unwrap(),
        "deflate" => finish(ZlibEncoder::new(Vec::new(), level), data).finish().unwrap(),
        "raw" => finish(DeflateEncoder::new(Vec::new(), level), data).finish().unwrap(),
        "br" => finish(brotli::CompressorWriter::new(Vec::new(), 4096, 5, 20), data).into_inner(),
        _ => zstd::bulk::compress(data, 3).unwrap(),
    }
}

fn decoded(coding: &str, bytes: &[u8], streams: bool, piece: usize) -> (Vec<String>, Option<FaultKind>) {
    let mut rig = Rig::new("http://x");
    rig.ask(&request("GET", vec![V::Nil, V::Nil, V::Map(vec![("decode", V::True)])]), streams).unwrap();
    assert!(rig.wrote().contains("Accept-Encoding: gzip, deflate, br, zstd\r\n"));
    rig.feed(
        format!("HTTP/1.1 200 OK\r\nContent-Encoding: {coding}\r\nContent-Length: {}\r\n\r\n", bytes.len()).as_bytes(),
    );
    let fault = bytes.chunks(piece).find_map(|part| rig.feed(part));
    (rig.told(), fault)
}

#[test]
fn bodies_are_decoded() {
    let text = "all work and no play ".repeat(100);
    for (name, coding) in [("gzip", "gzip"), ("deflate", "deflate"), ("deflate", "raw"), ("br", "br"), ("zstd", "zstd")]
    {
        let bytes = zipped(coding, text.as_bytes());
        for piece in [1, 7, usize::MAX] {
            let expected = format!("reply 1 [200, [], '{text}', \"OK\", 11, nil]");
            assert_eq!(decoded(name, &bytes, false, piece), (vec![expected], None), "{coding} by {piece}");
        }
        let (told, fault) = decoded(name, &bytes[..bytes.len() - 1], false, 5);
        assert_eq!((told.len(), fault), (0, Some(FaultKind::Protocol)), "{coding} cut short");
        let longer = [&bytes[..], b"x"].concat();
        assert_eq!(decoded(name, &longer, false, 5).1, Some(FaultKind::Protocol), "{coding} and a byte more");
    }
    let both = zipped("br", &zipped("gzip", text.as_bytes()));
    let (told, fault) = decoded("gzip, br", &both, true, 3);
    let chunks: String = told.iter().filter_map(|line| line.strip_prefix("chunk bytes ")).collect();
    assert_eq!((chunks, fault), (text.clone(), None));
    let twice = [zipped("gzip", b"one "), zipped("gzip", b"two")].concat();
    assert_eq!(decoded("gzip", &twice, false, 4).0, ["reply 1 [200, [], 'one two', \"OK\", 11, nil]"]);
    let mut wrong = zipped("gzip", b"one");
    let at = wrong.len() - 6;
    wrong[at] ^= 1;
    assert_eq!(decoded("gzip", &wrong, false, 4).1, Some(FaultKind::Protocol), "its checksum");
    let mut rig = Rig::new("http://x");
    rig.ask(&request("GET", vec![V::Nil, V::Nil, V::Map(vec![("decode", V::True)])]), false).unwrap();
    rig.feed(b"HTTP/1.1 206 Partial Content\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\nhi");
    assert!(rig.told()[0].contains("'Content-Encoding', 'gzip'"), "a part cannot be decoded");
    let (told, _) = decoded("aws-chunked", b"as it is", false, 4);
    assert!(told[0].contains("'aws-chunked'") && told[0].contains("'as it is'"), "{told:?}");
}

#[test]
fn bombs_stop_at_the_limit_and_come_in_pieces() {
    let zeros = vec![0; 4 << 20];
    for coding in ["gzip", "deflate", "br", "zstd"] {
        let bomb = zipped(coding, &zeros);
        assert_eq!(decoded(coding, &bomb, false, usize::MAX), (vec![], Some(FaultKind::TooLarge)), "{coding}");
        let mut rig = Rig::new("http://x");
        rig.ask(&request("GET", vec![V::Nil, V::Nil, V::Map(vec![("decode", V::True)])]), true).unwrap();
        rig.feed(
            format!("HTTP/1.1 200 OK\r\nContent-Encoding: {coding}\r\nContent-Length: {}\r\n\r\n", bomb.len())
                .as_bytes(),
        );
        rig.log.0 = vec![];
        assert_eq!(rig.feed(&bomb), None);
        let told = rig.told();
        let longest = told.iter().map(String::len).max().unwrap();
        assert!(longest <= "chunk bytes ".len() + 4 * (64 << 10), "{coding}: {longest}");
        assert_eq!(told.iter().map(|line| line.matches("\\x00").count()).sum::<usize>(), zeros.len(), "{coding}");
    }
}

fn lane(head: &str) -> Rig {
    let mut rig = Rig::new("http://x");
    let options = V::Map(vec![("upgrade", V::Str("tcp"))]);
    rig.ask(&request("POST", vec![V::Nil, V::Nil, options]), true).unwrap();
    assert_eq!(rig.feed(head.as_bytes()), None);
    rig
}

#[test]
fn a_lane_ends_when_both_sides_have_and_all_is_written() {
    let head = "HTTP/1.1 101 Up\r\nUpgrade: tcp\r\nConnection: Upgrade\r\n\r\nhi";
    for peer_first in [true, false] {
        let mut rig = lane(head);
        assert_eq!(rig.told()[1..], ["chunk bytes hi"]);
        assert!(!rig.flushed());
        rig.wire.clear();
        if peer_first {
            assert_eq!(rig.eof(), None);
            assert_eq!((rig.told(), rig.conn.inflight()), (vec!["end nil".to_string()], 1));
        }
        assert_eq!(rig.send(&V::Str("bye")), Ok(Then::Open));
        assert_eq!(rig.send(&V::Nil), Ok(Then::Done));
        assert!(rig.send(&V::Str("more")).is_err());
        assert_eq!((rig.wrote().as_str(), rig.told().len()), ("bye", 0), "the system has not taken it yet");
        assert!(rig.flushed());
        if !peer_first {
            assert_eq!(rig.feed(b"yes?"), None);
            assert_eq!(
                (rig.eof(), rig.told()[..2].to_vec()),
                (None, vec!["chunk bytes yes?".into(), "end nil".into()])
            );
        } else {
            assert_eq!(rig.told(), ["reply 1 nil", "Draining"]);
        }
        assert_eq!(rig.conn.inflight(), 0);
    }
}

#[test]
fn what_goes_without_saying_is_said_where_the_program_says_it() {
    for word in ["keep-alive", "close"] {
        let mut rig = Rig::new("http://x");
        let headers = V::Array(vec![
            V::Array(vec![V::Str("Connection"), V::Str(word)]),
            V::Array(vec![V::Str("X"), V::Str("y")]),
        ]);
        rig.ask(&request("GET", vec![headers]), false).unwrap();
        assert_eq!(rig.wrote(), format!("GET /a?b=c HTTP/1.1\r\nHost: x\r\nConnection: {word}\r\nX: y\r\n\r\n"));
        rig.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(rig.told().len(), if word == "close" { 2 } else { 1 });
    }
}
