//! Where a message ends (RFC 9112, 6.3), and whether the conn lives on (9.3).
use super::head::{Headers, Response};
use super::{Malformed, lists, members};

/// How long a message's body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    None,
    /// By Content-Length; may be 0.
    Exact(u64),
    Chunked,
    /// A response's alone.
    UntilClose,
}

/// The length of a request's body. What is not understood is an error: a request that another reader would cut elsewhere
/// is how requests are smuggled (RFC 9112, 11.2).
pub fn request_length(version: u8, headers: Headers<'_>) -> Result<Length, Malformed> {
    match given(version, headers)? {
        Length::UntilClose => Ok(Length::None),
        // Two fields that agree may pass in a response (6.3), where there is nothing to be smuggled.
        Length::Exact(_) if headers.all("content-length").nth(1).is_some() => {
            Err(Malformed::bad("more than one Content-Length"))
        }
        length => Ok(length),
    }
}

/// The length of a response's body to a request with that method. Nothing follows a 2xx to CONNECT or a 101: the conn is
/// another protocol's from there.
pub fn response_length(method: &[u8], head: &Response<'_>) -> Result<Length, Malformed> {
    let bodiless = method == b"HEAD" || matches!(head.status, 100..=199 | 204 | 304);
    if bodiless || (method == b"CONNECT" && matches!(head.status, 200..=299)) {
        return Ok(Length::None);
    }
    given(head.version, head.headers)
}

/// By the header fields; `UntilClose` if they say nothing.
fn given(version: u8, headers: Headers<'_>) -> Result<Length, Malformed> {
    let mut codings = headers.all("transfer-encoding");
    let mut lengths = headers.all("content-length");
    let (coding, length) = (codings.next(), lengths.next());
    match (coding, length) {
        (None, None) => Ok(Length::UntilClose),
        (Some(_), Some(_)) => Err(Malformed::bad("both Transfer-Encoding and Content-Length")),
        (Some(_), None) if version < 11 => Err(Malformed::bad("Transfer-Encoding in HTTP/1.0")),
        (Some(coding), None) if coding.eq_ignore_ascii_case(b"chunked") && codings.next().is_none() => {
            Ok(Length::Chunked)
        }
        (Some(_), None) => Err(not_chunked(headers)),
        (None, Some(length)) => {
            if lengths.any(|other| other != length) {
                return Err(Malformed::bad("more than one Content-Length"));
            }
            number(length).map(Length::Exact)
        }
    }
}

/// What to say of a transfer coding that is not one `chunked`: 501 to one that is not known, 400 to one that does not end
/// in `chunked`, whose length nobody knows (RFC 9112, 6.1 and 6.3).
fn not_chunked(headers: Headers<'_>) -> Malformed {
    let codings: Vec<&[u8]> = headers.all("transfer-encoding").flat_map(members).collect();
    let chunked = |coding: &&[u8]| coding.eq_ignore_ascii_case(b"chunked");
    let others = codings.iter().filter(|coding| !chunked(coding)).count();
    match codings.last().is_some_and(chunked) && others > 0 && others + 1 == codings.len() {
        true => Malformed { status: 501, what: "a transfer coding besides chunked" },
        false => Malformed::bad("a Transfer-Encoding that is not one chunked at the end"),
    }
}

/// Digits and nothing else (RFC 9112, 6.2).
fn number(text: &[u8]) -> Result<u64, Malformed> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return Err(Malformed::bad("a Content-Length that is no number"));
    }
    text.iter()
        .try_fold(0u64, |sum, digit| sum.checked_mul(10)?.checked_add(u64::from(digit - b'0')))
        .ok_or(Malformed { status: 413, what: "a Content-Length beyond all measure" })
}

/// What the Connection fields say (RFC 9110, 7.6.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Connection {
    pub close: bool,
    pub keep_alive: bool,
    pub upgrade: bool,
}

impl Connection {
    /// Whether the conn may carry another message after this one (RFC 9112, 9.3).
    pub fn persists(self, version: u8) -> bool {
        !self.close && (version >= 11 || self.keep_alive)
    }
}

pub fn connection(headers: Headers<'_>) -> Connection {
    let mut found = Connection::default();
    for value in headers.all("connection") {
        found.close |= lists(value, b"close");
        found.keep_alive |= lists(value, b"keep-alive");
        found.upgrade |= lists(value, b"upgrade");
    }
    found
}
