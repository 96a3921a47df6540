//! Upgrades and tunnels.
use super::*;

const UPGRADE: &str = "GET /up HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";

#[test]
fn an_upgrade_is_a_lane_of_bytes() {
    let mut rig = Rig::new("");
    rig.feed(format!("{UPGRADE}early")).unwrap();
    assert!(rig.conn.paused(), "nothing is read until the program has decided");
    assert_eq!(rig.reply(0, &made(101, &[], Give::Follows)), Ok(Then::Open));
    assert_eq!(rig.sent(), "HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n");
    assert_eq!(rig.events()[1..], ["chunk Slot(0) bytes:early"]);
    rig.feed("GET / HTTP/1.1\r\n\r\n").unwrap();
    assert_eq!(rig.events(), ["chunk Slot(0) bytes:GET / HTTP/1.1\\r\\n\\r\\n"]);
    rig.send(0, &bin("hello")).unwrap();
    rig.with(|conn, now, out| conn.handle_eof(now, out)).unwrap();
    assert_eq!(rig.events(), ["end Slot(0) none"]);
    rig.send(0, &bin("!")).unwrap();
    assert_eq!(rig.sent(), "hello!");
    assert_eq!(rig.send(0, b"\xc0"), Ok(Then::Done));
    assert!(rig.drains());
}

#[test]
fn an_upgrade_that_is_not_taken_leaves_http() {
    let mut rig = Rig::new("");
    rig.feed(format!("{UPGRADE}{GET}")).unwrap();
    assert_eq!(rig.events().len(), 1);
    rig.reply(0, &made(200, &[], Give::Nil)).unwrap();
    assert!(rig.events().iter().any(|line| line.starts_with("request 1 ")));
}

#[test]
fn upgrades_need_their_connection_option_and_http_1_1() {
    for text in [
        "GET /up HTTP/1.1\r\nHost: h\r\nUpgrade: echo\r\n\r\n",
        "GET /up HTTP/1.0\r\nConnection: upgrade, keep-alive\r\nUpgrade: echo\r\n\r\n",
    ] {
        let mut rig = Rig::new("");
        rig.feed(text).unwrap();
        assert!(!rig.conn.paused());
        assert!(rig.reply(0, &made(101, &[], Give::Follows)).is_err());
        assert!(rig.sent().starts_with("HTTP/1.1 500 "));
    }
}

#[test]
fn a_tunnel_has_neither_length_nor_coding() {
    let mut rig = Rig::new("");
    rig.feed("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n").unwrap();
    assert_eq!(rig.reply(0, &made(200, &[], Give::Follows)), Ok(Then::Open));
    assert_eq!(rig.sent(), "HTTP/1.1 200 OK\r\n\r\n");
    rig.feed("bytes").unwrap();
    assert_eq!(rig.events()[1..], ["chunk Slot(0) bytes:bytes"]);
    rig.send(0, &bin("back")).unwrap();
    assert_eq!(rig.sent(), "back");
    let mut rig = Rig::new("");
    rig.feed(format!("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n{GET}")).unwrap();
    rig.reply(0, &made(403, &[], Give::Nil)).unwrap();
    assert!(rig.events().iter().any(|line| line.starts_with("request 1 ")), "a refused tunnel leaves HTTP");
}
