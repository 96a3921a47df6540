//! Metrics that are pushed at exact intervals: statsd over UDP, Graphite over TCP; and `/metrics`.
//!
//! # Architecture invariants
//! Ticks come at a start plus whole intervals: one that comes late moves none after it, and one that could not come is
//! left out and counted. Nothing blocks, and what waits for a slow receiver is bounded by what one interval tells.

mod graphite;
mod places;
mod statsd;

use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::Part;
use super::admin::{Answer, Ask, Outcome};
use crate::config::{ConfigError, Options};
use crate::kernel::core::Target;
use crate::kernel::io::Io;
use crate::observe::area::Area;
use crate::observe::metrics::Counter;
use crate::observe::text::{Format, render};
use crate::sys::epoll::Event;
use graphite::{Graphite, GraphiteConfig};
use statsd::{Statsd, StatsdConfig};

const INTERVAL_MS: std::ops::RangeInclusive<u64> = 10..=3_600_000;
const DEFAULT_INTERVAL: std::time::Duration = std::time::Duration::from_secs(10);

/// Keys of the part's timers, lookups and sockets.
const STATSD_TICK: u32 = 0;
const STATSD_LOOKUP: u32 = 1;
const STATSD_MORE: u32 = 2;
const GRAPHITE_TICK: u32 = 3;
const GRAPHITE_LINK: u32 = 4;

/// `statsd=`, `graphite=`, and what belongs to them.
#[derive(Clone, Debug, Default)]
pub struct PushConfig {
    statsd: Option<StatsdConfig>,
    graphite: Option<GraphiteConfig>,
}

impl PushConfig {
    pub fn take(options: &mut Options) -> Result<Self, ConfigError> {
        Ok(PushConfig { statsd: StatsdConfig::take(options)?, graphite: GraphiteConfig::take(options)? })
    }

    pub fn is_wanted(&self) -> bool {
        self.statsd.is_some() || self.graphite.is_some()
    }
}

/// An interval of whole milliseconds.
fn take_interval(options: &mut Options, key: &'static str) -> Result<u64, ConfigError> {
    let interval = options.duration(key, DEFAULT_INTERVAL)?;
    let ms = interval.as_millis() as u64;
    match INTERVAL_MS.contains(&ms) {
        true => Ok(ms),
        false => Err(ConfigError::new(key, &format!("{interval:?}"), "a time from 10ms to 1h")),
    }
}

/// What stands before each name: letters, digits, `_`, `-`, and dots between them.
fn take_prefix(options: &mut Options, key: &'static str) -> Result<String, ConfigError> {
    let given = options.text(key).unwrap_or_default();
    let prefix = given.trim_end_matches('.');
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    if prefix.len() > 128 || !prefix.bytes().all(valid) {
        return Err(ConfigError::new(key, &given, "at most 128 letters, digits, dots, dashes and underscores"));
    }
    Ok(prefix.into())
}

/// Moments at whole intervals after a start, in milliseconds of the wheel.
#[derive(Clone, Copy, Debug)]
struct Schedule {
    start_ms: u64,
    interval_ms: u64,
    /// Which tick comes next.
    number: u64,
}

impl Schedule {
    fn new(interval_ms: u64) -> Self {
        Schedule { start_ms: 0, interval_ms, number: 1 }
    }

    fn begin(&mut self, now_ms: u64) {
        self.start_ms = now_ms;
    }

    fn due_ms(&self) -> u64 {
        self.start_ms + self.number * self.interval_ms
    }

    /// The tick that was due has come. How many others, due since, are left out.
    fn come(&mut self, now_ms: u64) -> u64 {
        let latest = (now_ms.saturating_sub(self.start_ms) / self.interval_ms).max(self.number);
        let missed = latest - self.number;
        self.number = latest + 1;
        missed
    }
}

/// How an exporter fares, as cells that every reader of the area sees.
#[derive(Clone, Copy, Debug)]
struct Counts {
    /// Datagrams, or an interval's lines over TCP.
    sent: Counter,
    /// Datagrams, or intervals, that were given up.
    dropped: Counter,
    /// Lookups, connects and writes that failed.
    errors: Counter,
    /// Intervals that passed without their tick.
    missed: Counter,
}

impl Counts {
    fn new(area: Area, kernel: &str, exporter: &str) -> Self {
        let labels = [("exporter", exporter), ("kernel", kernel)];
        let counter = |name, help| Counter::new(area, name, help, &labels);
        Counts {
            sent: counter("iokernel_push_sent", "Datagrams, or texts of an interval, that were sent."),
            dropped: counter("iokernel_push_dropped", "Datagrams, or texts of an interval, that were given up."),
            errors: counter("iokernel_push_errors", "Lookups, connects and writes of an exporter that failed."),
            missed: counter("iokernel_push_missed", "Intervals that passed without their push."),
        }
    }
}

#[derive(Default)]
pub struct Push {
    statsd: Option<Statsd>,
    graphite: Option<Graphite>,
}

impl Push {
    /// What is counted from here on is told; what a process before this one left in its cells is not.
    pub fn prepare(config: &PushConfig, area: Area, kernel: &str) -> Self {
        Push {
            statsd: config.statsd.as_ref().map(|config| Statsd::new(config, area, kernel)),
            graphite: config.graphite.as_ref().map(|config| Graphite::new(config, area, kernel)),
        }
    }
}

impl Io {
    pub fn begin_push(&mut self) {
        self.begin_statsd();
        self.begin_graphite();
    }

    /// The kernel closes: what was counted since the last tick is told, as far as that needs no wait.
    pub fn end_push(&mut self) {
        self.contain_push(|io| {
            io.push_statsd();
            if let Some(statsd) = &mut io.observing.push.statsd {
                statsd.send_last();
            }
            io.push_graphite();
        });
        self.core.own.area.resign();
    }

    pub fn push_event(&mut self, key: u32, event: &Event) {
        if key == GRAPHITE_LINK {
            self.contain_push(|io| io.graphite_event(event));
        }
    }

    pub fn push_timer(&mut self, key: u32) {
        self.contain_push(|io| match key {
            STATSD_TICK => io.statsd_tick(),
            STATSD_LOOKUP => io.statsd_lookup(),
            STATSD_MORE => io.statsd_more(),
            GRAPHITE_TICK => io.graphite_tick(),
            GRAPHITE_LINK => io.graphite_timer(),
            _ => {}
        });
    }

    pub fn push_resolved(&mut self, key: u32, outcome: Result<Vec<IpAddr>, String>) {
        self.contain_push(|io| match key {
            STATSD_LOOKUP => io.statsd_resolved(outcome),
            GRAPHITE_LINK => io.graphite_resolved(outcome),
            _ => {}
        });
    }

    /// A panic of an exporter ends the exporters and nothing else.
    fn contain_push(&mut self, body: impl FnOnce(&mut Io)) {
        if catch_unwind(AssertUnwindSafe(|| body(self))).is_err() {
            self.observing.push = Push::default();
        }
    }

    pub fn answer_metrics(&mut self, ask: &mut Ask) -> Result<Outcome, ConfigError> {
        ask.query.finish()?;
        let format = Format::accepted(&ask.accept);
        let body = render(&self.snapshot(), format).into_bytes();
        Ok(Outcome::Now(Answer { status: 200, content_type: format.content_type(), body }))
    }

    fn push_timer_at(&mut self, due_ms: u64, key: u32) {
        self.core.wheel.set(due_ms, Target::Part(Part::Push, key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_tick_moves_none_after_it() {
        let mut schedule = Schedule::new(100);
        schedule.begin(1003);
        assert_eq!(schedule.due_ms(), 1103);
        assert_eq!((schedule.come(1103), schedule.due_ms()), (0, 1203));
        assert_eq!((schedule.come(1299), schedule.due_ms()), (0, 1303));
        assert_eq!((schedule.come(1650), schedule.due_ms()), (3, 1703));
        assert_eq!((schedule.come(1702), schedule.due_ms()), (0, 1803));
    }

    fn config(text: &str) -> Result<PushConfig, ConfigError> {
        let mut options = Options::parse(text)?;
        let config = PushConfig::take(&mut options)?;
        options.finish().map(|()| config)
    }

    #[test]
    fn options_are_checked() {
        assert!(!config("").unwrap().is_wanted() && !config("statsd=&graphite=").unwrap().is_wanted());
        assert!(config("statsd=h&statsd_interval=10ms&statsd_tags=influx&statsd_packet=512").unwrap().statsd.is_some());
        assert!(config("graphite=[::1]:2003&graphite_tags=true&graphite_prefix=a.b-c_d.").unwrap().graphite.is_some());
        for bad in [
            "statsd=h:x",
            "statsd=h&statsd_interval=9ms",
            "statsd=h&statsd_interval=2h",
            "statsd=h&statsd_tags=x",
            "statsd=h&statsd_packet=65508",
            "statsd=h&statsd_prefix=a:b",
            "graphite=unix:",
            "graphite=h&graphite_tags=1",
            "graphite=h&graphite_prefix=a%20b",
        ] {
            let error = config(bad).unwrap_err().to_string();
            let key = bad.rsplit('&').next().unwrap().split('=').next().unwrap();
            assert!(error.starts_with(&format!("{key}: ")), "{bad}: {error}");
        }
    }
}
