//! The hosts that stand in the URL: `redis://a,b:7,[::1]:8`.
//!
//! Addresses and unix sockets are peers at once. Each name is watched by itself: asked at open, when its TTL ends, and
//! when the router doubts. The set stands as soon as any name has an answer.

use std::net::IpAddr;
use std::time::Instant;

use super::set::Published;
use super::watch::{Name, Numbers};
use super::{Ask, News, Source, Terms};
use crate::config::{Address, ConfigError, Url};
use crate::peer::{Peer, Place};

struct HostList {
    terms: Terms,
    entries: Vec<Entry>,
    numbers: Numbers,
    published: Published,
}

enum Entry {
    Fixed(Peer),
    Named(Name, u16),
}

impl Entry {
    fn new(address: &Address, remote: bool) -> Self {
        match address {
            Address::Unix(path) => Entry::Fixed(Peer::new(path.clone(), vec![Place::Unix(path.into())])),
            Address::Host { host, port } if remote || host.parse::<IpAddr>().is_ok() => {
                Entry::Fixed(Peer::at(host, *port))
            }
            Address::Host { host, port } => Entry::Named(Name::new(host.as_str()), *port),
        }
    }

    fn peers(&self, spread: bool) -> Vec<Peer> {
        match self {
            Entry::Fixed(peer) => vec![peer.clone()],
            Entry::Named(name, port) => name.peers(name.host(), *port, spread),
        }
    }
}

pub fn open(url: &mut Url, terms: &Terms) -> Result<Box<dyn Source>, ConfigError> {
    let entries = url.hosts.iter().map(|host| Entry::new(host, terms.remote)).collect();
    Ok(Box::new(HostList { terms: *terms, entries, numbers: Numbers::default(), published: Published::default() }))
}

/// As [`open`], each address a peer of its own: the nodes of a cluster are known by their addresses.
pub fn open_spread(url: &mut Url, terms: &Terms) -> Result<Box<dyn Source>, ConfigError> {
    open(url, &Terms { spread: true, ..*terms })
}

impl HostList {
    fn names(&mut self) -> impl Iterator<Item = &mut Name> {
        self.entries.iter_mut().filter_map(|entry| match entry {
            Entry::Fixed(_) => None,
            Entry::Named(name, _) => Some(name),
        })
    }

    /// Nothing is published before anything is known.
    fn publish(&mut self, ask: &mut dyn Ask) {
        let peers: Vec<Peer> = self.entries.iter().flat_map(|entry| entry.peers(self.terms.spread)).collect();
        if !peers.is_empty() {
            self.published.publish(peers, ask);
        }
    }

    fn ask_due(&mut self, now: Instant, ask: &mut dyn Ask) {
        let mut numbers = std::mem::take(&mut self.numbers);
        self.names().for_each(|name| name.ask_if_due(now, &mut numbers, ask));
        self.numbers = numbers;
    }
}

impl Source for HostList {
    fn handle(&mut self, now: Instant, news: News<'_>, ask: &mut dyn Ask) {
        let terms = self.terms;
        match news {
            News::Open => self.publish(ask),
            News::Doubt => self.names().for_each(|name| name.doubt(now)),
            News::Addresses { query, outcome } => {
                let Some(name) = self.names().find(|name| name.awaits(query)) else { return };
                name.handle(now, outcome, &terms, ask);
                self.publish(ask);
            }
            _ => {}
        }
        self.ask_due(now, ask);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let names = self.entries.iter().filter_map(|entry| match entry {
            Entry::Fixed(_) => None,
            Entry::Named(name, _) => name.timeout(),
        });
        names.min()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::discovery::dns::{Answer, ResolveError, ResolveErrorKind};
    use crate::discovery::script::Script;

    const SECOND: Duration = Duration::from_secs(1);

    struct Rig {
        source: Box<dyn Source>,
        script: Script,
        now: Instant,
    }

    impl Rig {
        fn open(url: &str, spread: bool) -> Self {
            let terms = Terms { spread, remote: false, default_port: 6379, ttl_min: SECOND, ttl_max: 60 * SECOND };
            let mut url = Url::parse(url, |_| Some(6379)).unwrap();
            let source = crate::discovery::open(&mut url, &terms).unwrap();
            let mut rig = Rig { source, script: Script::default(), now: Instant::now() };
            rig.hear(News::Open);
            rig
        }

        fn hear(&mut self, news: News<'_>) {
            self.source.handle(self.now, news, &mut self.script);
        }

        /// Time goes on, by as much as the source asks for at most.
        fn pass(&mut self, span: Duration) {
            let end = self.now + span;
            while let Some(at) = self.source.poll_timeout().filter(|at| *at <= end) {
                assert!(at > self.now, "the next timeout is later");
                self.now = at;
                self.hear(News::Time);
            }
            self.now = end;
        }

        /// Answers the latest question for a host.
        fn answer(&mut self, host: &str, outcome: Result<Answer, ResolveError>) {
            let asked = self.script.lookups.iter().rfind(|(_, asked)| asked == host).expect("it was asked");
            self.hear(News::Addresses { query: asked.0, outcome });
        }

        fn asked(&self) -> usize {
            self.script.lookups.len()
        }
    }

    fn answer(ttl: u64, addresses: &[&str]) -> Result<Answer, ResolveError> {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        Ok(Answer { addresses, ttl: Duration::from_secs(ttl), complete: true })
    }

    fn incomplete(addresses: &[&str]) -> Result<Answer, ResolveError> {
        answer(5, addresses).map(|answer| Answer { complete: false, ..answer })
    }

    fn failure(kind: ResolveErrorKind) -> Result<Answer, ResolveError> {
        Err(ResolveError { kind, message: format!("a: {kind:?}") })
    }

    fn places(rig: &Rig) -> Vec<String> {
        rig.script.sets.last().unwrap().iter().flat_map(|peer| &peer.places).map(Place::to_string).collect()
    }

    #[test]
    fn what_needs_no_lookup_stands_at_once_and_needs_no_timer() {
        for (url, name, place) in [
            ("redis://10.0.0.1", "10.0.0.1:6379", "10.0.0.1:6379"),
            ("redis://[::1]:8", "[::1]:8", "[::1]:8"),
            ("unix:///run/r.sock", "/run/r.sock", "unix:/run/r.sock"),
        ] {
            let mut rig = Rig::open(url, false);
            assert_eq!((rig.script.shown(), places(&rig)), (vec![name.into()], vec![place.to_string()]));
            rig.hear(News::Doubt);
            assert_eq!((rig.source.poll_timeout(), rig.asked(), rig.script.sets.len()), (None, 0, 1));
        }
        let mut url = Url::parse("redis+nope://x", |_| Some(1)).unwrap();
        let terms = Terms { spread: false, remote: false, default_port: 1, ttl_min: SECOND, ttl_max: SECOND };
        let error = crate::discovery::open(&mut url, &terms).err().unwrap();
        assert!(error.key == "scheme" && error.expected.contains("sentinel"), "{error}");
    }

    #[test]
    fn each_name_is_a_peer_or_each_address_and_a_slow_name_delays_no_other() {
        let mut rig = Rig::open("redis://a,b:7,10.0.0.9", false);
        assert_eq!((rig.asked(), rig.script.shown()), (2, vec!["10.0.0.9:6379".into()]));
        rig.answer("b", answer(5, &["10.0.0.2", "10.0.0.3"]));
        assert_eq!(rig.script.shown(), ["10.0.0.9:6379", "b:7"]);
        rig.answer("a", answer(5, &["10.0.0.1"]));
        assert_eq!(rig.script.shown(), ["10.0.0.9:6379", "a:6379", "b:7"]);
        let mut rig = Rig::open("redis+cluster://a,b:7", false);
        rig.answer("b", answer(5, &["10.0.0.2", "::3"]));
        assert_eq!(rig.script.shown(), ["10.0.0.2:7", "[::3]:7"]);
        let names = rig.script.sets.last().unwrap().iter().map(|peer| peer.server_name.as_deref());
        assert_eq!(names.collect::<Vec<_>>(), [Some("b"), Some("b")], "whose certificates they must have");
    }

    #[test]
    fn a_name_is_asked_again_when_its_time_ends_within_the_bounds() {
        let mut rig = Rig::open("redis://a", false);
        for (ttl, waits) in [(0, 1), (5, 5), (3600, 60)] {
            rig.answer("a", answer(ttl, &["10.0.0.1"]));
            let before = rig.asked();
            rig.pass(waits * SECOND - Duration::from_millis(1));
            assert_eq!(rig.asked(), before, "{ttl}");
            rig.pass(Duration::from_millis(1));
            assert_eq!(rig.asked(), before + 1, "{ttl}");
            rig.pass(100 * SECOND);
            assert_eq!(rig.asked(), before + 1, "one lookup at a time");
        }
        assert_eq!(rig.script.sets.len(), 1, "the same answer is no change");
        rig.answer("a", answer(5, &["10.0.0.2", "10.0.0.1"]));
        rig.pass(5 * SECOND);
        rig.answer("a", answer(5, &["10.0.0.1", "10.0.0.2"]));
        assert_eq!((rig.script.sets.len(), places(&rig)[0].as_str()), (2, "10.0.0.2:6379"));
        rig.pass(5 * SECOND);
        rig.answer("a", answer(5, &["10.0.0.3", "10.0.0.1"]));
        assert_eq!(places(&rig), ["10.0.0.3:6379", "10.0.0.1:6379"]);
    }

    #[test]
    fn failures_keep_the_last_good_set_and_are_tried_again_ever_more_slowly() {
        use ResolveErrorKind::*;
        let mut rig = Rig::open("redis://a", false);
        rig.answer("a", answer(5, &["10.0.0.1"]));
        rig.pass(5 * SECOND);
        let mut waits = Vec::new();
        for kind in [ServerFailure, NoAnswer, NoSuchName, NoAddresses, ServerFailure, NoAnswer, NoAnswer, NoAnswer] {
            rig.pass(Duration::from_micros(1234));
            rig.answer("a", failure(kind));
            waits.push(rig.source.poll_timeout().unwrap() - rig.now);
            rig.pass(30 * SECOND);
        }
        assert!(waits[0] == SECOND && waits[1] >= SECOND && waits[3] >= 4 * SECOND, "{waits:?}");
        assert!(waits[7] >= 15 * SECOND && waits[7] <= 30 * SECOND, "{waits:?}");
        assert_eq!((rig.script.sets.len(), rig.script.unknown.len()), (1, 8));
        rig.answer("a", answer(5, &["10.0.0.1"]));
        rig.pass(5 * SECOND);
        rig.answer("a", failure(NoAnswer));
        assert_eq!(rig.source.poll_timeout(), Some(rig.now + SECOND), "success ends the backing off");
    }

    #[test]
    fn doubt_asks_at_once_but_once_a_second_and_not_beside_a_lookup() {
        let mut rig = Rig::open("redis://a", false);
        rig.hear(News::Doubt);
        assert_eq!(rig.asked(), 1);
        rig.answer("a", answer(60, &["10.0.0.1"]));
        rig.pass(SECOND);
        assert_eq!(rig.asked(), 2, "the lookup was older than the doubt");
        rig.answer("a", answer(60, &["10.0.0.1"]));
        (0..9).for_each(|_| rig.hear(News::Doubt));
        assert_eq!(rig.asked(), 2);
        rig.pass(SECOND);
        assert_eq!(rig.asked(), 3);
        rig.answer("a", answer(60, &["10.0.0.1"]));
        rig.pass(3 * SECOND);
        rig.hear(News::Doubt);
        assert_eq!(rig.asked(), 4, "at once");
    }

    #[test]
    fn an_incomplete_answer_keeps_the_missing_family() {
        let mut rig = Rig::open("redis://a", false);
        rig.answer("a", answer(5, &["::1", "10.0.0.1"]));
        rig.pass(5 * SECOND);
        rig.answer("a", incomplete(&["10.0.0.2"]));
        assert_eq!(places(&rig), ["10.0.0.2:6379", "[::1]:6379"]);
        rig.pass(5 * SECOND);
        rig.answer("a", incomplete(&["::2"]));
        assert_eq!(places(&rig), ["[::2]:6379", "10.0.0.2:6379"]);
        rig.pass(5 * SECOND);
        rig.answer("a", answer(5, &["::2"]));
        assert_eq!(places(&rig), ["[::2]:6379"]);
    }
}
