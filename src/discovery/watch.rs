//! A name that is asked for again and again: when its answer grows old, when it is doubted, and when it failed.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::dns::{Answer, ResolveError};
use super::{Ask, Query, Terms};
use crate::peer::{Peer, Place};

/// A doubted name is asked at most this often.
const DOUBT_EVERY: Duration = Duration::from_secs(1);
/// After a failure a name is asked again within this time, which doubles up to the next one.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(30);
/// Whatever the bounds say, so that a timeout is always later than the last one.
const TTL_FLOOR: Duration = Duration::from_millis(1);
/// How long an answer is believed that lacks one address family because its servers failed.
const INCOMPLETE_MAX: Duration = Duration::from_secs(30);

/// Gives each question a number of its own.
#[derive(Debug, Default)]
pub struct Numbers(Query);

impl Numbers {
    pub fn take(&mut self) -> Query {
        self.0 += 1;
        self.0
    }
}

/// When to ask. One question at a time is under way.
#[derive(Debug, Default)]
pub struct Pace {
    flying: Option<Query>,
    asked: Option<Instant>,
    due: Option<Instant>,
    failures: u32,
    doubted: bool,
}

impl Pace {
    /// True before the first question, too.
    pub fn is_due(&self, now: Instant) -> bool {
        self.flying.is_none() && self.due.is_none_or(|due| due <= now)
    }

    pub fn begin(&mut self, now: Instant, query: Query) {
        (self.flying, self.asked, self.due, self.doubted) = (Some(query), Some(now), None, false);
    }

    pub fn awaits(&self, query: Query) -> bool {
        self.flying == Some(query)
    }

    /// None while a question is under way.
    pub fn timeout(&self) -> Option<Instant> {
        self.due.filter(|_| self.flying.is_none())
    }

    /// Brings the next question forward. One that is under way was asked before the doubt, so another follows it.
    pub fn doubt(&mut self, now: Instant) {
        self.doubted = true;
        if let (Some(asked), Some(due)) = (self.asked, self.due) {
            self.due = Some(due.min(now.max(asked + DOUBT_EVERY)));
        }
    }

    pub fn answered(&mut self, now: Instant, ttl: Duration, terms: &Terms) {
        let ttl = ttl.min(terms.ttl_max).max(terms.ttl_min).max(TTL_FLOOR);
        let wait = if self.doubted { ttl.min(DOUBT_EVERY) } else { ttl };
        (self.flying, self.failures, self.due) = (None, 0, Some(now + wait));
    }

    /// Between half and the whole of a time that doubles. How long the failure took, to the nanosecond, is the dice:
    /// no two machines share it, and it is passed in, so that a run can be replayed.
    pub fn failed(&mut self, now: Instant) {
        let span = RETRY_MIN.saturating_mul(1 << self.failures.min(10)).min(RETRY_MAX);
        let took = self.asked.map_or(Duration::ZERO, |asked| now.saturating_duration_since(asked));
        let jitter = fastrand::Rng::with_seed(took.as_nanos() as u64).f64();
        (self.flying, self.failures) = (None, self.failures + 1);
        self.due = Some(now + span.mul_f64(if self.failures == 1 { 1.0 } else { 0.5 + jitter / 2.0 }));
    }
}

/// A host and the addresses that it was last known to have.
#[derive(Debug, Default)]
pub struct Name {
    host: String,
    addresses: Vec<IpAddr>,
    pace: Pace,
    failed: bool,
}

impl Name {
    pub fn new(host: impl Into<String>) -> Self {
        Name { host: host.into(), ..Name::default() }
    }

    pub fn host(&self) -> &str {
        &self.host
    }

    pub fn ask_if_due(&mut self, now: Instant, numbers: &mut Numbers, ask: &mut dyn Ask) {
        if self.pace.is_due(now) {
            let query = numbers.take();
            self.pace.begin(now, query);
            ask.lookup(query, &self.host);
        }
    }

    pub fn doubt(&mut self, now: Instant) {
        self.pace.doubt(now);
    }

    pub fn timeout(&self) -> Option<Instant> {
        self.pace.timeout()
    }

    /// No lookup has ended yet, well or not.
    pub fn is_pending(&self) -> bool {
        self.addresses.is_empty() && !self.failed
    }

    pub fn awaits(&self, query: Query) -> bool {
        self.pace.awaits(query)
    }

    /// A failure, and an answer that there is nothing, leave what was known.
    pub fn handle(&mut self, now: Instant, outcome: Result<Answer, ResolveError>, terms: &Terms, ask: &mut dyn Ask) {
        match outcome {
            Ok(answer) => {
                let ttl = if answer.complete { answer.ttl } else { answer.ttl.min(INCOMPLETE_MAX) };
                self.pace.answered(now, ttl, terms);
                self.failed = false;
                self.learn(answer);
            }
            Err(error) => {
                self.pace.failed(now);
                self.failed = true;
                ask.unknown(&error.message);
            }
        }
    }

    /// What an incomplete answer does not tell stays as it was: the missing family's addresses.
    fn learn(&mut self, answer: Answer) {
        let mut addresses = answer.addresses;
        if !answer.complete {
            let has_four = addresses.iter().any(IpAddr::is_ipv4);
            let has_six = addresses.iter().any(IpAddr::is_ipv6);
            let missing = |address: &&IpAddr| if address.is_ipv4() { !has_four } else { !has_six };
            addresses.extend(self.addresses.iter().filter(missing).copied().collect::<Vec<_>>());
        }
        self.addresses = addresses;
    }

    /// One peer whose addresses are raced, or a peer for each, which is still whom the name is for. None while no address is
    /// known.
    pub fn peers(&self, shown: &str, port: u16, spread: bool) -> Vec<Peer> {
        let places = self.addresses.iter().map(|ip| SocketAddr::new(*ip, port));
        match spread {
            true => {
                let of_name = |peer| Peer { server_name: Some(shown.to_string()), ..peer };
                places.map(|address| of_name(Peer::new(address.to_string(), vec![Place::Tcp(address)]))).collect()
            }
            false if self.addresses.is_empty() => Vec::new(),
            false => vec![Peer::new(format!("{shown}:{port}"), places.map(Place::Tcp).collect())],
        }
    }
}
