//! By sections of RFC 9112, where no other is named.
use super::*;

const BOUNDS: Bounds = Bounds { head_bytes_max: 256, headers_max: 4 };

/// Where the start line and the head end.
fn head(bytes: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    let mut scan = Scan::default();
    let found = scan.find(bytes, BOUNDS);
    let first = scan.first_line(bytes).unwrap_or_default();
    found.map(|end| (first, &bytes[first.len()..end.expect("a whole head")]))
}

/// Start line and fields, as they were read.
fn asked(bytes: &[u8]) -> Result<(RequestLine<'_>, Named<'_>), Malformed> {
    let (first, section) = head(bytes)?;
    Ok((request_line(first)?, read_fields(section)?))
}

fn told(bytes: &[u8]) -> Result<(Response<'_>, Named<'_>), Malformed> {
    let (first, section) = head(bytes)?;
    Ok((status_line(first)?, read_fields(section)?))
}

type Named<'a> = Vec<(&'a str, &'a [u8])>;

fn read_fields(section: &[u8]) -> Result<Named<'_>, Malformed> {
    let text = |bytes| std::str::from_utf8(bytes).unwrap();
    head::trailer_fields(section).map(|fields| fields.into_iter().map(|(name, value)| (text(name), value)).collect())
}

/// What `act` says of the fields of a head.
fn with_fields<T>(bytes: &[u8], act: impl FnOnce(Headers<'_>) -> T) -> T {
    let (_, section) = head(bytes).unwrap();
    act(fields(section, &mut Room::new()).unwrap())
}

#[test]
fn s2_1_a_request_is_a_line_and_fields() {
    let (line, fields) = asked(b"GET /a?b HTTP/1.1\r\nHost: x\r\nA:  \tb c\t \r\nE:\r\n\r\nrest").unwrap();
    assert_eq!(line, RequestLine { method: b"GET", target: b"/a?b", version: 11 });
    assert_eq!(fields, [("Host", &b"x"[..]), ("A", b"b c"), ("E", b"")]);
    with_fields(b"GET / HTTP/1.1\r\nHost: x\r\nhost: y\r\n\r\n", |headers| {
        assert_eq!(headers.get("hOST"), Some(&b"x"[..]));
        assert_eq!(headers.all("HOST").collect::<Vec<_>>(), [b"x", b"y"]);
        assert_eq!(headers.len(), 2);
    });
    assert_eq!(asked(b"GET / HTTP/1.0\r\n\r\n").unwrap().0.version, 10);
}

#[test]
fn heads_with_many_fields_are_read_whole() {
    for count in [31, 32, 33, 500] {
        let section = [b"A: b\r\n".repeat(count), b"\r\n".to_vec()].concat();
        assert_eq!(fields(&section, &mut Room::new()).unwrap().len(), count);
    }
}

#[test]
fn s2_2_lines_end_in_crlf_alone() {
    for bad in [
        &b"GET / HTTP/1.1\nHost: x\r\n\r\n"[..],
        b"GET / HTTP/1.1\r\nHost: x\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n\n",
        b"GET / HTTP/1.1\r\nHost: x\r\r\n\r\n",
        b"GET / HTTP/1.1\r\nHo\rst: x\r\n\r\n",
        b"GET / HTTP/1.1\r\r\nHost: x\r\n\r\n",
        b"GET /\r HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\r\n\r\n",
    ] {
        assert_eq!(asked(bad).unwrap_err().status, 400, "{}", bad.escape_ascii());
    }
}

#[test]
fn s2_2_whitespace_before_the_first_line_is_refused() {
    for bad in [&b"\r\nGET / HTTP/1.1\r\n\r\n"[..], b" GET / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\n X: y\r\n\r\n"] {
        assert!(asked(bad).is_err(), "{}", bad.escape_ascii());
    }
}

#[test]
fn s3_request_lines_have_two_single_spaces() {
    for bad in [
        "GET  / HTTP/1.1",
        "GET /  HTTP/1.1",
        "GET / HTTP/1.1 ",
        "GET\t/ HTTP/1.1",
        "GET /a b HTTP/1.1",
        "GET /",
        "GET HTTP/1.1",
        "G(T / HTTP/1.1",
        "GET /\u{e9} HTTP/1.1",
        "GET /\u{7f} HTTP/1.1",
    ] {
        assert_eq!(asked(format!("{bad}\r\n\r\n").as_bytes()).unwrap_err().status, 400, "{bad}");
    }
    for bad in ["GET / HTTP/2.0", "PRI * HTTP/2.0", "GET / HTTP/0.9"] {
        assert_eq!(asked(format!("{bad}\r\n\r\n").as_bytes()).unwrap_err().status, 505, "{bad}");
    }
    assert_eq!(asked(b"GET / HTTP/1.2\r\n\r\n").unwrap().0.version, 11, "RFC 9110, 2.5");
}

#[test]
fn s4_status_lines_may_lack_a_reason() {
    let (response, fields) = told(b"HTTP/1.1 404 Not Found\r\nA: b\r\n\r\n").unwrap();
    assert_eq!((response.status, response.reason, response.version), (404, &b"Not Found"[..], 11));
    assert_eq!(fields, [("A", &b"b"[..])]);
    let reason = |bytes| told(bytes).unwrap().0.reason.to_vec();
    assert_eq!(reason(b"HTTP/1.0 200 \r\n\r\n"), b"");
    assert_eq!(reason(b"HTTP/1.0 200\r\n\r\n"), b"");
    assert_eq!(reason(b"HTTP/1.1 200 \xe9t\xe9\r\n\r\n"), b"\xe9t\xe9");
    for bad in
        ["HTTP/1.1 20 OK", "HTTP/1.1 099 OK", "HTTP/1.1 2000 OK", "HTTP/1.1  200 OK", "ICY 200 OK", "HTTP/1.1 200 a\0"]
    {
        assert!(told(format!("{bad}\r\n\r\n").as_bytes()).is_err(), "{bad}");
    }
}

#[test]
fn s5_1_no_space_before_a_colon_and_s5_2_no_folded_lines() {
    for bad in ["A : b", "A\t: b", ": b", "A", "A: b\r\n c", "A: b\r\n\tc", "A(: b", "\u{e9}: b"] {
        assert!(asked(format!("GET / HTTP/1.1\r\n{bad}\r\n\r\n").as_bytes()).is_err(), "{bad}");
        assert!(told(format!("HTTP/1.1 200 OK\r\n{bad}\r\n\r\n").as_bytes()).is_err(), "{bad}");
    }
}

#[test]
fn rfc_9110_s5_5_values_have_no_control_characters() {
    for byte in (0..32).chain([127]).filter(|byte| !b"\t\r\n".contains(byte)) {
        let text = [b"GET / HTTP/1.1\r\nA: x", &[byte][..], b"y\r\n\r\n"].concat();
        assert!(asked(&text).is_err(), "{byte}");
    }
    assert_eq!(asked(b"GET / HTTP/1.1\r\nA: \xff\r\n\r\n").unwrap().1, [("A", &b"\xff"[..])]);
}

#[test]
fn heads_are_bounded_wherever_they_are_cut() {
    let long = [b"GET /", "a".repeat(300).as_bytes(), b" HTTP/1.1\r\n\r\n"].concat();
    let longer = [b"GET / HTTP/1.1\r\nA: ", "a".repeat(300).as_bytes(), b"\r\n\r\n"].concat();
    let many = [b"GET / HTTP/1.1\r\n", "A:b\r\n".repeat(5).as_bytes(), b"\r\n"].concat();
    for (bad, status) in [(&long, 414), (&longer, 431), (&many, 431)] {
        let whole = Scan::default().find(bad, BOUNDS).unwrap_err();
        assert_eq!(whole.status, status);
        let mut scan = Scan::default();
        let cut = (0..=bad.len()).find_map(|end| scan.find(&bad[..end], BOUNDS).err());
        assert_eq!(cut, Some(whole));
    }
    let fits = [b"GET / HTTP/1.1\r\n", "A:b\r\n".repeat(4).as_bytes(), b"\r\n"].concat();
    let mut scan = Scan::default();
    for end in 0..fits.len() {
        assert_eq!(scan.find(&fits[..end], BOUNDS), Ok(None), "at {end}");
        assert_eq!(scan.first_line(&fits[..end]), (end >= 16).then(|| &fits[..16]), "at {end}");
    }
    assert_eq!(scan.find(&fits, BOUNDS), Ok(Some(fits.len())));
}

fn length_asked(fields: &str) -> Result<Length, u16> {
    length_asked_of(11, fields)
}

fn length_asked_of(version: u8, fields: &str) -> Result<Length, u16> {
    let text = format!("POST / HTTP/1.1\r\n{fields}\r\n");
    with_fields(text.as_bytes(), |headers| Framing::of(headers).request_length(version)).map_err(|bad| bad.status)
}

fn length_told(method: &str, status: u16, fields: &str) -> Result<Length, u16> {
    let text = format!("HTTP/1.1 {status} x\r\n{fields}\r\n");
    with_fields(text.as_bytes(), |headers| Framing::of(headers).response_length(11, status, method.as_bytes()))
        .map_err(|bad| bad.status)
}

#[test]
fn s6_3_the_length_of_a_request() {
    assert_eq!(length_asked(""), Ok(Length::None));
    assert_eq!(length_asked("Content-Length: 0\r\n"), Ok(Length::Exact(0)));
    assert_eq!(length_asked("Content-Length: 0042\r\n"), Ok(Length::Exact(42)));
    assert_eq!(length_asked("Transfer-Encoding: Chunked\r\n"), Ok(Length::Chunked));
    for bad in ["5, 5", "5,6", "+5", "-5", "5 5", "0x5", "", "5a", "1_0", "5.0", "\u{664}"] {
        assert_eq!(length_asked(&format!("Content-Length: {bad}\r\n")), Err(400), "{bad}");
    }
    assert_eq!(length_asked("Content-Length: 18446744073709551616\r\n"), Err(413));
    assert_eq!(length_asked("Content-Length: 5\r\nContent-Length: 5\r\n"), Err(400));
    assert_eq!(length_asked("Content-Length: 5\r\nContent-Length: 6\r\n"), Err(400));
    assert_eq!(length_asked("Content-Length: 5\r\nContent-Length: 05\r\n"), Err(400));
    assert_eq!(length_asked("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"), Err(400));
    assert_eq!(length_asked("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"), Err(400));
}

#[test]
fn s6_1_chunked_is_the_only_transfer_coding() {
    for bad in ["chunked, gzip", "gzip", "chunked, chunked", "chunked,", "", "xchunked", "chunked;q=1", "identity"] {
        assert_eq!(length_asked(&format!("Transfer-Encoding: {bad}\r\n")), Err(400), "{bad}");
    }
    assert_eq!(length_asked("Transfer-Encoding: gzip, chunked\r\n"), Err(501));
    assert_eq!(length_asked("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n"), Err(501));
    assert_eq!(length_asked("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), Err(400));
    assert_eq!(length_asked_of(10, "Transfer-Encoding: chunked\r\n"), Err(400));
}

#[test]
fn s6_3_the_length_of_a_response() {
    const LONG: &str = "Content-Length: 9\r\n";
    assert_eq!(length_told("GET", 200, LONG), Ok(Length::Exact(9)));
    assert_eq!(length_told("GET", 200, ""), Ok(Length::UntilClose));
    assert_eq!(length_told("GET", 200, "Transfer-Encoding: chunked\r\n"), Ok(Length::Chunked));
    for (method, status) in
        [("HEAD", 200), ("GET", 101), ("GET", 204), ("GET", 304), ("CONNECT", 200), ("CONNECT", 299)]
    {
        assert_eq!(length_told(method, status, LONG), Ok(Length::None), "{method} {status}");
    }
    assert_eq!(length_told("CONNECT", 407, LONG), Ok(Length::Exact(9)));
    assert_eq!(length_told("GET", 200, &LONG.repeat(2)), Ok(Length::Exact(9)));
    assert_eq!(length_told("GET", 200, "Content-Length: 9, 9\r\n"), Err(400));
    assert_eq!(length_told("GET", 200, "Content-Length: 9\r\nContent-Length: 09\r\n"), Err(400));
    assert_eq!(length_told("GET", 200, "Content-Length: 9\r\nTransfer-Encoding: chunked\r\n"), Err(400));
    assert_eq!(length_told("GET", 200, "Transfer-Encoding: gzip\r\n"), Err(400));
}

#[test]
fn s9_3_conns_persist_unless_somebody_says_otherwise() {
    let persists = |version, fields: &str| {
        let text = format!("GET / HTTP/1.1\r\n{fields}\r\n");
        with_fields(text.as_bytes(), |headers| Framing::of(headers).connection.persists(version))
    };
    assert!(persists(11, ""));
    assert!(!persists(11, "Connection: Upgrade, CLOSE\r\n"));
    assert!(!persists(10, ""));
    assert!(persists(10, "Connection: Keep-Alive\r\n"));
    assert!(!persists(10, "Connection: keep-alive\r\nConnection: close\r\n"));
}

/// Data and trailers of a chunked body that comes in pieces of `size`; what is left of the input.
fn unchunk(bytes: &[u8], size: usize) -> Result<(String, String, usize), Malformed> {
    let mut chunked = Chunked::new(BOUNDS);
    let (mut at, mut there, mut data) = (0, 0, Vec::new());
    loop {
        match chunked.step(&bytes[at..there])? {
            Part::Need(need) => {
                assert!(need > there - at, "{need} needed, {} are there", there - at);
                assert!(there < bytes.len(), "it ends too soon");
                there = (there + size).min(bytes.len());
            }
            Part::Framing(used) => at += used,
            Part::Data { used, data: piece } => {
                at += used;
                data.extend_from_slice(piece);
            }
            Part::End { used, trailers } => {
                let text = |bytes| std::str::from_utf8(bytes).unwrap();
                let trailers: Vec<_> = trailers.into_iter().map(|(name, value)| (text(name), text(value))).collect();
                let trailers = format!("{trailers:?}");
                return Ok((String::from_utf8(data).unwrap(), trailers, bytes.len() - at - used));
            }
        }
    }
}

#[test]
fn s7_1_chunks_are_joined_wherever_they_are_cut() {
    let body = b"4\r\nWiki\r\n6 ; a = \"b\\\"c\" ;d;e=f\r\npedia \r\n0000E\r\nin \r\n\r\nchunks.\r\n0\r\nX: y\r\nDate: z\r\n\r\nnext";
    for size in (1..=body.len()).rev() {
        let (data, trailers, left) = unchunk(body, size).unwrap();
        assert_eq!(data, "Wikipedia in \r\n\r\nchunks.");
        assert_eq!(trailers, r#"[("X", "y")]"#);
        assert_eq!(left, 4);
    }
    assert_eq!(unchunk(b"0\r\n\r\n", 9).unwrap().1, "[]");
}

#[test]
fn s7_1_sizes_are_hexadecimal_digits() {
    for bad in [
        "0x4\r\nWiki\r\n",
        " 4\r\nWiki\r\n",
        "+4\r\nWiki\r\n",
        "-4\r\nWiki\r\n",
        "4 \r\nWiki\r\n",
        "4_0\r\nWiki\r\n",
        "\r\n",
        "g\r\n",
        "4\nWiki\r\n",
        "4\r\nWiki\n",
        "4\r\nWikix\r\n",
        "4\r\nWiki\rx",
        "00000000000000004\r\nWiki\r\n",
        "fffffffffffffffff\r\n",
    ] {
        assert!(unchunk(bad.as_bytes(), 99).is_err(), "{bad:?}");
        assert!(unchunk(bad.as_bytes(), 1).is_err(), "{bad:?}");
    }
}

#[test]
fn s7_1_1_extensions_are_checked_and_bounded() {
    for bad in
        ["4;\r\n", "4;=a\r\n", "4;a=\r\n", "4;a=\"b\r\n", "4;a\rb\r\n", "4;a=\"\0\"\r\n", "4 a\r\n", "4;a=\"b\"c\r\n"]
    {
        assert!(unchunk(bad.as_bytes(), 99).is_err(), "{bad:?}");
    }
    let long = format!("4;{}\r\n", "a".repeat(1024));
    assert!(unchunk(long.as_bytes(), 1).is_err());
    let wasteful = format!("1;{}\r\nx\r\n", "a".repeat(900)).repeat(20);
    assert!(unchunk(wasteful.as_bytes(), 4096).is_err(), "extensions outweigh the data");
}

#[test]
fn s7_1_2_trailers_are_fields_and_bounded() {
    for bad in ["X : y\r\n\r\n", "X: y\n\r\n", " X: y\r\n\r\n", "X: y\r\n z\r\n\r\n", "X: \0\r\n\r\n", "X\r\n\r\n"] {
        assert!(unchunk(format!("0\r\n{bad}").as_bytes(), 99).is_err(), "{bad:?}");
    }
    let many = format!("0\r\n{}\r\n", "A: b\r\n".repeat(6));
    assert_eq!(unchunk(many.as_bytes(), 3).unwrap_err().status, 431);
}

#[test]
fn rfc_9110_s6_5_1_some_fields_are_no_trailers() {
    for bad in ["Content-Length", "transfer-encoding", "HOST", "Set-Cookie", "Authorization", "Content-Type", "Trailer"]
    {
        assert!(!is_trailer(bad.as_bytes()), "{bad}");
    }
    for good in ["ETag", "Digest", "Server-Timing", "X"] {
        assert!(is_trailer(good.as_bytes()), "{good}");
    }
}

#[test]
fn what_is_written_reads_the_same() {
    let mut out = Vec::new();
    chunk(&mut out, b"Wiki");
    chunk(&mut out, b"");
    chunk(&mut out, &[b'x'; 300]);
    last_chunk(&mut out, [(&b"X"[..], &b" y "[..])].into_iter());
    let (data, trailers, left) = unchunk(&out, 7).unwrap();
    assert_eq!(data, format!("Wiki{}", "x".repeat(300)));
    assert_eq!((trailers.as_str(), left), (r#"[("X", "y")]"#, 0));
}

#[test]
fn rfc_9110_s5_nothing_can_be_injected() {
    for bad in ["", "a b", "a:", "a\r\nb", "a\0", "\u{e9}", "a(b)"] {
        assert!(!is_token(bad.as_bytes()), "{bad:?}");
    }
    for bad in ["a\r\nb: c", "a\nb", "a\rb", "a\0b", "\x7f"] {
        assert!(!is_value(bad.as_bytes()), "{bad:?}");
        assert!(!is_target(bad.as_bytes()), "{bad:?}");
    }
    assert!(is_token(b"X-a_b.c") && is_value(b"a\tb \xc3\xa9") && is_value(b"") && is_target(b"/a?b"));
    assert!(!is_target(b"/a b") && !is_target(b"") && !is_target("/\u{e9}".as_bytes()));
}
