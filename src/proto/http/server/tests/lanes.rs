//! Upgrades and tunnels.
use super::*;
use crate::proto::websocket::{Codec, Config, Refused, Role, Step};

const UPGRADE: &str = "GET /up HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";

#[test]
fn an_upgrade_is_a_lane_of_bytes() {
    let mut rig = Rig::new("");
    rig.feed(format!("{UPGRADE}early")).unwrap();
    assert!(rig.conn.paused(), "nothing is read until the program has decided");
    assert_eq!(rig.reply(0, &made(101, &[], Give::Follows)), Ok(Then::Open));
    assert_eq!(rig.sent(), "HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n");
    assert_eq!(rig.events()[1..], ["chunk Slot(0) bytes:early"]);
    rig.feed("GET / HTTP/1.1\r\n\r\n").unwrap();
    assert_eq!(rig.events(), ["chunk Slot(0) bytes:GET / HTTP/1.1\\r\\n\\r\\n"]);
    rig.send(0, &bin("hello")).unwrap();
    rig.with(|conn, now, out| conn.handle_eof(now, out)).unwrap();
    assert_eq!(rig.events(), ["end Slot(0) none"]);
    rig.send(0, &bin("!")).unwrap();
    assert_eq!(rig.sent(), "hello!");
    assert_eq!(rig.send(0, b"\xc0"), Ok(Then::Done));
    assert!(rig.drains());
}

#[test]
fn an_upgrade_is_to_one_of_those_that_were_asked_for() {
    for (headers, expected) in [
        (&[][..], Some("a/1")),
        (&[("Upgrade", "B")], Some("B")),
        (&[("Upgrade", "c")], None),
        (&[("Upgrade", "a/1, b")], None),
    ] {
        let mut rig = Rig::new("");
        rig.feed(UPGRADE.replace("echo", "a/1, b")).unwrap();
        let then = rig.reply(0, &made(101, headers, Give::Follows));
        let sent = rig.sent();
        match expected {
            Some(to) => assert!(then.is_ok() && sent.contains(&format!("\r\nUpgrade: {to}\r\n")), "{sent}"),
            None => assert!(then.is_err() && sent.starts_with("HTTP/1.1 500 "), "{sent}"),
        }
    }
}

#[test]
fn an_upgrade_that_is_not_taken_leaves_http() {
    let mut rig = Rig::new("");
    rig.feed(format!("{UPGRADE}{GET}")).unwrap();
    assert_eq!(rig.events().len(), 1);
    rig.reply(0, &made(200, &[], Give::Nil)).unwrap();
    assert!(rig.events().iter().any(|line| line.starts_with("request 1 ")));
}

#[test]
fn upgrades_need_their_connection_option_and_http_1_1() {
    for text in [
        "GET /up HTTP/1.1\r\nHost: h\r\nUpgrade: echo\r\n\r\n",
        "GET /up HTTP/1.0\r\nConnection: upgrade, keep-alive\r\nUpgrade: echo\r\n\r\n",
    ] {
        let mut rig = Rig::new("");
        rig.feed(text).unwrap();
        assert!(!rig.conn.paused());
        assert!(rig.reply(0, &made(101, &[], Give::Follows)).is_err());
        assert!(rig.sent().starts_with("HTTP/1.1 500 "));
    }
}

#[test]
fn a_tunnel_has_neither_length_nor_coding() {
    let mut rig = Rig::new("");
    rig.feed("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n").unwrap();
    assert_eq!(rig.reply(0, &made(200, &[], Give::Follows)), Ok(Then::Open));
    assert_eq!(rig.sent(), "HTTP/1.1 200 OK\r\n\r\n");
    rig.feed("bytes").unwrap();
    assert_eq!(rig.events()[1..], ["chunk Slot(0) bytes:bytes"]);
    rig.send(0, &bin("back")).unwrap();
    assert_eq!(rig.sent(), "back");
    let mut rig = Rig::new("");
    rig.feed(format!("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n{GET}")).unwrap();
    rig.reply(0, &made(403, &[], Give::Nil)).unwrap();
    assert!(rig.events().iter().any(|line| line.starts_with("request 1 ")), "a refused tunnel leaves HTTP");
}

const HANDSHAKE: &str = "GET /ws HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
                         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                         Sec-WebSocket-Protocol: chat, other\r\n\r\n";
const AGREES: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                      Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

fn codec() -> Codec {
    Codec::new(Config { role: Role::Client, message_bytes_max: 1 << 20, deflate: None, mask_seed: 7 })
}

fn websocket() -> (Rig, Codec) {
    let mut rig = Rig::new("");
    rig.feed(HANDSHAKE).unwrap();
    assert_eq!(rig.reply(0, &made(101, &[], Give::Follows)), Ok(Then::Open));
    assert_eq!(rig.sent(), AGREES);
    rig.events();
    (rig, codec())
}

/// What the client says.
fn says(codec: &mut Codec, act: impl FnOnce(&mut Codec, &mut Vec<u8>) -> Result<(), Refused>) -> Vec<u8> {
    let mut wire = Vec::new();
    act(codec, &mut wire).unwrap();
    wire
}

/// What the client hears.
fn hears(codec: &mut Codec, rig: &mut Rig) -> Vec<String> {
    let mut input = &std::mem::take(&mut rig.wire)[..];
    let mut heard = Vec::new();
    while let Step::Done { consumed, told } = codec.step(input, &mut Vec::new()).unwrap() {
        input = &input[consumed..];
        heard.extend(told.map(|told| format!("{told:?}")));
    }
    assert!(input.is_empty(), "half a frame");
    heard
}

/// `[code, reason]`
fn goodbye(code: u64, reason: &str) -> Vec<u8> {
    let mut out = Vec::new();
    write::array(&mut out, 2);
    write::uint(&mut out, code);
    write::str(&mut out, reason.as_bytes());
    out
}

fn ping(payload: &str) -> Vec<u8> {
    let mut out = Vec::new();
    write::map(&mut out, 1);
    write::str(&mut out, b"ping");
    write::bin(&mut out, payload.as_bytes());
    out
}

#[test]
fn a_websocket_carries_messages() {
    let (mut rig, mut client) = websocket();
    rig.feed(says(&mut client, |codec, wire| codec.text(b"Hello", wire))).unwrap();
    rig.feed(says(&mut client, |codec, wire| codec.binary(&[0, 255], wire))).unwrap();
    rig.feed(says(&mut client, |codec, wire| codec.ping(b"p", wire))).unwrap();
    assert_eq!(rig.events(), ["chunk Slot(0) text:Hello", "chunk Slot(0) bytes:\\x00\\xff"]);
    assert_eq!(hears(&mut client, &mut rig), ["Pong([112])"]);
    assert_eq!(rig.send(0, b"\xa2hi"), Ok(Then::Open));
    assert_eq!(rig.send(0, &bin("by")), Ok(Then::Open));
    assert_eq!(rig.send(0, &ping("q")), Ok(Then::Open));
    assert!(rig.send(0, &span(3, 0, 9)).is_err() && rig.send(0, b"\xc3").is_err());
    assert_eq!(hears(&mut client, &mut rig), ["Text([104, 105])", "Binary([98, 121])", "Ping([113])"]);
}

#[test]
fn a_websocket_may_choose_a_subprotocol_that_was_offered() {
    let answer = |protocol| {
        let mut rig = Rig::new("");
        rig.feed(HANDSHAKE).unwrap();
        let then = rig.reply(0, &made(101, &[("Sec-WebSocket-Protocol", protocol), ("X", "y")], Give::Follows));
        (then.is_ok(), rig.sent())
    };
    let (done, sent) = answer("other");
    assert!(done && sent.contains("\r\nSec-WebSocket-Protocol: other\r\n") && sent.contains("\r\nX: y\r\n"), "{sent}");
    let (done, sent) = answer("third");
    assert!(!done && sent.starts_with("HTTP/1.1 500 "), "{sent}");
}

#[test]
fn a_handshake_that_is_wrong_is_refused_with_what_would_be_right() {
    for (from, to, status, says) in [
        ("Version: 13", "Version: 8", 426, "\r\nSec-WebSocket-Version: 13\r\n"),
        ("Key: dGhlIHNhbXBsZSBub25jZQ==", "Key: short", 400, "Sec-WebSocket-Key"),
        ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", "", 400, "Sec-WebSocket-Key"),
        ("GET /ws", "POST /ws", 400, "GET"),
    ] {
        let mut rig = Rig::new("");
        rig.feed(HANDSHAKE.replace(from, to)).unwrap();
        let sent = rig.sent();
        assert!(sent.starts_with(&format!("HTTP/1.1 {status} ")) && sent.contains(says), "{from}: {sent}");
        assert!(rig.drains());
    }
    let mut rig = Rig::new("");
    rig.feed(format!("{HANDSHAKE}{GET}")).unwrap();
    rig.reply(0, &made(403, &[], Give::Nil)).unwrap();
    assert!(rig.events().iter().any(|line| line.starts_with("request 1 ")), "the program may refuse, too");
}

#[test]
fn a_websocket_is_closed_by_either_side() {
    let (mut rig, mut client) = websocket();
    rig.feed(says(&mut client, |codec, wire| codec.close(3000, b"bye", wire))).unwrap();
    let events = rig.events();
    assert_eq!(events[..2], ["end Slot(0) [3000, \"bye\"]", "Settled { slot: 0 }"]);
    assert!(events[2].starts_with("access ") && events[3] == "Draining", "{events:?}");
    assert_eq!(hears(&mut client, &mut rig), ["Close { code: 3000, reason: [] }"]);
    for (word, heard) in [
        (b"\xc0".to_vec(), "Close { code: 1000, reason: [] }"),
        (goodbye(4000, "a"), "Close { code: 4000, reason: [97] }"),
        (b"\x91\xc0".to_vec(), "Close { code: 1005, reason: [] }"),
    ] {
        let (mut rig, mut client) = websocket();
        assert!(rig.send(0, &word).is_ok());
        assert!(rig.send(0, &bin("x")).is_err(), "nothing follows a close");
        let wire = std::mem::take(&mut rig.wire);
        rig.feed(says(&mut client, |codec, wire| codec.text(b"crossed it", wire))).unwrap();
        rig.wire = wire;
        assert_eq!(hears(&mut client, &mut rig), [heard]);
        rig.feed(says(&mut codec(), |codec, wire| codec.close(1000, b"", wire))).unwrap();
        let events = rig.events();
        assert_eq!(events[..2], ["chunk Slot(0) text:crossed it", "end Slot(0) [1000, \"\"]"]);
        assert_eq!(events.last().unwrap(), "Draining");
    }
    let (mut rig, _) = websocket();
    for bad in [goodbye(1006, ""), goodbye(70_000, ""), b"\x90".to_vec(), b"\x91\xa1a".to_vec()] {
        assert!(rig.send(0, &bad).is_err(), "{}", bad.escape_ascii());
    }
    assert!(rig.wire.is_empty());
    assert!(rig.with(|conn, now, out| conn.handle_eof(now, out)).is_err());
    assert_eq!(rig.events(), ["end Slot(0) [1006, \"\"]"]);
}

#[test]
fn a_client_that_breaks_the_protocol_is_told_so() {
    let (mut rig, mut client) = websocket();
    rig.feed(b"\x81\x05Hello").unwrap();
    let events = rig.events();
    assert!(events[0].starts_with("end Slot(0) [1002, ") && events[1] == "Settled { slot: 0 }", "{events:?}");
    assert_eq!(events.last().unwrap(), "Draining");
    assert!(hears(&mut client, &mut rig)[0].starts_with("Close { code: 1002"));
    rig.feed(b"\x81\x05Hello").unwrap();
    assert!(rig.events().is_empty() && rig.wire.is_empty());
}

#[test]
fn a_silent_client_is_pinged_and_then_left() {
    let (mut rig, mut client) = websocket();
    rig.pass(LIMITS.heartbeat);
    assert_eq!(hears(&mut client, &mut rig), ["Ping([])"]);
    rig.pass(LIMITS.silence_max - SECOND);
    rig.feed(b"\x8a\x80\0\0\0\0").unwrap();
    rig.pass(LIMITS.heartbeat - SECOND);
    assert!(rig.wire.is_empty(), "it was heard a moment ago");
    rig.pass(SECOND);
    assert_eq!(hears(&mut client, &mut rig), ["Ping([])"]);
    assert!(rig.events().is_empty());
    rig.pass(LIMITS.silence_max);
    let events = rig.events();
    assert_eq!(events[..2], ["end Slot(0) [1006, \"\"]", "Settled { slot: 0 }"]);
    assert_eq!((events.last().unwrap().as_str(), rig.conn.poll_timeout()), ("Draining", None));
}

#[test]
fn leaving_says_so_and_waits_for_the_answer_only_so_long() {
    let (mut rig, mut client) = websocket();
    rig.with(|conn, now, out| conn.close(now, out));
    assert_eq!(hears(&mut client, &mut rig), ["Close { code: 1001, reason: [] }"]);
    let talks = says(&mut codec(), |codec, wire| codec.text(b"and on it talks", wire));
    for _ in 0..4 {
        rig.feed(&talks).unwrap();
        rig.pass(SECOND);
        assert!(!rig.drains());
    }
    rig.pass(SECOND);
    assert!(rig.drains());
    // One that is agreed to while we leave.
    let mut rig = Rig::new("");
    rig.feed(HANDSHAKE).unwrap();
    rig.with(|conn, now, out| conn.close(now, out));
    rig.reply(0, &made(101, &[], Give::Follows)).unwrap();
    assert!(rig.sent().starts_with(AGREES) && !rig.drains());
    rig.feed(says(&mut codec(), |codec, wire| codec.close(1001, b"", wire))).unwrap();
    assert!(rig.drains());
}

#[test]
fn a_websocket_behind_other_requests_waits_for_their_responses() {
    let mut rig = Rig::new("");
    rig.feed(format!("{GET}{HANDSHAKE}")).unwrap();
    rig.reply(1, &made(101, &[], Give::Follows)).unwrap();
    rig.send(1, b"\xa5early").unwrap();
    // A client that does not wait for the answer.
    let mut client = codec();
    rig.feed(says(&mut client, |codec, wire| codec.ping(b"p", wire))).unwrap();
    assert_eq!(rig.sent(), "");
    rig.reply(0, &made(200, &[], Give::Text("first"))).unwrap();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfirst{AGREES}");
    assert!(rig.wire.starts_with(head.as_bytes()), "{}", rig.wire.escape_ascii());
    rig.wire.drain(..head.len());
    assert_eq!(hears(&mut client, &mut rig), ["Text([101, 97, 114, 108, 121])", "Pong([112])"]);
}

#[test]
fn pings_behind_a_response_that_waits_pile_up_to_a_bound() {
    let mut rig = Rig::new("");
    rig.feed(format!("{GET}{HANDSHAKE}")).unwrap();
    rig.reply(1, &made(101, &[], Give::Follows)).unwrap();
    let flood = says(&mut codec(), |codec, wire| (0..1000).try_for_each(|_| codec.ping(&[7; 125], wire)));
    for _ in 0..20 {
        rig.feed(&flood).unwrap();
    }
    assert!(rig.conn.paused(), "nothing more is read");
    rig.reply(0, &made(200, &[], Give::Nil)).unwrap();
    assert!(!rig.conn.paused());
    let most = LIMITS.message_bytes_max + 20 * flood.len();
    assert!((LIMITS.message_bytes_max..most).contains(&rig.wire.len()), "{}", rig.wire.len());
}
