//! WebSocket: no bytes panic or outgrow the limit, how they are cut makes no difference, and what one side sends the
//! other hears.
#![no_main]

use iokernel::proto::websocket::deflate::Params;
use iokernel::proto::websocket::handshake::{Request, read_request};
use iokernel::proto::websocket::{Codec, Config, INVALID_DATA, Role, Step, TOO_BIG, Told};
use libfuzzer_sys::fuzz_target;

const LIMIT: usize = 4096;

fuzz_target!(|input: (u8, u8, &[u8])| {
    let (choice, cut, bytes) = input;
    let role = if choice & 1 == 0 { Role::Client } else { Role::Server };
    let params = Params {
        server_no_context_takeover: choice & 2 != 0,
        client_no_context_takeover: choice & 4 != 0,
        server_max_window_bits: false,
    };
    let deflate = (choice & 8 != 0).then_some(params);
    let cut = usize::from(cut) + 1;
    match choice >> 4 & 3 {
        0 => handshake(bytes),
        1 => both_ways(role, deflate, bytes, cut),
        _ => assert_eq!(hear(role, deflate, bytes, cut), hear(role, deflate, bytes, usize::MAX)),
    }
});

/// What was told, by its kind, and what was written.
fn hear(role: Role, deflate: Option<Params>, bytes: &[u8], cut: usize) -> (Vec<(u16, Vec<u8>)>, Vec<u8>) {
    let mut codec = Codec::new(Config { role, message_bytes_max: LIMIT, deflate, mask_seed: 1 });
    let (mut heard, mut wire) = (Vec::new(), Vec::new());
    let (mut start, mut end) = (0, bytes.len().min(cut));
    loop {
        let written = wire.len();
        match codec.step(&bytes[start..end], &mut wire) {
            Ok(Step::Need(count)) => {
                assert!(count > end - start);
                if end == bytes.len() {
                    return (heard, wire);
                }
                end = bytes.len().min(end.saturating_add(cut));
            }
            Ok(Step::Done { consumed, told }) => {
                assert!(consumed > 0);
                start += consumed;
                heard.extend(told.map(own));
            }
            Err(failure) => {
                assert!(codec.is_over());
                // Where bytes are no DEFLATE and become too many at once, either may be seen first.
                wire.truncate(written);
                let is_either = deflate.is_some() && [INVALID_DATA, TOO_BIG].contains(&failure.code);
                heard.push((if is_either { INVALID_DATA } else { failure.code }, Vec::new()));
                return (heard, wire);
            }
        }
    }
}

fn own(told: Told<'_>) -> (u16, Vec<u8>) {
    let (kind, payload) = match told {
        Told::Text(payload) => (1, payload),
        Told::Binary(payload) => (2, payload),
        Told::Ping(payload) => (9, payload),
        Told::Pong(payload) => (10, payload),
        Told::Close { code, reason } => (code, reason),
    };
    assert!(payload.len() <= LIMIT);
    assert!(kind != 1 || std::str::from_utf8(payload).is_ok());
    (kind, payload.to_vec())
}

/// The bytes as messages, cut at their own first byte's value.
fn both_ways(role: Role, deflate: Option<Params>, bytes: &[u8], cut: usize) {
    let mut codec = Codec::new(Config { role, message_bytes_max: LIMIT, deflate, mask_seed: 1 });
    let (mut sent, mut wire) = (Vec::new(), Vec::new());
    let size = bytes.first().map_or(1, |first| usize::from(*first) + 1);
    for piece in bytes.chunks(size).take(8) {
        let large = piece.repeat(LIMIT / size / 2 + 1);
        for payload in [piece, &large] {
            if codec.text(payload, &mut wire).is_ok() {
                sent.push((1, payload.to_vec()));
            }
            codec.binary(payload, &mut wire).expect("anything is binary");
            sent.push((2, payload.to_vec()));
        }
    }
    let other = if role == Role::Client { Role::Server } else { Role::Client };
    assert_eq!(hear(other, deflate, &wire, cut).0, sent);
}

/// The bytes as the values of the headers that the handshake reads, one a line.
fn handshake(bytes: &[u8]) {
    let names: [&[u8]; 4] =
        [b"Sec-WebSocket-Extensions", b"Sec-WebSocket-Protocol", b"Sec-WebSocket-Key", b"Connection"];
    let given = names.into_iter().zip(bytes.split(|byte| *byte == b'\n'));
    let valid: [(&[u8], &[u8]); 4] = [
        (b"Upgrade", b"websocket"),
        (b"Connection", b"Upgrade"),
        (b"Sec-WebSocket-Version", b"13"),
        (b"Sec-WebSocket-Key", b"dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let asked = read_request(b"GET", 11, valid.into_iter().chain(given.clone().take(2)));
    if let iokernel::proto::websocket::handshake::Asked::Yes(offer) = asked {
        let protocol = offer.protocols.first().map(Vec::as_slice);
        offer.answer(protocol, true).expect("what was offered can be answered");
    }
    let _ = read_request(b"GET", 11, valid.into_iter().chain(given.clone()));
    let request = Request::new(1, vec![b"chat".to_vec()], true).expect("a token");
    let _ = request.check(given);
}
