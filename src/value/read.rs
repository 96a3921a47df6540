//! Reading: a cursor that yields tokens.

use std::fmt;

/// One step of a walk. Arrays and maps give their counts; their members are the tokens that follow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Token<'a> {
    Nil,
    Bool(bool),
    Int(i64),
    /// Only numbers that an `Int` cannot hold.
    Uint(u64),
    Float(f64),
    /// Text, by promise UTF-8; not verified.
    Str(&'a [u8]),
    Bin(&'a [u8]),
    Array(u32),
    /// Pairs: twice as many tokens follow.
    Map(u32),
    Ext(i8, &'a [u8]),
}

impl Token<'_> {
    pub fn kind(&self) -> Kind {
        match self {
            Token::Nil => Kind("nil"),
            Token::Bool(_) => Kind("bool"),
            Token::Int(_) | Token::Uint(_) => Kind("int"),
            Token::Float(_) => Kind("float"),
            Token::Str(_) => Kind("str"),
            Token::Bin(_) => Kind("bytes"),
            Token::Array(_) => Kind("array"),
            Token::Map(_) => Kind("map"),
            Token::Ext(..) => Kind("ext"),
        }
    }
}

/// A token's type as error messages name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind(&'static str);

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// Why a buffer is not MessagePack, and at which byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed {
    pub at: usize,
    pub what: &'static str,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "malformed MessagePack at byte {}: {}", self.at, self.what)
    }
}

/// A cursor over a buffer that holds MessagePack values one after the other.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Reader { bytes, at: 0 }
    }

    /// Bytes walked so far.
    pub fn position(&self) -> usize {
        self.at
    }

    pub fn is_at_end(&self) -> bool {
        self.at == self.bytes.len()
    }

    /// The next token; an end of the buffer is an error.
    #[inline]
    pub fn token(&mut self) -> Result<Token<'a>, Malformed> {
        let Some(&marker) = self.bytes.get(self.at) else { return Err(self.malformed("it ends inside a value")) };
        self.at += 1;
        match marker {
            0x00..=0x7f => Ok(Token::Int(i64::from(marker))),
            0x80..=0x8f => Ok(Token::Map(u32::from(marker & 0x0f))),
            0x90..=0x9f => Ok(Token::Array(u32::from(marker & 0x0f))),
            0xa0..=0xbf => Ok(Token::Str(self.take(usize::from(marker & 0x1f))?)),
            0xe0..=0xff => Ok(Token::Int(i64::from(marker as i8))),
            _ => self.wide(marker),
        }
    }

    /// The next token if it is text of at most 31 bytes, the commonest of all; else nothing was walked.
    #[inline(always)]
    pub fn short_str(&mut self) -> Option<&'a [u8]> {
        let (marker, rest) = self.bytes.get(self.at..)?.split_first()?;
        let text = rest.get(..usize::from(marker & 0x1f)).filter(|_| marker & 0xe0 == 0xa0)?;
        self.at += 1 + text.len();
        Some(text)
    }

    /// Tokens whose marker is followed by a length or a number.
    fn wide(&mut self, marker: u8) -> Result<Token<'a>, Malformed> {
        Ok(match marker {
            0xc0 => Token::Nil,
            0xc2 => Token::Bool(false),
            0xc3 => Token::Bool(true),
            0xc4..=0xc6 => {
                let length = self.length(marker - 0xc4)?;
                Token::Bin(self.take(length)?)
            }
            0xc7..=0xc9 => {
                let length = self.length(marker - 0xc7)?;
                self.ext(length)?
            }
            0xca => Token::Float(f64::from(f32::from_be_bytes(self.array()?))),
            0xcb => Token::Float(f64::from_be_bytes(self.array()?)),
            0xcc => Token::Int(i64::from(self.array::<1>()?[0])),
            0xcd => Token::Int(i64::from(u16::from_be_bytes(self.array()?))),
            0xce => Token::Int(i64::from(u32::from_be_bytes(self.array()?))),
            0xcf => {
                let number = u64::from_be_bytes(self.array()?);
                i64::try_from(number).map_or(Token::Uint(number), Token::Int)
            }
            0xd0 => Token::Int(i64::from(i8::from_be_bytes(self.array()?))),
            0xd1 => Token::Int(i64::from(i16::from_be_bytes(self.array()?))),
            0xd2 => Token::Int(i64::from(i32::from_be_bytes(self.array()?))),
            0xd3 => Token::Int(i64::from_be_bytes(self.array()?)),
            0xd4..=0xd8 => self.ext(1 << (marker - 0xd4))?,
            0xd9..=0xdb => {
                let length = self.length(marker - 0xd9)?;
                Token::Str(self.take(length)?)
            }
            0xdc | 0xdd => Token::Array(self.length(marker - 0xdc + 1)? as u32),
            0xde | 0xdf => Token::Map(self.length(marker - 0xde + 1)? as u32),
            _ => {
                self.at -= 1;
                return Err(self.malformed("the byte 0xc1 means nothing"));
            }
        })
    }

    /// A big-endian length of 1, 2 or 4 bytes, for widths 0, 1 and 2.
    fn length(&mut self, width: u8) -> Result<usize, Malformed> {
        Ok(match width {
            0 => usize::from(self.array::<1>()?[0]),
            1 => usize::from(u16::from_be_bytes(self.array()?)),
            _ => u32::from_be_bytes(self.array()?) as usize,
        })
    }

    fn ext(&mut self, length: usize) -> Result<Token<'a>, Malformed> {
        let kind = i8::from_be_bytes(self.array()?);
        Ok(Token::Ext(kind, self.take(length)?))
    }

    #[inline]
    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let end = self.at.checked_add(length);
        let Some(taken) = end.and_then(|end| self.bytes.get(self.at..end)) else {
            return Err(self.malformed("it ends inside a value"));
        };
        self.at += length;
        Ok(taken)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let Some(&taken) = self.bytes.get(self.at..).and_then(|rest| rest.first_chunk::<N>()) else {
            return Err(self.malformed("it ends inside a value"));
        };
        self.at += N;
        Ok(taken)
    }

    #[cold]
    pub(super) fn malformed(&self, what: &'static str) -> Malformed {
        Malformed { at: self.at, what }
    }

    /// Walks over one value and returns its bytes. Nesting deeper than `depth_max` is an error; ext payloads are not
    /// looked into.
    pub fn skip(&mut self, depth_max: usize) -> Result<&'a [u8], Malformed> {
        let start = self.at;
        // Members still to come, for each open aggregate; bounded by `depth_max`.
        let mut open: Vec<u64> = Vec::new();
        loop {
            let members = match self.token()? {
                Token::Array(count) => u64::from(count),
                Token::Map(count) => 2 * u64::from(count),
                _ => 0,
            };
            if members > 0 {
                if open.len() >= depth_max {
                    return Err(self.malformed("it nests too deep"));
                }
                open.push(members);
                continue;
            }
            loop {
                match open.last_mut() {
                    None => return Ok(&self.bytes[start..self.at]),
                    Some(1) => open.pop(),
                    Some(left) => {
                        *left -= 1;
                        break;
                    }
                };
            }
        }
    }
}

/// Whether the buffer is exactly one value, no deeper than `depth_max`.
pub fn whole(bytes: &[u8], depth_max: usize) -> Result<(), Malformed> {
    let mut reader = Reader::new(bytes);
    reader.skip(depth_max)?;
    if reader.is_at_end() { Ok(()) } else { Err(reader.malformed("bytes follow the value")) }
}
