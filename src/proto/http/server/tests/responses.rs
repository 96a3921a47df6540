//! What the program answers, and how it goes out.
use super::*;

/// One request, one reply: what the client sees.
fn answer(request: &str, reply: &[u8]) -> (Result<Then, String>, String, bool) {
    let mut rig = Rig::new("");
    rig.feed(request).unwrap();
    let then = rig.reply(0, reply);
    (then, rig.sent(), rig.drains())
}

const HEAD: &str = "HEAD / HTTP/1.1\r\nHost: h\r\n\r\n";
const OLD: &str = "GET / HTTP/1.0\r\n\r\n";

#[test]
fn a_reply_is_written_with_its_length() {
    for (body, sent) in [
        (Give::Text("Hello"), "Content-Length: 5\r\n\r\nHello"),
        (Give::Parts(&["Hel", "", "lo"]), "Content-Length: 5\r\n\r\nHello"),
        (Give::Nil, "Content-Length: 0\r\n\r\n"),
    ] {
        let (then, wire, drains) = answer(GET, &made(200, &[("A", "b")], body));
        assert_eq!((then, wire, drains), (Ok(Then::Done), format!("HTTP/1.1 200 OK\r\nA: b\r\n{sent}"), false));
    }
}

#[test]
fn statuses_are_numbers_or_lines() {
    let line = |status: &[u8]| {
        let reply = [b"\x93", status, b"\x90\xc0"].concat();
        let (then, wire, _) = answer(GET, &reply);
        (then.is_ok(), wire.lines().next().unwrap().to_string())
    };
    assert_eq!(line(b"\xcd\x01\x94"), (true, "HTTP/1.1 404 Not Found".into()));
    assert_eq!(line(b"\xab299 My word"), (true, "HTTP/1.1 299 My word".into()));
    assert_eq!(line(b"\xa3204"), (true, "HTTP/1.1 204 No Content".into()));
    for bad in [&b"\xa2OK"[..], b"\x05", b"\xcd\x03\xe8", b"\xa6200\r\nA", b"\xa4200x", b"\xc0"] {
        assert_eq!(line(bad), (false, "HTTP/1.1 500 Internal Server Error".into()), "{}", bad.escape_ascii());
    }
}

#[test]
fn headers_are_pairs_or_a_map() {
    let (then, wire, _) = answer(GET, b"\x93\xcc\xc8\x82\xa1A\xa1b\xa3Set\x92\xa1c\xc4\x01d\xc0");
    assert_eq!(then, Ok(Then::Done));
    assert_eq!(wire, "HTTP/1.1 200 OK\r\nA: b\r\nSet: c\r\nSet: d\r\nContent-Length: 0\r\n\r\n");
}

#[test]
fn nothing_can_be_injected() {
    for (name, value) in [
        ("A", "b\r\nSet-Cookie: c"),
        ("A", "b\nc"),
        ("A", "b\rc"),
        ("A", "b\0c"),
        ("A\r\nB", "c"),
        ("A:", "c"),
        ("A b", "c"),
        ("", "c"),
        ("Transfer-Encoding", "chunked"),
        ("transfer-encoding", "identity"),
        ("Content-Length", "5x"),
        ("Content-Length", ""),
        ("Content-Length", "-1"),
    ] {
        let (then, wire, drains) = answer(GET, &made(200, &[("X", "y"), (name, value)], Give::Text("Hello")));
        assert!(then.is_err(), "{name:?}: {value:?}");
        assert!(wire.starts_with("HTTP/1.1 500 ") && !wire.contains("X: y") && !wire.contains("Set-Cookie"), "{wire}");
        assert!(!drains);
    }
}

#[test]
fn an_error_of_the_program_is_a_500_that_tells_nothing() {
    let mut reply = Vec::new();
    write::error_ext(&mut reply, 1, b"ERR", b"secret");
    let (then, wire, _) = answer(GET, &reply);
    assert_eq!(then, Ok(Then::Done));
    assert!(wire.starts_with("HTTP/1.1 500 ") && !wire.contains("secret"), "{wire}");
}

#[test]
fn some_responses_have_no_body_whatever_is_given() {
    let body = Give::Text("Hello");
    for (request, status, headers, expected) in [
        (HEAD, 200, &[][..], "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
        (HEAD, 200, &[("Content-Length", "9")], "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"),
        (GET, 204, &[], "HTTP/1.1 204 No Content\r\n\r\n"),
        (GET, 204, &[("Content-Length", "9")], "HTTP/1.1 204 No Content\r\n\r\n"),
        (GET, 205, &[], "HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n"),
        (GET, 205, &[("Content-Length", "9")], "HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n"),
        (GET, 304, &[], "HTTP/1.1 304 Not Modified\r\n\r\n"),
        (GET, 304, &[("Content-Length", "9")], "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n"),
    ] {
        let (then, wire, drains) = answer(request, &made(status, headers, body));
        assert_eq!((then, wire.as_str(), drains), (Ok(Then::Done), expected, false));
    }
}

#[test]
fn pieces_go_out_in_chunks() {
    let mut rig = Rig::new("");
    rig.feed(GET).unwrap();
    assert_eq!(rig.reply(0, &made(200, &[], Give::Follows)), Ok(Then::Open));
    assert_eq!(rig.send(0, &bin("Hello")), Ok(Then::Open));
    assert_eq!(rig.send(0, &bin("")), Ok(Then::Open));
    assert_eq!(rig.send(0, &bin(&"x".repeat(20))), Ok(Then::Open));
    assert!(rig.send(0, &pairs(&[("Content-Length", "5")])).is_err());
    assert_eq!(rig.send(0, &pairs(&[("ETag", "e")])), Ok(Then::Done));
    let x = "x".repeat(20);
    let expected =
        format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nHello\r\n14\r\n{x}\r\n0\r\nETag: e\r\n\r\n");
    assert_eq!(rig.sent(), expected);
    assert!(rig.send(0, b"\xc0").is_err(), "it is over");
    assert!(rig.events().contains(&"access GET / 11 200 25  ".to_string()));
}

#[test]
fn trailers_of_a_whole_reply_make_it_chunked() {
    let mut reply = made(200, &[], Give::Text("Hello"));
    reply[0] = 0x94;
    reply.extend(pairs(&[("ETag", "e")]));
    let (_, wire, _) = answer(GET, &reply);
    let expected = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nHello\r\n0\r\nETag: e\r\n\r\n";
    assert_eq!(wire, expected);
    let (_, wire, _) = answer(OLD, &reply);
    assert_eq!(wire, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nHello");
}

#[test]
fn a_given_length_is_enforced() {
    let length = [("Content-Length", "5")];
    let (then, wire, drains) = answer(GET, &made(200, &length, Give::Text("Hello, world")));
    assert!(then.is_err() && !drains);
    assert!(wire.ends_with("Content-Length: 5\r\n\r\nHello"), "{wire}");
    let (then, wire, drains) = answer(GET, &made(200, &length, Give::Text("Hel")));
    assert!(then.is_err() && drains, "the client must see that it is short");
    assert!(wire.ends_with("\r\n\r\nHel"), "{wire}");
    let mut rig = Rig::new("");
    rig.feed(GET).unwrap();
    rig.reply(0, &made(200, &length, Give::Follows)).unwrap();
    rig.send(0, &bin("Hel")).unwrap();
    assert!(rig.send(0, &bin("lo!")).is_err());
    assert!(rig.sent().ends_with("Content-Length: 5\r\n\r\nHello"));
    assert!(rig.events().contains(&"Settled { slot: 0 }".to_string()));
    rig.feed(GET).unwrap();
    rig.reply(1, &made(200, &length, Give::Follows)).unwrap();
    rig.send(1, &bin("Hel")).unwrap();
    assert_eq!(rig.send(1, b"\xc0"), Ok(Then::Done));
    assert!(rig.drains());
}

#[test]
fn http_1_0_closes_unless_asked_not_to() {
    let (_, wire, drains) = answer(OLD, &made(200, &[], Give::Text("a")));
    assert_eq!((wire.as_str(), drains), ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: close\r\n\r\na", true));
    let kept = "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
    let (_, wire, drains) = answer(kept, &made(200, &[], Give::Text("a")));
    let expected = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: keep-alive\r\n\r\na";
    assert_eq!((wire.as_str(), drains), (expected, false));
    let mut rig = Rig::new("");
    rig.feed(kept).unwrap();
    assert_eq!(rig.reply(0, &made(103, &[("Link", "x")], Give::Nil)), Ok(Then::Open), "and is not sent");
    rig.reply(0, &made(200, &[], Give::Follows)).unwrap();
    rig.send(0, &bin("Hello")).unwrap();
    assert_eq!(rig.send(0, b"\xc0"), Ok(Then::Done));
    assert_eq!(rig.sent(), "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nHello");
    assert!(rig.drains());
}

#[test]
fn interim_responses_go_at_once_and_leave_the_slot_open() {
    let mut rig = Rig::new("");
    rig.feed(GET).unwrap();
    assert_eq!(rig.reply(0, &made(103, &[("Link", "</a>")], Give::Nil)), Ok(Then::Open));
    assert_eq!(rig.sent(), "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
    assert_eq!(rig.reply(0, &made(200, &[], Give::Nil)), Ok(Then::Done));
    assert!(answer(GET, &made(101, &[], Give::Follows)).0.is_err(), "nobody asked for an upgrade");
}

#[test]
fn responses_leave_in_the_order_of_their_requests() {
    let mut rig = Rig::new("");
    rig.feed(GET.repeat(5)).unwrap();
    assert_eq!(rig.events().len(), 4, "as many as the limit");
    assert!(rig.conn.paused());
    rig.reply(2, &made(202, &[], Give::Text("c"))).unwrap();
    rig.reply(1, &made(201, &[], Give::Follows)).unwrap();
    rig.send(1, &bin("b")).unwrap();
    assert_eq!(rig.sent(), "");
    rig.reply(0, &made(200, &[], Give::File(7, 10, 100))).unwrap();
    let sent = rig.sent();
    let first = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n";
    let second = "HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nb\r\n";
    assert_eq!(sent, format!("{first}{second}"));
    assert_eq!(rig.files, [(first.len(), Span { fd: 7, offset: 10, length: 100 })]);
    rig.send(1, b"\xc0").unwrap();
    assert_eq!(rig.sent(), "0\r\n\r\nHTTP/1.1 202 Accepted\r\nContent-Length: 1\r\n\r\nc");
    assert!(rig.events().iter().any(|line| line.starts_with("request 4")), "the fifth was taken");
    assert!(rig.reply(2, b"\x91\xcc\xc8").is_err() && rig.reply(9, b"\x91\xcc\xc8").is_err());
}

#[test]
fn files_that_wait_move_with_their_responses() {
    let mut rig = Rig::new("");
    rig.feed(GET.repeat(2)).unwrap();
    rig.reply(1, &made(200, &[], Give::Follows)).unwrap();
    rig.send(1, &span(3, 0, 16)).unwrap();
    rig.send(1, b"\xc0").unwrap();
    rig.reply(0, &made(200, &[], Give::Text("a"))).unwrap();
    let before =
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\naHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\n";
    assert_eq!(rig.sent(), format!("{before}\r\n0\r\n\r\n"));
    assert_eq!(rig.files, [(before.len(), Span { fd: 3, offset: 0, length: 16 })]);
}

#[test]
fn a_response_that_closes_is_the_last() {
    let mut rig = Rig::new("");
    rig.feed(GET.repeat(3)).unwrap();
    rig.reply(2, &made(200, &[], Give::Nil)).unwrap();
    rig.reply(0, &made(200, &[("Connection", "close")], Give::Nil)).unwrap();
    assert_eq!(rig.sent(), "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    let events = rig.events();
    assert!(events.contains(&"Settled { slot: 1 }".to_string()), "{events:?}");
    assert_eq!(events.last().unwrap(), "Draining");
    rig.feed(GET).unwrap();
    assert_eq!((rig.events(), rig.sent()), (vec![], String::new()));
    let mut rig = Rig::new("");
    rig.feed(format!("GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n{GET}")).unwrap();
    assert_eq!(rig.events().len(), 1, "9.6: what follows a close is not served");
    rig.reply(0, &made(200, &[], Give::Nil)).unwrap();
    assert!(rig.drains());
}

#[test]
fn rfc_9112_s9_6_nothing_is_processed_behind_a_response_that_closes() {
    let close = made(200, &[("Connection", "close")], Give::Nil);
    let wrong = made(200, &[("Content-Length", "5")], Give::Text("Hel"));
    for last in [&close, &wrong] {
        let mut rig = Rig::new("");
        rig.feed(GET.repeat(2)).unwrap();
        let _ = rig.reply(1, last);
        rig.events();
        rig.feed(format!("POST /never HTTP/1.1\r\nHost: h\r\n\r\n{GET}")).unwrap();
        assert_eq!(rig.events(), Vec::<String>::new(), "though its response still waits for the first");
        rig.reply(0, &made(200, &[], Give::Nil)).unwrap();
        assert!(rig.drains() && rig.sent().matches("HTTP/1.1 200").count() == 2);
    }
}

#[test]
fn date_and_server_are_added_unless_given() {
    let now = Rig::new("").now;
    let transport = Transport { wall: Some((now, Duration::from_secs(784_111_777))), ..Transport::default() };
    let mut rig = Rig::over("", &transport);
    rig.feed(GET.repeat(2)).unwrap();
    rig.reply(0, &made(200, &[], Give::Nil)).unwrap();
    let date = "Date: Sun, 06 Nov 1994 08:49:37 GMT";
    assert_eq!(rig.sent(), format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n{date}\r\nServer: iokernel\r\n\r\n"));
    rig.reply(1, &made(200, &[("date", "x"), ("server", "y")], Give::Nil)).unwrap();
    assert_eq!(rig.sent(), "HTTP/1.1 200 OK\r\ndate: x\r\nserver: y\r\nContent-Length: 0\r\n\r\n");
}

#[test]
fn closing_lets_what_is_under_way_finish() {
    let mut rig = Rig::new("");
    rig.pass(SECOND);
    rig.with(|conn, now, out| conn.close(now, out));
    assert!(rig.drains(), "idle");
    let mut rig = Rig::new("");
    rig.feed(GET.repeat(2)).unwrap();
    rig.with(|conn, now, out| conn.close(now, out));
    rig.feed(GET).unwrap();
    rig.reply(0, &made(200, &[], Give::Nil)).unwrap();
    assert_eq!(rig.sent(), "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    rig.reply(1, &made(200, &[], Give::Nil)).unwrap();
    assert_eq!(rig.sent(), "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    assert!(rig.drains());
    assert_eq!(rig.events().iter().filter(|line| line.starts_with("request")).count(), 2);
    let mut rig = Rig::new("");
    rig.feed(&GET[..9]).unwrap();
    rig.with(|conn, now, out| conn.close(now, out));
    rig.feed(&GET[9..]).unwrap();
    rig.reply(0, &made(200, &[], Give::Nil)).unwrap();
    assert!(rig.sent().contains("Connection: close") && rig.drains(), "one that had begun is served");
}

#[test]
fn a_request_that_was_on_its_way_while_we_leave_is_served() {
    let mut rig = Rig::new("");
    rig.feed(GET).unwrap();
    rig.reply(0, &made(200, &[], Give::Nil)).unwrap();
    rig.sent();
    rig.with(|conn, now, out| conn.close(now, out));
    assert!(!rig.drains());
    rig.feed(GET).unwrap();
    rig.reply(1, &made(200, &[], Give::Nil)).unwrap();
    assert!(rig.sent().contains("Connection: close") && rig.drains());

    let mut rig = Rig::new("");
    rig.with(|conn, now, out| conn.close(now, out));
    rig.pass(SECOND / 2);
    assert!(!rig.drains());
    rig.pass(SECOND);
    assert!(rig.drains(), "nothing came in time");
}

#[test]
fn a_response_that_fails_in_the_middle_ends_with_its_conn() {
    let mut failed = Vec::new();
    write::ext(&mut failed, crate::ring::layout::IOK_EXT_ERROR, b"\x92\xa3ERR\xa0");
    let mut rig = Rig::new("");
    rig.feed([GET, GET].concat()).unwrap();
    rig.reply(0, &made(200, &[], Give::Follows)).unwrap();
    rig.send(0, &bin("Hello")).unwrap();
    assert_eq!(rig.send(0, &failed), Ok(Then::Done));
    let sent = rig.sent();
    assert!(sent.ends_with("\r\n5\r\nHello\r\n"), "9112, 7.1: no last chunk, so it is not complete: {sent}");
    assert!(rig.drains(), "9112, 9.6: nothing follows");
}

#[test]
fn health_is_asked_of_the_kernel_and_keeps_its_place() {
    let mut rig = Rig::new("health=/healthz");
    rig.feed(format!("{GET}GET /healthz?full HTTP/1.1\r\nHost: h\r\n\r\nPOST /healthz HTTP/1.1\r\nHost: h\r\n\r\n"))
        .unwrap();
    let events = rig.events();
    assert_eq!(events[1], "Health { slot: 1 }");
    assert!(events[2].starts_with("request 2"), "{events:?}");
    rig.reply(1, &made(200, &[], Give::Text("well"))).unwrap();
    assert_eq!(rig.sent(), "");
    rig.reply(0, &made(200, &[], Give::Nil)).unwrap();
    assert!(rig.sent().ends_with("\r\n\r\nwell"));
}
