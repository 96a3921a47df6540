//! From the binary form to MessagePack.

use super::civil::{EPOCH_DAYS, EPOCH_US, write_moment};
use super::cursor::Cursor;
use super::kind::{Kind, ext, range};
use super::{DEPTH_MAX, EXPANSION_FREE, EXPANSION_MAX, Oid, Types, network, numeric, table};
use crate::value::write;

/// PostgreSQL's own limit (`MAXDIM` in `utils/array.h`).
const DIMENSIONS_MAX: usize = 6;

impl Types {
    /// Appends one MessagePack value: `bytes` is a value of this type in that format, 0 text and 1 binary. NULL, which has no
    /// bytes, is the caller's. After an error `out` is as it was.
    #[inline]
    pub fn decode(&self, oid: Oid, format: i16, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
        let start = out.len();
        let end_max = start.saturating_add(bytes.len().saturating_mul(EXPANSION_MAX)).saturating_add(EXPANSION_FREE);
        let kind = self.base(oid);
        let mut decoder = Decoder { types: self, out, end_max };
        let done = match format {
            1 => decoder.binary(oid, kind, bytes, 0),
            0 => decoder.text(oid, kind, bytes, 0),
            _ => Err(format!("{}: format {format} given, 0 or 1 expected", self.name(oid))),
        };
        if done.is_err() {
            out.truncate(start);
        }
        done
    }
}

/// One value on its way out.
pub struct Decoder<'a> {
    pub types: &'a Types,
    pub out: &'a mut Vec<u8>,
    /// How long `out` may become.
    end_max: usize,
}

impl Decoder<'_> {
    /// `kind`: the one below domains.
    pub fn binary(&mut self, oid: Oid, kind: Kind, bytes: &[u8], depth: usize) -> Result<(), String> {
        match kind {
            Kind::Bool => write::bool(self.out, exactly::<1>(kind, bytes)? != [0]),
            Kind::Int2 => write::int(self.out, i64::from(i16::from_be_bytes(exactly(kind, bytes)?))),
            Kind::Int4 => write::int(self.out, i64::from(i32::from_be_bytes(exactly(kind, bytes)?))),
            Kind::Int8 => write::int(self.out, i64::from_be_bytes(exactly(kind, bytes)?)),
            Kind::Unsigned4 | Kind::Registry => {
                write::uint(self.out, u64::from(u32::from_be_bytes(exactly(kind, bytes)?)));
            }
            Kind::Unsigned8 => write::uint(self.out, u64::from_be_bytes(exactly(kind, bytes)?)),
            Kind::Float4 => write::float(self.out, f64::from(f32::from_be_bytes(exactly(kind, bytes)?))),
            Kind::Float8 => write::float(self.out, f64::from_be_bytes(exactly(kind, bytes)?)),
            Kind::Text => write::str(self.out, bytes),
            Kind::Char => self.char(exactly::<1>(kind, bytes)?[0]),
            Kind::Jsonb => match bytes {
                [1, text @ ..] => write::str(self.out, text),
                [version, ..] => return Err(format!("jsonb: version {version} given, 1 expected")),
                [] => return Err("jsonb: no bytes given".into()),
            },
            Kind::Bytea => write::bin(self.out, bytes),
            Kind::Uuid => write::ext(self.out, ext::UUID, &exactly::<16>(kind, bytes)?),
            Kind::Void => write::nil(self.out),
            Kind::Numeric => self.numeric(bytes)?,
            Kind::Date | Kind::Time | Kind::Timetz | Kind::Timestamp | Kind::Timestamptz | Kind::Interval => {
                self.moment(kind, bytes)?;
            }
            Kind::Inet | Kind::Macaddr | Kind::Bit => self.network(kind, bytes)?,
            Kind::Array(_) | Kind::Vector(_) => self.array(bytes, depth)?,
            Kind::Record | Kind::Composite => self.composite(bytes, deeper(depth, 1)?)?,
            Kind::Range(subtype) => self.range(subtype, bytes, deeper(depth, 1)?)?,
            Kind::Multirange(range) => self.multirange(range, bytes, deeper(depth, 1)?)?,
            Kind::Spelled | Kind::Domain(_) => self.foreign(oid, bytes),
        }
        Ok(())
    }

    /// As PostgreSQL 16 writes what is not ASCII; its zero byte is empty text.
    fn char(&mut self, byte: u8) {
        match byte {
            0 => write::str(self.out, b""),
            1..0x80 => write::str(self.out, &[byte]),
            _ => write::str(self.out, &[b'\\', b'0' + (byte >> 6), b'0' + (byte >> 3 & 7), b'0' + (byte & 7)]),
        }
    }

    fn numeric(&mut self, bytes: &[u8]) -> Result<(), String> {
        let open = write::ext_open(self.out, ext::NUMERIC);
        numeric::decode(bytes, self.end_max.saturating_sub(self.out.len()), self.out)?;
        write::ext_close(self.out, open);
        Ok(())
    }

    fn moment(&mut self, kind: Kind, bytes: &[u8]) -> Result<(), String> {
        match kind {
            Kind::Date => {
                let days = match i32::from_be_bytes(exactly(kind, bytes)?) {
                    days @ (i32::MAX | i32::MIN) => days,
                    days => {
                        days.checked_add(EPOCH_DAYS).filter(|days| *days != i32::MAX).ok_or("date: out of range")?
                    }
                };
                write::ext(self.out, ext::DATE, &days.to_be_bytes());
            }
            Kind::Time => write::ext(self.out, ext::TIME, &exactly::<8>(kind, bytes)?),
            Kind::Timetz => {
                let mut cursor = Cursor::new("timetz", bytes);
                let us: [u8; 8] = cursor.array()?;
                // The wire has seconds west of UTC.
                let east_s = cursor.i32()?.checked_neg().ok_or("timetz: its offset is out of range")?;
                cursor.end()?;
                let [a, b, c, d, e, f, g, h] = us;
                let [i, j, k, l] = east_s.to_be_bytes();
                write::ext(self.out, ext::TIMETZ, &[a, b, c, d, e, f, g, h, i, j, k, l]);
            }
            Kind::Interval => {
                let mut cursor = Cursor::new("interval", bytes);
                let (us, days, months) = (cursor.array::<8>()?, cursor.i32()?, cursor.i32()?);
                cursor.end()?;
                let mut payload = [0; 16];
                payload[..4].copy_from_slice(&months.to_be_bytes());
                payload[4..8].copy_from_slice(&days.to_be_bytes());
                payload[8..].copy_from_slice(&us);
                write::ext(self.out, ext::INTERVAL, &payload);
            }
            _ => self.timestamp(kind == Kind::Timestamptz, i64::from_be_bytes(exactly(kind, bytes)?)),
        }
        Ok(())
    }

    fn timestamp(&mut self, utc: bool, since_2000: i64) {
        let since_1970 = match since_2000 {
            infinite @ (i64::MAX | i64::MIN) => Some(infinite),
            us => us.checked_add(EPOCH_US).filter(|us| *us != i64::MAX),
        };
        match since_1970 {
            Some(us) => {
                write::ext(self.out, if utc { ext::TIMESTAMPTZ } else { ext::TIMESTAMP }, &us.to_be_bytes());
            }
            None => {
                let mut text = Vec::new();
                write_moment(&mut text, i128::from(since_2000) + i128::from(EPOCH_US), utc);
                write::str(self.out, &text);
            }
        }
    }

    fn network(&mut self, kind: Kind, bytes: &[u8]) -> Result<(), String> {
        let mut text = Vec::new();
        match kind {
            Kind::Inet => network::inet(bytes, &mut text)?,
            Kind::Macaddr => network::mac(bytes, &mut text)?,
            _ => network::bits(bytes, &mut text)?,
        }
        write::str(self.out, &text);
        Ok(())
    }

    /// Dimensions, whether there are NULLs, the element's type, size and lower bound of each dimension, elements
    /// (`array_send` in `utils/adt/arrayfuncs.c`).
    fn array(&mut self, bytes: &[u8], depth: usize) -> Result<(), String> {
        let mut cursor = Cursor::new("array", bytes);
        let dimensions = cursor.i32()?;
        let _has_nulls = cursor.i32()?;
        let element = cursor.u32()?;
        let dimensions = match usize::try_from(dimensions) {
            Ok(count) if count <= DIMENSIONS_MAX => count,
            _ => return Err(format!("array: {dimensions} dimensions given, 0 to {DIMENSIONS_MAX} expected")),
        };
        let mut sizes = [0; DIMENSIONS_MAX];
        let mut total = 1_usize;
        for size in &mut sizes[..dimensions] {
            let given = cursor.i32()?;
            let _lower_bound = cursor.i32()?;
            *size = u32::try_from(given).unwrap_or(u32::MAX);
            total = total.saturating_mul(*size as usize);
        }
        let depth = deeper(depth, dimensions.max(1))?;
        // Vectors without elements have a dimension nonetheless.
        if dimensions == 0 || total == 0 {
            write::array(self.out, 0);
            return cursor.end();
        }
        // An element takes four bytes at least.
        if total > cursor.left() / 4 {
            return Err(format!("array: {total} elements given in {} bytes", cursor.left()));
        }
        let kind = self.types.base(element);
        self.dimension(&sizes[..dimensions], (element, kind), &mut cursor, depth)?;
        cursor.end()
    }

    fn dimension(
        &mut self,
        sizes: &[u32],
        (element, kind): (Oid, Kind),
        cursor: &mut Cursor<'_>,
        depth: usize,
    ) -> Result<(), String> {
        let [size, inner @ ..] = sizes else { return Ok(()) };
        write::array(self.out, *size);
        for _ in 0..*size {
            if !inner.is_empty() {
                self.dimension(inner, (element, kind), cursor, depth)?;
                continue;
            }
            match cursor.counted()? {
                None => write::nil(self.out),
                Some(bytes) => self.binary(element, kind, bytes, depth)?,
            }
        }
        Ok(())
    }

    /// How many fields, then the type and the bytes of each (`record_send` in `utils/adt/rowtypes.c`).
    fn composite(&mut self, bytes: &[u8], depth: usize) -> Result<(), String> {
        let mut cursor = Cursor::new("composite", bytes);
        let count = cursor.count(8)?;
        write::array(self.out, count);
        for _ in 0..count {
            let oid = cursor.u32()?;
            match cursor.counted()? {
                None => write::nil(self.out),
                Some(bytes) => self.binary(oid, self.types.base(oid), bytes, depth)?,
            }
        }
        cursor.end()
    }

    /// Flags, then the bounds that it has (`range_send` in `utils/adt/rangetypes.c`).
    fn range(&mut self, subtype: Oid, bytes: &[u8], depth: usize) -> Result<(), String> {
        let mut cursor = Cursor::new("range", bytes);
        let flags = cursor.u8()?;
        let kind = self.types.base(subtype);
        let open = write::ext_open(self.out, ext::RANGE);
        write::array(self.out, 3);
        write::uint(self.out, u64::from(flags));
        for has in [range::has_lower(flags), range::has_upper(flags)] {
            if !has {
                write::nil(self.out);
                continue;
            }
            let bound = cursor.counted()?.ok_or("range: NULL given as a bound")?;
            self.binary(subtype, kind, bound, depth)?;
        }
        write::ext_close(self.out, open);
        cursor.end()
    }

    /// How many ranges, then they (`multirange_send` in `utils/adt/multirangetypes.c`).
    fn multirange(&mut self, range: Oid, bytes: &[u8], depth: usize) -> Result<(), String> {
        let subtype = self.types.subtype(range)?;
        let mut cursor = Cursor::new("multirange", bytes);
        let count = cursor.count(5)?;
        let open = write::ext_open(self.out, ext::MULTIRANGE);
        write::array(self.out, count);
        for _ in 0..count {
            let bytes = cursor.counted()?.ok_or("multirange: NULL given as a range")?;
            self.range(subtype, bytes, depth)?;
        }
        write::ext_close(self.out, open);
        cursor.end()
    }

    /// The binary form of a type that is known by its text alone, or not at all: part of a record.
    fn foreign(&mut self, oid: Oid, bytes: &[u8]) {
        let is_text = table::built_in(oid).is_none() && !bytes.contains(&0) && std::str::from_utf8(bytes).is_ok();
        match is_text {
            true => write::str(self.out, bytes),
            false => write::bin(self.out, bytes),
        }
    }
}

impl Types {
    /// Of the ranges of a multirange.
    pub(super) fn subtype(&self, range: Oid) -> Result<Oid, String> {
        match self.base(range) {
            Kind::Range(subtype) => Ok(subtype),
            _ => Err(format!("multirange: the type {range} of its ranges is not known")),
        }
    }
}

pub fn deeper(depth: usize, levels: usize) -> Result<usize, String> {
    let depth = depth + levels;
    if depth > DEPTH_MAX { Err(format!("it nests deeper than {DEPTH_MAX} levels")) } else { Ok(depth) }
}

#[inline]
fn exactly<const N: usize>(kind: Kind, bytes: &[u8]) -> Result<[u8; N], String> {
    match <[u8; N]>::try_from(bytes) {
        Ok(array) => Ok(array),
        Err(_) => Err(format!("{}: {} bytes given, {N} expected", kind.name(), bytes.len())),
    }
}
