//! The clock, the queue of events, and what one step is.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::time::{Duration, Instant};

use iokernel::discovery::Source;
use iokernel::kernel::endpoint::read_url;
use iokernel::kernel::options::EndpointOptions;
use iokernel::proto::Driver;
use iokernel::router::Router;
use iokernel::router::service::Service;

use crate::check::Checks;
use crate::cluster::Cluster;
use crate::io::Conn;
use crate::kernel::{Req, Unheard};
use crate::names::{Names, OwnedNews};
use crate::net::Link;
use crate::profile::{PROFILES, Profile};
use crate::program::Program;
use crate::server::Node;

pub const MS: u64 = 1_000_000;
pub const SECOND: u64 = 1000 * MS;

/// Something that happens at its time.
#[derive(Debug)]
pub enum Event {
    Program,
    Fault,
    /// A fault of that kind ends.
    Heal(Heal),
    Deadline(u64),
    ConnTimer {
        key: u32,
        serial: u64,
        at: u64,
    },
    RouterTimer(u64),
    SourceTimer(u64),
    /// A name of a conn's peer is known, or not.
    Resolved {
        key: u32,
        serial: u64,
    },
    /// One more address of a conn's peer is tried.
    Attempt {
        key: u32,
        serial: u64,
        index: usize,
    },
    Refused {
        key: u32,
        serial: u64,
        index: usize,
    },
    Connected {
        key: u32,
        serial: u64,
        index: usize,
    },
    Writable {
        key: u32,
        serial: u64,
    },
    Bytes {
        link: usize,
        up: bool,
        bytes: Vec<u8>,
    },
    End {
        link: usize,
        up: bool,
        reset: bool,
    },
    /// A command that waited in a server is answered.
    Unblock {
        link: usize,
        ticket: u64,
    },
    News(OwnedNews),
    Loaded {
        node: usize,
        run: u64,
    },
    /// A node hears how the cluster is.
    Gossip {
        node: usize,
    },
    SentinelHears {
        sentinel: usize,
    },
}

#[derive(Debug, Clone, Copy)]
pub enum Heal {
    Start(usize),
    Resume(usize),
    Join(usize),
    Promote(usize),
    Names,
    Sentinel(usize),
    FinishMove(usize),
    Slow(usize),
    Admit,
}

pub struct World {
    pub seed: u64,
    pub rng: fastrand::Rng,
    base: Instant,
    /// Nanoseconds since the world began.
    pub now_ns: u64,
    queue: BTreeMap<(u64, u64), Event>,
    queued: u64,
    pub step: u64,
    /// Of everything that happened.
    pub trace: u64,
    prints: bool,
    pub profile: &'static Profile,
    pub driver: Box<dyn Driver>,
    pub options: EndpointOptions,
    pub router: Option<Box<dyn Router>>,
    pub router_timer: Option<u64>,
    pub source: Option<Box<dyn Source>>,
    pub source_timer: Option<u64>,
    pub touched: bool,
    pub doubted: bool,
    pub requests: BTreeMap<u64, Req>,
    pub live_ids: BTreeSet<u64>,
    pub requests_made: u64,
    pub inflight: usize,
    pub conns: BTreeMap<u32, Conn>,
    pub free_keys: Vec<u32>,
    pub conn_serials: u64,
    pub unheard: Vec<Unheard>,
    pub to_flush: Vec<u32>,
    pub links: Vec<Link>,
    pub nodes: Vec<Node>,
    pub cluster: Cluster,
    pub names: Names,
    pub program: Program,
    pub checks: Checks,
    /// Faults are over.
    pub calm: bool,
    pub faults: u64,
}

impl World {
    pub fn new(seed: u64, profile: Option<usize>) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let profile = &PROFILES[profile.unwrap_or_else(|| rng.usize(..PROFILES.len())) % PROFILES.len()];
        let url = profile.url(&mut rng);
        let mut opened = read_url(url.as_bytes(), false, rng.u64(..)).unwrap_or_else(|error| panic!("{url}: {error}"));
        if profile.is_exclusive() {
            let service = &mut opened.options.service;
            (service.exclusive, service.pool, service.warm) = (true, rng.usize(1..9), 0);
            service.warm = rng.usize(..service.pool.min(3));
        }
        if profile.is_growing() {
            let service = &mut opened.options.service;
            (service.grows, service.pool) = (Some(Duration::from_millis(rng.u64(1..100))), rng.usize(1..6));
        }
        let service = Service::new(opened.options.service);
        let mut world = World {
            seed,
            rng,
            base: Instant::now() + Duration::from_secs(1000),
            now_ns: 0,
            queue: BTreeMap::new(),
            queued: 0,
            step: 0,
            trace: 0,
            prints: std::env::var_os("SIM_TRACE").is_some(),
            profile,
            driver: opened.driver,
            options: opened.options,
            router: Some(Box::new(service)),
            router_timer: None,
            source: opened.source,
            source_timer: None,
            touched: false,
            doubted: false,
            requests: BTreeMap::new(),
            live_ids: BTreeSet::new(),
            requests_made: 0,
            inflight: 0,
            conns: BTreeMap::new(),
            free_keys: Vec::new(),
            conn_serials: 0,
            unheard: Vec::new(),
            to_flush: Vec::new(),
            links: Vec::new(),
            nodes: Vec::new(),
            cluster: Cluster::default(),
            names: Names::default(),
            program: Program::default(),
            checks: Checks::default(),
            calm: false,
            faults: 0,
        };
        world.note(&url);
        world.build();
        world
    }

    /// Servers, names, and the endpoint.
    fn build(&mut self) {
        self.build_nodes();
        self.build_names();
        self.in_ms(0, Event::Program);
        let first = self.rng.u64(1..50);
        self.in_ms(first, Event::Fault);
        self.open_source();
        self.turn();
    }

    pub fn now(&self) -> Instant {
        self.base + Duration::from_nanos(self.now_ns)
    }

    pub fn ns(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.base).as_nanos() as u64
    }

    pub fn at(&mut self, at_ns: u64, event: Event) {
        self.queued += 1;
        self.queue.insert((at_ns.max(self.now_ns), self.queued), event);
    }

    pub fn in_ms(&mut self, ms: u64, event: Event) {
        self.at(self.now_ns + ms * MS, event);
    }

    /// A timer's moment: rounded up to its ticks.
    pub fn tick_of(&self, at: Instant) -> u64 {
        self.ns(at).div_ceil(MS) * MS
    }

    /// Adds to the trace of the run.
    pub fn note(&mut self, what: &str) {
        let mut hasher = std::hash::DefaultHasher::new();
        (self.trace, self.now_ns, what).hash(&mut hasher);
        self.trace = hasher.finish();
        if self.prints {
            eprintln!("{:>8} {:>12.6} {what}", self.step, self.now_ns as f64 / SECOND as f64);
        }
    }

    pub fn prints(&self) -> bool {
        self.prints
    }

    pub fn fail(&self, what: &str) -> ! {
        let at = self.now_ns as f64 / SECOND as f64;
        panic!("profile {} step {} at {at:.6} s: {what}", self.profile.name, self.step)
    }

    /// Lives through so many steps, then through a time without faults, at whose end everything must be well.
    pub fn run(&mut self, steps: u64) {
        while self.step < steps {
            self.one_step();
        }
        self.calm_down();
        self.settle();
    }

    /// Steps until a moment.
    pub fn run_until(&mut self, end_ns: u64) {
        while self.queue.first_key_value().is_some_and(|((at, _), _)| *at <= end_ns) {
            self.one_step();
        }
        self.now_ns = end_ns;
    }

    pub fn one_step(&mut self) {
        let Some(((at, _), event)) = self.queue.pop_first() else { self.fail("nothing is left to happen") };
        self.now_ns = at;
        self.step += 1;
        let what = format!("{event:?}");
        self.note(&what);
        self.happen(event);
        self.turn();
        self.check_step();
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Program => self.program_turn(),
            Event::Fault => self.fault_turn(),
            Event::Heal(heal) => self.heal(heal),
            Event::Deadline(id) => self.deadline(id),
            Event::ConnTimer { key, serial, at } => self.conn_timer(key, serial, at),
            Event::RouterTimer(at) => self.router_timer_came(at),
            Event::SourceTimer(at) => self.source_timer_came(at),
            Event::Resolved { key, serial } => self.conn_resolved(key, serial),
            Event::Attempt { key, serial, index } => self.attempt(key, serial, index),
            Event::Refused { key, serial, index } => self.attempt_refused(key, serial, index),
            Event::Connected { key, serial, index } => self.connected(key, serial, index),
            Event::Writable { key, serial } => self.writable(key, serial),
            Event::Bytes { link, up: true, bytes } => self.server_bytes(link, &bytes),
            Event::Bytes { link, up: false, bytes } => self.client_bytes(link, &bytes),
            Event::End { link, up: true, .. } => self.server_end(link),
            Event::End { link, up: false, reset } => self.client_end(link, reset),
            Event::Unblock { link, ticket } => self.unblock(link, ticket),
            Event::News(news) => self.tell_source(news),
            Event::Loaded { node, run } => self.loaded(node, run),
            Event::Gossip { node } => self.gossip(node),
            Event::SentinelHears { sentinel } => self.sentinel_hears(sentinel),
        }
    }

    pub fn figures(&self) -> Figures {
        Figures {
            steps: self.step,
            seeds: 1,
            requests: self.requests_made,
            replied: self.checks.replied,
            faults: self.faults,
            seconds: self.now_ns / SECOND,
            profiles: BTreeMap::from([(self.profile.name, 1)]),
        }
    }
}

#[derive(Default)]
pub struct Figures {
    steps: u64,
    seeds: u64,
    requests: u64,
    replied: u64,
    faults: u64,
    seconds: u64,
    profiles: BTreeMap<&'static str, u64>,
}

impl Figures {
    pub fn add(&mut self, other: &Figures) {
        self.steps += other.steps;
        self.seeds += other.seeds;
        self.requests += other.requests;
        self.replied += other.replied;
        self.faults += other.faults;
        self.seconds += other.seconds;
        for (name, count) in &other.profiles {
            *self.profiles.entry(name).or_default() += count;
        }
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Figures { steps, seeds, requests, replied, faults, seconds, .. } = self;
        write!(f, "{steps} steps, {seeds} seeds, {requests} requests ({replied} replied), {faults} faults, ")?;
        write!(f, "{seconds} s simulated, profiles:")?;
        self.profiles.iter().try_for_each(|(name, count)| write!(f, " {name}={count}"))
    }
}
