//! Requests as clients send them: RESP arrays of bulk strings, and inline commands typed by hand.
use memchr::memchr;

use super::number;
use super::wire::too_large;
use crate::proto::{Fault, FaultKind};
use crate::value::write;

/// Longest inline command, and longest arguments and most of them before a client has authenticated; as in Redis.
pub const INLINE_BYTES_MAX: usize = 64 << 10;
const STRANGER_ARGUMENTS_MAX: i64 = 10;
const STRANGER_BYTES_MAX: usize = 16 << 10;
pub const ARGUMENTS_MAX: i64 = 1 << 20;
const SCRATCH_BYTES_KEPT: usize = 1 << 20;

#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// So many bytes, from the start of the same input, before anything can be done.
    Need(usize),
    /// So many bytes were taken over, and no request is whole.
    Part(usize),
    /// So many bytes were taken over, and `Inbound::request` is whole.
    Request(usize),
}

/// The requests of one conn, one at a time, as MessagePack arrays of bin.
#[derive(Debug)]
pub struct Inbound {
    message_bytes_max: usize,
    /// Arguments of the unfinished request still to come.
    left: i64,
    /// Bytes of the unfinished request that earlier calls consumed.
    frame_bytes: usize,
    /// Bytes of the unfinished inline command that hold no line end.
    scanned: usize,
    scratch: Vec<u8>,
}

impl Inbound {
    pub fn new(message_bytes_max: usize) -> Self {
        Inbound { message_bytes_max, left: 0, frame_bytes: 0, scanned: 0, scratch: Vec::new() }
    }

    /// The request that the last step completed.
    pub fn request(&self) -> &[u8] {
        &self.scratch
    }

    /// Takes over at most one request. `stranger`: the client has not authenticated yet.
    pub fn step(&mut self, input: &[u8], stranger: bool) -> Result<Step, Fault> {
        let mut at = 0;
        if self.left == 0 {
            match input.first() {
                None => return Ok(Step::Need(1)),
                Some(b'*') => {}
                Some(_) => return self.inline(input),
            }
            at = match self.open(input, stranger)? {
                Step::Part(used) if self.left > 0 => used,
                other => return Ok(other),
            };
        }
        while self.left > 0 {
            match self.argument(&input[at..], at, stranger)? {
                Step::Need(bytes) if at == 0 => return Ok(Step::Need(bytes)),
                Step::Need(_) => {
                    self.frame_bytes += at;
                    return Ok(Step::Part(at));
                }
                Step::Part(used) | Step::Request(used) => at += used,
            }
        }
        self.frame_bytes = 0;
        Ok(Step::Request(at))
    }

    fn open(&mut self, input: &[u8], stranger: bool) -> Result<Step, Fault> {
        let (used, count) = match number::header(input).map_err(|_| broken("invalid multibulk length"))? {
            number::Header::Need => return Ok(Step::Need(input.len() + 1)),
            number::Header::Number(used, count) => (used, count),
            number::Header::Streamed(_) => return Err(broken("invalid multibulk length")),
        };
        match count {
            ..=ARGUMENTS_MAX if !stranger => {}
            ..=STRANGER_ARGUMENTS_MAX => {}
            _ if stranger => return Err(broken("unauthenticated multibulk length")),
            _ => return Err(broken("invalid multibulk length")),
        }
        if count > 0 {
            self.begin(count);
        }
        Ok(Step::Part(used))
    }

    fn begin(&mut self, count: i64) {
        self.left = count;
        self.frame_bytes = 0;
        self.scratch.clear();
        if self.scratch.capacity() > SCRATCH_BYTES_KEPT {
            self.scratch = Vec::new();
        }
        write::array(&mut self.scratch, count as u32);
    }

    #[inline]
    fn argument(&mut self, input: &[u8], at: usize, stranger: bool) -> Result<Step, Fault> {
        match input.first() {
            None => return Ok(Step::Need(1)),
            Some(b'$') => {}
            Some(other) => return Err(broken(&format!("expected '$', got '{}'", other.escape_ascii()))),
        }
        let (head, length) = match number::header(input).map_err(|_| broken("invalid bulk length"))? {
            number::Header::Need => return Ok(Step::Need(input.len() + 1)),
            number::Header::Number(head, length) if length >= 0 => (head, length as usize),
            _ => return Err(broken("invalid bulk length")),
        };
        if stranger && length > STRANGER_BYTES_MAX {
            return Err(broken("unauthenticated bulk length"));
        }
        let end = head.saturating_add(length).saturating_add(2);
        let max = self.message_bytes_max;
        if self.frame_bytes.saturating_add(at).saturating_add(end) > max {
            return Err(too_large(format!("a request of more than {max} bytes came: max_request")));
        }
        if input.len() < end {
            return Ok(Step::Need(end));
        }
        if input[end - 2..end] != *b"\r\n" {
            return Err(broken("an argument that does not end where its length says"));
        }
        write::bin(&mut self.scratch, &input[head..end - 2]);
        self.left -= 1;
        Ok(Step::Part(end))
    }

    fn inline(&mut self, input: &[u8]) -> Result<Step, Fault> {
        let found = memchr(b'\n', &input[self.scanned..]).map(|at| self.scanned + at);
        if found.unwrap_or(input.len()) > INLINE_BYTES_MAX {
            return Err(broken("too big inline request"));
        }
        let Some(end) = found else {
            self.scanned = input.len();
            return Ok(Step::Need(input.len() + 1));
        };
        self.scanned = 0;
        let line = &input[..end];
        let words = split(line.strip_suffix(b"\r").unwrap_or(line));
        let words = words.ok_or_else(|| broken("unbalanced quotes in request"))?;
        match words.first().map(Vec::as_slice) {
            None => return Ok(Step::Part(end + 1)),
            // What a browser sends when a page makes it talk to us.
            Some(b"POST" | b"Host:") => return Err(broken("this is HTTP")),
            Some(_) => {}
        }
        self.begin(words.len() as i64);
        words.iter().for_each(|word| write::bin(&mut self.scratch, word));
        self.left = 0;
        Ok(Step::Request(end + 1))
    }
}

/// Splits an inline command: words, `"quoted \x41\n"` and `'quoted'`. None: a quote stays open or runs into a word.
fn split(line: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut words = Vec::new();
    let mut rest = line.trim_ascii_start();
    while !rest.is_empty() {
        let mut word = Vec::new();
        while let Some((&first, after)) = rest.split_first().filter(|(first, _)| !is_space(**first)) {
            rest = match first {
                b'"' => double_quoted(after, &mut word)?,
                b'\'' => single_quoted(after, &mut word)?,
                plain => {
                    word.push(plain);
                    after
                }
            };
        }
        words.push(word);
        rest = &rest[rest.iter().take_while(|byte| is_space(**byte)).count()..];
    }
    Some(words)
}

fn is_space(byte: u8) -> bool {
    byte.is_ascii_whitespace() || matches!(byte, 0 | 0x0b)
}

/// What follows a closing quote must be a space or the end.
fn after_quote(rest: &[u8]) -> Option<&[u8]> {
    rest.first().is_none_or(|byte| is_space(*byte)).then_some(rest)
}

fn double_quoted<'a>(mut rest: &'a [u8], word: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        rest = match rest {
            [b'"', rest @ ..] => return after_quote(rest),
            [b'\\', b'x', high, low, rest @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                word.push(hex(*high) << 4 | hex(*low));
                rest
            }
            [b'\\', escaped, rest @ ..] => {
                word.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 8,
                    b'a' => 7,
                    other => *other,
                });
                rest
            }
            [plain, rest @ ..] => {
                word.push(*plain);
                rest
            }
            [] => return None,
        }
    }
}

fn single_quoted<'a>(mut rest: &'a [u8], word: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        rest = match rest {
            [b'\'', rest @ ..] => return after_quote(rest),
            [b'\\', b'\'', rest @ ..] => {
                word.push(b'\'');
                rest
            }
            [plain, rest @ ..] => {
                word.push(*plain);
                rest
            }
            [] => return None,
        }
    }
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

/// A fault in the words that Redis has for it; the client is told before the conn is closed.
#[cold]
fn broken(what: &str) -> Fault {
    Fault { kind: FaultKind::Protocol, message: format!("Protocol error: {what}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inline_commands_are_split_as_redis_does() {
        let words = |line: &str| {
            let words = split(line.as_bytes())?;
            Some(words.iter().map(|word| word.escape_ascii().to_string()).collect::<Vec<_>>().join("|"))
        };
        assert_eq!(words("set a 'b c'"), Some("set|a|b c".into()));
        assert_eq!(words("  set  a\t\"x\\x41\\n\\q\" '\\'' "), Some("set|a|xA\\nq|\\'".into()));
        assert_eq!(words("set \"\" x"), Some("set||x".into()));
        assert_eq!(words(" "), Some("".into()));
        for bad in ["get \"a", "get 'a", "get \"a\"b", "get 'a'b", "get \"a\\"] {
            assert_eq!(words(bad), None, "{bad}");
        }
    }
}
