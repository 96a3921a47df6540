//! What comes and goes in pieces.
use super::{Rig, URL, driver, error, ready, request, said};
use crate::proto::{Class, Command, FaultKind, Limits, RequestId};
use crate::value::write;

fn named(key: &str, sql: &str) -> Vec<u8> {
    let mut out = vec![0x91, 0x81];
    write::str(&mut out, key.as_bytes());
    if key == "stream" {
        out.extend(request(sql, &[]));
    } else {
        write::str(&mut out, sql.as_bytes());
    }
    out
}

fn begun(sql: &str, answer: &[u8]) -> Rig {
    let mut rig = Rig::up(&*driver(URL, Limits { message_bytes_max: 64 << 10, ..Limits::default() }));
    let body = named("copy", sql);
    rig.command(Command::Request { id: RequestId(1), body: &body, asking: false, streams: true }).unwrap();
    assert_eq!(rig.wrote(), format!("Q({sql})"));
    rig.hear(answer).unwrap();
    rig
}

fn send(rig: &mut Rig, body: &[u8]) -> Result<(), String> {
    rig.command(Command::Send { id: RequestId(1), body }).map_err(|refusal| refusal.message)
}

const IN: &[u8] = b"G\0\0\0\x0b\0\0\x02\0\0\0\0";
const OUT: &[u8] = b"H\0\0\0\x0b\x01\0\x02\0\x01\0\x01";

#[test]
fn what_flows_has_a_lane_and_nothing_else_does() {
    let driver = driver(URL, Limits::default());
    let class = |body: &[u8]| driver.classify(body, false).map(|need| need.class).map_err(|refusal| refusal.message);
    assert_eq!(class(&named("stream", "select 1")), Ok(Class::Flow));
    assert_eq!(class(&named("copy", "copy t from stdin")), Ok(Class::Flow));
    for (body, expected) in [
        (named("stream", "begin"), "changes the session"),
        (named("stream", "copy t to stdout"), "copy_to"),
        (named("copy", "select 1"), "COPY ... FROM STDIN or COPY ... TO STDOUT"),
        (named("copy", "copy t from stdin; drop table t"), "one statement"),
        (request("copy t from stdin", &[]), "{\"copy\": sql}"),
        ([&[0x92][..], &request("select 1", &[]), &named("copy", "copy t from stdin")[1..]].concat(), "batch"),
        (named("steam", "x"), "steam: expected {\"simple\": sql}, {\"stream\""),
        (vec![0x91, 0x81, 0xa6, b's', b't', b'r', b'e', b'a', b'm', 1], "stream is int: expected array"),
        (vec![0x80], "an empty map: expected"),
        (vec![0x82, 0xa1, b'a', 1, 0xa1, b'b', 1], "a map of 2 keys: expected"),
    ] {
        let message = class(&body).unwrap_err();
        assert!(message.contains(expected), "{message}: {expected}");
    }
}

#[test]
fn a_copy_takes_pieces_and_ends_well() {
    let mut rig = begun("copy t from stdin", IN);
    assert_eq!(rig.events(), ["1 accepted [\"in\", \"text\", 2]"]);
    send(&mut rig, b"\xc4\x03a\tb").unwrap();
    send(&mut rig, b"\xa1\n").unwrap();
    send(&mut rig, b"\xc4\x00").unwrap();
    send(&mut rig, b"\xc0").unwrap();
    assert_eq!(rig.wire(), b"d\0\0\0\x07a\tbd\0\0\0\x05\nc\0\0\0\x04");
    assert!(send(&mut rig, b"\xa1\n").unwrap_err().contains("it was ended"));
    rig.hear(&[said(b'C', b"COPY 1\0"), ready(b'I')].concat()).unwrap();
    assert_eq!(rig.events(), ["1 [\"COPY 1\", [], []]"]);
    assert!(send(&mut rig, b"\xa1\n").unwrap_err().contains("FROM STDIN alone takes data"));
    assert_eq!((rig.conn.inflight(), rig.conn.tenancy()), (0, crate::proto::Tenancy::Clean));
}

#[test]
fn a_copy_that_fails_says_so_once_and_takes_no_more() {
    let mut rig = begun("copy t from stdin", IN);
    rig.events();
    for body in [&b"\x01"[..], b"\x81\xa1a\xa1b", b"\x81\xa5abort\xa1\0", b"\xc0\xc0", b"\xd9", b""] {
        assert!(!send(&mut rig, body).unwrap_err().is_empty());
    }
    send(&mut rig, b"\x81\xa5abort\xa2no").unwrap();
    assert_eq!(rig.wire(), b"f\0\0\0\x07no\0");
    rig.hear(&[error("57014", "COPY from stdin failed: no"), ready(b'I')].concat()).unwrap();
    assert_eq!(rig.events(), ["1! [\"57014\", \"ERROR: COPY from stdin failed: no\"]"]);
    let mut rig = begun("copy t from stdin", IN);
    rig.hear(&error("22P02", "bad")).unwrap();
    send(&mut rig, b"\xa1x").unwrap();
    assert_eq!(rig.wrote(), "", "the server would drop it");
    rig.command(Command::Cancel { id: RequestId(1) }).unwrap();
    rig.hear(&ready(b'I')).unwrap();
    assert_eq!((rig.wrote().as_str(), rig.conn.inflight()), ("", 0));
    let mut rig = begun("copy t from stdin", IN);
    rig.command(Command::Cancel { id: RequestId(1) }).unwrap();
    assert_eq!(rig.wrote(), "f", "nothing of it is to stay");
}

#[test]
fn a_copy_gives_pieces_as_they_come() {
    let mut rig = begun("copy t to stdout", OUT);
    let row = said(b'd', &[b'x'; 6000]);
    rig.hear(&[&row[..], &row, &row, &row].concat()).unwrap();
    let told: Vec<String> = rig.events().iter().map(|event| event.chars().take(18).collect()).collect();
    assert_eq!(told, ["1 accepted [\"out\",", "rows Bytes([120, 1"]);
    assert!(send(&mut rig, b"\xa1\n").unwrap_err().contains("gives data itself"));
    rig.hear(&said(b'c', b"")).unwrap();
    assert_eq!(rig.events().len(), 1, "the rest");
    rig.hear(&[said(b'C', b"COPY 4\0"), ready(b'I')].concat()).unwrap();
    assert_eq!(rig.events(), ["1 [\"COPY 4\", [], []]"]);
    let mut rig = begun("copy t to stdout", OUT);
    rig.hear(&[said(b'd', &[0; 70_000]), row, said(b'c', b""), said(b'C', b"COPY 2\0"), ready(b'I')].concat()).unwrap();
    assert!(rig.events()[1].starts_with("1! [\"TOOLARGE\""), "what is lost is no success");
}

#[test]
fn a_copy_that_nobody_asked_for_is_the_end() {
    for bytes in [IN, OUT, b"d\0\0\0\x04", b"c\0\0\0\x04", b"W\0\0\0\x07\0\0\0"] {
        let mut rig = Rig::up(&*driver(URL, Limits::default()));
        rig.ask(1, &request("select 1", &[])).unwrap();
        assert_eq!(rig.hear(bytes).unwrap_err().kind, FaultKind::Protocol);
    }
}
