//! From MessagePack to the binary form, and to text where a value has to be parsed by the server.

use super::civil::{EPOCH_DAYS, EPOCH_US};
use super::decode::deeper;
use super::kind::{Kind, ext, range};
use super::{Oid, Types, numeric};
use crate::value::{Malformed, Reader, Token};

const DIMENSIONS_MAX: usize = 6;

impl Types {
    /// Appends a parameter's bytes and gives their format: 1, binary, or 0, text. `value` is one MessagePack value, and not
    /// nil, since NULL has no bytes. After an error, which names what was given and what is expected, `out` is as it was.
    ///
    /// A type takes what it is decoded to, and besides, where that is exact:
    /// - every type takes str, which the server parses; so does each part of an array, composite or range;
    /// - integers of any width and floats take ints that fit; numeric takes ints and floats; each of them takes ext 16,
    ///   and ext 2 (an integer of any size as decimal text), for the server to parse;
    /// - text, json and jsonb take bin that is UTF-8; uuid takes bin of 16 bytes;
    /// - timestamp and timestamptz take a date, timestamptz a timestamp and timetz a time: the server completes them with
    ///   midnight and its `TimeZone`;
    /// - multiranges take an array of ranges;
    /// - types that are exchanged as text take booleans, numbers and dates as their text, and bin as bytea spells it.
    ///
    /// An array of composites has one dimension here: what is inside of it are fields.
    pub fn encode(&self, oid: Oid, value: &[u8], out: &mut Vec<u8>) -> Result<i16, String> {
        let start = out.len();
        let done = self.encode_whole(oid, value, start, out);
        if done.is_err() {
            out.truncate(start);
        }
        done
    }

    fn encode_whole(&self, oid: Oid, value: &[u8], start: usize, out: &mut Vec<u8>) -> Result<i16, String> {
        let kind = self.base(oid);
        let mut reader = Reader::new(value);
        // A part without a binary form may be missing from this value; the server asks for the form nonetheless.
        let sent = match self.format(oid) {
            1 => self.binary(oid, kind, &mut reader, out, 0),
            _ => Err(Unfit::Spelled),
        };
        let format = match sent {
            Ok(()) => 1,
            Err(Unfit::Wrong(message)) => return Err(message),
            Err(Unfit::Spelled) => {
                out.truncate(start);
                reader = Reader::new(value);
                self.spell(oid, kind, &mut reader, out, 0)?;
                0
            }
        };
        if reader.is_at_end() { Ok(format) } else { Err(format!("{}: bytes follow its value", self.name(oid))) }
    }

    /// `kind`: the one below domains.
    pub(super) fn binary(
        &self,
        oid: Oid,
        kind: Kind,
        reader: &mut Reader<'_>,
        out: &mut Vec<u8>,
        depth: usize,
    ) -> Result<(), Unfit> {
        let token = reader.token()?;
        let wrong = || Err(Unfit::Wrong(format!("{} given, {} expected", given(&token), self.name(oid))));
        match (kind, token) {
            (Kind::Text, Token::Str(text)) => out.extend_from_slice(text),
            (Kind::Jsonb, Token::Str(text)) => json(out, text),
            (_, Token::Str(_)) => return Err(Unfit::Spelled),
            (Kind::Text | Kind::Jsonb, Token::Bin(bytes)) if std::str::from_utf8(bytes).is_ok() => match kind {
                Kind::Jsonb => json(out, bytes),
                _ => out.extend_from_slice(bytes),
            },
            (Kind::Text | Kind::Jsonb, Token::Bin(_)) => {
                return Err(Unfit::Wrong(format!("bytes that are no UTF-8 given, {} expected", self.name(oid))));
            }
            (Kind::Bool, Token::Bool(value)) => out.push(u8::from(value)),
            (Kind::Bytea, Token::Bin(bytes)) => out.extend_from_slice(bytes),
            (
                Kind::Int2 | Kind::Int4 | Kind::Int8 | Kind::Unsigned4 | Kind::Unsigned8,
                Token::Int(_) | Token::Uint(_),
            ) => {
                self.integer(oid, kind, token, out)?;
            }
            (Kind::Float4 | Kind::Float8, Token::Float(_) | Token::Int(_) | Token::Uint(_)) => {
                self.float(oid, kind, token, out)?;
            }
            (Kind::Numeric, Token::Int(_) | Token::Uint(_) | Token::Float(_)) => {
                let mut text = Vec::new();
                super::spelling::number(&mut text, token);
                numeric::encode(&text, out)?;
            }
            (Kind::Numeric, Token::Ext(ext::NUMERIC | ext::BIG_NUMBER, text)) => numeric::encode(text, out)?,
            (
                Kind::Int2 | Kind::Int4 | Kind::Int8 | Kind::Unsigned4 | Kind::Unsigned8 | Kind::Float4 | Kind::Float8,
                Token::Ext(ext::NUMERIC | ext::BIG_NUMBER, _),
            ) => return Err(Unfit::Spelled),
            (Kind::Uuid, Token::Ext(ext::UUID, bytes) | Token::Bin(bytes)) => {
                out.extend_from_slice(&payload::<16>("uuid", bytes)?);
            }
            (
                Kind::Date | Kind::Time | Kind::Timetz | Kind::Timestamp | Kind::Timestamptz | Kind::Interval,
                Token::Ext(number, bytes),
            ) => match moment(kind, number, bytes, out)? {
                Fit::Whole => {}
                Fit::Spelled => return Err(Unfit::Spelled),
                Fit::Not => return wrong(),
            },
            (Kind::Array(0), _) => return wrong(),
            (Kind::Array(element), Token::Array(count)) => self.array(element, 1, count, reader, out, depth)?,
            // The binary form of a vector must have a dimension, and without elements it has none.
            (Kind::Vector(_), Token::Array(0)) => return Err(Unfit::Spelled),
            (Kind::Vector(element), Token::Array(count)) => self.array(element, 0, count, reader, out, depth)?,
            (Kind::Composite, Token::Array(count)) => self.composite(oid, count, reader, out, depth)?,
            (Kind::Range(subtype), Token::Ext(ext::RANGE, bytes)) => {
                self.range(subtype, &mut Reader::new(bytes), out, deeper(depth, 1)?)?;
            }
            (Kind::Multirange(range), Token::Ext(ext::MULTIRANGE, bytes)) => {
                let mut ranges = Reader::new(bytes);
                let count = multirange_count(&mut ranges)?;
                self.multirange(range, count, &mut ranges, out, deeper(depth, 1)?)?;
                at_end(&ranges)?;
            }
            (Kind::Multirange(range), Token::Array(count)) => {
                self.multirange(range, count, reader, out, deeper(depth, 1)?)?;
            }
            (Kind::Spelled | Kind::Registry, Token::Array(_) | Token::Map(_) | Token::Nil) => return wrong(),
            (Kind::Spelled | Kind::Registry, Token::Ext(number, _)) if !super::spelling::is_spelled(number) => {
                return wrong();
            }
            (Kind::Spelled | Kind::Registry, _) => return Err(Unfit::Spelled),
            _ => return wrong(),
        }
        Ok(())
    }

    fn integer(&self, oid: Oid, kind: Kind, token: Token<'_>, out: &mut Vec<u8>) -> Result<(), Unfit> {
        let value = match token {
            Token::Int(value) => i128::from(value),
            Token::Uint(value) => i128::from(value),
            _ => return Err(Unfit::Spelled),
        };
        let written = match kind {
            Kind::Int2 => i16::try_from(value).map(|value| out.extend_from_slice(&value.to_be_bytes())),
            Kind::Int4 => i32::try_from(value).map(|value| out.extend_from_slice(&value.to_be_bytes())),
            Kind::Int8 => i64::try_from(value).map(|value| out.extend_from_slice(&value.to_be_bytes())),
            Kind::Unsigned4 => u32::try_from(value).map(|value| out.extend_from_slice(&value.to_be_bytes())),
            _ => u64::try_from(value).map(|value| out.extend_from_slice(&value.to_be_bytes())),
        };
        written.map_err(|_| self.does_not_fit(oid, token))
    }

    /// An int must be one of the numbers that the float has. A float4 takes the nearest to any float.
    fn float(&self, oid: Oid, kind: Kind, token: Token<'_>, out: &mut Vec<u8>) -> Result<(), Unfit> {
        let (value, exact) = match token {
            Token::Float(value) => (value, None),
            Token::Int(value) => (value as f64, Some(i128::from(value))),
            Token::Uint(value) => (value as f64, Some(i128::from(value))),
            _ => return Err(Unfit::Spelled),
        };
        let single = value as f32;
        let sent = if kind == Kind::Float4 { f64::from(single) } else { value };
        if exact.is_some_and(|exact| sent as i128 != exact) || sent.is_infinite() && value.is_finite() {
            return Err(self.does_not_fit(oid, token));
        }
        match kind {
            Kind::Float4 => out.extend_from_slice(&single.to_be_bytes()),
            _ => out.extend_from_slice(&value.to_be_bytes()),
        }
        Ok(())
    }

    #[cold]
    fn does_not_fit(&self, oid: Oid, token: Token<'_>) -> Unfit {
        let mut shown = Vec::new();
        super::spelling::number(&mut shown, token);
        let shown = String::from_utf8_lossy(&shown).into_owned();
        Unfit::Wrong(format!("{} {shown} given, {} expected, which it does not fit", token.kind(), self.name(oid)))
    }

    /// See `decode.rs` for the form. Arrays in arrays are dimensions, whose sizes are those of the first of each.
    fn array(
        &self,
        element: Oid,
        lower_bound: i32,
        count: u32,
        reader: &mut Reader<'_>,
        out: &mut Vec<u8>,
        depth: usize,
    ) -> Result<(), Unfit> {
        let kind = self.base(element);
        let sizes = sizes(kind, count, reader.clone())?;
        let depth = deeper(depth, sizes.len())?;
        let is_empty = sizes.contains(&0);
        let dimensions = if is_empty { 0 } else { sizes.len() };
        out.extend_from_slice(&(dimensions as u32).to_be_bytes());
        let has_nulls = out.len();
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&element.to_be_bytes());
        for size in &sizes[..dimensions] {
            out.extend_from_slice(&size.to_be_bytes());
            out.extend_from_slice(&lower_bound.to_be_bytes());
        }
        let nulls = self.dimension(&sizes, (element, kind), reader, out, depth)?;
        if let Some(flag) = out.get_mut(has_nulls + 3) {
            *flag = u8::from(nulls);
        }
        Ok(())
    }

    /// Whether there are NULLs.
    fn dimension(
        &self,
        sizes: &[u32],
        (element, kind): (Oid, Kind),
        reader: &mut Reader<'_>,
        out: &mut Vec<u8>,
        depth: usize,
    ) -> Result<bool, Unfit> {
        let [size, inner @ ..] = sizes else { return Ok(false) };
        let mut nulls = false;
        for _ in 0..*size {
            if let [expected, ..] = inner {
                match reader.token()? {
                    Token::Array(count) if count == *expected => {}
                    Token::Array(count) => {
                        return Err(Unfit::Wrong(format!("an array of {count} in an array of arrays of {expected}")));
                    }
                    other => {
                        let given = given(&other);
                        return Err(Unfit::Wrong(format!("{given} given beside arrays of {expected} in an array")));
                    }
                }
                nulls |= self.dimension(inner, (element, kind), reader, out, depth)?;
            } else {
                nulls |= self.part((element, kind), reader, out, depth)?;
            }
        }
        Ok(nulls)
    }

    /// A value with its length in front. Whether it is NULL.
    fn part(
        &self,
        (oid, kind): (Oid, Kind),
        reader: &mut Reader<'_>,
        out: &mut Vec<u8>,
        depth: usize,
    ) -> Result<bool, Unfit> {
        let mut ahead = reader.clone();
        if ahead.token()? == Token::Nil {
            *reader = ahead;
            out.extend_from_slice(&(-1_i32).to_be_bytes());
            return Ok(true);
        }
        counted(out, |out| self.binary(oid, kind, reader, out, depth))?;
        Ok(false)
    }

    fn composite(
        &self,
        oid: Oid,
        count: u32,
        reader: &mut Reader<'_>,
        out: &mut Vec<u8>,
        depth: usize,
    ) -> Result<(), Unfit> {
        let depth = deeper(depth, 1)?;
        let fields = self.fields_of(oid, count)?;
        out.extend_from_slice(&count.to_be_bytes());
        for field in fields {
            out.extend_from_slice(&field.to_be_bytes());
            self.part((*field, self.base(*field)), reader, out, depth)?;
        }
        Ok(())
    }

    /// The types of the fields, if they are so many.
    pub(super) fn fields_of(&self, composite: Oid, count: u32) -> Result<&[Oid], String> {
        let fields = self.fields(composite);
        if fields.len() == count as usize {
            return Ok(fields);
        }
        Err(format!("an array of {count} given, {} with {} fields expected", self.name(composite), fields.len()))
    }

    fn range(&self, subtype: Oid, reader: &mut Reader<'_>, out: &mut Vec<u8>, depth: usize) -> Result<(), Unfit> {
        let kind = self.base(subtype);
        let flags = range_flags(reader)?;
        out.push(flags);
        for has in [range::has_lower(flags), range::has_upper(flags)] {
            if has {
                self.part((subtype, kind), reader, out, depth)?;
            } else {
                reader.token()?;
            }
        }
        Ok(at_end(reader)?)
    }

    fn multirange(
        &self,
        range: Oid,
        count: u32,
        ranges: &mut Reader<'_>,
        out: &mut Vec<u8>,
        depth: usize,
    ) -> Result<(), Unfit> {
        let subtype = self.subtype(range)?;
        out.extend_from_slice(&count.to_be_bytes());
        for _ in 0..count {
            let mut range = Reader::new(multirange_part(ranges)?);
            counted(out, |out| self.range(subtype, &mut range, out, depth))?;
        }
        Ok(())
    }
}

/// Why a value has no binary form here.
pub enum Unfit {
    /// The server has to parse it.
    Spelled,
    /// It is no value of the type.
    Wrong(String),
}

impl From<String> for Unfit {
    fn from(message: String) -> Self {
        Unfit::Wrong(message)
    }
}

impl From<Malformed> for Unfit {
    fn from(malformed: Malformed) -> Self {
        Unfit::Wrong(malformed.to_string())
    }
}

/// What a token is called.
pub fn given(token: &Token<'_>) -> String {
    match token {
        Token::Ext(number, _) => match ext::name(*number) {
            "unknown ext" => format!("ext {number}"),
            name => name.to_owned(),
        },
        other => other.kind().to_string(),
    }
}

fn json(out: &mut Vec<u8>, text: &[u8]) {
    out.push(1);
    out.extend_from_slice(text);
}

/// The sizes of an array's dimensions, from the first elements of each. `count` members follow in `reader`.
pub fn sizes(element: Kind, count: u32, mut reader: Reader<'_>) -> Result<Vec<u32>, String> {
    let mut sizes = vec![count];
    // What has arrays for values has no dimensions here.
    if matches!(element, Kind::Composite | Kind::Record | Kind::Array(_) | Kind::Vector(_)) {
        return Ok(sizes);
    }
    while sizes.last() != Some(&0) {
        match reader.token().map_err(|malformed| malformed.to_string())? {
            Token::Array(count) if sizes.len() < DIMENSIONS_MAX => sizes.push(count),
            Token::Array(_) => return Err(format!("an array of more than {DIMENSIONS_MAX} dimensions given")),
            _ => break,
        }
    }
    Ok(sizes)
}

/// Flags of the range whose bounds follow. A bound that is nil is infinite.
pub fn range_flags(reader: &mut Reader<'_>) -> Result<u8, String> {
    let expected = "range: [flags, lower, upper] expected";
    let mut ahead = reader.clone();
    let flags = match (ahead.token(), ahead.token()) {
        (Ok(Token::Array(3)), Ok(Token::Int(flags @ 0..=0x1f))) => flags as u8,
        _ => return Err(expected.into()),
    };
    *reader = ahead.clone();
    let mut flags = flags;
    let bounds = [
        (range::has_lower(flags), range::LOWER_INFINITE, range::LOWER_INCLUSIVE),
        (range::has_upper(flags), range::UPPER_INFINITE, range::UPPER_INCLUSIVE),
    ];
    for (has, infinite, inclusive) in bounds {
        let bound = ahead.skip(super::DEPTH_MAX).map_err(|malformed| malformed.to_string())?;
        match (has, bound == [0xc0]) {
            (true, true) => flags = flags & !inclusive | infinite,
            (false, false) => return Err(format!("{expected}, nil for a bound that the flags {flags:#04x} exclude")),
            _ => {}
        }
    }
    Ok(flags)
}

pub fn multirange_count(reader: &mut Reader<'_>) -> Result<u32, String> {
    match reader.token() {
        Ok(Token::Array(count)) => Ok(count),
        _ => Err("multirange: an array of ranges expected".into()),
    }
}

pub fn at_end(parts: &Reader<'_>) -> Result<(), String> {
    if parts.is_at_end() { Ok(()) } else { Err("range or multirange: bytes follow its parts".into()) }
}

/// The payload of the next range.
pub fn multirange_part<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], String> {
    match reader.token().map_err(|malformed| malformed.to_string())? {
        Token::Ext(ext::RANGE, bytes) => Ok(bytes),
        other => Err(format!("multirange: {} given, range expected", given(&other))),
    }
}

enum Fit {
    Whole,
    Spelled,
    Not,
}

/// Dates and times from the ext of this number.
fn moment(kind: Kind, number: i8, bytes: &[u8], out: &mut Vec<u8>) -> Result<Fit, String> {
    match (kind, number) {
        (Kind::Date, ext::DATE) => {
            let days = match i32::from_be_bytes(payload("date", bytes)?) {
                days @ (i32::MAX | i32::MIN) => days,
                days => days.checked_sub(EPOCH_DAYS).filter(|days| *days != i32::MIN).ok_or("date: out of range")?,
            };
            out.extend_from_slice(&days.to_be_bytes());
        }
        (Kind::Time, ext::TIME) => out.extend_from_slice(&payload::<8>("time", bytes)?),
        (Kind::Timetz, ext::TIMETZ) => {
            let [us @ .., a, b, c, d] = payload::<12>("timetz", bytes)?;
            let west_s = i32::from_be_bytes([a, b, c, d]).checked_neg().ok_or("timetz: its offset is out of range")?;
            out.extend_from_slice(&us);
            out.extend_from_slice(&west_s.to_be_bytes());
        }
        (Kind::Timestamp, ext::TIMESTAMP) | (Kind::Timestamptz, ext::TIMESTAMPTZ) => {
            let us = match i64::from_be_bytes(payload(kind.name(), bytes)?) {
                us @ (i64::MAX | i64::MIN) => us,
                us => us.checked_sub(EPOCH_US).filter(|us| *us != i64::MIN).ok_or("timestamp: out of range")?,
            };
            out.extend_from_slice(&us.to_be_bytes());
        }
        (Kind::Interval, ext::INTERVAL) => {
            let [a, b, c, d, e, f, g, h, us @ ..] = payload::<16>("interval", bytes)?;
            out.extend_from_slice(&us);
            out.extend_from_slice(&[e, f, g, h]);
            out.extend_from_slice(&[a, b, c, d]);
        }
        (Kind::Timetz, ext::TIME)
        | (Kind::Timestamp | Kind::Timestamptz, ext::DATE)
        | (Kind::Timestamptz, ext::TIMESTAMP) => return Ok(Fit::Spelled),
        _ => return Ok(Fit::Not),
    }
    Ok(Fit::Whole)
}

/// The payload of an ext, which has exactly so many bytes.
pub fn payload<const N: usize>(name: &str, bytes: &[u8]) -> Result<[u8; N], String> {
    <[u8; N]>::try_from(bytes).map_err(|_| format!("{name}: {} bytes given, {N} expected", bytes.len()))
}

/// What `write` appends, with its length in front.
fn counted(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>) -> Result<(), Unfit>) -> Result<(), Unfit> {
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    write(out)?;
    let length = i32::try_from(out.len() - at - 4).map_err(|_| "a value of more than 2 GiB given".to_owned())?;
    out[at..at + 4].copy_from_slice(&length.to_be_bytes());
    Ok(())
}
