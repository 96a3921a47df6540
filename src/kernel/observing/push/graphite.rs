//! Graphite: lines over one TCP conn, dialled again when it is lost.

use std::io::{ErrorKind, Read, Write};
use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mio::event::Source;
use socket2::SockRef;

use super::places::{Places, take_address};
use super::{Counts, GRAPHITE_LINK, GRAPHITE_TICK, Schedule, take_interval, take_prefix};
use crate::config::{Address, ConfigError, Options};
use crate::kernel::core::Target;
use crate::kernel::dial::{DialOptions, DialState, Dialer, Stream};
use crate::kernel::io::Io;
use crate::kernel::observing::{Part, token};
use crate::kernel::wheel::TimerKey;
use crate::observe::area::Area;
use crate::observe::graphite::{Style, lines};
use crate::observe::read::Whose;
use crate::observe::snapshot::Snapshot;
use crate::router::backoff::Backoff;
use crate::sys::epoll::Event;

const DEFAULT_PORT: u16 = 2003;
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// What the system may hold of what was written: a receiver that comes to itself is not to read of long ago.
const SEND_BUFFER_BYTES: usize = 128 << 10;
/// A receiver that takes nothing for so long is dialled anew.
const STUCK_NS: u64 = 60_000_000_000;
/// Bytes written in one turn, and how soon there is another.
const WRITE_BUDGET: usize = 1 << 20;
const WRITE_PAUSE_MS: u64 = 1;
/// A receiver has nothing to say: one that says so much at once is none.
const READ_BUDGET: usize = 64 << 10;

#[derive(Clone, Debug)]
pub struct GraphiteConfig {
    address: Address,
    interval_ms: u64,
    style: Style,
}

impl GraphiteConfig {
    pub fn take(options: &mut Options) -> Result<Option<Self>, ConfigError> {
        let address = take_address(options, "graphite", DEFAULT_PORT)?;
        let interval_ms = take_interval(options, "graphite_interval")?;
        let tags = options.flag("graphite_tags", false)?;
        let prefix = take_prefix(options, "graphite_prefix")?;
        Ok(address.map(|address| GraphiteConfig { address, interval_ms, style: Style { prefix, tags } }))
    }
}

enum Link {
    /// Until the timer; without one, until there is something to tell.
    Down,
    Resolving,
    Dialling(Dialer),
    Up(Stream),
}

/// What a write has left.
enum Flushed {
    /// Nothing, or what waits for an event.
    Rests,
    /// The budget has ended before the text: no event tells of room that was there all the time.
    More,
    Lost,
}

pub struct Graphite {
    style: Style,
    schedule: Schedule,
    places: Places,
    link: Link,
    backoff: Backoff,
    timer: TimerKey,
    /// What was told last.
    before: Snapshot,
    outbox: Outbox,
    /// When the receiver last took something, or nothing was there to take.
    moved_ns: u64,
    pub counts: Counts,
}

/// The text under way, and the one after it.
#[derive(Default)]
struct Outbox {
    text: Vec<u8>,
    written: usize,
    waiting: Option<Vec<u8>>,
}

impl Outbox {
    /// One more interval's text. How many were given up for it.
    fn put(&mut self, text: Vec<u8>) -> u64 {
        if self.text.is_empty() {
            self.text = text;
            return 0;
        }
        if self.written == 0 {
            self.text = text;
            return 1;
        }
        u64::from(self.waiting.replace(text).is_some())
    }

    fn rest(&self) -> &[u8] {
        &self.text[self.written..]
    }

    /// So much was written. True if that was the end of a text.
    fn wrote(&mut self, count: usize) -> bool {
        self.written += count;
        let whole = self.written >= self.text.len();
        if whole {
            (self.text, self.written) = (self.waiting.take().unwrap_or_default(), 0);
        }
        whole
    }

    /// The conn is lost, and with it an unknown part of what was written: a text is told anew (the same value at the same
    /// second is the same), unless there is a later one. How many were given up.
    fn lost(&mut self) -> u64 {
        self.written = 0;
        match self.waiting.take() {
            Some(later) => {
                self.text = later;
                1
            }
            None => 0,
        }
    }
}

impl Graphite {
    pub fn new(config: &GraphiteConfig, area: Area, kernel: &str) -> Self {
        Graphite {
            style: config.style.clone(),
            schedule: Schedule::new(config.interval_ms),
            places: Places::new(config.address.clone()),
            link: Link::Down,
            backoff: Backoff::new(BACKOFF_MIN, BACKOFF_MAX),
            timer: TimerKey::NONE,
            before: area.snapshot(Whose::All).unwrap_or_default(),
            outbox: Outbox::default(),
            moved_ns: 0,
            counts: Counts::new(area, kernel, "graphite"),
        }
    }

    fn tell(&mut self, now: Snapshot, unix_s: u64) {
        let text = lines(&self.before, &now, &self.style, unix_s);
        self.before = now;
        if !text.is_empty() {
            self.counts.dropped.add(self.outbox.put(text.into_bytes()));
        }
    }

    /// Writes what the receiver takes.
    fn flush(&mut self, now_ns: u64) -> Flushed {
        let Link::Up(stream) = &mut self.link else { return Flushed::Rests };
        let mut budget = WRITE_BUDGET;
        while !self.outbox.rest().is_empty() && budget > 0 {
            let rest = self.outbox.rest();
            match stream.write(&rest[..rest.len().min(budget)]) {
                Ok(0) => return Flushed::Lost,
                Ok(count) => {
                    budget -= count;
                    self.moved_ns = now_ns;
                    self.counts.sent.add(u64::from(self.outbox.wrote(count)));
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let stuck = now_ns.saturating_sub(self.moved_ns) >= STUCK_NS;
                    return if stuck { Flushed::Lost } else { Flushed::Rests };
                }
                Err(_) => return Flushed::Lost,
            }
        }
        if !self.outbox.rest().is_empty() {
            return Flushed::More;
        }
        self.moved_ns = now_ns;
        Flushed::Rests
    }

    /// Reads what nobody needs, to hear of the end. False if the conn is lost.
    fn read(&mut self) -> bool {
        let Link::Up(stream) = &mut self.link else { return true };
        let mut scratch = [0; 4096];
        for _ in 0..READ_BUDGET / scratch.len() {
            match stream.read(&mut scratch) {
                Ok(0) => return false,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return error.kind() == ErrorKind::WouldBlock,
            }
        }
        false
    }
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl Io {
    fn graphite(&mut self) -> Option<&mut Graphite> {
        self.observing.push.graphite.as_mut()
    }

    pub(super) fn begin_graphite(&mut self) {
        let now_ms = self.core.now_ns / 1_000_000;
        let Some(graphite) = self.graphite() else { return };
        graphite.schedule.begin(now_ms);
        let due_ms = graphite.schedule.due_ms();
        self.push_timer_at(due_ms, GRAPHITE_TICK);
        if self.core.own.area.is_leader() {
            self.graphite_dial();
        }
    }

    pub(super) fn graphite_tick(&mut self) {
        let now_ms = self.core.now_ns / 1_000_000;
        let Some(graphite) = self.graphite() else { return };
        graphite.counts.missed.add(graphite.schedule.come(now_ms));
        let due_ms = graphite.schedule.due_ms();
        self.push_timer_at(due_ms, GRAPHITE_TICK);
        self.push_graphite();
    }

    pub(super) fn push_graphite(&mut self) {
        // One of the processes that count in the same area tells of all.
        if self.graphite().is_none() || !self.core.own.area.is_leader() {
            return;
        }
        let now = self.snapshot();
        let Some(graphite) = self.graphite() else { return };
        graphite.tell(now, unix_seconds());
        match graphite.link {
            Link::Down if graphite.timer == TimerKey::NONE => self.graphite_dial(),
            _ => self.graphite_flush(),
        }
    }

    /// Begins a conn: with a lookup, where the receiver has a name.
    fn graphite_dial(&mut self) {
        let Some(graphite) = self.graphite() else { return };
        match graphite.places.name().map(String::from) {
            Some(name) => {
                graphite.link = Link::Resolving;
                self.part_lookup(Part::Push, GRAPHITE_LINK, &name);
            }
            None => self.graphite_connect(),
        }
    }

    fn graphite_connect(&mut self) {
        let now = self.core.now();
        let Some(graphite) = self.graphite() else { return };
        graphite.link = Link::Dialling(Dialer::new(graphite.places.all().to_vec(), DialOptions::default(), now));
        self.graphite_advance();
    }

    fn graphite_advance(&mut self) {
        let (now, now_ns) = (self.core.now(), self.core.now_ns);
        let Some(graphite) = self.observing.push.graphite.as_mut() else { return };
        let Link::Dialling(dialer) = &mut graphite.link else { return };
        match dialer.advance(now, &self.registry, token(Part::Push, GRAPHITE_LINK)) {
            DialState::Pending => {
                let next = dialer.poll_timeout();
                self.core.wheel.clear(graphite.timer);
                let target = Target::Part(Part::Push, GRAPHITE_LINK);
                graphite.timer = next.map_or(TimerKey::NONE, |at| self.core.timer_at(at, target));
            }
            DialState::Failed(_) => self.graphite_lost(),
            DialState::Connected(stream) => {
                // Best effort: without it the system decides.
                let _ = SockRef::from(&stream).set_send_buffer_size(SEND_BUFFER_BYTES);
                graphite.link = Link::Up(stream);
                graphite.backoff.succeeded();
                graphite.moved_ns = now_ns;
                self.core.wheel.clear(std::mem::replace(&mut graphite.timer, TimerKey::NONE));
                self.graphite_flush();
                self.graphite_read();
            }
        }
    }

    fn graphite_flush(&mut self) {
        let now_ns = self.core.now_ns;
        let Some(graphite) = self.observing.push.graphite.as_mut() else { return };
        match graphite.flush(now_ns) {
            Flushed::Rests => {}
            Flushed::More => {
                self.core.wheel.clear(graphite.timer);
                graphite.timer = self.core.timer(WRITE_PAUSE_MS, Target::Part(Part::Push, GRAPHITE_LINK));
            }
            Flushed::Lost => self.graphite_lost(),
        }
    }

    fn graphite_read(&mut self) {
        if self.graphite().is_some_and(|graphite| !graphite.read()) {
            self.graphite_lost();
        }
    }

    /// The conn has ended, or none came about: another is dialled after a while.
    fn graphite_lost(&mut self) {
        let now = self.core.now();
        let Some(graphite) = self.observing.push.graphite.as_mut() else { return };
        match std::mem::replace(&mut graphite.link, Link::Down) {
            Link::Up(mut stream) => {
                let _ = stream.deregister(&self.registry);
            }
            Link::Dialling(mut dialer) => dialer.abandon(&self.registry),
            _ => {}
        }
        graphite.counts.errors.add(1);
        graphite.counts.dropped.add(graphite.outbox.lost());
        graphite.backoff.failed(now, &mut fastrand::Rng::new());
        self.core.wheel.clear(graphite.timer);
        let at = graphite.backoff.until().unwrap_or(now);
        graphite.timer = self.core.timer_at(at, Target::Part(Part::Push, GRAPHITE_LINK));
    }

    pub(super) fn graphite_event(&mut self, event: &Event) {
        match self.graphite().map(|graphite| &graphite.link) {
            Some(Link::Dialling(_)) => self.graphite_advance(),
            Some(Link::Up(_)) => {
                if event.is_writable() {
                    self.graphite_flush();
                }
                if event.is_readable() || event.is_read_closed() || event.is_error() {
                    self.graphite_read();
                }
            }
            _ => {}
        }
    }

    pub(super) fn graphite_timer(&mut self) {
        let Some(graphite) = self.graphite() else { return };
        graphite.timer = TimerKey::NONE;
        match graphite.link {
            Link::Down => self.graphite_dial(),
            Link::Dialling(_) => self.graphite_advance(),
            Link::Up(_) => self.graphite_flush(),
            Link::Resolving => {}
        }
    }

    pub(super) fn graphite_resolved(&mut self, outcome: Result<Vec<IpAddr>, String>) {
        let Some(graphite) = self.graphite().filter(|graphite| matches!(graphite.link, Link::Resolving)) else {
            return;
        };
        if let Ok(ips) = outcome {
            graphite.places.resolved(&ips);
        }
        // A name that is not found for a while keeps its last addresses.
        self.graphite_connect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_most_one_text_waits() {
        let mut outbox = Outbox::default();
        assert_eq!(outbox.put(b"first\n".to_vec()), 0);
        assert_eq!(outbox.put(b"second\n".to_vec()), 1);
        assert!(!outbox.wrote(3));
        assert_eq!(outbox.put(b"third\n".to_vec()), 0);
        assert_eq!(outbox.put(b"fourth\n".to_vec()), 1);
        assert_eq!(outbox.rest(), b"ond\n");
        assert!(outbox.wrote(4));
        assert_eq!(outbox.rest(), b"fourth\n");
        assert!(!outbox.wrote(1));
        assert_eq!((outbox.lost(), outbox.rest()), (0, &b"fourth\n"[..]));
        assert!(!outbox.wrote(1));
        assert_eq!(outbox.put(b"fifth\n".to_vec()), 0);
        assert_eq!((outbox.lost(), outbox.rest()), (1, &b"fifth\n"[..]));
        assert!(outbox.wrote(6));
        assert_eq!(outbox.rest(), b"");
    }
}
