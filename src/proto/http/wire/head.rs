//! Heads: where they end, and what they say.
//!
//! [`Scan`] finds the end, and `httparse` takes the lines apart. That lets pass neither folded lines (RFC 9112, 5.2), nor
//! white space around names (5.1), nor control characters (RFC 9110, 5.5); what it lets pass are lines that end in a bare
//! LF, which [`Scan`] refuses, and empty lines before the first, which no caller gives it.
use memchr::memchr;

use super::Malformed;

/// What a head may cost.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub head_bytes_max: usize,
    pub headers_max: usize,
}

/// Looks for the empty line that ends a head or a trailer section, going on where it stopped when more bytes are there.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scan {
    /// The line that is not whole starts here.
    line: usize,
    /// It has no LF before this.
    seen: usize,
    /// Lines that were whole.
    lines: usize,
    /// Where the first line ends, once it does.
    first: usize,
}

impl Scan {
    /// The length of the head, its empty line included, or None if its end is not there. `input` starts with the head's
    /// first byte each time. Lines must end in CRLF (RFC 9112, 2.2).
    pub fn find(&mut self, input: &[u8], bounds: Bounds) -> Result<Option<usize>, Malformed> {
        let within = &input[..input.len().min(bounds.head_bytes_max)];
        while let Some(at) = memchr(b'\n', within.get(self.seen..).unwrap_or(b"")) {
            let end = self.seen + at;
            let Some(line) = within[self.line..end].strip_suffix(b"\r") else {
                return Err(Malformed::bad("a line that ends in a bare LF"));
            };
            (self.line, self.seen) = (end + 1, end + 1);
            if self.first == 0 {
                self.first = end + 1;
            }
            if line.is_empty() {
                return Ok(Some(end + 1));
            }
            self.lines += 1;
            // The start line is one more.
            if self.lines > bounds.headers_max + 1 {
                return Err(Malformed { status: 431, what: "more header fields than allowed" });
            }
        }
        self.seen = within.len();
        match (within.len() == bounds.head_bytes_max, self.first) {
            (false, _) => Ok(None),
            (true, 0) => Err(Malformed { status: 414, what: "a start line that is longer than allowed" }),
            (true, _) => Err(Malformed { status: 431, what: "a head that is longer than allowed" }),
        }
    }

    /// The first line with its end, once it is whole: so that it can be judged before the rest is there.
    pub fn first_line<'a>(&self, input: &'a [u8]) -> Option<&'a [u8]> {
        input.get(..self.first).filter(|line| !line.is_empty())
    }
}

/// Header fields, in the order of the wire.
#[derive(Clone, Copy, Debug, Default)]
pub struct Headers<'a>(&'a [httparse::Header<'a>]);

impl<'a> Headers<'a> {
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Names and values. Values have no white space around them.
    pub fn iter(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        self.0.iter().map(|header| (header.name.as_bytes(), header.value))
    }

    /// The values of every field of that name, whatever its case.
    pub fn all<'n>(&self, name: &'n str) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
        self.0.iter().filter(|header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value)
    }

    /// The first of [`Headers::all`].
    pub fn get(&self, name: &str) -> Option<&'a [u8]> {
        self.all(name).next()
    }
}

/// Fields that have room without an allocation: most heads have no more.
const FEW: usize = 32;

/// Where [`fields`] puts what it finds.
pub struct Room<'a> {
    few: [httparse::Header<'a>; FEW],
    many: Vec<httparse::Header<'a>>,
}

impl Room<'_> {
    pub fn new() -> Self {
        Room { few: [httparse::EMPTY_HEADER; FEW], many: Vec::new() }
    }
}

/// The fields of a head that [`Scan`] has measured: what follows the start line, the empty line included.
pub fn fields<'h, 'a: 'h>(section: &'a [u8], room: &'h mut Room<'a>) -> Result<Headers<'h>, Malformed> {
    parse(section, room).map(Headers)
}

/// Names and values that are kept together.
pub type Pairs<'a> = Vec<(&'a [u8], &'a [u8])>;

/// The fields of a trailer section that [`Scan`] has measured.
pub fn trailer_fields(section: &[u8]) -> Result<Pairs<'_>, Malformed> {
    let mut room = Room::new();
    Ok(parse(section, &mut room)?.iter().map(|field| (field.name.as_bytes(), field.value)).collect())
}

fn parse<'h, 'a>(section: &'a [u8], room: &'h mut Room<'a>) -> Result<&'h [httparse::Header<'a>], Malformed> {
    let outcome = match httparse::parse_headers(section, &mut room.few) {
        Err(httparse::Error::TooManyHeaders) => {
            let lines = memchr::memchr_iter(b'\n', section).count();
            room.many.resize(lines, httparse::EMPTY_HEADER);
            httparse::parse_headers(section, &mut room.many)
        }
        outcome => outcome,
    };
    match outcome {
        Ok(httparse::Status::Complete((_, fields))) => Ok(fields),
        Ok(httparse::Status::Partial) | Err(_) => Err(Malformed::bad("a malformed header field")),
    }
}

/// `method SP target SP version` (RFC 9112, 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestLine<'a> {
    pub method: &'a [u8],
    pub target: &'a [u8],
    /// 10 or 11.
    pub version: u8,
}

/// The longest method of the IANA registry has 17 letters.
const METHOD_BYTES_MAX: usize = 32;

/// Reads a request line, its CRLF included.
pub fn request_line(line: &[u8]) -> Result<RequestLine<'_>, Malformed> {
    const MALFORMED: Malformed = Malformed::bad("a malformed request line");
    let mut parsed = httparse::Request::new(&mut []);
    let outcome = parsed.parse(line);
    let (Some(method), Some(target)) = (parsed.method, parsed.path) else { return Err(MALFORMED) };
    let (method, target) = (method.as_bytes(), target.as_bytes());
    let version = match (outcome, parsed.version) {
        // What follows the line is missing.
        (Ok(httparse::Status::Partial), Some(minor)) => 10 + minor,
        (Err(httparse::Error::Version), _) => later_version(&line[method.len() + target.len() + 2..])?,
        _ => return Err(MALFORMED),
    };
    if method.len() > METHOD_BYTES_MAX {
        return Err(Malformed { status: 501, what: "a method that is longer than any that is known" });
    }
    if !super::is_target(target) {
        return Err(Malformed::bad("a request target with characters that no URI has"));
    }
    Ok(RequestLine { method, target, version })
}

/// A higher minor version is read as the highest that is known (RFC 9110, 2.5).
fn later_version(text: &[u8]) -> Result<u8, Malformed> {
    match text {
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'2'..=b'9', b'\r', b'\n'] => Ok(11),
        [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9', b'\r', b'\n'] => {
            Err(Malformed { status: 505, what: "a version that is neither 1.1 nor 1.0" })
        }
        _ => Err(Malformed::bad("a malformed request line")),
    }
}

/// A response's head.
#[derive(Clone, Copy, Debug)]
pub struct Response<'a> {
    pub status: u16,
    pub reason: &'a [u8],
    /// 10 or 11.
    pub version: u8,
    pub headers: Headers<'a>,
}

/// Reads a status line, its CRLF included (RFC 9112, 4): a response without its fields.
pub fn status_line(line: &[u8]) -> Result<Response<'_>, Malformed> {
    let mut parsed = httparse::Response::new(&mut []);
    let outcome = parsed.parse(line);
    match (outcome, parsed.code, parsed.version) {
        (Ok(httparse::Status::Partial), Some(status @ 100..), Some(version)) => {
            // `httparse` shows no reason that is not ASCII.
            let reason = line.strip_suffix(b"\r\n").and_then(|line| line.get(13..)).unwrap_or(b"");
            Ok(Response { status, reason, version: 10 + version, headers: Headers::default() })
        }
        (Err(httparse::Error::Version), ..) => {
            Err(Malformed { status: 505, what: "a version that is neither 1.1 nor 1.0" })
        }
        _ => Err(Malformed::bad("a malformed status line")),
    }
}
