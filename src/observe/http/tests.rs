use proptest::prelude::*;

use super::*;

fn tcp() -> Hosts {
    Hosts::Known("admin.internal".into())
}

/// What a session makes of the bytes, given at most `step` at a time, when each question is answered with its path.
fn talk(bytes: &[u8], step: usize, hosts: Hosts) -> (Vec<Event>, String, bool) {
    let mut session = Session::new(hosts);
    let (mut events, mut out, mut rest) = (Vec::new(), Vec::new(), bytes);
    loop {
        while let Some(event) = session.poll() {
            assert_eq!(session.room(), 0, "an answer is due");
            match &event {
                Event::Request(request) => session.answer(&mut out, 200, "text/plain", request.path.as_bytes()),
                Event::Refusal(refusal) => {
                    session.answer(&mut out, refusal.status, "text/plain", refusal.text.as_bytes());
                }
            }
            events.push(event);
        }
        let count = step.min(session.room()).min(rest.len());
        if count == 0 {
            return (events, String::from_utf8(out).unwrap(), session.is_closing());
        }
        session.handle_input(&rest[..count]);
        rest = &rest[count..];
    }
}

fn ask(text: &str) -> (Vec<Event>, String, bool) {
    talk(text.as_bytes(), usize::MAX, Hosts::Any)
}

/// The status of the one answer, and whether the connection ends with it.
fn status(text: &str, hosts: Hosts) -> (u16, bool) {
    let (events, out, closing) = talk(text.as_bytes(), usize::MAX, hosts);
    assert_eq!(events.len(), 1, "{text:?}: {out}");
    assert_eq!(out.contains("Connection: close\r\n"), closing);
    (out["HTTP/1.1 ".len()..][..3].parse().unwrap(), closing)
}

fn request(path: &str, query: &str, accept: &str) -> Event {
    Event::Request(Request { path: path.into(), query: query.into(), accept: accept.into() })
}

#[test]
fn a_question_has_a_path_a_query_and_what_is_accepted() {
    let (events, out, closing) =
        ask("GET /st%61te?limit=1&x=%20 HTTP/1.1\r\nhOsT:localhost\r\naccept: a/b\r\nAccept:\tc/d ;q=1 \r\n\r\n");
    assert_eq!(events, [request("/state", "limit=1&x=%20", "a/b, c/d ;q=1")]);
    let (head, body) = out.split_once("\r\n\r\n").unwrap();
    assert_eq!(body, "/state");
    let mut lines = head.split("\r\n");
    assert_eq!(lines.next(), Some("HTTP/1.1 200 OK"));
    let fields: Vec<&str> = lines.collect();
    assert_eq!(
        fields[..4],
        ["Content-Type: text/plain", "Content-Length: 6", "Cache-Control: no-store", "X-Content-Type-Options: nosniff"]
    );
    assert!(fields[4].starts_with("Content-Security-Policy: default-src 'none';"));
    assert_eq!(fields.len(), 5);
    assert!(!closing);
}

#[test]
fn every_split_of_the_input_means_the_same() {
    let text = "\r\n\nGET /a HTTP/1.1\r\nHost: h\r\n\r\nHEAD /b?c=d HTTP/1.1\nHost: h\nConnection: keep-alive\n\n\
                POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\nGET /e HTTP/1.0\r\n\r\nGET /never HTTP/1.1\r\n\r\n";
    let whole = ask(text);
    assert_eq!(whole.0.len(), 4);
    assert_eq!(whole.0[1], request("/b", "c=d", ""));
    assert!(whole.2, "HTTP/1.0 ends the connection");
    for step in 1..=text.len() {
        assert_eq!(talk(text.as_bytes(), step, Hosts::Any), whole, "{step}");
    }
}

#[test]
fn head_is_answered_like_get_without_the_body() {
    let (_, get, _) = ask("GET /abc HTTP/1.1\r\nHost: h\r\n\r\n");
    let (_, head, _) = ask("HEAD /abc HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(get, format!("{head}/abc"));
    let (_, refused, _) = ask("HEAD /abc HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc");
    assert!(refused.starts_with("HTTP/1.1 413 ") && refused.ends_with("\r\n\r\n"), "{refused}");
}

#[test]
fn connections_live_as_long_as_both_sides_want() {
    let kept = |version: &str, fields: &str| {
        let (events, out, closing) = ask(&format!("GET / HTTP/{version}\r\nHost: h\r\n{fields}\r\n"));
        assert_eq!(events, [request("/", "", "")]);
        assert_eq!(out.contains("Connection: close"), closing);
        (!closing, out.contains("Connection: keep-alive"))
    };
    assert_eq!(kept("1.1", ""), (true, false));
    assert_eq!(kept("1.1", "Connection: foo ,CLOSE\r\n"), (false, false));
    assert_eq!(kept("1.1", "Connection: keep-alive\r\nConnection: close\r\n"), (false, false));
    assert_eq!(kept("1.0", ""), (false, false));
    assert_eq!(kept("1.0", "Connection: Keep-Alive\r\n"), (true, true));
    assert_eq!(kept("1.0", "Connection: keep-alive, close\r\n"), (false, false));
}

#[test]
fn only_get_and_head_are_answered() {
    for method in METHODS_REFUSED {
        let (_, out, closing) = ask(&format!("{method} / HTTP/1.1\r\nHost: h\r\n\r\n"));
        assert!(out.starts_with("HTTP/1.1 405 Method Not Allowed\r\n"), "{out}");
        assert!(out.contains("\r\nAllow: GET, HEAD\r\n"));
        assert!(!closing);
    }
    assert_eq!(status("OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", tcp()), (405, false));
    assert_eq!(status("CONNECT h:1 HTTP/1.1\r\nHost: h:1\r\n\r\n", tcp()), (405, false));
    assert_eq!(status("BREW / HTTP/1.1\r\nHost: h\r\n\r\n", Hosts::Any), (501, false));
    assert_eq!(status("get / HTTP/1.1\r\nHost: h\r\n\r\n", Hosts::Any), (501, false));
    // Its body is not read, so nothing can follow it.
    assert_eq!(status("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nGET ", Hosts::Any), (405, true));
}

#[test]
fn a_body_ends_the_connection() {
    let with = |fields: &str| status(&format!("GET / HTTP/1.1\r\nHost: h\r\n{fields}\r\nGET / "), Hosts::Any);
    assert_eq!(with("Content-Length: 6\r\n"), (413, true));
    assert_eq!(with("Content-Length: 99999999999999999999999\r\n"), (413, true));
    assert_eq!(with("Transfer-Encoding: chunked\r\n"), (413, true));
    for doubtful in [
        "Content-Length: 0\r\nContent-Length: 0\r\n",
        "Content-Length: 0, 0\r\n",
        "Content-Length: +0\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: 0x0\r\n",
        "Content-Length:\r\n",
        "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
    ] {
        assert_eq!(with(doubtful), (400, true), "{doubtful:?}");
    }
    let (events, _, closing) =
        ask("GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\nGET /b HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(events, [request("/", "", ""), request("/b", "", "")]);
    assert!(!closing);
}

#[test]
fn the_host_is_ours() {
    let with = |host: &str, hosts: Hosts| status(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"), hosts);
    for ours in ["localhost", "LocalHost:9901", "127.0.0.1", "10.0.0.1:80", "[::1]", "[::1]:9901", "admin.internal:1"] {
        assert_eq!(with(ours, tcp()), (200, false), "{ours}");
    }
    for strange in ["evil.example", "127.0.0.1.evil.example", "localhost.evil", "[::1.2]", "", "0x7f.1", "1"] {
        assert_eq!(with(strange, tcp()), (421, false), "{strange}");
        assert_eq!(with(strange, Hosts::Any), (200, false), "{strange}");
    }
    for wrong in ["a b", "a@b", "h:p", "[::1", "a/b", "h:1:2", "ö", "[::1]x"] {
        assert_eq!(with(wrong, Hosts::Any), (400, true), "{wrong}");
        assert_eq!(with(wrong, tcp()), (400, true), "{wrong}");
    }
    assert_eq!(status("GET / HTTP/1.1\r\n\r\n", Hosts::Any), (400, true));
    assert_eq!(status("GET / HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n", Hosts::Any), (400, true));
    assert_eq!(status("GET / HTTP/1.0\r\n\r\n", Hosts::Any), (200, true));
    assert_eq!(status("GET / HTTP/1.0\r\n\r\n", tcp()), (421, true));
}

#[test]
fn the_host_of_an_absolute_target_is_the_one_that_counts() {
    let asked = |target: &str, host: &str| status(&format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"), tcp());
    assert_eq!(ask("GET HTTP://h:1/a?b HTTP/1.1\r\nHost: x\r\n\r\n").0, [request("/a", "b", "")]);
    assert_eq!(ask("GET http://h?b HTTP/1.1\r\nHost: x\r\n\r\n").0, [request("/", "b", "")]);
    assert_eq!(asked("http://localhost/", "evil"), (200, false));
    assert_eq!(asked("http://evil/", "localhost"), (421, false));
    assert_eq!(asked("http://u@localhost/", "localhost"), (400, true));
    assert_eq!(asked("http:///", "localhost"), (421, false));
}

#[test]
fn what_is_no_request_is_told_so_at_once() {
    for (text, wanted) in [
        ("\u{16}\u{3}\u{1}", 400),
        ("GET /\r\n", 400),
        ("GET  / HTTP/1.1\r\n", 400),
        (" GET / HTTP/1.1\r\n", 400),
        ("GET / HTTP/2.0\r\n", 505),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        ("\rGET / HTTP/1.1\r\n", 400),
        ("GET / HTTP/1.1\r\nHost : h\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: h\r\n folded\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: h\r\nno colon\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: h\r\nx: a\0b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: h\r\nx: a\rb\r\n\r\n", 400),
        ("GET /#f HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("GET * HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("GET state HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("GET https://h/ HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    ] {
        assert_eq!(status(text, Hosts::Any), (wanted, true), "{text:?}");
    }
}

#[test]
fn a_head_has_an_end() {
    let field = |count: usize| "a: b\r\n".repeat(count);
    let most = HEADERS_MAX - 1;
    assert_eq!(status(&format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", field(most)), Hosts::Any), (200, false));
    assert_eq!(status(&format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", field(most + 1)), Hosts::Any), (431, true));
    assert_eq!(status(&format!("GET / HTTP/1.1\r\n{}", field(10_000)), Hosts::Any), (431, true));
    let line = "a".repeat(HEAD_BYTES_MAX);
    assert_eq!(status(&format!("GET / HTTP/1.1\r\nx: {line}\r\n\r\n"), Hosts::Any), (431, true));
    assert_eq!(status(&format!("GET /{line} HTTP/1.1\r\nHost: h\r\n\r\n"), Hosts::Any), (414, true));
    assert_eq!(status(&line, Hosts::Any), (414, true));
    let fill = HEAD_BYTES_MAX - "GET / HTTP/1.1\r\nHost: h\r\nx: \r\n\r\n".len();
    let exact = |count| format!("GET / HTTP/1.1\r\nHost: h\r\nx: {}\r\n\r\n", "v".repeat(count));
    assert_eq!(status(&exact(fill), Hosts::Any), (200, false));
    assert_eq!(status(&exact(fill + 1), Hosts::Any), (431, true));
}

#[test]
fn a_head_that_does_not_come_is_told_so() {
    let mut session = Session::new(Hosts::Any);
    assert!(!session.is_in_head());
    session.handle_input(b"GET / HT");
    assert_eq!(session.poll(), None);
    assert!(session.is_in_head());
    assert!(matches!(session.time_out(), Event::Refusal(Refusal { status: 408, .. })));
    let mut out = Vec::new();
    session.answer(&mut out, 408, "text/plain", b"");
    assert!(session.is_closing() && session.room() == 0 && session.poll().is_none());
    assert!(out.starts_with(b"HTTP/1.1 408 Request Timeout\r\n"));
}

#[test]
fn an_answer_that_is_not_due_is_not_written() {
    let mut session = Session::new(Hosts::Any);
    let mut out = Vec::new();
    session.answer(&mut out, 200, "text/plain", b"x");
    assert!(out.is_empty());
}

fn pieces() -> impl Strategy<Value = Vec<u8>> {
    let words = [
        "GET ",
        "HEAD ",
        "POST ",
        "/",
        "/state?a=b",
        "*",
        "http://h/",
        " HTTP/1.1",
        " HTTP/1.0",
        "\r\n",
        "\n",
        "\r",
        "\r\n\r\n",
        "Host: h\r\n",
        "Host:",
        "Content-Length: ",
        "0",
        "7",
        "Transfer-Encoding: chunked\r\n",
        "Connection: close\r\n",
        ":",
        " ",
        "[",
        "]",
        "%",
    ];
    let word = prop::sample::select(words.to_vec()).prop_map(|word| word.as_bytes().to_vec());
    let noise = prop::collection::vec(any::<u8>(), 0..4);
    let sound = Just(b"GET /x HTTP/1.1\r\nHost: localhost\r\n".to_vec());
    prop::collection::vec(prop_oneof![8 => word, 1 => noise, 2 => sound], 0..40).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_input_panics_and_no_split_matters(bytes in pieces(), step in 1..40usize) {
        let whole = talk(&bytes, usize::MAX, tcp());
        prop_assert_eq!(talk(&bytes, 1, tcp()), whole.clone());
        prop_assert_eq!(talk(&bytes, step, tcp()), whole);
    }
}
