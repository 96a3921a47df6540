//! The closing handshake (RFC 6455, 5.5.1 and 7).
use super::Heard::{Close, Failed, Ping, Pong, Text};
use super::*;
use crate::proto::websocket::{NO_CODE, Refused};

#[test]
fn the_peer_closes_and_is_answered() {
    for role in BOTH {
        let other = if role == Role::Client { Role::Server } else { Role::Client };
        for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999_u16]
        {
            let payload = [&code.to_be_bytes()[..], "au revoir, ça va".as_bytes()].concat();
            let (heard, wire) = hear_any_cut(role, None, &frame(role, 0x88, &payload));
            assert_eq!(heard, [Close(code, payload[2..].to_vec())]);
            assert_eq!(read_by(other, None, &wire), [Close(code, vec![])]);
        }
        let (heard, wire) = hear_any_cut(role, None, &frame(role, 0x88, b""));
        assert_eq!(heard, [Close(NO_CODE, vec![])]);
        assert_eq!(read_by(other, None, &wire), [Close(NO_CODE, vec![])]);
        let longest = [&1000_u16.to_be_bytes()[..], &[b'a'; 123]].concat();
        assert_eq!(hear_any_cut(role, None, &frame(role, 0x88, &longest)).0, [Close(1000, vec![b'a'; 123])]);
    }
}

#[test]
fn nothing_after_the_close_is_looked_at() {
    for role in BOTH {
        let rest = [(0x89, &b"ping"[..]), (0x81, b"late"), (0x88, b"\x03\xE8"), (0xFF, b"broken"), (0x80, b"")];
        for late in rest {
            let bytes = frames(role, &[(0x01, b"unfinished"), (0x88, b"\x03\xE9"), late, late]);
            let mut codec = codec(role, None);
            let (heard, wire) = hear(&mut codec, &bytes, usize::MAX);
            assert_eq!((heard, closes(role, &wire)), (vec![Close(1001, vec![])], vec![1001]));
            assert!(codec.is_over());
            assert_silence(&mut codec);
        }
    }
}

#[test]
fn we_close_and_hear_out_what_is_under_way() {
    for role in BOTH {
        let other = if role == Role::Client { Role::Server } else { Role::Client };
        let (mut codec, mut wire) = (codec(role, None), Vec::new());
        codec.close(4000, b"done", &mut wire).unwrap();
        assert_eq!(read_by(other, None, &wire), [Close(4000, b"done".into())]);
        assert!(codec.is_closing() && !codec.is_over());
        wire.clear();
        for refused in [
            codec.text(b"", &mut wire),
            codec.binary(b"", &mut wire),
            codec.ping(b"", &mut wire),
            codec.close(1000, b"", &mut wire),
        ] {
            assert_eq!(refused, Err(Refused("the WebSocket is closing")));
        }
        // What the peer sent before it heard of it; its ping is still owed a pong (5.5.2).
        let bytes = frames(role, &[(0x81, b"last"), (0x89, b"?"), (0x8A, b"!"), (0x88, b"\x0F\xA0")]);
        let (heard, wire) = hear(&mut codec, &bytes, 1);
        assert_eq!(heard, [Text(b"last".into()), Ping(b"?".into()), Pong(b"!".into()), Close(4000, vec![])]);
        assert_eq!(read_by(other, None, &wire), [Pong(b"?".into())]);
        assert!(codec.is_over());
    }
}

#[test]
fn a_failure_after_our_close_writes_no_second_one() {
    let (mut codec, mut wire) = (codec(Role::Server, None), Vec::new());
    codec.close(1000, b"", &mut wire).unwrap();
    assert_eq!(hear(&mut codec, b"\x81\x00", 1), (vec![Failed(1002)], vec![]));
}

#[test]
fn codes_and_reasons_of_the_peer_are_judged() {
    for role in BOTH {
        for code in [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535_u16] {
            let (heard, wire) = hear_any_cut(role, None, &frame(role, 0x88, &code.to_be_bytes()));
            assert_eq!((heard, closes(role, &wire)), (vec![Failed(1002)], vec![1002]), "{code}");
        }
        assert_eq!(hear_any_cut(role, None, &frame(role, 0x88, b"\x03")).0, [Failed(1002)]);
        for reason in [&b"\xCE\xBA\xE1\xBD\xB9\xED\xA0\x80edited"[..], b"cut \xE1\xBD"] {
            let payload = [b"\x03\xE8", reason].concat();
            let (heard, wire) = hear_any_cut(role, None, &frame(role, 0x88, &payload));
            assert_eq!((heard, closes(role, &wire)), (vec![Failed(1007)], vec![1007]));
        }
    }
}

#[test]
fn what_we_close_with_is_judged() {
    let (mut codec, mut wire) = (codec(Role::Server, None), Vec::new());
    for code in [0, 999, 1004, 1006, 1015, 1016, 2999, 5000] {
        assert_eq!(codec.close(code, b"", &mut wire), Err(Refused("a code of closing that may not be sent")));
    }
    for (code, reason, why) in [
        (NO_CODE, &b"why"[..], "a reason of closing without a code"),
        (1000, &[b'a'; 124], "a reason of closing of more than 123 bytes"),
        (1000, b"\xFF", "a reason of closing that is not UTF-8"),
    ] {
        assert_eq!(codec.close(code, reason, &mut wire), Err(Refused(why)));
    }
    assert_eq!((wire.len(), codec.is_closing()), (0, false));
    codec.close(1000, &[b'a'; 123], &mut wire).unwrap();
    assert_eq!(wire, [&[0x88, 125, 0x03, 0xE8][..], &[b'a'; 123]].concat());
    let mut wire = Vec::new();
    super::codec(Role::Server, None).close(NO_CODE, b"", &mut wire).unwrap();
    assert_eq!(wire, b"\x88\x00");
}

/// What a failure says is within what a close frame may carry.
#[test]
fn a_failure_tells_the_peer_why() {
    let (_, wire) = hear_any_cut(Role::Server, None, b"\x81\x00");
    assert_eq!(read_by(Role::Client, None, &wire), [Close(1002, b"a client's frame without a mask".into())]);
}
