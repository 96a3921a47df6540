//! A URL becomes a set of peers, and stays true for as long as the endpoint lives.
//!
//! * [`dns`]: the resolver, driven by the kernel's poll loop; [`hosts`]: the hosts file, which is asked before any
//!   server; [`sort`]: the order in which addresses are dialled.
//! * One folder per source of peers, one row each in [`TABLE`]: a source hears [`News`] and acts through [`Ask`], which
//!   the kernel implements. The suffix of a scheme names it: `redis+srv://`; without a suffix the URL's own hosts are
//!   watched.
//!
//! Registries that are services themselves (Sentinel; ZooKeeper, etcd and Consul would be more) name the services they
//! want to ask in [`Source::services`]; the kernel opens those like any other, and carries requests and replies.
//!
//! # Architecture invariants
//! Nothing here blocks, starts a thread or sleeps: the one I/O thread runs it all, and a slow name delays no other.
//! A source does no I/O but reading small local files: time, answers and replies are passed in.
//! What is not known changes nothing: a source that cannot tell keeps quiet, and the last good set stands.

mod app;
pub mod dns;
mod entry;
pub mod file;
pub mod hosts;
mod list;
#[cfg(test)]
mod script;
mod sentinel;
mod set;
pub mod sort;
mod srv;
pub mod stamp;
mod watch;

use std::time::{Duration, Instant};

use crate::config::{ConfigError, Url};
use crate::peer::Peer;
use dns::{Answer, ResolveError};

/// Every source that a scheme's suffix can name.
pub static TABLE: &[Row] = &[
    Row { suffix: "app", open: app::open },
    Row { suffix: "cluster", open: list::open_spread },
    Row { suffix: "file", open: file::open },
    Row { suffix: "sentinel", open: sentinel::open },
    Row { suffix: "srv", open: srv::open },
];

/// One row: a source as the suffix of a scheme selects it.
pub struct Row {
    pub suffix: &'static str,
    /// Reads the source's own parts of the URL, before the protocol reads the rest.
    pub open: OpenSource,
}

/// See [`Row::open`].
pub type OpenSource = fn(&mut Url, &Terms) -> Result<Box<dyn Source>, ConfigError>;

/// The source that a URL names: the one of its suffix, or the URL's own hosts.
pub fn open(url: &mut Url, terms: &Terms) -> Result<Box<dyn Source>, ConfigError> {
    let Some(suffix) = url.via.as_deref() else { return list::open(url, terms) };
    match TABLE.iter().find(|row| row.suffix == suffix) {
        Some(row) => (row.open)(url, terms),
        None => {
            let known: Vec<&str> = TABLE.iter().map(|row| row.suffix).collect();
            let expected = format!("{0}://, or {0}+ and one of {1}, unix", url.scheme, known.join(", "));
            Err(ConfigError::new("scheme", &format!("{}+{suffix}", url.scheme), expected))
        }
    }
}

/// What every source is told.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Each address of a name is a peer of its own. False: a name is one peer, whose addresses are raced.
    pub spread: bool,
    /// The names in a URL are not looked up here: a proxy does that.
    pub remote: bool,
    pub default_port: u16,
    /// A name is asked again when its records' TTL ends, within these bounds.
    pub ttl_min: Duration,
    pub ttl_max: Duration,
}

/// The source's own number for something it asked; each is used once.
pub type Query = u64;

/// What a source hears. Each `lookup`, `lookup_services` and `request` is answered once, never before it returns.
#[derive(Debug)]
pub enum News<'a> {
    /// The endpoint was opened.
    Open,
    /// `poll_timeout` has come.
    Time,
    /// The router has reason to doubt the set: a peer is gone, or is not what it was.
    Doubt,
    Addresses {
        query: Query,
        outcome: Result<Answer, ResolveError>,
    },
    Services {
        query: Query,
        outcome: Result<Services, ResolveError>,
    },
    /// The reply to a request, as MessagePack; or why there is none.
    Reply {
        query: Query,
        outcome: Result<&'a [u8], &'a str>,
    },
    /// A stream stands: what happens from here on is told. Comes again after a reconnect.
    Standing {
        query: Query,
    },
    /// One message of a stream, as MessagePack.
    Push {
        query: Query,
        body: &'a [u8],
    },
    /// A stream has ended and is to be begun anew.
    Ended {
        query: Query,
        why: &'a str,
    },
}

/// The SRV records of a name (RFC 2782).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Services {
    /// Empty: the name says that the service is not there (a single record with the target `.`).
    pub records: Vec<ServiceRecord>,
    /// Within [`dns::TTL_MIN`] and [`dns::TTL_MAX`].
    pub ttl: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceRecord {
    /// Absolute, without its last dot.
    pub target: String,
    pub port: u16,
    pub priority: u16,
    pub weight: u16,
}

/// What a source may ask of the kernel.
pub trait Ask {
    /// Asks for a host's addresses.
    fn lookup(&mut self, query: Query, host: &str);
    /// Asks for a name's SRV records.
    fn lookup_services(&mut self, query: Query, name: &str);
    /// Sends a request (MessagePack) to one of the services that `services` named, by its place there.
    fn request(&mut self, query: Query, service: usize, body: &[u8]);
    /// Begins a stream there.
    fn stream(&mut self, query: Query, service: usize, body: &[u8]);
    /// The whole set, as it is known from here on.
    fn set_peers(&mut self, peers: Vec<Peer>);
    /// Nothing more is known than before, and why. What waits for peers is told when its time is over.
    fn unknown(&mut self, why: &str);
}

/// One endpoint's source of peers.
pub trait Source: Send {
    /// URLs of the services that it asks, opened before `News::Open` and closed with it.
    fn services(&self) -> Vec<String> {
        Vec::new()
    }
    fn handle(&mut self, now: Instant, news: News<'_>, ask: &mut dyn Ask);
    /// When to tell `News::Time`. Later than the last one.
    fn poll_timeout(&self) -> Option<Instant>;
    /// The program tells the set (`IOK_OP_PEERS`, MessagePack). An error says what was expected, and changes nothing.
    fn handle_told(&mut self, _now: Instant, _body: &[u8], _ask: &mut dyn Ask) -> Result<(), String> {
        Err("the peers of this endpoint are found, not told: open it as scheme+app://name to tell them".into())
    }
}
