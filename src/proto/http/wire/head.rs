//! Heads: where they end, and what they say.
//!
//! [`Scan`] finds the end and looks at every line's end on the way; `httparse` takes the lines apart.
use memchr::{memchr, memrchr};

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
}

impl Scan {
    /// The length of the head, its empty line included, and the scan is as fresh; or None if its end is not there. `input`
    /// starts with the head's first byte each time. Lines must end in CRLF (RFC 9112, 2.2).
    pub fn find(&mut self, input: &[u8], bounds: Bounds) -> Result<Option<usize>, Malformed> {
        let within = &input[..input.len().min(bounds.head_bytes_max)];
        if self.seen > within.len() {
            // Another input.
            *self = Scan::default();
        }
        while let Some(at) = memchr(b'\n', within.get(self.seen..).unwrap_or(b"")) {
            let end = self.seen + at;
            let line = &within[self.line..end];
            match memchr(b'\r', line) {
                Some(at) if at + 1 == line.len() => {}
                Some(_) => return Err(Malformed::bad("a CR that is not followed by LF")),
                None => return Err(Malformed::bad("a line that ends in a bare LF")),
            }
            (self.line, self.seen) = (end + 1, end + 1);
            if line.len() == 1 {
                *self = Scan::default();
                return Ok(Some(end + 1));
            }
            self.lines += 1;
            // The start line is one more.
            if self.lines > bounds.headers_max + 1 {
                return Err(Malformed { status: 431, what: "more header fields than allowed" });
            }
        }
        self.seen = within.len();
        if within.len() == bounds.head_bytes_max {
            return Err(Malformed { status: 431, what: "a head longer than allowed" });
        }
        Ok(None)
    }
}

/// Header or trailer fields, in the order of the wire.
#[derive(Debug, Default)]
pub struct Headers<'a>(Vec<httparse::Header<'a>>);

impl<'a> Headers<'a> {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Names and values. Values have no whitespace around them.
    pub fn iter(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + '_ {
        self.0.iter().map(|header| (header.name.as_bytes(), header.value))
    }

    /// The values of every field of that name, whatever its case.
    pub fn all<'n>(&'n self, name: &'n str) -> impl Iterator<Item = &'a [u8]> + 'n {
        self.0.iter().filter(|header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value)
    }

    /// The first of [`Headers::all`].
    pub fn get(&self, name: &str) -> Option<&'a [u8]> {
        self.all(name).next()
    }

    /// The fields of a section that [`Scan`] has measured; its empty line included.
    pub(super) fn parse(section: &'a [u8]) -> Result<Self, Malformed> {
        let mut headers = slots(section);
        let Ok(httparse::Status::Complete((_, parsed))) = httparse::parse_headers(section, &mut headers) else {
            return Err(Malformed::bad("a malformed trailer section"));
        };
        let count = parsed.len();
        Headers::checked(headers, count)
    }

    fn checked(mut headers: Vec<httparse::Header<'a>>, count: usize) -> Result<Self, Malformed> {
        headers.truncate(count);
        for header in &mut headers {
            header.value = header.value.trim_ascii();
            if header.name.is_empty() || !super::is_value(header.value) {
                return Err(Malformed::bad("a malformed header field"));
            }
        }
        Ok(Headers(headers))
    }
}

/// Room for as many fields as there are lines.
fn slots(head: &[u8]) -> Vec<httparse::Header<'_>> {
    vec![httparse::EMPTY_HEADER; memchr::memchr_iter(b'\n', head).count()]
}

/// A request's head.
#[derive(Debug)]
pub struct Request<'a> {
    pub method: &'a str,
    pub target: &'a str,
    /// 10 or 11.
    pub version: u8,
    pub headers: Headers<'a>,
}

/// A response's head.
#[derive(Debug)]
pub struct Response<'a> {
    pub status: u16,
    pub reason: &'a [u8],
    /// 10 or 11.
    pub version: u8,
    pub headers: Headers<'a>,
}

/// Reads a head that [`Scan`] has measured: no empty line before the request line, no folded lines (5.2), no space before
/// a colon (5.1), no control characters in values (RFC 9110, 5.5).
pub fn request(head: &[u8]) -> Result<Request<'_>, Malformed> {
    check_lines(head)?;
    let mut headers = slots(head);
    let mut parsed = httparse::Request::new(&mut headers);
    match parsed.parse(head) {
        Ok(httparse::Status::Complete(_)) => {}
        Err(httparse::Error::Version) if names_version(head) => {
            return Err(Malformed { status: 505, what: "neither HTTP/1.1 nor HTTP/1.0" });
        }
        Ok(httparse::Status::Partial) | Err(_) => return Err(Malformed::bad("a malformed request head")),
    }
    let (Some(method), Some(target), Some(version)) = (parsed.method, parsed.path, parsed.version) else {
        return Err(Malformed::bad("a malformed request line"));
    };
    let count = parsed.headers.len();
    if !super::is_target(target.as_bytes()) {
        return Err(Malformed::bad("a request target with characters that no URI has"));
    }
    Ok(Request { method, target, version: 10 + version, headers: Headers::checked(headers, count)? })
}

/// `method SP target SP HTTP/digit.digit`: a request line of another version.
fn names_version(head: &[u8]) -> bool {
    let line = &head[..memchr(b'\r', head).unwrap_or(head.len())];
    let mut words = line.split(|byte| *byte == b' ').skip(2);
    let named = words.next().and_then(|word| word.strip_prefix(b"HTTP/"));
    matches!(named, Some([b'0'..=b'9', b'.', b'0'..=b'9'])) && words.next().is_none()
}

/// Reads a head that [`Scan`] has measured, as strictly as [`request`].
pub fn response(head: &[u8]) -> Result<Response<'_>, Malformed> {
    check_lines(head)?;
    let mut headers = slots(head);
    let mut parsed = httparse::Response::new(&mut headers);
    match parsed.parse(head) {
        Ok(httparse::Status::Complete(_)) => {}
        Err(httparse::Error::Version) => return Err(Malformed { status: 505, what: "neither HTTP/1.1 nor HTTP/1.0" }),
        Ok(httparse::Status::Partial) | Err(_) => return Err(Malformed::bad("a malformed response head")),
    }
    let (Some(status), Some(version)) = (parsed.code, parsed.version) else {
        return Err(Malformed::bad("a malformed status line"));
    };
    let count = parsed.headers.len();
    if status < 100 {
        return Err(Malformed::bad("a status below 100"));
    }
    // httparse shows no reason that is not ASCII.
    let line = &head[..memchr(b'\r', head).unwrap_or(head.len())];
    let reason = line.get(13..).unwrap_or(b"");
    Ok(Response { status, reason, version: 10 + version, headers: Headers::checked(headers, count)? })
}

/// What `httparse` would skip or join.
fn check_lines(head: &[u8]) -> Result<(), Malformed> {
    if matches!(head.first(), None | Some(b'\r' | b'\n' | b' ' | b'\t')) {
        return Err(Malformed::bad("no start line"));
    }
    if memchr(0, head).is_some() {
        return Err(Malformed::bad("a NUL"));
    }
    let body = &head[..memrchr(b'\r', head).unwrap_or(head.len())];
    if memchr::memchr_iter(b'\n', body).any(|at| matches!(body.get(at + 1), Some(b' ' | b'\t'))) {
        return Err(Malformed::bad("a header field folded over lines"));
    }
    Ok(())
}
