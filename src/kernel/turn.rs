//! The loop: take submissions, write, wait, read, fire timers, publish.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::{Events, Token};

use super::channel::{Channel, ChannelConfig};
use super::conn::{Conn, Link};
use super::core::Target;
use super::dial::Stream;
use super::io::{BELL_TOKEN, CONN_TOKENS, DNS_TOKENS, Io, LISTENER_TOKENS, PART_TOKENS};
use super::listener::{ACCEPT_BUDGET, NO_FILES_PAUSE};
use super::observing;
use super::shared::{Control, Shared};
use crate::proto::Transport;
use crate::ring::region::Region;
use crate::ring::spin::{SPIN_MAX, Spin};
use crate::ring::wake;
use crate::status::*;
use crate::sys::owned::Owned;

/// Events taken from the system at once.
const EVENTS_MAX: usize = 1024;
/// How long the thread looks for submissions before it sleeps.
const LOOK: Duration = Duration::from_micros(10);
/// How many channels one kernel serves.
pub const CHANNELS_MAX: usize = 4096;

/// The I/O thread's body: runs until the kernel is closed.
pub fn run(mut io: Owned<Io>, shared: Arc<Shared>) {
    let mut turn = Turn {
        events: Events::with_capacity(EVENTS_MAX),
        looks: crate::sys::thread::processors() > 1,
        spin: Spin::new(),
        due: Vec::new(),
        close_by: None,
    };
    io.begin_observing();
    loop {
        match catch_unwind(AssertUnwindSafe(|| turn.once(&mut io, &shared))) {
            Ok(true) => {}
            Ok(false) => break,
            // A panic that nothing nearer contained: what the thread holds may be half-changed. Everyone is told.
            Err(_) => {
                shut(&mut io, IOK_STATUS_PANIC);
                break;
            }
        }
    }
    // Every descriptor is closed before anyone hears that the thread has ended.
    drop((turn, io));
    shared.finish();
}

struct Turn {
    events: Events,
    /// There is more than one processor, so that the program can go on while this thread looks.
    looks: bool,
    /// Whether looking at the sockets pays.
    spin: Spin,
    due: Vec<Target>,
    /// When a kernel that is closing stops waiting for requests.
    close_by: Option<Instant>,
}

impl Turn {
    /// One turn. False when the kernel is closed.
    fn once(&mut self, io: &mut Io, shared: &Shared) -> bool {
        io.core.tick();
        self.control(io, shared);
        let busy = drain_channels(io);
        io.send_held();
        io.flush_all();
        io.core.publish();
        if self.is_over(io) {
            io.end_push();
            shut(io, IOK_STATUS_CLOSED);
            return false;
        }
        io.hear_own_news();
        io.rearm_endpoints();
        let busy = busy || !io.core.own_news.is_empty() || !io.to_read.is_empty() || !io.to_flush.is_empty();
        let busy = busy || !io.handshakes.is_empty();
        io.core.tick();
        io.core.own.rests(io.core.now_ns);
        let slept = self.wait(io, shared, busy);
        io.core.tick();
        io.core.own.wakes(io.core.now_ns, slept);
        if busy || !self.events.is_empty() {
            io.gauges_due();
        }
        self.handle_events(io);
        self.resolve(io);
        self.read_again(io);
        self.timers(io);
        io.hear_own_news();
        io.rearm_endpoints();
        io.send_held();
        io.flush_all();
        io.see_off();
        io.flush_access_logs();
        io.core.publish();
        // What they bring is for the next turn: whoever has something to read has it by now.
        io.shake_hands();
        true
    }

    /// Sleeps until there is something to do. False if it only looked.
    fn wait(&mut self, io: &mut Io, shared: &Shared, busy: bool) -> bool {
        let timeout = if busy { Some(Duration::ZERO) } else { self.timeout(io) };
        if timeout == Some(Duration::ZERO) {
            io.wait(&mut self.events, timeout);
            return false;
        }
        let replies_due = !io.core.requests.is_empty();
        let looks = if replies_due { self.spin.begin() } else { self.looks };
        shared.bell.announce(if looks { wake::LOOKING } else { wake::ON_FD });
        let found = shared.has_control() || io.core.channels.iter().any(|(_, channel)| channel.has_work());
        if found {
            io.wait(&mut self.events, Some(Duration::ZERO));
        } else if replies_due {
            self.wait_for_replies(io, shared, looks, timeout);
        } else {
            let rang = looks && shared.bell.look(LOOK);
            io.wait(&mut self.events, if rang { Some(Duration::ZERO) } else { timeout });
        }
        shared.bell.withdraw();
        !found
    }

    /// While replies are due, the sockets are what to look at, and only the system can do that.
    fn wait_for_replies(&mut self, io: &mut Io, shared: &Shared, looks: bool, timeout: Option<Duration>) {
        let start = Instant::now();
        let limit = timeout.map_or(SPIN_MAX, |timeout| timeout.min(SPIN_MAX));
        let mut met = false;
        while looks && !met && start.elapsed() < limit {
            io.wait(&mut self.events, Some(Duration::ZERO));
            met = !self.events.is_empty() || shared.bell.has_rung();
        }
        if !met {
            let rang = looks && shared.bell.look(Duration::ZERO);
            io.wait(&mut self.events, if rang { Some(Duration::ZERO) } else { timeout });
        }
        self.spin.end(looks, start.elapsed());
    }

    fn timeout(&self, io: &Io) -> Option<Duration> {
        let wheel = io.core.wheel.next_ms().map(|ms| {
            let now_ns = crate::sys::clock::monotonic_ns();
            Duration::from_nanos((ms * 1_000_000).saturating_sub(now_ns))
        });
        let now = io.core.now();
        let others = [io.resolver.poll_timeout(), self.close_by];
        let others = others.into_iter().flatten().map(|at| at.saturating_duration_since(now));
        wheel.into_iter().chain(others).min()
    }

    fn control(&mut self, io: &mut Io, shared: &Shared) {
        if !shared.has_control() {
            return;
        }
        for control in shared.take() {
            match control {
                Control::OpenChannel { region, config, key } => open_channel(io, region, config, key),
                Control::CloseChannel { key } => {
                    if let Some(at) = channel_key(io, key) {
                        // What was submitted before the close is taken and written before it.
                        while io.drain_channel(at) {
                            io.flush_all();
                        }
                        io.flush_all();
                        io.end_channel(at, IOK_STATUS_CLOSED);
                        io.core.channels.remove(at as usize);
                    }
                }
                Control::Close { drain } => {
                    self.close_by = Some(io.core.now() + drain);
                    io.send_spans();
                }
            }
        }
    }

    fn is_over(&self, io: &Io) -> bool {
        self.close_by.is_some_and(|by| io.core.now() >= by || io.is_quiet() && io.spans_are_sent())
    }

    fn handle_events(&mut self, io: &mut Io) {
        for event in &self.events {
            match event.token() {
                BELL_TOKEN => {}
                Token(token) if token >> 32 >= PART_TOKENS => {
                    if let Some((part, key)) = observing::part_of(token) {
                        io.part_event(part, key, event);
                    }
                }
                Token(token) if token >= DNS_TOKENS => {
                    io.resolver.handle_event(event.token(), event.is_readable(), event.is_writable());
                }
                Token(token) if token >= LISTENER_TOKENS => accept(io, (token - LISTENER_TOKENS) as u32),
                Token(token) => {
                    let key = (token - CONN_TOKENS) as u32;
                    io.contain(key, |io| io.conn_event(key, event));
                }
            }
        }
        self.events.clear();
    }

    fn resolve(&mut self, io: &mut Io) {
        let now = io.core.now();
        let mut done = Vec::new();
        io.resolver.poll(now, &mut |id, outcome| done.push((id, outcome)));
        for (id, outcome) in done {
            io.looked_up(id, outcome);
        }
    }

    /// Goes on with conns whose budget ended before their input.
    fn read_again(&mut self, io: &mut Io) {
        for key in std::mem::take(&mut io.to_read) {
            io.contain(key, |io| io.read(key));
        }
    }

    fn timers(&mut self, io: &mut Io) {
        let now = io.core.now();
        io.resolver.handle_timeout(now);
        io.core.wheel.advance(io.core.now_ns / 1_000_000, &mut self.due);
        for target in self.due.drain(..) {
            match target {
                Target::Request(id) => io.end_early(id, IOK_STATUS_TIMEOUT),
                Target::Conn(key) => io.contain(key, |io| io.conn_timer(key)),
                Target::Endpoint(key) => io.endpoint_timer(key),
                Target::Source(key) => io.source_timer(key),
                Target::Silence => io.look_at_program(),
                Target::Listener(key) => accept(io, key),
                Target::Leaving(number) => io.leaving_timer(number),
                Target::Part(part, key) => io.part_timer(part, key),
            }
        }
    }
}

fn drain_channels(io: &mut Io) -> bool {
    let mut busy = false;
    for key in 0..io.core.channels.capacity() as u32 {
        // A panic while taking submissions ends the channel they came by; the others live on.
        busy |= catch_unwind(AssertUnwindSafe(|| io.drain_channel(key))).unwrap_or_else(|_| {
            io.end_channel(key, IOK_STATUS_PANIC);
            false
        });
    }
    busy
}

fn channel_key(io: &Io, id: u64) -> Option<u32> {
    io.core.channels.iter().find(|(_, channel)| channel.id == id).map(|(key, _)| key as u32)
}

fn open_channel(io: &mut Io, region: Arc<Region>, config: ChannelConfig, id: u64) {
    let mut channel = Channel::new(region, config, id);
    if io.core.channels.len() >= CHANNELS_MAX {
        return channel.end(IOK_STATUS_OVERLOADED);
    }
    io.core.channels.insert(channel);
}

/// Takes the clients that wait at a listener.
pub(super) fn accept(io: &mut Io, key: u32) {
    for turn in 0..=ACCEPT_BUDGET {
        let room = io.has_room(key);
        let Some(of) = io.endpoints.get_mut(key as usize) else { return };
        let (conns_max, Some(listener)) = (of.options.conns_max, &mut of.listener) else { return };
        if turn == ACCEPT_BUDGET || !room {
            io.core.timer(1, Target::Listener(key));
            return;
        }
        match listener.accept() {
            // Over the limit: closed at once, so that the client knows.
            Ok(_) if listener.conns >= conns_max => {}
            Ok(stream) => {
                listener.conns += 1;
                io.make_room(key);
                admit(io, key, stream);
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
            Err(error) if crate::sys::out_of_files(&error) => {
                io.core.timer(NO_FILES_PAUSE.as_millis() as u64, Target::Listener(key));
                return;
            }
            // A client that gave up before it was taken.
            Err(_) => {}
        }
    }
}

/// A client of a listener becomes a conn.
fn admit(io: &mut Io, endpoint: u32, mut stream: Stream) {
    use mio::{Interest, event::Source};
    let proto = io.endpoints[endpoint as usize].driver.server();
    io.conn_numbers += 1;
    let entry = io.conns.vacant_entry();
    let key = entry.key() as u32;
    let registered = stream.register(&io.registry, Io::token(key), Interest::READABLE | Interest::WRITABLE);
    let (name, transport) = (stream.peer_name(), stream.transport());
    let secure = io.endpoints[endpoint as usize].tls.is_some();
    let (link, stream) = if secure { (Link::Resolving, Some(stream)) } else { (Link::Up(stream.into()), None) };
    let mut conn = Conn::new(io.conn_numbers, endpoint, true, link, proto);
    conn.peer_name = name;
    conn.meter = io.endpoints[endpoint as usize].listener.as_ref().and_then(|listener| listener.meter);
    conn.count(|meter| meter.connects.add(1));
    entry.insert(conn);
    if let Err(error) = registered {
        return io.conn_failed(key, IOK_STATUS_SYSTEM, false, error.to_string());
    }
    if let Some(stream) = stream {
        return io.secure(key, stream);
    }
    let transport = Transport { wall: Some(io.core.wall()), ..transport };
    io.drive(key, |conn, now, out| conn.proto.handle_open(now, &transport, out));
    io.flush(key);
}

impl Io {
    /// Runs what concerns one conn; a panic there ends that conn and nothing else.
    pub(super) fn contain(&mut self, key: u32, body: impl FnOnce(&mut Io)) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| body(self))) {
            let text = panic.downcast_ref::<&str>().map(|text| text.to_string());
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
            self.renew_scratch();
            self.conn_failed(key, IOK_STATUS_PANIC, false, format!("contained a fault: {text}"));
        }
    }

    /// Nothing is under way that a closing kernel would wait for.
    fn is_quiet(&self) -> bool {
        use super::request::What;
        let waited_for = |request: &super::request::Request| {
            matches!(request.what, What::Request | What::Exchange) && request.channel != super::request::OWN_CHANNEL
        };
        self.core.requests.is_empty() || self.core.requests.ids(waited_for).is_empty()
    }
}

/// Ends everything.
fn shut(io: &mut Io, status: Status) {
    let why = if status == IOK_STATUS_PANIC { "the I/O thread had a fault" } else { "the kernel was closed" };
    let endpoints: Vec<u32> = io.endpoints.iter().map(|(key, _)| key as u32).collect();
    for key in endpoints {
        io.close_endpoint(key, why);
    }
    io.core.publish();
    for (_, channel) in &mut io.core.channels {
        channel.close(status);
    }
}
