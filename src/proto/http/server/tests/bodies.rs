//! Bodies of requests, and time.
use super::*;

fn post(headers: &str, body: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: h\r\n{headers}\r\n{body}")
}

const CHUNKED: &str = "Transfer-Encoding: chunked\r\n";

fn length(bytes: usize) -> String {
    format!("Content-Length: {bytes}\r\n")
}

#[test]
fn bodies_come_whole_or_in_pieces() {
    for size in [1, 3, 1000] {
        let tell = |text: String| {
            let mut rig = Rig::new("stream_above=8");
            text.as_bytes().chunks(size).for_each(|part| rig.feed(part).unwrap());
            rig.events()
        };
        let whole = tell(post(&length(8), "01234567"));
        assert!(whole.len() == 1 && whole[0].ends_with(", b\"01234567\"]"), "{whole:?}");
        let whole = tell(post(CHUNKED, "5\r\n01234\r\n3;a=b\r\n567\r\n0\r\n\r\n"));
        assert!(whole.len() == 1 && whole[0].ends_with(", b\"01234567\"]"), "{whole:?}");
        for text in
            [post(&length(9), "012345678"), post(CHUNKED, "8\r\n01234567\r\n1\r\n8\r\n0\r\nA: b\r\nHost: i\r\n\r\n")]
        {
            let told = tell(text.clone());
            assert!(told[0].starts_with("request 0 ") && told[0].ends_with(", true]"), "{told:?}");
            let (end, pieces) = told[1..].split_last().unwrap();
            let pieces: String = pieces.iter().map(|line| line.strip_prefix("chunk Slot(0) bytes:").unwrap()).collect();
            assert_eq!(pieces, "012345678");
            let trailers = if text.contains("A: b") { "[[b\"A\", b\"b\"]]" } else { "none" };
            assert_eq!(end, &format!("end Slot(0) {trailers}"));
        }
    }
}

#[test]
fn a_body_beyond_the_limit_is_413() {
    let mut rig = Rig::new("");
    rig.feed(post(CHUNKED, "")).unwrap();
    let piece = "x".repeat(1 << 16);
    for _ in 0..17 {
        rig.feed(format!("10000\r\n{piece}\r\n")).unwrap();
    }
    let events = rig.events();
    assert!(rig.sent().starts_with("HTTP/1.1 413 "));
    assert!(events.contains(&"Settled { slot: 0 }".to_string()));
    assert_eq!(events.last().unwrap(), "Draining");
}

#[test]
fn the_client_is_told_to_continue() {
    let expects = |more: &str| post(&format!("Expect: 100-Continue\r\n{more}"), "");
    const CONTINUE: &str = "HTTP/1.1 100 Continue\r\n\r\n";
    for (query, header) in [("", length(3)), ("stream_above=1", length(3)), ("", CHUNKED.to_string())] {
        let mut rig = Rig::new(query);
        rig.feed(expects(&header)).unwrap();
        assert_eq!(rig.sent(), CONTINUE);
    }
    let mut rig = Rig::new("");
    rig.feed(format!("{GET}{}", expects(&length(3)))).unwrap();
    assert_eq!(rig.sent(), "", "after the response to the request before");
    rig.reply(0, &made(200, &[], Give::Nil)).unwrap();
    assert!(rig.sent().ends_with(CONTINUE));
}

#[test]
fn an_early_answer_drops_the_rest_of_the_body() {
    let mut rig = Rig::new("stream_above=1");
    rig.feed(post(&length(1000), "abc")).unwrap();
    rig.reply(0, &made(403, &[], Give::Nil)).unwrap();
    assert_eq!(rig.sent(), "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
    rig.events();
    rig.feed("x".repeat(997) + GET).unwrap();
    let events = rig.events();
    assert!(events.len() == 1 && events[0].starts_with("request 1 "), "{events:?}");
    // Too much to be dropped: the client is told that the conn ends.
    let mut rig = Rig::new("stream_above=1");
    rig.feed(post(&length(600_000), "abc")).unwrap();
    rig.reply(0, &made(403, &[], Give::Nil)).unwrap();
    assert!(rig.sent().contains("Connection: close"));
    assert!(rig.drains());
    // A length that nobody knows is dropped up to a bound.
    let mut rig = Rig::new("stream_above=1");
    rig.feed(post(CHUNKED, "3\r\nabc\r\n")).unwrap();
    rig.reply(0, &made(403, &[], Give::Nil)).unwrap();
    assert!(!rig.drains());
    for _ in 0..5 {
        rig.feed(format!("10000\r\n{}\r\n", "x".repeat(1 << 16))).unwrap();
    }
    assert!(rig.drains());
}

#[test]
fn both_directions_may_flow_at_once() {
    let mut rig = Rig::new("stream_above=1");
    rig.feed(post(&length(4), "ab")).unwrap();
    rig.reply(0, &made(200, &[], Give::Follows)).unwrap();
    rig.send(0, &bin("A")).unwrap();
    rig.feed("cd").unwrap();
    assert!(rig.events().contains(&"end Slot(0) none".to_string()));
    rig.send(0, b"\xc0").unwrap();
    assert!(rig.sent().ends_with("1\r\nA\r\n0\r\n\r\n"));
    rig.feed(GET).unwrap();
    assert!(rig.events().iter().any(|line| line.starts_with("request 1")));
}

#[test]
fn a_malformed_end_of_a_streamed_body_settles_it() {
    let mut rig = Rig::new("stream_above=1");
    rig.feed(post(CHUNKED, "3\r\nabc\r\n")).unwrap();
    rig.feed("zzz\r\n").unwrap();
    assert!(rig.events().contains(&"Settled { slot: 0 }".to_string()));
    assert!(rig.sent().starts_with("HTTP/1.1 400 "));
    assert!(rig.reply(0, &made(200, &[], Give::Nil)).is_err());
}

#[test]
fn slow_heads_are_408_however_often_a_byte_comes() {
    let mut rig = Rig::new("head_timeout=10s&idle_timeout=60s");
    rig.pass(SECOND * 50);
    for byte in GET.as_bytes().iter().take(15) {
        rig.feed([*byte]).unwrap();
        rig.pass(SECOND);
    }
    assert!(rig.sent().starts_with("HTTP/1.1 408 "));
    assert!(rig.drains());
    assert_eq!(rig.conn.poll_timeout(), None);
}

#[test]
fn idle_conns_are_closed_in_silence() {
    let mut rig = Rig::new("idle_timeout=60s");
    rig.feed(GET).unwrap();
    rig.pass(SECOND * 500);
    assert!(!rig.drains(), "the program may take its time");
    rig.reply(0, &made(200, &[], Give::Nil)).unwrap();
    rig.sent();
    rig.pass(SECOND * 59);
    assert!(!rig.drains());
    rig.pass(SECOND * 2);
    assert!(rig.drains());
    assert_eq!(rig.sent(), "");
}

#[test]
fn bodies_that_stall_are_408() {
    for query in ["body_timeout=30s", "body_timeout=30s&stream_above=1"] {
        let mut rig = Rig::new(query);
        rig.feed(post(&length(10), "abc")).unwrap();
        rig.pass(SECOND * 29);
        rig.feed("d").unwrap();
        rig.pass(SECOND * 29);
        assert_eq!(rig.sent(), "");
        rig.pass(SECOND * 2);
        assert!(rig.sent().starts_with("HTTP/1.1 408 "));
        assert!(rig.drains());
    }
}

#[test]
fn a_client_that_only_stops_sending_gets_its_answers() {
    let mut rig = Rig::new("");
    rig.feed(format!("{GET}{}", post(&length(10), "abc"))).unwrap();
    rig.events();
    assert_eq!(rig.with(|conn, now, out| conn.handle_eof(now, out)), Ok(()));
    assert_eq!(rig.events(), ["end Slot(0) none"], "the program may want to know");
    rig.reply(0, &made(200, &[], Give::Nil)).unwrap();
    assert!(rig.sent().contains("Connection: close") && rig.drains());
    let mut rig = Rig::new("stream_above=1");
    rig.feed(post(&length(10), "abc")).unwrap();
    assert!(rig.with(|conn, now, out| conn.handle_eof(now, out)).is_err(), "the body can never be whole");
    assert!(rig.with(|conn, now, out| conn.handle_input(now, b"x", out)).is_err());
    assert!(rig.reply(0, &made(200, &[], Give::Nil)).is_err());
    assert!(rig.sent().is_empty());
}
