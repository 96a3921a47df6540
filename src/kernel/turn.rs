//! One turn of the loop: read, fire timers, take submissions, write, publish. Who turns it, and how they wait between
//! two turns, is in [`lead`](super::lead).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::Token;

use super::channel::{Channel, ChannelConfig};
use super::conn::{Conn, Link};
use super::core::Target;
use super::dial::Stream;
use super::io::{BELL_TOKEN, CONN_TOKENS, DNS_TOKENS, Io, LISTENER_TOKENS, PART_TOKENS};
use super::listener::{ACCEPT_BUDGET, BACKLOG_MAX, NO_FILES_PAUSE, NO_ROOM_PAUSE};
use super::observing::{self, Part};
use super::shared::{Control, Shared};
use crate::proto::Transport;
use crate::ring::region::Region;
use crate::status::*;
use crate::sys::epoll::Event;
use crate::sys::owned::Owned;

/// How many channels one kernel serves.
pub const CHANNELS_MAX: usize = 4096;
/// A moment that does not come.
pub const NEVER_NS: u64 = u64::MAX;

/// Everything that turns. Whoever has it turns it.
pub struct Loop {
    io: Owned<Io>,
    shared: Arc<Shared>,
    due: Vec<Target>,
    /// Something is left for the next turn, which is to come at once.
    busy: bool,
    /// What a thread that was lent has left for the kernel's own.
    left: Vec<Event>,
    left_due: Vec<Target>,
    /// When a kernel that is closing stops waiting for requests.
    close_by: Option<Instant>,
}

/// Whose thread turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The kernel's own: everything is done.
    Own,
    /// One of the program's that waits anyway: it serves conns and channels, and leaves all else to the kernel's own.
    Lent,
}

impl Loop {
    pub fn new(io: Owned<Io>, shared: Arc<Shared>) -> Self {
        Loop { io, shared, due: Vec::new(), busy: false, left: Vec::new(), left_due: Vec::new(), close_by: None }
    }

    pub fn begin(&mut self) {
        self.io.begin_observing();
    }

    /// The first half of a turn, after a wait: what has happened meanwhile.
    pub fn after_wait(&mut self, events: &[Event], slept: bool, by: By) {
        let io: &mut Io = &mut self.io;
        io.core.tick();
        io.core.own.wakes(io.core.now_ns, slept);
        if self.busy || !events.is_empty() {
            io.gauges_due();
        }
        if by == By::Own {
            for event in std::mem::take(&mut self.left) {
                self.handle_event(&event, by);
            }
        }
        for event in events {
            self.handle_event(event, by);
        }
        if by == By::Own {
            self.resolve();
        }
        self.read_again();
        self.timers(by);
        let io: &mut Io = &mut self.io;
        io.hear_own_news();
        io.rearm_endpoints();
        io.send_held();
        io.flush_all();
        io.see_off();
        io.flush_access_logs();
        io.core.publish();
        if by == By::Own {
            // What they bring is for the next turn: whoever has something to read has it by now.
            io.shake_hands();
        }
    }

    /// The second half, before a wait: what the program wants. False when the kernel is closed.
    pub fn before_wait(&mut self, by: By) -> bool {
        self.io.core.tick();
        if by == By::Own {
            self.control();
        }
        let io: &mut Io = &mut self.io;
        let busy = drain_channels(io);
        io.send_held();
        io.flush_all();
        io.core.publish();
        if by == By::Own && self.is_over() {
            self.io.end_push();
            self.shut(IOK_STATUS_CLOSED);
            return false;
        }
        let io: &mut Io = &mut self.io;
        io.hear_own_news();
        io.rearm_endpoints();
        self.busy = busy;
        self.rests();
        true
    }

    /// The turn is over.
    pub fn rests(&mut self) {
        let io: &mut Io = &mut self.io;
        io.core.tick();
        io.core.own.rests(io.core.now_ns);
    }

    /// Something is to be done before anyone sleeps.
    pub fn is_busy(&self) -> bool {
        let io: &Io = &self.io;
        let lists = [io.to_read.is_empty(), io.to_flush.is_empty(), io.core.own_news.is_empty()];
        self.busy || !io.handshakes.is_empty() || lists.contains(&false)
    }

    /// Something was submitted or asked since it was looked for.
    pub fn has_work(&self) -> bool {
        self.shared.has_control() || self.io.core.channels.iter().any(|(_, channel)| channel.has_work())
    }

    /// Replies are due, so that the sockets are what to look at.
    pub fn awaits_replies(&self) -> bool {
        !self.io.core.requests.is_empty()
    }

    /// Something waits that only the kernel's own thread does.
    pub fn wants_own_thread(&self) -> bool {
        let io: &Io = &self.io;
        self.shared.has_control()
            || self.close_by.is_some()
            || !self.left.is_empty()
            || !self.left_due.is_empty()
            || !io.handshakes.is_empty()
            || io.resolver.poll_timeout().is_some()
    }

    /// When the loop is to be turned though nothing happens: a moment of CLOCK_MONOTONIC in nanoseconds.
    pub fn due_ns(&self) -> u64 {
        let io: &Io = &self.io;
        let wheel = io.core.wheel.next_ms().map(|ms| ms * 1_000_000);
        let others = [io.resolver.poll_timeout(), self.close_by];
        let others = others.into_iter().flatten().map(|at| io.core.clock.ns(at));
        wheel.into_iter().chain(others).min().unwrap_or(NEVER_NS)
    }

    fn control(&mut self) {
        if !self.shared.has_control() {
            return;
        }
        let io: &mut Io = &mut self.io;
        for control in self.shared.take() {
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

    fn is_over(&self) -> bool {
        let io: &Io = &self.io;
        self.close_by.is_some_and(|by| io.core.now() >= by || io.is_quiet() && io.spans_are_sent())
    }

    fn handle_event(&mut self, event: &Event, by: By) {
        let io: &mut Io = &mut self.io;
        match Token(event.token()) {
            BELL_TOKEN => {}
            Token(token) if by == By::Lent && token >= DNS_TOKENS => self.left.push(*event),
            Token(token) if token >> 32 >= PART_TOKENS => {
                if let Some((part, key)) = observing::part_of(token) {
                    io.part_event(part, key, event);
                }
            }
            Token(token) if token >= DNS_TOKENS => {
                io.resolver.handle_event(Token(token), event.is_readable(), event.is_writable());
            }
            Token(token) if token >= LISTENER_TOKENS => accept(io, (token - LISTENER_TOKENS) as u32),
            Token(token) => {
                let key = (token - CONN_TOKENS) as u32;
                io.contain(key, |io| io.conn_event(key, event));
            }
        }
    }

    fn resolve(&mut self) {
        let io: &mut Io = &mut self.io;
        let now = io.core.now();
        let mut done = Vec::new();
        io.resolver.poll(now, &mut |id, outcome| done.push((id, outcome)));
        for (id, outcome) in done {
            io.looked_up(id, outcome);
        }
    }

    /// Goes on with conns whose budget ended before their input.
    fn read_again(&mut self) {
        let io: &mut Io = &mut self.io;
        for key in std::mem::take(&mut io.to_read) {
            io.contain(key, |io| io.read(key));
        }
    }

    fn timers(&mut self, by: By) {
        let Loop { io, due, left_due, .. } = self;
        let io: &mut Io = io;
        if by == By::Own {
            due.append(left_due);
        }
        io.core.wheel.advance(io.core.now_ns / 1_000_000, due);
        for target in due.drain(..) {
            match target {
                Target::Request(id) => io.end_early(id, IOK_STATUS_TIMEOUT),
                Target::Conn(key) => io.contain(key, |io| io.conn_timer(key)),
                Target::Endpoint(key) => io.endpoint_timer(key),
                Target::Listener(key) => accept(io, key),
                Target::Part(Part::Own, key) => io.part_timer(Part::Own, key),
                other if by == By::Lent => left_due.push(other),
                Target::Source(key) => io.source_timer(key),
                Target::Silence => io.look_at_program(),
                Target::Leaving(number) => io.leaving_timer(number),
                Target::Part(part, key) => io.part_timer(part, key),
            }
        }
    }

    /// Ends everything.
    pub fn shut(&mut self, status: Status) {
        let io: &mut Io = &mut self.io;
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
    for _ in 0..ACCEPT_BUDGET {
        match accept_one(io, key) {
            Accept::Another => {}
            Accept::Nobody => return,
            Accept::Later(pause) => {
                io.core.timer(pause.as_millis() as u64, Target::Listener(key));
                return;
            }
        }
    }
    io.core.timer(1, Target::Listener(key));
}

/// Takes everyone who waits, before the door is closed.
pub(super) fn accept_all(io: &mut Io, key: u32) {
    let _ = (0..BACKLOG_MAX).find(|_| !matches!(accept_one(io, key), Accept::Another));
}

enum Accept {
    Another,
    Nobody,
    Later(Duration),
}

fn accept_one(io: &mut Io, key: u32) -> Accept {
    let room = io.has_room(key);
    let Some(of) = io.endpoints.get_mut(key as usize) else { return Accept::Nobody };
    let (conns_max, Some(listener)) = (of.options.conns_max, &mut of.listener) else { return Accept::Nobody };
    if !room {
        return Accept::Later(NO_ROOM_PAUSE);
    }
    match listener.accept() {
        // Over the limit: closed at once, so that the client knows.
        Ok(_) if listener.conns >= conns_max => {}
        Ok(stream) => {
            listener.conns += 1;
            io.make_room(key);
            admit(io, key, stream);
        }
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Accept::Nobody,
        Err(error) if crate::sys::out_of_files(&error) => return Accept::Later(NO_FILES_PAUSE),
        // A client that gave up before it was taken.
        Err(_) => {}
    }
    Accept::Another
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
