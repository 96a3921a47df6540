//! Sources of peers: whatever a registry answers, a file holds or the program tells, each set that comes of it names each
//! peer once, and what is not understood changes nothing.
#![no_main]
use std::time::{Duration, Instant};

use iokernel::config::Url;
use iokernel::discovery::{self, Ask, News, Query, Source, Terms};
use iokernel::peer::Peer;

#[derive(Default)]
struct Script {
    asked: Vec<Query>,
    streams: Vec<Query>,
    sets: usize,
}

impl Ask for Script {
    fn lookup(&mut self, _: Query, _: &str) {}
    fn lookup_services(&mut self, _: Query, _: &str) {}
    fn request(&mut self, query: Query, _: usize, _: &[u8]) {
        self.asked.push(query);
    }
    fn stream(&mut self, query: Query, _: usize, _: &[u8]) {
        self.streams.push(query);
    }
    fn set_peers(&mut self, peers: Vec<Peer>) {
        self.sets += 1;
        check(&peers);
    }
    fn unknown(&mut self, why: &str) {
        assert!(!why.is_empty());
    }
}

fn check(peers: &[Peer]) {
    let mut names: Vec<&str> = peers.iter().map(|peer| peer.name.as_str()).collect();
    names.sort_unstable();
    assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "a peer twice: {names:?}");
    assert!(names.iter().all(|name| !name.is_empty()));
}

fn open(url: &str) -> Box<dyn Source> {
    let terms = Terms {
        remote: false,
        spread: true,
        default_port: 6379,
        ttl_min: Duration::from_secs(1),
        ttl_max: Duration::from_secs(300),
    };
    let mut url = Url::parse(url, |_| Some(6379)).expect("a URL");
    discovery::open(&mut url, &terms).expect("a source")
}

fn told(body: &[u8]) {
    let mut script = Script::default();
    let mut source = open("redis+app://any");
    source.handle(Instant::now(), News::Open, &mut script);
    let outcome = source.handle_told(Instant::now(), body, &mut script);
    assert_eq!(outcome.is_ok(), script.sets == 1, "{outcome:?}");
}

/// Answers each question of a sentinel source with a part of the data.
fn answered(data: &[u8]) {
    let mut script = Script::default();
    let mut source = open("redis+sentinel://10.0.0.1,10.0.0.2/mymaster");
    let mut now = Instant::now();
    source.handle(now, News::Open, &mut script);
    for part in data.split(|byte| *byte == 0xc1) {
        now += Duration::from_millis(u64::from(part.first().copied().unwrap_or(0)) * 5);
        if let Some(query) = script.streams.last().copied() {
            source.handle(now, News::Push { query, body: part }, &mut script);
        }
        if script.asked.is_empty() {
            source.handle(now, News::Time, &mut script);
        } else {
            let query = script.asked.remove(0);
            source.handle(now, News::Reply { query, outcome: Ok(part) }, &mut script);
        }
    }
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(peers) = discovery::file::parse(&String::from_utf8_lossy(data)) {
        check(&peers);
    }
    told(data);
    answered(data);
});
