//! The values of PostgreSQL's types: binary and text on the wire, MessagePack in the program's hands.
//!
//! | PostgreSQL | MessagePack |
//! |---|---|
//! | bool | boolean |
//! | int2, int4, int8, oid, xid, cid, xid8 | int |
//! | float4, float8 | float |
//! | text, varchar, bpchar, name, "char", json, jsonb, xml, enums, inet, cidr, macaddr, bit, varbit | str |
//! | bytea | bin |
//! | numeric, dates, times, interval, uuid, ranges, multiranges | the ext types of [`kind::ext`] |
//! | arrays, int2vector, oidvector | array, nested for each dimension, nil for NULL; lower bounds are not told |
//! | composites, record | array of the fields, nil for NULL |
//! | domains | as the type below |
//! | void | nil |
//! | everything else: money, geometry, text search, regclass and the like, types of extensions | str, its text |
//!
//! A timestamp that an i64 of microseconds since 1970 cannot hold (after 294247-01-10) is str, in ISO spelling.
//!
//! Columns are asked for in binary where [`Types::format`] says so. The simple protocol has text alone, which is read
//! here too; dates and times need `DateStyle` ISO and `IntervalStyle` postgres, the defaults, and are str in any other
//! spelling. The fields of an anonymous record have no types in text, so each of them is str.
//!
//! In binary such a record names its fields' types. Those that were never learnt are str if they are UTF-8 without a zero
//! byte and bin if not; those with text alone are bin, except regclass and the like, whose oids are ints.
//!
//! Parameters take the same values and, where that is exact, others: see [`Types::encode`].
//!
//! Sources: PostgreSQL 15 documentation, chapter 8 ("Data Types") and 55 ("Frontend/Backend Protocol"); the binary forms
//! are those of the `*_send` and `*_recv` functions in PostgreSQL's `src/backend/utils/adt`.
//!
//! # Architecture invariants
//! No bytes panic. Nesting is bounded by [`DEPTH_MAX`], what one value takes as MessagePack by [`EXPANSION_MAX`].

use std::collections::HashMap;

mod catalog;
mod civil;
mod cursor;
mod decode;
mod encode;
pub mod kind;
mod literal;
mod network;
mod numeric;
mod spelling;
mod table;
#[cfg(test)]
mod tests;

use kind::Kind;

/// The number of a type in `pg_type`.
pub type Oid = u32;

/// How deep values nest: each dimension of an array, each composite and each range is one level.
pub const DEPTH_MAX: usize = 24;

/// What one value may take as MessagePack: so many bytes for each of its bytes, and [`EXPANSION_FREE`] besides. Only
/// numerics grow so much: ten bytes can stand for 131,072 digits.
pub const EXPANSION_MAX: usize = 64;
pub const EXPANSION_FREE: usize = 16 << 20;

/// More types than this are not learnt.
const LEARNT_MAX: usize = 1 << 16;

/// What is known of types: those that every server has, and those that were learnt of one server.
#[derive(Debug, Default)]
pub struct Types {
    learnt: HashMap<Oid, Learnt>,
}

#[derive(Debug)]
struct Learnt {
    name: Box<str>,
    kind: Kind,
    /// Separates the elements of an array of this type in its text.
    delimiter: u8,
    /// Of a composite.
    fields: Box<[Oid]>,
}

impl Types {
    pub fn new() -> Self {
        Types::default()
    }

    /// The name of a type, without its schema; `unknown` where it was not learnt.
    pub fn name(&self, oid: Oid) -> &str {
        match table::built_in(oid) {
            Some(row) => row.name,
            None => self.learnt.get(&oid).map_or("unknown", |learnt| &learnt.name),
        }
    }

    #[inline]
    fn kind(&self, oid: Oid) -> Option<Kind> {
        match table::built_in(oid) {
            Some(row) => Some(row.kind),
            None => self.learnt.get(&oid).map(|learnt| learnt.kind),
        }
    }

    /// The kind below domains. Types that are not known are spelled.
    #[inline]
    fn base(&self, oid: Oid) -> Kind {
        let mut kind = self.kind(oid);
        // A chain of domains is as long as the catalog has it, and no circle.
        for _ in 0..DEPTH_MAX {
            match kind {
                Some(Kind::Domain(below)) => kind = self.kind(below),
                known => return known.unwrap_or(Kind::Spelled),
            }
        }
        Kind::Spelled
    }

    fn delimiter(&self, element: Oid) -> u8 {
        match self.learnt.get(&element) {
            Some(learnt) => learnt.delimiter,
            None => table::delimiter(element),
        }
    }

    fn fields(&self, composite: Oid) -> &[Oid] {
        let mut oid = composite;
        for _ in 0..DEPTH_MAX {
            match self.learnt.get(&oid) {
                Some(Learnt { kind: Kind::Domain(below), .. }) => oid = *below,
                Some(learnt) => return &learnt.fields,
                None => break,
            }
        }
        &[]
    }

    /// What Bind asks a column in: 1, binary, where every part of such values has a binary form that is known here, else
    /// 0, text.
    pub fn format(&self, oid: Oid) -> i16 {
        i16::from(self.is_binary(oid, &mut Vec::new()))
    }

    /// `seen`: types that were looked at. PostgreSQL has none that contains itself, and what a stranger tells ends too.
    fn is_binary(&self, oid: Oid, seen: &mut Vec<Oid>) -> bool {
        match self.base(oid) {
            Kind::Spelled | Kind::Registry => false,
            Kind::Array(0) => true,
            Kind::Array(part) | Kind::Vector(part) | Kind::Range(part) | Kind::Multirange(part) => {
                self.is_binary(part, seen)
            }
            Kind::Composite => {
                if seen.contains(&oid) {
                    return true;
                }
                seen.push(oid);
                self.fields(oid).iter().all(|field| self.is_binary(*field, seen))
            }
            _ => true,
        }
    }
}
