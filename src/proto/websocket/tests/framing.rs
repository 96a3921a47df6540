//! Frames, control frames, fragments, limits (RFC 6455, 5).
use super::Heard::{Binary, Failed, Ping, Pong, Text};
use super::*;
use crate::proto::websocket::Refused;

/// RFC 6455, 5.7.
#[test]
fn the_examples_of_the_rfc() {
    let hello = || vec![Text(b"Hello".into())];
    assert_eq!(hear_any_cut(Role::Client, None, b"\x81\x05Hello").0, hello());
    let masked = [0x81, 0x85, 0x37, 0xFA, 0x21, 0x3D, 0x7F, 0x9F, 0x4D, 0x51, 0x58];
    assert_eq!(hear_any_cut(Role::Server, None, &masked).0, hello());
    assert_eq!(hear_any_cut(Role::Client, None, b"\x01\x03Hel\x80\x02lo").0, hello());
    let (heard, wire) = hear_any_cut(Role::Client, None, b"\x89\x05Hello");
    assert_eq!(heard, [Ping(b"Hello".into())]);
    assert_eq!(read_by(Role::Server, None, &wire), [Pong(b"Hello".into())]);
    let masked = [0x8A, 0x85, 0x37, 0xFA, 0x21, 0x3D, 0x7F, 0x9F, 0x4D, 0x51, 0x58];
    assert_eq!(hear_any_cut(Role::Server, None, &masked), (vec![Pong(b"Hello".into())], vec![]));
    let bytes = [&[0x82, 0x7E, 0x01, 0x00][..], &[9; 256]].concat();
    assert_eq!(hear_any_cut(Role::Client, None, &bytes).0, [Binary(vec![9; 256])]);
    let bytes = [&[0x82, 0x7F, 0, 0, 0, 0, 0, 1, 0, 0][..], &[9; 65536]].concat();
    assert_eq!(hear(&mut codec(Role::Client, None), &bytes, 997).0, [Binary(vec![9; 65536])]);
}

#[test]
fn what_is_written_is_what_the_rfc_says() {
    let mut wire = Vec::new();
    let mut server = codec(Role::Server, None);
    server.text(b"Hello", &mut wire).unwrap();
    server.ping(b"", &mut wire).unwrap();
    server.binary(&[7; 256], &mut wire).unwrap();
    assert_eq!(wire, [&b"\x81\x05Hello\x89\x00\x82\x7E\x01\x00"[..], &[7; 256]].concat());
    wire.clear();
    server.binary(&[7; 65536], &mut wire).unwrap();
    assert_eq!(wire[..10], [0x82, 0x7F, 0, 0, 0, 0, 0, 1, 0, 0]);
    wire.clear();
    codec(Role::Client, None).text(b"Hello", &mut wire).unwrap();
    assert_eq!((wire[..2].to_vec(), wire.len()), (vec![0x81, 0x85], 11));
    assert_ne!(&wire[6..], b"Hello");
    assert_eq!(read_by(Role::Server, None, &wire), [Text(b"Hello".into())]);
}

/// RFC 6455, 5.3: each frame's mask is another, and each conn's.
#[test]
fn masks_do_not_repeat() {
    let masks = |seed| {
        let mut client =
            Codec::new(Config { role: Role::Client, message_bytes_max: 9, deflate: None, mask_seed: seed });
        let mut wire = Vec::new();
        (0..64).for_each(|_| client.binary(b"", &mut wire).unwrap());
        wire.chunks(6).map(|frame| frame[2..].to_vec()).collect::<Vec<_>>()
    };
    let mut all = [masks(1), masks(2)].concat();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 128);
    assert_eq!(masks(1), masks(1), "a run can be replayed");
}

#[test]
fn every_length_goes_both_ways() {
    for role in BOTH {
        let other = if role == Role::Client { Role::Server } else { Role::Client };
        for length in [0, 1, 2, 3, 4, 5, 7, 8, 9, 124, 125, 126, 127, 128, 65535, 65536, 65537] {
            let payload: Vec<u8> = (0..length).map(|at| b'a' + (at % 23) as u8).collect();
            let mut wire = Vec::new();
            let mut sender = codec(role, None);
            sender.text(&payload, &mut wire).unwrap();
            sender.binary(&payload, &mut wire).unwrap();
            for cut in [usize::MAX, 997, 4096, 3] {
                let heard = hear(&mut codec(other, None), &wire, cut).0;
                assert_eq!(heard, [Text(payload.clone()), Binary(payload.clone())]);
            }
        }
    }
}

#[test]
fn a_whole_frame_of_a_server_is_not_copied() {
    let mut client = codec(Role::Client, None);
    let input = b"\x81\x05Hello";
    let Ok(Step::Done { told: Some(Told::Text(text)), .. }) = client.step(input, &mut Vec::new()) else { panic!() };
    assert_eq!(text.as_ptr(), input[2..].as_ptr());
}

/// Pings of every allowed length, ten at once, unasked pongs, and a ping between the fragments of a message.
#[test]
fn pings_are_answered_in_order_and_at_once() {
    for role in BOTH {
        let other = if role == Role::Client { Role::Server } else { Role::Client };
        for payload in [&b""[..], b"Hello, world!", &[0, 255, 254, 253, 252, 251, 0, 255], &[254; 125]] {
            let (heard, wire) = hear_any_cut(role, None, &frame(role, 0x89, payload));
            assert_eq!(heard, [Ping(payload.into())]);
            assert_eq!(read_by(other, None, &wire), [Pong(payload.into())]);
        }
        let ten: Vec<u8> = (0..10).flat_map(|number| frame(role, 0x89, &[number])).collect();
        let (_, wire) = hear_any_cut(role, None, &ten);
        assert_eq!(read_by(other, None, &wire), (0..10).map(|number| Pong(vec![number])).collect::<Vec<_>>());
        let bytes = frames(role, &[(0x8A, b"unasked"), (0x01, b"frag"), (0x89, b"now"), (0x8A, b""), (0x80, b"ment")]);
        let (heard, wire) = hear_any_cut(role, None, &bytes);
        assert_eq!(heard, [Pong(b"unasked".into()), Ping(b"now".into()), Pong(vec![]), Text(b"fragment".into())]);
        assert_eq!(read_by(other, None, &wire), [Pong(b"now".into())]);
    }
}

#[test]
fn fragments_are_one_message() {
    for role in BOTH {
        let bytes = frames(role, &[(0x01, b""), (0x00, b""), (0x80, b""), (0x02, b""), (0x00, b"mid"), (0x80, b"")]);
        assert_eq!(hear_any_cut(role, None, &bytes).0, [Text(vec![]), Binary(b"mid".into())]);
        // As a peer sends that cuts everything at 1300 bytes.
        let payload: Vec<u8> = (0..65536_u32).map(|at| (at % 251) as u8).collect();
        let mut bytes = Vec::new();
        for (index, piece) in payload.chunks(1300).enumerate() {
            let fin = if (index + 1) * 1300 >= payload.len() { 0x80 } else { 0 };
            bytes.extend(frame(role, fin | if index == 0 { 0x02 } else { 0 }, piece));
        }
        for cut in [usize::MAX, 1, 1300, 1499] {
            assert_eq!(hear(&mut codec(role, None), &bytes, cut).0, [Binary(payload.clone())]);
        }
    }
}

/// Each breaks one rule, after a message that is told nonetheless; nothing after it is.
#[test]
fn what_the_rfc_forbids_is_a_protocol_error() {
    for role in BOTH {
        let mut rows: Vec<(&str, Vec<u8>)> = vec![
            ("5.5: a ping in pieces", frames(role, &[(0x09, b"a"), (0x80, b"b")])),
            ("5.5: a pong in pieces", frames(role, &[(0x0A, b"a"), (0x80, b"b")])),
            ("5.5: a close in pieces", frames(role, &[(0x08, b""), (0x80, b"")])),
            ("5.5: a ping of 126 bytes", frame(role, 0x89, &[0; 126])),
            ("5.5: a pong of 126 bytes", frame(role, 0x8A, &[0; 126])),
            ("5.5: a close of 126 bytes", frame(role, 0x88, &[b'a'; 126])),
            ("5.5: a ping of 65536 bytes", frame(role, 0x89, &[0; 65536])),
            ("5.4: a continuation of nothing", frame(role, 0x80, b"a")),
            ("5.4: a continuation of nothing, with more to come", frame(role, 0x00, b"a")),
            ("5.4: a continuation after the end", frames(role, &[(0x01, b"a"), (0x80, b"b"), (0x80, b"c")])),
            ("5.4: a message within another", frames(role, &[(0x01, b"a"), (0x81, b"b")])),
            ("5.4: a binary message within a text", frames(role, &[(0x01, b"a"), (0x02, b"b")])),
            ("5.4: a message within another, after a ping", frames(role, &[(0x02, b""), (0x89, b""), (0x82, b"")])),
        ];
        for reserved in 1..8 {
            for opcode in [1, 2, 8, 9, 10] {
                rows.push(("5.2: reserved bits", frame(role, 0x80 | reserved << 4 | opcode, b"")));
            }
            rows.push(("5.2: reserved bits of a fragment", frames(role, &[(1, b"a"), (0x80 | reserved << 4, b"b")])));
        }
        for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
            rows.push(("5.2: reserved opcodes", frame(role, 0x80 | opcode, b"")));
            rows.push(("5.2: reserved opcodes with a payload", frame(role, 0x80 | opcode, b"payload")));
        }
        let masked = if role == Role::Server { 0x80 } else { 0 };
        for (section, second, length) in [
            ("5.2: 125 in two bytes", 126, &[0, 125][..]),
            ("5.2: 0 in two bytes", 126, &[0, 0]),
            ("5.2: 125 in eight bytes", 127, &[0, 0, 0, 0, 0, 0, 0, 125]),
            ("5.2: 65535 in eight bytes", 127, &[0, 0, 0, 0, 0, 0, 255, 255]),
            ("5.2: a length with its highest bit set", 127, &[128, 0, 0, 0, 0, 0, 0, 0]),
        ] {
            rows.push((section, [&[0x82, masked | second][..], length, &[0; 300]].concat()));
        }
        let other = if role == Role::Client { Role::Server } else { Role::Client };
        for first in [0x81, 0x82, 0x89, 0x8A, 0x88] {
            rows.push(("5.1: a mask that is missing, or ought to be", frame(other, first, b"")));
        }
        for (section, bad) in rows {
            let bytes = [frame(role, 0x81, b"good"), bad, frame(role, 0x89, b"late")].concat();
            let (heard, wire) = hear_any_cut(role, None, &bytes);
            let messages: Vec<&Heard> = heard.iter().filter(|heard| !matches!(heard, Ping(_))).collect();
            let mut expected = vec![Text(b"good".into()), Failed(1002)];
            if section.contains("after the end") {
                expected.insert(1, Text(b"ab".into()));
            }
            assert_eq!(messages, expected.iter().collect::<Vec<_>>(), "{section}");
            assert!(!heard.contains(&Ping(b"late".into())));
            assert_eq!(closes(role, &wire), [1002], "{section}");
        }
    }
}

/// What is wrong in the first two bytes is told without waiting for more.
#[test]
fn errors_are_told_as_soon_as_they_are_seen() {
    for bytes in [[0x83, 0x80], [0x91, 0xFE], [0x09, 0x80], [0x89, 0xFE], [0x81, 0x05], [0xC9, 0x80]] {
        let mut server = codec(Role::Server, None);
        assert_eq!(server.step(&bytes, &mut Vec::new()).unwrap_err().code, 1002, "{bytes:02X?}");
    }
}

#[test]
fn a_message_has_a_limit_in_one_frame_or_many() {
    for role in BOTH {
        let hear = |bytes: &[u8]| hear(&mut limited(role, None, 1000), bytes, usize::MAX);
        assert_eq!(hear(&frame(role, 0x82, &[1; 1000])).0, [Binary(vec![1; 1000])]);
        let two = frames(role, &[(0x02, &[1; 999]), (0x80, &[1; 1]), (0x82, &[2; 1000])]);
        assert_eq!(hear(&two).0, [Binary(vec![1; 1000]), Binary(vec![2; 1000])]);
        // The head is enough: the payload is not waited for.
        let (heard, wire) = hear(&frame(role, 0x82, &[1; 1001])[..8]);
        assert_eq!((heard, closes(role, &wire)), (vec![Failed(1009)], vec![1009]));
        let (heard, wire) = hear(&frames(role, &[(0x02, &[1; 500]), (0x00, &[1; 500]), (0x00, &[1])]));
        assert_eq!((heard, closes(role, &wire)), (vec![Failed(1009)], vec![1009]));
        let huge = [&[0x82, if role == Role::Server { 0xFF } else { 0x7F }, 0x7F][..], &[0xFF; 20]].concat();
        assert_eq!(hear(&huge).0, [Failed(1009)]);
    }
}

/// A length alone takes no memory, and what a large message took is given back.
#[test]
fn memory_follows_what_has_come() {
    let mut server = codec(Role::Server, None);
    let large = frame(Role::Server, 0x82, &vec![1; LIMIT]);
    let (heard, _) = hear(&mut server, &large[..20], usize::MAX);
    assert_eq!((heard, server.inbound.message().len()), (vec![], 6));
    assert!(server.inbound.capacity() < 4096, "{}", server.inbound.capacity());
    let (rest, last) = large[20..].split_at(LIMIT - 7);
    assert_eq!(hear(&mut server, rest, 8192).0, []);
    let told = server.step(last, &mut Vec::new()).unwrap();
    assert_eq!(told, Step::Done { consumed: 1, told: Some(Told::Binary(&vec![1; LIMIT])) });
    assert!(server.inbound.capacity() >= LIMIT);
    assert_eq!(server.step(b"", &mut Vec::new()), Ok(Step::Need(2)));
    assert!(server.inbound.capacity() <= 64 << 10);
}

#[test]
fn what_cannot_be_sent_is_refused_and_nothing_is_written() {
    let mut wire = Vec::new();
    let mut client = codec(Role::Client, Some(TAKEOVER));
    assert_eq!(client.text(b"\xFF", &mut wire), Err(Refused("a text message that is not UTF-8")));
    assert_eq!(client.ping(&[0; 126], &mut wire), Err(Refused("a ping of more than 125 bytes")));
    assert_eq!(wire, b"");
    client.ping(&[0; 125], &mut wire).unwrap();
    assert_eq!(read_by(Role::Server, None, &wire), [Ping(vec![0; 125])]);
}
