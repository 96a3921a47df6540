//! MessagePack for tests: requests from words, values from payloads.

use iokernel::ring::layout::IOK_EXT_VERBATIM;
use iokernel::value::{Reader, Token, write};

/// A value as a test compares it.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Nil,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Float(f64),
    Text(String),
    Bytes(Vec<u8>),
    Array(Vec<Value>),
    Map(Vec<(Value, Value)>),
    Ext(i8, Vec<u8>),
}

impl Value {
    /// Text or bytes, as text.
    pub fn text(&self) -> String {
        match self {
            Value::Text(text) => text.clone(),
            Value::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            // Text with a format, `txt:...`.
            Value::Ext(IOK_EXT_VERBATIM, bytes) => String::from_utf8_lossy(&bytes[4..]).into_owned(),
            other => panic!("expected text, got {other:?}"),
        }
    }

    pub fn int(&self) -> i64 {
        match self {
            Value::Int(number) => *number,
            other => panic!("expected a number, got {other:?}"),
        }
    }

    pub fn items(&self) -> &[Value] {
        match self {
            Value::Array(items) => items,
            other => panic!("expected an array, got {other:?}"),
        }
    }

    /// The value of a text key of a map.
    pub fn at(&self, key: &str) -> &Value {
        let Value::Map(pairs) = self else { panic!("expected a map, got {self:?}") };
        let found = pairs.iter().find(|(name, _)| *name == Value::Text(key.into()));
        &found.unwrap_or_else(|| panic!("no {key} in {self:?}")).1
    }
}

/// `["GET", "key"]`, each word as bin.
pub fn request<W: AsRef<[u8]>>(words: &[W]) -> Vec<u8> {
    let mut out = Vec::new();
    write::array(&mut out, words.len() as u32);
    for word in words {
        write::bin(&mut out, word.as_ref());
    }
    out
}

/// Reads exactly one value.
pub fn read(bytes: &[u8]) -> Value {
    let mut reader = Reader::new(bytes);
    let value = next(&mut reader);
    assert!(reader.is_at_end(), "bytes follow the value in {bytes:?}");
    value
}

fn next(reader: &mut Reader<'_>) -> Value {
    match reader.token().expect("a payload is MessagePack") {
        Token::Nil => Value::Nil,
        Token::Bool(value) => Value::Bool(value),
        Token::Int(number) => Value::Int(number),
        Token::Uint(number) => Value::Uint(number),
        Token::Float(number) => Value::Float(number),
        Token::Str(text) => Value::Text(String::from_utf8_lossy(text).into_owned()),
        Token::Bin(bytes) => Value::Bytes(bytes.to_vec()),
        Token::Ext(kind, bytes) => Value::Ext(kind, bytes.to_vec()),
        Token::Array(count) => Value::Array((0..count).map(|_| next(reader)).collect()),
        Token::Map(count) => Value::Map((0..count).map(|_| (next(reader), next(reader))).collect()),
    }
}
