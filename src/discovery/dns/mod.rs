//! Names to addresses, inside a poll loop: a [`Resolver`] takes the loop's events and time, and hands over answers.
//!
//! hickory does the wire: `question` uses its UDP and TCP exchanges, which run on `reactor` (sockets and timers of
//! the kernel's poll) and `executor`. The rules around it are those of the system's resolver, in `lookup` and
//! `config`.
//!
//! ```no_run
//! # use std::time::Instant;
//! # use iokernel::discovery::dns::{LookupId, Resolver, ResolverConfig};
//! # fn main() -> std::io::Result<()> {
//! let mut poll = mio::Poll::new()?;
//! let mut events = mio::Events::with_capacity(64);
//! let mut resolver = Resolver::new(poll.registry().try_clone()?, 0..64, ResolverConfig::system());
//! resolver.lookup(Instant::now(), LookupId(1), "cache.internal");
//! loop {
//!     resolver.poll(Instant::now(), &mut |LookupId(id), result| println!("{id}: {result:?}"));
//!     let Some(at) = resolver.poll_timeout() else { break Ok(()) };
//!     poll.poll(&mut events, Some(at.saturating_duration_since(Instant::now())))?;
//!     for event in &events {
//!         if resolver.owns(event.token()) {
//!             resolver.handle_event(event.token(), event.is_readable(), event.is_writable());
//!         }
//!     }
//!     resolver.handle_timeout(Instant::now());
//! }
//! # }
//! ```

mod config;
mod executor;
mod lookup;
mod question;
mod reactor;

use std::collections::VecDeque;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;
use std::time::{Duration, Instant};

use mio::{Registry, Token};

use config::Files;
pub use config::ResolverConfig;
use executor::Executor;
use reactor::Runtime;

use super::Services;
use super::sort::{RouteProbe, dial_order};
use lookup::{Found, Wanted};

/// The bounds of [`Answer::ttl`] for answers from servers.
pub const TTL_MIN: Duration = Duration::from_secs(1);
pub const TTL_MAX: Duration = Duration::from_secs(3600);
/// For answers from the hosts file, which is cheap to look at again.
pub const TTL_HOSTS: Duration = Duration::from_secs(5);
/// A name in DNS has at most 253 characters, and one more for a trailing dot (RFC 1035, section 2.3.4).
const HOST_BYTES_MAX: usize = 254;

/// The caller's name for a lookup.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct LookupId(pub u64);

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// In the order to dial; never empty.
    pub addresses: Vec<IpAddr>,
    /// How long this may be believed, within `TTL_MIN` and `TTL_MAX`.
    pub ttl: Duration,
    /// False: one address family was late or its servers failed, so that the lack of an address proves nothing.
    pub complete: bool,
}

/// In the order of certainty: the first two say what is known, the others that nothing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ResolveErrorKind {
    /// The text cannot be a name.
    BadName,
    /// NXDOMAIN.
    NoSuchName,
    /// The name exists and has neither an A nor an AAAA record; for services, no SRV record.
    NoAddresses,
    /// Servers answered that they cannot answer (SERVFAIL, REFUSED, ...).
    ServerFailure,
    /// No server answered in time, or none could be reached.
    NoAnswer,
    /// A fault of this library.
    Internal,
}

/// Why there are no addresses or services: the host, the servers asked, the cause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolveError {
    pub kind: ResolveErrorKind,
    pub message: String,
}

impl fmt::Display for ResolveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ResolveError {}

/// What a lookup came to, by what it was for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Addresses(Result<Answer, ResolveError>),
    Services(Result<Services, ResolveError>),
}

impl Outcome {
    fn failed(wanted: Wanted, error: ResolveError) -> Self {
        match wanted {
            Wanted::Addresses => Outcome::Addresses(Err(error)),
            Wanted::Services => Outcome::Services(Err(error)),
        }
    }

    fn of(wanted: Wanted, found: Result<Found, ResolveError>) -> Self {
        match found {
            Ok(Found::Addresses(answer)) => Outcome::Addresses(Ok(Answer { ttl: bounded(answer.ttl), ..answer })),
            Ok(Found::Services(found)) => Outcome::Services(Ok(Services { ttl: bounded(found.ttl), ..found })),
            Err(error) => Outcome::failed(wanted, error),
        }
    }
}

/// Many lookups at a time on one thread. No call blocks, and no answer comes but by [`Resolver::poll`].
pub struct Resolver {
    runtime: Runtime,
    files: Files,
    executor: Executor<Label, Result<Found, ResolveError>>,
    waiting: VecDeque<Label>,
    ready: VecDeque<(LookupId, Outcome)>,
    lookups_max: usize,
}

struct Label {
    id: LookupId,
    wanted: Wanted,
    host: String,
}

impl PartialEq for Label {
    fn eq(&self, other: &Label) -> bool {
        self.id == other.id
    }
}

impl Resolver {
    /// `tokens` are for its sockets alone: two for each of the lookups that may run at a time, so 64 by default. Of
    /// fewer it makes do with fewer.
    pub fn new(registry: Registry, tokens: Range<usize>, config: ResolverConfig) -> Resolver {
        let lookups_max = config.lookups_max.min(tokens.len() / 2).max(1);
        Resolver {
            lookups_max,
            runtime: Runtime::new(registry, tokens, Instant::now()),
            files: Files::new(config),
            executor: Executor::new(),
            waiting: VecDeque::new(),
            ready: VecDeque::new(),
        }
    }

    /// Begins a lookup. Addresses, names of the hosts file and `localhost` need no server.
    pub fn lookup(&mut self, now: Instant, id: LookupId, host: &str) {
        self.runtime.handle_timeout(now);
        self.files.refresh(now);
        match self.local(host) {
            Some(outcome) => self.ready.push_back((id, Outcome::Addresses(outcome))),
            None => self.waiting.push_back(Label { id, wanted: Wanted::Addresses, host: host.to_string() }),
        }
    }

    /// Begins a lookup of a name's SRV records, by the rules for hosts. The hosts file says nothing of services.
    pub fn lookup_services(&mut self, now: Instant, id: LookupId, name: &str) {
        self.runtime.handle_timeout(now);
        self.files.refresh(now);
        match refused(name) {
            Some(error) => self.ready.push_back((id, Outcome::Services(Err(error)))),
            None => self.waiting.push_back(Label { id, wanted: Wanted::Services, host: name.to_string() }),
        }
    }

    /// Ends a lookup, whose answer will not come any more.
    pub fn cancel(&mut self, id: LookupId) {
        self.ready.retain(|(ready, _)| *ready != id);
        self.waiting.retain(|waiting| waiting.id != id);
        self.executor.cancel(&Label { id, wanted: Wanted::Addresses, host: String::new() });
    }

    pub fn owns(&self, token: Token) -> bool {
        self.runtime.owns(token)
    }

    pub fn handle_event(&mut self, token: Token, readable: bool, writable: bool) {
        self.runtime.handle_event(token, readable, writable);
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        self.runtime.handle_timeout(now);
    }

    /// When to call [`Resolver::handle_timeout`] and [`Resolver::poll`] though no event came; in the past if there is
    /// work already. None: no lookup is under way.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let startable = !self.waiting.is_empty() && self.executor.len() < self.lookups_max;
        if startable || !self.ready.is_empty() || self.executor.is_woken() {
            return Some(self.runtime.now());
        }
        self.runtime.poll_timeout()
    }

    /// Runs the futures that were woken and hands over what is finished.
    pub fn poll(&mut self, now: Instant, done: &mut dyn FnMut(LookupId, Outcome)) {
        self.runtime.handle_timeout(now);
        self.start();
        let executor = &mut self.executor;
        let ready = &mut self.ready;
        self.runtime.enter(|| {
            executor.run(&mut |label, outcome| {
                let found = outcome.unwrap_or_else(|_| Err(internal(&label.host)));
                ready.push_back((label.id, Outcome::of(label.wanted, found)));
            })
        });
        while let Some((id, outcome)) = self.ready.pop_front() {
            done(id, outcome);
        }
    }

    fn start(&mut self) {
        while self.executor.len() < self.lookups_max {
            let Some(label) = self.waiting.pop_front() else { return };
            let work = lookup::lookup(self.runtime.clone(), self.files.config(), label.wanted, label.host.clone());
            self.executor.spawn(label, Box::pin(work));
        }
    }

    /// What can be told without a server.
    fn local(&self, host: &str) -> Option<Result<Answer, ResolveError>> {
        if let Ok(address) = host.parse() {
            return Some(Ok(Answer { addresses: vec![address], ttl: TTL_MAX, complete: true }));
        }
        if let Some(error) = refused(host) {
            return Some(Err(error));
        }
        let mut addresses = self.files.hosts().lookup(host).to_vec();
        if addresses.is_empty() && is_localhost(host) {
            addresses = vec![Ipv6Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()];
        }
        if addresses.is_empty() {
            return None;
        }
        let probe = std::cell::LazyCell::new(RouteProbe::new);
        let addresses = dial_order(addresses, |address| probe.reachable(address));
        Some(Ok(Answer { addresses, ttl: TTL_HOSTS, complete: true }))
    }
}

/// RFC 6761, section 6.3: never asked of a server.
fn is_localhost(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    host == "localhost" || host.ends_with(".localhost")
}

/// Why this cannot be a name, if it cannot.
fn refused(name: &str) -> Option<ResolveError> {
    let bad = |message| Some(ResolveError { kind: ResolveErrorKind::BadName, message });
    if name.is_empty() || name.len() > HOST_BYTES_MAX {
        let start: String = name.chars().take(64).collect();
        return bad(format!("{start}: a host name has 1 to {HOST_BYTES_MAX} bytes"));
    }
    if name.contains([':', '%']) {
        return bad(format!("{name}: neither a name nor an address; a zone (%eth0) cannot be looked up"));
    }
    None
}

fn bounded(ttl: Duration) -> Duration {
    ttl.clamp(TTL_MIN, TTL_MAX)
}

fn internal(host: &str) -> ResolveError {
    ResolveError { kind: ResolveErrorKind::Internal, message: format!("{host}: the resolver panicked") }
}
