//! Sources of peers over the real resolver: a scripted name server, and BIND whose records are changed as it runs.

#[path = "support/dns_server.rs"]
#[allow(dead_code)]
mod dns_server;
#[path = "support/named.rs"]
mod named;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use dns_server::{A, AAAA, Asked, Data, DnsServer, NXDOMAIN, Record, Reply, SERVFAIL, SRV, address, addresses};
use iokernel::config::Url;
use iokernel::discovery::dns::{LookupId, Outcome, Resolver, ResolverConfig};
use iokernel::discovery::{Ask, News, Query, Source, Terms};
use iokernel::peer::{Peer, Place};
use mio::{Events, Poll};
use named::Named;

const LONG: Duration = Duration::from_secs(30);
const SECOND: Duration = Duration::from_secs(1);

/// What the source asked for and told.
#[derive(Default)]
struct Asks {
    lookups: Vec<(Query, String)>,
    services: Vec<(Query, String)>,
    sets: Vec<Vec<Peer>>,
    unknown: Vec<String>,
}

impl Ask for Asks {
    fn lookup(&mut self, query: Query, host: &str) {
        self.lookups.push((query, host.into()));
    }

    fn lookup_services(&mut self, query: Query, name: &str) {
        self.services.push((query, name.into()));
    }

    fn request(&mut self, _: Query, _: usize, _: &[u8]) {
        unreachable!("no service was named");
    }

    fn stream(&mut self, _: Query, _: usize, _: &[u8]) {
        unreachable!("no service was named");
    }

    fn set_peers(&mut self, peers: Vec<Peer>) {
        self.sets.push(peers);
    }

    fn unknown(&mut self, why: &str) {
        self.unknown.push(why.into());
    }
}

/// A kernel that does nothing but follow one source.
struct World {
    poll: Poll,
    events: Events,
    resolver: Resolver,
    source: Box<dyn Source>,
    asks: Asks,
    sets: Vec<Vec<Peer>>,
    unknown: Vec<String>,
}

impl World {
    fn open(url: &str, spread: bool, config: ResolverConfig) -> Self {
        let poll = Poll::new().unwrap();
        let resolver = Resolver::new(poll.registry().try_clone().unwrap(), 0..64, config);
        let terms = Terms { spread, remote: false, default_port: 6379, ttl_min: SECOND, ttl_max: LONG };
        let mut url = Url::parse(url, |_| Some(6379)).unwrap();
        let source = iokernel::discovery::open(&mut url, &terms).unwrap();
        let (sets, unknown) = (Vec::new(), Vec::new());
        let mut world =
            World { poll, events: Events::with_capacity(64), resolver, source, asks: Asks::default(), sets, unknown };
        world.hear(News::Open);
        world
    }

    fn hear(&mut self, news: News<'_>) {
        self.source.handle(Instant::now(), news, &mut self.asks);
        let now = Instant::now();
        for (query, host) in self.asks.lookups.drain(..) {
            self.resolver.lookup(now, LookupId(query), &host);
        }
        for (query, name) in self.asks.services.drain(..) {
            self.resolver.lookup_services(now, LookupId(query), &name);
        }
        self.sets.append(&mut self.asks.sets);
        self.unknown.append(&mut self.asks.unknown);
    }

    fn turn(&mut self, until: Instant) {
        let mut done = Vec::new();
        self.resolver.poll(Instant::now(), &mut |LookupId(query), outcome| done.push((query, outcome)));
        for (query, outcome) in done {
            self.hear(match outcome {
                Outcome::Addresses(outcome) => News::Addresses { query, outcome },
                Outcome::Services(outcome) => News::Services { query, outcome },
            });
        }
        let timeouts = [self.resolver.poll_timeout(), self.source.poll_timeout(), Some(until)];
        let at = timeouts.into_iter().flatten().min().unwrap();
        self.poll.poll(&mut self.events, Some(at.saturating_duration_since(Instant::now()))).unwrap();
        for event in &self.events {
            self.resolver.handle_event(event.token(), event.is_readable(), event.is_writable());
        }
        self.resolver.handle_timeout(Instant::now());
        if self.source.poll_timeout().is_some_and(|at| at <= Instant::now()) {
            self.hear(News::Time);
        }
    }

    /// Turns until it is so.
    fn until(&mut self, what: &str, is_so: impl Fn(&World) -> bool) {
        let end = Instant::now() + LONG;
        while !is_so(self) {
            assert!(Instant::now() < end, "{what}: {:?} {:?}", self.shown(), self.unknown);
            self.turn(end);
        }
    }

    fn pass(&mut self, span: Duration) {
        let end = Instant::now() + span;
        while Instant::now() < end {
            self.turn(end);
        }
    }

    /// The places of the latest set.
    fn shown(&self) -> Vec<String> {
        let show = |peer: &Peer| peer.places.iter().map(Place::to_string).collect::<Vec<_>>();
        let mut shown: Vec<String> = self.sets.last().into_iter().flatten().flat_map(show).collect();
        shown.sort();
        shown
    }

    fn becomes(&mut self, places: &[&str]) {
        self.until(&format!("{places:?}"), |world| world.shown() == places);
    }
}

fn config(servers: &[&DnsServer]) -> ResolverConfig {
    ResolverConfig {
        nameservers: servers.iter().map(|server| server.address).collect(),
        timeout: Duration::from_millis(200),
        ..ResolverConfig::default()
    }
}

/// A server whose answers the test changes: the n-th reply of a list.
fn switched(replies: Vec<fn(&Asked) -> Reply>) -> (DnsServer, Arc<AtomicU8>) {
    let at = Arc::new(AtomicU8::new(0));
    let turn = at.clone();
    (DnsServer::start(move |asked| replies[usize::from(turn.load(Ordering::Relaxed))](asked)), at)
}

#[test]
fn a_changed_record_is_followed_and_nothing_less_than_an_answer_removes_a_peer() {
    let (server, at) = switched(vec![
        |asked| addresses(asked, 0, &["192.0.2.1", "::7"]),
        |_| Reply::Code(SERVFAIL),
        |_| Reply::Silent,
        |_| Reply::Code(NXDOMAIN),
        |_| Reply::NoData,
        |asked| addresses(asked, 0, &["192.0.2.2", "::7"]),
    ]);
    let mut world = World::open("redis://db.test", false, config(&[&server]));
    world.becomes(&["192.0.2.1:6379", "[::7]:6379"]);
    for (reply, expected) in
        [(1, "SERVFAIL"), (2, "no answer from"), (3, "NXDOMAIN"), (4, "no A records")].map(|(at, text)| (at, text))
    {
        at.store(reply, Ordering::Relaxed);
        world.unknown.clear();
        world.hear(News::Doubt);
        world.until(expected, |world| world.unknown.iter().any(|why| why.contains(expected)));
        assert_eq!(world.sets.len(), 1);
    }
    at.store(5, Ordering::Relaxed);
    world.hear(News::Doubt);
    world.becomes(&["192.0.2.2:6379", "[::7]:6379"]);
}

#[test]
fn a_zero_ttl_is_asked_once_a_second_and_not_more() {
    let server = DnsServer::start(|asked| address(asked, 0, "192.0.2.1"));
    let mut world = World::open("redis://db.test", false, config(&[&server]));
    let begun = Instant::now();
    world.pass(Duration::from_millis(2500));
    let most = begun.elapsed().as_secs() as usize + 1;
    let asked = server.names(A).len();
    assert!((2..=most).contains(&asked), "{asked} times, {most} at most");
    assert_eq!(world.sets.len(), 1);
}

#[test]
fn one_family_that_begins_to_fail_keeps_its_addresses() {
    let (server, at) = switched(vec![
        |asked| addresses(asked, 1, &["192.0.2.1", "::7"]),
        |asked| if asked.kind == AAAA { Reply::Code(SERVFAIL) } else { address(asked, 1, "192.0.2.2") },
        |asked| if asked.kind == AAAA { Reply::Silent } else { address(asked, 1, "192.0.2.3") },
        |asked| address(asked, 1, "192.0.2.4"),
    ]);
    let mut world = World::open("redis://db.test", true, config(&[&server]));
    world.becomes(&["192.0.2.1:6379", "[::7]:6379"]);
    for (reply, four) in [(1, "192.0.2.2:6379"), (2, "192.0.2.3:6379")] {
        at.store(reply, Ordering::Relaxed);
        world.becomes(&[four, "[::7]:6379"]);
    }
    at.store(3, Ordering::Relaxed);
    world.becomes(&["192.0.2.4:6379"]);
}

#[test]
fn a_slow_name_never_delays_another() {
    let server = DnsServer::start(|asked| match asked.name.as_str() {
        "slow.test" => Reply::Silent,
        _ => address(asked, 0, "192.0.2.1"),
    });
    let slow = ResolverConfig { timeout: LONG, ..config(&[&server]) };
    let mut world = World::open("redis://slow.test,quick.test:7", false, slow);
    world.becomes(&["192.0.2.1:7"]);
    world.until("asked again", |_| server.names(A).iter().filter(|name| *name == "quick.test").count() >= 3);
    assert_eq!(server.names(A).iter().filter(|name| *name == "slow.test").count(), 1);
}

#[test]
fn changes_of_hosts_and_resolv_conf_are_noticed() {
    let (first, second) = (
        DnsServer::start(|asked| address(asked, 0, "192.0.2.1")),
        DnsServer::start(|asked| address(asked, 0, "192.0.2.2")),
    );
    let folder = named::folder();
    let write = |name: &str, text: &str| {
        std::fs::write(folder.join("whole"), text).unwrap();
        std::fs::rename(folder.join("whole"), folder.join(name)).unwrap();
        Some(folder.join(name))
    };
    let point_to =
        |server: &DnsServer| write("resolv.conf", &format!("nameserver [127.0.0.1]:{}\n", server.address.port()));
    let files = ResolverConfig { resolv_conf: point_to(&first), hosts: write("hosts", "10.0.0.1 db\n"), ..config(&[]) };
    let mut world = World::open("redis://db,web", false, files);
    world.becomes(&["10.0.0.1:6379", "192.0.2.1:6379"]);
    point_to(&second);
    write("hosts", "10.0.0.2 db\n");
    world.becomes(&["10.0.0.2:6379", "192.0.2.2:6379"]);
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn services_become_peers_and_a_target_is_never_dropped_before_its_successor_stands() {
    fn script(asked: &Asked, targets: &[&'static str]) -> Reply {
        let service = |(at, target): (usize, &&'static str)| {
            Record("_redis._tcp.db.test", 0, Data::Service(at as u16, 10 + at as u16, 7, target))
        };
        match (asked.kind, asked.name.as_str()) {
            (SRV, "_redis._tcp.db.test") => Reply::Answer(targets.iter().enumerate().map(service).collect()),
            (_, "a.test") => addresses(asked, 60, &["192.0.2.1", "192.0.2.2"]),
            (_, "b.test") => address(asked, 60, "192.0.2.3"),
            (_, "late.test") => Reply::Delayed(Duration::from_millis(300), Box::new(address(asked, 60, "192.0.2.4"))),
            _ => Reply::Code(NXDOMAIN),
        }
    }
    let (server, at) = switched(vec![
        |asked| script(asked, &["a.test", "b.test"]),
        |asked| script(asked, &["late.test"]),
        |asked| script(asked, &["nowhere.test"]),
        |_| Reply::Code(SERVFAIL),
        |asked| script(asked, &["b.test"]),
        |asked| script(asked, &[""]),
    ]);
    let patient = || ResolverConfig { timeout: SECOND * 5, ..config(&[&server]) };
    let mut world = World::open("redis+srv://db.test", false, patient());
    world.becomes(&["192.0.2.1:7", "192.0.2.2:7", "192.0.2.3:7"]);
    let terms: HashMap<&str, _> =
        world.sets.last().unwrap().iter().map(|peer| (peer.name.as_str(), (peer.priority, peer.weight))).collect();
    assert_eq!(terms, HashMap::from([("a.test:7", (0, 10)), ("b.test:7", (1, 11))]));
    at.store(1, Ordering::Relaxed);
    world.becomes(&["192.0.2.4:7"]);
    assert!(world.sets.iter().all(|set| !set.is_empty()));
    for (reply, expected) in [(2, "nowhere.test"), (3, "SERVFAIL")] {
        at.store(reply, Ordering::Relaxed);
        world.hear(News::Doubt);
        world.until(expected, |world| world.unknown.iter().any(|why| why.contains(expected)));
        assert_eq!(world.shown(), ["192.0.2.4:7"]);
    }
    at.store(4, Ordering::Relaxed);
    world.hear(News::Doubt);
    world.becomes(&["192.0.2.3:7"]);
    at.store(5, Ordering::Relaxed);
    world.becomes(&[]);
    at.store(0, Ordering::Relaxed);
    let mut spread = World::open("redis+srv://_redis._tcp.db.test", true, patient());
    spread.until("each address", |world| world.sets.last().is_some_and(|set| set.len() == 3));
}

#[test]
fn a_real_server_whose_records_change_is_followed_within_their_ttl() {
    let Some(server) = Named::start() else {
        return eprintln!("skipped: named or nsupdate is not installed (Debian: bind9, bind9-dnsutils)");
    };
    let asking = || ResolverConfig {
        nameservers: vec![server.address],
        search: vec!["test".into()],
        timeout: SECOND * 5,
        ..ResolverConfig::default()
    };
    World::open("redis://alias", false, asking()).becomes(&["192.0.2.1:6379", "[2001:db8::1]:6379"]);
    let mut by_name = World::open("redis://alias.test", false, asking());
    by_name.becomes(&["192.0.2.1:6379", "[2001:db8::1]:6379"]);
    let mut by_service = World::open("redis+srv://db.test", true, asking());
    by_service.becomes(&["192.0.2.1:6380", "[2001:db8::1]:6380"]);
    assert_eq!(by_service.sets.last().unwrap()[0].priority, 1);
    let mut by_alias = World::open("redis+srv://_alias.test", false, asking());
    by_alias.becomes(&["192.0.2.1:6380", "[2001:db8::1]:6380"]);

    server.update("update delete db.test A\nupdate add db.test 1 A 192.0.2.2");
    for world in [&mut by_name, &mut by_service, &mut by_alias] {
        let begun = Instant::now();
        let port = if world.sets.last().unwrap()[0].name.ends_with("6379") { 6379 } else { 6380 };
        world.becomes(&[&format!("192.0.2.2:{port}"), &format!("[2001:db8::1]:{port}")]);
        assert!(begun.elapsed() < SECOND * 10, "its TTL is one second");
    }
    server.update("update delete _redis._tcp.db.test SRV\nupdate add _redis._tcp.db.test 1 SRV 0 5 7000 other.test.");
    by_service.becomes(&["192.0.2.9:7000"]);
    by_alias.becomes(&["192.0.2.9:7000"]);

    // Gone altogether: the last good set stands, and what is wrong is said.
    by_name.unknown.clear();
    server.update("update delete alias.test CNAME");
    by_name.until("NXDOMAIN", |world| world.unknown.iter().any(|why| why.contains("NXDOMAIN")));
    assert_eq!(by_name.shown(), ["192.0.2.2:6379", "[2001:db8::1]:6379"]);
    server.update("update add alias.test 1 CNAME other.test.");
    by_name.becomes(&["192.0.2.9:6379"]);

    // Too many for one datagram.
    let many: Vec<String> = (0..99).map(|n| format!("update add big.test 1 A 10.0.0.{n}")).collect();
    server.update(&many.join("\n"));
    let mut big = World::open("redis://big.test", true, asking());
    big.until("by TCP", |world| world.sets.last().is_some_and(|set| set.len() == 99));
}
