//! What the program and the protocol tell each other: requests and replies as MessagePack.
use super::wire::{Pairs, is_token, is_trailer, is_value};
use crate::proto::{Refusal, Span};
use crate::value::{Malformed, Reader, Token, write};

/// Nesting that a program's message may have.
pub const DEPTH_MAX: usize = 8;

pub fn bad_request(message: impl Into<String>) -> Refusal {
    Refusal { code: "BADREQUEST", message: message.into() }
}

pub fn malformed(error: Malformed) -> Refusal {
    bad_request(error.to_string())
}

/// Text as str or bin.
pub fn text<'a>(token: Token<'a>, what: &str) -> Result<&'a [u8], Refusal> {
    match token {
        Token::Str(text) | Token::Bin(text) => Ok(text),
        other => Err(bad_request(format!("{what} must be text, not {}", other.kind()))),
    }
}

/// Header fields that a program gives, checked (RFC 9110, 5.1 and 5.5): pairs, or a map whose values are text or arrays of
/// text; nil for none.
pub fn headers<'a>(
    reader: &mut Reader<'a>,
    mut each: impl FnMut(&'a [u8], &'a [u8]) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    match reader.token().map_err(malformed)? {
        Token::Nil => Ok(()),
        Token::Array(count) => (0..count).try_for_each(|_| match reader.token().map_err(malformed)? {
            Token::Array(2) => {
                let name = field_name(reader)?;
                each(name, field_value(reader.token().map_err(malformed)?, name)?)
            }
            other => Err(bad_request(format!("a header must be [name, value], not {}", other.kind()))),
        }),
        Token::Map(count) => (0..count).try_for_each(|_| {
            let name = field_name(reader)?;
            match reader.token().map_err(malformed)? {
                Token::Array(count) => {
                    (0..count).try_for_each(|_| each(name, field_value(reader.token().map_err(malformed)?, name)?))
                }
                token => each(name, field_value(token, name)?),
            }
        }),
        other => Err(bad_request(format!("headers must be an array of pairs or a map, not {}", other.kind()))),
    }
}

fn field_name<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], Refusal> {
    let name = text(reader.token().map_err(malformed)?, "a header's name")?;
    match is_token(name) {
        true => Ok(name),
        false => Err(bad_request(format!("no header may have the name {:?}", String::from_utf8_lossy(name)))),
    }
}

fn field_value<'a>(token: Token<'a>, name: &[u8]) -> Result<&'a [u8], Refusal> {
    let value = text(token, "a header's value")?;
    match is_value(value) {
        true => Ok(value.trim_ascii()),
        // Its value may be a secret.
        false => {
            Err(bad_request(format!("the header {} has a control character in it", String::from_utf8_lossy(name))))
        }
    }
}

/// What goes behind a chunked body, given as [`headers`] are.
pub fn trailers<'a>(reader: &mut Reader<'a>) -> Result<Pairs<'a>, Refusal> {
    let mut fields = Vec::new();
    headers(reader, |name, value| match is_trailer(name) {
        true => {
            fields.push((name, value));
            Ok(())
        }
        false => {
            let name = String::from_utf8_lossy(name);
            Err(bad_request(format!("{name} cannot be a trailer (RFC 9110, 6.5.1)")))
        }
    })?;
    Ok(fields)
}

/// One more message of a body that the program sends in pieces, or of a lane.
#[derive(Debug)]
pub enum Piece<'a> {
    Bytes(&'a [u8]),
    Text(&'a [u8]),
    Span(Span),
    End,
    /// The end, with fields: to be read with [`trailers`]. Of a WebSocket: `[code, reason]`.
    Array(Reader<'a>),
    /// `{"ping": bytes}`, of a WebSocket.
    Ping(&'a [u8]),
}

/// Reads the payload of a SEND.
pub fn piece(body: &[u8]) -> Result<Piece<'_>, Refusal> {
    crate::value::whole(body, DEPTH_MAX).map_err(malformed)?;
    let mut reader = Reader::new(body);
    match reader.token().map_err(malformed)? {
        Token::Nil => Ok(Piece::End),
        Token::Bin(bytes) => Ok(Piece::Bytes(bytes)),
        Token::Str(text) => Ok(Piece::Text(text)),
        Token::Array(_) => Ok(Piece::Array(Reader::new(body))),
        Token::Map(1) => {
            let key = text(reader.token().map_err(malformed)?, "a key")?;
            match (key, reader.token().map_err(malformed)?) {
                (b"ping", value) => Ok(Piece::Ping(text(value, "a ping")?)),
                _ => Err(bad_request("a map must be a span of a file, or {\"ping\": bytes}")),
            }
        }
        Token::Map(_) => span(&mut Reader::new(body)).map(Piece::Span),
        other => Err(bad_request(format!("a piece of a body must be bytes, not {}", other.kind()))),
    }
}

/// Reads `{"fd": int, "offset": int, "length": int}`; offset may be missing.
pub fn span(reader: &mut Reader<'_>) -> Result<Span, Refusal> {
    const EXPECTED: &str = "a span of a file is {\"fd\", \"offset\", \"length\"} with numbers from 0 on";
    let Token::Map(count) = reader.token().map_err(malformed)? else { return Err(bad_request(EXPECTED)) };
    let (mut fd, mut offset, mut length) = (None, 0, None);
    for _ in 0..count {
        let key = text(reader.token().map_err(malformed)?, "a key")?;
        let Token::Int(number @ 0..) = reader.token().map_err(malformed)? else { return Err(bad_request(EXPECTED)) };
        match key {
            b"fd" => fd = i32::try_from(number).ok(),
            b"offset" => offset = number as u64,
            b"length" => length = Some(number as u64),
            _ => return Err(bad_request(EXPECTED)),
        }
    }
    match (fd, length) {
        (Some(fd), Some(length)) => Ok(Span { fd, offset, length }),
        _ => Err(bad_request(EXPECTED)),
    }
}

/// Header fields as a program is told them: pairs of bytes, in the order of the wire.
pub fn write_headers<'a>(out: &mut Vec<u8>, headers: impl Iterator<Item = (&'a [u8], &'a [u8])>) {
    let open = write::array_open(out);
    let mut count = 0;
    for (name, value) in headers {
        write::array(out, 2);
        write::bin(out, name);
        write::bin(out, value);
        count += 1;
    }
    write::count_close(out, open, count);
}
