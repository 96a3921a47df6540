//! Content codings (RFC 9110, 8.4.1; RFC 7932; RFC 8878), taken off as a body arrives.
//!
//! Output comes in pieces, and what one call gives is bounded, so that a small body cannot become a big one unseen.
use brotli::enc::StandardAlloc;
use brotli::{BrotliDecompressStream, BrotliResult, BrotliState};
use flate2::{Crc, Decompress, FlushDecompress, Status};
use zstd::stream::raw::{DParameter, InBuffer, Operation, OutBuffer};

use super::wire::{Headers, PIECE_BYTES_MAX};

/// What is asked for where a program wants bodies decoded.
pub const ACCEPTED: &[u8] = b"gzip, deflate, br, zstd";
/// Codings that lie on each other.
const CODINGS_MAX: usize = 3;
/// Output of one call; only codings on codings reach it.
const CALL_BYTES_MAX: usize = 64 << 20;
/// The largest window of zstd in HTTP: 8 MiB (RFC 9659).
const ZSTD_WINDOW_LOG_MAX: u32 = 23;
const BUFFER_BYTES: usize = 32 << 10;

/// Why a body cannot be decoded.
pub type Broken = &'static str;

/// Where decoded bytes go.
pub type Sink<'s> = dyn FnMut(&[u8]) -> Result<(), Broken> + 's;

/// A body's codings, the outermost first.
pub struct Decoder {
    stages: Vec<Coder>,
    has_begun: bool,
}

impl Decoder {
    /// By Content-Encoding. None: nothing to be done, or codings that we do not know.
    pub fn of(headers: Headers<'_>) -> Option<Self> {
        let mut stages = Vec::new();
        for value in headers.all("content-encoding") {
            for name in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                if !name.is_empty() && !name.eq_ignore_ascii_case(b"identity") {
                    stages.push(Coder::named(name)?);
                }
            }
        }
        stages.reverse();
        (1..=CODINGS_MAX).contains(&stages.len()).then_some(Decoder { stages, has_begun: false })
    }

    /// Decodes from the front of `input`; how many bytes of it are done with, at least 1. The rest must come again.
    pub fn decode(&mut self, input: &[u8], sink: &mut Sink<'_>) -> Result<usize, Broken> {
        self.has_begun |= !input.is_empty();
        let mut sent = 0;
        let mut counted = |piece: &[u8]| {
            sent += piece.len();
            if sent > CALL_BYTES_MAX {
                return Err("a body that grows without end when it is decoded");
            }
            sink(piece)
        };
        let Some((first, inner)) = self.stages.split_first_mut() else { return Ok(input.len()) };
        pump(first, inner, input, Some(PIECE_BYTES_MAX), &mut counted)
    }

    /// The body is over.
    pub fn finish(&self) -> Result<(), Broken> {
        match !self.has_begun || self.stages.iter().all(Coder::is_ended) {
            true => Ok(()),
            false => Err("a body that ends within its content coding"),
        }
    }
}

/// Feeds one stage and gives what it makes to the next ones. With `stop`, takes no more input once it made so much.
fn pump(
    coder: &mut Coder,
    inner: &mut [Coder],
    input: &[u8],
    stop: Option<usize>,
    sink: &mut Sink<'_>,
) -> Result<usize, Broken> {
    let mut buffer = vec![0; BUFFER_BYTES];
    let (mut used, mut end, mut made) = (0, input.len(), 0);
    loop {
        let (took, gave) = coder.step(&input[used..end], &mut buffer)?;
        used += took;
        made += gave;
        if gave > 0 {
            match inner.split_first_mut() {
                Some((next, inner)) => drop(pump(next, inner, &buffer[..gave], None, sink)?),
                None => sink(&buffer[..gave])?,
            }
        }
        if used > 0 && stop.is_some_and(|stop| made >= stop) {
            // What it has inside is bounded by its window.
            end = used;
        }
        if gave < buffer.len() && used == end {
            return Ok(used);
        }
        if took == 0 && gave == 0 {
            return Err("bytes that its content coding has no use for");
        }
    }
}

type Brotli = BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>;

enum Coder {
    Gzip(Box<Gzip>),
    /// zlib's format (RFC 1950), or bare deflate as some servers send it: the first bytes tell.
    Deflate {
        first: Option<u8>,
        inflate: Option<Box<Decompress>>,
        ended: bool,
    },
    Brotli {
        state: Box<Brotli>,
        ended: bool,
    },
    Zstd {
        decoder: zstd::stream::raw::Decoder<'static>,
        at_frame_end: bool,
    },
}

impl Coder {
    fn named(name: &[u8]) -> Option<Self> {
        Some(match name.to_ascii_lowercase().as_slice() {
            b"gzip" | b"x-gzip" => Coder::Gzip(Box::new(Gzip::new())),
            b"deflate" => Coder::Deflate { first: None, inflate: None, ended: false },
            b"br" => {
                let alloc = StandardAlloc::default;
                Coder::Brotli { state: Box::new(BrotliState::new_strict(alloc(), alloc(), alloc())), ended: false }
            }
            b"zstd" => {
                let mut decoder = zstd::stream::raw::Decoder::new().ok()?;
                decoder.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG_MAX)).ok()?;
                Coder::Zstd { decoder, at_frame_end: false }
            }
            _ => return None,
        })
    }

    fn is_ended(&self) -> bool {
        match self {
            Coder::Gzip(gzip) => matches!(gzip.at, At::Between),
            Coder::Deflate { ended, .. } | Coder::Brotli { ended, .. } => *ended,
            Coder::Zstd { at_frame_end, .. } => *at_frame_end,
        }
    }

    /// Bytes taken, and bytes written to `output`.
    fn step(&mut self, input: &[u8], output: &mut [u8]) -> Result<(usize, usize), Broken> {
        match self {
            Coder::Gzip(gzip) => gzip.step(input, output),
            Coder::Deflate { first, inflate, ended } => {
                let Some(inflate) = inflate else {
                    let Some(byte) = input.first() else { return Ok((0, 0)) };
                    let Some(first) = *first else {
                        *first = Some(*byte);
                        return Ok((1, 0));
                    };
                    let is_zlib = first & 15 == 8 && (u16::from(first) << 8 | u16::from(*byte)) % 31 == 0;
                    let mut begun = Box::new(Decompress::new(is_zlib));
                    run(&mut begun, &[first], output)?;
                    *inflate = Some(begun);
                    return self.step(input, output);
                };
                if *ended {
                    return Ok((0, 0));
                }
                let (took, gave, over) = run(inflate, input, output)?;
                *ended = over;
                Ok((took, gave))
            }
            Coder::Brotli { ended: true, .. } => Ok((0, 0)),
            Coder::Brotli { state, ended } => {
                let (mut left, mut took, mut room, mut gave, mut total) = (input.len(), 0, output.len(), 0, 0);
                let result = BrotliDecompressStream(
                    &mut left, &mut took, input, &mut room, &mut gave, output, &mut total, state,
                );
                match result {
                    BrotliResult::ResultFailure => return Err("a body that is not brotli"),
                    BrotliResult::ResultSuccess => *ended = true,
                    BrotliResult::NeedsMoreInput | BrotliResult::NeedsMoreOutput => {}
                }
                Ok((took, gave))
            }
            Coder::Zstd { decoder, at_frame_end } => {
                if input.is_empty() && *at_frame_end {
                    return Ok((0, 0));
                }
                let (mut from, mut to) = (InBuffer::around(input), OutBuffer::around(output));
                let hint = decoder.run(&mut from, &mut to).map_err(|_| "a body that is not zstd")?;
                *at_frame_end = hint == 0;
                Ok((from.pos(), to.pos()))
            }
        }
    }
}

/// Bytes taken, bytes made, and whether the stream is over.
fn run(inflate: &mut Decompress, input: &[u8], output: &mut [u8]) -> Result<(usize, usize, bool), Broken> {
    let before = (inflate.total_in(), inflate.total_out());
    let status =
        inflate.decompress(input, output, FlushDecompress::None).map_err(|_| "a body that is not deflate or gzip")?;
    let (took, gave) = (inflate.total_in() - before.0, inflate.total_out() - before.1);
    Ok((took as usize, gave as usize, status == Status::StreamEnd))
}

/// RFC 1952: members one after the other.
struct Gzip {
    at: At,
    inflate: Decompress,
    crc: Crc,
    /// Bytes of the part of a header or trailer that is under way.
    part: Vec<u8>,
    flags: u8,
}

#[derive(Clone, Copy)]
enum At {
    /// Before a member: the body may end here, unless there was none.
    Start,
    Between,
    Fixed,
    ExtraLength,
    Extra(u16),
    Name,
    Comment,
    HeaderCrc,
    Data,
    Trailer,
}

impl Gzip {
    fn new() -> Self {
        Gzip { at: At::Start, inflate: Decompress::new(false), crc: Crc::new(), part: Vec::new(), flags: 0 }
    }

    fn step(&mut self, input: &[u8], output: &mut [u8]) -> Result<(usize, usize), Broken> {
        let mut took = 0;
        loop {
            if let At::Data = self.at {
                let (more, gave, over) = run(&mut self.inflate, &input[took..], output)?;
                self.crc.update(&output[..gave]);
                if over {
                    self.at = At::Trailer;
                }
                return Ok((took + more, gave));
            }
            let Some(byte) = input.get(took) else { return Ok((took, 0)) };
            took += 1;
            self.framing(*byte)?;
        }
    }

    /// A byte of a header (2.3.1) or a trailer.
    fn framing(&mut self, byte: u8) -> Result<(), Broken> {
        const BAD: Broken = "a body that is not gzip";
        if let At::Start | At::Between = self.at {
            self.at = At::Fixed;
        }
        let keeps = !matches!(self.at, At::Name | At::Comment | At::Extra(_));
        if keeps {
            self.part.push(byte);
        }
        match (self.at, self.part.as_slice()) {
            (At::Fixed, [0x1f] | [0x1f, 0x8b] | [0x1f, 0x8b, 8]) => return Ok(()),
            (At::Fixed, [0x1f, 0x8b, 8, flags, rest @ ..]) if flags & 0xe0 == 0 => {
                if rest.len() < 6 {
                    return Ok(());
                }
                self.flags = *flags;
                self.begin(0);
            }
            (At::Fixed, _) => return Err(BAD),
            (At::ExtraLength, [low, high]) => match u16::from_le_bytes([*low, *high]) {
                0 => self.begin(1),
                length => self.at = At::Extra(length),
            },
            (At::Extra(1), _) => self.begin(1),
            (At::Extra(left), _) => self.at = At::Extra(left - 1),
            (At::Name, _) if byte == 0 => self.begin(2),
            (At::Comment, _) if byte == 0 => self.begin(3),
            (At::HeaderCrc, [_, _]) => self.begin(4),
            (At::Trailer, [a, b, c, d, e, f, g, h]) => {
                let sum = u32::from_le_bytes([*a, *b, *c, *d]);
                let size = u32::from_le_bytes([*e, *f, *g, *h]);
                if sum != self.crc.sum() || size != self.inflate.total_out() as u32 {
                    return Err("a gzip body whose checksum is wrong");
                }
                *self = Gzip { at: At::Between, ..Gzip::new() };
                return Ok(());
            }
            _ => return Ok(()),
        }
        self.part.clear();
        Ok(())
    }

    /// Goes to the first part of the header that is there, of those from `part` on.
    fn begin(&mut self, part: u8) {
        const PARTS: [(u8, At); 4] = [(4, At::ExtraLength), (8, At::Name), (16, At::Comment), (2, At::HeaderCrc)];
        let next = PARTS.iter().skip(usize::from(part)).find(|(flag, _)| self.flags & flag != 0);
        self.at = next.map_or(At::Data, |(_, at)| *at);
    }
}
