//! How a type's values look on the wire.

use super::Oid;

/// The shape of a type's values. What a shape consists of (fields of composites) is in [`super::Types`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Bool,
    Int2,
    Int4,
    Int8,
    /// Four bytes without sign: oid, xid, cid.
    Unsigned4,
    /// Eight bytes without sign: xid8.
    Unsigned8,
    Float4,
    Float8,
    /// The binary form is the text: strings, json, xml, enums.
    Text,
    /// `"char"`: one byte.
    Char,
    /// A version byte, then text.
    Jsonb,
    Bytea,
    Numeric,
    Date,
    Time,
    Timetz,
    Timestamp,
    Timestamptz,
    Interval,
    Uuid,
    /// inet and cidr.
    Inet,
    /// macaddr and macaddr8.
    Macaddr,
    /// bit and varbit.
    Bit,
    Void,
    /// regclass and the like: an oid in binary, a name in text. Asked for as text.
    Registry,
    /// Exchanged as text alone: its binary form is a matter between the server and itself.
    Spelled,
    /// Of elements of this type. 0: the value tells (anyarray).
    Array(Oid),
    /// int2vector and oidvector: arrays of one dimension that begin at 0.
    Vector(Oid),
    /// Values tell their fields themselves.
    Record,
    Composite,
    /// Over this type.
    Domain(Oid),
    /// Of this subtype.
    Range(Oid),
    /// Of ranges of this type.
    Multirange(Oid),
}

impl Kind {
    /// What a value of this kind is called where it is wrong.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Bool => "bool",
            Kind::Int2 => "int2",
            Kind::Int4 => "int4",
            Kind::Int8 => "int8",
            Kind::Unsigned4 => "oid",
            Kind::Unsigned8 => "xid8",
            Kind::Float4 => "float4",
            Kind::Float8 => "float8",
            Kind::Text => "text",
            Kind::Char => "\"char\"",
            Kind::Jsonb => "jsonb",
            Kind::Bytea => "bytea",
            Kind::Numeric => "numeric",
            Kind::Date => "date",
            Kind::Time => "time",
            Kind::Timetz => "timetz",
            Kind::Timestamp => "timestamp",
            Kind::Timestamptz => "timestamptz",
            Kind::Interval => "interval",
            Kind::Uuid => "uuid",
            Kind::Inet => "inet",
            Kind::Macaddr => "macaddr",
            Kind::Bit => "bit",
            Kind::Void => "void",
            Kind::Registry => "regclass and the like",
            Kind::Spelled => "a type spelled in text",
            Kind::Array(_) => "array",
            Kind::Vector(_) => "vector",
            Kind::Record => "record",
            Kind::Composite => "composite",
            Kind::Domain(_) => "domain",
            Kind::Range(_) => "range",
            Kind::Multirange(_) => "multirange",
        }
    }
}

/// MessagePack's ext types for what MessagePack itself has no word for. Payloads are big-endian.
pub mod ext {
    /// An integer of any size as decimal text; taken for numeric.
    pub const BIG_NUMBER: i8 = 2;
    /// Exact decimal text, `NaN`, `Infinity` or `-Infinity`.
    pub const NUMERIC: i8 = 16;
    /// i32, days since 1970-01-01; the largest and the smallest are infinity and -infinity.
    pub const DATE: i8 = 17;
    /// i64, microseconds since midnight.
    pub const TIME: i8 = 18;
    /// i64, microseconds since midnight; i32, seconds east of UTC.
    pub const TIMETZ: i8 = 19;
    /// i64, microseconds since 1970-01-01 00:00; the largest and the smallest are infinity and -infinity.
    pub const TIMESTAMP: i8 = 20;
    /// The same, in UTC.
    pub const TIMESTAMPTZ: i8 = 21;
    /// i32 months, i32 days, i64 microseconds.
    pub const INTERVAL: i8 = 22;
    /// 16 bytes.
    pub const UUID: i8 = 23;
    /// MessagePack `[flags, lower, upper]`; the flags are those of the wire ([`super::range`]).
    pub const RANGE: i8 = 24;
    /// MessagePack array of ext 24.
    pub const MULTIRANGE: i8 = 25;

    /// What an ext is called where it does not fit.
    pub fn name(kind: i8) -> &'static str {
        match kind {
            BIG_NUMBER => "big int",
            NUMERIC => "numeric",
            DATE => "date",
            TIME => "time",
            TIMETZ => "timetz",
            TIMESTAMP => "timestamp",
            TIMESTAMPTZ => "timestamptz",
            INTERVAL => "interval",
            UUID => "uuid",
            RANGE => "range",
            MULTIRANGE => "multirange",
            _ => "unknown ext",
        }
    }
}

/// Flags of a range (PostgreSQL's `utils/rangetypes.h`).
pub mod range {
    pub const EMPTY: u8 = 0x01;
    pub const LOWER_INCLUSIVE: u8 = 0x02;
    pub const UPPER_INCLUSIVE: u8 = 0x04;
    pub const LOWER_INFINITE: u8 = 0x08;
    pub const UPPER_INFINITE: u8 = 0x10;

    pub fn has_lower(flags: u8) -> bool {
        flags & (EMPTY | LOWER_INFINITE) == 0
    }

    pub fn has_upper(flags: u8) -> bool {
        flags & (EMPTY | UPPER_INFINITE) == 0
    }
}
