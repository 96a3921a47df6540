//! From the text form to MessagePack.
//!
//! Texts of arrays, composites and ranges are described in the documentation, 8.15.6, 8.16.6 and 8.17.5.

use std::borrow::Cow;
use std::str::FromStr;

use super::decode::{Decoder, deeper};
use super::kind::{Kind, ext, range};
use super::{Oid, civil, network, numeric};
use crate::value::write;

impl Decoder<'_> {
    /// `kind`: the one below domains.
    pub fn text(&mut self, oid: Oid, kind: Kind, text: &[u8], depth: usize) -> Result<(), String> {
        match kind {
            Kind::Bool => match text {
                b"t" => write::bool(self.out, true),
                b"f" => write::bool(self.out, false),
                _ => return Err(unreadable(kind, text)),
            },
            Kind::Int2 | Kind::Int4 | Kind::Int8 => write::int(self.out, parsed(kind, text)?),
            Kind::Unsigned4 | Kind::Unsigned8 => write::uint(self.out, parsed(kind, text)?),
            Kind::Float4 => write::float(self.out, f64::from(parsed::<f32>(kind, text)?)),
            Kind::Float8 => write::float(self.out, parsed(kind, text)?),
            Kind::Bytea => {
                let bytes = network::read_bytea(text).ok_or_else(|| unreadable(kind, text))?;
                write::bin(self.out, &bytes);
            }
            Kind::Numeric if numeric::is_valid(text) => write::ext(self.out, ext::NUMERIC, text),
            Kind::Numeric => return Err(unreadable(kind, text)),
            Kind::Uuid => {
                let uuid = network::read_uuid(text).ok_or_else(|| unreadable(kind, text))?;
                write::ext(self.out, ext::UUID, &uuid);
            }
            Kind::Date | Kind::Time | Kind::Timetz | Kind::Timestamp | Kind::Timestamptz | Kind::Interval => {
                self.moment_text(kind, text);
            }
            Kind::Void => write::nil(self.out),
            // Its elements tell their type in binary alone.
            Kind::Array(0) => write::str(self.out, text),
            Kind::Array(element) => self.array_text(element, text, depth)?,
            Kind::Vector(element) => self.vector_text(element, text, deeper(depth, 1)?)?,
            Kind::Record => self.composite_text(None, text, deeper(depth, 1)?)?,
            Kind::Composite => self.composite_text(Some(self.types.fields(oid)), text, deeper(depth, 1)?)?,
            Kind::Range(subtype) => {
                let mut literal = Literal(text);
                self.range_text(subtype, &mut literal, deeper(depth, 1)?)?;
                literal.end(kind)?;
            }
            Kind::Multirange(range) => self.multirange_text(range, text, deeper(depth, 1)?)?,
            Kind::Text
            | Kind::Char
            | Kind::Jsonb
            | Kind::Inet
            | Kind::Macaddr
            | Kind::Bit
            | Kind::Registry
            | Kind::Spelled
            | Kind::Domain(_) => write::str(self.out, text),
        }
        Ok(())
    }

    /// Text in a style that is not ISO stays text.
    fn moment_text(&mut self, kind: Kind, text: &[u8]) {
        let mut payload = [0; 16];
        let mut put = |at: usize, bytes: &[u8]| payload[at..at + bytes.len()].copy_from_slice(bytes);
        let known = match kind {
            Kind::Date => civil::read_date(text).map(|days| {
                put(0, &days.to_be_bytes());
                (ext::DATE, 4)
            }),
            Kind::Time => civil::read_time(text).map(|us| {
                put(0, &us.to_be_bytes());
                (ext::TIME, 8)
            }),
            Kind::Timetz => civil::read_timetz(text).map(|(us, east_s)| {
                put(0, &us.to_be_bytes());
                put(8, &east_s.to_be_bytes());
                (ext::TIMETZ, 12)
            }),
            Kind::Interval => civil::read_interval(text).map(|interval| {
                put(0, &interval.months.to_be_bytes());
                put(4, &interval.days.to_be_bytes());
                put(8, &interval.us.to_be_bytes());
                (ext::INTERVAL, 16)
            }),
            _ => civil::read_timestamp(text, kind == Kind::Timestamptz).map(|us| {
                put(0, &us.to_be_bytes());
                (if kind == Kind::Timestamptz { ext::TIMESTAMPTZ } else { ext::TIMESTAMP }, 8)
            }),
        };
        match known {
            Some((number, length)) => write::ext(self.out, number, &payload[..length]),
            None => write::str(self.out, text),
        }
    }

    /// `{1,NULL,"a b"}`, with the bounds in front where one of them is not 1: `[0:1]={1,2}`.
    fn array_text(&mut self, element: Oid, text: &[u8], depth: usize) -> Result<(), String> {
        let body = match text {
            [b'[', bounds @ ..] => bounds.iter().position(|byte| *byte == b'=').map(|at| &bounds[at + 1..]),
            body => Some(body),
        };
        let mut literal = Literal(body.unwrap_or_default());
        let element =
            Element { oid: element, kind: self.types.base(element), delimiter: self.types.delimiter(element) };
        self.braces(&element, &mut literal, depth)?;
        literal.end(Kind::Array(element.oid))
    }

    fn braces(&mut self, element: &Element, literal: &mut Literal<'_>, depth: usize) -> Result<(), String> {
        let depth = deeper(depth, 1)?;
        literal.expect(Kind::Array(element.oid), b'{')?;
        let open = write::array_open(self.out);
        let mut count = 0;
        while !(count == 0 && literal.skip(b'}')) {
            count += 1;
            if literal.0.first() == Some(&b'{') {
                self.braces(element, literal, depth)?;
            } else {
                match literal.item(element.delimiter)? {
                    None => write::nil(self.out),
                    Some(text) => self.text(element.oid, element.kind, &text, depth)?,
                }
            }
            if !literal.skip(element.delimiter) {
                literal.expect(Kind::Array(element.oid), b'}')?;
                break;
            }
        }
        write::count_close(self.out, open, count);
        Ok(())
    }

    /// `1 2 3`.
    fn vector_text(&mut self, element: Oid, text: &[u8], depth: usize) -> Result<(), String> {
        let open = write::array_open(self.out);
        let mut count = 0;
        for word in text.split(|byte| *byte == b' ').filter(|word| !word.is_empty()) {
            self.text(element, self.types.base(element), word, depth)?;
            count += 1;
        }
        write::count_close(self.out, open, count);
        Ok(())
    }

    /// `(1,,"a b")`: NULL is nothing between the commas. `fields`: their types, where they are known.
    fn composite_text(&mut self, fields: Option<&[Oid]>, text: &[u8], depth: usize) -> Result<(), String> {
        let kind = if fields.is_some() { Kind::Composite } else { Kind::Record };
        let mut literal = Literal(text);
        literal.expect(kind, b'(')?;
        let open = write::array_open(self.out);
        let mut count = 0;
        // `()` is one NULL, unless there are no fields.
        let mut has_more = !fields.is_some_and(<[Oid]>::is_empty);
        while has_more {
            let (oid, field) = match fields {
                None => (0, Kind::Text),
                Some(fields) => match fields.get(count) {
                    Some(oid) => (*oid, self.types.base(*oid)),
                    None => return Err(format!("composite: more than its {count} fields given")),
                },
            };
            match literal.part(b",)")? {
                None => write::nil(self.out),
                Some(text) => self.text(oid, field, &text, depth)?,
            }
            count += 1;
            has_more = literal.skip(b',');
        }
        literal.expect(kind, b')')?;
        write::count_close(self.out, open, u32::try_from(count).unwrap_or(u32::MAX));
        literal.end(kind)
    }

    /// `empty`, `[1,5)`, `(,"2024-01-01 00:00:00"]`.
    fn range_text(&mut self, subtype: Oid, literal: &mut Literal<'_>, depth: usize) -> Result<(), String> {
        let subkind = self.types.base(subtype);
        let kind = Kind::Range(subtype);
        let open = write::ext_open(self.out, ext::RANGE);
        write::array(self.out, 3);
        if let Some(rest) = literal.0.strip_prefix(b"empty") {
            literal.0 = rest;
            write::uint(self.out, u64::from(range::EMPTY));
            write::nil(self.out);
            write::nil(self.out);
            write::ext_close(self.out, open);
            return Ok(());
        }
        let mut flags = 0;
        if literal.skip(b'[') {
            flags |= range::LOWER_INCLUSIVE;
        } else {
            literal.expect(kind, b'(')?;
        }
        let lower = literal.part(b",")?;
        literal.expect(kind, b',')?;
        let upper = literal.part(b"])")?;
        if literal.skip(b']') {
            flags |= range::UPPER_INCLUSIVE;
        } else {
            literal.expect(kind, b')')?;
        }
        if lower.is_none() {
            flags |= range::LOWER_INFINITE;
        }
        if upper.is_none() {
            flags |= range::UPPER_INFINITE;
        }
        write::uint(self.out, u64::from(flags));
        for bound in [lower, upper] {
            match bound {
                None => write::nil(self.out),
                Some(text) => self.text(subtype, subkind, &text, depth)?,
            }
        }
        write::ext_close(self.out, open);
        Ok(())
    }

    /// `{[1,2),[5,6)}`.
    fn multirange_text(&mut self, range: Oid, text: &[u8], depth: usize) -> Result<(), String> {
        let subtype = self.types.subtype(range)?;
        let kind = Kind::Multirange(range);
        let mut literal = Literal(text);
        literal.expect(kind, b'{')?;
        let whole = write::ext_open(self.out, ext::MULTIRANGE);
        let open = write::array_open(self.out);
        let mut count = 0;
        while !(count == 0 && literal.skip(b'}')) {
            count += 1;
            self.range_text(subtype, &mut literal, depth)?;
            if !literal.skip(b',') {
                literal.expect(kind, b'}')?;
                break;
            }
        }
        write::count_close(self.out, open, count);
        write::ext_close(self.out, whole);
        literal.end(kind)
    }
}

struct Element {
    oid: Oid,
    kind: Kind,
    delimiter: u8,
}

/// What is left of a text.
struct Literal<'a>(&'a [u8]);

impl<'a> Literal<'a> {
    fn skip(&mut self, byte: u8) -> bool {
        match self.0.strip_prefix(&[byte]) {
            Some(rest) => {
                self.0 = rest;
                true
            }
            None => false,
        }
    }

    fn expect(&mut self, kind: Kind, byte: u8) -> Result<(), String> {
        if self.skip(byte) {
            return Ok(());
        }
        Err(format!("{}: {:?} expected before {}", kind.name(), char::from(byte), shown(self.0)))
    }

    fn end(&self, kind: Kind) -> Result<(), String> {
        if self.0.is_empty() { Ok(()) } else { Err(format!("{}: {} follows the value", kind.name(), shown(self.0))) }
    }

    /// An element of an array; None is NULL. A backslash in quotes takes the next byte as it is.
    fn item(&mut self, delimiter: u8) -> Result<Option<Cow<'a, [u8]>>, String> {
        if self.skip(b'"') {
            return self.quoted(false).map(|text| Some(Cow::Owned(text)));
        }
        let end = self.0.iter().position(|byte| *byte == delimiter || *byte == b'}');
        let (item, rest) = self.0.split_at(end.ok_or("array: it ends inside an element")?);
        self.0 = rest;
        Ok((item != b"NULL").then_some(Cow::Borrowed(item)))
    }

    /// A field or a bound, up to one of these bytes; None is nothing at all. It is quoted as a whole or not at all.
    fn part(&mut self, ends: &[u8]) -> Result<Option<Cow<'a, [u8]>>, String> {
        if self.skip(b'"') {
            return self.quoted(true).map(|text| Some(Cow::Owned(text)));
        }
        let end = self.0.iter().position(|byte| ends.contains(byte));
        let (part, rest) = self.0.split_at(end.ok_or("composite or range: it ends inside a part")?);
        self.0 = rest;
        Ok((!part.is_empty()).then_some(Cow::Borrowed(part)))
    }

    /// Up to the closing quote. `doubles`: two quotes stand for one.
    fn quoted(&mut self, doubles: bool) -> Result<Vec<u8>, String> {
        let mut text = Vec::new();
        loop {
            let plain = self.0.iter().position(|byte| matches!(byte, b'"' | b'\\'));
            let (plain, rest) = self.0.split_at(plain.ok_or("it ends inside quotes")?);
            text.extend_from_slice(plain);
            self.0 = match rest {
                [b'\\', byte, rest @ ..] => {
                    text.push(*byte);
                    rest
                }
                [b'"', b'"', rest @ ..] if doubles => {
                    text.push(b'"');
                    rest
                }
                [b'"', rest @ ..] => {
                    self.0 = rest;
                    return Ok(text);
                }
                _ => return Err("it ends inside quotes".into()),
            };
        }
    }
}

fn parsed<T: FromStr>(kind: Kind, text: &[u8]) -> Result<T, String> {
    let parsed = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    parsed.ok_or_else(|| unreadable(kind, text))
}

fn unreadable(kind: Kind, text: &[u8]) -> String {
    format!("{}: its text {} cannot be read", kind.name(), shown(text))
}

fn shown(text: &[u8]) -> String {
    format!("{:?}", String::from_utf8_lossy(&text[..text.len().min(40)]))
}
