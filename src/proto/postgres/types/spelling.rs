//! From MessagePack to text, for parameters that the server has to parse.

use std::io::Write as _;

use super::civil::{self, Interval};
use super::decode::deeper;
use super::encode::{Unfit, at_end, given, multirange_count, multirange_part, payload, range_flags, sizes};
use super::kind::{Kind, ext, range};
use super::{Oid, Types, network, numeric};
use crate::value::{Reader, Token};

/// Texts in texts, each of which may double the backslashes of what is in it.
const QUOTED_MAX: usize = 8;

impl Types {
    /// Appends a value as text. `kind`: the one below domains.
    pub(super) fn spell(
        &self,
        oid: Oid,
        kind: Kind,
        reader: &mut Reader<'_>,
        out: &mut Vec<u8>,
        depth: usize,
    ) -> Result<(), String> {
        if depth > QUOTED_MAX {
            return Err(format!("{}: texts nest deeper than {QUOTED_MAX} levels", self.name(oid)));
        }
        let mut ahead = reader.clone();
        match (kind, token(&mut ahead)?) {
            (Kind::Array(element), Token::Array(count)) => {
                if sizes(self.base(element), count, ahead.clone())?.contains(&0) {
                    // Judges whether it is empty all through.
                    self.judge(oid, kind, reader)?;
                    out.extend_from_slice(b"{}");
                    return Ok(());
                }
                *reader = ahead;
                self.spell_array(element, count, reader, out, depth)
            }
            (Kind::Vector(element), Token::Array(count)) => {
                *reader = ahead;
                for place in 0..count {
                    if place > 0 {
                        out.push(b' ');
                    }
                    self.spell(element, self.base(element), reader, out, depth + 1)?;
                }
                Ok(())
            }
            (Kind::Composite, Token::Array(count)) => {
                *reader = ahead;
                out.push(b'(');
                for (place, field) in self.fields_of(oid, count)?.iter().enumerate() {
                    if place > 0 {
                        out.push(b',');
                    }
                    self.quoted(*field, reader, b"", out, depth)?;
                }
                out.push(b')');
                Ok(())
            }
            (Kind::Range(subtype), Token::Ext(ext::RANGE, bytes)) => {
                *reader = ahead;
                self.spell_range(subtype, &mut Reader::new(bytes), out, depth)
            }
            (Kind::Multirange(range), Token::Ext(ext::MULTIRANGE, bytes)) => {
                *reader = ahead;
                let mut ranges = Reader::new(bytes);
                let count = multirange_count(&mut ranges)?;
                self.spell_multirange(range, count, &mut ranges, out, depth)?;
                at_end(&ranges)
            }
            (Kind::Multirange(range), Token::Array(count)) => {
                *reader = ahead;
                self.spell_multirange(range, count, reader, out, depth)
            }
            (_, token) => {
                self.judge(oid, kind, reader)?;
                leaf(kind, token, out)
            }
        }
    }

    /// Walks over a value; an error if it is none of the type.
    fn judge(&self, oid: Oid, kind: Kind, reader: &mut Reader<'_>) -> Result<(), String> {
        let mut ahead = reader.clone();
        ahead.skip(super::DEPTH_MAX).map_err(|malformed| malformed.to_string())?;
        let judged = self.binary(oid, kind, reader, &mut Vec::new(), 0);
        *reader = ahead;
        match judged {
            Err(Unfit::Wrong(message)) => Err(message),
            Ok(()) | Err(Unfit::Spelled) => Ok(()),
        }
    }

    fn spell_array(
        &self,
        element: Oid,
        count: u32,
        reader: &mut Reader<'_>,
        out: &mut Vec<u8>,
        depth: usize,
    ) -> Result<(), String> {
        let depth = deeper(depth, 1)?;
        let is_flat = matches!(self.base(element), Kind::Composite | Kind::Array(_) | Kind::Vector(_));
        out.push(b'{');
        for place in 0..count {
            if place > 0 {
                out.push(self.delimiter(element));
            }
            let mut ahead = reader.clone();
            match token(&mut ahead)? {
                Token::Array(count) if !is_flat => {
                    *reader = ahead;
                    self.spell_array(element, count, reader, out, depth)?;
                }
                _ => self.quoted(element, reader, b"NULL", out, depth)?,
            }
        }
        out.push(b'}');
        Ok(())
    }

    fn spell_range(
        &self,
        subtype: Oid,
        reader: &mut Reader<'_>,
        out: &mut Vec<u8>,
        depth: usize,
    ) -> Result<(), String> {
        let flags = range_flags(reader)?;
        if flags & range::EMPTY != 0 {
            out.extend_from_slice(b"empty");
            return Ok(());
        }
        out.push(if flags & range::LOWER_INCLUSIVE != 0 { b'[' } else { b'(' });
        self.quoted(subtype, reader, b"", out, depth)?;
        out.push(b',');
        self.quoted(subtype, reader, b"", out, depth)?;
        out.push(if flags & range::UPPER_INCLUSIVE != 0 { b']' } else { b')' });
        at_end(reader)
    }

    fn spell_multirange(
        &self,
        range: Oid,
        count: u32,
        ranges: &mut Reader<'_>,
        out: &mut Vec<u8>,
        depth: usize,
    ) -> Result<(), String> {
        let subtype = self.subtype(range)?;
        out.push(b'{');
        for place in 0..count {
            if place > 0 {
                out.push(b',');
            }
            self.spell_range(subtype, &mut Reader::new(multirange_part(ranges)?), out, depth)?;
        }
        out.push(b'}');
        Ok(())
    }

    /// A part in quotes, with backslashes before what has a meaning in them; the same for arrays, composites and ranges.
    fn quoted(
        &self,
        oid: Oid,
        reader: &mut Reader<'_>,
        null: &[u8],
        out: &mut Vec<u8>,
        depth: usize,
    ) -> Result<(), String> {
        let mut ahead = reader.clone();
        if token(&mut ahead)? == Token::Nil {
            *reader = ahead;
            out.extend_from_slice(null);
            return Ok(());
        }
        let mut text = Vec::new();
        self.spell(oid, self.base(oid), reader, &mut text, depth + 1)?;
        out.push(b'"');
        for byte in text {
            if matches!(byte, b'"' | b'\\') {
                out.push(b'\\');
            }
            out.push(byte);
        }
        out.push(b'"');
        Ok(())
    }
}

fn token<'a>(reader: &mut Reader<'a>) -> Result<Token<'a>, String> {
    reader.token().map_err(|malformed| malformed.to_string())
}

/// Ints and floats.
pub fn number(out: &mut Vec<u8>, token: Token<'_>) {
    // Writing into a Vec does not fail.
    let _ = match token {
        Token::Int(value) => write!(out, "{value}"),
        Token::Uint(value) => write!(out, "{value}"),
        Token::Float(value) if value.is_nan() => write!(out, "NaN"),
        Token::Float(value) if value.is_infinite() => {
            write!(out, "{}Infinity", if value < 0.0 { "-" } else { "" })
        }
        Token::Float(value) => write!(out, "{value}"),
        _ => Ok(()),
    };
}

/// Whether an ext of this number is spelled for types that are text alone.
pub fn is_spelled(number: i8) -> bool {
    number == ext::BIG_NUMBER || (ext::NUMERIC..=ext::UUID).contains(&number)
}

/// A value without parts.
fn leaf(kind: Kind, token: Token<'_>, out: &mut Vec<u8>) -> Result<(), String> {
    match token {
        Token::Str(text) => out.extend_from_slice(text),
        Token::Bool(value) => out.push(if value { b't' } else { b'f' }),
        Token::Int(_) | Token::Uint(_) | Token::Float(_) => number(out, token),
        Token::Bin(bytes) => match kind {
            Kind::Text | Kind::Jsonb => out.extend_from_slice(bytes),
            Kind::Uuid => network::write_uuid(out, bytes),
            _ => network::write_bytea(out, bytes),
        },
        Token::Ext(number, bytes) => return leaf_ext(kind, number, bytes, out),
        Token::Nil | Token::Array(_) | Token::Map(_) => {
            return Err(format!("{} given, {} expected", given(&token), kind.name()));
        }
    }
    Ok(())
}

fn leaf_ext(kind: Kind, number: i8, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
    let name = ext::name(number);
    match number {
        ext::NUMERIC | ext::BIG_NUMBER if numeric::is_valid(bytes) => out.extend_from_slice(bytes),
        ext::DATE => civil::write_date(out, i32::from_be_bytes(payload(name, bytes)?)),
        ext::TIME => civil::write_time(out, i64::from_be_bytes(payload(name, bytes)?)),
        ext::TIMETZ => {
            let [a, b, c, d, e, f, g, h, zone @ ..] = payload::<12>(name, bytes)?;
            let us = i64::from_be_bytes([a, b, c, d, e, f, g, h]);
            civil::write_timetz(out, us, i32::from_be_bytes(zone));
        }
        ext::TIMESTAMP | ext::TIMESTAMPTZ => {
            let us = i64::from_be_bytes(payload(name, bytes)?);
            civil::write_timestamp(out, us, number == ext::TIMESTAMPTZ);
        }
        ext::INTERVAL => {
            let [a, b, c, d, e, f, g, h, us @ ..] = payload::<16>(name, bytes)?;
            let (months, days) = (i32::from_be_bytes([a, b, c, d]), i32::from_be_bytes([e, f, g, h]));
            civil::write_interval(out, Interval { months, days, us: i64::from_be_bytes(us) });
        }
        ext::UUID => network::write_uuid(out, &payload::<16>(name, bytes)?),
        _ => return Err(format!("{} given, {} expected", given(&Token::Ext(number, bytes)), kind.name())),
    }
    Ok(())
}
