//! What is refused, and with which status, by sections of RFC 9112, where no other is named. 0: it is served.
use super::*;

const H: &str = "Host: h\r\n";

/// Section, bytes, status. `{H}` is a Host header.
const CORPUS: &[(&str, &str, u16)] = &[
    // 2.2: message parsing.
    ("2.2 empty line before", "\r\nGET / HTTP/1.1\r\n{H}\r\n", 0),
    ("2.2 a few empty lines before", "\r\n\r\n\r\nGET / HTTP/1.1\r\n{H}\r\n", 0),
    ("2.2 many empty lines before", "\r\n\r\n\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\n{H}\r\n", 400),
    ("2.2 bare LF before", "\nGET / HTTP/1.1\r\n{H}\r\n", 400),
    ("2.2 bare CR before", "\rGET / HTTP/1.1\r\n{H}\r\n", 400),
    ("2.2 bare LF after the line", "GET / HTTP/1.1\n{H}\r\n", 400),
    ("2.2 bare LF after a header", "GET / HTTP/1.1\r\nHost: h\nA: b\r\n\r\n", 400),
    ("2.2 bare LF as the end", "GET / HTTP/1.1\r\nHost: h\r\n\n", 400),
    ("2.2 bare CR in a value", "GET / HTTP/1.1\r\n{H}A: b\rc\r\n\r\n", 400),
    ("2.2 bare CR in the line", "GET /\r HTTP/1.1\r\n{H}\r\n", 400),
    ("2.2 CR CR LF", "GET / HTTP/1.1\r\r\n{H}\r\n", 400),
    ("2.2 white space before the first header", "GET / HTTP/1.1\r\n {H}\r\n", 400),
    ("2.2 white space before the line", " GET / HTTP/1.1\r\n{H}\r\n", 400),
    ("2.2 a TLS hello", "\u{16}\u{3}\u{1}", 400),
    // 2.3: the version.
    ("2.3 lower case", "GET / http/1.1\r\n{H}\r\n", 400),
    ("2.3 no minor", "GET / HTTP/1\r\n{H}\r\n", 400),
    ("2.3 two digits", "GET / HTTP/1.10\r\n{H}\r\n", 400),
    ("2.3 spaces within", "GET / HTTP/ 1.1\r\n{H}\r\n", 400),
    ("2.3 another name", "GET / HTTQ/1.1\r\n{H}\r\n", 400),
    ("2.3 HTTP/1.0", "GET / HTTP/1.0\r\n\r\n", 0),
    ("RFC 9110 2.5 a higher minor", "GET / HTTP/1.9\r\n{H}\r\n", 0),
    ("RFC 9110 15.6.6 HTTP/2.0", "GET / HTTP/2.0\r\n{H}\r\n", 505),
    ("RFC 9110 15.6.6 HTTP/0.9", "GET / HTTP/0.9\r\n{H}\r\n", 505),
    ("RFC 9113 3.4 the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    // 3: the request line.
    ("3 no version", "GET /\r\n\r\n", 400),
    ("3 nothing but a method", "GET\r\n\r\n", 400),
    ("3 two spaces before the target", "GET  / HTTP/1.1\r\n{H}\r\n", 400),
    ("3 two spaces after the target", "GET /  HTTP/1.1\r\n{H}\r\n", 400),
    ("3 space at the end", "GET / HTTP/1.1 \r\n{H}\r\n", 400),
    ("3 tab between", "GET\t/ HTTP/1.1\r\n{H}\r\n", 400),
    ("3 space in the target", "GET /a b HTTP/1.1\r\n{H}\r\n", 400),
    ("3 form feed between", "GET /\u{c}HTTP/1.1\r\n{H}\r\n", 400),
    ("3.1 no token as method", "G(T / HTTP/1.1\r\n{H}\r\n", 400),
    ("3.1 an unknown method is the program's", "BREW /pot HTTP/1.1\r\n{H}\r\n", 0),
    ("3.1 a method in lower case is another", "get / HTTP/1.1\r\n{H}\r\n", 0),
    ("3 a method longer than any", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA / HTTP/1.1\r\n{H}\r\n", 501),
    // 3.2: the target.
    ("3.2 control byte", "GET /\u{1} HTTP/1.1\r\n{H}\r\n", 400),
    ("3.2 NUL", "GET /\0 HTTP/1.1\r\n{H}\r\n", 400),
    ("3.2 DEL", "GET /\u{7f} HTTP/1.1\r\n{H}\r\n", 400),
    ("3.2 beyond ASCII", "GET /\u{e9} HTTP/1.1\r\n{H}\r\n", 400),
    ("3.2 fragment", "GET /#a HTTP/1.1\r\n{H}\r\n", 400),
    ("3.2 angle brackets", "GET /<a> HTTP/1.1\r\n{H}\r\n", 400),
    ("3.2 quotes", "GET /\"a\" HTTP/1.1\r\n{H}\r\n", 400),
    ("3.2 no path", "GET a HTTP/1.1\r\n{H}\r\n", 400),
    ("3.2 no target", "GET  HTTP/1.1\r\n{H}\r\n", 400),
    ("3.2 no Host", "GET / HTTP/1.1\r\n\r\n", 400),
    ("3.2 no Host in HTTP/1.0", "GET / HTTP/1.0\r\n\r\n", 0),
    ("3.2 two Hosts", "GET / HTTP/1.1\r\n{H}Host: i\r\n\r\n", 400),
    ("3.2 the same Host twice", "GET / HTTP/1.1\r\n{H}{H}\r\n", 400),
    ("3.2 two Hosts in HTTP/1.0", "GET / HTTP/1.0\r\n{H}{H}\r\n", 400),
    ("3.2 empty Host", "GET / HTTP/1.1\r\nHost:\r\n\r\n", 0),
    ("3.2 Host with a port", "GET / HTTP/1.1\r\nHost: h:8080\r\n\r\n", 0),
    ("3.2 Host with IPv6", "GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", 0),
    ("3.2 Host with half an IPv6", "GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", 400),
    ("3.2 Host with a path", "GET / HTTP/1.1\r\nHost: h/a\r\n\r\n", 400),
    ("3.2 Host with a user", "GET / HTTP/1.1\r\nHost: u@h\r\n\r\n", 400),
    ("3.2 Host with a list", "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400),
    ("3.2 Host with a comma", "GET / HTTP/1.1\r\nHost: a,b\r\n\r\n", 400),
    ("3.2 Host with a bad port", "GET / HTTP/1.1\r\nHost: h:8x\r\n\r\n", 400),
    ("3.2 Host with a port beyond all", "GET / HTTP/1.1\r\nHost: h:99999\r\n\r\n", 400),
    ("3.2 Host with a space", "GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
    ("3.2.2 absolute form", "GET http://h/a HTTP/1.1\r\n{H}\r\n", 0),
    ("3.2.2 absolute form without a path", "GET http://h HTTP/1.1\r\n{H}\r\n", 0),
    ("3.2.2 absolute form still needs Host", "GET http://h/ HTTP/1.1\r\n\r\n", 400),
    ("RFC 9110 4.2.1 no host in a URL", "GET http:///a HTTP/1.1\r\n{H}\r\n", 400),
    ("RFC 9110 4.2.4 user in a URL", "GET http://u@h/ HTTP/1.1\r\n{H}\r\n", 400),
    ("3.2.2 another scheme", "GET ftp://h/ HTTP/1.1\r\n{H}\r\n", 400),
    ("3.2.3 authority form", "CONNECT h:443 HTTP/1.1\r\n{H}\r\n", 0),
    ("3.2.3 authority form without a port", "CONNECT h HTTP/1.1\r\n{H}\r\n", 400),
    ("3.2.3 CONNECT with a path", "CONNECT /a HTTP/1.1\r\n{H}\r\n", 400),
    ("3.2.3 GET with an authority", "GET h:443 HTTP/1.1\r\n{H}\r\n", 400),
    ("RFC 9110 9.3.6 CONNECT with a body", "CONNECT h:443 HTTP/1.1\r\n{H}Content-Length: 3\r\n\r\nabc", 400),
    ("3.2.4 asterisk form", "OPTIONS * HTTP/1.1\r\n{H}\r\n", 0),
    ("3.2.4 asterisk with GET", "GET * HTTP/1.1\r\n{H}\r\n", 400),
    // 5: header fields.
    ("5.1 space before the colon", "GET / HTTP/1.1\r\n{H}A : b\r\n\r\n", 400),
    ("5.1 tab before the colon", "GET / HTTP/1.1\r\n{H}A\t: b\r\n\r\n", 400),
    ("5.1 space before the colon of a length", "POST / HTTP/1.1\r\n{H}Content-Length : 1\r\n\r\nx", 400),
    (
        "5.1 space before the colon of a coding",
        "POST / HTTP/1.1\r\n{H}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    ("5 no colon", "GET / HTTP/1.1\r\n{H}A\r\n\r\n", 400),
    ("5 no name", "GET / HTTP/1.1\r\n{H}: b\r\n\r\n", 400),
    ("5 no token as a name", "GET / HTTP/1.1\r\n{H}A(b: c\r\n\r\n", 400),
    ("5 a name beyond ASCII", "GET / HTTP/1.1\r\n{H}\u{e9}: c\r\n\r\n", 400),
    ("5 NUL in a name", "GET / HTTP/1.1\r\n{H}A\0: c\r\n\r\n", 400),
    ("5.2 a folded line", "GET / HTTP/1.1\r\n{H}A: b\r\n c\r\n\r\n", 400),
    ("5.2 a line folded by a tab", "GET / HTTP/1.1\r\n{H}A: b\r\n\tc\r\n\r\n", 400),
    ("5.2 a folded coding", "POST / HTTP/1.1\r\n{H}Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", 400),
    ("RFC 9110 5.5 NUL in a value", "GET / HTTP/1.1\r\n{H}A: b\0\r\n\r\n", 400),
    ("RFC 9110 5.5 control byte in a value", "GET / HTTP/1.1\r\n{H}A: \u{b}b\r\n\r\n", 400),
    ("RFC 9110 5.5 DEL in a value", "GET / HTTP/1.1\r\n{H}A: \u{7f}\r\n\r\n", 400),
    ("RFC 9110 5.5 tab in a value", "GET / HTTP/1.1\r\n{H}A: b\tc\r\n\r\n", 0),
    ("RFC 9110 5.5 bytes beyond ASCII in a value", "GET / HTTP/1.1\r\n{H}A: \u{e9}\r\n\r\n", 0),
    ("5.1 an empty value", "GET / HTTP/1.1\r\n{H}A:\r\n\r\n", 0),
    // 6.1: Transfer-Encoding.
    ("6.1 chunked", "POST / HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n", 0),
    ("6.1 chunked in any case", "POST / HTTP/1.1\r\n{H}transfer-encoding: CHUNKED\r\n\r\n0\r\n\r\n", 0),
    ("6.1 chunked twice", "POST / HTTP/1.1\r\n{H}Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 400),
    ("6.1 two headers", "POST / HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    ("6.1 chunked is not the last", "POST / HTTP/1.1\r\n{H}Transfer-Encoding: chunked, gzip\r\n\r\n", 400),
    ("6.1 an unknown coding before", "POST / HTTP/1.1\r\n{H}Transfer-Encoding: gzip, chunked\r\n\r\n", 501),
    ("6.1 an unknown coding alone", "POST / HTTP/1.1\r\n{H}Transfer-Encoding: xchunked\r\n\r\n", 400),
    ("6.1 identity", "POST / HTTP/1.1\r\n{H}Transfer-Encoding: identity\r\n\r\n", 400),
    ("6.1 empty", "POST / HTTP/1.1\r\n{H}Transfer-Encoding:\r\n\r\n", 400),
    ("6.1 a parameter", "POST / HTTP/1.1\r\n{H}Transfer-Encoding: chunked;a=b\r\n\r\n", 400),
    ("6.1 quotes", "POST / HTTP/1.1\r\n{H}Transfer-Encoding: \"chunked\"\r\n\r\n", 400),
    ("6.1 a control byte before", "POST / HTTP/1.1\r\n{H}Transfer-Encoding: \u{b}chunked\r\n\r\n", 400),
    ("6.1 HTTP/1.0", "POST / HTTP/1.0\r\n{H}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    ("6.1 both", "POST / HTTP/1.1\r\n{H}Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    ("6.1 both, the other way", "POST / HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n", 400),
    // 6.2: Content-Length.
    ("6.2 a length", "POST / HTTP/1.1\r\n{H}Content-Length: 3\r\n\r\nabc", 0),
    ("6.2 nothing", "POST / HTTP/1.1\r\n{H}Content-Length: 0\r\n\r\n", 0),
    ("6.2 plus", "POST / HTTP/1.1\r\n{H}Content-Length: +3\r\n\r\nabc", 400),
    ("6.2 minus", "POST / HTTP/1.1\r\n{H}Content-Length: -3\r\n\r\nabc", 400),
    ("6.2 hexadecimal", "POST / HTTP/1.1\r\n{H}Content-Length: 0x3\r\n\r\nabc", 400),
    ("6.2 spaces within", "POST / HTTP/1.1\r\n{H}Content-Length: 1 3\r\n\r\nabc", 400),
    ("6.2 empty", "POST / HTTP/1.1\r\n{H}Content-Length:\r\n\r\n", 400),
    ("6.2 words", "POST / HTTP/1.1\r\n{H}Content-Length: three\r\n\r\n", 400),
    ("6.2 a fraction", "POST / HTTP/1.1\r\n{H}Content-Length: 3.0\r\n\r\nabc", 400),
    ("6.2 an underscore", "POST / HTTP/1.1\r\n{H}Content-Length: 1_0\r\n\r\nabc", 400),
    ("6.2 beyond 64 bits", "POST / HTTP/1.1\r\n{H}Content-Length: 18446744073709551616\r\n\r\n", 413),
    ("6.2 beyond the limit", "POST / HTTP/1.1\r\n{H}Content-Length: 1048577\r\n\r\n", 413),
    ("6.3 a list", "POST / HTTP/1.1\r\n{H}Content-Length: 3, 3\r\n\r\nabc", 400),
    ("6.3 two that differ", "POST / HTTP/1.1\r\n{H}Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc", 400),
    ("6.3 two that agree", "POST / HTTP/1.1\r\n{H}Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", 400),
    ("6.3 no length is no body", "POST / HTTP/1.1\r\n{H}\r\n", 0),
    ("6.3 GET with a body", "GET / HTTP/1.1\r\n{H}Content-Length: 3\r\n\r\nabc", 0),
    // 7.1: chunks.
    ("7.1 no digits", "POST / HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n\r\nx\r\n0\r\n\r\n", 400),
    ("7.1 no hexadecimal digits", "POST / HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\nxyz\r\n", 400),
    ("7.1 0x", "POST / HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n0x1\r\nx\r\n0\r\n\r\n", 400),
    ("7.1 minus", "POST / HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n-1\r\nx\r\n0\r\n\r\n", 400),
    ("7.1 beyond 64 bits", "POST / HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n1ffffffffffffffff\r\nx", 400),
    ("7.1 bare LF after the size", "POST / HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n1\nx\r\n0\r\n\r\n", 400),
    ("7.1 bare LF after the data", "POST / HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n1\r\nx\n0\r\n\r\n", 400),
    ("7.1 more data than said", "POST / HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n1\r\nxy\r\n0\r\n\r\n", 400),
    (
        "7.1 upper case digits",
        "POST / HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\nA\r\n0123456789\r\n0\r\n\r\n",
        0,
    ),
    ("7.1 leading zeros", "POST / HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n001\r\nx\r\n000\r\n\r\n", 0),
    ("7.1.1 an extension", "POST / HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n1;a=b\r\nx\r\n0\r\n\r\n", 0),
    (
        "7.1.1 CR in an extension",
        "POST / HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n1;a\rb\r\nx\r\n0\r\n\r\n",
        400,
    ),
    (
        "7.1.1 LF in an extension",
        "POST / HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n1;a\nb\r\nx\r\n0\r\n\r\n",
        400,
    ),
    ("7.1.2 trailers", "POST / HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n0\r\nA: b\r\n\r\n", 0),
    ("7.1.2 malformed trailers", "POST / HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n0\r\nA b\r\n\r\n", 400),
    ("7.1.2 folded trailers", "POST / HTTP/1.1\r\n{H}Transfer-Encoding: chunked\r\n\r\n0\r\nA: b\r\n c\r\n\r\n", 400),
    // RFC 9110, 10.1.1: Expect.
    ("RFC 9110 10.1.1 unknown", "POST / HTTP/1.1\r\n{H}Expect: 200-ok\r\nContent-Length: 1\r\n\r\n", 417),
    ("RFC 9110 10.1.1 unknown in HTTP/1.0", "GET / HTTP/1.0\r\nExpect: 200-ok\r\n\r\n", 0),
    ("RFC 9110 10.1.1 without a body", "GET / HTTP/1.1\r\n{H}Expect: 100-continue\r\n\r\n", 0),
    // 11: what smuggles and splits.
    (
        "11.2 a length with a hidden coding",
        "POST / HTTP/1.1\r\n{H}Content-Length: 4\r\nTransfer-Encoding: x\r\n\r\n",
        400,
    ),
    (
        "11.2 a coding after a comma",
        "POST / HTTP/1.1\r\n{H}Content-Length: 4\r\nTransfer-Encoding: ,chunked\r\n\r\n",
        400,
    ),
    ("11.1 LF within a header", "GET / HTTP/1.1\r\n{H}A: b\nTransfer-Encoding: chunked\r\n\r\n", 400),
];

/// Events and bytes of an input that arrives in pieces of that size, or cut once there.
fn run(bytes: &[u8], cut: Option<usize>, size: usize) -> (Vec<String>, String) {
    let mut rig = Rig::new("");
    let (first, rest) = bytes.split_at(cut.unwrap_or(0));
    rig.feed(first).unwrap();
    rest.chunks(size.max(1)).for_each(|part| rig.feed(part).unwrap());
    (rig.events(), rig.sent())
}

#[test]
fn what_is_malformed_is_refused_with_its_status_and_the_end_of_the_conn() {
    for (section, text, status) in CORPUS {
        // As it stands: characters up to U+00FF are bytes.
        let bytes: Vec<u8> = text.replace("{H}", H).chars().map(|c| c as u8).collect();
        let (events, sent) = run(&bytes, None, usize::MAX);
        if *status == 0 {
            assert_eq!(events.iter().filter(|line| line.starts_with("request 0 ")).count(), 1, "{section}: {events:?}");
            assert_eq!(sent, "", "{section}");
            continue;
        }
        assert!(sent.starts_with(&format!("HTTP/1.1 {status} ")), "{section}: {sent}");
        assert!(sent.contains("\r\nConnection: close\r\n"), "{section}: {sent}");
        assert_eq!(sent.matches("HTTP/1.1").count() - sent.matches(" HTTP/1.1\n").count(), 1, "{section}: {sent}");
        assert!(!events.iter().any(|line| line.starts_with("request")), "{section}: {events:?}");
        assert!(events.iter().any(|line| line.starts_with("access")), "{section}: {events:?}");
        assert_eq!(events.last().map(String::as_str), Some("Draining"), "{section}");
    }
    assert!(CORPUS.len() > 80);
}

#[test]
fn any_split_gives_the_same_events() {
    for (section, text, _) in CORPUS {
        let bytes: Vec<u8> = text.replace("{H}", H).chars().map(|c| c as u8).collect();
        let whole = run(&bytes, None, usize::MAX);
        for cut in 1..bytes.len() {
            assert_eq!(run(&bytes, Some(cut), usize::MAX), whole, "{section} cut at {cut}");
        }
        assert_eq!(run(&bytes, None, 1), whole, "{section} byte by byte");
    }
}

#[test]
fn nothing_behind_a_refused_request_is_served() {
    for (section, text, status) in CORPUS.iter().filter(|(_, _, status)| *status > 0) {
        let mut bytes: Vec<u8> = text.replace("{H}", H).chars().map(|c| c as u8).collect();
        bytes.extend_from_slice(GET.repeat(3).as_bytes());
        let (events, sent) = run(&bytes, None, usize::MAX);
        assert!(!events.iter().any(|line| line.starts_with("request")), "{section} {status}: {events:?}");
        assert_eq!(sent.matches("\r\n\r\n").count(), 1, "{section}: {sent}");
    }
}

#[test]
fn limits_of_heads_have_their_statuses() {
    let path = "a".repeat(300);
    for (text, status) in [
        (format!("GET /{path} HTTP/1.1\r\nHost: h\r\n\r\n"), 414),
        (format!("GET /{path}"), 414),
        (format!("GET / HTTP/1.1\r\nHost: h\r\nA: {path}\r\n\r\n"), 431),
        (format!("GET / HTTP/1.1\r\nHost: h\r\n{}", "A: b\r\n".repeat(50)), 431),
        ("GET / HTTP/1.1\r\nHost: h\r\nA: b\r\nC: d\r\nE: f\r\n\r\n".to_string(), 431),
        ("GET / HTTP/1.1\r\nHost: h\r\nA: b\r\nC: d\r\n\r\n".to_string(), 0),
    ] {
        for size in [1, 7, usize::MAX] {
            let mut rig = Rig::new("max_head=256&max_headers=3");
            text.as_bytes().chunks(size).for_each(|part| rig.feed(part).unwrap());
            let sent = rig.sent();
            match status {
                0 => assert!(rig.events()[0].starts_with("request 0"), "{text}"),
                _ => assert!(sent.starts_with(&format!("HTTP/1.1 {status} ")), "{size}: {text}: {sent}"),
            }
        }
    }
}

#[test]
fn a_refusal_waits_for_the_responses_before_it() {
    let mut rig = Rig::new("");
    rig.feed(format!("{GET}GET / HTTP/1.1\r\n\r\n")).unwrap();
    assert_eq!(rig.sent(), "");
    rig.reply(0, &made(200, &[], Give::Text("first"))).unwrap();
    let sent = rig.sent();
    assert!(
        sent.starts_with("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfirstHTTP/1.1 400 Bad Request\r\n"),
        "{sent}"
    );
    assert!(rig.drains());
}

#[test]
fn a_refused_head_gets_no_body() {
    let mut rig = Rig::new("");
    rig.feed("HEAD / HTTP/1.1\r\n\r\n").unwrap();
    let sent = rig.sent();
    assert!(sent.starts_with("HTTP/1.1 400 ") && sent.ends_with("\r\n\r\n"), "{sent}");
}
