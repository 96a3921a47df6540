//! Values on the wire and in MessagePack.
use crate::value::{Reader, Token, write};

/// The number of a type.
pub type Oid = u32;

/// The types that are known.
pub struct Types;

impl Types {
    /// Replaced: `{OIDS}`.
    pub const QUERY: &'static str = "select oid, typname from pg_catalog.pg_type where oid in ({OIDS})";

    pub fn new() -> Self {
        Types
    }

    pub fn missing(&self, _oids: impl Iterator<Item = Oid>) -> Vec<Oid> {
        Vec::new()
    }

    pub fn learn(&mut self, _row: &[Option<&[u8]>]) -> Result<(), String> {
        Ok(())
    }

    pub fn name(&self, oid: Oid) -> &str {
        match oid {
            16 => "bool",
            20 => "int8",
            23 => "int4",
            25 => "text",
            701 => "float8",
            _ => "unknown",
        }
    }

    pub fn format(&self, oid: Oid) -> i16 {
        i16::from(matches!(oid, 16 | 20 | 23 | 25 | 701))
    }

    pub fn decode(&self, oid: Oid, format: i16, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
        let text = || std::str::from_utf8(bytes).map_err(|_| "no UTF-8".to_string());
        match (oid, format, bytes) {
            (16, 1, [byte]) => write::bool(out, *byte != 0),
            (16, 0, _) => write::bool(out, bytes == b"t"),
            (20, 1, _) => write::int(out, i64::from_be_bytes(bytes.try_into().map_err(|_| "not 8 bytes")?)),
            (23, 1, _) => write::int(out, i64::from(i32::from_be_bytes(bytes.try_into().map_err(|_| "not 4 bytes")?))),
            (20 | 23, 0, _) => write::int(out, text()?.parse().map_err(|_| "no integer")?),
            (701, 1, _) => write::float(out, f64::from_be_bytes(bytes.try_into().map_err(|_| "not 8 bytes")?)),
            (701, 0, _) => write::float(out, text()?.parse().map_err(|_| "no number")?),
            (16 | 701, ..) => return Err("not one byte".into()),
            _ => write::str(out, text()?.as_bytes()),
        }
        Ok(())
    }

    pub fn encode(&self, oid: Oid, value: &[u8], out: &mut Vec<u8>) -> Result<i16, String> {
        match (oid, Reader::new(value).token().map_err(|error| error.to_string())?) {
            (_, Token::Str(text)) => {
                out.extend_from_slice(text);
                return Ok(0);
            }
            (16, Token::Bool(value)) => out.push(u8::from(value)),
            (20, Token::Int(value)) => out.extend_from_slice(&value.to_be_bytes()),
            (23, Token::Int(value)) => {
                let value = i32::try_from(value).map_err(|_| format!("{value}: expected int4"))?;
                out.extend_from_slice(&value.to_be_bytes());
            }
            (701, Token::Float(value)) => out.extend_from_slice(&value.to_be_bytes()),
            (oid, other) => return Err(format!("{}: expected {}", other.kind(), self.name(oid))),
        }
        Ok(1)
    }
}
