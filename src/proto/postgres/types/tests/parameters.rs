//! What parameters take besides what their type is decoded to.

use super::*;

fn spelled(oid: Oid, value: Value) -> String {
    let (format, bytes) = encoded(&learnt(), oid, &value);
    assert_eq!(format, 0);
    String::from_utf8(bytes).unwrap()
}

fn sent(oid: Oid, value: Value) -> Value {
    let types = learnt();
    let (format, bytes) = encoded(&types, oid, &value);
    assert_eq!(format, 1);
    decoded(&types, oid, 1, &bytes)
}

fn wrong(oid: Oid, value: Value) -> String {
    let mut out = b"before".to_vec();
    let error = learnt().encode(oid, &value.pack(), &mut out).unwrap_err();
    assert_eq!(out, b"before");
    error
}

#[test]
fn numbers_that_fit() {
    assert_eq!(sent(1700, Value::Int(-70_000)), numeric("-70000"));
    assert_eq!(sent(1700, Value::Float(0.1)), numeric("0.1"));
    assert_eq!(sent(1700, Value::Float(f64::NEG_INFINITY)), numeric("-Infinity"));
    assert_eq!(sent(1700, numeric("1.50E+3")), numeric("1500"));
    assert_eq!(sent(1700, numeric("-0E-3")), numeric("0.000"));
    assert_eq!(
        sent(1700, Value::Ext(ext::BIG_NUMBER, b"123456789012345678901".into())),
        numeric("123456789012345678901")
    );
    assert_eq!(sent(701, Value::Int(1 << 53)), Value::Float(9_007_199_254_740_992.0));
    assert_eq!(sent(700, Value::Float(0.1)), Value::Float(f64::from(0.1_f32)));
    assert_eq!(sent(26, Value::Int(4_294_967_295)), Value::Int(4_294_967_295));
    assert_eq!(spelled(23, numeric("5")), "5");
    assert_eq!(wrong(21, Value::Int(70_000)), "int 70000 given, int2 expected, which it does not fit");
    assert_eq!(wrong(26, Value::Int(-1)), "int -1 given, oid expected, which it does not fit");
    assert_eq!(
        wrong(701, Value::Int((1 << 53) + 1)),
        "int 9007199254740993 given, float8 expected, which it does not fit"
    );
    assert_eq!(wrong(700, Value::Int(16_777_217)), "int 16777217 given, float4 expected, which it does not fit");
    assert!(wrong(700, Value::Float(1e300)).ends_with("given, float4 expected, which it does not fit"));
    assert_eq!(wrong(23, Value::Float(1.0)), "float given, int4 expected");
    assert_eq!(wrong(16, Value::Int(1)), "int given, bool expected");
    assert_eq!(wrong(1700, numeric("1x")), "numeric: \"1x\" given, a decimal number expected");
    assert!(wrong(1700, numeric("1E131072")).contains("131073 digits before the point given, at most 131072"));
    assert!(wrong(1700, numeric("1E-16384")).contains("16384 digits after the point given, at most 16383"));
}

#[test]
fn text_for_every_type() {
    let types = learnt();
    for (oid, _) in table::all() {
        let (format, bytes) = encoded(&types, oid, &text("x"));
        assert_eq!(bytes, if oid == 3802 { &b"\x01x"[..] } else { b"x" });
        assert!(format == 0 || types.base(oid) == Kind::Text || oid == 3802);
    }
    assert_eq!(encoded(&types, 23, &text("")), (0, vec![]));
    assert_eq!(encoded(&types, 99_999, &text("x")), (0, b"x".into()));
}

#[test]
fn bytes() {
    assert_eq!(sent(25, Value::Bin("é".into())), text("é"));
    assert_eq!(sent(3802, Value::Bin(b"{}".into())), text("{}"));
    assert_eq!(sent(2950, Value::Bin(vec![7; 16])), Value::Ext(ext::UUID, vec![7; 16]));
    assert_eq!(wrong(25, Value::Bin(vec![0xff])), "bytes that are no UTF-8 given, text expected");
    assert_eq!(wrong(2950, Value::Bin(vec![7; 15])), "uuid: 15 bytes given, 16 expected");
    assert_eq!(spelled(99_999, Value::Bin(vec![0, 0xff])), "\\x00ff");
}

#[test]
fn moments_that_the_server_completes() {
    let date = Value::Ext(ext::DATE, 0_i32.to_be_bytes().into());
    assert_eq!(spelled(1114, date.clone()), "1970-01-01");
    assert_eq!(spelled(1184, date.clone()), "1970-01-01");
    assert_eq!(spelled(1184, micros(ext::TIMESTAMP, 1)), "1970-01-01 00:00:00.000001");
    assert_eq!(spelled(1266, micros(ext::TIME, 0)), "00:00:00");
    // An offset would be dropped in silence.
    assert_eq!(wrong(1114, micros(ext::TIMESTAMPTZ, 0)), "timestamptz given, timestamp expected");
    assert_eq!(wrong(1082, micros(ext::TIMESTAMP, 0)), "timestamp given, date expected");
    assert_eq!(wrong(25, date), "date given, text expected");
    assert_eq!(wrong(1114, Value::Ext(ext::TIMESTAMP, vec![0])), "timestamp: 1 bytes given, 8 expected");
}

#[test]
fn arrays_whose_members_must_be_parsed() {
    let mixed = vec![Value::Int(1), text("2"), Value::Nil];
    assert_eq!(spelled(1007, Value::Array(mixed)), "{\"1\",\"2\",NULL}");
    let nested = Value::Array(vec![Value::Array(vec![text("a\"\\")]), Value::Array(vec![text("b")])]);
    assert_eq!(spelled(CITEXTS, nested), "{{\"a\\\"\\\\\"},{\"b\"}}");
    assert_eq!(spelled(CITEXTS, Value::Array(vec![])), "{}");
    assert_eq!(
        spelled(1020, Value::Array(vec![text("(1,1),(0,0)"), text("(2,2),(1,1)")])),
        "{\"(1,1),(0,0)\";\"(2,2),(1,1)\"}"
    );
    assert_eq!(spelled(22, Value::Array(vec![text("1"), Value::Int(2)])), "1 2");
    assert_eq!(spelled(22, ints(&[])), "");
    let place = Value::Array(vec![Value::Array(vec![Value::Int(4), text("a\"")]), text("(1,2)")]);
    assert_eq!(spelled(PLACE, place.clone()), "(\"(\\\"4\\\",\\\"a\\\\\\\"\\\")\",\"(1,2)\")");
    assert_eq!(decoded(&learnt(), PLACE, 0, spelled(PLACE, place.clone()).as_bytes()), place);
    let range = Value::Range(range::LOWER_INCLUSIVE, vec![text("1"), Value::Nil]);
    assert_eq!(spelled(3904, range.clone()), "[\"1\",)");
    assert_eq!(spelled(4451, Value::Multirange(vec![range])), "{[\"1\",)}");
}

#[test]
fn shapes() {
    assert_eq!(sent(1007, Value::Array(vec![ints(&[]), ints(&[])])), ints(&[]));
    assert_eq!(wrong(23, ints(&[1])), "array given, int4 expected");
    assert_eq!(wrong(1007, Value::Int(1)), "int given, _int4 expected");
    assert_eq!(wrong(1007, Value::Array(vec![ints(&[1]), ints(&[])])), "an array of 0 in an array of arrays of 1");
    assert_eq!(wrong(1007, Value::Array(vec![ints(&[1]), Value::Nil])), "nil given beside arrays of 1 in an array");
    assert_eq!(wrong(1007, Value::Array(vec![Value::Nil, ints(&[1])])), "array given, int4 expected");
    assert_eq!(wrong(PAIR, ints(&[1])), "an array of 1 given, pair with 2 fields expected");
    assert_eq!(wrong(2249, ints(&[1])), "array given, record expected");
    assert_eq!(wrong(CITEXT, ints(&[1])), "array given, citext expected");
    assert_eq!(wrong(3904, Value::Ext(ext::RANGE, vec![0x90])), "range: [flags, lower, upper] expected");
    assert_eq!(wrong(3904, Value::Ext(99, vec![])), "ext 99 given, int4range expected");
    assert!(wrong(23, Value::Nil).starts_with("nil given"));
    let bound = Value::Range(range::EMPTY, vec![Value::Int(1), Value::Nil]);
    assert!(wrong(3904, bound).contains("nil for a bound that the flags 0x01 exclude"));
    let seven = (0..7).fold(Value::Int(1), |inner, _| Value::Array(vec![inner]));
    assert_eq!(wrong(1007, seven), "an array of more than 6 dimensions given");
    let ranges = vec![Value::Range(range::LOWER_INCLUSIVE, vec![Value::Int(1), Value::Int(2)])];
    assert_eq!(sent(4451, Value::Array(ranges.clone())), Value::Multirange(ranges));
    assert_eq!(wrong(4451, ints(&[1])), "multirange: int given, range expected");
    // A bound that is nil is infinite, whatever the flags say.
    let open = Value::Range(range::LOWER_INCLUSIVE | range::UPPER_INCLUSIVE, vec![Value::Nil, Value::Nil]);
    let all = Value::Range(range::LOWER_INFINITE | range::UPPER_INFINITE, vec![Value::Nil, Value::Nil]);
    assert_eq!(sent(3904, open), all);
}
