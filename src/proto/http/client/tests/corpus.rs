//! The responses of `tests/corpus`: where each ends, what it leaves of its conn, and what is none.
use super::*;
use crate::proto::http::corpus::{Case, cuts, responses};

/// What comes of bytes, the first so many and the rest in pieces.
fn outcomes(case: &Case, streams: bool, cut: usize, size: usize) -> Vec<String> {
    let mut rig = Rig::new("http://x");
    let (ask, streams) = match case.asked {
        "CONNECT" => (V::Array(vec![V::Str("CONNECT"), V::Str("o:1")]), true),
        "GET upgrade" => (request("GET", vec![V::Nil, V::Nil, V::Map(vec![("upgrade", V::Str("foo"))])]), true),
        method => (request(method, vec![]), streams),
    };
    rig.ask(&ask, streams).unwrap();
    let (first, rest) = case.bytes.split_at(cut);
    let mut fault = rig.feed(first);
    for part in rest.chunks(size) {
        fault = fault.or_else(|| rig.feed(part));
    }
    if case.closes {
        fault = fault.or_else(|| rig.eof());
    }
    let told = rig.told();
    let (mut outcomes, mut status, mut body) = (Vec::new(), "", String::new());
    for line in &told {
        if let Some(accepted) = line.strip_prefix("accepted 1 [") {
            status = &accepted[..3];
        } else if let Some(chunk) = line.strip_prefix("chunk bytes ") {
            body.push_str(chunk);
        } else if let Some(reply) = line.strip_prefix("reply 1 [").filter(|_| status.is_empty()) {
            let (_, rest) = reply.split_once("], '").unwrap();
            let (body, _) = rest.rsplit_once("', \"").unwrap();
            outcomes.push(format!("{} '{body}'", &reply[..3]));
        } else if line.starts_with("reply 1") {
            outcomes.push(format!("{status} '{body}'"));
        }
    }
    let is_answered = !outcomes.is_empty();
    let is_lane = rig.conn.tenancy() == Tenancy::Spoiled;
    match fault {
        Some(FaultKind::Closed) => outcomes.push("lost".into()),
        Some(_) => outcomes.push("fault".into()),
        None if is_lane => outcomes.push(format!("{status} lane '{body}'")),
        None if told.contains(&"Draining".to_string()) => outcomes.push("end".into()),
        None if rig.conn.admit(&pack(&request("GET", vec![]))) == Admit::Now => outcomes.push("keep".into()),
        None => outcomes.push("wait".into()),
    }
    let mut named = 0;
    rig.conn.abandon(&mut |_| named += 1);
    assert_eq!(named == 0, is_answered, "{}: who has no response is named", case.title);
    outcomes
}

#[test]
fn responses_have_the_outcome_that_their_section_wants() {
    let cases = responses();
    for case in &cases {
        assert_eq!(outcomes(case, false, 0, usize::MAX), case.outcomes, "{}", case.title);
        assert_eq!(outcomes(case, true, 0, usize::MAX), case.outcomes, "{}: as a stream", case.title);
    }
    assert!(cases.len() > 100, "{}", cases.len());
}

#[test]
fn any_split_gives_the_same_outcome() {
    for case in &responses() {
        for cut in cuts(&case.bytes) {
            assert_eq!(outcomes(case, cut % 2 == 0, cut, usize::MAX), case.outcomes, "{}: cut at {cut}", case.title);
        }
        assert_eq!(outcomes(case, false, 0, 1), case.outcomes, "{}: byte by byte", case.title);
    }
}
