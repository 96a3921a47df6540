//! What tenants leave on a conn, and how it is taken off.
use super::{Rig, URL, described, driver, error, ready, request, said, script};
use crate::proto::{Class, Limits, Tenancy};

fn ended(tag: &str, status: u8) -> Vec<u8> {
    [said(b'C', format!("{tag}\0").as_bytes()), ready(status)].concat()
}

#[test]
fn a_transaction_that_is_left_open_is_rolled_back() {
    let mut rig = Rig::up(&*driver(URL, Limits::default()));
    rig.ask(1, &script("begin")).unwrap();
    rig.hear(&ended("BEGIN", b'T')).unwrap();
    assert_eq!((rig.conn.tenancy(), rig.conn.poll_timeout()), (Tenancy::Dirty, None));
    assert_eq!(rig.wrote(), "Q(begin)");
    rig.reset();
    assert_eq!(rig.wrote(), "Q(ROLLBACK)");
    assert_eq!(rig.conn.tenancy(), Tenancy::Dirty);
    rig.hear(&ended("ROLLBACK", b'I')).unwrap();
    assert_eq!(rig.conn.tenancy(), Tenancy::Clean);
    rig.ask(2, &script("begin")).unwrap();
    rig.hear(&ended("BEGIN", b'T')).unwrap();
    rig.ask(3, &script("commit")).unwrap();
    rig.hear(&ended("COMMIT", b'I')).unwrap();
    assert_eq!(rig.conn.tenancy(), Tenancy::Clean, "nothing is left to be taken off");
}

#[test]
fn a_changed_session_is_discarded_with_its_statements() {
    let mut rig = Rig::up(&*driver(URL, Limits::default()));
    rig.ask(1, &request("set a = 1", &[])).unwrap();
    rig.hear(&[described(&[], &[]), said(b'2', b""), ended("SET", b'I')].concat()).unwrap();
    rig.wrote();
    assert_eq!(rig.conn.tenancy(), Tenancy::Dirty);
    rig.reset();
    assert_eq!(rig.wrote(), "Q(DISCARD ALL)");
    rig.hear(&ended("DISCARD ALL", b'I')).unwrap();
    assert_eq!(rig.conn.tenancy(), Tenancy::Clean);
    rig.ask(2, &request("set a = 1", &[])).unwrap();
    assert_eq!(rig.wrote(), "PBDES", "its name is gone");
    rig.hear(&[said(b'1', b""), said(b'2', b""), said(b'n', b""), ended("SET", b'I')].concat()).unwrap();
    rig.reset();
    rig.hear(&[error("55006", "no"), ready(b'I')].concat()).unwrap();
    assert_eq!(rig.conn.tenancy(), Tenancy::Spoiled);
}

#[test]
fn a_transaction_that_nobody_asked_for_is_ended() {
    let mut rig = Rig::up(&*driver(URL, Limits::default()));
    rig.ask(1, &script("select odd()")).unwrap();
    rig.wrote();
    rig.hear(&ended("SELECT 1", b'T')).unwrap();
    assert_eq!(rig.wrote(), "Q(ROLLBACK)");
    rig.hear(&ended("ROLLBACK", b'I')).unwrap();
    assert_eq!((rig.wrote(), rig.conn.tenancy()), (String::new(), Tenancy::Clean));
}

#[test]
fn errors_inside_of_a_transaction_are_the_tenants() {
    let limits = Limits { follow: crate::proto::Follow::Roles, ..Limits::default() };
    let mut rig = Rig::up(&*driver(URL, limits));
    let fails = [error("42501", "no"), ready(b'I')].concat();
    rig.hear(&[&fails[..], &fails[..]].concat()).unwrap();
    rig.ask(1, &script("begin read only")).unwrap();
    rig.hear(&ended("BEGIN", b'T')).unwrap();
    rig.ask(2, &script("insert")).unwrap();
    rig.hear(&[error("25006", "no"), ready(b'E')].concat()).unwrap();
    assert_eq!(rig.events().last().unwrap(), "2! [\"25006\", \"ERROR: no\"]");
}

#[test]
fn requests_are_judged_before_there_is_a_conn() {
    let driver = driver(URL, Limits::default());
    let class = |body: &[u8]| driver.classify(body, false).map(|need| need.class);
    assert_eq!(class(&request("select 1", &[])), Ok(Class::Shared));
    assert!(matches!(class(&request("begin", &[])), Ok(Class::Pinned(_))));
    assert!(matches!(class(&script("select 1; set a = 1")), Ok(Class::Pinned(_))));
    assert_eq!(class(&request("LISTEN", &["a", "b", "a"])), Ok(Class::Topics(vec![b"a".to_vec(), b"b".to_vec()])));
    assert!(matches!(class(&request("listen a", &[])), Ok(Class::Pinned(_))));
    let batch = [&[0x92][..], &request("select 1", &[]), &request("begin", &[])].concat();
    assert!(matches!(class(&batch), Ok(Class::Pinned(_))));
    for (body, why) in [
        (&b"\x90"[..], "empty array"),
        (b"\xc0", "not a bare nil"),
        (b"\x91\x01", "the statement is int"),
        (b"\x92\xa1a", "malformed"),
        (b"\x91\xa1a\x01", "bytes follow"),
        (b"\x91\xa2a\0", "NUL"),
        (b"\x91\xa1\xff", "no UTF-8"),
        (b"\x80", "empty map"),
        (b"\x81\xa1x\x01", "x: expected"),
        (b"\x92\x91\xa1a\x01", "statement 1 of the batch: int"),
        (b"\x92\xa6LISTEN\xa0", "channel 1 has 0 bytes"),
    ] {
        let refusal = class(body).unwrap_err();
        assert!(refusal.message.contains(why), "{}: expected {why}", refusal.message);
    }
    let refusal = class(&request("copy t from stdin", &[])).unwrap_err();
    assert!(refusal.message.contains("COPY"));
    assert_eq!(driver.command(&request(" select secret", &[])), b"select");
    assert_eq!(driver.command(&script("Insert into t")), b"Insert");
    assert!(driver.is_secret(&request("alter role me Password 'x'", &[])) && !driver.is_secret(&script("select 1")));
}
