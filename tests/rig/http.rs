//! Sequences of operations on one HTTP conn, of either side, chosen by bytes: for generated tests and for fuzzing. What is
//! said to a conn is the same twice, once as it comes and once byte by byte: so must be its events.
use std::time::Duration;

use iokernel::proto::{Limits, scheme};
use iokernel::value::write;

use super::{LIMITS, PIECES, Rig};

/// A value to be written as MessagePack.
enum V<'a> {
    Nil,
    True,
    Int(i64),
    Str(&'a str),
    Array(Vec<V<'a>>),
    Map(Vec<(&'a str, V<'a>)>),
}

use V::{Array, Int, Map, Nil, Str, True};

fn pack(value: &V<'_>) -> Vec<u8> {
    fn to(out: &mut Vec<u8>, value: &V<'_>) {
        match value {
            Nil => write::nil(out),
            True => write::bool(out, true),
            Int(number) => write::int(out, *number),
            Str(text) => write::str(out, text.as_bytes()),
            Array(values) => {
                write::array(out, values.len() as u32);
                values.iter().for_each(|value| to(out, value));
            }
            Map(pairs) => {
                write::map(out, pairs.len() as u32);
                for (key, value) in pairs {
                    write::str(out, key.as_bytes());
                    to(out, value);
                }
            }
        }
    }
    let mut out = Vec::new();
    to(&mut out, value);
    out
}

/// What a program asks for.
fn requests() -> Vec<Vec<u8>> {
    let ask = |method, headers, body, options| pack(&Array(vec![Str(method), Str("/a"), headers, body, options]));
    let option = |name, value| Map(vec![(name, value)]);
    vec![
        ask("GET", Nil, Nil, Nil),
        ask("HEAD", Nil, Nil, Nil),
        ask("POST", Nil, Str("hi"), Nil),
        ask("PUT", Nil, True, Nil),
        ask("PUT", option("Content-Length", Str("4")), True, Nil),
        ask("PUT", option("Content-Length", Str("0")), True, Nil),
        ask("PUT", Nil, Str("body"), option("expect", True)),
        ask("PUT", Nil, True, option("expect", True)),
        ask("GET", Nil, Nil, option("decode", True)),
        ask("GET", option("Connection", Str("close")), Nil, Nil),
        ask("GET", Nil, Nil, option("upgrade", Str("foo"))),
        ask(
            "GET",
            option("Sec-WebSocket-Key", Str("dGhlIHNhbXBsZSBub25jZQ==")),
            Nil,
            option("upgrade", Str("websocket")),
        ),
        pack(&Array(vec![Str("CONNECT"), Str("o:1")])),
    ]
}

/// What a server says, whole or not.
const RESPONSES: &[&[u8]] = &[
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
    b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"4\r\nWiki\r\n",
    b"3;a=\"b\"\r\nabc\r\n0\r\nT: v\r\n\r\n",
    b"0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n\r\n",
    b"some bytes",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n",
    b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
    b"HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 500 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi",
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: foo\r\nConnection: Upgrade\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
      Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
    b"\x81\x05Hello\x01\x03Hel\x89\x01p\x80\x02lo",
    b"\x88\x05\x03\xe8bye",
    b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 28\r\n\r\n",
    b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03\xcb\x48\xcd\xc9\xc9\x57\xc8\x40\x90\x00\x80\x88\xf9\xe5\x11\x00\x00\x00",
    b"HTTP/1.1 200 OK\r\nX: ",
    b"\r\n",
];

/// What clients say.
const REQUESTS: &[&[u8]] = &[
    b"GET / HTTP/1.1\r\nHost: h\r\n\r\n",
    b"HEAD /a?b HTTP/1.1\r\nHost: h\r\nA: b\r\n\r\n",
    b"GET / HTTP/1.0\r\n\r\n",
    b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    b"GET /health HTTP/1.1\r\nHost: h\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody",
    b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 40\r\n\r\n0123456789012345678901234567890123456789",
    b"PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nWiki\r\n0\r\nT: v\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: foo\r\n\r\n",
    b"CONNECT h:443 HTTP/1.1\r\nHost: h\r\n\r\n",
    b"\r\n",
];

/// What clients say in pieces.
const PARTS: &[&[u8]] = &[
    b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"4\r\nWiki\r\n",
    b"22;a=b\r\n0123456789012345678901234567890123\r\n",
    b"0\r\n\r\n",
    b"0\r\nT: v\r\n\r\n",
    b"some bytes that belong to a body or to nobody, fifty-two of them",
    b"POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 40\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
      Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    b"\x81\x85\0\0\0\0Hello\x89\x81\0\0\0\0p",
    b"\x88\x82\0\0\0\0\x03\xe8",
    b"GET /",
    b"\r\n",
];

/// What a program answers.
fn answers() -> Vec<Vec<u8>> {
    let answer = |status, headers, body| pack(&Array(vec![Int(status), headers, body]));
    let header = |name, value| Map(vec![(name, Str(value))]);
    vec![
        answer(200, Nil, Str("hello")),
        answer(204, Nil, Nil),
        answer(200, Nil, True),
        answer(200, header("Content-Length", "4"), True),
        answer(200, header("Content-Length", "4"), Str("hello")),
        answer(200, header("Content-Length", "9"), Str("hello")),
        answer(200, header("Connection", "close"), Array(vec![Str("a"), Str("bc")])),
        answer(200, Nil, Map(vec![("fd", Int(3)), ("length", Int(5))])),
        answer(103, header("Link", "x"), Nil),
        answer(100, Nil, Nil),
        answer(101, Nil, True),
        answer(101, header("Sec-WebSocket-Protocol", "x"), True),
        answer(304, header("Content-Length", "4"), Nil),
        answer(200, header("X", "a\r\nb"), Nil),
        pack(&Array(vec![Int(200), Nil, Str("hello"), Array(vec![Array(vec![Str("T"), Str("v")])])])),
        pack(&Int(7)),
    ]
}

/// Bytes that choose.
struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn literal(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        taken
    }
}

/// One conn after the other, and whether they are fed byte by byte.
struct Conns<'a> {
    fresh: &'a dyn Fn() -> Rig,
    rig: Rig,
    bytewise: bool,
    /// Events of those that are over.
    lines: Vec<String>,
}

impl<'a> Conns<'a> {
    fn new(fresh: &'a dyn Fn() -> Rig, bytewise: bool) -> Self {
        Conns { fresh, rig: fresh(), bytewise, lines: Vec::new() }
    }

    fn feed(&mut self, bytes: &[u8]) {
        match self.bytewise {
            true => bytes.iter().for_each(|byte| self.rig.feed(&[*byte])),
            false => self.rig.feed(bytes),
        }
    }

    /// Goes on with another, if nothing can come of this one.
    fn renew(&mut self) {
        if self.rig.is_over() {
            let over = std::mem::replace(&mut self.rig, (self.fresh)());
            self.lines.extend(over.finish().0);
        }
    }

    fn finish(mut self) -> Vec<String> {
        self.lines.extend(self.rig.finish().0);
        self.lines
    }
}

fn same(fresh: &dyn Fn() -> Rig, data: &[u8], step: impl Fn(&mut Conns<'_>, u8, u8, &mut Choices<'_>)) {
    let run = |bytewise| {
        let (mut choices, mut conns) = (Choices(data), Conns::new(fresh, bytewise));
        while let (Some(op), Some(which)) = (choices.byte(), choices.byte()) {
            conns.renew();
            step(&mut conns, op, which, &mut choices);
        }
        conns.finish()
    };
    assert_eq!(run(false), run(true), "law 1");
}

/// Conns of a service.
pub fn client(data: &[u8]) {
    let (Some(row), Some((flags, data))) = (scheme("http"), data.split_first()) else { return };
    let requests = requests();
    let url = if flags & 1 == 1 { "http://h?pipeline=true" } else { "http://h" };
    let fresh = || Rig::new(row, url, true, LIMITS);
    same(&fresh, data, |conns, op, which, choices| {
        let number = usize::from(which);
        match op % 16 {
            0..=2 => {
                conns.rig.streams = op & 16 != 0;
                conns.rig.request(&requests[number % requests.len()]);
            }
            3..=5 => conns.rig.send(PIECES[number % PIECES.len()]),
            6..=10 => {
                if conns.rig.conn.inflight() == 0 && op & 128 == 0 {
                    conns.rig.request(&requests[usize::from(op >> 4)]);
                }
                conns.feed(RESPONSES[number % RESPONSES.len()]);
            }
            11 => {
                let literal = choices.literal(number % 64);
                conns.feed(literal);
            }
            12 => conns.rig.cancel(u64::from(which)),
            13 => conns.rig.pass(Duration::from_millis(100 * u64::from(which))),
            14 if number < 64 => conns.rig.eof(),
            14 if number < 128 => conns.rig.close(),
            14 => drop(conns.rig.request(choices.literal(number % 64))),
            _ => conns.rig.send(choices.literal(number % 64)),
        }
    });
}

/// Conns of a listener.
pub fn server(data: &[u8]) {
    let (Some(row), Some((flags, data))) = (scheme("http"), data.split_first()) else { return };
    let answers = answers();
    let form = ["message", "cgi", "scope"][usize::from(*flags) % 3];
    let url = format!("http://h?form={form}&stream_above=32&health=/health&max_head=1024");
    let limits = Limits { access: flags & 128 == 128, inflight_max: 4, ..LIMITS };
    let fresh = || {
        let mut rig = Rig::new(row, &url, false, limits);
        rig.replies_held = usize::MAX;
        rig
    };
    same(&fresh, data, |conns, op, which, choices| {
        let number = usize::from(which);
        match op % 16 {
            0..=3 => conns.feed(REQUESTS[number % REQUESTS.len()]),
            4..=5 => conns.feed(PARTS[number % PARTS.len()]),
            6 => {
                let literal = choices.literal(number % 64);
                conns.feed(literal);
            }
            7..=9 => conns.rig.reply_to(usize::from(op >> 4), &answers[number % answers.len()]),
            10..=12 => conns.rig.send_to(usize::from(op >> 4), PIECES[number % PIECES.len()]),
            13 => conns.rig.pass(Duration::from_millis(250 * u64::from(which))),
            14 if number < 32 => conns.rig.eof(),
            14 if number < 64 => conns.rig.close(),
            14 => conns.rig.reply_to(usize::from(op >> 4), choices.literal(number % 64)),
            _ => conns.rig.send_to(usize::from(op >> 4), choices.literal(number % 64)),
        }
    });
}
