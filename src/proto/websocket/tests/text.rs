//! Text is UTF-8 (RFC 6455, 8.1; RFC 3629).
use super::Heard::{Failed, Text};
use super::*;
use crate::proto::websocket::utf8::Utf8;

const VALID: &[&[u8]] = &[
    b"",
    b"Hello-\xC2\xB5@\xC3\x9F\xC3\xB6\xC3\xA4\xC3\xBC\xC3\xA0\xC3\xA1-UTF-8!!",
    b"\xCE\xBA\xE1\xBD\xB9\xCF\x83\xCE\xBC\xCE\xB5",
    // The first and the last of each length, and the edges of the surrogates.
    b"\x00",
    b"\x7F",
    b"\xC2\x80",
    b"\xDF\xBF",
    b"\xE0\xA0\x80",
    b"\xEF\xBF\xBF",
    b"\xED\x9F\xBF",
    b"\xEE\x80\x80",
    b"\xEF\xBF\xBD",
    b"\xEF\xBF\xBE",
    b"\xF0\x90\x80\x80",
    b"\xF0\x9F\xBF\xBE",
    b"\xF4\x8F\xBF\xBF",
];

const INVALID: &[&[u8]] = &[
    // Continuations without a beginning.
    b"\x80",
    b"\xBF",
    b"\x80\xBF\x80",
    // Beginnings without a continuation.
    b"\xC2 ",
    b"\xE1\x80 ",
    b"\xF1\x80\x80 ",
    b"\xCE\xBA\xE1\xBD",
    b"\xC2",
    b"\xF4\x8F\xBF",
    // Bytes that never occur.
    b"\xFE",
    b"\xFF",
    b"\xFE\xFE\xFF\xFF",
    b"\xF5\x80\x80\x80",
    b"\xF8\x88\x80\x80\x80",
    b"\xFC\x84\x80\x80\x80\x80",
    // Longer than needed.
    b"\xC0\xAF",
    b"\xC1\xBF",
    b"\xE0\x80\xAF",
    b"\xE0\x9F\xBF",
    b"\xF0\x80\x80\xAF",
    b"\xF0\x8F\xBF\xBF",
    // Surrogates, alone and in pairs.
    b"\xED\xA0\x80",
    b"\xED\xAF\xBF",
    b"\xED\xBF\xBF",
    b"\xED\xA0\x80\xED\xB0\x80",
    // Beyond U+10FFFF.
    b"\xF4\x90\x80\x80",
];

#[test]
fn valid_text_is_told_and_invalid_text_is_not() {
    for role in BOTH {
        for text in VALID {
            assert_eq!(hear_any_cut(role, None, &frame(role, 0x81, text)).0, [Text(text.to_vec())]);
        }
        for text in INVALID {
            let (heard, wire) = hear_any_cut(role, None, &frame(role, 0x81, text));
            assert_eq!((heard, closes(role, &wire)), (vec![Failed(1007)], vec![1007]), "{text:02X?}");
        }
    }
}

#[test]
fn characters_may_be_cut_by_frames_and_are_judged_across_them() {
    for role in BOTH {
        for (text, expected) in
            VALID.iter().map(|text| (text, Text(text.to_vec()))).chain(INVALID.iter().map(|text| (text, Failed(1007))))
        {
            for at in 0..=text.len() {
                let bytes = frames(role, &[(0x01, &text[..at]), (0x00, b""), (0x80, &text[at..])]);
                assert_eq!(hear_any_cut(role, None, &bytes).0, std::slice::from_ref(&expected), "{text:02X?} at {at}");
            }
            let mut bytes = frame(role, 0x01, b"");
            bytes.extend(text.iter().flat_map(|byte| frame(role, 0x00, &[*byte])));
            bytes.extend(frame(role, 0x80, b""));
            assert_eq!(hear_any_cut(role, None, &bytes).0, [expected], "{text:02X?} by the byte");
        }
    }
}

/// The end of a message is not waited for, nor that of a frame.
#[test]
fn invalid_text_fails_at_its_first_wrong_byte() {
    for role in BOTH {
        let text = b"\xCE\xBA\xE1\xBD\xB9\xCF\x83\xCE\xBC\xCE\xB5\xF4\x90";
        let first = frame(role, 0x01, &text[..12]);
        let mut codec = codec(role, None);
        assert_eq!(hear(&mut codec, &first, usize::MAX).0, []);
        assert_eq!(hear(&mut codec, &frame(role, 0x00, &text[12..]), usize::MAX).0, [Failed(1007)]);
        let whole = frame(role, 0x81, &[&text[..], &[b'a'; 100]].concat());
        let head = whole.len() - 100;
        assert_eq!(hear(&mut super::codec(role, None), &whole[..head - 1], 5).0, []);
        assert_eq!(hear(&mut super::codec(role, None), &whole[..head], 5).0, [Failed(1007)]);
    }
}

#[test]
fn binary_messages_are_not_judged() {
    for role in BOTH {
        for bytes in INVALID {
            assert_eq!(hear_any_cut(role, None, &frame(role, 0x82, bytes)).0, [Heard::Binary(bytes.to_vec())]);
        }
    }
}

/// The standard library judges whole texts: the same in pieces.
#[test]
fn pieces_are_judged_as_wholes_are() {
    for first in 0..=255_u8 {
        for second in [0x00, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xFF] {
            for rest in [&b""[..], b"\x80", b"\x80\x80", b"\xBFa", b"a"] {
                let text = [&[first, second], rest].concat();
                for at in 0..=text.len() {
                    let mut utf8 = Utf8::default();
                    let is_valid = utf8.feed(&text[..at]) && utf8.feed(&text[at..]) && utf8.is_whole();
                    assert_eq!(is_valid, std::str::from_utf8(&text).is_ok(), "{text:02X?} at {at}");
                }
            }
        }
    }
}
