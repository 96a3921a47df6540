//! What outlasts one request: topics, transactions, heartbeats.
use super::*;
use crate::proto::{Admit, Tenancy};

const SECOND: Duration = Duration::from_secs(1);

fn subscribe(rig: &mut Rig, topic: &str) {
    rig.command(Command::Subscribe { topic: topic.as_bytes() }).unwrap();
}

fn reset(rig: &mut Rig) {
    rig.conn.reset(rig.now, &mut Out { wire: &mut rig.wire, files: &mut Vec::new(), events: &mut rig.log }).unwrap();
}

#[test]
fn resp3_topics_flow_beside_requests() {
    let mut rig = Rig::ready("redis://h", Limits::default());
    subscribe(&mut rig, "s:news");
    rig.ask(1, "GET k");
    subscribe(&mut rig, "p:n*");
    assert_eq!(
        rig.sent(),
        "*2\\r\\n$9\\r\\nSUBSCRIBE\\r\\n$4\\r\\nnews\\r\\n*2\\r\\n$3\\r\\nGET\\r\\n$1\\r\\nk\\r\\n*2\\r\\n$10\\r\\nPSUBSCRIBE\\r\\n$2\\r\\nn*\\r\\n"
    );
    rig.feed(
        b">3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n>3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$1\r\ny\r\n$1\r\nv\r\n",
    )
    .unwrap();
    rig.feed(b"-NOPERM no such channel\r\n>4\r\n$8\r\npmessage\r\n$2\r\nn*\r\n$4\r\nnews\r\n$1\r\ny\r\n").unwrap();
    assert_eq!(
        rig.events(),
        [
            "subscribed s:news",
            "push s:news [\"message\", b\"news\", b\"y\"]",
            "1 bytes:v",
            "unsubscribed p:n* [\"NOPERM\", \"no such channel\"]",
            "push p:n* [\"pmessage\", b\"n*\", b\"news\", b\"y\"]",
        ]
    );
    rig.command(Command::Unsubscribe { topic: b"s:news" }).unwrap();
    subscribe(&mut rig, "S:shard");
    rig.feed(b">3\r\n$11\r\nunsubscribe\r\n$4\r\nnews\r\n:0\r\n>3\r\n$10\r\nssubscribe\r\n$5\r\nshard\r\n:1\r\n")
        .unwrap();
    rig.feed(b">3\r\n$12\r\nsunsubscribe\r\n$5\r\nshard\r\n:0\r\n").unwrap();
    assert_eq!(rig.events(), ["subscribed S:shard", "unsubscribed S:shard "]);
    assert_eq!(rig.conn.tenancy(), Tenancy::Clean);
}

#[test]
fn resp2_topics_have_the_conn_for_themselves() {
    let mut rig = Rig::client("redis://h?protocol=2", Limits::default());
    rig.feed(&[b"+PONG\r\n", NO_SETINFO, NO_SETINFO].concat()).unwrap();
    subscribe(&mut rig, "s:a");
    assert_eq!(rig.conn.admit(b""), Admit::Later);
    rig.feed(b"*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\ny\r\n").unwrap();
    rig.sent();
    rig.pass(5 * SECOND).unwrap();
    assert_eq!(rig.sent(), "*1\\r\\n$4\\r\\nPING\\r\\n");
    rig.feed(b"*2\r\n$4\r\npong\r\n$0\r\n\r\n").unwrap();
    rig.pass(4 * SECOND).unwrap();
    rig.command(Command::Unsubscribe { topic: b"s:a" }).unwrap();
    rig.feed(b"*3\r\n$11\r\nunsubscribe\r\n$1\r\na\r\n:0\r\n").unwrap();
    assert_eq!(rig.conn.admit(b""), Admit::Now);
    rig.ask(1, "LRANGE l 0 -1");
    rig.feed(b"*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\ny\r\n").unwrap();
    assert_eq!(
        rig.events()[1..],
        ["subscribed s:a", "push s:a [\"message\", b\"a\", b\"y\"]", "1 [b\"message\", b\"a\", b\"y\"]"]
    );
}

#[test]
fn invalidations_are_a_topic() {
    let mut rig = Rig::ready("redis://h?tracking=on", Limits::default());
    subscribe(&mut rig, "s:__redis__:invalidate");
    assert_eq!(rig.sent(), "");
    rig.feed(b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n>2\r\n$10\r\ninvalidate\r\n_\r\n").unwrap();
    assert_eq!(
        rig.events(),
        [
            "subscribed s:__redis__:invalidate",
            "push s:__redis__:invalidate [\"invalidate\", [b\"k\"]]",
            "push s:__redis__:invalidate [\"invalidate\", nil]",
        ]
    );
}

#[test]
fn monitor_takes_the_conn_over() {
    let mut rig = Rig::ready("redis://h", Limits::default());
    rig.ask(1, "MONITOR");
    assert_eq!(rig.conn.admit(b""), Admit::Later);
    rig.feed(b"+OK\r\n+1795461250.29 [0 127.0.0.1:37790] \"PING\"\r\n").unwrap();
    assert_eq!(rig.events(), ["1 text:OK", "push - text:1795461250.29 [0 127.0.0.1:37790] \\\"PING\\\""]);
    assert_eq!((rig.conn.tenancy(), rig.conn.poll_timeout()), (Tenancy::Spoiled, None));
}

#[test]
fn a_lease_comes_back_clean() {
    let mut rig = Rig::ready("redis://h", Limits::default());
    for words in ["WATCH a", "MULTI", "SELECT 3"] {
        rig.ask(1, words);
    }
    assert_eq!(rig.conn.tenancy(), Tenancy::Dirty);
    rig.sent();
    reset(&mut rig);
    assert_eq!(
        rig.sent(),
        "*1\\r\\n$7\\r\\nDISCARD\\r\\n*1\\r\\n$7\\r\\nUNWATCH\\r\\n*2\\r\\n$6\\r\\nSELECT\\r\\n$1\\r\\n0\\r\\n"
    );
    rig.feed(b"+OK\r\n+OK\r\n+QUEUED\r\n+OK\r\n+OK\r\n").unwrap();
    assert_eq!(rig.conn.tenancy(), Tenancy::Dirty);
    rig.feed(b"+OK\r\n").unwrap();
    assert_eq!(rig.conn.tenancy(), Tenancy::Clean);
}

#[test]
fn transactions_end_by_themselves_too() {
    let mut rig = Rig::ready("redis://h", Limits::default());
    for words in ["WATCH a", "MULTI", "NOSUCH", "EXEC"] {
        rig.ask(1, words);
    }
    rig.feed(b"+OK\r\n+OK\r\n-ERR unknown\r\n-EXECABORT Transaction discarded because of previous errors.\r\n")
        .unwrap();
    assert_eq!(rig.conn.tenancy(), Tenancy::Clean);
    rig.ask(2, "MULTI");
    rig.ask(3, "DISCARD");
    rig.feed(b"+OK\r\n-BUSY Redis is busy running a script.\r\n").unwrap();
    assert_eq!(rig.conn.tenancy(), Tenancy::Spoiled);
}

#[test]
fn some_leases_never_come_back() {
    for words in ["HELLO 2", "AUTH x", "RESET", "CLIENT TRACKING ON", "CLIENT SETNAME a", "ASKING"] {
        let mut rig = Rig::ready("redis://h", Limits::default());
        rig.ask(1, words);
        assert_eq!(rig.conn.tenancy(), Tenancy::Spoiled, "{words}");
    }
    let mut rig = Rig::ready("redis://h", Limits::default());
    rig.ask(1, "BLPOP k 0");
    assert_eq!(rig.conn.tenancy(), Tenancy::Dirty);
    rig.command(Command::Cancel { id: RequestId(1) }).unwrap();
    assert_eq!(rig.conn.tenancy(), Tenancy::Spoiled);
    rig.feed(b"_\r\n").unwrap();
    assert_eq!(rig.conn.tenancy(), Tenancy::Clean);
    rig.ask(2, "BLPOP k 0");
    reset(&mut rig);
    rig.feed(b"_\r\n").unwrap();
    assert_eq!(rig.conn.tenancy(), Tenancy::Spoiled);
}

#[test]
fn heartbeats_fill_the_silence() {
    let mut rig = Rig::ready("redis://h", Limits::default());
    let ping = "*1\\r\\n$4\\r\\nPING\\r\\n";
    rig.pass(4 * SECOND).unwrap();
    rig.ask(1, "GET k");
    rig.feed(b"_\r\n").unwrap();
    rig.sent();
    rig.pass(4 * SECOND).unwrap();
    assert_eq!(rig.sent(), "");
    rig.pass(SECOND).unwrap();
    assert_eq!(rig.sent(), ping);
    rig.pass(4 * SECOND).unwrap();
    // A reply that is still arriving is no silence.
    rig.feed(b"+P").unwrap();
    rig.pass(4 * SECOND).unwrap();
    rig.feed(b"ONG\r\n").unwrap();
    rig.pass(SECOND).unwrap();
    assert_eq!(rig.sent(), ping);
    assert_eq!(rig.pass(5 * SECOND).unwrap_err(), "Silent: the server did not answer PING and sent nothing for 5.0s");
}

#[test]
fn silence_is_found_however_much_is_written() {
    let mut rig = Rig::ready("redis://h", Limits::default());
    let silent = (0..20).find_map(|second| {
        rig.ask(second, "GET k");
        rig.pass(SECOND).err().map(|_| second)
    });
    assert_eq!(silent, Some(9));
}

#[test]
fn a_lane_that_waits_has_no_heartbeat() {
    let mut rig = Rig::ready("redis://h", Limits::default());
    rig.ask(1, "BLPOP k 0");
    rig.sent();
    rig.pass(600 * SECOND).unwrap();
    assert_eq!((rig.conn.poll_timeout(), rig.sent()), (None, String::new()));
    rig.feed(b"_\r\n").unwrap();
    rig.pass(Duration::ZERO).unwrap();
    assert_ne!(rig.sent(), "");
}

#[test]
fn a_heartbeat_never_slips_into_a_transaction() {
    let mut rig = Rig::ready("redis://h", Limits::default());
    rig.ask(1, "MULTI");
    rig.feed(b"+OK\r\n").unwrap();
    rig.sent();
    rig.pass(60 * SECOND).unwrap();
    assert_eq!(rig.sent(), "");
    rig.ask(2, "EXEC");
    rig.feed(b"*0\r\n").unwrap();
    rig.sent();
    rig.pass(6 * SECOND).unwrap();
    assert_ne!(rig.sent(), "");
}

#[test]
fn resp2_topics_withdrawn_and_ended_count_once() {
    let mut rig = Rig::client("redis://h?protocol=2", Limits::default());
    rig.feed(&[b"+PONG\r\n", NO_SETINFO, NO_SETINFO].concat()).unwrap();
    subscribe(&mut rig, "s:a");
    subscribe(&mut rig, "S:b");
    rig.feed(b"*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n*3\r\n$10\r\nssubscribe\r\n$1\r\nb\r\n:1\r\n").unwrap();
    rig.feed(b"*3\r\n$12\r\nsunsubscribe\r\n$1\r\nb\r\n:0\r\n").unwrap();
    rig.command(Command::Unsubscribe { topic: b"S:b" }).unwrap();
    rig.feed(b"*3\r\n$12\r\nsunsubscribe\r\n$1\r\nb\r\n:0\r\n").unwrap();
    rig.feed(b"*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\ny\r\n").unwrap();
    assert_eq!(
        rig.events()[1..],
        ["subscribed s:a", "subscribed S:b", "unsubscribed S:b ", "push s:a [\"message\", b\"a\", b\"y\"]",]
    );
}
