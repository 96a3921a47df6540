//! Requests and their replies.
use std::time::Duration;

use super::{Rig, URL, columns, described, driver, error, fatal, int_rows, ready, request, said, script};
use crate::proto::{Command, FaultKind, Follow, Limits, RequestId};

const ID: &[(&str, u32)] = &[("id", 23)];

#[test]
fn a_statement_is_learnt_once_for_the_endpoint_and_prepared_once_for_the_conn() {
    let driver = driver(URL, Limits::default());
    let mut rig = Rig::up(&*driver);
    let body = request("select $1", &["7"]);
    rig.ask(1, &body).unwrap();
    assert_eq!(rig.wrote(), "PDS");
    rig.hear(&described(&[23], ID)).unwrap();
    assert_eq!(rig.wrote(), "BES");
    rig.ask(2, &body).unwrap();
    assert_eq!(rig.wrote(), "BES");
    rig.hear(&int_rows(&[7], b'I')).unwrap();
    rig.hear(&int_rows(&[8, -1], b'I')).unwrap();
    let told = ["1 [\"SELECT 1\", [[\"id\", \"int4\"]], [[7]]]", "2 [\"SELECT 2\", [[\"id\", \"int4\"]], [[8], [-1]]]"];
    assert_eq!(rig.events(), told);
    let mut other = Rig::up(&*driver);
    other.ask(1, &body).unwrap();
    assert_eq!(other.wrote(), "PBDES");
    other.ask(2, &body).unwrap();
    assert_eq!(other.wrote(), "BES");
    other.hear(&[said(b'1', b""), said(b'2', b""), columns(ID, 1)].concat()).unwrap();
    other.hear(&int_rows(&[7], b'I')[5..]).unwrap();
    assert_eq!(other.events(), told[..1]);
}

#[test]
fn without_names_each_execution_brings_its_statement() {
    let mut rig = Rig::up(&*driver(&format!("{URL}?prepare=false"), Limits::default()));
    let body = request("select 1", &[]);
    rig.ask(1, &body).unwrap();
    rig.ask(2, &body).unwrap();
    assert_eq!(rig.wrote(), "PDS");
    rig.hear(&described(&[], ID)).unwrap();
    let wire = rig.wire();
    assert!(!wire.windows(4).any(|window| window.starts_with(b"iok")), "no name is used");
    let one = [said(b'1', b""), said(b'2', b""), columns(ID, 1), int_rows(&[1], b'I')[5..].to_vec()].concat();
    rig.hear(&[&one[..], &one[..]].concat()).unwrap();
    assert_eq!(rig.events().len(), 2);
}

#[test]
fn requests_keep_their_order_while_one_is_learnt() {
    let mut rig = Rig::up(&*driver(URL, Limits::default()));
    rig.ask(1, &request("select 1", &[])).unwrap();
    rig.ask(2, &script("select 2")).unwrap();
    rig.ask(3, &request("select 3", &[])).unwrap();
    assert_eq!(rig.wrote(), "PDS PDS", "the third is learnt ahead");
    rig.hear(&described(&[], ID)).unwrap();
    assert_eq!(rig.wrote(), "BES Q(select 2)");
    rig.hear(&error("42P01", "not yet")).unwrap();
    rig.hear(&ready(b'I')).unwrap();
    assert_eq!(rig.wrote(), "PDS", "once more in its turn");
    rig.hear(&int_rows(&[1], b'I')).unwrap();
    rig.hear(&[columns(ID, 0), said(b'D', b"\0\x01\0\0\0\x012"), said(b'C', b"SELECT 1\0"), ready(b'I')].concat())
        .unwrap();
    rig.hear(&[error("42P01", "no"), ready(b'I')].concat()).unwrap();
    assert_eq!(
        rig.events(),
        [
            "1 [\"SELECT 1\", [[\"id\", \"int4\"]], [[1]]]",
            "2 [[\"SELECT 1\", [[\"id\", \"int4\"]], [[2]]]]",
            "3! [\"42P01\", \"ERROR: no\"]",
        ]
    );
    assert_eq!(rig.conn.inflight(), 0);
}

#[test]
fn what_cannot_be_sent_is_refused_before_and_after_it_was_learnt() {
    let mut rig = Rig::up(&*driver(URL, Limits::default()));
    let [one, two] = [request("select $1", &[]), request("select $1", &["2.5"])];
    rig.ask(1, &one).unwrap();
    rig.hear(&described(&[23], ID)).unwrap();
    assert_eq!(rig.events(), ["1- 0 parameters were given: the statement has 1"]);
    rig.wrote();
    assert!(rig.ask(2, &one).unwrap_err().message.contains("the statement has 1"));
    assert_eq!(rig.wrote(), "");
    rig.ask(3, &two).unwrap();
    assert_eq!(rig.wrote(), "BES", "the server reads the text");
    let batch = [&[0x92][..], &one, &two].concat();
    rig.ask(4, &batch).unwrap();
    rig.hear(&[error("22P02", "bad"), ready(b'I')].concat()).unwrap();
    rig.hear(&[error("22P02", "bad"), ready(b'I')].concat()).unwrap();
    let events = rig.events();
    assert_eq!(events[0], "3! [\"22P02\", \"ERROR: bad\"]");
    assert!(events[1].starts_with("4 [!1([\"BADREQUEST\"") && events[1].ends_with("!1([\"22P02\", \"ERROR: bad\"])]"));
}

#[test]
fn a_statement_that_changed_is_learnt_and_sent_once_more() {
    let pooled = "\\nHINT: is there a pooler in transaction mode? Open the endpoint with prepare=false";
    for (code, message, hint) in
        [("0A000", "cached plan must not change result type", ""), ("26000", "no such name", pooled)]
    {
        let mut rig = Rig::up(&*driver(URL, Limits::default()));
        let body = request("select * from t", &[]);
        rig.ask(1, &body).unwrap();
        rig.hear(&[described(&[], ID), int_rows(&[1], b'I')].concat()).unwrap();
        rig.ask(2, &body).unwrap();
        rig.wrote();
        rig.events();
        rig.hear(&[error(code, message), ready(b'I')].concat()).unwrap();
        assert_eq!(rig.events(), [""; 0]);
        if code == "0A000" {
            assert_eq!(rig.wrote(), "PDS");
            rig.hear(&described(&[], &[("id", 20)])).unwrap();
            assert_eq!(rig.wrote(), "BES");
        } else {
            assert_eq!(rig.wrote(), "PBDES");
        }
        rig.hear(&[error(code, message), ready(b'I')].concat()).unwrap();
        assert_eq!(rig.events(), [format!("2! [\"{code}\", \"ERROR: {message}{hint}\"]")], "not for ever");
    }
}

#[test]
fn conns_have_names_of_their_own_for_statements() {
    for (process, expected) in [(0x3039_u32, "iok303900000001"), (u32::MAX, "iokffffffff00000001")] {
        let mut rig = Rig::new(&*driver(URL, Limits::default()));
        let key = [process.to_be_bytes(), [0, 0, 0, 1]].concat();
        rig.hear(&[said(b'R', &[0; 4]), said(b'K', &key), ready(b'I')].concat()).unwrap();
        rig.wire();
        rig.ask(1, &request("select 1", &[])).unwrap();
        assert!(rig.wire()[5..].starts_with(format!("{expected}\0").as_bytes()));
    }
}

#[test]
fn columns_that_are_others_than_those_known_are_told_as_they_are() {
    let driver = driver(URL, Limits::default());
    let mut rig = Rig::up(&*driver);
    let body = request("select * from t", &[]);
    rig.ask(1, &body).unwrap();
    rig.hear(&[described(&[], ID), int_rows(&[1], b'I')].concat()).unwrap();
    let mut other = Rig::up(&*driver);
    other.ask(1, &body).unwrap();
    other.wrote();
    let row = said(b'D', b"\0\x01\0\0\0\x02hi");
    let end = [said(b'C', b"SELECT 1\0"), ready(b'I')].concat();
    other.hear(&[said(b'1', b""), said(b'2', b""), columns(&[("t", 25)], 1), row, end].concat()).unwrap();
    assert_eq!(other.events(), ["1 [\"SELECT 1\", [[\"t\", \"text\"]], [[\"hi\"]]]"]);
    other.ask(2, &body).unwrap();
    assert_eq!(other.wrote(), "PDS", "learnt anew");
}

#[test]
fn a_cancelled_request_is_deaf_and_one_that_waits_is_not_sent() {
    let mut rig = Rig::up(&*driver(URL, Limits::default()));
    rig.ask(1, &request("select 1", &[])).unwrap();
    rig.ask(2, &request("select 1", &[])).unwrap();
    rig.ask(3, &request("select 1", &[])).unwrap();
    rig.command(Command::Cancel { id: RequestId(2) }).unwrap();
    rig.wrote();
    rig.hear(&described(&[], ID)).unwrap();
    assert_eq!(rig.wrote(), "BES BES");
    rig.command(Command::Cancel { id: RequestId(1) }).unwrap();
    assert_eq!(rig.conn.inflight(), 2);
    rig.hear(&[int_rows(&[1], b'I'), int_rows(&[3], b'I')].concat()).unwrap();
    assert_eq!(rig.events(), ["3 [\"SELECT 1\", [[\"id\", \"int4\"]], [[3]]]"]);
    assert_eq!(rig.conn.inflight(), 0);
}

#[test]
fn replies_are_bounded_and_the_conn_lives_on() {
    let mut rig = Rig::up(&*driver(URL, Limits { message_bytes_max: 200, ..Limits::default() }));
    let body = request("select 1", &[]);
    rig.ask(1, &body).unwrap();
    rig.hear(&described(&[], ID)).unwrap();
    rig.hear(&int_rows(&[1 << 20; 100], b'I')).unwrap();
    rig.ask(2, &script("select x")).unwrap();
    let large = [&b"\0\x01\0\0\x10\0"[..], &[b'x'; 4096]].concat();
    rig.hear(&columns(&[("x", 25)], 0)).unwrap();
    rig.hear(&[said(b'D', &large), said(b'C', b"SELECT 1\0"), ready(b'I')].concat()).unwrap();
    let expected = "[\"TOOLARGE\", \"the reply exceeds 200 bytes: raise max_reply, or ask for less\"]";
    assert_eq!(rig.events(), [format!("1! {expected}"), format!("2! {expected}")]);
    rig.ask(3, &body).unwrap();
    rig.hear(&int_rows(&[5], b'I')).unwrap();
    assert_eq!(rig.events().len(), 1);
    let fault = rig.hear(&said(b'C', &[b'x'; 300])).unwrap_err();
    assert_eq!(fault.kind, FaultKind::TooLarge);
}

#[test]
fn names_of_statements_are_given_back() {
    let mut rig = Rig::up(&*driver(&format!("{URL}?statements=1"), Limits::default()));
    rig.ask(1, &request("select 1", &[])).unwrap();
    rig.hear(&[described(&[], ID), int_rows(&[1], b'I')].concat()).unwrap();
    rig.wrote();
    rig.ask(2, &request("select 2", &[])).unwrap();
    rig.hear(&described(&[], ID)).unwrap();
    assert_eq!(rig.wrote(), "PDS CBES");
    rig.hear(&[said(b'3', b""), int_rows(&[2], b'I')].concat()).unwrap();
    assert_eq!(rig.events().len(), 2);
}

#[test]
fn a_deferred_error_at_the_end_of_the_transaction_is_the_requests() {
    let mut rig = Rig::up(&*driver(URL, Limits::default()));
    rig.ask(1, &request("insert", &[])).unwrap();
    rig.hear(&described(&[], &[])).unwrap();
    rig.hear(&[said(b'2', b""), said(b'C', b"INSERT 0 1\0"), error("23505", "late"), ready(b'I')].concat()).unwrap();
    assert_eq!(rig.events(), ["1! [\"23505\", \"ERROR: late\"]"]);
}

#[test]
fn heartbeats_are_sent_when_nothing_is_under_way() {
    let mut rig = Rig::up(&*driver(URL, Limits::default()));
    let beat = Limits::default().heartbeat;
    rig.pass(beat).unwrap();
    assert_eq!(rig.wrote(), "S");
    rig.hear(&ready(b'I')).unwrap();
    rig.ask(1, &script("select pg_sleep(60)")).unwrap();
    assert_eq!(rig.conn.poll_timeout(), None, "a long statement is no silence");
    rig.pass(beat * 100).unwrap();
    rig.hear(&[said(b'I', b""), ready(b'I')].concat()).unwrap();
    rig.wrote();
    rig.pass(beat).unwrap();
    let fault = rig.pass(Limits::default().silence_max + Duration::from_secs(1)).unwrap_err();
    assert_eq!(fault.kind, FaultKind::Silent);
}

/// The answer to the question for a role.
fn role(values: &[&str]) -> Vec<u8> {
    let mut row = (values.len() as u16).to_be_bytes().to_vec();
    for value in values {
        row.extend_from_slice(&(value.len() as u32).to_be_bytes());
        row.extend_from_slice(value.as_bytes());
    }
    [said(b'D', &row), said(b'C', b"SELECT 1\0"), ready(b'I')].concat()
}

#[test]
fn a_server_that_has_no_timelines_tells_its_role_nonetheless() {
    let mut rig = Rig::new(&*driver(URL, Limits { follow: Follow::Roles, ..Limits::default() }));
    rig.wire();
    rig.hear(super::WELCOME).unwrap();
    assert!(rig.wrote().contains("walfile"));
    rig.hear(&[error("42883", "no such function"), ready(b'I')].concat()).unwrap();
    let asked = rig.wrote();
    assert!(rig.events().is_empty() && asked.contains("pg_is_in_recovery") && !asked.contains("walfile"), "{asked}");
    rig.hear(&role(&["f", "off"])).unwrap();
    assert_eq!(rig.events()[0], "Role { role: Primary, follows: None }");
    // One that was a standby is asked what it has become.
    rig.hear(&said(b'S', b"in_hot_standby\0on\0")).unwrap();
    rig.hear(&said(b'S', b"in_hot_standby\0off\0")).unwrap();
    assert_eq!((rig.events(), rig.wrote()), (vec!["Role { role: Replica, follows: None }".to_string()], asked));
    rig.hear(&role(&["f", "on"])).unwrap();
    assert_eq!(rig.events(), ["Role { role: Replica, follows: None }"], "it takes no writes");
}

#[test]
fn roles_are_told_and_what_was_not_executed_is_handed_back() {
    let limits = Limits { follow: Follow::Roles, ..Limits::default() };
    let driver = driver(URL, limits);
    let mut rig = Rig::new(&*driver);
    rig.wire();
    rig.hear(super::WELCOME).unwrap();
    assert!(rig.events().is_empty() && rig.wrote().starts_with("Q(SELECT pg_catalog.pg_is_in_recovery()"));
    rig.hear(&role(&["f", "off", "0000000B000000010000002A"])).unwrap();
    let events = rig.events();
    assert_eq!(events[..2], ["Reign(11)", "Role { role: Primary, follows: None }"]);
    assert!(events[2].starts_with("Ready"));
    rig.ask(1, &request("insert", &[])).unwrap();
    rig.hear(&described(&[], &[])).unwrap();
    rig.hear(&[said(b'2', b""), error("25006", "no"), ready(b'I')].concat()).unwrap();
    let expected = ["1? NotPrimary [\"25006\", \"ERROR: no\"]", "Role { role: Replica, follows: None }"];
    assert_eq!(rig.events(), expected);
    rig.hear(&said(b'S', b"in_hot_standby\0on\0")).unwrap();
    assert_eq!(rig.events(), ["Role { role: Replica, follows: None }"]);
    rig.ask(2, &request("insert", &[])).unwrap();
    rig.ask(3, &request("insert", &[])).unwrap();
    assert_eq!(rig.hear(&fatal("57P01")).unwrap_err().kind, FaultKind::Closed);
    let handed_back = |id| format!("{id}? NotServing [\"57P01\", \"FATAL: bye\"]");
    assert_eq!(rig.events(), [handed_back(2), handed_back(3)]);
    rig.conn.abandon(&mut |id| panic!("{id:?} was handed back"));
}

#[test]
fn channels_are_listened_to_beside_requests() {
    let mut rig = Rig::up(&*driver(URL, Limits::default()));
    rig.command(Command::Subscribe { topic: b"a\"b" }).unwrap();
    assert_eq!(rig.wrote(), "Q(LISTEN \\\"a\\\"\\\"b\\\")");
    rig.hear(&[said(b'C', b"LISTEN\0"), ready(b'I')].concat()).unwrap();
    rig.hear(&said(b'A', b"\0\0\0\x07a\"b\0rain\0")).unwrap();
    rig.hear(&said(b'A', b"\0\0\0\x07other\0rain\0")).unwrap();
    rig.command(Command::Unsubscribe { topic: b"a\"b" }).unwrap();
    rig.hear(&[said(b'C', b"UNLISTEN\0"), ready(b'I')].concat()).unwrap();
    rig.hear(&said(b'A', b"\0\0\0\x07a\"b\0rain\0")).unwrap();
    let push = "push a\\\"b [\"notification\", \"a\\\"b\", \"rain\", 7]";
    assert_eq!(rig.events(), ["Subscribed { topic: [97, 34, 98] }", push]);
}

#[test]
fn rows_are_told_as_they_come_to_who_wants_them_so() {
    let mut rig = Rig::up(&*driver(URL, Limits { message_bytes_max: 64 << 10, ..Limits::default() }));
    let body = request("select 1", &[]);
    let ask = |rig: &mut Rig, id| {
        rig.command(Command::Request { id: RequestId(id), body: &body, asking: false, streams: true }).unwrap();
    };
    ask(&mut rig, 1);
    rig.hear(&[described(&[], ID), int_rows(&[7, 8], b'I')].concat()).unwrap();
    let end = "[\"SELECT 2\", [[\"id\", \"int4\"]], []]";
    assert_eq!(rig.events(), ["1 accepted [[\"id\", \"int4\"]]", "rows [[7], [8]]", &format!("1 {end}")]);
    ask(&mut rig, 2);
    rig.hear(&int_rows(&[1 << 20; 20_000], b'I')).unwrap();
    let events = rig.events();
    assert!(events.len() > 5, "they are more than a reply may have: {}", events.len());
    ask(&mut rig, 3);
    rig.hear(&[error("42P01", "gone"), ready(b'I')].concat()).unwrap();
    assert_eq!(rig.events(), ["3! [\"42P01\", \"ERROR: gone\"]"]);
}
