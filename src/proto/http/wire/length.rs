//! Where a message ends (RFC 9112, 6.3), and whether the conn lives on (9.3).
use super::head::Headers;
use super::{Malformed, members};

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

/// What the fields of a head say of the message's end and of the conn.
#[derive(Clone, Copy, Debug, Default)]
pub struct Framing<'a> {
    /// The first Content-Length.
    length: Option<&'a [u8]>,
    lengths: u32,
    lengths_differ: bool,
    /// Transfer-Encoding fields.
    codings: u32,
    /// There is one, and it is `chunked`, letter by letter.
    is_chunked: bool,
    /// Of all their members: how many are `chunked`, how many are not, and whether the last is.
    chunked: u32,
    others: u32,
    ends_chunked: bool,
    pub connection: Connection,
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

impl<'a> Framing<'a> {
    pub fn of(headers: Headers<'a>) -> Self {
        let mut framing = Framing::default();
        headers.iter().for_each(|(name, value)| framing.note(name, value));
        framing
    }

    /// One field.
    #[inline]
    pub fn note(&mut self, name: &[u8], value: &'a [u8]) {
        match name.len() {
            10 if name.eq_ignore_ascii_case(b"connection") => {
                for option in members(value) {
                    self.connection.close |= option.eq_ignore_ascii_case(b"close");
                    self.connection.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                    self.connection.upgrade |= option.eq_ignore_ascii_case(b"upgrade");
                }
            }
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                self.lengths += 1;
                self.lengths_differ |= *self.length.get_or_insert(value) != value;
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                self.codings += 1;
                self.is_chunked = self.codings == 1 && value.eq_ignore_ascii_case(b"chunked");
                for coding in members(value) {
                    self.ends_chunked = coding.eq_ignore_ascii_case(b"chunked");
                    *if self.ends_chunked { &mut self.chunked } else { &mut self.others } += 1;
                }
            }
            _ => {}
        }
    }

    /// The length of a request's body. What is not understood is an error: a request that another reader would cut
    /// elsewhere is how requests are smuggled (RFC 9112, 11.2).
    pub fn request_length(&self, version: u8) -> Result<Length, Malformed> {
        match self.given(version)? {
            Length::UntilClose => Ok(Length::None),
            // Two fields that agree may pass in a response (6.3), where there is nothing to be smuggled.
            _ if self.lengths > 1 => Err(Malformed::bad("more than one Content-Length")),
            length => Ok(length),
        }
    }

    /// The length of the body of a response to a request with that method. Nothing follows a 2xx to CONNECT or a 101: the
    /// conn is another protocol's from there.
    pub fn response_length(&self, version: u8, status: u16, method: &[u8]) -> Result<Length, Malformed> {
        let bodiless = method == b"HEAD" || matches!(status, 100..=199 | 204 | 304);
        if bodiless || (method == b"CONNECT" && matches!(status, 200..=299)) {
            return Ok(Length::None);
        }
        self.given(version)
    }

    /// By the header fields; `UntilClose` if they say nothing.
    fn given(&self, version: u8) -> Result<Length, Malformed> {
        match (self.codings, self.length) {
            (0, None) => Ok(Length::UntilClose),
            (0, Some(_)) if self.lengths_differ => Err(Malformed::bad("more than one Content-Length")),
            (0, Some(length)) => number(length).map(Length::Exact),
            (_, Some(_)) => Err(Malformed::bad("both Transfer-Encoding and Content-Length")),
            (_, None) if version < 11 => Err(Malformed::bad("Transfer-Encoding in HTTP/1.0")),
            (_, None) if self.is_chunked => Ok(Length::Chunked),
            // 501 to a coding that is not known; 400 to what does not end in one `chunked`, whose length nobody knows (6.1).
            (_, None) if self.ends_chunked && self.chunked == 1 && self.others > 0 => {
                Err(Malformed { status: 501, what: "a transfer coding besides chunked" })
            }
            (_, None) => Err(Malformed::bad("a Transfer-Encoding that is not one chunked at the end")),
        }
    }
}

/// Digits and nothing else (RFC 9112, 6.2).
pub fn number(text: &[u8]) -> Result<u64, Malformed> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return Err(Malformed::bad("a Content-Length that is no number"));
    }
    text.iter()
        .try_fold(0u64, |sum, digit| sum.checked_mul(10)?.checked_add(u64::from(digit - b'0')))
        .ok_or(Malformed { status: 413, what: "a Content-Length beyond all measure" })
}
