//! The chunked transfer coding (RFC 9112, 7.1), read as it comes.
use memchr::memchr;

use super::head::{Bounds, Pairs, Scan, trailer_fields};
use super::{Malformed, PIECE_BYTES_MAX};

/// The longest line with a chunk's size: its digits, its extensions, CRLF.
const LINE_BYTES_MAX: usize = 1024;
const DIGITS_MAX: usize = 16;
/// Extensions that a body may carry beyond the bytes of its data.
const EXTENSIONS_BYTES_MAX: u64 = 16 << 10;

/// A body that is under way.
#[derive(Debug)]
pub struct Chunked {
    state: State,
    bounds: Bounds,
    scan: Scan,
    data_bytes: u64,
    extensions_bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Size,
    Data {
        left: u64,
    },
    /// The CRLF after a chunk's data.
    DataEnd,
    Trailers,
    Over,
}

/// What one step found.
#[derive(Debug)]
pub enum Part<'a> {
    /// So many bytes must be there, from the start of the same input.
    Need(usize),
    /// So many bytes were framing.
    Framing(usize),
    /// `used` bytes are done with, the last of them data.
    Data { used: usize, data: &'a [u8] },
    /// The body is over. Fields that no trailer may carry are left out: see [`is_trailer`].
    End { used: usize, trailers: Pairs<'a> },
}

impl Chunked {
    /// `bounds` are those of the trailer section.
    pub fn new(bounds: Bounds) -> Self {
        Chunked { state: State::Size, bounds, scan: Scan::default(), data_bytes: 0, extensions_bytes: 0 }
    }

    /// At most one piece of data. Must not be called after `End`.
    pub fn step<'a>(&mut self, input: &'a [u8]) -> Result<Part<'a>, Malformed> {
        let mut used = 0;
        loop {
            let rest = &input[used..];
            let waits = |need: usize| if used > 0 { Part::Framing(used) } else { Part::Need(need) };
            match self.state {
                State::Size => match self.size(rest)? {
                    Some(bytes) => used += bytes,
                    None => return Ok(waits(rest.len() + 1)),
                },
                State::Data { .. } if rest.is_empty() => return Ok(waits(1)),
                State::Data { left } => {
                    let length = rest.len().min(PIECE_BYTES_MAX).min(usize::try_from(left).unwrap_or(usize::MAX));
                    let left = left - length as u64;
                    self.state = if left == 0 { State::DataEnd } else { State::Data { left } };
                    self.data_bytes += length as u64;
                    return Ok(Part::Data { used: used + length, data: &rest[..length] });
                }
                State::DataEnd => match rest {
                    [b'\r', b'\n', ..] => {
                        used += 2;
                        self.state = State::Size;
                    }
                    [] => return Ok(waits(2)),
                    [b'\r'] => return Ok(waits(2)),
                    _ => return Err(Malformed::bad("no CRLF after a chunk's data")),
                },
                State::Trailers => {
                    let found = self.scan.find(rest, self.bounds).map_err(|bad| match bad.is_too_large() {
                        true => Malformed { status: 431, what: "more trailers than allowed" },
                        false => bad,
                    });
                    let Some(bytes) = found? else { return Ok(waits(rest.len() + 1)) };
                    self.state = State::Over;
                    let mut trailers = trailer_fields(&rest[..bytes])?;
                    trailers.retain(|(name, _)| is_trailer(name));
                    return Ok(Part::End { used: used + bytes, trailers });
                }
                State::Over => return Err(Malformed::bad("bytes after the end of a body")),
            }
        }
    }

    /// The last `bytes` of the data that was just told are not done with: they come again.
    pub fn unread(&mut self, bytes: usize) {
        let left = if let State::Data { left } = self.state { left } else { 0 };
        if bytes > 0 {
            self.state = State::Data { left: left + bytes as u64 };
            self.data_bytes -= bytes as u64;
        }
    }

    /// Reads a line `size;extensions`; its length, or None if its end is not there.
    fn size(&mut self, input: &[u8]) -> Result<Option<usize>, Malformed> {
        let within = &input[..input.len().min(LINE_BYTES_MAX)];
        let Some(end) = memchr(b'\n', within) else {
            return match within.len() == LINE_BYTES_MAX {
                true => Err(Malformed::bad("a chunk's size line is too long")),
                false => Ok(None),
            };
        };
        let Some(line) = within[..end].strip_suffix(b"\r") else {
            return Err(Malformed::bad("a chunk's size line ends in a bare LF"));
        };
        let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        if digits == 0 || digits > DIGITS_MAX {
            return Err(Malformed::bad("a chunk's size is no number"));
        }
        // Nothing else is among the digits, and 16 of them fit.
        let text = std::str::from_utf8(&line[..digits]).unwrap_or("");
        let size = u64::from_str_radix(text, 16).map_err(|_| Malformed::bad("a chunk's size is no number"))?;
        check_extensions(&line[digits..])?;
        self.extensions_bytes += (line.len() - digits) as u64;
        if self.extensions_bytes > EXTENSIONS_BYTES_MAX + self.data_bytes {
            return Err(Malformed::bad("more chunk extensions than data"));
        }
        self.state = if size == 0 { State::Trailers } else { State::Data { left: size } };
        Ok(Some(end + 1))
    }
}

/// Whether a trailer may carry this field: not what frames, routes, authenticates or modifies a message, or says how
/// its content is read (RFC 9110, 6.5.1).
pub fn is_trailer(name: &[u8]) -> bool {
    !FORBIDDEN.iter().any(|it| it.as_bytes().eq_ignore_ascii_case(name))
}

const FORBIDDEN: &[&str] = &[
    "age",
    "authorization",
    "cache-control",
    "connection",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "cookie",
    "date",
    "expect",
    "expires",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "keep-alive",
    "location",
    "max-forwards",
    "pragma",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "range",
    "retry-after",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "vary",
    "www-authenticate",
];

/// `*( BWS ";" BWS name [ BWS "=" BWS ( token / quoted-string ) ] )` (RFC 9112, 7.1.1). They are read and forgotten.
fn check_extensions(mut rest: &[u8]) -> Result<(), Malformed> {
    const BAD: Malformed = Malformed::bad("a malformed chunk extension");
    while !rest.is_empty() {
        rest = rest.trim_ascii_start().strip_prefix(b";").ok_or(BAD)?.trim_ascii_start();
        rest = token(rest).ok_or(BAD)?;
        let Some(value) = rest.trim_ascii_start().strip_prefix(b"=") else { continue };
        let value = value.trim_ascii_start();
        rest = match value.strip_prefix(b"\"") {
            Some(quoted) => after_quoted(quoted).ok_or(BAD)?,
            None => token(value).ok_or(BAD)?,
        };
    }
    Ok(())
}

/// What follows a token.
fn token(text: &[u8]) -> Option<&[u8]> {
    let end = text.iter().position(|byte| !super::is_token_byte(*byte)).unwrap_or(text.len());
    (end > 0).then(|| &text[end..])
}

/// What follows the closing quote.
fn after_quoted(mut text: &[u8]) -> Option<&[u8]> {
    loop {
        text = match text {
            [b'"', rest @ ..] => return Some(rest),
            [b'\\', byte, rest @ ..] if super::is_value(&[*byte]) => rest,
            [b'\\', ..] => return None,
            [byte, rest @ ..] if super::is_value(&[*byte]) => rest,
            _ => return None,
        }
    }
}
