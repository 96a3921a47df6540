//! Unit tests of both sides: the examples of the RFCs, what they forbid, and how peers are known to behave.
mod close;
mod compression;
mod framing;
mod handshake;
mod laws;
mod text;

use super::deflate::Params;
use super::{Codec, Config, Role, Step, Told};

/// What was told, in memory of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    Text(Vec<u8>),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(u16, Vec<u8>),
    /// The code.
    Failed(u16),
}

use Heard::{Binary, Close, Failed, Ping, Pong, Text};

pub const LIMIT: usize = 1 << 20;
pub const TAKEOVER: Params =
    Params { server_no_context_takeover: false, client_no_context_takeover: false, server_max_window_bits: false };
pub const ALONE: Params = Params { server_no_context_takeover: true, client_no_context_takeover: true, ..TAKEOVER };

pub fn codec(role: Role, deflate: Option<Params>) -> Codec {
    limited(role, deflate, LIMIT)
}

pub fn limited(role: Role, deflate: Option<Params>, message_bytes_max: usize) -> Codec {
    Codec::new(Config { role, message_bytes_max, deflate, mask_seed: 7 })
}

/// What is told of bytes that come `cut` at a time, and what is written.
pub fn hear(codec: &mut Codec, bytes: &[u8], cut: usize) -> (Vec<Heard>, Vec<u8>) {
    let (mut heard, mut wire) = (Vec::new(), Vec::new());
    let (mut start, mut end, mut needed) = (0, 0, 0);
    loop {
        let input = &bytes[start..end];
        if input.len() < needed || (input.is_empty() && end < bytes.len()) {
            if end == bytes.len() {
                return (heard, wire);
            }
            end = bytes.len().min(end.saturating_add(cut));
            continue;
        }
        match codec.step(input, &mut wire) {
            Ok(Step::Need(count)) => {
                assert!(count > input.len() && count > needed, "{count} of {}, after {needed}", input.len());
                needed = count;
            }
            Ok(Step::Done { consumed, told }) => {
                assert!((1..=input.len()).contains(&consumed));
                heard.extend(told.map(own));
                start += consumed;
                needed = 0;
            }
            Err(failure) => {
                assert!(codec.is_over());
                heard.push(Failed(failure.code));
                assert_silence(codec);
                return (heard, wire);
            }
        }
    }
}

fn own(told: Told<'_>) -> Heard {
    match told {
        Told::Text(payload) => Text(payload.to_vec()),
        Told::Binary(payload) => Binary(payload.to_vec()),
        Told::Ping(payload) => Ping(payload.to_vec()),
        Told::Pong(payload) => Pong(payload.to_vec()),
        Told::Close { code, reason } => Close(code, reason.to_vec()),
    }
}

/// Whatever follows a failure has no effect.
fn assert_silence(codec: &mut Codec) {
    let mut wire = Vec::new();
    for input in [&b"\x81\x01a"[..], b"\x89\x00", b"\xFF"] {
        assert_eq!(codec.step(input, &mut wire), Ok(Step::Done { consumed: input.len(), told: None }));
    }
    assert!(codec.text(b"late", &mut wire).is_err());
    assert!(codec.close(1000, b"", &mut wire).is_err());
    assert_eq!(wire, b"");
}

/// The same, however the bytes are cut.
pub fn hear_any_cut(role: Role, deflate: Option<Params>, bytes: &[u8]) -> (Vec<Heard>, Vec<u8>) {
    let whole = hear(&mut codec(role, deflate), bytes, usize::MAX);
    for cut in 1..=bytes.len().min(40) {
        assert_eq!(hear(&mut codec(role, deflate), bytes, cut), whole, "cut at every {cut} bytes");
    }
    whole
}

/// A frame as a peer of `role` receives it, masked by a constant if it must be. `first`: FIN, RSV1 to 3 and the opcode.
pub fn frame(role: Role, first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    let masked = if role == Role::Server { 0x80 } else { 0 };
    match payload.len() {
        length @ 0..=125 => bytes.push(masked | length as u8),
        length @ 126..=65535 => {
            bytes.push(masked | 126);
            bytes.extend((length as u16).to_be_bytes());
        }
        length => {
            bytes.push(masked | 127);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    if role == Role::Client {
        bytes.extend(payload);
    } else {
        let key = [0x37, 0xFA, 0x21, 0x3D];
        bytes.extend(key);
        bytes.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
    }
    bytes
}

/// Frames one after another, as one input.
pub fn frames(role: Role, frames: &[(u8, &[u8])]) -> Vec<u8> {
    frames.iter().flat_map(|(first, payload)| frame(role, *first, payload)).collect()
}

/// What a peer of `role` hears of what was written: the other side reads it.
pub fn read_by(role: Role, deflate: Option<Params>, wire: &[u8]) -> Vec<Heard> {
    hear(&mut codec(role, deflate), wire, usize::MAX).0
}

/// The close frame in what `role` wrote, and what was written before it.
pub fn closes(role: Role, wire: &[u8]) -> Vec<u16> {
    let other = if role == Role::Client { Role::Server } else { Role::Client };
    let codes = |heard| if let Close(code, _) = heard { Some(code) } else { None };
    read_by(other, None, wire).into_iter().filter_map(codes).collect()
}

pub const BOTH: [Role; 2] = [Role::Client, Role::Server];
