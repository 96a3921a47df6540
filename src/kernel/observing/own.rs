//! What the kernel counts of itself, in the same area as the program's own counters.
//!
//! Each kernel of a process has a name of its own here, so that its thread is the only writer of its cells.

use std::sync::{Mutex, PoisonError};

use crate::kernel::core::Ending;
use crate::kernel::io::Io;
use crate::kernel::request::Request;
use crate::observe::area::Area;
use crate::observe::metrics::{Counter, Gauge, Latency};
use crate::observe::read::Whose;
use crate::observe::snapshot::{Merge, Snapshot};
use crate::status::{self, Status};
use crate::sys::fork;

/// The names of the kernels of this process that are open, with the process's epoch.
static NAMES: Mutex<Vec<(u32, String)>> = Mutex::new(Vec::new());

/// A kernel's name among those of its process: given back when it goes.
struct Name(String);

impl Name {
    fn take(wanted: &str) -> Name {
        // Forks wait for the end of this, so that no child finds the lock held.
        fork::exclusive(|| {
            let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
            names.retain(|(epoch, _)| *epoch == fork::epoch());
            let with = |at: usize| if at == 1 { wanted.to_string() } else { format!("{wanted}#{at}") };
            let free = (1..).map(with).find(|name| !names.iter().any(|(_, taken)| taken == name));
            let name = free.unwrap_or_default();
            names.push((fork::epoch(), name.clone()));
            Name(name)
        })
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        fork::exclusive(|| {
            let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
            names.retain(|(epoch, name)| (*epoch, name) != (fork::epoch(), &self.0));
        });
    }
}

/// What is counted of an endpoint.
struct Meter {
    label: String,
    /// Requests that ended, by their status.
    ended: Vec<(Status, Counter)>,
    total: Latency,
    queue: Latency,
    inflight: Gauge,
    queued: Gauge,
    conns: Gauge,
    up: Gauge,
    retries: Counter,
}

/// What is counted of a peer, by all its conns; of a listener, of all its clients.
#[derive(Clone, Copy)]
pub struct PeerMeter {
    pub wire: Latency,
    pub sent_bytes: Counter,
    pub received_bytes: Counter,
    pub connects: Counter,
    pub failures: Counter,
    pub heartbeats: Counter,
}

/// What is counted of an endpoint's TLS.
#[derive(Clone, Copy)]
pub struct TlsMeter {
    pub handshakes: Counter,
    pub resumed: Counter,
    pub failures: Counter,
    pub reloads: Counter,
    pub reload_failures: Counter,
}

/// What is counted of the kernel as a whole.
struct Whole {
    turns: Latency,
    wakes: Counter,
    lookups: Counter,
    lookup_failures: Counter,
    refused: Gauge,
    channels: Gauge,
    unread: Gauge,
    fill: Gauge,
    busy: Gauge,
    /// Spans that were sent, dropped and failed, and how many of each are in the cells.
    spans: [(Counter, u64); 3],
}

/// The cells of a kernel.
pub struct Own {
    pub area: Area,
    name: Name,
    whole: Whole,
    /// By the keys of their endpoints.
    meters: Vec<Option<Meter>>,
    /// When the thread began to work; 0: it sleeps.
    awake_ns: u64,
    /// Gauges are brought up to date soon.
    refresh_due: bool,
}

/// How long gauges may be out of date for those who read cells from outside.
const REFRESH_MS: u64 = 1000;

impl Own {
    pub fn new(area: Area, name: &str) -> Self {
        let name = Name::take(name);
        let labels = [("kernel", name.0.as_str())];
        let counter = |name, help| Counter::new(area, name, help, &labels);
        let gauge = |name, help, merge| Gauge::new(area, name, help, &labels, merge);
        let whole = Whole {
            turns: Latency::new(
                area,
                "iokernel_turn_seconds",
                "Time that the I/O thread worked between two waits: what anything else had to wait for it.",
                &labels,
            ),
            wakes: counter("iokernel_wakes", "Times that the I/O thread went to sleep and was woken."),
            lookups: counter("iokernel_lookups", "Names looked up, answers from files included."),
            lookup_failures: counter("iokernel_lookup_failures", "Names that could not be looked up."),
            refused: gauge("iokernel_series_refused", "Series that found no room to be counted in.", Merge::Max),
            channels: gauge("iokernel_channels", "Channels that are open.", Merge::Sum),
            unread: gauge("iokernel_unread", "Completions that wait beside full rings.", Merge::Sum),
            fill: gauge("iokernel_ring_fill_ratio", "Fullest ring of all channels, 0 to 1.", Merge::Max),
            busy: gauge(
                "iokernel_main_busy_seconds",
                "For how long the main thread has been busy without a break.",
                Merge::Max,
            ),
            spans: [
                (counter("iokernel_spans_sent", "Spans that a collector took."), 0),
                (counter("iokernel_spans_dropped", "Spans that found the queue full."), 0),
                (counter("iokernel_spans_failed", "Spans that no collector took."), 0),
            ],
        };
        Own { area, name, whole, meters: Vec::new(), awake_ns: 0, refresh_due: false }
    }

    /// The kernel's name among those of its process.
    pub fn name(&self) -> &str {
        &self.name.0
    }

    /// An endpoint is opened; `url` is free of secrets.
    pub fn open(&mut self, key: u32, url: &str) {
        let label = url.split('?').next().unwrap_or_default().to_string();
        let (area, kernel) = (self.area, self.name.0.as_str());
        let labels = [("endpoint", label.as_str()), ("kernel", kernel)];
        let latency = |name, help| Latency::new(area, name, help, &labels);
        let gauge = |name, help, merge| Gauge::new(area, name, help, &labels, merge);
        let meter = Meter {
            ended: Vec::new(),
            total: latency(
                "iokernel_request_seconds",
                "From the I/O thread taking a request up until its completion, whatever its status.",
            ),
            queue: latency("iokernel_queue_seconds", "From taking a request up until its last byte was written."),
            inflight: gauge(
                "iokernel_inflight",
                "Requests that were given to a conn and wait for a reply.",
                Merge::Sum,
            ),
            queued: gauge("iokernel_queued", "Requests that wait for a conn or a throttle.", Merge::Sum),
            conns: gauge("iokernel_conns", "Conns that are open.", Merge::Sum),
            up: gauge("iokernel_up", "1 while requests are served, else 0; the least of all processes.", Merge::Min),
            retries: Counter::new(area, "iokernel_retries", "Times that a request was sent once more.", &labels),
            label,
        };
        let at = key as usize;
        if self.meters.len() <= at {
            self.meters.resize_with(at + 1, || None);
        }
        self.meters[at] = Some(meter);
    }

    /// An endpoint is closed: it has nothing under way any more.
    pub fn close(&mut self, key: u32) {
        let Some(meter) = self.meters.get_mut(key as usize).and_then(Option::take) else { return };
        [meter.inflight, meter.queued, meter.conns, meter.up].iter().for_each(|gauge| gauge.set(0.0));
    }

    /// The cells of one peer of an endpoint.
    pub fn peer(&self, key: u32, peer: &str) -> PeerMeter {
        let endpoint = self.meters.get(key as usize).and_then(Option::as_ref).map_or("", |meter| meter.label.as_str());
        let labels = [("endpoint", endpoint), ("kernel", self.name.0.as_str()), ("peer", peer)];
        let counter = |name, help| Counter::new(self.area, name, help, &labels);
        PeerMeter {
            wire: Latency::new(
                self.area,
                "iokernel_wire_seconds",
                "From writing the last byte of a request until the first byte of its reply was read.",
                &labels,
            ),
            sent_bytes: counter("iokernel_sent_bytes", "Bytes given to the system."),
            received_bytes: counter("iokernel_received_bytes", "Bytes taken from the system."),
            connects: counter("iokernel_connects", "Conns that were made; of a listener, clients that were taken."),
            failures: counter("iokernel_failures", "Conns that were lost, or could not be made."),
            heartbeats: counter("iokernel_heartbeats", "Heartbeats that were sent."),
        }
    }

    /// The cells of an endpoint's TLS.
    pub fn tls(&self, key: u32) -> TlsMeter {
        let endpoint = self.meters.get(key as usize).and_then(Option::as_ref).map_or("", |meter| meter.label.as_str());
        let labels = [("endpoint", endpoint), ("kernel", self.name.0.as_str())];
        let counter = |name, help| Counter::new(self.area, name, help, &labels);
        TlsMeter {
            handshakes: counter("iokernel_tls_handshakes", "Handshakes of TLS that were done."),
            resumed: counter("iokernel_tls_resumed", "Those among them that resumed a session."),
            failures: counter("iokernel_tls_failures", "Handshakes of TLS that came to nothing."),
            reloads: counter("iokernel_tls_reloads", "Times that changed certificates or keys were taken into use."),
            reload_failures: counter("iokernel_tls_reload_failures", "Times that changed files were of no use."),
        }
    }

    /// A request of a service has ended.
    #[inline]
    pub fn ended(&mut self, request: &Request, ending: &Ending, now_ns: u64) {
        let key = Io::endpoint_key(request.endpoint) as usize;
        let Some(meter) = self.meters.get_mut(key).and_then(Option::as_mut) else { return };
        meter.total.observe(now_ns.saturating_sub(request.queued_ns));
        if request.sent_ns != 0 {
            meter.queue.observe(request.sent_ns.saturating_sub(request.queued_ns));
        }
        let repeats = u64::from(request.retries) + u64::from(request.rejections);
        if repeats > 0 {
            meter.retries.add(repeats);
        }
        match meter.ended.iter().find(|(status, _)| *status == ending.status) {
            Some((_, counter)) => counter.add(1),
            None => self.first_of(key, ending.status),
        }
    }

    #[cold]
    fn first_of(&mut self, key: usize, status: Status) {
        let Some(meter) = self.meters[key].as_mut() else { return };
        let name = status::row(status).map_or("unknown", |row| row.name.trim_start_matches("IOK_STATUS_"));
        let name = name.to_ascii_lowercase();
        let labels = [("endpoint", meter.label.as_str()), ("kernel", self.name.0.as_str()), ("status", name.as_str())];
        let help = "Requests that ended, by their status.";
        let counter = Counter::new(self.area, "iokernel_requests", help, &labels);
        counter.add(1);
        meter.ended.push((status, counter));
    }

    /// A name was looked up.
    pub fn looked_up(&self, well: bool) {
        self.whole.lookups.add(1);
        self.whole.lookup_failures.add(u64::from(!well));
    }

    /// The thread has something to do.
    #[inline]
    pub fn wakes(&mut self, now_ns: u64, slept: bool) {
        self.awake_ns = now_ns;
        self.whole.wakes.add(u64::from(slept));
    }

    /// The thread is about to wait.
    #[inline]
    pub fn rests(&mut self, now_ns: u64) {
        if self.awake_ns != 0 {
            self.whole.turns.observe(now_ns.saturating_sub(self.awake_ns));
            self.awake_ns = 0;
        }
    }
}

impl Io {
    /// Something has happened: gauges are brought up to date before long.
    pub(in crate::kernel) fn gauges_due(&mut self) {
        if !std::mem::replace(&mut self.core.own.refresh_due, true) {
            self.part_timer_after(super::Part::Own, 0, REFRESH_MS);
        }
    }

    pub(super) fn own_timer(&mut self) {
        self.core.own.refresh_due = false;
        self.refresh_gauges();
    }

    fn refresh_gauges(&mut self) {
        let keys: Vec<u32> = self.endpoints.iter().map(|(key, _)| key as u32).collect();
        let mut conns: Vec<usize> = vec![0; self.endpoints.capacity()];
        let mut inflight = conns.clone();
        for (_, conn) in self.conns.iter().filter(|(_, conn)| conn.ready) {
            conns[conn.endpoint as usize] += 1;
            inflight[conn.endpoint as usize] += conn.proto.inflight();
        }
        for key in keys {
            let queued = self.with_router(key, |router, _, act| router.state(act).queued).unwrap_or(0);
            let is_up = self.endpoints[key as usize].router.as_ref().is_none_or(|router| router.is_up());
            let Some(Some(meter)) = self.core.own.meters.get(key as usize) else { continue };
            meter.conns.set(conns[key as usize] as f64);
            meter.queued.set(queued as f64);
            meter.inflight.set(inflight[key as usize] as f64);
            meter.up.set(f64::from(u8::from(is_up)));
        }
        let (mut unread, mut fill) = (0, 0.0f64);
        for (_, channel) in &self.core.channels {
            unread += channel.backlog();
            fill = fill.max(channel.fill());
        }
        let busy_ns = self.main_busy_ns();
        let counts = &self.core.trace.counts;
        for ((counter, told), count) in
            self.core.own.whole.spans.iter_mut().zip([counts.sent, counts.dropped, counts.failed])
        {
            counter.add(count.saturating_sub(*told));
            *told = count;
        }
        let whole = &self.core.own.whole;
        whole.channels.set(self.core.channels.len() as f64);
        whole.unread.set(unread as f64);
        whole.fill.set(fill);
        whole.busy.set(busy_ns as f64 * 1e-9);
        whole.refused.set(self.core.own.area.refused() as f64);
    }

    /// Everything that is counted at this moment, of all processes of this area.
    pub fn snapshot(&mut self) -> Snapshot {
        self.snapshot_of(Whose::All)
    }

    /// The same, of this process alone.
    pub fn snapshot_own(&mut self) -> Snapshot {
        self.snapshot_of(Whose::Own)
    }

    fn snapshot_of(&mut self, whose: Whose) -> Snapshot {
        self.refresh_gauges();
        // Whoever cannot read its own memory has nothing to show.
        self.core.own.area.snapshot(whose).unwrap_or_default()
    }
}
