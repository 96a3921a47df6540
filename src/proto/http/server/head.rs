//! The head of a request (RFC 9112, 3 and 5), strictly: what two servers could read in two ways is refused.
//!
//! Nothing is copied: methods, targets and headers are ranges of the input.

use memchr::memchr;

/// A part of the head, by its place in the input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Part {
    pub start: u32,
    pub end: u32,
}

impl Part {
    fn new(start: usize, end: usize) -> Self {
        Part { start: start as u32, end: end as u32 }
    }

    pub fn of(self, input: &[u8]) -> &[u8] {
        input.get(self.start as usize..self.end as usize).unwrap_or_default()
    }
}

/// One header. Its value has no white space at its ends.
#[derive(Clone, Copy, Debug, Default)]
pub struct Field {
    pub name: Part,
    pub value: Part,
}

/// How the body ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Length {
    /// There is none.
    #[default]
    None,
    Known(u64),
    Chunked,
}

/// A request that is refused: with this status, and for this reason. The conn is closed after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bad {
    pub status: u16,
    pub why: &'static str,
}

/// What a head says. Made once a conn and filled anew by each request.
#[derive(Debug, Default)]
pub struct Head {
    pub method: Part,
    pub target: Part,
    /// 10 or 11.
    pub version: u8,
    pub fields: Vec<Field>,
    pub length: Length,
    /// The Host header; for the absolute form, the authority of the target (RFC 9112, 3.2.2).
    pub host: Part,
    /// Where the path begins in the absolute form.
    pub path: Part,
    /// The client keeps the conn open.
    pub keeps: bool,
    pub is_head: bool,
    pub is_connect: bool,
    pub expects_continue: bool,
    /// What it would rather speak (RFC 9110, 7.8).
    pub upgrade: Part,
    pub referer: Part,
    pub user_agent: Part,
    /// Where the first line begins that was not read, and where to look on for its end.
    at: usize,
    scanned: usize,
    hosts: u32,
    lengths: u32,
    codings: u32,
    /// The last coding was `chunked`.
    chunked: bool,
    unknown_coding: bool,
    closes: bool,
    keep_alive: bool,
    upgrades: bool,
    content_length: u64,
}

/// Whether a byte may stand in a token (RFC 9110, 5.6.2).
pub fn is_token_byte(byte: u8) -> bool {
    TOKEN[usize::from(byte)]
}

static TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        table[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let others = b"!#$%&'*+-.^_`|~";
    let mut at = 0;
    while at < others.len() {
        table[others[at] as usize] = true;
        at += 1;
    }
    table
};

/// A token and nothing else.
pub fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|byte| is_token_byte(*byte))
}

/// A header's value (RFC 9110, 5.5): no control byte but the tab.
pub fn is_value(text: &[u8]) -> bool {
    text.iter().all(|byte| *byte >= b' ' && *byte != 0x7f || *byte == b'\t')
}

/// Spaces and tabs at both ends taken off.
pub fn trim(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = text {
        text = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

/// The members of a list between commas (RFC 9110, 5.6.1), without the empty ones.
pub fn members(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(trim).filter(|member| !member.is_empty())
}

impl Head {
    /// Begins the next head.
    pub fn clear(&mut self) {
        let mut fields = std::mem::take(&mut self.fields);
        fields.clear();
        *self = Head { fields, ..Head::default() };
    }

    /// Reads on in `input`, which begins with the head, and says how long the head is once it is whole. Lines that were
    /// read are not read again.
    pub fn read(&mut self, input: &[u8], bytes_max: usize, headers_max: usize) -> Result<Option<usize>, Bad> {
        if self.at == 0 && input.first().is_some_and(|byte| !is_token_byte(*byte)) {
            return Err(Bad { status: 400, why: "this is no HTTP request" });
        }
        loop {
            let end = memchr(b'\n', &input[self.scanned..]).map(|end| self.scanned + end);
            let Some(end) = end.filter(|end| *end < bytes_max) else {
                self.scanned = input.len();
                return match (end.is_some() || input.len() >= bytes_max, self.at) {
                    (false, _) => Ok(None),
                    (true, 0) => Err(Bad { status: 414, why: "the request line is too long" }),
                    (true, _) => Err(Bad { status: 431, why: "the headers are too long" }),
                };
            };
            let [line @ .., b'\r'] = &input[self.at..end] else {
                return Err(Bad { status: 400, why: "a line ends without CR" });
            };
            let start = std::mem::replace(&mut self.at, end + 1);
            self.scanned = end + 1;
            if start == 0 {
                self.read_line(line)?;
            } else if line.is_empty() {
                self.judge()?;
                return Ok(Some(end + 1));
            } else {
                self.read_field(line, start, headers_max)?;
            }
        }
    }

    fn read_line(&mut self, text: &[u8]) -> Result<(), Bad> {
        const MALFORMED: Bad = Bad { status: 400, why: "the request line is not METHOD SP target SP version" };
        let method_end = memchr(b' ', text).ok_or(MALFORMED)?;
        let target_end = memchr(b' ', &text[method_end + 1..]).ok_or(MALFORMED)? + method_end + 1;
        let (method, target) = (&text[..method_end], &text[method_end + 1..target_end]);
        if !is_token(method) {
            return Err(Bad { status: 400, why: "the method is no token" });
        }
        if method.len() > METHOD_BYTES_MAX {
            return Err(Bad { status: 501, why: "the method is longer than any that is known" });
        }
        if target.is_empty() || !target.iter().all(|byte| is_target_byte(*byte)) {
            return Err(Bad { status: 400, why: "the request target has bytes that no target has" });
        }
        self.version = version(&text[target_end + 1..])?;
        self.is_head = method == b"HEAD";
        self.method = Part::new(0, method_end);
        self.target = Part::new(method_end + 1, target_end);
        self.path = self.target;
        self.read_target(method, target)
    }

    /// The four forms (RFC 9112, 3.2).
    fn read_target(&mut self, method: &[u8], target: &[u8]) -> Result<(), Bad> {
        let bad = |why| Err(Bad { status: 400, why });
        if method == b"CONNECT" {
            self.is_connect = true;
            let port = target.iter().rposition(|byte| *byte == b':');
            let is_authority = port.is_some_and(|at| at > 0 && at + 1 < target.len()) && is_host(target);
            self.host = self.target;
            return if is_authority { Ok(()) } else { bad("the target of CONNECT is host:port") };
        }
        if target[0] == b'/' {
            return Ok(());
        }
        if target == b"*" {
            return if method == b"OPTIONS" { Ok(()) } else { bad("the target * is for OPTIONS") };
        }
        let Some(scheme) = target.windows(3).position(|three| three == b"://") else {
            return bad("the target is neither a path nor a URL");
        };
        if !(target[..scheme].eq_ignore_ascii_case(b"http") || target[..scheme].eq_ignore_ascii_case(b"https")) {
            return bad("the target is a URL of another scheme");
        }
        let start = scheme + 3;
        let rest = &target[start..];
        let end = start + rest.iter().position(|byte| b"/?".contains(byte)).unwrap_or(rest.len());
        if end == start || !is_host(&target[start..end]) {
            return bad("the target is a URL without a valid host");
        }
        let offset = self.target.start as usize;
        self.host = Part::new(offset + start, offset + end);
        self.path = Part::new(offset + end, self.target.end as usize);
        Ok(())
    }

    /// Reads a header, which stands at `at` in the input.
    fn read_field(&mut self, line: &[u8], at: usize, headers_max: usize) -> Result<(), Bad> {
        let bad = |why| Err(Bad { status: 400, why });
        if matches!(line[0], b' ' | b'\t') {
            return bad("a header is folded into two lines, or white space comes before the first");
        }
        let colon = line.iter().position(|byte| !is_token_byte(*byte)).unwrap_or(line.len());
        let (name, rest) = line.split_at(colon);
        let [b':', raw @ ..] = rest else {
            return bad("the name of a header is no token with a colon behind it");
        };
        if name.is_empty() {
            return bad("a header has no name");
        }
        if !is_value(raw) {
            return bad("a header's value has control bytes");
        }
        if self.fields.len() >= headers_max {
            return Err(Bad { status: 431, why: "there are too many headers" });
        }
        let leading = raw.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        let value = trim(&raw[leading..]);
        let start = at + colon + 1 + leading;
        let field = Field { name: Part::new(at, at + colon), value: Part::new(start, start + value.len()) };
        self.fields.push(field);
        self.note(name, value, field.value)
    }

    /// What the header says of the conn or of the message.
    #[inline]
    fn note(&mut self, name: &[u8], value: &[u8], place: Part) -> Result<(), Bad> {
        let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
        match name.len() {
            4 if is(b"host") => {
                self.hosts += 1;
                if !value.is_empty() && !is_host(value) {
                    return Err(Bad { status: 400, why: "the Host header is no host" });
                }
                // The target's authority goes before it (RFC 9112, 3.2.2).
                if self.host == Part::default() {
                    self.host = place;
                }
            }
            6 if is(b"expect") => self.note_expectation(value)?,
            7 if is(b"referer") => self.referer = place,
            7 if is(b"upgrade") => self.upgrade = place,
            10 if is(b"connection") => {
                for option in members(value) {
                    self.closes |= option.eq_ignore_ascii_case(b"close");
                    self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                    self.upgrades |= option.eq_ignore_ascii_case(b"upgrade");
                }
            }
            10 if is(b"user-agent") => self.user_agent = place,
            14 if is(b"content-length") => self.note_length(value)?,
            17 if is(b"transfer-encoding") => self.note_codings(value)?,
            _ => {}
        }
        Ok(())
    }

    /// RFC 9110, 10.1.1; clients of HTTP/1.0 know no expectations.
    fn note_expectation(&mut self, value: &[u8]) -> Result<(), Bad> {
        if self.version == 11 && !value.eq_ignore_ascii_case(b"100-continue") {
            return Err(Bad { status: 417, why: "the expectation is unknown" });
        }
        self.expects_continue = self.version == 11;
        Ok(())
    }

    /// RFC 9112, 6.2: one header with digits. Two that agree are refused, too (6.3 leaves it to the server).
    fn note_length(&mut self, value: &[u8]) -> Result<(), Bad> {
        self.lengths += 1;
        if self.lengths > 1 || value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
            return Err(Bad { status: 400, why: "Content-Length is not one number" });
        }
        let number = value.iter().try_fold(0u64, |number, digit| {
            number.checked_mul(10).and_then(|number| number.checked_add(u64::from(digit - b'0')))
        });
        self.content_length = number.ok_or(Bad { status: 413, why: "Content-Length is beyond all measure" })?;
        Ok(())
    }

    /// RFC 9112, 6.1.
    fn note_codings(&mut self, value: &[u8]) -> Result<(), Bad> {
        let mut any = false;
        for coding in members(value) {
            any = true;
            if self.chunked {
                return Err(Bad { status: 400, why: "Transfer-Encoding names codings after chunked" });
            }
            self.codings += 1;
            self.chunked = coding.eq_ignore_ascii_case(b"chunked");
            self.unknown_coding |= !self.chunked;
        }
        if any { Ok(()) } else { Err(Bad { status: 400, why: "Transfer-Encoding is empty" }) }
    }

    /// What the headers mean together.
    fn judge(&mut self) -> Result<(), Bad> {
        let bad = |status, why| Err(Bad { status, why });
        // RFC 9112, 3.2.
        if self.hosts > 1 || self.hosts == 0 && self.version == 11 {
            return bad(400, "there is not exactly one Host header");
        }
        self.keeps = match self.version {
            // RFC 9112, 9.3.
            11 => !self.closes,
            _ => self.keep_alive && !self.closes,
        };
        // RFC 9110, 7.8: only with the connection option, and never from HTTP/1.0.
        if !self.upgrades || self.version < 11 {
            self.upgrade = Part::default();
        }
        if self.is_connect && (self.codings > 0 || self.content_length > 0) {
            return bad(400, "CONNECT has no body");
        }
        if self.codings > 0 {
            // RFC 9112, 6.1 and 6.3: what smuggles requests.
            if self.lengths > 0 {
                return bad(400, "there are both Transfer-Encoding and Content-Length");
            }
            if self.version < 11 {
                return bad(400, "HTTP/1.0 has no Transfer-Encoding");
            }
            if !self.chunked {
                return bad(400, "the last transfer coding is not chunked");
            }
            if self.unknown_coding {
                return bad(501, "a transfer coding is unknown");
            }
            self.length = Length::Chunked;
        } else if self.content_length > 0 {
            self.length = Length::Known(self.content_length);
        }
        Ok(())
    }
}

/// The longest method of the IANA registry has 17 letters.
const METHOD_BYTES_MAX: usize = 32;

fn version(text: &[u8]) -> Result<u8, Bad> {
    match text {
        b"HTTP/1.1" => Ok(11),
        b"HTTP/1.0" => Ok(10),
        // A higher minor version is read as the highest that is known (RFC 9110, 2.5).
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'2'..=b'9'] => Ok(11),
        [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => {
            Err(Bad { status: 505, why: "the version of HTTP is not 1.1 or 1.0" })
        }
        _ => Err(Bad { status: 400, why: "the request line does not end with HTTP/1.1" }),
    }
}

/// Visible ASCII without what RFC 3986 has for marks around URLs and for fragments. Some marks that it excludes are taken
/// because browsers send them in queries.
fn is_target_byte(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~') && !matches!(byte, b'#' | b'"' | b'<' | b'>')
}

/// `uri-host [":" port]` (RFC 9110, 7.2; RFC 3986, 3.2.2).
fn is_host(text: &[u8]) -> bool {
    let (host, port) = match text {
        [b'[', ..] => match memchr(b']', text) {
            Some(end) => {
                let inside = text[1..end].iter().all(|byte| byte.is_ascii_alphanumeric() || b":.-_~".contains(byte));
                if !inside || end < 3 {
                    return false;
                }
                (b"".as_slice(), &text[end + 1..])
            }
            None => return false,
        },
        _ => text.split_at(memchr(b':', text).unwrap_or(text.len())),
    };
    let is_name_byte = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=".contains(byte);
    let is_port = match port {
        [] => true,
        [b':', digits @ ..] => {
            digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit) && number(digits) <= u32::from(u16::MAX)
        }
        _ => false,
    };
    is_port && host.iter().all(is_name_byte)
}

fn number(digits: &[u8]) -> u32 {
    digits.iter().fold(0, |number, digit| number * 10 + u32::from(digit - b'0'))
}
