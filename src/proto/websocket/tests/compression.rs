//! permessage-deflate (RFC 7692).
use super::Heard::{Binary, Failed, Ping, Text};
use super::*;
use crate::proto::websocket::deflate::{Deflater, Inflater};

/// 7.2.3, by number.
#[test]
fn the_examples_of_the_rfc() {
    let hello = || vec![Text(b"Hello".into())];
    let compressed: &[u8] = &[0xF2, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00];
    for role in BOTH {
        let hear = |bytes: &[(u8, &[u8])]| hear_any_cut(role, Some(TAKEOVER), &frames(role, bytes)).0;
        assert_eq!(hear(&[(0xC1, compressed)]), hello(), "7.2.3.1");
        assert_eq!(hear(&[(0x41, &compressed[..3]), (0x80, &compressed[3..])]), hello(), "7.2.3.1, in two frames");
        let again: &[u8] = &[0xF2, 0x00, 0x11, 0x00, 0x00];
        assert_eq!(hear(&[(0xC1, compressed), (0xC1, again)]), [hello(), hello()].concat(), "7.2.3.2");
        assert_eq!(hear(&[(0xC1, compressed), (0xC1, compressed)]), [hello(), hello()].concat(), "7.2.3.2");
        let stored = [0x00, 0x05, 0x00, 0xFA, 0xFF, 0x48, 0x65, 0x6C, 0x6C, 0x6F, 0x00];
        assert_eq!(hear(&[(0xC1, &stored)]), hello(), "7.2.3.3");
        let last: &[u8] = &[0xF3, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00, 0x00];
        assert_eq!(hear(&[(0xC1, last), (0xC1, compressed)]), [hello(), hello()].concat(), "7.2.3.4");
        assert_eq!(hear(&[(0xC1, &last[..7]), (0xC1, last)]), [hello(), hello()].concat(), "7.2.3.4, without the rest");
        let blocks = [0xF2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xFF, 0xFF, 0xCA, 0xC9, 0xC9, 0x07, 0x00];
        assert_eq!(hear(&[(0xC1, &blocks)]), hello(), "7.2.3.5");
        assert_eq!(hear(&[(0xC1, &[0])]), [Text(vec![])], "7.2.3.6");
        assert_eq!(hear(&[(0x41, b""), (0x00, &[0]), (0x80, b""), (0x81, b"as it is")]).len(), 2);
    }
}

/// The context is the peer's to use only where it was agreed on.
#[test]
fn without_takeover_each_message_stands_alone() {
    let again = [0xF2, 0x00, 0x11, 0x00, 0x00];
    for role in BOTH {
        let bytes = frames(role, &[(0xC1, &[0xF2, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00]), (0xC1, &again)]);
        let (heard, _) = hear_any_cut(role, Some(ALONE), &bytes);
        assert_eq!(heard[0], Text(b"Hello".into()));
        assert_ne!(heard[1], heard[0]);
        // Each flag is of one direction.
        let mine = Params { server_no_context_takeover: role == Role::Server, ..TAKEOVER };
        let mine = Params { client_no_context_takeover: role == Role::Client, ..mine };
        assert_eq!(hear_any_cut(role, Some(mine), &bytes).0.last(), Some(&Text(b"Hello".into())));
    }
}

#[test]
fn the_bit_is_for_the_first_frame_of_a_message_where_compression_was_agreed_on() {
    for role in BOTH {
        let compressed: &[u8] = &[0xF2, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00];
        for bad in [
            frames(role, &[(0x41, &compressed[..3]), (0xC0, &compressed[3..])]),
            frames(role, &[(0x01, b"a"), (0xC0, compressed)]),
            frame(role, 0xC9, b""),
            frame(role, 0xCA, b""),
            frame(role, 0xC8, b""),
            frame(role, 0xE1, compressed),
            frame(role, 0xD1, compressed),
        ] {
            assert_eq!(hear_any_cut(role, Some(TAKEOVER), &bad).0, [Failed(1002)]);
        }
        assert_eq!(hear_any_cut(role, None, &frame(role, 0xC1, compressed)).0, [Failed(1002)]);
        let around = frames(role, &[(0x41, &compressed[..3]), (0x89, b"?"), (0x80, &compressed[3..])]);
        assert_eq!(hear_any_cut(role, Some(TAKEOVER), &around).0, [Ping(b"?".into()), Text(b"Hello".into())]);
    }
}

#[test]
fn bytes_that_are_no_deflate_are_refused() {
    for role in BOTH {
        for bad in [&b"\x07"[..], b"\xFF\xFF\xFF\xFF", b"\x00\x05\x00\x00\x00Hello"] {
            let (heard, wire) = hear_any_cut(role, Some(TAKEOVER), &frame(role, 0xC2, bad));
            assert_eq!((heard, closes(role, &wire)), (vec![Failed(1007)], vec![1007]), "{bad:02X?}");
        }
    }
}

#[test]
fn compressed_text_is_judged_as_text() {
    let mut wire = Vec::new();
    let bytes = [&[b'a'; 4000][..], b"\xED\xA0\x80", &[b'a'; 4000]].concat();
    codec(Role::Server, Some(TAKEOVER)).binary(&bytes, &mut wire).unwrap();
    assert_eq!(wire[0], 0xC2);
    assert_eq!(hear_any_cut(Role::Client, Some(TAKEOVER), &wire).0, [Binary(bytes)]);
    wire[0] = 0xC1;
    assert_eq!(hear_any_cut(Role::Client, Some(TAKEOVER), &wire).0, [Failed(1007)]);
    // A character that the end of the message cuts.
    let mut wire = Vec::new();
    let bytes = [&[b'a'; 4000][..], b"\xE1\xBD"].concat();
    codec(Role::Server, Some(TAKEOVER)).binary(&bytes, &mut wire).unwrap();
    wire[0] = 0xC1;
    assert_eq!(hear_any_cut(Role::Client, Some(TAKEOVER), &wire).0, [Failed(1007)]);
}

/// A message of 16 MiB in 16 KiB: the limit holds for what it becomes, and no more memory than that is taken.
#[test]
fn a_bomb_is_bounded() {
    let mut wire = Vec::new();
    codec(Role::Client, Some(TAKEOVER)).binary(&vec![0; 16 << 20], &mut wire).unwrap();
    assert!(wire.len() < 128 << 10, "{}", wire.len());
    for cut in [usize::MAX, 1000] {
        let mut server = limited(Role::Server, Some(TAKEOVER), 100_000);
        let (heard, reply) = hear(&mut server, &wire, cut);
        assert_eq!((heard, closes(Role::Server, &reply)), (vec![Failed(1009)], vec![1009]));
    }
    let mut server = limited(Role::Server, Some(TAKEOVER), 16 << 20);
    assert_eq!(hear(&mut server, &wire, 4096).0, [Binary(vec![0; 16 << 20])]);
    let (mut wire, mut plain) = (Vec::new(), Vec::new());
    assert!(Deflater::new(true).message(&vec![0; 16 << 20], &mut wire));
    let failure = Inflater::new(true).piece(&wire, &mut plain, 100_000).unwrap_err();
    assert_eq!(failure.code, 1009);
    assert!(plain.capacity() <= 2 * 100_000 + (16 << 10), "{}", plain.capacity());
}

/// Blocks that hold nothing are no way around the limit either.
#[test]
fn endless_emptiness_is_bounded() {
    let empty = [0, 0, 0, 0xFF, 0xFF].repeat(100);
    let bytes: Vec<u8> = std::iter::once(0x42)
        .chain(std::iter::repeat_n(0x00, 9))
        .flat_map(|first| frame(Role::Server, first, &empty))
        .collect();
    let mut server = limited(Role::Server, Some(TAKEOVER), 1000);
    assert_eq!(hear(&mut server, &bytes, usize::MAX).0, [Failed(1009)]);
}

/// Exactly the limit is allowed, one more is not.
#[test]
fn the_limit_is_of_the_decompressed_size() {
    for (length, expected) in [(1000, Binary(vec![b'x'; 1000])), (1001, Failed(1009))] {
        let mut wire = Vec::new();
        codec(Role::Server, Some(TAKEOVER)).binary(&vec![b'x'; length], &mut wire).unwrap();
        assert!(wire.len() < 100);
        for cut in [1, 7, usize::MAX] {
            assert_eq!(
                hear(&mut limited(Role::Client, Some(TAKEOVER), 1000), &wire, cut).0,
                std::slice::from_ref(&expected)
            );
        }
    }
}

fn text_of(length: usize) -> Vec<u8> {
    let words = ["alpha ", "beta ", "gamma ", "delta ", "{\"price\": ", "}, "];
    (0..).flat_map(|at: usize| words[(at * at / 3) % words.len()].bytes()).take(length).collect()
}

/// Noise by a generator of its own: nothing compresses it.
fn noise(length: usize, mut state: u64) -> Vec<u8> {
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..length).map(|_| next()).collect()
}

/// As peers do that send a thousand messages of one size, of each size, both ways.
#[test]
fn many_messages_of_every_size_go_both_ways() {
    for params in [TAKEOVER, ALONE, Params { server_no_context_takeover: true, ..TAKEOVER }] {
        for role in BOTH {
            let other = if role == Role::Client { Role::Server } else { Role::Client };
            let (mut from, mut to) = (codec(role, Some(params)), codec(other, Some(params)));
            for length in [0, 16, 63, 64, 65, 255, 256, 1024, 4096, 8192, 16384, 32768, 65536, 131072] {
                for number in 0..4 {
                    let (text, bytes) = (text_of(length), noise(length, number + 1));
                    let mut wire = Vec::new();
                    from.text(&text, &mut wire).unwrap();
                    let text_length = wire.len();
                    from.binary(&bytes, &mut wire).unwrap();
                    if length >= 256 {
                        assert!(text_length < length / 2, "{text_length} for {length}");
                    }
                    assert!(wire.len() - text_length <= length + 14, "noise does not grow");
                    assert_eq!(hear(&mut to, &wire, 1 << 14).0, [Text(text), Binary(bytes)]);
                }
            }
        }
    }
}

#[test]
fn takeover_makes_what_is_alike_small() {
    let message = br#"{"event":"tick","symbol":"ABCD","price":1234.5,"volume":100,"side":"buy","time":1700000000}"#;
    let mut sizes = Vec::new();
    for params in [TAKEOVER, ALONE] {
        let mut server = codec(Role::Server, Some(params));
        let mut wire = Vec::new();
        server.text(message, &mut wire).unwrap();
        wire.clear();
        server.text(message, &mut wire).unwrap();
        sizes.push(wire.len());
    }
    assert!(sizes[0] < 20, "{sizes:?}");
    assert_eq!(sizes[1], message.len() + 2, "alone it is not worth the time");
}

/// What compression would make longer is sent as it is, and what follows is understood all the same.
#[test]
fn noise_between_texts_breaks_no_context() {
    let (mut from, mut to) = (codec(Role::Client, Some(TAKEOVER)), codec(Role::Server, Some(TAKEOVER)));
    let text = text_of(1000);
    for number in 0..20 {
        let mut wire = Vec::new();
        from.text(&text, &mut wire).unwrap();
        assert_eq!(wire[0], 0xC1);
        let begin = wire.len();
        let bytes = noise(1000, number + 9);
        from.binary(&bytes, &mut wire).unwrap();
        assert_eq!(wire[begin], 0x82);
        from.text(&text, &mut wire).unwrap();
        assert_eq!(hear(&mut to, &wire, 77).0, [Text(text.clone()), Binary(bytes), Text(text.clone())]);
    }
}
