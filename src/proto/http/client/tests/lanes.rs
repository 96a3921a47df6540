//! Conns that become another protocol's: upgrades (RFC 9110, 7.8), CONNECT (9.3.6), WebSocket (RFC 6455).
use super::*;
use crate::proto::websocket::{self, Codec, Config, Role, Step, Told};

/// The key of RFC 6455, 1.3, and what proves that a server has read it.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const AGREES: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                      Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
const SWITCHES: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: foo\r\nConnection: Upgrade\r\n\r\n";
const SECOND: Duration = Duration::from_secs(1);

fn asks(upgrade: &'static str) -> V {
    request("GET", vec![V::Nil, V::Nil, V::Map(vec![("upgrade", V::Str(upgrade))])])
}

fn asks_websocket(mut options: Vec<(&'static str, V)>) -> V {
    options.push(("upgrade", V::Str("websocket")));
    request("GET", vec![V::Map(vec![("Sec-WebSocket-Key", V::Str(KEY))]), V::Nil, V::Map(options)])
}

/// A lane of bytes after 101.
fn raw() -> Rig {
    let mut rig = Rig::new("http://x");
    assert_eq!(rig.ask(&asks("foo"), true), Ok(Then::Open));
    assert_eq!(rig.feed(SWITCHES), None);
    rig.wire.clear();
    assert_eq!(
        rig.told(),
        ["accepted 1 [101, [['Upgrade', 'foo'], ['Connection', 'Upgrade']], nil, \"Switching Protocols\", 11]"]
    );
    rig
}

/// A lane of messages.
fn websocket() -> Rig {
    let mut rig = Rig::new("http://x");
    assert_eq!(rig.ask(&asks_websocket(vec![]), true), Ok(Then::Open));
    assert_eq!(rig.feed(AGREES.as_bytes()), None);
    rig.wire.clear();
    assert_eq!(rig.told().len(), 1);
    rig
}

/// The server's end of a lane.
fn server() -> Codec {
    Codec::new(Config { role: Role::Server, message_bytes_max: 1 << 20, deflate: None, mask_seed: 0 })
}

/// What the server hears of what was written.
fn heard(codec: &mut Codec, rig: &mut Rig) -> Vec<String> {
    let mut input = &std::mem::take(&mut rig.wire)[..];
    let mut heard = Vec::new();
    loop {
        match codec.step(input, &mut Vec::new()).unwrap() {
            Step::Need(_) => {
                assert!(input.is_empty(), "half a frame");
                return heard;
            }
            Step::Done { consumed, told } => {
                input = &input[consumed..];
                heard.extend(told.map(|told| match told {
                    Told::Text(text) => format!("text {}", text.escape_ascii()),
                    Told::Binary(bytes) => format!("binary {}", bytes.escape_ascii()),
                    Told::Ping(payload) => format!("ping {}", payload.escape_ascii()),
                    Told::Pong(payload) => format!("pong {}", payload.escape_ascii()),
                    Told::Close { code, reason } => format!("close {code} {}", reason.escape_ascii()),
                }));
            }
        }
    }
}

/// What the server says, as it is on the wire.
fn says(act: impl FnOnce(&mut Codec, &mut Vec<u8>) -> Result<(), websocket::Refused>) -> Vec<u8> {
    let mut wire = Vec::new();
    act(&mut server(), &mut wire).unwrap();
    wire
}

#[test]
fn an_upgrade_is_asked_for_and_bytes_flow_once_it_is_agreed() {
    let mut rig = Rig::new("http://x");
    assert_eq!(rig.ask(&asks("foo/2"), true), Ok(Then::Open));
    assert_eq!(rig.wrote(), "GET /a?b=c HTTP/1.1\r\nHost: x\r\nUpgrade: foo/2\r\nConnection: Upgrade\r\n\r\n");
    assert!(rig.send(&V::Str("too soon")).is_err());
    assert_eq!(rig.feed(b"HTTP/1.1 101 x\r\nUpgrade: FOO/2\r\n\r\nearly"), None);
    assert_eq!(rig.told()[1..], ["chunk bytes early"]);
    assert_eq!(rig.send(&V::Str("hello")), Ok(Then::Open));
    assert_eq!(rig.send(&V::Map(vec![("fd", V::Int(3)), ("length", V::Int(9))])), Ok(Then::Open));
    assert_eq!(rig.send(&V::Bin(b" there".to_vec())), Ok(Then::Open));
    assert_eq!(
        (rig.wrote().as_str(), rig.files.as_slice()),
        ("hello there", &[(5, Span { fd: 3, offset: 0, length: 9 })][..])
    );
    assert!(rig.send(&V::Array(vec![])).is_err() && rig.send(&V::Map(vec![("ping", V::Str("x"))])).is_err());
    assert_eq!((rig.conn.tenancy(), rig.conn.inflight()), (Tenancy::Spoiled, 1));
    assert_eq!(rig.conn.admit(&pack(&request("GET", vec![]))), Admit::Later);
    assert_eq!(rig.conn.poll_timeout(), None);
}

#[test]
fn each_side_of_a_lane_ends_by_itself() {
    let mut rig = raw();
    assert_eq!(rig.eof(), None);
    assert_eq!(rig.told(), ["end nil"]);
    assert_eq!(rig.send(&V::Str("still")), Ok(Then::Open));
    assert_eq!(rig.wrote(), "still");
    assert_eq!(rig.send(&V::Nil), Ok(Then::Done));
    assert!(rig.flushed());
    assert_eq!(rig.told(), ["reply 1 nil", "Draining"]);
    assert!(rig.send(&V::Str("x")).is_err());

    let mut rig = raw();
    assert_eq!(rig.send(&V::Nil), Ok(Then::Done));
    assert!(rig.send(&V::Str("x")).is_err(), "we are done");
    assert_eq!(rig.feed(b"still"), None);
    assert_eq!(rig.told(), ["chunk bytes still"]);
    assert!(rig.flushed());
    assert_eq!(rig.eof(), None);
    assert_eq!(rig.told(), ["end nil", "reply 1 nil", "Draining"]);
    rig.conn.abandon(&mut |id| panic!("{id:?} had its reply"));
}

#[test]
fn a_refused_upgrade_is_a_reply_and_leaves_http() {
    for status in ["426 Upgrade Required", "200 OK"] {
        for upgrade in [asks("foo"), asks_websocket(vec![])] {
            let mut rig = Rig::new("http://x");
            rig.ask(&upgrade, true).unwrap();
            assert_eq!(rig.feed(format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nno").as_bytes()), None);
            assert_eq!(rig.told()[1..], ["chunk bytes no", "reply 1 nil"]);
            assert!(rig.send(&V::Str("x")).is_err());
            assert_eq!(rig.conn.admit(&pack(&request("GET", vec![]))), Admit::Now);
        }
    }
    for upgrade in [asks("foo"), asks_websocket(vec![])] {
        assert!(Rig::new("http://x").ask(&upgrade, false).is_err(), "an upgrade is a stream");
    }
}

#[test]
fn a_101_that_does_not_agree_is_a_fault() {
    let other = AGREES.replace("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", "x3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    for (ask, answer) in [
        (request("GET", vec![]), "HTTP/1.1 101 x\r\nUpgrade: foo\r\nConnection: Upgrade\r\n\r\n".to_string()),
        (asks("foo"), "HTTP/1.1 101 x\r\nUpgrade: bar\r\nConnection: Upgrade\r\n\r\n".into()),
        (asks("foo"), "HTTP/1.1 101 x\r\nConnection: Upgrade\r\n\r\n".into()),
        (asks_websocket(vec![]), "HTTP/1.1 101 x\r\nUpgrade: foo\r\nConnection: Upgrade\r\n\r\n".into()),
        (asks_websocket(vec![]), other),
        (asks_websocket(vec![]), AGREES.replace("Connection: Upgrade\r\n", "")),
        (asks_websocket(vec![]), AGREES.replace("websocket", "websocket, foo")),
        (asks_websocket(vec![]), AGREES.replace("\r\n\r\n", "\r\nSec-WebSocket-Protocol: chat\r\n\r\n")),
        (asks_websocket(vec![]), AGREES.replace("\r\n\r\n", "\r\nSec-WebSocket-Extensions: x-gzip\r\n\r\n")),
        (
            asks_websocket(vec![("compress", V::True), ("protocols", V::Array(vec![V::Str("a"), V::Str("b")]))]),
            AGREES.replace("\r\n\r\n", "\r\nSec-WebSocket-Protocol: c\r\n\r\n"),
        ),
    ] {
        let mut rig = Rig::new("http://x");
        rig.ask(&ask, true).unwrap();
        assert_eq!(rig.feed(answer.as_bytes()), Some(FaultKind::Protocol), "{answer}");
        assert!(rig.told().is_empty());
        let mut named = Vec::new();
        rig.conn.abandon(&mut |id| named.push(id.0));
        assert_eq!(named, [1]);
    }
}

#[test]
fn a_tunnel_begins_with_any_2xx_whatever_that_says_of_a_body() {
    for fields in ["", "Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n"] {
        let mut rig = Rig::new("http://x");
        assert_eq!(rig.ask(&V::Array(vec![V::Str("CONNECT"), V::Str("o:1")]), true), Ok(Then::Open));
        assert!(rig.send(&V::Str("too soon")).is_err());
        assert_eq!(rig.feed(format!("HTTP/1.1 299 x\r\n{fields}\r\nbytes").as_bytes()), None);
        let told = rig.told();
        assert!(told[0].starts_with("accepted 1 [299") && told[1..] == ["chunk bytes bytes"], "{told:?}");
        rig.wire.clear();
        assert_eq!(rig.send(&V::Str("GET / HTTP/1.1")), Ok(Then::Open));
        assert_eq!(rig.wrote(), "GET / HTTP/1.1");
    }
    let mut rig = Rig::new("http://x");
    rig.ask(&V::Array(vec![V::Str("CONNECT"), V::Str("o:1")]), true).unwrap();
    assert_eq!(rig.feed(b"HTTP/1.1 407 Who\r\nContent-Length: 2\r\n\r\nno"), None);
    assert_eq!(rig.told()[1..], ["chunk bytes no", "reply 1 nil"]);
    assert_eq!(rig.conn.admit(&pack(&request("GET", vec![]))), Admit::Now);
}

#[test]
fn a_websocket_is_asked_for_with_what_is_offered() {
    let mut rig = Rig::new("http://x");
    let protocols = V::Array(vec![V::Str("a"), V::Str("b")]);
    rig.ask(&asks_websocket(vec![("protocols", protocols)]), true).unwrap();
    let expected = format!(
        "GET /a?b=c HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {KEY}\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: a, b\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
    );
    assert_eq!(rig.wrote(), expected);
    let more = "\r\nSec-WebSocket-Protocol: b\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n";
    assert_eq!(rig.feed(AGREES.replace("\r\n\r\n", more).as_bytes()), None);
    assert!(rig.told()[0].contains("'Sec-WebSocket-Protocol', 'b'"));
    assert_eq!(rig.send(&V::Str("x")), Ok(Then::Open));

    let key = |ask: &V| {
        let mut rig = Rig::new("http://x");
        rig.ask(ask, true).unwrap();
        let wrote = rig.wrote();
        wrote.split("Sec-WebSocket-Key: ").nth(1).unwrap().split("\r\n").next().unwrap().to_string()
    };
    assert_ne!(key(&asks("websocket")), key(&asks("websocket")), "keys are of one conn (RFC 6455, 4.1)");
    let body = V::Map(vec![("upgrade", V::Str("websocket"))]);
    assert!(Rig::new("http://x").ask(&request("GET", vec![V::Nil, V::Str("body"), body.clone()]), true).is_err());
    assert!(Rig::new("http://x").ask(&request("POST", vec![V::Nil, V::Nil, body]), true).is_err());
}

#[test]
fn messages_go_both_ways() {
    let mut rig = websocket();
    let mut codec = server();
    assert_eq!(rig.send(&V::Str("text")), Ok(Then::Open));
    assert_eq!(rig.send(&V::Bin(vec![0, 255])), Ok(Then::Open));
    assert_eq!(rig.send(&V::Map(vec![("ping", V::Str("p"))])), Ok(Then::Open));
    assert!(rig.send(&V::Map(vec![("fd", V::Int(3)), ("length", V::Int(9))])).is_err());
    assert!(rig.send(&V::Map(vec![("ping", V::Bin(vec![0; 126]))])).is_err());
    assert_eq!(heard(&mut codec, &mut rig), ["text text", "binary \\x00\\xff", "ping p"]);
    rig.feed(b"\x81\x05Hello\x01\x03Hel\x89\x01p\x80\x02lo\x8a\x00\x82\x02\x00\x01");
    assert_eq!(rig.told(), ["chunk text Hello", "chunk text Hello", "chunk bytes \\x00\\x01"]);
    assert_eq!(heard(&mut codec, &mut rig), ["pong p"]);
}

#[test]
fn a_websocket_is_closed_by_either_side() {
    // By the server.
    let mut rig = websocket();
    rig.feed(&says(|codec, wire| codec.close(1001, b"bye", wire)));
    assert_eq!(rig.eof(), None, "which may come before our answer is written");
    assert!(rig.flushed());
    assert_eq!(rig.told(), ["end [1001, \"bye\"]", "reply 1 nil", "Draining"]);
    assert_eq!(heard(&mut server(), &mut rig), ["close 1001 "]);
    assert!(rig.send(&V::Str("x")).is_err());
    assert_eq!((rig.eof(), rig.conn.inflight()), (None, 0));
    // By us.
    for (word, expected) in [
        (V::Nil, "close 1000 "),
        (V::Array(vec![V::Int(3000), V::Str("why")]), "close 3000 why"),
        (V::Array(vec![V::Int(3000)]), "close 3000 "),
        (V::Array(vec![V::Int(3000), V::Nil]), "close 3000 "),
        (V::Array(vec![V::Nil]), "close 1005 "),
    ] {
        let mut rig = websocket();
        assert_eq!(rig.send(&word), Ok(Then::Done), "{word:?}");
        assert_eq!(heard(&mut server(), &mut rig), [expected]);
        assert!(rig.send(&V::Str("x")).is_err(), "nothing follows a close");
        rig.feed(&says(|codec, wire| codec.text(b"crossed it", wire)));
        assert!(!rig.flushed(), "the server may have more to say");
        rig.feed(&says(|codec, wire| codec.close(1000, b"", wire)));
        assert!(rig.flushed());
        assert_eq!(rig.told(), ["chunk text crossed it", "end [1000, \"\"]", "reply 1 nil", "Draining"]);
    }
    for word in [
        V::Array(vec![]),
        V::Array(vec![V::Int(1006)]),
        V::Array(vec![V::Int(70_000)]),
        V::Array(vec![V::Str("why")]),
        V::Array(vec![V::Int(1000), V::Int(1)]),
        V::True,
        V::Int(1),
    ] {
        let mut rig = websocket();
        assert!(rig.send(&word).is_err(), "{word:?}");
        assert!(rig.wire.is_empty());
    }
    // By the end of the conn.
    let mut rig = websocket();
    assert_eq!(rig.eof(), Some(FaultKind::Closed));
    assert_eq!(rig.told(), ["end [1006, \"\"]"]);
}

#[test]
fn leaving_closes_a_websocket_and_no_lane_of_bytes() {
    let mut rig = websocket();
    rig.close();
    assert_eq!(heard(&mut server(), &mut rig), ["close 1001 "]);
    rig.close();
    assert!(rig.wire.is_empty());
    let mut rig = raw();
    rig.close();
    assert!(rig.wire.is_empty());
}

#[test]
fn a_silent_server_is_pinged_and_then_lost() {
    let limits = Limits::default();
    let mut rig = websocket();
    assert_eq!(rig.conn.poll_timeout(), Some(rig.now + limits.heartbeat));
    assert_eq!(rig.pass(limits.heartbeat), None);
    assert_eq!(heard(&mut server(), &mut rig), ["ping "]);
    rig.pass(limits.silence_max - SECOND);
    rig.feed(b"\x8a\x00");
    assert_eq!(rig.pass(limits.heartbeat - SECOND), None);
    assert!(rig.wire.is_empty(), "it was heard a moment ago");
    assert_eq!(rig.pass(SECOND), None);
    assert_eq!(heard(&mut server(), &mut rig), ["ping "]);
    assert_eq!(rig.pass(limits.silence_max * 2), Some(FaultKind::Silent));
}

#[test]
fn a_close_that_is_not_answered_is_waited_for_only_so_long() {
    let mut rig = websocket();
    rig.send(&V::Nil).unwrap();
    let frame = says(|codec, wire| codec.text(b"and on it talks", wire));
    for _ in 0..4 {
        assert_eq!(rig.feed(&frame), None);
        assert_eq!(rig.pass(SECOND), None);
    }
    assert_eq!(rig.pass(SECOND), Some(FaultKind::Silent), "it talks, but does not close");
    assert_eq!(rig.conn.poll_timeout(), None);
}

#[test]
fn who_cancels_a_lane_is_told_nothing_more() {
    let mut rig = raw();
    rig.cancel();
    assert_eq!(rig.feed(b"bytes"), None);
    assert_eq!(rig.eof(), None);
    assert!(rig.told().is_empty());
    rig.conn.abandon(&mut |id| panic!("{id:?}"));

    let mut rig = websocket();
    rig.cancel();
    rig.feed(b"\x81\x05Hello\x89\x01p");
    assert!(rig.told().is_empty());
    assert_eq!(heard(&mut server(), &mut rig), ["pong p"], "the protocol is kept");
    rig.feed(&says(|codec, wire| codec.close(1000, b"", wire)));
    assert!(rig.flushed());
    assert_eq!(rig.told(), ["Draining"]);

    // Before the server has agreed.
    let mut rig = Rig::new("http://x");
    rig.ask(&asks("foo"), true).unwrap();
    rig.cancel();
    assert_eq!(rig.feed(SWITCHES), None);
    assert_eq!(rig.feed(b"bytes"), None);
    assert!(rig.told().is_empty());
    assert_eq!(rig.conn.tenancy(), Tenancy::Spoiled);
}

#[test]
fn what_breaks_the_protocol_is_a_fault_and_is_said() {
    for (bytes, kind, code) in [
        (&b"\x81\x85\0\0\0\0Hello"[..], FaultKind::Protocol, "close 1002"),
        (b"\x81\x01\xff", FaultKind::Protocol, "close 1007"),
        (b"\x82\x7e\x20\x01", FaultKind::TooLarge, "close 1009"),
    ] {
        let mut rig = websocket();
        assert_eq!(rig.feed(bytes), Some(kind), "{code}");
        let heard = heard(&mut server(), &mut rig);
        assert!(heard.len() == 1 && heard[0].starts_with(code), "{heard:?}");
        assert!(rig.told().is_empty());
    }
}

#[test]
fn any_split_of_a_lane_gives_the_same_events() {
    let frames =
        [&b"\x81\x05Hello\x01\x03Hel\x89\x01p\x80\x02lo\x82\x7e\x00\x80"[..], &[7; 128], b"\x88\x05\x03\xe8bye"];
    let told = |ask: &V, bytes: &[u8], sizes: [usize; 2]| {
        let mut rig = Rig::new("http://x");
        rig.ask(ask, true).unwrap();
        let (first, rest) = bytes.split_at(sizes[0].min(bytes.len()));
        let fault = rig.feed(first).or_else(|| rest.chunks(sizes[1]).find_map(|part| rig.feed(part)));
        assert_eq!(fault, None);
        // Bytes are bytes, wherever they are cut.
        rig.told().join("\n").replace("\nchunk bytes ", "")
    };
    for (ask, bytes) in [
        (asks_websocket(vec![]), [AGREES.as_bytes(), &frames.concat()].concat()),
        (asks("foo"), [SWITCHES, b"some bytes\r\n\r\n"].concat()),
        (V::Array(vec![V::Str("CONNECT"), V::Str("o:1")]), b"HTTP/1.1 200 OK\r\n\r\nsome bytes\r\n\r\n".to_vec()),
    ] {
        let whole = told(&ask, &bytes, [bytes.len(), 1]);
        for cut in 1..bytes.len() {
            assert_eq!(told(&ask, &bytes, [cut, usize::MAX]), whole, "cut at {cut}");
        }
        assert_eq!(told(&ask, &bytes, [1, 1]), whole, "byte by byte");
    }
}
