//! Roles, rejections, redirects and key positions against real servers: a primary with its replica, and nodes of a
//! cluster. Without redis installed there is nothing to test.
mod rig;
#[path = "support/redis.rs"]
#[allow(dead_code)] // Each test uses its part.
mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use iokernel::proto::{Driver, Follow, Limits, scheme};
use rig::Rig;
use support::{Direct, RedisServer, Resp};

/// A conn of ours, carried over a socket.
struct Conn {
    rig: Rig,
    socket: TcpStream,
}

impl Conn {
    /// Connects and waits for `Ready`, or for a fault.
    fn open(server: &RedisServer, limits: Limits) -> Conn {
        let socket = TcpStream::connect(("127.0.0.1", server.port)).expect("a conn");
        socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
        let row = scheme("redis").expect("redis is in the table");
        let mut conn = Conn { rig: Rig::new(row, "redis://h", true, limits), socket };
        conn.carry(|rig| rig.faulted || rig.log.lines.iter().any(|line| line.starts_with("Fact(Ready")));
        conn
    }

    /// Carries bytes both ways until `done`.
    fn carry(&mut self, done: impl Fn(&Rig) -> bool) {
        let mut bytes = [0; 4096];
        loop {
            self.socket.write_all(&std::mem::take(&mut self.rig.wire)).expect("written");
            if done(&self.rig) {
                return;
            }
            let read = self.socket.read(&mut bytes).expect("an answer in time");
            assert_ne!(read, 0, "the server closed the conn: {:?}", self.rig.log.lines);
            self.rig.feed(&bytes[..read]);
        }
    }

    fn lines(&mut self, count: usize) -> Vec<String> {
        self.carry(|rig| rig.log.lines.len() >= count);
        std::mem::take(&mut self.rig.log.lines)
    }

    /// Sends a request and returns the events until as many came.
    fn ask(&mut self, words: &[&str], count: usize) -> Vec<String> {
        self.rig.log.lines.clear();
        assert!(self.rig.request(&body(words)), "{words:?}");
        self.lines(count)
    }

    fn batch(&mut self, commands: &[&[&str]], count: usize) -> Vec<String> {
        self.rig.log.lines.clear();
        let mut batch = vec![0x90 | commands.len() as u8];
        commands.iter().for_each(|words| batch.extend(body(words)));
        assert!(self.rig.request(&batch), "{commands:?}");
        self.lines(count)
    }

    fn probe(&mut self, count: usize) -> Vec<String> {
        self.rig.log.lines.clear();
        self.rig.probe();
        self.lines(count)
    }
}

fn following(follow: Follow) -> Limits {
    Limits { follow, ..Limits::default() }
}

/// MessagePack of up to 15 words, as str.
fn body(words: &[&str]) -> Vec<u8> {
    let mut body = vec![0x90 | words.len() as u8];
    for word in words {
        body.extend_from_slice(&[0xd9, word.len() as u8]);
        body.extend_from_slice(word.as_bytes());
    }
    body
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let patience = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < patience, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn roles_and_rejections_of_a_primary_and_its_replica() {
    let Some(primary) = RedisServer::start(&[]) else { return };
    let port = primary.port.to_string();
    let replica = RedisServer::start(&["--replicaof", "127.0.0.1", &port]).expect("a second server");
    let mut watch = replica.direct();
    until(
        "the replica follows",
        || matches!(&watch.call(&["ROLE"]), Resp::Array(role) if role[3].text() == "connected"),
    );

    let mut conn = Conn::open(&primary, following(Follow::Roles));
    assert_eq!(conn.rig.log.lines[0], "Fact(Role { role: Primary, follows: None })");
    assert!(conn.ask(&["SET", "k", "v"], 1)[0].starts_with("Reply"));

    let mut conn = Conn::open(&replica, following(Follow::Roles));
    let follows = format!("Fact(Role {{ role: Replica, follows: Some(\"127.0.0.1:{port}\") }})");
    assert_eq!(conn.rig.log.lines[0], follows);
    assert_eq!(conn.probe(1), [follows]);
    let demoted = "Fact(Role { role: Replica, follows: None })";
    let events = conn.ask(&["SET", "k", "v"], 2);
    assert!(events[0].starts_with("Rejected") && events[0].contains("NotPrimary"), "{events:?}");
    assert_eq!(events[1], demoted);
    let events = conn.batch(&[&["MULTI"], &["GET", "k"], &["SET", "k", "v"], &["EXEC"]], 2);
    assert!(events[0].starts_with("Rejected"), "{events:?}");
    let events = conn.batch(&[&["GET", "k"], &["SET", "k", "v"]], 2);
    assert!(events[0].starts_with("Reply"), "{events:?}");
    // The script had an effect before its write was refused, and nothing in the second error tells.
    for call in ["call", "pcall"] {
        let script = format!("redis.call('PUBLISH', 'c', 'x') return redis.{call}('SET', KEYS[1], 'v')");
        let events = conn.ask(&["EVAL", &script, "1", "k"], 1);
        assert!(events[0].starts_with("Reply") && events[0].contains("error: true"), "{events:?}");
        conn.rig.log.lines.clear();
    }

    // A primary that is demoted while a BLPOP waits there, and while a transaction is being queued.
    let mut conn = Conn::open(&primary, following(Follow::Roles));
    conn.rig.log.lines.clear();
    assert!(conn.rig.request(&body(&["BLPOP", "l", "0"])));
    conn.carry(|_| true);
    let mut direct = primary.direct();
    until("BLPOP waits", || direct.call(&["INFO", "clients"]).text().contains("blocked_clients:1"));
    assert_eq!(watch.call(&["REPLICAOF", "NO", "ONE"]), Resp::Simple("OK".into()));
    direct.call(&["REPLICAOF", "127.0.0.1", &replica.port.to_string()]);
    let events = conn.lines(1);
    assert!(events[0].starts_with("Rejected") && events[0].contains("NotPrimary"), "{events:?}");
}

/// Nodes of one cluster, which know each other; the first half of the slots is the first one's.
fn cluster() -> Option<[RedisServer; 2]> {
    // The usual port of the bus, 10,000 above, may be none.
    let buses = [support::free_port(), support::free_port()].map(|port| port.to_string());
    let start = |bus: &str| RedisServer::start(&["--cluster-enabled", "yes", "--cluster-port", bus]);
    let nodes = [start(&buses[0])?, start(&buses[1])?];
    for (node, (first, last)) in nodes.iter().zip([("0", "8191"), ("8192", "16383")]) {
        let mut direct = node.direct();
        assert_eq!(direct.call(&["CLUSTER", "ADDSLOTSRANGE", first, last]), Resp::Simple("OK".into()));
    }
    nodes[0].direct().call(&["CLUSTER", "MEET", "127.0.0.1", &nodes[1].port.to_string(), &buses[1]]);
    for node in &nodes {
        let mut direct = node.direct();
        until("the cluster is whole", || {
            let info = direct.call(&["CLUSTER", "INFO"]);
            let info = info.text();
            info.contains("cluster_state:ok") && info.contains("cluster_slots_assigned:16384")
        });
    }
    Some(nodes)
}

fn id(node: &mut Direct) -> String {
    node.call(&["CLUSTER", "MYID"]).text().into()
}

#[test]
fn topology_and_redirects_of_a_cluster() {
    let Some([low, high]) = cluster() else { return };
    let mut conn = Conn::open(&low, Limits { reads_replicas: true, ..following(Follow::Topology) });
    let topology = conn.probe(1).remove(0);
    for part in [
        format!("Shard {{ slots: [(0, 8191)], primary: \"127.0.0.1:{}\", replicas: [] }}", low.port),
        format!("Shard {{ slots: [(8192, 16383)], primary: \"127.0.0.1:{}\", replicas: [] }}", high.port),
    ] {
        assert!(topology.contains(&part), "{topology}");
    }
    // foo lies in 12182, bar in 5061.
    let to_high = |once| format!("Moved {{ slot: 12182, to: \"127.0.0.1:{}\", once: {once} }}", high.port);
    assert!(conn.ask(&["SET", "bar", "v"], 1)[0].starts_with("Reply"));
    let events = conn.ask(&["SET", "foo", "v"], 1);
    assert!(events[0].starts_with("Rejected") && events[0].contains(&to_high(false)), "{events:?}");
    let events = conn.ask(&["EVAL", "return redis.call('GET', KEYS[1])", "1", "foo"], 1);
    assert!(events[0].starts_with("Rejected"), "{events:?}");
    let events = conn.batch(&[&["MULTI"], &["SET", "foo", "v"], &["GET", "foo"], &["EXEC"]], 1);
    assert!(events[0].starts_with("Rejected") && events[0].contains(&to_high(false)), "{events:?}");

    // The slot of bar is on its way from low to high.
    let (mut source, mut target) = (low.direct(), high.direct());
    let (source_id, target_id) = (id(&mut source), id(&mut target));
    target.call(&["CLUSTER", "SETSLOT", "5061", "IMPORTING", &source_id]);
    source.call(&["CLUSTER", "SETSLOT", "5061", "MIGRATING", &target_id]);
    let events = conn.ask(&["GET", "{bar}2"], 1);
    let ask = to_high(true).replace("12182", "5061");
    assert!(events[0].starts_with("Rejected") && events[0].contains(&ask), "{events:?}");
    let events = conn.ask(&["MGET", "bar", "{bar}2"], 1);
    assert!(events[0].starts_with("Rejected") && events[0].contains("TryAgain"), "{events:?}");
    let mut asked = Conn::open(&high, following(Follow::Topology));
    asked.rig.asking = true;
    assert!(asked.ask(&["SET", "{bar}2", "v"], 1)[0].starts_with("Reply"));
    let events = asked.batch(&[&["GET", "{bar}2"], &["GET", "{bar}2"]], 1);
    assert!(events[0].starts_with("Reply") && !events[0].contains("MOVED"), "{events:?}");
    let events = asked.batch(&[&["MULTI"], &["GET", "{bar}2"], &["EXEC"]], 1);
    assert!(events[0].starts_with("Reply"), "{events:?}");
    asked.rig.asking = false;
    assert!(asked.ask(&["GET", "{bar}2"], 1)[0].starts_with("Rejected"));
}

#[test]
fn shard_channels_are_withdrawn_when_their_slot_leaves() {
    let Some([low, high]) = cluster() else { return };
    let mut conn = Conn::open(&low, following(Follow::Topology));
    assert_eq!(conn.ask(&["SSUBSCRIBE", "bar"], 1).len(), 1);
    let target = id(&mut high.direct());
    for node in [&high, &low] {
        node.direct().call(&["CLUSTER", "SETSLOT", "5061", "NODE", &target]);
    }
    let events = conn.lines(1);
    assert!(events[0].starts_with("Unsubscribed") && events[0].contains("error: None"), "{events:?}");
}

#[test]
fn a_server_without_a_cluster_says_what_to_do() {
    let Some(server) = RedisServer::start(&[]) else { return };
    let mut conn = Conn::open(&server, following(Follow::Topology));
    conn.rig.probe();
    conn.carry(|rig| rig.faulted);
    assert_eq!(conn.rig.log.lines.last().map(String::as_str), Some("fault Refused"));
}

/// Requests whose keys stand where only their words tell.
const SAMPLES: &[&str] = &[
    "EVAL x 2 a b c",
    "EVAL x 0 a",
    "EVALSHA x 1 a b",
    "EVAL_RO x 1 a",
    "EVALSHA_RO x 1 a",
    "FCALL f 2 a b c",
    "FCALL_RO f 1 a",
    "BLMPOP 0 2 a b LEFT",
    "LMPOP 2 a b LEFT COUNT 3",
    "BZMPOP 0 1 a MIN",
    "ZMPOP 2 a b MAX",
    "SINTERCARD 2 a b LIMIT 1",
    "ZINTERCARD 2 a b LIMIT 1",
    "ZDIFF 2 a b WITHSCORES",
    "ZINTER 2 a b WEIGHTS 1 2",
    "ZUNION 3 a b c AGGREGATE MAX",
    "ZDIFFSTORE a 2 b c",
    "ZINTERSTORE a 1 b WEIGHTS 2",
    "ZUNIONSTORE a 2 b c WEIGHTS 1 2",
    "XREAD COUNT 2 BLOCK 0 STREAMS a b 0 0",
    "XREADGROUP GROUP STREAMS c COUNT 1 NOACK STREAMS a b > >",
    "SORT a BY c GET d GET # LIMIT 0 1 ALPHA STORE b",
    "SORT a DESC",
    "SORT_RO a BY c",
    "GEORADIUS a 0 0 1 m ASC STORE b",
    "GEORADIUS a 0 0 1 m",
    "GEORADIUSBYMEMBER a c 1 m STOREDIST b",
    "MIGRATE h 1 a 0 100 COPY",
    "MSET a 1 b 2 c 3",
    "MSETNX a 1 b 2",
    "DEL a b c",
    "BLPOP a b 0",
    "BITOP AND a b c",
    "PFMERGE a b c",
    "OBJECT FREQ a",
    "MEMORY USAGE a SAMPLES 5",
    "XGROUP CREATE a b $ MKSTREAM",
    "XINFO STREAM a FULL",
];

/// Commands whose channels decide where they go, though they are no keys.
const OF_CHANNELS: &[&str] = &["ssubscribe", "sunsubscribe", "spublish"];

/// Every command with plain arguments that its arity allows.
fn plain(direct: &mut Direct) -> Vec<Vec<String>> {
    fn collect(commands: &[Resp], into: &mut Vec<Vec<String>>) {
        for command in commands {
            let fields = command.items();
            let words: Vec<String> = fields[0].text().split('|').map(str::to_string).collect();
            let movable = fields[2].items().iter().any(|flag| flag.text() == "movablekeys");
            let subcommands = fields[9].items();
            // Two more than it needs show where a range of keys ends.
            let arity = fields[1].int();
            let count = if arity < 0 { -arity + 2 } else { arity } as usize;
            if !movable && subcommands.is_empty() && !OF_CHANNELS.contains(&words[0].as_str()) {
                let arguments = (words.len()..count).map(|index| format!("a{index}"));
                into.push(words.iter().cloned().chain(arguments).collect());
            }
            collect(subcommands, into);
        }
    }
    let mut all = Vec::new();
    collect(direct.call(&["COMMAND"]).items(), &mut all);
    all
}

/// Positions of a request's keys, as the server finds them.
fn positions(direct: &mut Direct, words: &[String]) -> Vec<usize> {
    if words.len() == 1 {
        // GETKEYS wants arguments.
        return Vec::new();
    }
    let ask: Vec<&str> = ["COMMAND", "GETKEYS"].into_iter().chain(words.iter().map(String::as_str)).collect();
    match direct.call(&ask) {
        Resp::Array(keys) => {
            // Arguments are told apart by their text; keys are small letters or numbered ones.
            let position = |key: &Resp| words.iter().rposition(|word| word == key.text()).expect("one of the words");
            keys.iter().map(position).collect()
        }
        Resp::Error(error) if error.contains("no key arguments") => Vec::new(),
        other => panic!("{words:?}: {other:?}"),
    }
}

fn verdict(driver: &dyn Driver, words: &[String]) -> Result<Option<u16>, &'static str> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    driver.classify(&body(&words), false).map(|need| need.route.slot).map_err(|refusal| refusal.code)
}

#[test]
fn key_positions_are_those_that_the_server_tells() {
    let Some(server) = RedisServer::start(&[]) else { return };
    let mut direct = server.direct();
    let row = scheme("redis").expect("redis is in the table");
    let driver = rig::driver(row, "redis://h", &following(Follow::Topology));
    let samples = SAMPLES.iter().map(|sample| sample.split(' ').map(str::to_string).collect());
    let requests: Vec<Vec<String>> = plain(&mut direct).into_iter().chain(samples).collect();
    assert!(requests.len() > 300, "{} commands", requests.len());
    for words in requests {
        let keys = positions(&mut direct, &words);
        let with = |other: Option<usize>| {
            let mut words = words.clone();
            for key in &keys {
                words[*key] = if Some(*key) == other { "{bar}".into() } else { "{foo}".into() };
            }
            verdict(&*driver, &words)
        };
        match keys.len() {
            0 => assert!(matches!(with(None), Ok(None) | Err("FANOUT" | "BADREQUEST")), "{words:?}: {:?}", with(None)),
            1 => assert_eq!(with(None), Ok(Some(12182)), "{words:?}"),
            _ => {
                assert_eq!(with(None), Ok(Some(12182)), "{words:?}");
                for key in &keys {
                    assert_eq!(with(Some(*key)), Err("CROSSSLOT"), "{words:?}: argument {key}");
                }
            }
        }
    }
}
