//! The conn to the collector of spans: one POST at a time over HTTP/1.1, kept alive between them, by the rules of
//! OTLP/HTTP (OpenTelemetry protocol 1.9, "OTLP/HTTP"). A collector that is slow, wrong or away costs spans and nothing
//! else.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::trace::{CollectorConfig, SEND};
use super::{Part, token};
use crate::kernel::core::Target;
use crate::kernel::dial::{DialOptions, DialState, Dialer, Stream};
use crate::kernel::io::Io;
use crate::kernel::wheel::TimerKey;
use crate::observe::otlp::{self, Attribute};
use crate::observe::post::{self, ANSWER_BYTES_MAX};
use crate::peer::Place;
use crate::sys::epoll::Event;

/// For one attempt, from the name's lookup to the last byte of the answer.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);
/// After so many attempts a batch is given up.
const ATTEMPTS_MAX: u32 = 8;
/// The longest pause between attempts of our own choice, and the longest that a collector can ask for.
const PAUSE_MAX: Duration = Duration::from_secs(30);
const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);
/// Addresses of the collector's name that are tried.
const PLACES_MAX: usize = 8;

/// The keys of timers beside [`SEND`].
const CONN: u32 = 1;
const AGAIN: u32 = 2;

#[derive(Default)]
enum Link {
    #[default]
    None,
    Resolving,
    Dialling(Dialer),
    Up(Stream),
}

/// The spans under way to the collector.
struct Batch {
    body: Vec<u8>,
    spans: u64,
    attempts: u32,
}

#[derive(Default)]
pub struct Collector {
    link: Link,
    batch: Option<Batch>,
    /// A pause before the next attempt.
    pausing: bool,
    /// The request is on its way, or its answer.
    asking: bool,
    /// The conn has carried a request before this one.
    used: bool,
    out: Vec<u8>,
    written: usize,
    input: Vec<u8>,
    deadline: Option<Instant>,
    timer: TimerKey,
    /// Attempts that failed since the last success.
    failures: u32,
    lookups: u32,
    last_error: String,
}

impl Io {
    fn collector_config(&self) -> Option<&CollectorConfig> {
        self.observing.config.trace.collector.as_ref()
    }

    pub fn begin_trace(&mut self) {
        if let Some(config) = &self.observing.config.trace.collector {
            self.core.trace.begin(config);
        }
    }

    /// How the export of spans is, for `/state`.
    pub fn trace_json(&self) -> Value {
        let Some(config) = self.collector_config() else { return Value::Null };
        let (counts, collector) = (self.core.trace.counts, &self.observing.collector);
        let under_way = collector.batch.as_ref().map_or(0, |batch| batch.spans);
        json!({
            "url": format!("http://{}{}", config.authority, config.path),
            "sent": counts.sent,
            "dropped": counts.dropped,
            "failed": counts.failed,
            "queued": self.core.trace.len() as u64 + under_way,
            "last_error": collector.last_error,
        })
    }

    /// Nothing waits for the collector, or waiting for it is in vain.
    pub fn spans_are_sent(&self) -> bool {
        let collector = &self.observing.collector;
        collector.failures > 0 || collector.batch.is_none() && self.core.trace.is_empty()
    }

    pub fn trace_timer(&mut self, key: u32) {
        match key {
            SEND => {
                self.core.trace.disarm();
                self.send_spans();
            }
            AGAIN => {
                self.observing.collector.pausing = false;
                self.attempt();
            }
            _ => self.collector_timer(),
        }
    }

    /// Begins with what waits, unless something is under way.
    pub fn send_spans(&mut self) {
        let Some(config) = self.collector_config() else { return };
        if self.observing.collector.batch.is_some() || self.core.trace.is_empty() {
            return;
        }
        let resource = [
            ("service.name", Attribute::Text(config.service.as_deref().unwrap_or(&self.observing.name))),
            ("process.pid", Attribute::Int(u64::from(std::process::id()))),
            ("telemetry.sdk.name", Attribute::Text("iokernel")),
            ("telemetry.sdk.language", Attribute::Text("rust")),
            ("telemetry.sdk.version", Attribute::Text(env!("CARGO_PKG_VERSION"))),
        ];
        let mut body = otlp::head(&resource, env!("CARGO_PKG_VERSION"));
        let spans = self.core.trace.batch(&mut body) as u64;
        body.extend_from_slice(otlp::TAIL);
        self.observing.collector.batch = Some(Batch { body, spans, attempts: 0 });
        if !self.observing.collector.pausing {
            self.attempt();
        }
    }

    fn attempt(&mut self) {
        let now = self.core.now();
        let Some(batch) = &mut self.observing.collector.batch else { return };
        batch.attempts += 1;
        self.observing.collector.deadline = Some(now + ATTEMPT_TIMEOUT);
        match self.observing.collector.link {
            Link::Up(_) => self.ask(true),
            _ => self.dial_collector(),
        }
    }

    fn dial_collector(&mut self) {
        let Some(config) = self.collector_config() else { return };
        let (host, port) = (config.host.clone(), config.port);
        let collector = &mut self.observing.collector;
        match host.parse::<IpAddr>() {
            Ok(ip) => self.dial_places(vec![Place::Tcp((ip, port).into())]),
            Err(_) => {
                collector.link = Link::Resolving;
                collector.lookups = collector.lookups.wrapping_add(1);
                let key = collector.lookups;
                self.part_lookup(Part::Trace, key, &host);
                self.arm_collector();
            }
        }
    }

    pub fn trace_resolved(&mut self, key: u32, outcome: Result<Vec<IpAddr>, String>) {
        let collector = &self.observing.collector;
        let Some(port) = self.collector_config().map(|config| config.port) else { return };
        if collector.lookups != key || !matches!(collector.link, Link::Resolving) {
            return;
        }
        match outcome {
            Ok(ips) => {
                let places = ips.into_iter().take(PLACES_MAX).map(|ip| Place::Tcp((ip, port).into()));
                self.dial_places(places.collect());
            }
            Err(message) => self.attempt_failed(message),
        }
    }

    fn dial_places(&mut self, places: Vec<Place>) {
        let options = DialOptions { timeout: ATTEMPT_TIMEOUT / 2, ..DialOptions::default() };
        self.observing.collector.link = Link::Dialling(Dialer::new(places, options, self.core.now()));
        self.advance_collector();
    }

    fn advance_collector(&mut self) {
        let now = self.core.now();
        let Link::Dialling(dialer) = &mut self.observing.collector.link else { return };
        match dialer.advance(now, &self.registry, token(Part::Trace, 0)) {
            DialState::Pending => self.arm_collector(),
            DialState::Failed(error) => self.attempt_failed(error.message),
            DialState::Connected(stream) => {
                self.observing.collector.link = Link::Up(stream);
                self.ask(false);
            }
        }
    }

    /// Writes the request.
    fn ask(&mut self, used: bool) {
        let Some(config) = &self.observing.config.trace.collector else { return };
        let collector = &mut self.observing.collector;
        let Some(batch) = &collector.batch else { return };
        collector.out = post::head(&config.authority, &config.path, &config.headers.0, batch.body.len());
        collector.out.extend_from_slice(&batch.body);
        (collector.written, collector.asking, collector.used) = (0, true, used);
        collector.input.clear();
        self.arm_collector();
        self.write_collector();
    }

    /// A write that fails is passed over: why the conn is gone is read from it, and perhaps an answer before that.
    fn write_collector(&mut self) {
        let collector = &mut self.observing.collector;
        let Link::Up(stream) = &mut collector.link else { return };
        while collector.written < collector.out.len() {
            match stream.write(&collector.out[collector.written..]) {
                Ok(count) => collector.written += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => return self.read_collector(),
            }
        }
    }

    pub fn trace_event(&mut self, _key: u32, event: &Event) {
        if matches!(self.observing.collector.link, Link::Dialling(_)) {
            return self.advance_collector();
        }
        if event.is_writable() {
            self.write_collector();
        }
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            self.read_collector();
        }
    }

    fn read_collector(&mut self) {
        let collector = &mut self.observing.collector;
        let Link::Up(stream) = &mut collector.link else { return };
        let mut chunk = [0; 4096];
        let mut ended = None;
        while collector.input.len() < ANSWER_BYTES_MAX {
            match stream.read(&mut chunk) {
                Ok(0) => ended = Some("the collector closed the connection".to_string()),
                Ok(count) => {
                    collector.input.extend_from_slice(&chunk[..count]);
                    continue;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => ended = Some(error.to_string()),
            }
            break;
        }
        match ended {
            // Something came that nobody asked for, or the collector ends a conn that was idle.
            _ if !collector.asking => {
                if ended.is_some() || !collector.input.is_empty() {
                    self.hang_up();
                }
            }
            // A conn that was idle for long may end just when it is used: that is no failure of the collector.
            Some(_) if collector.used && collector.input.is_empty() => {
                self.hang_up();
                self.dial_collector();
            }
            Some(why) if collector.input.is_empty() => self.attempt_failed(why),
            ended => self.answered(ended.is_some()),
        }
    }

    /// Some of the answer, or all of it, is there.
    fn answered(&mut self, ended: bool) {
        let answer = match post::answer(&self.observing.collector.input, ended) {
            Ok(None) => return,
            Ok(Some(answer)) => answer,
            Err(why) => return self.attempt_failed(why),
        };
        let collector = &mut self.observing.collector;
        if !answer.keep_alive || collector.written < collector.out.len() {
            self.hang_up();
        }
        let status = answer.status;
        match status {
            200..=299 => self.batch_done(true, otlp::rejected(&answer.body), String::new()),
            429 | 502 | 503 | 504 => {
                let wait = answer.retry_after.map(|wait| wait.min(RETRY_AFTER_MAX));
                self.put_off(format!("the collector answered {status}"), wait);
            }
            _ => self.batch_done(false, 0, format!("the collector answered {status}: its spans were dropped")),
        }
    }

    /// The collector has judged the spans under way.
    fn batch_done(&mut self, taken: bool, rejected: u64, error: String) {
        let collector = &mut self.observing.collector;
        let spans = collector.batch.take().map_or(0, |batch| batch.spans);
        let failed = if taken { rejected.min(spans) } else { spans };
        self.core.trace.counts.failed += failed;
        self.core.trace.counts.sent += spans - failed;
        collector.failures = 0;
        if !error.is_empty() {
            collector.last_error = error;
        }
        self.settle();
    }

    /// The collector could not be reached, or did not answer as one.
    fn attempt_failed(&mut self, why: String) {
        self.hang_up();
        self.put_off(why, None);
    }

    /// The same spans again after a pause.
    fn put_off(&mut self, why: String, wait: Option<Duration>) {
        let collector = &mut self.observing.collector;
        collector.last_error = why;
        collector.failures += 1;
        collector.pausing = true;
        if collector.batch.as_ref().is_some_and(|batch| batch.attempts >= ATTEMPTS_MAX) {
            self.core.trace.counts.failed += collector.batch.take().map_or(0, |batch| batch.spans);
        }
        let pause = self.pause().max(wait.unwrap_or_default());
        self.settle();
        self.part_timer_after(Part::Trace, AGAIN, pause.as_millis() as u64);
    }

    /// Doubles with each failure, and is drawn from the upper half of its span.
    fn pause(&self) -> Duration {
        let base = self.collector_config().map_or(Duration::ZERO, |config| config.interval);
        let base = base.clamp(Duration::from_millis(100), Duration::from_secs(5));
        let failures = self.observing.collector.failures.clamp(1, 16) - 1;
        let span = (base * 2u32.pow(failures)).min(PAUSE_MAX);
        span.mul_f64(0.5 + fastrand::f64() / 2.0)
    }

    /// Nothing is asked for the moment.
    fn settle(&mut self) {
        let collector = &mut self.observing.collector;
        (collector.asking, collector.deadline) = (false, None);
        (collector.out, collector.input) = (Vec::new(), Vec::new());
        self.core.wheel.clear(std::mem::replace(&mut collector.timer, TimerKey::NONE));
        self.core.rearm_spans();
    }

    fn hang_up(&mut self) {
        match std::mem::take(&mut self.observing.collector.link) {
            Link::Up(mut stream) => {
                let _ = self.registry.deregister(&mut stream);
                let _ = stream.shutdown(Shutdown::Both);
            }
            Link::Dialling(mut dialer) => dialer.abandon(&self.registry),
            Link::Resolving | Link::None => {}
        }
    }

    fn arm_collector(&mut self) {
        let collector = &mut self.observing.collector;
        let dialling = match &collector.link {
            Link::Dialling(dialer) => dialer.poll_timeout(),
            _ => None,
        };
        let Some(next) = [dialling, collector.deadline].into_iter().flatten().min() else { return };
        self.core.wheel.clear(std::mem::replace(&mut collector.timer, TimerKey::NONE));
        collector.timer = self.core.timer_at(next, Target::Part(Part::Trace, CONN));
    }

    fn collector_timer(&mut self) {
        let collector = &mut self.observing.collector;
        collector.timer = TimerKey::NONE;
        if collector.deadline.is_some_and(|by| by <= self.core.now()) {
            let what = match &collector.link {
                Link::Up(_) => "no answer from",
                _ => "no connection to",
            };
            return self.attempt_failed(format!("{what} the collector within {ATTEMPT_TIMEOUT:?}"));
        }
        self.advance_collector();
    }
}
