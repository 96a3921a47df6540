//! Messages as they are on the wire (PostgreSQL 15 documentation, 55.7 "Message Formats"): what a client writes, and how
//! what a server writes is taken apart, in place.
use memchr::memchr;

use crate::proto::{Fault, FaultKind};

/// The kind and the length of a message.
pub const HEAD_BYTES: usize = 5;
/// The largest message that a server takes (`PQ_LARGE_MESSAGE_LIMIT`).
pub const SENT_BYTES_MAX: usize = 0x3fff_ffff;
/// Before a server has shown that it speaks this protocol, its messages are short: libpq takes as many.
const STRANGER_BYTES_MAX: usize = 30_000;
const PROTOCOL_3_0: i32 = 3 << 16;

/// A message to the server: its kind, its length, and what `fill` appends.
fn message(wire: &mut Vec<u8>, kind: u8, fill: impl FnOnce(&mut Vec<u8>)) {
    wire.push(kind);
    sized(wire, fill);
}

fn sized(wire: &mut Vec<u8>, fill: impl FnOnce(&mut Vec<u8>)) {
    let at = wire.len();
    wire.extend_from_slice(&[0; 4]);
    fill(wire);
    let bytes = (wire.len() - at) as u32;
    wire[at..at + 4].copy_from_slice(&bytes.to_be_bytes());
}

fn text(wire: &mut Vec<u8>, text: &[u8]) {
    wire.extend_from_slice(text);
    wire.push(0);
}

fn int16(wire: &mut Vec<u8>, number: usize) {
    wire.extend_from_slice(&(number as u16).to_be_bytes());
}

/// StartupMessage: the only one without a kind.
pub fn startup(wire: &mut Vec<u8>, parameters: &[(&str, &str)]) {
    sized(wire, |wire| {
        wire.extend_from_slice(&PROTOCOL_3_0.to_be_bytes());
        for (name, value) in parameters {
            text(wire, name.as_bytes());
            text(wire, value.as_bytes());
        }
        wire.push(0);
    });
}

/// CancelRequest, which is all that its conn says.
pub fn cancel_request(wire: &mut Vec<u8>, process: u32, secret: u32) {
    const CODE: u32 = 80_877_102;
    sized(wire, |wire| {
        [CODE, process, secret].iter().for_each(|number| wire.extend_from_slice(&number.to_be_bytes()));
    });
}

pub fn password(wire: &mut Vec<u8>, password: &[u8]) {
    message(wire, b'p', |wire| text(wire, password));
}

pub fn sasl_initial(wire: &mut Vec<u8>, mechanism: &str, response: &[u8]) {
    message(wire, b'p', |wire| {
        text(wire, mechanism.as_bytes());
        wire.extend_from_slice(&(response.len() as u32).to_be_bytes());
        wire.extend_from_slice(response);
    });
}

pub fn sasl_response(wire: &mut Vec<u8>, response: &[u8]) {
    message(wire, b'p', |wire| wire.extend_from_slice(response));
}

pub fn query(wire: &mut Vec<u8>, sql: &[u8]) {
    message(wire, b'Q', |wire| text(wire, sql));
}

/// The name of a prepared statement, its number in hexadecimal. 0 is the unnamed one.
fn name(wire: &mut Vec<u8>, number: u64) {
    if number != 0 {
        wire.extend_from_slice(format!("iok{number:x}").as_bytes());
    }
    wire.push(0);
}

pub fn parse(wire: &mut Vec<u8>, statement: u64, sql: &[u8], parameters: &[u32]) {
    message(wire, b'P', |wire| {
        name(wire, statement);
        text(wire, sql);
        int16(wire, parameters.len());
        parameters.iter().for_each(|oid| wire.extend_from_slice(&oid.to_be_bytes()));
    });
}

pub fn describe_statement(wire: &mut Vec<u8>, statement: u64) {
    message(wire, b'D', |wire| {
        wire.push(b'S');
        name(wire, statement);
    });
}

/// Of the unnamed portal, the only one there is.
pub fn describe_portal(wire: &mut Vec<u8>) {
    wire.extend_from_slice(b"D\0\0\0\x06P\0");
}

/// Binds the unnamed portal. `value` appends the bytes of a parameter and returns its format, or None for NULL.
pub fn bind(
    wire: &mut Vec<u8>,
    statement: u64,
    parameters: usize,
    results: &[i16],
    mut value: impl FnMut(usize, &mut Vec<u8>) -> Result<Option<i16>, String>,
) -> Result<(), String> {
    let mut outcome = Ok(());
    message(wire, b'B', |wire| {
        wire.push(0);
        name(wire, statement);
        int16(wire, parameters);
        let formats = wire.len();
        wire.resize(formats + 2 * parameters, 0);
        int16(wire, parameters);
        for index in 0..parameters {
            let at = wire.len();
            wire.extend_from_slice(&(-1i32).to_be_bytes());
            match value(index, wire) {
                Ok(None) => wire.truncate(at + 4),
                Ok(Some(format)) => {
                    let bytes = (wire.len() - at - 4) as u32;
                    wire[at..at + 4].copy_from_slice(&bytes.to_be_bytes());
                    wire[formats + 2 * index..formats + 2 * index + 2].copy_from_slice(&format.to_be_bytes());
                }
                Err(why) => {
                    outcome = Err(why);
                    return;
                }
            }
        }
        int16(wire, results.len());
        results.iter().for_each(|format| wire.extend_from_slice(&format.to_be_bytes()));
    });
    outcome
}

/// All rows of the unnamed portal.
pub fn execute(wire: &mut Vec<u8>) {
    wire.extend_from_slice(b"E\0\0\0\x09\0\0\0\0\0");
}

pub fn close_statement(wire: &mut Vec<u8>, statement: u64) {
    message(wire, b'C', |wire| {
        wire.push(b'S');
        name(wire, statement);
    });
}

pub fn sync(wire: &mut Vec<u8>) {
    wire.extend_from_slice(b"S\0\0\0\x04");
}

/// A piece of what a COPY takes in.
pub fn copy_data(wire: &mut Vec<u8>, data: &[u8]) {
    message(wire, b'd', |wire| wire.extend_from_slice(data));
}

pub fn copy_done(wire: &mut Vec<u8>) {
    wire.extend_from_slice(b"c\0\0\0\x04");
}

/// The COPY is to fail, for this reason.
pub fn copy_fail(wire: &mut Vec<u8>, why: &[u8]) {
    message(wire, b'f', |wire| text(wire, why));
}

pub fn terminate(wire: &mut Vec<u8>) {
    wire.extend_from_slice(b"X\0\0\0\x04");
}

/// What stands at the beginning of the input.
#[derive(Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// So many bytes, from the start of the same input, before anything can be done.
    Need(usize),
    Message {
        bytes: usize,
        kind: u8,
        body: &'a [u8],
    },
    /// A row or a piece of data of more bytes than the limit allows, its head included.
    Large {
        bytes: usize,
    },
}

/// Looks at the next message. `stranger`: the server has not shown yet what it is.
#[inline]
pub fn step(input: &[u8], bytes_max: usize, stranger: bool) -> Result<Step<'_>, Fault> {
    let Some(&[kind, a, b, c, d]) = input.first_chunk::<HEAD_BYTES>() else { return Ok(Step::Need(HEAD_BYTES)) };
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    let bytes = length.saturating_add(1);
    if stranger && (!b"REvN".contains(&kind) || bytes > STRANGER_BYTES_MAX) {
        return Err(broken("the peer does not speak the protocol of PostgreSQL"));
    }
    if !(4..=i32::MAX as usize).contains(&length) {
        return Err(broken(&format!("a message of kind {} says that it has {length} bytes", kind.escape_ascii())));
    }
    if bytes > bytes_max {
        return match kind {
            b'D' | b'd' => Ok(Step::Large { bytes }),
            _ => Err(Fault {
                kind: FaultKind::TooLarge,
                message: format!("a message of {bytes} bytes came: the limit is {bytes_max} (max_reply)"),
            }),
        };
    }
    match input.get(HEAD_BYTES..bytes) {
        Some(body) => Ok(Step::Message { bytes, kind, body }),
        None => Ok(Step::Need(bytes)),
    }
}

#[cold]
pub fn broken(what: &str) -> Fault {
    Fault { kind: FaultKind::Protocol, message: what.into() }
}

/// A cursor over a message's fields. Each method answers None where the message ends too soon.
pub struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    pub fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    pub fn int16(&mut self) -> Option<i16> {
        self.array().map(i16::from_be_bytes)
    }

    pub fn int32(&mut self) -> Option<i32> {
        self.array().map(i32::from_be_bytes)
    }

    pub fn uint32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    /// A count that is never negative.
    pub fn count(&mut self) -> Option<usize> {
        self.array().map(|bytes| usize::from(u16::from_be_bytes(bytes)))
    }

    pub fn text(&mut self) -> Option<&'a [u8]> {
        let end = memchr(0, self.0)?;
        let text = &self.0[..end];
        self.0 = &self.0[end + 1..];
        Some(text)
    }

    pub fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        Some(taken)
    }

    /// One value of a row: None is NULL.
    #[inline]
    pub fn value(&mut self) -> Option<Option<&'a [u8]>> {
        match self.int32()? {
            -1 => Some(None),
            bytes => self.take(usize::try_from(bytes).ok()?).map(Some),
        }
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_framed() {
        let mut wire = Vec::new();
        startup(&mut wire, &[("user", "me")]);
        assert_eq!(wire, b"\0\0\0\x11\0\x03\0\0user\0me\0\0");
        wire.clear();
        parse(&mut wire, 7, b"select $1", &[23]);
        assert_eq!(wire, b"P\0\0\0\x19iok7\0select $1\0\0\x01\0\0\0\x17");
        wire.clear();
        let values: [&[u8]; 2] = [b"", b"ab"];
        bind(&mut wire, 0, 2, &[1], |index, out| {
            out.extend_from_slice(values[index]);
            Ok((index == 1).then_some(1))
        })
        .unwrap();
        assert_eq!(wire, b"B\0\0\0\x1c\0\0\0\x02\0\0\0\x01\0\x02\xff\xff\xff\xff\0\0\0\x02ab\0\x01\0\x01");
    }

    #[test]
    fn input_is_taken_message_by_message() {
        let input = b"Z\0\0\0\x05I";
        (0..5).for_each(|end| assert_eq!(step(&input[..end], 100, false), Ok(Step::Need(5))));
        assert_eq!(step(&input[..5], 100, false), Ok(Step::Need(6)));
        assert_eq!(step(input, 100, false), Ok(Step::Message { bytes: 6, kind: b'Z', body: b"I" }));
        assert_eq!(step(b"D\0\0\x10\0", 100, false), Ok(Step::Large { bytes: 4097 }));
        assert_eq!(step(b"T\0\0\x10\0", 100, false).unwrap_err().kind, FaultKind::TooLarge);
        assert_eq!(step(b"Z\0\0\0\x03", 100, false).unwrap_err().kind, FaultKind::Protocol);
        assert_eq!(step(b"HTTP/1.1 400", 100, true).unwrap_err().kind, FaultKind::Protocol);
    }
}
