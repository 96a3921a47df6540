//! The resolver against a scripted name server and against dnsmasq, driven as the kernel drives it.

#[path = "support/dns_server.rs"]
#[allow(dead_code)]
mod dns_server;

use std::collections::HashMap;
use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dns_server::{A, AAAA, Asked, Data, DnsServer, FORMERR, NXDOMAIN, REFUSED, Record, Reply, SERVFAIL, SRV};
use dns_server::{address, addresses};
use iokernel::discovery::dns::{
    Answer, LookupId, Outcome as Found, ResolveError, ResolveErrorKind, Resolver, ResolverConfig, TTL_MAX, TTL_MIN,
};
use iokernel::discovery::{ServiceRecord, Services};
use mio::{Events, Poll, Token};

const TOKENS: std::ops::Range<usize> = 1 << 48..(1 << 48) + 64;
/// Longer than any test may take; reached only by a test that fails.
const LONG: Duration = Duration::from_secs(30);

type Outcome = Result<Answer, ResolveError>;

/// A kernel that does nothing but resolve.
struct Loop {
    poll: Poll,
    events: Events,
    resolver: Resolver,
    done: HashMap<u64, (Outcome, Instant)>,
    services: Vec<Result<Services, ResolveError>>,
    turns: usize,
}

impl Loop {
    fn new(config: ResolverConfig) -> Self {
        let poll = Poll::new().unwrap();
        let resolver = Resolver::new(poll.registry().try_clone().unwrap(), TOKENS, config);
        Loop { poll, events: Events::with_capacity(64), resolver, done: HashMap::new(), services: Vec::new(), turns: 0 }
    }

    /// Asks these servers, each for 200 ms, twice.
    fn asking(servers: &[&DnsServer]) -> Self {
        Loop::new(config(servers))
    }

    fn begin(&mut self, id: u64, host: &str) {
        self.resolver.lookup(Instant::now(), LookupId(id), host);
    }

    /// Turns until `enough` lookups are done or there is nothing left to wait for.
    fn run(&mut self, enough: usize) {
        let begun = Instant::now();
        loop {
            let (done, services) = (&mut self.done, &mut self.services);
            self.resolver.poll(Instant::now(), &mut |LookupId(id), outcome| match outcome {
                Found::Addresses(outcome) => {
                    assert!(done.insert(id, (outcome, Instant::now())).is_none(), "{id} is done twice");
                }
                Found::Services(outcome) => services.push(outcome),
            });
            let ended = self.done.len() + self.services.len();
            let Some(at) = self.resolver.poll_timeout().filter(|_| ended < enough) else { return };
            assert!(begun.elapsed() < LONG, "{} of {enough} are done", self.done.len());
            self.poll.poll(&mut self.events, Some(at.saturating_duration_since(Instant::now()))).unwrap();
            for event in &self.events {
                assert!(self.resolver.owns(event.token()));
                self.resolver.handle_event(event.token(), event.is_readable(), event.is_writable());
            }
            self.resolver.handle_timeout(Instant::now());
            self.turns += 1;
        }
    }

    fn services(&mut self, name: &str) -> Result<Services, ResolveError> {
        self.resolver.lookup_services(Instant::now(), LookupId(0), name);
        self.run(1);
        self.services.pop().expect("a lookup ends")
    }

    fn resolve(&mut self, host: &str) -> Outcome {
        self.begin(0, host);
        self.run(1);
        self.done.remove(&0).expect("a lookup ends").0
    }
}

fn config(servers: &[&DnsServer]) -> ResolverConfig {
    ResolverConfig {
        nameservers: servers.iter().map(|server| server.address).collect(),
        timeout: Duration::from_millis(200),
        ..ResolverConfig::default()
    }
}

fn texts(outcome: Outcome) -> Vec<String> {
    outcome.unwrap().addresses.iter().map(ToString::to_string).collect()
}

fn kind(outcome: &Outcome) -> ResolveErrorKind {
    outcome.as_ref().unwrap_err().kind
}

/// A folder of the test's own, gone afterwards.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let name = format!("iokernel-dns-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        // As editors and DHCP clients do: complete, then in place.
        let (path, new) = (self.0.join(name), self.0.join("new"));
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, &path).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn both_families_are_asked_at_once_and_come_in_the_order_to_dial() {
    let server = DnsServer::start(|asked| addresses(asked, 60, &["192.0.2.1", "192.0.2.2", "127.0.0.1", "::1"]));
    let answer = Loop::asking(&[&server]).resolve("cache.test").unwrap();
    assert_eq!(answer.addresses.len(), 4);
    assert_eq!((answer.ttl, answer.complete), (Duration::from_secs(60), true));
    let mut kinds: Vec<u16> = server.asked().iter().map(|asked| asked.kind).collect();
    kinds.sort();
    assert_eq!(kinds, [A, AAAA]);
}

#[test]
fn a_family_without_records_does_not_hide_the_other() {
    let server = DnsServer::start(|asked| address(asked, 60, if asked.name == "four" { "192.0.2.1" } else { "::7" }));
    let mut turning = Loop::asking(&[&server]);
    for (host, wanted) in [("four", "192.0.2.1"), ("six", "::7")] {
        let answer = turning.resolve(host).unwrap();
        assert!(answer.complete);
        assert_eq!(texts(Ok(answer)), [wanted]);
    }
}

#[test]
fn a_family_that_fails_or_does_not_exist_does_not_hide_the_other() {
    for code in [SERVFAIL, REFUSED, NXDOMAIN] {
        for bad in [A, AAAA] {
            let script = move |asked: &Asked| match asked.kind == bad {
                true => Reply::Code(code),
                false => addresses(asked, 60, &["192.0.2.1", "::7"]),
            };
            let answer = Loop::asking(&[&DnsServer::start(script)]).resolve("half.test").unwrap();
            assert_eq!(answer.complete, code == NXDOMAIN, "only an answer is knowledge");
            assert_eq!(texts(Ok(answer)), [if bad == A { "::7" } else { "192.0.2.1" }]);
        }
    }
}

#[test]
fn a_silent_family_costs_the_resolution_delay_and_no_more() {
    for silent in [A, AAAA] {
        let script = move |asked: &Asked| match asked.kind == silent {
            true => Reply::Silent,
            false => addresses(asked, 60, &["192.0.2.1", "::7"]),
        };
        let server = DnsServer::start(script);
        let timeout = Duration::from_secs(20);
        let begun = Instant::now();
        let answer = Loop::new(ResolverConfig { timeout, ..config(&[&server]) }).resolve("half.test").unwrap();
        assert!(begun.elapsed() >= Duration::from_millis(50) && begun.elapsed() < timeout);
        assert!(!answer.complete);
        assert_eq!(answer.addresses.len(), 1);
    }
}

#[test]
fn a_family_a_little_late_is_waited_for() {
    let late = |asked: &Asked| Reply::Delayed(Duration::from_millis(5), Box::new(address(asked, 60, "::1")));
    let script = move |asked: &Asked| if asked.kind == AAAA { late(asked) } else { address(asked, 60, "127.0.0.1") };
    let mut all = 0;
    for _ in 0..10 {
        let answer = Loop::asking(&[&DnsServer::start(script)]).resolve("late.test").unwrap();
        all += usize::from(answer.complete && answer.addresses.len() == 2);
    }
    assert!(all > 0, "a busy machine may be late at times, but not always");
}

#[test]
fn the_next_server_is_asked_after_servfail_silence_and_a_closed_port() {
    let good = DnsServer::start(|asked| address(asked, 60, "192.0.2.1"));
    for reply in [Reply::Code(SERVFAIL), Reply::Code(REFUSED), Reply::Silent, Reply::Garbage] {
        let bad = DnsServer::start(move |_| reply.clone());
        assert_eq!(texts(Loop::asking(&[&bad, &good]).resolve("x.test")), ["192.0.2.1"]);
        assert!(bad.names(A) == ["x.test"] || bad.asked().iter().any(|asked| asked.tcp));
    }
    let mut config = config(&[&good]);
    config.nameservers.insert(0, closed_port());
    assert_eq!(texts(Loop::new(config).resolve("x.test")), ["192.0.2.1"]);
}

fn closed_port() -> SocketAddr {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[test]
fn a_negative_answer_is_believed_without_asking_the_next_server() {
    let first = DnsServer::start(|_| Reply::Code(NXDOMAIN));
    let second = DnsServer::start(|asked| address(asked, 60, "192.0.2.1"));
    let outcome = Loop::asking(&[&first, &second]).resolve("x.test");
    assert_eq!(kind(&outcome), ResolveErrorKind::NoSuchName);
    assert!(second.asked().is_empty());
}

#[test]
fn errors_are_typed_and_name_host_server_and_cause() {
    let message = |outcome: Outcome| outcome.unwrap_err().to_string();
    let ask = |server: &DnsServer, host: &str| Loop::asking(&[server]).resolve(host);

    let server = DnsServer::start(|_| Reply::Code(NXDOMAIN));
    let outcome = ask(&server, "x.test");
    assert_eq!(kind(&outcome), ResolveErrorKind::NoSuchName);
    assert_eq!(message(outcome), format!("x.test: NXDOMAIN from {}", server.address));

    let server = DnsServer::start(|_| Reply::NoData);
    let outcome = ask(&server, "x.test");
    assert_eq!(kind(&outcome), ResolveErrorKind::NoAddresses);
    assert!(message(outcome).contains(&format!("no A records from {}", server.address)));

    let server = DnsServer::start(|_| Reply::Code(SERVFAIL));
    let outcome = ask(&server, "x.test");
    assert_eq!(kind(&outcome), ResolveErrorKind::ServerFailure);
    assert_eq!(message(outcome), format!("x.test: SERVFAIL from {}", server.address));

    let server = DnsServer::start(|_| Reply::Silent);
    let outcome = ask(&server, "x.test");
    assert_eq!(kind(&outcome), ResolveErrorKind::NoAnswer);
    assert_eq!(message(outcome), format!("x.test: no answer from {} within 200ms (2 tries)", server.address));
    assert_eq!(server.names(A).len(), 2);

    let port = closed_port();
    let outcome = Loop::new(ResolverConfig { nameservers: vec![port], ..config(&[]) }).resolve("x.test");
    assert_eq!(kind(&outcome), ResolveErrorKind::NoAnswer);
    assert_eq!(message(outcome), format!("x.test: {port}: Connection refused"));

    let outcome = ask(&server, "a..b");
    assert_eq!(kind(&outcome), ResolveErrorKind::BadName);
    assert_eq!(message(outcome), "a..b: not a domain name");
    for bad in ["", "fe80::1%eth0", "a:b", "x".repeat(300).as_str()] {
        assert_eq!(kind(&ask(&server, bad)), ResolveErrorKind::BadName, "{bad}");
    }
}

#[test]
fn a_truncated_answer_is_asked_again_by_tcp() {
    let all: Vec<String> = (0..200).map(|n| format!("192.0.2.{n}")).collect();
    let script = move |asked: &Asked| match asked.tcp {
        false => Reply::Truncated,
        true => addresses(asked, 60, &all.iter().map(String::as_str).collect::<Vec<_>>()),
    };
    let server = DnsServer::start(script);
    let answer = Loop::new(ResolverConfig { timeout: LONG, ..config(&[&server]) }).resolve("big.test").unwrap();
    assert_eq!(answer.addresses.len(), 200);
    assert!(answer.complete && server.asked().iter().filter(|asked| asked.tcp).count() == 2);
}

#[test]
fn tcp_that_stays_silent_gives_the_turn_to_the_next_server() {
    let bad = DnsServer::start(|asked| if asked.tcp { Reply::Silent } else { Reply::Truncated });
    let good = DnsServer::start(|asked| address(asked, 60, "192.0.2.1"));
    assert_eq!(texts(Loop::asking(&[&bad, &good]).resolve("x.test")), ["192.0.2.1"]);
}

#[test]
fn a_server_that_knows_no_edns_is_asked_without() {
    let script = |asked: &Asked| if asked.edns { Reply::Code(FORMERR) } else { address(asked, 60, "192.0.2.1") };
    let server = DnsServer::start(script);
    let once = ResolverConfig { attempts: 1, ..config(&[&server]) };
    assert_eq!(texts(Loop::new(once).resolve("old.test")), ["192.0.2.1"]);
    let server = DnsServer::start(|asked| if asked.edns { Reply::Silent } else { address(asked, 60, "192.0.2.1") });
    assert_eq!(texts(Loop::asking(&[&server]).resolve("dropped.test")), ["192.0.2.1"]);
}

#[test]
fn aliases_are_followed_within_an_answer_and_beyond() {
    let target = |asked: &Asked, ttl| match asked.kind {
        A => Record("end.test", ttl, Data::Address("192.0.2.1".parse().unwrap())),
        _ => Record("end.test", ttl, Data::Address("::7".parse().unwrap())),
    };
    let script = move |asked: &Asked| match asked.name.as_str() {
        "in.test" => Reply::Answer(vec![
            target(asked, 90),
            Record("mid.test", 30, Data::Alias("END.test")),
            Record("in.test", 60, Data::Alias("mid.test")),
        ]),
        "beyond.test" => Reply::Answer(vec![Record("beyond.test", 7, Data::Alias("end.test"))]),
        "end.test" => Reply::Answer(vec![target(asked, 90)]),
        _ => Reply::Answer(vec![Record("loop.test", 60, Data::Alias("loop.test"))]),
    };
    let server = DnsServer::start(script);
    let mut turning = Loop::asking(&[&server]);
    for (host, ttl) in [("in.test", 30), ("beyond.test", 7)] {
        let answer = turning.resolve(host).unwrap();
        assert_eq!((answer.addresses.len(), answer.ttl), (2, Duration::from_secs(ttl)), "{host}");
    }
    assert!(turning.resolve("loop.test").is_err());
}

#[test]
fn times_to_live_have_a_floor_and_a_ceiling() {
    let script = |asked: &Asked| address(asked, if asked.name == "zero" { 0 } else { 999_999 }, "192.0.2.1");
    let server = DnsServer::start(script);
    let mut turning = Loop::asking(&[&server]);
    assert_eq!(turning.resolve("zero").unwrap().ttl, TTL_MIN);
    assert_eq!(turning.resolve("long").unwrap().ttl, TTL_MAX);
}

fn target(record: &ServiceRecord) -> String {
    format!("{}:{} {}/{}", record.target, record.port, record.priority, record.weight)
}

#[test]
fn services_come_with_priority_weight_and_the_rules_for_addresses() {
    let record = |owner, ttl, port| Record(owner, ttl, Data::Service(1, 20, port, "b.test"));
    let script = move |asked: &Asked| match asked.name.as_str() {
        "_redis._tcp.two.test" => {
            let more = Record("_redis._tcp.two.test", 30, Data::Service(2, 0, 7, "A.test"));
            Reply::Answer(vec![record("_redis._tcp.two.test", 60, 6379), more])
        }
        // Aliases, within the answer and beyond it, before the records.
        "in.test" => Reply::Answer(vec![record("end.test", 90, 1), Record("in.test", 9, Data::Alias("end.test"))]),
        "beyond.test" => Reply::Answer(vec![Record("beyond.test", 8, Data::Alias("end.test"))]),
        "end.test" => Reply::Answer(vec![record("end.test", 90, 2)]),
        "loop.test" => Reply::Answer(vec![Record("loop.test", 60, Data::Alias("loop.test"))]),
        "zero.test" => Reply::Answer(vec![record("zero.test", 0, 3)]),
        "gone.test" => Reply::Answer(vec![Record("gone.test", 60, Data::Service(0, 0, 0, ""))]),
        "big.test" if !asked.tcp => Reply::Truncated,
        "big.test" => Reply::Answer((0..200).map(|port| record("big.test", 60, port)).collect()),
        "short.x.test" => Reply::Answer(vec![record("short.x.test", 60, 4)]),
        "nodata.test" => Reply::NoData,
        "fails.test" => Reply::Code(SERVFAIL),
        _ => Reply::Code(NXDOMAIN),
    };
    let server = DnsServer::start(script);
    let search = vec!["x.test".to_string()];
    let mut turning = Loop::new(ResolverConfig { search, timeout: LONG, ..config(&[&server]) });
    let two = turning.services("_redis._tcp.two.test").unwrap();
    let shown: Vec<String> = two.records.iter().map(target).collect();
    assert_eq!(shown, ["b.test:6379 1/20", "A.test:7 2/0"]);
    assert_eq!(two.ttl, Duration::from_secs(30));
    for (name, port, ttl) in [("in.test", 1, 9), ("beyond.test", 2, 8), ("zero.test", 3, 1), ("short", 4, 60)] {
        let found = turning.services(name).unwrap();
        assert_eq!((found.records[0].port, found.ttl), (port, Duration::from_secs(ttl)), "{name}");
    }
    assert!(turning.services("gone.test").unwrap().records.is_empty(), "decidedly not there");
    assert_eq!(turning.services("big.test").unwrap().records.len(), 200);
    for (name, kind) in [
        ("nodata.test.", ResolveErrorKind::NoAddresses),
        ("none.test.", ResolveErrorKind::NoSuchName),
        ("fails.test.", ResolveErrorKind::ServerFailure),
        ("loop.test.", ResolveErrorKind::ServerFailure),
        ("a..b", ResolveErrorKind::BadName),
        ("", ResolveErrorKind::BadName),
    ] {
        assert_eq!(turning.services(name).unwrap_err().kind, kind, "{name}");
    }
    let message = turning.services("nodata.test.").unwrap_err().message;
    assert_eq!(message, format!("nodata.test.: no SRV records from {} (tried nodata.test)", server.address));
    assert!(server.names(A).is_empty() && !server.names(SRV).is_empty());
}

#[test]
fn services_are_asked_of_the_next_server_after_servfail_and_silence() {
    let answer = |_: &Asked| Reply::Answer(vec![Record("x.test", 60, Data::Service(0, 1, 7, "y.test"))]);
    let good = DnsServer::start(answer);
    for reply in [Reply::Code(SERVFAIL), Reply::Code(REFUSED), Reply::Silent] {
        let bad = DnsServer::start(move |_| reply.clone());
        let found = Loop::asking(&[&bad, &good]).services("x.test").unwrap();
        assert_eq!((found.records.len(), bad.names(SRV)), (1, vec!["x.test".to_string()]));
    }
}

#[test]
fn forged_answers_are_passed_over() {
    let script = |asked: &Asked| {
        Reply::Forged(Box::new(address(asked, 60, "192.0.2.66")), Box::new(address(asked, 60, "192.0.2.1")))
    };
    assert_eq!(texts(Loop::asking(&[&DnsServer::start(script)]).resolve("x.test")), ["192.0.2.1"]);
}

#[test]
fn the_search_list_and_ndots_are_those_of_the_system() {
    let known = |asked: &Asked| match asked.name.as_str() {
        "db.b.test" | "svc.ns" => address(asked, 60, "192.0.2.1"),
        "nodata.a.test" => Reply::NoData,
        "fails.a.test" => Reply::Code(SERVFAIL),
        "fails.b.test" => address(asked, 60, "192.0.2.1"),
        _ => Reply::Code(NXDOMAIN),
    };
    let search = vec!["a.test".to_string(), "b.test".to_string()];
    let ask = |host: &str, ndots| {
        let server = DnsServer::start(known);
        let outcome = Loop::new(ResolverConfig { search: search.clone(), ndots, ..config(&[&server]) }).resolve(host);
        (outcome, server.names(A))
    };
    let (outcome, names) = ask("db", 1);
    assert_eq!(texts(outcome), ["192.0.2.1"]);
    assert_eq!(names, ["db.a.test", "db.b.test"]);
    assert_eq!(ask("svc.ns", 1).1, ["svc.ns"]);
    assert_eq!(ask("svc.ns", 2).1, ["svc.ns.a.test", "svc.ns.b.test", "svc.ns"]);
    assert_eq!(ask("db.b.test", 5).1.last().unwrap(), "db.b.test");
    let (outcome, names) = ask("svc.", 1);
    assert_eq!((kind(&outcome), names), (ResolveErrorKind::NoSuchName, vec!["svc".to_string()]));
    let (outcome, names) = ask("fails", 1);
    assert!(outcome.is_ok() && names.last().unwrap() == "fails.b.test");
    let (outcome, _) = ask("nodata", 1);
    assert_eq!(kind(&outcome), ResolveErrorKind::NoAddresses);
    assert!(outcome.unwrap_err().message.ends_with("(tried nodata.a.test, nodata.b.test, nodata)"));
}

#[test]
fn silence_leaves_out_the_rest_of_the_search_list_but_not_the_name_itself() {
    let script = |asked: &Asked| match asked.name.as_str() {
        "db" => address(asked, 60, "192.0.2.1"),
        _ => Reply::Silent,
    };
    let server = DnsServer::start(script);
    let search = vec!["a.test".to_string(), "b.test".to_string(), "c.test".to_string()];
    assert_eq!(texts(Loop::new(ResolverConfig { search, ..config(&[&server]) }).resolve("db")), ["192.0.2.1"]);
    assert_eq!(server.names(A), ["db.a.test", "db.a.test", "db"]);
}

#[test]
fn the_hosts_file_comes_before_the_search_list_and_before_any_server() {
    let server = DnsServer::start(|asked| address(asked, 60, "192.0.2.66"));
    let folder = Folder::new();
    let hosts = Some(folder.write("hosts", "10.0.0.1 db db.internal\n10.0.0.2 db\n"));
    let search = vec!["a.test".to_string()];
    let mut turning = Loop::new(ResolverConfig { hosts, search, ..config(&[&server]) });
    assert_eq!(texts(turning.resolve("db")), ["10.0.0.1", "10.0.0.2"]);
    assert_eq!(texts(turning.resolve("DB.internal.")), ["10.0.0.1"]);
    assert!(server.asked().is_empty());
    assert_eq!(texts(turning.resolve("other")), ["192.0.2.66"]);
}

#[test]
fn addresses_and_localhost_need_no_server_and_still_come_by_poll() {
    let server = DnsServer::start(|_| panic!("asked"));
    let mut turning = Loop::asking(&[&server]);
    for host in ["192.0.2.1", "::1", "localhost", "x.LOCALHOST."] {
        let outcome = turning.resolve(host);
        assert!(outcome.is_ok_and(|answer| !answer.addresses.is_empty()), "{host}");
    }
    assert_eq!(turning.turns, 0, "nothing to wait for");
    assert_eq!(turning.resolver.poll_timeout(), None);
}

#[test]
fn the_files_are_read_again_when_they_change() {
    let (first, second) = (
        DnsServer::start(|asked| address(asked, 60, "192.0.2.1")),
        DnsServer::start(|asked| address(asked, 60, "192.0.2.2")),
    );
    let folder = Folder::new();
    let point_to = |server: &DnsServer| {
        let port = server.address.port();
        Some(folder.write("resolv.conf", &format!("nameserver [127.0.0.1]:{port}\nsearch x.test\n")))
    };
    let hosts = Some(folder.write("hosts", "10.0.0.1 db\n"));
    let mut turning = Loop::new(ResolverConfig { resolv_conf: point_to(&first), hosts, ..ResolverConfig::default() });
    assert_eq!(texts(turning.resolve("web")), ["192.0.2.1"]);
    assert_eq!(first.names(A), ["web.x.test"]);
    point_to(&second);
    folder.write("hosts", "10.0.0.2 db\n");
    assert_eq!(texts(turning.resolve("db")), ["10.0.0.1"], "looked at once a second at most");
    std::thread::sleep(Duration::from_millis(1050));
    assert_eq!(texts(turning.resolve("db")), ["10.0.0.2"]);
    assert_eq!(texts(turning.resolve("web")), ["192.0.2.2"]);
    std::fs::remove_file(folder.0.join("resolv.conf")).unwrap();
    std::thread::sleep(Duration::from_millis(1050));
    assert_eq!(texts(turning.resolve("web")), ["192.0.2.2"], "a missing file changes nothing");
}

#[test]
fn a_slow_lookup_delays_no_other() {
    let script = |asked: &Asked| match asked.name.starts_with("slow") {
        true => Reply::Silent,
        false => address(asked, 60, "192.0.2.1"),
    };
    let server = DnsServer::start(script);
    let mut turning = Loop::new(ResolverConfig { timeout: LONG, ..config(&[&server]) });
    for id in 0..20 {
        turning.begin(id, &format!("slow{id}.test"));
    }
    for id in 20..40 {
        turning.begin(id, &format!("quick{id}.test"));
    }
    turning.run(12);
    assert!(turning.done.keys().all(|id| *id >= 20));
    turning.run(20);
    assert!(turning.done.values().all(|(outcome, _)| outcome.is_ok()));
}

#[test]
fn lookups_beyond_the_cap_wait_their_turn() {
    const TAKES: Duration = Duration::from_millis(10);
    let (begun, most) = (Mutex::new(HashMap::<String, Instant>::new()), Arc::new(AtomicUsize::new(0)));
    let peak = most.clone();
    let script = move |asked: &Asked| {
        // A lookup lasts at least as long as its answers take, so whatever began within that time is still under way.
        let mut begun = begun.lock().unwrap();
        begun.entry(asked.name.clone()).or_insert_with(Instant::now);
        peak.fetch_max(begun.values().filter(|begun| begun.elapsed() < TAKES).count(), Ordering::Relaxed);
        Reply::Delayed(TAKES, Box::new(address(asked, 60, "192.0.2.1")))
    };
    let server = DnsServer::start(script);
    let mut turning = Loop::new(ResolverConfig { timeout: LONG, lookups_max: 4, ..config(&[&server]) });
    for id in 0..60 {
        turning.begin(id, &format!("n{id}.test"));
    }
    turning.run(60);
    assert_eq!(turning.done.len(), 60);
    assert!(most.load(Ordering::Relaxed) <= 4);
    assert_eq!(turning.resolver.poll_timeout(), None, "nothing is left behind");
}

#[test]
fn a_cancelled_lookup_never_answers_and_gives_up_its_place() {
    let server =
        DnsServer::start(|asked| if asked.name == "x" { Reply::Silent } else { address(asked, 60, "192.0.2.1") });
    let mut turning = Loop::new(ResolverConfig { timeout: LONG, lookups_max: 1, ..config(&[&server]) });
    turning.begin(1, "x");
    turning.begin(2, "y");
    turning.begin(3, "z");
    turning.begin(4, "127.0.0.1");
    turning.run(1);
    assert_eq!(turning.done.len(), 1, "only the literal is done");
    turning.begin(5, "127.0.0.1");
    for id in [1, 2, 5] {
        turning.resolver.cancel(LookupId(id));
    }
    turning.run(2);
    let mut done: Vec<u64> = turning.done.keys().copied().collect();
    done.sort();
    assert_eq!(done, [3, 4]);
    assert_eq!(turning.resolver.poll_timeout(), None);
}

#[test]
fn events_for_sockets_long_gone_do_no_harm() {
    let server = DnsServer::start(|asked| address(asked, 60, "192.0.2.1"));
    let mut turning = Loop::asking(&[&server]);
    for token in [TOKENS.start, TOKENS.end - 1] {
        assert!(turning.resolver.owns(Token(token)));
        turning.resolver.handle_event(Token(token), true, true);
    }
    assert!(!turning.resolver.owns(Token(TOKENS.end)) && !turning.resolver.owns(Token(3)));
    assert!(turning.resolve("x.test").is_ok());
}

#[test]
fn no_descriptor_outlives_its_lookup() {
    let silent = Arc::new(AtomicBool::new(false));
    let quiet = silent.clone();
    let script = move |asked: &Asked| match asked.tcp {
        _ if quiet.load(Ordering::Relaxed) => Reply::Silent,
        false => Reply::Truncated,
        true => address(asked, 60, "192.0.2.1"),
    };
    let server = DnsServer::start(script);
    let sockets = |poll: &Poll| {
        use std::os::fd::AsRawFd;
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", poll.as_raw_fd())).unwrap();
        info.lines().filter(|line| line.starts_with("tfd:")).count()
    };
    let mut turning = Loop::asking(&[&server]);
    assert!(turning.resolve("x.test").is_ok());
    assert_eq!(sockets(&turning.poll), 0);
    silent.store(true, Ordering::Relaxed);
    turning.begin(1, "x.test");
    turning.resolver.poll(Instant::now(), &mut |_, _| {});
    assert_eq!(sockets(&turning.poll), 2);
    turning.resolver.cancel(LookupId(1));
    assert_eq!(sockets(&turning.poll), 0);
}

struct Dnsmasq {
    child: Child,
    address: SocketAddr,
}

impl Dnsmasq {
    /// None where it is not installed. Another test may take the port before dnsmasq does: then it tries the next.
    fn start() -> Option<Self> {
        for _ in 0..10 {
            let mut server = Dnsmasq::spawn()?;
            if server.answers() {
                return Some(server);
            }
        }
        panic!("dnsmasq does not answer");
    }

    fn spawn() -> Option<Self> {
        let address = closed_port();
        let child = Command::new("/usr/sbin/dnsmasq")
            .args(["--keep-in-foreground", "--no-resolv", "--no-hosts", "--bind-interfaces", "--conf-file=/dev/null"])
            .args(["--listen-address=127.0.0.1", "--pid-file", "--log-facility=-", "--local=/test/", "--local-ttl=42"])
            .args([
                "--address=/one.test/192.0.2.1",
                "--host-record=both.test,127.0.0.1,::1",
                "--cname=al.test,both.test",
                "--srv-host=_redis._tcp.db.test,both.test,6380,1,20",
            ])
            .arg(format!("--port={}", address.port()))
            .args((0..300).map(|n| format!("--host-record=big.test,192.0.{}.{}", 2 + n / 200, n % 200)))
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        Some(Dnsmasq { child, address })
    }

    /// False if it has ended instead.
    fn answers(&mut self) -> bool {
        let probe = UdpSocket::bind("127.0.0.1:0").unwrap();
        probe.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let question = b"\0\x01\x01\0\0\x01\0\0\0\0\0\0\x03one\x04test\0\0\x01\0\x01";
        let begun = Instant::now();
        while begun.elapsed() < LONG && self.child.try_wait().unwrap().is_none() {
            let _ = probe.send_to(question, self.address);
            if probe.recv(&mut [0; 512]).is_ok() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        false
    }
}

impl Drop for Dnsmasq {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_real_server_is_understood() {
    let Some(server) = Dnsmasq::start() else { return eprintln!("skipped: dnsmasq is not installed") };
    let search = vec!["test".to_string()];
    let timeout = Duration::from_secs(5);
    let nameservers = vec![server.address];
    let mut turning = Loop::new(ResolverConfig { nameservers, search, timeout, ..ResolverConfig::default() });
    assert_eq!(texts(turning.resolve("one.test")), ["192.0.2.1"]);
    assert_eq!(texts(turning.resolve("one")), ["192.0.2.1"], "by the search list");
    let both = turning.resolve("both.test").unwrap();
    assert_eq!((both.addresses.len(), both.ttl), (2, Duration::from_secs(42)));
    assert_eq!(turning.resolve("al.test").unwrap().addresses.len(), 2, "by an alias");
    let found = turning.services("_redis._tcp.db").unwrap();
    assert_eq!(found.records.iter().map(target).collect::<Vec<_>>(), ["both.test:6380 1/20"]);
    assert_eq!(kind(&turning.resolve("none.test")), ResolveErrorKind::NoSuchName);
    assert_eq!(turning.resolve("big.test").unwrap().addresses.len(), 300, "by TCP");
}
