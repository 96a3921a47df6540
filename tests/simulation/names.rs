//! Where peers are found: DNS with its failures, what the program tells, and three sentinels.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use iokernel::discovery::dns::{Answer, ResolveError, ResolveErrorKind};
use iokernel::discovery::{Ask, News, Query, ServiceRecord, Services, Source};
use iokernel::peer::{Peer, Place};
use iokernel::value::{Reader, Token, write};

use crate::profile::Servers;
use crate::world::{Event, World};

/// [`News`] that can wait in a queue.
#[derive(Debug)]
pub enum OwnedNews {
    Time,
    Doubt,
    Addresses(Query, Result<Answer, ResolveError>),
    Services(Query, Result<Services, ResolveError>),
    Reply(Query, Result<Vec<u8>, String>),
    Standing(Query),
    Push(Query, Vec<u8>),
    Ended(Query),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Mood {
    #[default]
    Well,
    ServFail,
    Silent,
    NoSuchName,
    Partial,
}

#[derive(Default)]
pub struct Names {
    pub records: BTreeMap<String, Vec<IpAddr>>,
    pub mood: Mood,
    pub sentinels: Vec<Sentinel>,
    /// The nodes that SRV records name, with their priorities and weights.
    pub services: Vec<(usize, u16, u16)>,
}

/// What one sentinel believes.
pub struct Sentinel {
    pub up: bool,
    epoch: u64,
    master: usize,
    streams: Vec<Query>,
}

/// What the source asked for in one call.
#[derive(Default)]
struct Asks {
    lookups: Vec<(Query, String)>,
    services: Vec<(Query, String)>,
    requests: Vec<(Query, usize, Vec<u8>)>,
    streams: Vec<(Query, usize)>,
    peers: Option<Vec<Peer>>,
    unknown: Option<String>,
}

impl Ask for Asks {
    fn lookup(&mut self, query: Query, host: &str) {
        self.lookups.push((query, host.into()));
    }
    fn lookup_services(&mut self, query: Query, name: &str) {
        self.services.push((query, name.into()));
    }
    fn request(&mut self, query: Query, service: usize, body: &[u8]) {
        self.requests.push((query, service, body.to_vec()));
    }
    fn stream(&mut self, query: Query, service: usize, _body: &[u8]) {
        self.streams.push((query, service));
    }
    fn set_peers(&mut self, peers: Vec<Peer>) {
        self.peers = Some(peers);
    }
    fn unknown(&mut self, why: &str) {
        self.unknown = Some(why.into());
    }
}

impl World {
    pub fn build_names(&mut self) {
        let all: Vec<IpAddr> = self.nodes.iter().map(|node| node.address.ip()).collect();
        let records = &mut self.names.records;
        records.insert("cache.test".into(), vec![all[0]]);
        records.insert("b.test".into(), vec![all[all.len() - 1]]);
        for (index, ip) in all.iter().enumerate() {
            records.insert(format!("n{index}.test"), vec![*ip]);
        }
        records.insert("all.test".into(), all[..all.len().min(3)].to_vec());
        self.names.services = (0..self.nodes.len()).map(|node| (node, 1, 1)).collect();
        if self.profile.has_sentinels() {
            self.names.sentinels =
                (0..3).map(|_| Sentinel { up: true, epoch: 1, master: 0, streams: Vec::new() }).collect();
        }
    }

    pub fn with_source<R>(&mut self, body: impl FnOnce(&mut dyn Source, Instant, &mut dyn Ask) -> R) -> R {
        let now = self.now();
        let Some(mut source) = self.source.take() else { self.fail("the source is at work already") };
        let mut asks = Asks::default();
        let result = body(&mut *source, now, &mut asks);
        self.source = Some(source);
        self.rearm_source();
        self.ask(asks);
        result
    }

    fn ask(&mut self, asks: Asks) {
        for (query, host) in asks.lookups {
            let (wait, outcome) = self.look_up(&host);
            self.in_ms(wait, Event::News(OwnedNews::Addresses(query, outcome)));
        }
        for (query, name) in asks.services {
            let (wait, outcome) = self.look_up_services(&name);
            self.in_ms(wait, Event::News(OwnedNews::Services(query, outcome)));
        }
        for (query, service, body) in asks.requests {
            self.ask_sentinel(query, service, &body);
        }
        for (query, service) in asks.streams {
            self.names.sentinels[service].streams.push(query);
            if self.names.sentinels[service].up {
                self.in_ms(2, Event::News(OwnedNews::Standing(query)));
            }
        }
        if let Some(peers) = asks.peers {
            self.note(&format!("  peers {:?}", peers.iter().map(|peer| (&peer.name, peer.role)).collect::<Vec<_>>()));
            self.checks.told_peers(&peers);
            self.with_router(None, |router, now, act| router.handle_peers(now, &peers, act));
        }
        if let Some(why) = asks.unknown {
            self.with_router(None, |router, _, act| router.handle_unknown(&why, act));
        }
    }

    pub fn tell_source(&mut self, news: OwnedNews) {
        self.with_source(|source, now, asks| match news {
            OwnedNews::Time => source.handle(now, News::Time, asks),
            OwnedNews::Doubt => source.handle(now, News::Doubt, asks),
            OwnedNews::Addresses(query, outcome) => source.handle(now, News::Addresses { query, outcome }, asks),
            OwnedNews::Services(query, outcome) => source.handle(now, News::Services { query, outcome }, asks),
            OwnedNews::Reply(query, outcome) => {
                let outcome = outcome.as_deref().map_err(String::as_str);
                source.handle(now, News::Reply { query, outcome }, asks);
            }
            OwnedNews::Standing(query) => source.handle(now, News::Standing { query }, asks),
            OwnedNews::Push(query, body) => source.handle(now, News::Push { query, body: &body }, asks),
            OwnedNews::Ended(query) => source.handle(now, News::Ended { query, why: "lost" }, asks),
        });
    }

    /// What DNS says, and after how many milliseconds.
    fn look_up(&mut self, host: &str) -> (u64, Result<Answer, ResolveError>) {
        let known = self.names.records.get(host.trim_end_matches('.'));
        let mut addresses = known.cloned().unwrap_or_default();
        self.rng.shuffle(&mut addresses);
        let error = |kind| Err(ResolveError { kind, message: format!("{host}: {kind:?}") });
        let ttl = Duration::from_secs(self.rng.u64(1..6));
        let wait = self.rng.u64(1..30);
        match self.names.mood {
            _ if addresses.is_empty() => (wait, error(ResolveErrorKind::NoSuchName)),
            Mood::Well => (wait, Ok(Answer { addresses, ttl, complete: true })),
            Mood::ServFail => (wait, error(ResolveErrorKind::ServerFailure)),
            Mood::Silent => (5000, error(ResolveErrorKind::NoAnswer)),
            Mood::NoSuchName => (wait, error(ResolveErrorKind::NoSuchName)),
            Mood::Partial => {
                addresses.truncate(1);
                (wait, Ok(Answer { addresses, ttl, complete: false }))
            }
        }
    }

    fn look_up_services(&mut self, name: &str) -> (u64, Result<Services, ResolveError>) {
        let error = |kind| Err(ResolveError { kind, message: format!("{name}: {kind:?}") });
        let (ttl, wait) = (Duration::from_secs(self.rng.u64(1..6)), self.rng.u64(1..30));
        let record = |(node, priority, weight): &(usize, u16, u16)| ServiceRecord {
            target: format!("n{node}.test"),
            port: 6379,
            priority: *priority,
            weight: *weight,
        };
        match self.names.mood {
            Mood::Well | Mood::Partial => {
                let records = self.names.services.iter().map(record).collect();
                (wait, Ok(Services { records, ttl }))
            }
            Mood::ServFail => (wait, error(ResolveErrorKind::ServerFailure)),
            Mood::Silent => (5000, error(ResolveErrorKind::NoAnswer)),
            Mood::NoSuchName => (wait, error(ResolveErrorKind::NoSuchName)),
        }
    }

    /// What a conn finds for the name of its peer.
    pub fn addresses_of(&mut self, name: &str) -> Result<Vec<Place>, String> {
        let peer = Peer::parse(name).ok_or("no name")?;
        let (host, port) = peer.host().ok_or("no host")?;
        let answer = self.look_up(host).1.map_err(|error| error.message)?;
        Ok(answer.addresses.into_iter().map(|ip| Place::Tcp((ip, port).into())).collect())
    }

    /// The program tells which peers there are.
    pub fn tell_peers(&mut self, peers: &[usize]) {
        let mut body = Vec::new();
        write::array(&mut body, peers.len() as u32);
        for node in peers {
            let (priority, weight) = (self.rng.u64(0..2), self.rng.u64(0..4));
            write::map(&mut body, 3);
            write::str(&mut body, b"address");
            write::str(&mut body, self.nodes[*node].name().as_bytes());
            write::str(&mut body, b"priority");
            // Who takes writes is in one group, or there may be no primary in the best.
            write::uint(&mut body, if self.profile.servers == Servers::Alike { priority } else { 0 });
            write::str(&mut body, b"weight");
            write::uint(&mut body, weight);
        }
        let told = self.with_source(|source, now, asks| source.handle_told(now, &body, asks));
        if let Err(why) = told {
            self.fail(&why);
        }
    }

    fn ask_sentinel(&mut self, query: Query, service: usize, body: &[u8]) {
        let wait = self.rng.u64(1..30);
        let sentinel = &self.names.sentinels[service];
        if !sentinel.up {
            let wait = self.rng.u64(1..2000);
            return self.in_ms(wait, Event::News(OwnedNews::Reply(query, Err("LOST no connection".into()))));
        }
        let mut reader = Reader::new(body);
        let mut words = Vec::new();
        while let Ok(token) = reader.token() {
            if let Token::Str(word) = token {
                words.push(String::from_utf8_lossy(word).into_owned());
            }
        }
        let reply = match words[1].as_str() {
            "MASTER" => fields(&[("name", "main".into()), ("config-epoch", sentinel.epoch.to_string())]),
            "GET-MASTER-ADDR-BY-NAME" => {
                let address = self.nodes[sentinel.master].address;
                let mut out = Vec::new();
                write::array(&mut out, 2);
                write::str(&mut out, address.ip().to_string().as_bytes());
                write::str(&mut out, address.port().to_string().as_bytes());
                out
            }
            _ => self.replicas(sentinel),
        };
        self.in_ms(wait, Event::News(OwnedNews::Reply(query, Ok(reply))));
    }

    fn replicas(&self, sentinel: &Sentinel) -> Vec<u8> {
        let mut out = Vec::new();
        write::array(&mut out, self.nodes.len() as u32 - 1);
        for (index, node) in self.nodes.iter().enumerate().filter(|(index, _)| *index != sentinel.master) {
            let down = if self.nodes[index].alive { "slave" } else { "slave,s_down" };
            let role = if self.nodes[index].primary { "master" } else { "slave" };
            let port = node.address.port().to_string();
            let ip = node.address.ip().to_string();
            out.extend(fields(&[("ip", ip), ("port", port), ("flags", down.into()), ("role-reported", role.into())]));
        }
        out
    }

    /// A sentinel hears how things are, and tells those who listen to it.
    pub fn sentinel_hears(&mut self, sentinel: usize) {
        if !self.names.sentinels[sentinel].up {
            return self.in_ms(200, Event::SentinelHears { sentinel });
        }
        let master = self.cluster.follows.iter().position(Option::is_none).unwrap_or(0);
        let epoch = self.cluster.epoch;
        let of = &mut self.names.sentinels[sentinel];
        (of.epoch, of.master) = (epoch, master);
        let mut body = Vec::new();
        write::array(&mut body, 3);
        ["message", "+switch-master", "main 1 2 3 4"].iter().for_each(|word| write::str(&mut body, word.as_bytes()));
        for query in of.streams.clone() {
            self.in_ms(2, Event::News(OwnedNews::Push(query, body.clone())));
        }
    }

    pub fn stop_sentinel(&mut self, sentinel: usize) {
        self.names.sentinels[sentinel].up = false;
        if self.rng.usize(..4) == 0 {
            for query in std::mem::take(&mut self.names.sentinels[sentinel].streams) {
                self.in_ms(1, Event::News(OwnedNews::Ended(query)));
            }
        }
    }

    pub fn start_sentinel(&mut self, sentinel: usize) {
        self.names.sentinels[sentinel].up = true;
        for query in self.names.sentinels[sentinel].streams.clone() {
            self.in_ms(3, Event::News(OwnedNews::Standing(query)));
        }
    }
}

fn fields(pairs: &[(&str, String)]) -> Vec<u8> {
    let mut out = Vec::new();
    write::map(&mut out, pairs.len() as u32);
    for (key, value) in pairs {
        write::str(&mut out, key.as_bytes());
        write::str(&mut out, value.as_bytes());
    }
    out
}
