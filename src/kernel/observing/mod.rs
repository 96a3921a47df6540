//! What the kernel shows of itself and of its program: one file a part. Each part has a configuration that it takes from
//! the kernel's options, a state in [`Observing`], and `impl Io` for its events and timers.
//!
//! # Architecture invariants
//! Nothing here is needed for requests to flow: a part that fails is silent, never a reason to end a conn or the kernel.
//! Shapes of text and of shared memory are in [`crate::observe`], which knows no kernel; sockets and timers are here.

pub mod access;
pub mod admin;
pub mod cells;
pub mod collector;
pub mod names;
pub mod native;
pub mod own;
pub mod page;
pub mod pulse;
pub mod push;
pub mod requests;
pub mod slow;
pub mod stack;
pub mod state;
pub mod task;
pub mod trace;

use mio::Registry;

use super::Failure;
use super::core::Target;
use super::io::Io;
use crate::config::{ConfigError, Options};
use crate::discovery::dns::LookupId;
use crate::sys::epoll::Event;

/// The parts that have sockets or timers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Admin,
    Own,
    Pulse,
    Push,
    Stack,
    Trace,
}

const PARTS: [Part; 6] = [Part::Admin, Part::Own, Part::Pulse, Part::Push, Part::Stack, Part::Trace];

/// Lookups of parts have this bit in their number; those of conns have not.
pub const PART_LOOKUP: u64 = 1 << 62;

/// What the kernel's configuration says of the parts.
#[derive(Clone, Debug, Default)]
pub struct ObservingConfig {
    /// The kernel's options as they may be shown.
    pub given: Vec<(String, String)>,
    pub admin: admin::AdminConfig,
    pub pulse: pulse::PulseConfig,
    pub push: push::PushConfig,
    pub stack: stack::StackConfig,
    pub trace: trace::TraceConfig,
}

impl ObservingConfig {
    pub fn take(options: &mut Options) -> Result<Self, ConfigError> {
        Ok(ObservingConfig {
            given: Vec::new(),
            admin: admin::AdminConfig::take(options)?,
            pulse: pulse::PulseConfig::take(options)?,
            push: push::PushConfig::take(options)?,
            stack: stack::StackConfig::take(options)?,
            trace: trace::TraceConfig::take(options)?,
        })
    }
}

/// The parts' states, but for those that hear of each request's end, which are in `Core`.
pub struct Observing {
    /// The kernel's name.
    pub name: String,
    pub config: ObservingConfig,
    pub admin: admin::Admin,
    pub pulse: pulse::Pulse,
    pub push: push::Push,
    pub stack: stack::Stack,
    pub collector: collector::Collector,
}

impl Observing {
    /// What can fail is done here, where whoever opens the kernel hears of it.
    pub fn prepare(own: &own::Own, config: ObservingConfig, registry: &Registry) -> Result<Self, Failure> {
        Ok(Observing {
            name: own.name().into(),
            admin: admin::Admin::bind(&config.admin, registry)?,
            push: push::Push::prepare(&config.push, own.area, own.name()),
            config,
            pulse: pulse::Pulse::default(),
            stack: stack::Stack::default(),
            collector: collector::Collector::default(),
        })
    }
}

impl Io {
    /// After the thread has begun: parts set their first timers.
    pub fn begin_observing(&mut self) {
        self.begin_pulse();
        self.begin_push();
        self.begin_trace();
    }

    /// An event for a part's socket; `key` is the part's own.
    pub fn part_event(&mut self, part: Part, key: u32, event: &Event) {
        match part {
            Part::Admin => self.admin_event(key, event),
            Part::Push => self.push_event(key, event),
            Part::Stack => self.stack_event(event),
            Part::Trace => self.trace_event(key, event),
            Part::Own | Part::Pulse => {}
        }
    }

    /// A part's timer (`Target::Part(part, key)`) has come.
    pub fn part_timer(&mut self, part: Part, key: u32) {
        match part {
            Part::Admin => self.admin_timer(key),
            Part::Own => self.own_timer(),
            Part::Pulse => self.pulse_timer(),
            Part::Push => self.push_timer(key),
            Part::Stack => self.stack_timer(),
            Part::Trace => self.trace_timer(key),
        }
    }

    /// Looks a host up for a part; `part_resolved` follows.
    pub fn part_lookup(&mut self, part: Part, key: u32, host: &str) {
        let now = self.core.now();
        let id = LookupId(PART_LOOKUP | (part as u64) << 32 | u64::from(key));
        self.resolver.lookup(now, id, host);
    }

    pub fn part_looked_up(&mut self, id: LookupId, outcome: Result<Vec<std::net::IpAddr>, String>) {
        let key = id.0 as u32;
        match PARTS.get((id.0 >> 32) as usize & 0xff) {
            Some(Part::Push) => self.push_resolved(key, outcome),
            Some(Part::Trace) => self.trace_resolved(key, outcome),
            _ => {}
        }
    }

    /// A timer for a part, `after_ms` from now.
    pub fn part_timer_after(&mut self, part: Part, key: u32, after_ms: u64) -> super::wheel::TimerKey {
        self.core.timer(after_ms, Target::Part(part, key))
    }
}

/// The token of a part's socket.
pub fn token(part: Part, key: u32) -> mio::Token {
    mio::Token((super::io::PART_TOKENS + part as usize) << 32 | key as usize)
}

/// The part and key of a token's number, if it is one of theirs.
pub fn part_of(token: usize) -> Option<(Part, u32)> {
    let kind = (token >> 32).checked_sub(super::io::PART_TOKENS)?;
    Some((*PARTS.get(kind)?, token as u32))
}
