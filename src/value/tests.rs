use super::*;
use proptest::prelude::*;

#[test]
fn numbers_take_their_shortest_form_and_come_back() {
    let edges = [0, 1, 0x7f, 0x80, 0xff, 0x100, 0xffff, 0x1_0000, 0xffff_ffff, 0x1_0000_0000, i64::MAX];
    for value in edges.into_iter().flat_map(|edge| [edge, -edge, -edge - 1]) {
        let mut out = Vec::new();
        write::int(&mut out, value);
        assert_eq!(Reader::new(&out).token(), Ok(Token::Int(value)));
        let mut theirs = Vec::new();
        rmp::encode::write_sint(&mut theirs, value).unwrap();
        assert_eq!(out, theirs, "{value}");
    }
    let mut out = Vec::new();
    write::uint(&mut out, u64::MAX);
    assert_eq!(Reader::new(&out).token(), Ok(Token::Uint(u64::MAX)));
}

#[test]
fn lengths_take_their_shortest_form_and_come_back() {
    for length in [0, 1, 2, 3, 4, 8, 15, 16, 17, 31, 32, 255, 256, 65_535, 65_536] {
        let bytes = vec![b'x'; length];
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        write::str(&mut ours, &bytes);
        write::bin(&mut ours, &bytes);
        write::ext(&mut ours, 7, &bytes);
        rmp::encode::write_str(&mut theirs, std::str::from_utf8(&bytes).unwrap()).unwrap();
        rmp::encode::write_bin(&mut theirs, &bytes).unwrap();
        rmp::encode::write_ext_meta(&mut theirs, length as u32, 7).unwrap();
        theirs.extend_from_slice(&bytes);
        assert_eq!(ours, theirs, "{length}");
        let mut reader = Reader::new(&ours);
        assert_eq!(reader.token(), Ok(Token::Str(&bytes)));
        assert_eq!(reader.token(), Ok(Token::Bin(&bytes)));
        assert_eq!(reader.token(), Ok(Token::Ext(7, &bytes)));
        assert!(reader.is_at_end());
    }
}

#[test]
fn reserved_sizes_are_filled_in() {
    let mut out = Vec::new();
    let set = write::ext_open(&mut out, 4);
    let array = write::array_open(&mut out);
    let bytes = write::bin_open(&mut out);
    out.extend_from_slice(b"abc");
    write::bin_close(&mut out, bytes);
    write::count_close(&mut out, array, 1);
    write::ext_close(&mut out, set);
    let Ok(Token::Ext(4, payload)) = Reader::new(&out).token() else { panic!("{out:?}") };
    let mut reader = Reader::new(payload);
    assert_eq!(reader.token(), Ok(Token::Array(1)));
    assert_eq!(reader.token(), Ok(Token::Bin(b"abc")));
    assert!(whole(&out, 0).is_ok());
}

#[test]
fn depth_is_bounded() {
    let nest = |depth| [vec![0x91; depth], vec![0xc0]].concat();
    assert!(whole(&nest(8), 8).is_ok());
    assert_eq!(whole(&nest(9), 8).unwrap_err().what, "it nests too deep");
    assert!(whole(&nest(1_000_000), 8).is_err());
}

#[test]
fn what_is_cut_or_followed_is_malformed() {
    let value = b"\x82\xa1a\xc4\x02bc\xa1d\x93\x01\xcb\x3f\xf0\0\0\0\0\0\0\xd4\x01\x00";
    assert!(whole(value, 4).is_ok());
    for end in 0..value.len() {
        assert!(whole(&value[..end], 4).is_err(), "{end}");
    }
    assert_eq!(whole(b"\xc0\xc0", 4).unwrap_err().what, "bytes follow the value");
    assert_eq!(whole(b"\xc1", 4).unwrap_err().at, 0);
    // A count of four thousand million reserves nothing.
    assert!(whole(b"\xdd\xff\xff\xff\xff\xc0", 4).is_err());
}

proptest! {
    #[test]
    fn no_bytes_panic_and_positions_stay_inside(bytes: Vec<u8>, depth in 0usize..10) {
        let mut reader = Reader::new(&bytes);
        while reader.skip(depth).is_ok() && !reader.is_at_end() {}
        prop_assert!(reader.position() <= bytes.len());
        let mut reader = Reader::new(&bytes);
        while reader.token().is_ok() {}
        prop_assert!(reader.position() <= bytes.len());
        let (mut short, mut reader) = (Reader::new(&bytes), Reader::new(&bytes));
        match short.short_str() {
            Some(text) => {
                prop_assert_eq!(reader.token(), Ok(Token::Str(text)));
                prop_assert_eq!(short.position(), reader.position());
            }
            None => prop_assert_eq!(short.position(), 0),
        }
    }
}
