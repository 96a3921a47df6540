//! Frames on the wire (RFC 6455, 5.2): their heads, and masks.

use super::{Failure, PROTOCOL_ERROR, Role};

/// A data frame of a message begun before.
pub const CONTINUATION: u8 = 0x0;
pub const TEXT: u8 = 0x1;
pub const BINARY: u8 = 0x2;
pub const CLOSE: u8 = 0x8;
pub const PING: u8 = 0x9;
pub const PONG: u8 = 0xA;

/// Bytes of a control frame's payload (5.5).
pub const CONTROL_MAX: usize = 125;
/// Bytes of the longest head: two, a length of eight, a mask.
pub const HEAD_MAX: usize = 14;

const FIN: u8 = 0x80;
/// RSV1: the message is compressed (RFC 7692, 6).
const COMPRESSED: u8 = 0x40;
const RESERVED: u8 = 0x30;
const MASKED: u8 = 0x80;

pub type Mask = [u8; 4];

/// The head of one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    pub opcode: u8,
    /// The last frame of its message.
    pub fin: bool,
    pub compressed: bool,
    pub mask: Option<Mask>,
    /// Of the payload.
    pub length: u64,
}

impl Head {
    pub fn is_control(&self) -> bool {
        self.opcode & 0x8 != 0
    }

    /// Reads a head, and how many bytes it has. An error in the first two bytes is told at once. `Ok(Err(n))`: needs `n`
    /// bytes of input.
    pub fn read(input: &[u8], we_are: Role) -> Result<Result<(Self, usize), usize>, Failure> {
        let [first, second, rest @ ..] = input else { return Ok(Err(2)) };
        let (fin, compressed, opcode) = (first & FIN != 0, first & COMPRESSED != 0, first & 0x0F);
        let (masked, short) = (second & MASKED != 0, second & 0x7F);
        if first & RESERVED != 0 {
            return Err(broken("a reserved bit is set"));
        }
        if !matches!(opcode, CONTINUATION | TEXT | BINARY | CLOSE | PING | PONG) {
            return Err(broken("an opcode that is reserved"));
        }
        if opcode & 0x8 != 0 {
            control(fin, compressed, short)?;
        }
        match we_are {
            Role::Server if !masked => return Err(broken("a client's frame without a mask")),
            Role::Client if masked => return Err(broken("a server's frame with a mask")),
            _ => {}
        }
        let length_bytes = match short {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let size = 2 + length_bytes + if masked { 4 } else { 0 };
        if input.len() < size {
            return Ok(Err(size));
        }
        let (length, rest) = rest.split_at(length_bytes);
        let length = long(length, short)?;
        let mask = if masked { rest.first_chunk().copied() } else { None };
        Ok(Ok((Head { opcode, fin, compressed, mask, length }, size)))
    }

    /// Its bytes, and how many of them.
    pub fn bytes(&self) -> ([u8; HEAD_MAX], usize) {
        let mut bytes = [0; HEAD_MAX];
        bytes[0] = self.opcode | if self.fin { FIN } else { 0 } | if self.compressed { COMPRESSED } else { 0 };
        let (short, mut size) = match self.length {
            length @ 0..=125 => (length as u8, 2),
            length @ 126..=0xFFFF => {
                bytes[2..4].copy_from_slice(&(length as u16).to_be_bytes());
                (126, 4)
            }
            length => {
                bytes[2..10].copy_from_slice(&length.to_be_bytes());
                (127, 10)
            }
        };
        bytes[1] = short;
        if let Some(mask) = self.mask {
            bytes[1] |= MASKED;
            bytes[size..size + 4].copy_from_slice(&mask);
            size += 4;
        }
        (bytes, size)
    }
}

/// The rules of control frames (5.5; RFC 7692, 6.1).
fn control(fin: bool, compressed: bool, short: u8) -> Result<(), Failure> {
    if !fin {
        return Err(broken("a control frame in pieces"));
    }
    if usize::from(short) > CONTROL_MAX {
        return Err(broken("a control frame of more than 125 bytes"));
    }
    if compressed {
        return Err(broken("a control frame with RSV1 set"));
    }
    Ok(())
}

/// The length that the first seven bits and the bytes after them say. The shortest way of saying it is the only one.
fn long(bytes: &[u8], short: u8) -> Result<u64, Failure> {
    if bytes.is_empty() {
        return Ok(u64::from(short));
    }
    let length = bytes.iter().fold(0, |length: u64, byte| length << 8 | u64::from(*byte));
    if length >> 63 != 0 {
        return Err(broken("a length of 64 bits"));
    }
    if length <= if bytes.len() == 2 { 125 } else { 0xFFFF } {
        return Err(broken("a length in more bytes than it needs"));
    }
    Ok(length)
}

pub fn broken(message: &'static str) -> Failure {
    Failure { code: PROTOCOL_ERROR, message }
}

/// Puts a mask on or takes it off (5.3). `at`: how many bytes of the payload came before.
pub fn mask(bytes: &mut [u8], mask: Mask, at: u64) {
    let mut turned = mask;
    turned.rotate_left((at % 4) as usize);
    let word = u64::from_ne_bytes(std::array::from_fn(|index| turned[index % 4]));
    let (words, rest) = bytes.as_chunks_mut::<8>();
    for bytes in words {
        *bytes = (u64::from_ne_bytes(*bytes) ^ word).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(turned.iter().cycle()) {
        *byte ^= key;
    }
}

/// Masks that nobody can foresee (5.3): SHA-1 of a secret seed and a counter, five masks each.
pub struct Masks {
    seed: u64,
    count: u64,
    left: [u8; 20],
    used: usize,
}

impl Masks {
    pub fn new(seed: u64) -> Self {
        Masks { seed, count: 0, left: [0; 20], used: 20 }
    }

    pub fn next(&mut self) -> Mask {
        if self.used == self.left.len() {
            self.left = digest(self.seed, b"mask", self.count);
            self.count += 1;
            self.used = 0;
        }
        let mask = std::array::from_fn(|index| self.left[self.used + index]);
        self.used += 4;
        mask
    }
}

/// Bytes that tell nothing of the seed, nor of each other.
pub fn digest(seed: u64, purpose: &[u8], count: u64) -> [u8; 20] {
    let mut hash = sha1_smol::Sha1::new();
    hash.update(&seed.to_le_bytes());
    hash.update(purpose);
    hash.update(&count.to_le_bytes());
    hash.digest().bytes()
}
