//! Replies as clients read them: one MessagePack value becomes RESP2 or RESP3.
use memchr::memchr2;

use super::number;
use super::wire::LINE_BYTES_MAX;
use crate::ring::layout::{IOK_EXT_ATTRIBUTED, IOK_EXT_BIG_NUMBER, IOK_EXT_ERROR, IOK_EXT_SET, IOK_EXT_VERBATIM};
use crate::value::{Malformed, Reader, Token};

/// Appends the wire form of `body`. After an error the caller cuts `wire` back.
pub fn reply(body: &[u8], resp3: bool, depth_max: usize, wire: &mut Vec<u8>) -> Result<(), String> {
    let mut writer = Writer { resp3, wire };
    let mut reader = Reader::new(body);
    writer.value(&mut reader, depth_max)?;
    at_end(&reader)
}

fn at_end(reader: &Reader<'_>) -> Result<(), String> {
    if reader.is_at_end() { Ok(()) } else { Err("bytes follow the value".into()) }
}

/// `-CODE message`; a line end in either would begin a forged reply, so control bytes become spaces.
pub fn error(wire: &mut Vec<u8>, code: &[u8], message: &[u8]) {
    let code = if code.is_empty() { b"ERR" } else { code };
    let clean = |byte: &u8| if byte.is_ascii_control() { b' ' } else { *byte };
    wire.push(b'-');
    wire.extend(code.iter().map(clean));
    if !message.is_empty() {
        wire.push(b' ');
        wire.extend(message.iter().take(LINE_BYTES_MAX / 2).map(clean));
    }
    wire.extend_from_slice(b"\r\n");
}

struct Writer<'a> {
    resp3: bool,
    wire: &'a mut Vec<u8>,
}

impl Writer<'_> {
    /// One value; `depth_left` bounds the recursion.
    fn value(&mut self, reader: &mut Reader<'_>, depth_left: usize) -> Result<(), String> {
        match reader.token().map_err(malformed)? {
            Token::Nil => self.wire.extend_from_slice(if self.resp3 { b"_\r\n" } else { b"$-1\r\n" }),
            Token::Bool(value) => self.bool(value),
            Token::Int(value) => self.line(b':', number::Decimal::new(value).as_bytes()),
            Token::Uint(value) => self.big_number(number::Decimal::unsigned(value).as_bytes()),
            Token::Float(value) => self.float(value),
            Token::Str(text) => self.text(text),
            Token::Bin(bytes) => number::bulk(self.wire, bytes),
            Token::Array(count) => self.members(reader, b'*', count, depth_left)?,
            Token::Map(count) => self.map(reader, b'%', count, depth_left)?,
            Token::Ext(kind, payload) => self.ext(kind, payload, depth_left)?,
        }
        Ok(())
    }

    fn line(&mut self, kind: u8, text: &[u8]) {
        self.wire.push(kind);
        self.wire.extend_from_slice(text);
        self.wire.extend_from_slice(b"\r\n");
    }

    fn bool(&mut self, value: bool) {
        self.wire.extend_from_slice(match (self.resp3, value) {
            (true, true) => b"#t\r\n",
            (true, false) => b"#f\r\n",
            (false, true) => b":1\r\n",
            (false, false) => b":0\r\n",
        });
    }

    fn float(&mut self, value: f64) {
        let text = number::float_text(value);
        if self.resp3 { self.line(b',', text.as_bytes()) } else { number::bulk(self.wire, text.as_bytes()) }
    }

    fn big_number(&mut self, text: &[u8]) {
        if self.resp3 { self.line(b'(', text) } else { number::bulk(self.wire, text) }
    }

    fn text(&mut self, text: &[u8]) {
        if text.len() < LINE_BYTES_MAX && memchr2(b'\r', b'\n', text).is_none() {
            self.line(b'+', text);
        } else {
            number::bulk(self.wire, text);
        }
    }

    fn members(&mut self, reader: &mut Reader<'_>, kind: u8, count: u32, depth_left: usize) -> Result<(), String> {
        number::head(self.wire, kind, u64::from(count));
        self.values(reader, u64::from(count), depth_left)
    }

    fn map(&mut self, reader: &mut Reader<'_>, kind: u8, count: u32, depth_left: usize) -> Result<(), String> {
        let values = 2 * u64::from(count);
        match self.resp3 {
            true => number::head(self.wire, kind, u64::from(count)),
            false => number::head(self.wire, b'*', values),
        }
        self.values(reader, values, depth_left)
    }

    fn values(&mut self, reader: &mut Reader<'_>, count: u64, depth_left: usize) -> Result<(), String> {
        let depth_left = deeper(depth_left)?;
        for _ in 0..count {
            self.value(reader, depth_left)?;
        }
        Ok(())
    }

    fn ext(&mut self, kind: i8, payload: &[u8], depth_left: usize) -> Result<(), String> {
        let mut reader = Reader::new(payload);
        match kind {
            IOK_EXT_ERROR => {
                let (code, message) = code_and_message(&mut reader).ok_or("ext 1 is an error: [code, message]")?;
                error(self.wire, code, message);
            }
            IOK_EXT_BIG_NUMBER => return self.big_number_ext(payload),
            IOK_EXT_VERBATIM => return self.verbatim(payload),
            IOK_EXT_SET => match reader.token().map_err(malformed)? {
                Token::Array(count) => {
                    self.members(&mut reader, if self.resp3 { b'~' } else { b'*' }, count, depth_left)?;
                }
                _ => return Err("ext 4 is a set: its bytes are one array".into()),
            },
            IOK_EXT_ATTRIBUTED => self.attributed(&mut reader, depth_left)?,
            _ => return Err(format!("ext {kind} has no meaning in a reply")),
        }
        at_end(&reader)
    }

    fn big_number_ext(&mut self, payload: &[u8]) -> Result<(), String> {
        if !number::is_decimal(payload) {
            return Err("ext 2 is an integer in decimal text".into());
        }
        self.big_number(payload);
        Ok(())
    }

    fn verbatim(&mut self, payload: &[u8]) -> Result<(), String> {
        if payload.get(3) != Some(&b':') {
            return Err("ext 3 is text after a format of three bytes, as in txt:hello".into());
        }
        if self.resp3 {
            number::head(self.wire, b'=', payload.len() as u64);
            self.wire.extend_from_slice(payload);
            self.wire.extend_from_slice(b"\r\n");
        } else {
            number::bulk(self.wire, &payload[4..]);
        }
        Ok(())
    }

    /// `[map, value]`; RESP2 has no attributes.
    fn attributed(&mut self, reader: &mut Reader<'_>, depth_left: usize) -> Result<(), String> {
        let (Token::Array(2), Token::Map(count)) =
            (reader.token().map_err(malformed)?, reader.token().map_err(malformed)?)
        else {
            return Err("ext 5 is a value with attributes: [map, value]".into());
        };
        let start = self.wire.len();
        self.map(reader, b'|', count, depth_left)?;
        if !self.resp3 {
            self.wire.truncate(start);
        }
        self.value(reader, deeper(depth_left)?)
    }
}

fn deeper(depth_left: usize) -> Result<usize, String> {
    depth_left.checked_sub(1).ok_or_else(|| "the reply nests too deep".to_string())
}

fn code_and_message<'a>(reader: &mut Reader<'a>) -> Option<(&'a [u8], &'a [u8])> {
    let Ok(Token::Array(2)) = reader.token() else { return None };
    let mut text = || match reader.token() {
        Ok(Token::Str(text) | Token::Bin(text)) => Some(text),
        _ => None,
    };
    Some((text()?, text()?))
}

fn malformed(error: Malformed) -> String {
    error.to_string()
}
