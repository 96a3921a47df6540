//! The requests of `tests/corpus`: what is refused, and with which status; what is served, and where it ends.
use super::*;
use crate::proto::http::corpus::{Case, cuts, requests};

const NEXT: &str = "GET /next HTTP/1.1\r\nHost: h\r\n\r\n";

/// What comes of bytes: each request that is served, and the status of one that is refused. All are answered at once, with 404.
fn outcomes(rig: &mut Rig, bytes: &[u8]) -> Vec<String> {
    rig.feed(bytes).unwrap();
    let mut outcomes = Vec::new();
    loop {
        let events = std::mem::take(&mut rig.log.0);
        let requests: Vec<&String> = events.iter().filter(|line| line.starts_with("request ")).collect();
        for line in &requests {
            let slot = line.split(' ').nth(1).unwrap().parse().unwrap();
            outcomes.push(served(line));
            rig.reply(slot, &made(404, &[], Give::Nil)).unwrap();
        }
        if requests.is_empty() {
            rig.log.0 = events;
            break;
        }
    }
    let sent = rig.sent();
    let statuses = sent.split("HTTP/1.1 ").skip(1).map(|response| response[..3].to_string());
    outcomes.extend(statuses.filter(|status| status != "404" && status != "100"));
    outcomes
}

/// `request 0 [["GET", "/a", [], 11, ""], b"abc"]` as `GET /a 'abc'`.
fn served(line: &str) -> String {
    let (head, body) = line.split_once(", \"\"], ").unwrap();
    let words: Vec<&str> = head.split('"').collect();
    let body = match body.strip_suffix(']').unwrap() {
        "nil" => String::new(),
        body => format!(" '{}'", body.strip_prefix("b\"").unwrap().strip_suffix('"').unwrap()),
    };
    format!("{} {}{body}", words[1], words[3])
}

fn is_refusal(outcome: &str) -> bool {
    outcome.parse::<u16>().is_ok()
}

#[test]
fn requests_have_the_outcome_that_their_section_wants() {
    let cases = requests();
    for Case { title, bytes, outcomes: expected, .. } in &cases {
        let mut rig = Rig::new("");
        let (last, before) = expected.split_last().unwrap();
        if *last == "wait" {
            assert_eq!(outcomes(&mut rig, bytes), before, "{title}");
            let waits = rig.conn.poll_timeout().is_some_and(|at| at < rig.now + SECOND * 60);
            assert!(waits && !rig.drains(), "{title}: it waits for the rest");
            continue;
        }
        // What is behind shows where the last message ended.
        let found = outcomes(&mut rig, &[bytes, NEXT.repeat(2).as_bytes()].concat());
        let ends = is_refusal(last) || *last == "end";
        let expected = match *last {
            "end" => before.to_vec(),
            _ if ends => expected.clone(),
            _ => [expected, &["GET /next"; 2][..]].concat(),
        };
        assert_eq!(found, expected, "{title}");
        assert_eq!(rig.drains(), ends, "{title}");
    }
    assert!(cases.len() > 290, "{}", cases.len());
}

#[test]
fn a_refusal_says_that_the_conn_ends() {
    for Case { title, bytes, outcomes, .. } in requests().iter().filter(|case| is_refusal(case.outcomes[0])) {
        let mut rig = Rig::new("");
        rig.feed([bytes, GET.repeat(3).as_bytes()].concat()).unwrap();
        let sent = rig.sent();
        assert!(sent.starts_with(&format!("HTTP/1.1 {} ", outcomes[0])), "{title}: {sent}");
        assert!(sent.contains("\r\nConnection: close\r\n"), "{title}: {sent}");
        assert_eq!(sent.matches("\r\n\r\n").count(), 1, "{title}: one response: {sent}");
        let events = rig.events();
        assert!(!events.iter().any(|line| line.starts_with("request")), "{title}: {events:?}");
        assert!(events.iter().any(|line| line.starts_with("access")), "{title}: {events:?}");
        assert_eq!(events.last().map(String::as_str), Some("Draining"), "{title}");
    }
}

#[test]
fn any_split_gives_the_same_outcome() {
    let run = |bytes: &[u8], cut: usize, size: usize| {
        let mut rig = Rig::new("");
        let (first, rest) = bytes.split_at(cut);
        rig.feed(first).unwrap();
        rest.chunks(size).for_each(|part| rig.feed(part).unwrap());
        (rig.events(), rig.sent())
    };
    for Case { title, bytes, .. } in requests() {
        let whole = run(&bytes, 0, usize::MAX);
        for cut in cuts(&bytes) {
            assert_eq!(run(&bytes, cut, usize::MAX), whole, "{title}: cut at {cut}");
        }
        assert_eq!(run(&bytes, 0, 1), whole, "{title}: byte by byte");
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
