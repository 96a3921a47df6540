//! Types against the documented bytes, and laws over any.

use super::kind::{ext, range};
use super::*;
use crate::value::{Reader, Token, write};

mod documented;
mod laws;
mod parameters;

/// A MessagePack value.
#[derive(Clone, Debug, PartialEq)]
enum Value {
    Nil,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(String),
    Bin(Vec<u8>),
    Array(Vec<Value>),
    Ext(i8, Vec<u8>),
    /// Flags and bounds of ext 24.
    Range(u8, Vec<Value>),
    /// Ext 25.
    Multirange(Vec<Value>),
}

impl Value {
    fn pack(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out);
        out
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Value::Nil => write::nil(out),
            Value::Bool(value) => write::bool(out, *value),
            Value::Int(value) => write::int(out, *value),
            Value::Float(value) => write::float(out, *value),
            Value::Str(text) => write::str(out, text.as_bytes()),
            Value::Bin(bytes) => write::bin(out, bytes),
            Value::Ext(number, bytes) => write::ext(out, *number, bytes),
            Value::Array(items) => {
                write::array(out, items.len() as u32);
                items.iter().for_each(|item| item.write(out));
            }
            Value::Range(flags, bounds) => {
                let open = write::ext_open(out, ext::RANGE);
                write::array(out, 3);
                write::uint(out, u64::from(*flags));
                bounds.iter().for_each(|bound| bound.write(out));
                write::ext_close(out, open);
            }
            Value::Multirange(ranges) => {
                let open = write::ext_open(out, ext::MULTIRANGE);
                Value::Array(ranges.clone()).write(out);
                write::ext_close(out, open);
            }
        }
    }

    fn unpack(bytes: &[u8]) -> Value {
        let mut reader = Reader::new(bytes);
        let value = Value::read(&mut reader);
        assert!(reader.is_at_end());
        value
    }

    fn read(reader: &mut Reader<'_>) -> Value {
        match reader.token().unwrap() {
            Token::Nil => Value::Nil,
            Token::Bool(value) => Value::Bool(value),
            Token::Int(value) => Value::Int(value),
            Token::Float(value) => Value::Float(value),
            Token::Str(text) => Value::Str(String::from_utf8(text.to_vec()).unwrap()),
            Token::Bin(bytes) => Value::Bin(bytes.to_vec()),
            Token::Array(count) => Value::Array((0..count).map(|_| Value::read(reader)).collect()),
            Token::Ext(ext::RANGE, bytes) => match Value::unpack(bytes) {
                Value::Array(mut parts) => match parts.remove(0) {
                    Value::Int(flags) => Value::Range(flags as u8, parts),
                    other => panic!("{other:?}"),
                },
                other => panic!("{other:?}"),
            },
            Token::Ext(ext::MULTIRANGE, bytes) => match Value::unpack(bytes) {
                Value::Array(ranges) => Value::Multirange(ranges),
                other => panic!("{other:?}"),
            },
            Token::Ext(number, bytes) => Value::Ext(number, bytes.to_vec()),
            token => panic!("{token:?}"),
        }
    }
}

fn text(text: &str) -> Value {
    Value::Str(text.into())
}

fn ints(numbers: &[i64]) -> Value {
    Value::Array(numbers.iter().copied().map(Value::Int).collect())
}

fn numeric(text: &str) -> Value {
    Value::Ext(ext::NUMERIC, text.into())
}

fn micros(number: i8, us: i64) -> Value {
    Value::Ext(number, us.to_be_bytes().into())
}

const MOOD: Oid = 20_000;
const MOODS: Oid = 20_001;
const EVEN: Oid = 20_002;
const PAIR: Oid = 20_003;
const PAIRS: Oid = 20_004;
const NODE: Oid = 20_005;
const CITEXT: Oid = 20_007;
const CITEXTS: Oid = 20_008;
const FLOATRANGE: Oid = 20_009;
const FLOATMULTIRANGE: Oid = 20_010;
const PLACE: Oid = 20_011;
const GONE: Oid = 20_012;

/// As a server would tell them that has: an enum `mood`, a domain `even` over int4, a composite `pair` of an int4 and a
/// text, a table `node` of an int4 and an array of nodes, an extension's `citext`, a range of float8, and a composite of a
/// pair and a point.
fn learnt() -> Types {
    let mut types = Types::new();
    for row in [
        "20000|mood|e|E|,|0|0||",
        "20001|_mood|b|A|,|20000|0||",
        "20002|even|d|N|,|0|23||",
        "20003|pair|c|C|,|0|0||20002 25",
        "20004|_pair|b|A|,|20003|0||",
        "20005|node|c|C|,|0|0||23 20006",
        "20006|_node|b|A|,|20005|0||",
        "20007|citext|b|S|,|0|0||",
        "20008|_citext|b|A|,|20007|0||",
        "20009|floatrange|r|R|,|0|0|701|",
        "20010|floatmultirange|m|R|,|0|0|20009|",
        "20011|place|c|C|,|0|0||20003 600",
        "20012||||||||",
    ] {
        let cells: Vec<Option<&[u8]>> =
            row.split('|').map(|cell| (!cell.is_empty()).then_some(cell.as_bytes())).collect();
        types.learn(&cells).unwrap();
    }
    types
}

fn decoded(types: &Types, oid: Oid, format: i16, bytes: &[u8]) -> Value {
    let mut out = Vec::new();
    types.decode(oid, format, bytes, &mut out).unwrap_or_else(|error| panic!("{}: {error}", types.name(oid)));
    Value::unpack(&out)
}

fn refused(types: &Types, oid: Oid, format: i16, bytes: &[u8]) -> String {
    let mut out = b"before".to_vec();
    let error = types.decode(oid, format, bytes, &mut out).unwrap_err();
    assert_eq!(out, b"before");
    error
}

fn encoded(types: &Types, oid: Oid, value: &Value) -> (i16, Vec<u8>) {
    let mut out = Vec::new();
    let format = types.encode(oid, &value.pack(), &mut out);
    (format.unwrap_or_else(|error| panic!("{}: {error}", types.name(oid))), out)
}

#[test]
fn what_is_missing_is_told_with_all_its_parts() {
    let mut types = Types::new();
    assert_eq!(types.missing([23, 1007, 0, PAIRS, PAIRS].into_iter()), [PAIRS]);
    types
        .learn(&[Some(b"20004"), Some(b"_pair"), Some(b"b"), Some(b"A"), None, Some(b"20003"), None, None, None])
        .unwrap();
    assert_eq!(types.missing([PAIRS].into_iter()), [PAIR]);
    assert_eq!(learnt().missing([PAIRS, NODE, PLACE, FLOATMULTIRANGE, GONE].into_iter()), [0; 0]);
}

#[test]
fn names_and_formats() {
    let types = learnt();
    for (oid, name, format) in [
        (23, "int4", 1),
        (1007, "_int4", 1),
        (2205, "regclass", 0),
        (2210, "_regclass", 0),
        (600, "point", 0),
        (1017, "_point", 0),
        (3904, "int4range", 1),
        (6150, "_int4multirange", 1),
        (2249, "record", 1),
        (MOOD, "mood", 1),
        (MOODS, "_mood", 1),
        (EVEN, "even", 1),
        (PAIR, "pair", 1),
        (PAIRS, "_pair", 1),
        (NODE, "node", 1),
        (CITEXT, "citext", 0),
        (CITEXTS, "_citext", 0),
        (FLOATMULTIRANGE, "floatmultirange", 1),
        (PLACE, "place", 0),
        (GONE, "unknown", 0),
        (99_999, "unknown", 0),
    ] {
        assert_eq!((types.name(oid), types.format(oid)), (name, format));
    }
}

#[test]
fn rows_of_the_catalog_that_make_no_sense_are_refused() {
    let mut types = Types::new();
    assert!(types.learn(&[None; 8]).unwrap_err().contains("8 columns given, 9 expected"));
    assert!(types.learn(&[None; 9]).unwrap_err().contains("given as oid"));
    let row = [Some(&b"20000"[..]), Some(b"x"), Some(b"d"), Some(b"N"), None, Some(b"0"), Some(b"no"), None, None];
    assert_eq!(types.learn(&row).unwrap_err(), "catalog of types: \"no\" given as base, a number expected");
    // What every server has is not learnt.
    let row = [Some(&b"23"[..]), Some(b"x"), Some(b"e"), None, None, None, None, None, None];
    types.learn(&row).unwrap();
    assert_eq!(types.name(23), "int4");
}
