//! RESP2 and RESP3 from the wire, as <https://redis.io/docs/latest/develop/reference/protocol-spec/> defines them.
//!
//! Values become MessagePack while they arrive: members of an aggregate are converted and consumed one by one, so a
//! large reply that comes in pieces is never scanned twice. A top-level string is not copied at all.
use memchr::memchr;

use super::number;
use crate::proto::{Fault, FaultKind};
use crate::ring::layout::{IOK_EXT_ATTRIBUTED, IOK_EXT_BIG_NUMBER, IOK_EXT_ERROR, IOK_EXT_SET, IOK_EXT_VERBATIM};
use crate::value::write::{self, Open};

/// Longest simple string, error or number; longer text is a bulk in every server there is.
pub const LINE_BYTES_MAX: usize = 64 << 10;
/// A scratch buffer that grew beyond this is given back after its frame.
const SCRATCH_BYTES_KEPT: usize = 1 << 20;

/// Bounds and choices of one conn's decoder.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub message_bytes_max: usize,
    pub depth_max: usize,
    /// Keep attributes as ext 5 instead of dropping them.
    pub attributes: bool,
}

/// How the frame that begins is wanted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Want {
    /// The frame's own bytes, in `Frame::raw`.
    pub raw: bool,
    /// No need to convert it, unless it is a push.
    pub unconverted: bool,
    /// An array is a push: RESP2 with subscriptions.
    pub arrays_push: bool,
}

#[derive(Debug, PartialEq)]
pub enum Step<'a> {
    /// So many bytes, from the start of the same input, before anything can be done.
    Need(usize),
    /// So many bytes of an unfinished aggregate were taken over.
    Part(usize),
    /// A whole frame, and the bytes of this input that it took.
    Frame(usize, Frame<'a>),
}

#[derive(Debug, PartialEq)]
pub struct Frame<'a> {
    pub shape: Shape<'a>,
    /// Empty unless wanted.
    pub raw: &'a [u8],
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Shape<'a> {
    Text(&'a [u8]),
    /// `CODE message`, as the server wrote it.
    Error(&'a [u8]),
    Bytes(&'a [u8]),
    /// One MessagePack value.
    Value(&'a [u8]),
    /// A MessagePack array whose first member is its kind as str.
    Push(&'a [u8]),
}

/// An aggregate whose members are still arriving.
#[derive(Debug)]
struct Level {
    kind: LevelKind,
    /// Values still to come; unused where the end is marked.
    left: u64,
}

#[derive(Debug)]
enum LevelKind {
    Plain,
    Set(Open),
    /// `*?`, `%?`, `~?`: ended by `.`.
    Streamed {
        count_at: Open,
        count: u64,
        set: Option<Open>,
        pairs: bool,
    },
    /// `$?`: chunks until an empty one.
    Chunks(Open),
    /// The pairs of an attribute: where it began in the scratch, and its ext if it is kept.
    Attributes {
        start: usize,
        kept: Option<Open>,
    },
    /// The value that kept attributes belong to.
    Attributed(Open),
}

/// What a frame turns out to be.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Top {
    Value,
    Bytes,
    Push,
}

/// What became of one element.
enum Element<'a> {
    Need(usize),
    /// Its bytes; the frame goes on.
    Took(usize),
    /// Its bytes; the frame is whole and lies in the scratch.
    Whole(usize),
    /// Its bytes; the frame is whole and lies in the input.
    Bare(usize, Shape<'a>),
}

#[derive(Debug)]
pub struct Decoder {
    settings: Settings,
    want: Want,
    top: Top,
    muted: bool,
    /// Bytes of the unfinished frame that were consumed by earlier calls; 0 between frames.
    frame_bytes: usize,
    /// Bytes of the unfinished line that hold no CR.
    scanned: usize,
    stack: Vec<Level>,
    scratch: Vec<u8>,
    raw: Vec<u8>,
}

impl Decoder {
    pub fn new(settings: Settings) -> Self {
        Decoder {
            settings,
            want: Want::default(),
            top: Top::Value,
            muted: false,
            frame_bytes: 0,
            scanned: 0,
            stack: Vec::new(),
            scratch: Vec::new(),
            raw: Vec::new(),
        }
    }

    /// Takes over at most one frame. `want` counts where a frame begins.
    pub fn step<'a>(&'a mut self, input: &'a [u8], want: Want) -> Result<Step<'a>, Fault> {
        if self.frame_bytes == 0 {
            self.begin(want);
        }
        let mut at = 0;
        loop {
            let (used, bare) = match self.element(&input[at..], at)? {
                Element::Need(bytes) if at == 0 => return Ok(Step::Need(bytes)),
                Element::Need(_) => return Ok(self.part(&input[..at])),
                Element::Took(used) => {
                    at += used;
                    self.check_size(at, 0)?;
                    self.scanned = 0;
                    continue;
                }
                Element::Whole(used) => (at + used, None),
                Element::Bare(used, shape) => (at + used, Some(shape)),
            };
            self.check_size(used, 0)?;
            self.scanned = 0;
            return Ok(Step::Frame(used, self.whole(&input[..used], bare)));
        }
    }

    fn begin(&mut self, want: Want) {
        self.want = want;
        self.muted = want.unconverted;
        self.top = Top::Value;
        for scratch in [&mut self.scratch, &mut self.raw] {
            scratch.clear();
            if scratch.capacity() > SCRATCH_BYTES_KEPT {
                *scratch = Vec::new();
            }
        }
    }

    fn part<'a>(&'a mut self, taken: &'a [u8]) -> Step<'a> {
        self.frame_bytes += taken.len();
        if self.want.raw {
            self.raw.extend_from_slice(taken);
        }
        Step::Part(taken.len())
    }

    fn whole<'a>(&'a mut self, taken: &'a [u8], bare: Option<Shape<'a>>) -> Frame<'a> {
        let raw = match (self.want.raw, self.frame_bytes) {
            (false, _) => &[][..],
            (true, 0) => taken,
            (true, _) => {
                self.raw.extend_from_slice(taken);
                &self.raw[..]
            }
        };
        self.frame_bytes = 0;
        let shape = bare.unwrap_or(match self.top {
            Top::Value => Shape::Value(&self.scratch),
            Top::Bytes => Shape::Bytes(self.scratch.get(5..).unwrap_or_default()),
            Top::Push => Shape::Push(&self.scratch),
        });
        Frame { shape, raw }
    }

    /// One scalar, one chunk, or the head or end of one aggregate. `at`: bytes of this input before it.
    #[inline]
    fn element<'a>(&mut self, input: &'a [u8], at: usize) -> Result<Element<'a>, Fault> {
        let Some(&kind) = input.first() else { return Ok(Element::Need(1)) };
        if self.muted {
            self.scratch.clear();
        }
        if kind != b';' && matches!(self.stack.last(), Some(Level { kind: LevelKind::Chunks(_), .. })) {
            return Err(broken("a value inside a streamed string"));
        }
        match kind {
            b'$' => self.bulk(input, at),
            b'+' | b'-' | b':' | b',' | b'(' | b'#' | b'_' => self.line(input, at),
            b'*' | b'%' | b'~' | b'>' | b'|' => self.aggregate(input, at),
            b'!' | b'=' | b';' => self.bulk(input, at),
            b'.' => self.end(input),
            _ => Err(foreign(input)),
        }
    }

    /// Whether a value that begins here is the frame itself.
    fn at_top(&self) -> bool {
        self.stack.is_empty()
    }

    fn bulk<'a>(&mut self, input: &'a [u8], at: usize) -> Result<Element<'a>, Fault> {
        let (head, length) = match number::header(input)? {
            number::Header::Need => return Ok(Element::Need(input.len() + 1)),
            number::Header::Streamed(head) if input[0] == b'$' => return self.open_chunks(head),
            number::Header::Streamed(_) => return Err(broken("? as the length of this type")),
            number::Header::Number(head, length) => (head, length),
        };
        if length == -1 && input[0] == b'$' {
            write::nil(&mut self.scratch);
            return Ok(self.filled(head));
        }
        let length = usize::try_from(length).map_err(|_| broken("a negative length"))?;
        if length == 0 && input[0] == b';' {
            return self.last_chunk(head);
        }
        let end = head.saturating_add(length).saturating_add(2);
        self.check_size(at, end)?;
        if input.len() < end {
            return Ok(Element::Need(end));
        }
        if input[end - 2..end] != *b"\r\n" {
            return Err(broken("a string that does not end where its length says"));
        }
        self.bulk_body(input[0], &input[head..end - 2], end)
    }

    fn bulk_body<'a>(&mut self, kind: u8, body: &'a [u8], used: usize) -> Result<Element<'a>, Fault> {
        match kind {
            b';' => return self.chunk(body, used),
            b'!' => return Ok(self.error(body, used)),
            b'=' => {
                if body.get(3) != Some(&b':') {
                    return Err(broken("a verbatim string without its three-byte format"));
                }
                write::ext(&mut self.scratch, IOK_EXT_VERBATIM, body);
            }
            _ if self.at_top() => return Ok(Element::Bare(used, Shape::Bytes(body))),
            _ if self.begins_push() => write::str(&mut self.scratch, body),
            _ if self.muted => {}
            _ => write::bin(&mut self.scratch, body),
        }
        Ok(self.filled(used))
    }

    /// The next value is the kind of a push.
    fn begins_push(&self) -> bool {
        self.top == Top::Push && self.stack.len() == 1 && self.scratch.len() <= 5 && self.is_only_a_head()
    }

    fn is_only_a_head(&self) -> bool {
        match self.scratch.first() {
            Some(0xdc) => self.scratch.len() == 3,
            Some(0xdd) => self.scratch.len() == 5,
            _ => self.scratch.len() == 1,
        }
    }

    fn chunk<'a>(&mut self, body: &[u8], used: usize) -> Result<Element<'a>, Fault> {
        self.open_string()?;
        self.scratch.extend_from_slice(body);
        Ok(Element::Took(used))
    }

    fn last_chunk<'a>(&mut self, used: usize) -> Result<Element<'a>, Fault> {
        let open = self.open_string()?;
        write::bin_close(&mut self.scratch, open);
        self.stack.pop();
        Ok(self.filled(used))
    }

    /// Where the length of the streamed string goes that is being sent.
    fn open_string(&self) -> Result<Open, Fault> {
        match self.stack.last() {
            Some(Level { kind: LevelKind::Chunks(open), .. }) => Ok(*open),
            _ => Err(broken("a chunk outside a streamed string")),
        }
    }

    fn line<'a>(&mut self, input: &'a [u8], at: usize) -> Result<Element<'a>, Fault> {
        let skipped = self.scanned.clamp(1, input.len());
        let end = memchr(b'\r', &input[skipped..]).map_or(input.len(), |found| skipped + found);
        if end > LINE_BYTES_MAX {
            return Err(too_large(format!("a line of more than {LINE_BYTES_MAX} bytes came; no server sends such")));
        }
        self.check_size(at, end + 2)?;
        match input.get(end + 1) {
            Some(b'\n') => self.scalar(input[0], &input[1..end], end + 2),
            Some(_) => Err(broken("a carriage return inside a line")),
            None => {
                self.scanned = end;
                Ok(Element::Need(end.max(input.len() - 1) + 2))
            }
        }
    }

    fn scalar<'a>(&mut self, kind: u8, text: &'a [u8], used: usize) -> Result<Element<'a>, Fault> {
        match kind {
            b'+' if self.at_top() => return Ok(Element::Bare(used, Shape::Text(text))),
            b'+' => write::str(&mut self.scratch, text),
            b'-' => return Ok(self.error(text, used)),
            b':' => {
                let number = number::integer(text).ok_or_else(|| broken("an integer that is none of 64 bits"))?;
                write::int(&mut self.scratch, number);
            }
            b',' => {
                let number = number::float(text).ok_or_else(|| broken("a double that is no number"))?;
                write::float(&mut self.scratch, number);
            }
            b'(' if number::is_decimal(text) => write::ext(&mut self.scratch, IOK_EXT_BIG_NUMBER, text),
            b'#' if text == b"t" || text == b"f" => write::bool(&mut self.scratch, text == b"t"),
            b'_' if text.is_empty() => write::nil(&mut self.scratch),
            _ => return Err(broken("a big number, boolean or null that is none")),
        }
        Ok(self.filled(used))
    }

    /// Errors at the top lose their attributes, so that they are seen as errors.
    fn error<'a>(&mut self, text: &'a [u8], used: usize) -> Element<'a> {
        if self.stack.iter().all(|level| matches!(level.kind, LevelKind::Attributed(_))) {
            self.stack.clear();
            return Element::Bare(used, Shape::Error(text));
        }
        let (code, message) = split_error(text);
        write::error_ext(&mut self.scratch, IOK_EXT_ERROR, code, message);
        self.filled(used)
    }

    fn aggregate<'a>(&mut self, input: &[u8], at: usize) -> Result<Element<'a>, Fault> {
        let kind = input[0];
        let (used, count) = match number::header(input)? {
            number::Header::Need => return Ok(Element::Need(input.len() + 1)),
            number::Header::Streamed(used) => return self.open_streamed(kind, used),
            number::Header::Number(used, count) => (used, count),
        };
        if count == -1 && kind == b'*' {
            write::nil(&mut self.scratch);
            return Ok(self.filled(used));
        }
        let values = match kind {
            b'%' | b'|' => count.checked_mul(2),
            _ => Some(count),
        };
        let values = values.and_then(|values| u64::try_from(values).ok());
        let (Some(values), Ok(count)) = (values, u32::try_from(count)) else {
            return Err(broken("an aggregate of impossible size"));
        };
        // The shortest member has three bytes, so the count itself tells whether the limit can hold.
        self.check_size(at, used.saturating_add((values as usize).saturating_mul(3)))?;
        self.open(kind, count, values, used)
    }

    fn open<'a>(&mut self, kind: u8, count: u32, values: u64, used: usize) -> Result<Element<'a>, Fault> {
        if kind == b'>' && !self.at_top() {
            return Err(broken("a push inside a value"));
        }
        if kind == b'>' || (kind == b'*' && self.want.arrays_push && self.at_top()) {
            self.top = Top::Push;
            self.muted = false;
            self.scratch.clear();
        }
        let level = match kind {
            b'~' => LevelKind::Set(write::ext_open(&mut self.scratch, IOK_EXT_SET)),
            b'|' => self.open_attributes(),
            _ => LevelKind::Plain,
        };
        match kind {
            b'%' | b'|' => write::map(&mut self.scratch, count),
            _ => write::array(&mut self.scratch, count),
        }
        self.push(Level { kind: level, left: values })?;
        if values > 0 {
            return Ok(Element::Took(used));
        }
        Ok(if self.close() { self.filled(used) } else { Element::Took(used) })
    }

    fn open_attributes(&mut self) -> LevelKind {
        let start = self.scratch.len();
        let kept = self.settings.attributes.then(|| {
            let open = write::ext_open(&mut self.scratch, IOK_EXT_ATTRIBUTED);
            write::array(&mut self.scratch, 2);
            open
        });
        LevelKind::Attributes { start, kept }
    }

    fn open_streamed<'a>(&mut self, kind: u8, used: usize) -> Result<Element<'a>, Fault> {
        let set = (kind == b'~').then(|| write::ext_open(&mut self.scratch, IOK_EXT_SET));
        let count_at = match kind {
            b'*' | b'~' => write::array_open(&mut self.scratch),
            b'%' => write::map_open(&mut self.scratch),
            _ => return Err(broken("? as the count of this type")),
        };
        self.push(Level { kind: LevelKind::Streamed { count_at, count: 0, set, pairs: kind == b'%' }, left: 0 })?;
        Ok(Element::Took(used))
    }

    fn open_chunks<'a>(&mut self, used: usize) -> Result<Element<'a>, Fault> {
        if self.at_top() {
            self.top = Top::Bytes;
        }
        let open = write::bin_open(&mut self.scratch);
        self.push(Level { kind: LevelKind::Chunks(open), left: 0 })?;
        Ok(Element::Took(used))
    }

    /// `.`: the end of a streamed aggregate.
    fn end<'a>(&mut self, input: &[u8]) -> Result<Element<'a>, Fault> {
        match input.get(1..3) {
            None if input.len() == 2 && input[1] != b'\r' => return Err(broken("an end mark with a value")),
            None => return Ok(Element::Need(3)),
            Some(b"\r\n") => {}
            Some(_) => return Err(broken("an end mark with a value")),
        }
        let Some(Level { kind: LevelKind::Streamed { count_at, count, set, pairs }, .. }) = self.stack.pop() else {
            return Err(broken("an end mark outside a streamed aggregate"));
        };
        if pairs && count % 2 == 1 {
            return Err(broken("a streamed map that ends after a key"));
        }
        let count = if pairs { count / 2 } else { count };
        write::count_close(&mut self.scratch, count_at, u32::try_from(count).unwrap_or(u32::MAX));
        if let Some(set) = set {
            write::ext_close(&mut self.scratch, set);
        }
        Ok(self.filled(3))
    }

    fn push(&mut self, level: Level) -> Result<(), Fault> {
        if self.stack.len() >= self.settings.depth_max {
            return Err(too_large(format!("a reply nests deeper than {} levels", self.settings.depth_max)));
        }
        self.stack.push(level);
        Ok(())
    }

    /// A value was written: closes every level that it fills.
    fn filled<'a>(&mut self, used: usize) -> Element<'a> {
        loop {
            let Some(level) = self.stack.last_mut() else { return Element::Whole(used) };
            match &mut level.kind {
                LevelKind::Streamed { count, .. } => {
                    *count += 1;
                    return Element::Took(used);
                }
                LevelKind::Chunks(_) => return Element::Took(used),
                _ => level.left -= 1,
            }
            if level.left > 0 || !self.close() {
                return Element::Took(used);
            }
        }
    }

    /// Closes the innermost level. True: it is a value of the level around it.
    fn close(&mut self) -> bool {
        let Some(level) = self.stack.pop() else { return true };
        match level.kind {
            LevelKind::Set(open) | LevelKind::Attributed(open) => write::ext_close(&mut self.scratch, open),
            LevelKind::Attributes { start, kept: None } => {
                self.scratch.truncate(start);
                return false;
            }
            LevelKind::Attributes { kept: Some(open), .. } => {
                self.stack.push(Level { kind: LevelKind::Attributed(open), left: 1 });
                return false;
            }
            _ => {}
        }
        true
    }

    fn check_size(&self, at: usize, bytes: usize) -> Result<(), Fault> {
        let total = self.frame_bytes.saturating_add(at).saturating_add(bytes);
        if total <= self.settings.message_bytes_max {
            return Ok(());
        }
        let max = self.settings.message_bytes_max;
        Err(too_large(format!("a reply of more than {max} bytes came: raise max_reply, or ask for less")))
    }
}

/// The code and the message of an error line.
pub fn split_error(text: &[u8]) -> (&[u8], &[u8]) {
    match memchr(b' ', text) {
        Some(at) => (&text[..at], &text[at + 1..]),
        None => (text, &[]),
    }
}

#[cold]
pub fn broken(what: &str) -> Fault {
    Fault { kind: FaultKind::Protocol, message: format!("the peer broke RESP: {what}") }
}

#[cold]
pub fn too_large(message: String) -> Fault {
    Fault { kind: FaultKind::TooLarge, message }
}

/// Whoever wrote this speaks something else.
#[cold]
fn foreign(input: &[u8]) -> Fault {
    let message = match input {
        [0x15, 0x03, ..] => {
            "the peer does not speak RESP: it answered a TLS alert; does it want rediss://?".to_string()
        }
        _ => {
            let line = input.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
            let shown = line[..line.len().min(64)].escape_ascii();
            format!("the peer does not speak RESP: it answered \"{shown}\"")
        }
    };
    Fault { kind: FaultKind::Protocol, message }
}
