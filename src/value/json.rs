//! MessagePack as JSON, for people.

use serde_json::{Map, Value};

use super::{Malformed, Reader, Token};
use crate::ring::layout::{IOK_EXT_BIG_NUMBER, IOK_EXT_ERROR};

/// Deeper than anything that is shown; what is deeper is not.
const DEPTH_MAX: usize = 32;

/// One MessagePack value as JSON. Bytes become text, with U+FFFD for what is not UTF-8; a number that JSON has no word
/// for becomes null; keys become text; an error inside of a value becomes `{"error": [code, message]}`.
pub fn to_json(bytes: &[u8]) -> Result<Value, Malformed> {
    let mut reader = Reader::new(bytes);
    let value = read(&mut reader, DEPTH_MAX)?;
    if reader.is_at_end() { Ok(value) } else { Err(reader.malformed("bytes follow the value")) }
}

fn read(reader: &mut Reader<'_>, depth: usize) -> Result<Value, Malformed> {
    let token = reader.token()?;
    let within = || depth.checked_sub(1).ok_or_else(|| reader.malformed("it nests too deep"));
    Ok(match token {
        Token::Nil => Value::Null,
        Token::Bool(flag) => flag.into(),
        Token::Int(number) => number.into(),
        Token::Uint(number) => number.into(),
        Token::Float(number) => number.into(),
        Token::Str(text) | Token::Bin(text) => lossy(text),
        Token::Ext(kind, payload) => ext(kind, payload, within()?),
        Token::Array(count) => {
            let depth = within()?;
            // No room is reserved: the count is not to be believed.
            let mut members = Vec::new();
            for _ in 0..count {
                members.push(read(reader, depth)?);
            }
            members.into()
        }
        Token::Map(count) => {
            let depth = within()?;
            let mut members = Map::new();
            for _ in 0..count {
                let key = match read(reader, depth)? {
                    Value::String(text) => text,
                    other => other.to_string(),
                };
                members.insert(key, read(reader, depth)?);
            }
            members.into()
        }
    })
}

fn lossy(text: &[u8]) -> Value {
    String::from_utf8_lossy(text).into()
}

fn ext(kind: i8, payload: &[u8], depth: usize) -> Value {
    if kind == IOK_EXT_BIG_NUMBER {
        return lossy(payload);
    }
    let mut reader = Reader::new(payload);
    let inner = read(&mut reader, depth).ok().filter(|_| reader.is_at_end());
    match (kind, inner) {
        (IOK_EXT_ERROR, Some(inner)) => serde_json::json!({ "error": inner }),
        (_, Some(inner)) => inner,
        (kind, None) => serde_json::json!({ "ext": kind, "bytes": payload.len() }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::write;
    use super::*;

    fn shown(build: impl FnOnce(&mut Vec<u8>)) -> Value {
        let mut bytes = Vec::new();
        build(&mut bytes);
        to_json(&bytes).unwrap()
    }

    #[test]
    fn each_kind_has_its_json() {
        assert_eq!(shown(write::nil), json!(null));
        assert_eq!(shown(|out| write::bool(out, true)), json!(true));
        assert_eq!(shown(|out| write::uint(out, u64::MAX)), json!(u64::MAX));
        assert_eq!(shown(|out| write::int(out, i64::MIN)), json!(i64::MIN));
        assert_eq!(shown(|out| write::float(out, 1.5)), json!(1.5));
        assert_eq!(shown(|out| write::float(out, f64::NAN)), json!(null));
        assert_eq!(shown(|out| write::str(out, "żółw".as_bytes())), json!("żółw"));
        assert_eq!(shown(|out| write::bin(out, b"a\xffb")), json!("a\u{fffd}b"));
        assert_eq!(shown(|out| write::error_ext(out, IOK_EXT_ERROR, b"ERR", b"no")), json!({ "error": ["ERR", "no"] }));
        let map = shown(|out| {
            write::map(out, 2);
            write::uint(out, 7);
            write::array(out, 1);
            write::str(out, b"x");
            write::str(out, b"k");
            write::nil(out);
        });
        assert_eq!(map, json!({ "7": ["x"], "k": null }));
    }

    #[test]
    fn what_is_cut_or_too_deep_is_an_error() {
        let deep = [vec![0x91; DEPTH_MAX + 1], vec![0xc0]].concat();
        assert_eq!(to_json(&deep).unwrap_err().what, "it nests too deep");
        assert!(to_json(&deep[1..]).is_ok());
        assert!(to_json(&[0x92, 0xc0]).is_err());
        assert!(to_json(&[0xc0, 0xc0]).is_err());
    }

    proptest! {
        #[test]
        fn no_input_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = to_json(&bytes);
        }
    }
}
