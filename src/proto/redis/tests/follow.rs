//! Roles, rejections and topology: what a conn tells of its peer.
use super::*;
use crate::proto::{Admit, Follow};

const ROLE: &str = "*1\\r\\n$4\\r\\nROLE\\r\\n";
const INFO: &str = "*2\\r\\n$4\\r\\nINFO\\r\\n$11\\r\\nreplication\\r\\n";
const PING: &str = "*1\\r\\n$4\\r\\nPING\\r\\n";
const MASTER: &[u8] = b"*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n";
const SLAVE: &[u8] = b"*5\r\n$5\r\nslave\r\n$9\r\n127.0.0.1\r\n:7001\r\n$9\r\nconnected\r\n:14\r\n";
const PRIMARY: &str = "Role { role: Primary, follows: None }";
const REPLICA: &str = "Role { role: Replica, follows: Some(\"127.0.0.1:7001\") }";
const DEMOTED: &str = "Role { role: Replica, follows: None }";
const READONLY: &[u8] = b"-READONLY You can't write against a read only replica.\r\n";
const SECOND: Duration = Duration::from_secs(1);

fn following(follow: Follow) -> Limits {
    Limits { follow, ..Limits::default() }
}

/// A RESP3 client after its handshake with a primary.
fn ready(follow: Follow) -> Rig {
    let mut rig = Rig::client("redis://h", following(follow));
    rig.feed(HELLO3).unwrap();
    rig.feed(b"+PONG\r\n").unwrap();
    if follow == Follow::Roles {
        rig.feed(MASTER).unwrap();
    }
    rig.feed(&[NO_SETINFO, NO_SETINFO].concat()).unwrap();
    assert_eq!(rig.conn.admit(b""), Admit::Now);
    rig.events();
    rig.sent();
    rig
}

fn send(rig: &mut Rig, body: &[u8], asking: bool) {
    rig.command(Command::Request { id: RequestId(1), body, asking, streams: false }).unwrap();
}

fn probe(rig: &mut Rig) -> String {
    rig.sent();
    rig.command(Command::Probe).unwrap();
    rig.sent()
}

#[test]
fn the_handshake_learns_the_role_before_it_is_ready() {
    for (reply, role) in [(MASTER, PRIMARY), (SLAVE, REPLICA), (b"+what\r\n", "Role { role: Unknown, follows: None }")]
    {
        let mut rig = Rig::client("redis://h", following(Follow::Roles));
        assert!(rig.sent().contains(&format!("{PING}{ROLE}")));
        rig.feed(&[HELLO3, b"+PONG\r\n", reply].concat()).unwrap();
        let events = rig.events();
        assert_eq!(events[0], role);
        assert!(events[1].starts_with("Ready"));
    }
    let mut rig = Rig::client("redis://h?protocol=2", following(Follow::Roles));
    rig.feed(b"+PONG\r\n-NOPERM this user has no permissions to run the 'role' command\r\n").unwrap();
    assert!(rig.sent().ends_with(INFO));
    rig.feed(&[NO_SETINFO, NO_SETINFO].concat()).unwrap();
    assert_eq!(rig.conn.admit(b""), Admit::Later);
    rig.feed(b"$68\r\n# Replication\r\nrole:slave\r\nmaster_host:127.0.0.1\r\nmaster_port:7001\r\n\r\n").unwrap();
    assert_eq!(rig.events(), [REPLICA, "Ready { topics_beside_requests: false, description: \"redis resp2\" }"]);
    assert_eq!(probe(&mut rig), INFO);
}

#[test]
fn a_server_that_serves_nobody_does_not_become_ready() {
    for refusal in ["LOADING Redis is loading the dataset in memory", "MASTERDOWN Link with MASTER is down"] {
        for follow in [Follow::Roles, Follow::Topology] {
            let mut rig = Rig::client("redis://h", following(follow));
            rig.feed(HELLO3).unwrap();
            let fault = rig.feed(format!("-{refusal}\r\n").as_bytes()).unwrap_err();
            assert_eq!(fault, format!("Closed: the server refused the handshake's PING: {refusal}"));
            assert_eq!(rig.events(), [""; 0]);
        }
    }
}

#[test]
fn heartbeats_and_probes_ask_for_the_role() {
    let mut rig = ready(Follow::Roles);
    rig.pass(5 * SECOND).unwrap();
    assert_eq!(rig.sent(), ROLE);
    rig.feed(SLAVE).unwrap();
    assert_eq!(rig.events(), [REPLICA]);
    assert_eq!(probe(&mut rig), ROLE);
    rig.feed(SLAVE).unwrap();
    assert_eq!(rig.events(), [REPLICA]);
    rig.pass(5 * SECOND).unwrap();
    assert_eq!(rig.sent(), ROLE);
    rig.feed(b"-LOADING Redis is loading the dataset in memory\r\n").unwrap();
    rig.pass(5 * SECOND).unwrap();
    assert_eq!((rig.sent(), rig.events()), (ROLE.into(), vec![]));
    let silent = rig.pass(5 * SECOND).unwrap_err();
    assert_eq!(silent, "Silent: the server did not answer ROLE and sent nothing for 5.0s");
}

#[test]
fn a_role_that_is_refused_is_asked_for_by_info_and_then_no_more() {
    let mut rig = ready(Follow::Roles);
    assert_eq!(probe(&mut rig), ROLE);
    rig.feed(b"-NOPERM no\r\n").unwrap();
    assert_eq!(rig.sent(), INFO);
    rig.feed(b"=32\r\ntxt:# Replication\r\nrole:master\r\n\r\n").unwrap();
    assert_eq!(rig.events(), [PRIMARY]);
    assert_eq!(probe(&mut rig), INFO);
    rig.feed(b"-NOPERM no\r\n").unwrap();
    assert_eq!(probe(&mut rig), "");
    let unknown = "Role { role: Unknown, follows: None }";
    assert_eq!(rig.events(), [unknown, unknown]);
    rig.pass(5 * SECOND).unwrap();
    assert_eq!(rig.sent(), PING);
}

#[test]
fn nothing_is_asked_where_it_would_disturb() {
    for words in ["MULTI", "MONITOR", "BLPOP k 0"] {
        let mut rig = ready(Follow::Roles);
        rig.ask(1, words);
        assert_eq!(probe(&mut rig), "", "{words}");
    }
    let mut rig = Rig::client("redis://h?protocol=2", following(Follow::Roles));
    assert!(!probe(&mut rig).contains("ROLE"));
    rig.feed(&[b"+PONG\r\n", MASTER, NO_SETINFO, NO_SETINFO].concat()).unwrap();
    assert_eq!(probe(&mut rig), ROLE);
    rig.command(Command::Subscribe { topic: b"s:a" }).unwrap();
    rig.feed(MASTER).unwrap();
    rig.feed(b"*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n").unwrap();
    assert_eq!(rig.events()[2..], [PRIMARY, "subscribed s:a"]);
    assert_eq!(probe(&mut rig), "");
    rig.pass(5 * SECOND).unwrap();
    assert_eq!(rig.sent(), PING);
}

#[test]
fn rejections_are_told_where_they_are_followed() {
    let mut rig = Rig::ready("redis://h", Limits::default());
    rig.ask(1, "SET k v");
    rig.ask(2, "GET k");
    rig.feed(&[READONLY, b"-MOVED 1 h:1\r\n"].concat()).unwrap();
    let readonly = "[\"READONLY\", \"You can't write against a read only replica.\"]".replace('\'', "\\'");
    assert_eq!(rig.events(), [format!("1! {readonly}"), DEMOTED.into(), "2! [\"MOVED\", \"1 h:1\"]".into()]);
    for follow in [Follow::Roles, Follow::Topology] {
        let mut rig = ready(follow);
        for id in 1..=6 {
            rig.ask(id, "SET k v");
        }
        rig.command(Command::Cancel { id: RequestId(6) }).unwrap();
        rig.feed(&[READONLY, b"-ASK 5 h:1\r\n-MOVED 5\r\n-LOADING x\r\n-TRYAGAIN x\r\n", READONLY].concat()).unwrap();
        assert_eq!(
            rig.events(),
            [
                format!("1? NotPrimary {readonly}").as_str(),
                DEMOTED,
                "2? Moved { slot: 5, to: \"h:1\", once: true } [\"ASK\", \"5 h:1\"]",
                "3! [\"MOVED\", \"5\"]",
                "4? NotServing [\"LOADING\", \"x\"]",
                "5? TryAgain [\"TRYAGAIN\", \"x\"]",
                DEMOTED,
            ]
        );
    }
}

#[test]
fn errors_of_scripts_and_transactions_stay_errors() {
    let mut rig = ready(Follow::Roles);
    rig.ask(1, "EVAL x 0");
    rig.feed(READONLY).unwrap();
    rig.ask(2, "FCALL f 1 k");
    rig.feed(b"-MOVED 5 h:1\r\n").unwrap();
    rig.ask(3, "MULTI");
    rig.ask(4, "SET k v");
    rig.ask(5, "EXEC");
    rig.feed(b"+OK\r\n").unwrap();
    rig.feed(READONLY).unwrap();
    rig.feed(b"-EXECABORT Transaction discarded because of previous errors.\r\n").unwrap();
    let events = rig.events();
    let starts: Vec<&str> = events.iter().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(starts, ["1!", "Role", "2?", "3", "4!", "Role", "5!"]);
}

/// The events that these replies to this batch give.
fn gather(commands: &[&str], replies: &[&[u8]]) -> Vec<String> {
    let mut rig = ready(Follow::Topology);
    send(&mut rig, &batch(commands), false);
    rig.feed(&replies.concat()).unwrap();
    rig.events()
}

#[test]
fn a_batch_is_rejected_as_a_whole_or_not_at_all() {
    const TRANSACTION: &[&str] = &["MULTI", "SET a 1", "GET a", "EXEC"];
    const MOVED: &[u8] = b"-MOVED 5 h:1\r\n";
    const ABORT: &[u8] = b"-EXECABORT Transaction discarded because of previous errors.\r\n";
    const ABORT_READONLY: &[u8] =
        b"-EXECABORT Transaction discarded because of: READONLY You can't write against a read only replica.\r\n";
    let (ok, queued) = (&b"+OK\r\n"[..], &b"+QUEUED\r\n"[..]);
    let moved = "1? Moved { slot: 5, to: \"h:1\", once: false } [\"MOVED\", \"5 h:1\"]";
    assert_eq!(gather(TRANSACTION, &[ok, MOVED, MOVED, ABORT]), [moved]);
    assert_eq!(gather(TRANSACTION, &[ok, queued, queued, MOVED]), [moved]);
    assert_eq!(gather(&["GET a", "GET a"], &[MOVED, b"-MOVED 5 h:2\r\n"]), [moved]);
    let events = gather(TRANSACTION, &[ok, READONLY, queued, ABORT]);
    assert!(events[0].starts_with("1? NotPrimary") && events[1] == DEMOTED && events.len() == 2, "{events:?}");
    let events = gather(TRANSACTION, &[ok, queued, queued, ABORT_READONLY]);
    assert!(events[0].starts_with("1? NotPrimary [\"READONLY\"") && events[1] == DEMOTED, "{events:?}");
    let twice: Vec<&str> = TRANSACTION.iter().chain(TRANSACTION).copied().collect();
    assert_eq!(gather(&twice, &[ok, MOVED, queued, ABORT, ok, queued, MOVED, ABORT]), [moved]);
    for (commands, replies) in [
        (TRANSACTION, &[ok, queued, queued, b"*2\r\n+OK\r\n$1\r\n1\r\n"][..]),
        (TRANSACTION, &[ok, b"-ERR wrong\r\n", MOVED, ABORT]),
        (TRANSACTION, &[ok, MOVED, READONLY, ABORT]),
        (&["SET a 1", "SET a 2"], &[ok, MOVED]),
        (&["SET a 1", "SET a 2"], &[MOVED, ok]),
        (&["MULTI", "DISCARD"], &[ok, ok]),
        (&["MULTI", "SET a 1", "EXEC", "SET a 1"], &[ok, MOVED, ABORT, MOVED]),
    ] {
        let events = gather(commands, replies);
        assert!(events[0].starts_with("1 [") && !events[0].contains('?'), "{commands:?}: {events:?}");
    }
}

#[test]
fn asking_precedes_what_is_asked() {
    let asking = "*1\\r\\n$6\\r\\nASKING\\r\\n";
    let mut rig = ready(Follow::Topology);
    send(&mut rig, &request("GET k"), true);
    assert_eq!(rig.sent(), format!("{asking}*2\\r\\n$3\\r\\nGET\\r\\n$1\\r\\nk\\r\\n"));
    rig.feed(b"+OK\r\n$1\r\nv\r\n").unwrap();
    assert_eq!((rig.events(), rig.conn.inflight()), (vec!["1 bytes:v".into()], 0));
    send(&mut rig, &batch(&["PING", "MULTI", "INCR k", "EXEC"]), true);
    assert_eq!(rig.sent().matches(asking).count(), 2);
    assert_eq!(rig.conn.inflight(), 1);
    rig.feed(b"+OK\r\n+PONG\r\n+OK\r\n+OK\r\n+QUEUED\r\n*1\r\n:1\r\n").unwrap();
    assert_eq!(rig.events(), ["1 [\"PONG\", \"OK\", \"QUEUED\", [1]]"]);
    send(&mut rig, &batch(&["GET k", "GET k"]), true);
    rig.command(Command::Request { id: RequestId(2), body: &request("PING"), asking: false, streams: false }).unwrap();
    rig.feed(b"+OK\r\n").unwrap();
    rig.command(Command::Cancel { id: RequestId(1) }).unwrap();
    rig.feed(b"$1\r\nv\r\n+OK\r\n").unwrap();
    assert_eq!(rig.conn.inflight(), 2);
    rig.feed(b"$1\r\nv\r\n+PONG\r\n").unwrap();
    assert_eq!(rig.events(), ["2 text:PONG"]);
    send(&mut rig, &batch(&["GET k", "GET k"]), true);
    let mut left = Vec::new();
    rig.conn.abandon(&mut |id| left.push(id.0));
    assert_eq!(left, [1]);
    let mut rig = ready(Follow::Topology);
    let refused = rig.command(Command::Request { id: RequestId(1), body: b"\x91\xc0", asking: true, streams: false });
    assert_eq!((refused.is_err(), rig.sent()), (true, String::new()));
}

#[test]
fn topology_is_told_when_it_is_asked() {
    let mut rig = ready(Follow::Topology);
    assert_eq!(probe(&mut rig), "*2\\r\\n$7\\r\\nCLUSTER\\r\\n$5\\r\\nSLOTS\\r\\n");
    rig.feed(
        b"*3\r\n\
          *4\r\n:0\r\n:99\r\n*3\r\n$9\r\n127.0.0.1\r\n:7000\r\n$2\r\nid\r\n*4\r\n$3\r\n::1\r\n:7002\r\n$2\r\nid\r\n*0\r\n\
          *3\r\n:100\r\n:16383\r\n*2\r\n_\r\n:7001\r\n\
          *4\r\n:200\r\n:200\r\n*3\r\n$9\r\n127.0.0.1\r\n:7000\r\n$2\r\nid\r\n\
          *4\r\n$1\r\n?\r\n:7003\r\n$2\r\nid\r\n*2\r\n$2\r\nip\r\n$7\r\n1.2.3.4\r\n",
    )
    .unwrap();
    let first = "Shard { slots: [(0, 99), (200, 200)], primary: \"127.0.0.1:7000\", \
                 replicas: [\"[::1]:7002\", \"1.2.3.4:7003\"] }";
    let second = "Shard { slots: [(100, 16383)], primary: \":7001\", replicas: [] }";
    assert_eq!(rig.events(), [format!("Topology([{first}, {second}])")]);
    for nonsense in [&b"-ERR unknown command\r\n"[..], b"+OK\r\n", b"*1\r\n:1\r\n", b"*1\r\n*2\r\n:5\r\n:9\r\n"] {
        probe(&mut rig);
        rig.feed(nonsense).unwrap();
        assert_eq!(rig.events(), [""; 0]);
    }
    probe(&mut rig);
    let fault = rig.feed(b"-ERR This instance has cluster support disabled\r\n").unwrap_err();
    assert!(fault.starts_with("Refused: the server is no node of a cluster: open it as redis://"), "{fault}");
}

#[test]
fn replicas_of_a_cluster_are_asked_for_leave_to_read() {
    let limits = Limits { reads_replicas: true, ..following(Follow::Topology) };
    let mut rig = Rig::client("redis://h", limits);
    assert!(rig.sent().contains("*1\\r\\n$8\\r\\nREADONLY\\r\\n"));
    rig.feed(&[HELLO3, b"+PONG\r\n-ERR no\r\n"].concat()).unwrap();
    assert_eq!(rig.conn.admit(b""), Admit::Now);
    let error = try_driver("redis://h/2", following(Follow::Topology)).err().unwrap();
    assert!(error.contains("a cluster has no other database"), "{error}");
}

#[test]
fn shard_channels_leave_with_their_slot() {
    let mut rig = ready(Follow::Topology);
    rig.command(Command::Subscribe { topic: b"S:a" }).unwrap();
    rig.command(Command::Subscribe { topic: b"S:b" }).unwrap();
    rig.feed(b">3\r\n$10\r\nssubscribe\r\n$1\r\na\r\n:1\r\n-MOVED 5 h:1\r\n").unwrap();
    rig.feed(b">3\r\n$12\r\nsunsubscribe\r\n$1\r\na\r\n:0\r\n").unwrap();
    assert_eq!(rig.events(), ["subscribed S:a", "unsubscribed S:b ", "unsubscribed S:a "]);
}
