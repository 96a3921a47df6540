//! Bytes as PostgreSQL 15 sends them.

use super::*;

fn hex(digits: &str) -> Vec<u8> {
    let digits: Vec<u8> = digits.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

#[test]
fn scalars() {
    let types = learnt();
    for (oid, bytes, spelled, value) in [
        (16, "01", "t", Value::Bool(true)),
        (16, "00", "f", Value::Bool(false)),
        (21, "8000", "-32768", Value::Int(-32_768)),
        (23, "7fffffff", "2147483647", Value::Int(2_147_483_647)),
        (20, "8000000000000000", "-9223372036854775808", Value::Int(i64::MIN)),
        (26, "ffffffff", "4294967295", Value::Int(4_294_967_295)),
        (700, "3dcccccd", "0.1", Value::Float(f64::from(0.1_f32))),
        (701, "3fb999999999999a", "0.1", Value::Float(0.1)),
        (701, "fff0000000000000", "-Infinity", Value::Float(f64::NEG_INFINITY)),
        (25, "c3a9", "é", text("é")),
        (18, "61", "a", text("a")),
        (18, "00", "", text("")),
        (114, "7b7d", "{}", text("{}")),
        (3802, "01 7b7d", "{}", text("{}")),
        (17, "00ff", "\\x00ff", Value::Bin(vec![0, 255])),
        (17, "00ff5c61", "\\000\\377\\\\a", Value::Bin(vec![0, 255, 92, 97])),
        (2278, "", "", Value::Nil),
        (
            2950,
            "a0eebc999c0b4ef8bb6d6bb9bd380a11",
            "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
            Value::Ext(ext::UUID, hex("a0eebc999c0b4ef8bb6d6bb9bd380a11")),
        ),
        (MOOD, "6f6b", "ok", text("ok")),
        (EVEN, "00000004", "4", Value::Int(4)),
    ] {
        assert_eq!(decoded(&types, oid, 1, &hex(bytes)), value, "{spelled}");
        assert_eq!(decoded(&types, oid, 0, spelled.as_bytes()), value, "{spelled}");
    }
    assert_eq!(decoded(&types, 18, 1, &[0x80]), text("\\200"));
    assert_eq!(decoded(&types, CITEXT, 0, b"Ab"), text("Ab"));
    assert_eq!(decoded(&types, 600, 0, b"(1,2)"), text("(1,2)"));
    let Value::Float(nan) = decoded(&types, 701, 0, b"NaN") else { panic!() };
    assert!(nan.is_nan());
}

#[test]
fn numerics() {
    let types = Types::new();
    for (bytes, spelled) in [
        ("0000 0000 0000 0000", "0"),
        ("0000 0000 0000 0003", "0.000"),
        ("0001 0000 0000 0000 0001", "1"),
        ("0002 0000 4000 0002 000c 1388", "-12.50"),
        ("0002 0001 0000 0000 0001 0002", "10002"),
        ("0001 0002 0000 0000 0001", "100000000"),
        ("0001 ffff 0000 0004 0001", "0.0001"),
        ("0001 fffe 0000 0009 03e8", "0.000010000"),
        ("0001 fffe 0000 0005 03e8", "0.00001"),
        ("0003 0001 0000 0004 0001 0929 162e", "12345.5678"),
        ("0000 0000 c000 0000", "NaN"),
        ("0000 0000 d000 0000", "Infinity"),
        ("0000 0000 f000 0000", "-Infinity"),
    ] {
        assert_eq!(decoded(&types, 1700, 1, &hex(bytes)), numeric(spelled));
        assert_eq!(decoded(&types, 1700, 0, spelled.as_bytes()), numeric(spelled));
        assert_eq!(encoded(&types, 1700, &numeric(spelled)), (1, hex(bytes)), "{spelled}");
    }
    let longest = decoded(&types, 1700, 1, &hex("0001 7fff 0000 3fff 270f"));
    let Value::Ext(_, digits) = &longest else { panic!() };
    assert_eq!(digits.len(), 131_072 + 1 + 16_383);
    assert_eq!(encoded(&types, 1700, &longest).1, hex("0001 7fff 0000 3fff 270f"));
    // More digits than an i16 counts.
    let nines = numeric(&format!("{}.{}", "9".repeat(131_072), "9".repeat(16_383)));
    assert_eq!(decoded(&types, 1700, 1, &encoded(&types, 1700, &nines).1), nines);
}

#[test]
fn dates_and_times() {
    let types = Types::new();
    let interval = |months: i32, days: i32, us: i64| {
        Value::Ext(ext::INTERVAL, [&months.to_be_bytes()[..], &days.to_be_bytes(), &us.to_be_bytes()].concat())
    };
    let timetz =
        |us: i64, east_s: i32| Value::Ext(ext::TIMETZ, [&us.to_be_bytes()[..], &east_s.to_be_bytes()].concat());
    let date = |days: i32| Value::Ext(ext::DATE, days.to_be_bytes().into());
    for (oid, bytes, spelled, value) in [
        (1082, "00000000", "2000-01-01", date(10_957)),
        (1082, "7fffffff", "infinity", date(i32::MAX)),
        (1082, "80000000", "-infinity", date(i32::MIN)),
        (1083, "000000141dd76000", "24:00:00", micros(ext::TIME, 86_400_000_000)),
        (1266, "0000000000000000 ffffb1ec", "00:00:00+05:33:00", timetz(0, 19_988)),
        (1114, "0000000000000000", "2000-01-01 00:00:00", micros(ext::TIMESTAMP, 946_684_800_000_000)),
        (1114, "7fffffffffffffff", "infinity", micros(ext::TIMESTAMP, i64::MAX)),
        (1184, "8000000000000000", "-infinity", micros(ext::TIMESTAMPTZ, i64::MIN)),
        (1184, "ffffffffffffffff", "1999-12-31 23:59:59.999999+00", micros(ext::TIMESTAMPTZ, 946_684_799_999_999)),
        (1186, "ffffffffffffffff 00000003 fffffff2", "-1 years -2 mons +3 days -00:00:00.000001", interval(-14, 3, -1)),
    ] {
        assert_eq!(decoded(&types, oid, 1, &hex(bytes)), value, "{spelled}");
        assert_eq!(encoded(&types, oid, &value), (1, hex(bytes)), "{spelled}");
        if oid != 1266 {
            assert_eq!(decoded(&types, oid, 0, spelled.as_bytes()), value, "{spelled}");
        }
    }
    assert_eq!(decoded(&types, 1266, 0, b"00:00:00+05:33:08"), timetz(0, 19_988));
    // The last microsecond that PostgreSQL has.
    let last = text("294276-12-31 23:59:59.999999");
    assert_eq!(decoded(&types, 1114, 1, &(9_223_371_331_200_000_000_i64 - 1).to_be_bytes()), last);
    assert_eq!(decoded(&types, 1114, 0, b"294276-12-31 23:59:59.999999"), last);
    // What would be taken for infinity.
    let edge = (i64::MAX - 946_684_800_000_000).to_be_bytes();
    assert_eq!(decoded(&types, 1114, 1, &edge), text("294247-01-10 04:00:54.775807"));
    // Other styles stay text.
    assert_eq!(decoded(&types, 1082, 0, b"01/31/2000"), text("01/31/2000"));
    assert_eq!(decoded(&types, 1184, 0, b"Sat Jan 01 00:00:00 2000 UTC"), text("Sat Jan 01 00:00:00 2000 UTC"));
    assert_eq!(decoded(&types, 1186, 0, b"P1Y"), text("P1Y"));
}

#[test]
fn addresses_and_bits() {
    let types = Types::new();
    for (oid, bytes, spelled) in [
        (869, "02 20 00 04 c0a80001", "192.168.0.1"),
        (869, "02 18 00 04 c0a80001", "192.168.0.1/24"),
        (650, "02 20 01 04 c0a80001", "192.168.0.1/32"),
        (869, "03 80 00 10 20010db8000000000000000000000001", "2001:db8::1"),
        (869, "03 80 00 10 00000000000000000000000001020304", "::1.2.3.4"),
        (869, "03 80 00 10 00000000000000000000ffff01020304", "::ffff:1.2.3.4"),
        (869, "03 80 00 10 00000000000000000000000000000001", "::1"),
        (650, "03 40 01 10 20010db8000000000000000000000000", "2001:db8::/64"),
        (829, "08002b010203", "08:00:2b:01:02:03"),
        (774, "08002b0102030405", "08:00:2b:01:02:03:04:05"),
        (1560, "00000003 a0", "101"),
        (1562, "00000000", ""),
        (1562, "00000009 ff80", "111111111"),
    ] {
        assert_eq!(decoded(&types, oid, 1, &hex(bytes)), text(spelled));
        assert_eq!(decoded(&types, oid, 0, spelled.as_bytes()), text(spelled));
        assert_eq!(encoded(&types, oid, &text(spelled)), (0, spelled.into()));
    }
}

#[test]
fn arrays() {
    let types = learnt();
    let nested = Value::Array(vec![ints(&[1, 2]), Value::Array(vec![Value::Nil, Value::Int(4)])]);
    let quoted = Value::Array(vec![text("a,\"b\\"), text(""), text("NULL"), Value::Nil]);
    for (oid, bytes, spelled, value) in [
        (1007, "00000000 00000000 00000017", "{}", ints(&[])),
        (1007, "00000001 00000000 00000017 00000001 00000001 00000004 00000007", "{7}", ints(&[7])),
        (
            1007,
            "00000002 00000001 00000017 00000002 00000001 00000002 00000001 00000004 00000001 00000004 00000002 \
             ffffffff 00000004 00000004",
            "{{1,2},{NULL,4}}",
            nested,
        ),
        (
            1009,
            "00000001 00000001 00000019 00000004 00000001 00000005 612c22625c 00000000 00000004 4e554c4c ffffffff",
            "{\"a,\\\"b\\\\\",\"\",\"NULL\",NULL}",
            quoted,
        ),
        (MOODS, "00000001 00000000 00004e20 00000001 00000001 00000002 6f6b", "{ok}", Value::Array(vec![text("ok")])),
        (22, "00000001 00000000 00000015 00000001 00000000 00000002 0007", "7", ints(&[7])),
    ] {
        assert_eq!(decoded(&types, oid, 1, &hex(bytes)), value, "{spelled}");
        assert_eq!(decoded(&types, oid, 0, spelled.as_bytes()), value, "{spelled}");
        assert_eq!(encoded(&types, oid, &value), (1, hex(bytes)), "{spelled}");
    }
    let shifted = hex("00000001 00000000 00000017 00000001 fffffffb 00000004 00000007");
    assert_eq!(decoded(&types, 1007, 1, &shifted), ints(&[7]));
    assert_eq!(decoded(&types, 1007, 0, b"[-5:-5]={7}"), ints(&[7]));
    // A vector without elements, and sizes that would be nothing but heads.
    assert_eq!(decoded(&types, 22, 1, &hex("00000001 00000000 00000015 00000000 00000000")), ints(&[]));
    let hollow = hex("00000002 00000000 00000017 7fffffff 00000001 00000000 00000001");
    assert_eq!(decoded(&types, 1007, 1, &hollow), ints(&[]));
    // Boxes have commas in them.
    let boxes = Value::Array(vec![text("(1,1),(0,0)"), text("(2,2),(1,1)")]);
    assert_eq!(decoded(&types, 1020, 0, b"{(1,1),(0,0);(2,2),(1,1)}"), boxes);
    assert_eq!(decoded(&types, 22, 0, b""), ints(&[]));
    assert_eq!(decoded(&types, CITEXTS, 0, b"{A,\"b c\"}"), Value::Array(vec![text("A"), text("b c")]));
}

#[test]
fn composites() {
    let types = learnt();
    let pair = Value::Array(vec![Value::Int(4), text("a \"b\"")]);
    let bytes = hex("00000002 00004e22 00000004 00000004 00000019 00000005 6120226222");
    assert_eq!(decoded(&types, PAIR, 1, &bytes), pair);
    assert_eq!(decoded(&types, 2249, 1, &bytes), pair);
    assert_eq!(encoded(&types, PAIR, &pair), (1, bytes.clone()));
    assert_eq!(decoded(&types, PAIR, 0, b"(4,\"a \"\"b\"\"\")"), pair);
    assert_eq!(decoded(&types, 2249, 0, b"(4,\"a \"\"b\"\"\")"), Value::Array(vec![text("4"), text("a \"b\"")]));
    let nulls = Value::Array(vec![Value::Nil, text("")]);
    assert_eq!(decoded(&types, PAIR, 0, b"(,\"\")"), nulls);
    let place = Value::Array(vec![pair.clone(), text("(1,2)")]);
    assert_eq!(decoded(&types, PLACE, 0, b"(\"(4,\"\"a \"\"\"\"b\"\"\"\"\"\")\",\"(1,2)\")"), place);
    let tree = Value::Array(vec![Value::Int(1), Value::Array(vec![Value::Array(vec![Value::Int(2), Value::Nil])])]);
    let (format, bytes) = encoded(&types, NODE, &tree);
    assert_eq!((format, decoded(&types, NODE, 1, &bytes)), (1, tree.clone()));
    assert_eq!(decoded(&types, NODE, 0, b"(1,\"{\"\"(2,)\"\"}\")"), tree);
    assert_eq!(
        decoded(&types, PAIRS, 0, b"{\"(4,\\\"a \\\"\\\"b\\\"\\\"\\\")\",NULL}"),
        Value::Array(vec![pair, Value::Nil])
    );
}

/// Types of fields that were not learnt, and those that have text alone.
#[test]
fn foreign_fields_of_records() {
    let types = Types::new();
    let record = hex(
        "00000004 00004e20 00000002 6f6b 00004e20 00000002 0001 00000258 00000008 3131313131313131 0000089d 00000004 000004eb",
    );
    let expected = vec![text("ok"), Value::Bin(vec![0, 1]), Value::Bin(b"11111111".into()), Value::Int(1259)];
    assert_eq!(decoded(&types, 2249, 1, &record), Value::Array(expected));
}

#[test]
fn ranges() {
    let types = learnt();
    let half_open = Value::Range(range::LOWER_INCLUSIVE, vec![Value::Int(1), Value::Int(5)]);
    let up_to = Value::Range(range::LOWER_INFINITE, vec![Value::Nil, Value::Int(5)]);
    let all = Value::Range(range::LOWER_INFINITE | range::UPPER_INFINITE, vec![Value::Nil, Value::Nil]);
    let empty = Value::Range(range::EMPTY, vec![Value::Nil, Value::Nil]);
    let floats =
        Value::Range(range::LOWER_INCLUSIVE | range::UPPER_INCLUSIVE, vec![Value::Float(1.5), Value::Float(2.0)]);
    for (oid, bytes, spelled, value) in [
        (3904, "02 00000004 00000001 00000004 00000005", "[1,5)", half_open.clone()),
        (3904, "08 00000004 00000005", "(,5)", up_to.clone()),
        (3904, "18", "(,)", all.clone()),
        (3904, "01", "empty", empty),
        (FLOATRANGE, "06 00000008 3ff8000000000000 00000008 4000000000000000", "[1.5,2]", floats.clone()),
        (4451, "00000000", "{}", Value::Multirange(vec![])),
        (4451, "00000002 00000009 08 00000004 00000005 00000001 18", "{(,5),(,)}", Value::Multirange(vec![up_to, all])),
        (
            FLOATMULTIRANGE,
            "00000001 00000019 06 00000008 3ff8000000000000 00000008 4000000000000000",
            "{[1.5,2]}",
            Value::Multirange(vec![floats]),
        ),
    ] {
        assert_eq!(decoded(&types, oid, 1, &hex(bytes)), value, "{spelled}");
        assert_eq!(decoded(&types, oid, 0, spelled.as_bytes()), value, "{spelled}");
        assert_eq!(encoded(&types, oid, &value), (1, hex(bytes)), "{spelled}");
    }
    let moments = Value::Range(
        range::UPPER_INFINITE | range::LOWER_INCLUSIVE,
        vec![micros(ext::TIMESTAMP, 946_684_800_000_000), Value::Nil],
    );
    assert_eq!(decoded(&types, 3908, 0, b"[\"2000-01-01 00:00:00\",)"), moments);
}

#[test]
fn what_makes_no_sense_is_refused() {
    let types = learnt();
    for (oid, bytes, message) in [
        (23, "000000", "int4: 3 bytes given, 4 expected"),
        (16, "", "bool: 0 bytes given, 1 expected"),
        (3802, "02 7b7d", "jsonb: version 2 given, 1 expected"),
        (1700, "0001 0000 0000 0000 2710", "numeric: 10000 given as a digit, 0 to 9999 expected"),
        (1700, "0001 0000 1000 0000 0000", "numeric: 0x1000 given as its sign"),
        (1700, "0002 0000 0000 0000 0000", "numeric: 2 digits given in 2 bytes"),
        (1007, "00000007 00000000 00000017", "array: 7 dimensions given, 0 to 6 expected"),
        (1007, "00000001 00000000 00000017 7fffffff 00000001", "array: 2147483647 elements given in 0 bytes"),
        (1007, "00000000 00000000 00000017 00", "array: 1 bytes follow the value"),
        (PAIR, "00000009", "composite: 9 parts given in 0 bytes"),
        (3904, "02 ffffffff", "range: NULL given as a bound"),
        (869, "04 20 00 04 00000000", "inet: family 4 with 4 bytes given, 2 with 4 or 3 with 16 expected"),
        (1560, "00000009 ff", "bit: a count that does not fit 1 bytes given"),
    ] {
        assert_eq!(refused(&types, oid, 1, &hex(bytes)), message);
    }
    for (oid, spelled, message) in [
        (23, "x", "int4: its text \"x\" cannot be read"),
        (1007, "{1,2", "array: it ends inside an element"),
        (1007, "{1}x", "array: \"x\" follows the value"),
        (1007, "1", "array: '{' expected before \"1\""),
        (1009, "{\"a", "it ends inside quotes"),
        (PAIR, "(1,2,3)", "composite: more than its 2 fields given"),
        (3904, "[1,2", "composite or range: it ends inside a part"),
        (4451, "{[1,2)", "multirange: '}' expected before \"\""),
    ] {
        assert_eq!(refused(&types, oid, 0, spelled.as_bytes()), message);
    }
    assert_eq!(refused(&types, 23, 2, b"1"), "int4: format 2 given, 0 or 1 expected");
    let deep = [b"(1,\"{\"\"(".repeat(40)].concat();
    assert!(refused(&types, 2249, 0, &deep).len() < 200);
    let nested = "{".repeat(30) + &"}".repeat(30);
    assert_eq!(refused(&types, 1007, 0, nested.as_bytes()), "it nests deeper than 24 levels");
}
