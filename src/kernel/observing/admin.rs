//! The admin endpoint: a small HTTP server for people and health checkers, on its own sockets in the I/O thread.
//!
//! A client costs what it asks, within bounds: conns are few, heads are short, each wait has an end, and a turn of the
//! loop answers, reads and writes only so much. A panic while answering becomes a 500.

mod address;
mod conn;

use std::io::{Error, ErrorKind};
use std::panic::{AssertUnwindSafe, catch_unwind};

use mio::event::Source;
use mio::{Interest, Registry};
use slab::Slab;

pub use self::address::{AdminConfig, folders};
use self::address::{Bound, Socket as Listener};
use self::conn::{Conn, Phase, Socket};
use super::{Part, token};
use crate::config::{ConfigError, Options};
use crate::kernel::Failure;
use crate::kernel::dial::Stream;
use crate::kernel::io::Io;
use crate::kernel::listener::NO_FILES_PAUSE;
use crate::kernel::wheel::TimerKey;
use crate::observe::http::{self, Request};
use crate::sys::clock::monotonic_ns;
use crate::sys::epoll::Event;
use crate::sys::owned::Owned;

/// Clients at a time.
const CONNS_MAX: usize = 64;
/// Clients accepted in one turn.
const ACCEPT_BUDGET: usize = 16;
/// Questions of one client answered in one turn.
const ASK_BUDGET: usize = 4;
/// Bytes of answers that clients have still to read, all together.
const UNREAD_BYTES_MAX: usize = 64 << 20;
/// Of the thread's time, one part in so many goes to answers, in the long run.
const TIME_SHARE: i64 = 2;
/// What answers may take without a pause.
const TIME_BURST_NS: i64 = 20_000_000;
/// The keys of the part's events and timers that are no conn's.
const LISTENER: u32 = u32::MAX;
const AGAIN: u32 = u32::MAX - 1;

/// Names a question whose answer comes later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(pub u64);

/// What was asked: the path without its query, and the query.
pub struct Ask {
    pub path: String,
    pub query: Options,
    /// The request's `Accept`, or empty.
    pub accept: String,
    pub ticket: Ticket,
}

const TEXT: &str = "text/plain; charset=utf-8";

/// An HTTP answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub content_type: &'static str,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn json(status: u16, value: &serde_json::Value) -> Self {
        let mut body = serde_json::to_vec_pretty(value).unwrap_or_default();
        body.push(b'\n');
        Answer { status, content_type: "application/json", body }
    }

    pub fn text(status: u16, text: impl Into<String>) -> Self {
        Answer { status, content_type: TEXT, body: text.into().into_bytes() }
    }
}

/// Now, or by [`Io::admin_answer`] under the ask's ticket.
pub enum Outcome {
    Now(Answer),
    Later,
}

/// Everything that can be asked. `/` is the live page.
type Route = fn(&mut Io, &mut Ask) -> Result<Outcome, ConfigError>;
pub static ROUTES: &[(&str, Route)] = &[
    ("/", Io::answer_page),
    ("/requests", Io::answer_requests),
    ("/state", Io::answer_state),
    ("/config", Io::answer_config),
    ("/healthz", Io::answer_healthz),
    ("/readyz", Io::answer_readyz),
    ("/metrics", Io::answer_metrics),
    ("/stack", Io::answer_stack),
    ("/slow", Io::answer_slow),
];

#[derive(Default)]
pub struct Admin {
    bound: Option<Bound>,
    conns: Slab<Conn>,
    tickets: u64,
    /// Conns with more to do than a turn allows.
    again: Vec<u32>,
    spent: Spent,
}

/// The time that answers have taken, so that who asks without end slows nothing but its own answers.
#[derive(Default)]
struct Spent {
    credit_ns: i64,
    looked_ns: u64,
}

impl Spent {
    /// Whether there is time for an answer.
    fn allows(&mut self, now_ns: u64) -> bool {
        let passed = now_ns.saturating_sub(self.looked_ns).min(1 << 40) as i64;
        self.credit_ns = (self.credit_ns + passed / TIME_SHARE).min(TIME_BURST_NS);
        self.looked_ns = now_ns;
        self.credit_ns > 0
    }

    /// An answer that was begun at `start_ns` is made.
    fn note(&mut self, start_ns: u64, now_ns: u64) {
        self.credit_ns -= now_ns.saturating_sub(start_ns).min(1 << 40) as i64;
    }
}

impl Admin {
    /// Binds the sockets, where there are any to bind.
    pub fn bind(config: &AdminConfig, registry: &Registry) -> Result<Self, Failure> {
        let mut bound = Bound::bind(config)?;
        if let Some(bound) = &mut bound {
            let token = token(Part::Admin, LISTENER);
            let registered = match &mut bound.socket {
                Listener::Tcp(listener) => listener.register(registry, token, Interest::READABLE),
                Listener::Unix(listener) => listener.register(registry, token, Interest::READABLE),
            };
            registered.map_err(|error| Failure::system("epoll_ctl", &error))?;
        }
        Ok(Admin { bound, ..Admin::default() })
    }

    /// Where it listens: `unix:/path`, `unix:@name` or `127.0.0.1:9901`. None: nowhere.
    pub fn address(&self) -> Option<&str> {
        self.bound.as_ref().map(|bound| bound.address.as_str())
    }

    fn accept(&self) -> std::io::Result<Stream> {
        let Some(bound) = &self.bound else { return Err(ErrorKind::WouldBlock.into()) };
        match &bound.socket {
            Listener::Tcp(listener) => {
                let stream = Owned::make(|| Ok(listener.accept()?.0))?;
                // Best effort: a client that is gone already shows at the first read.
                let _ = stream.set_nodelay(true);
                Ok(Stream::Tcp(stream))
            }
            Listener::Unix(listener) => Owned::make(|| Ok(listener.accept()?.0)).map(Stream::Unix),
        }
    }

    /// The client that owes us a question for the longest time.
    fn idlest(&self) -> Option<u32> {
        let idle = self.conns.iter().filter(|(_, conn)| conn.is_idle());
        idle.min_by_key(|(_, conn)| conn.idle_since_ns).map(|(key, _)| key as u32)
    }
}

impl Io {
    /// Where the admin endpoint listens; empty: nowhere.
    pub fn admin_address(&self) -> &str {
        self.observing.admin.address().unwrap_or_default()
    }

    pub fn admin_event(&mut self, key: u32, event: &Event) {
        match self.observing.admin.conns.get_mut(key as usize) {
            _ if key == LISTENER => self.admin_accept(),
            Some(conn) => {
                conn.note(event);
                self.admin_serve(key);
            }
            None => {}
        }
    }

    pub fn admin_timer(&mut self, key: u32) {
        match key {
            LISTENER => self.admin_accept(),
            AGAIN => {
                for key in std::mem::take(&mut self.observing.admin.again) {
                    self.admin_serve(key);
                }
            }
            key => self.admin_late(key),
        }
    }

    /// The answer to an [`Outcome::Later`]. Of no effect if whoever asked has gone.
    pub fn admin_answer(&mut self, ticket: Ticket, answer: Answer) {
        let found = self.observing.admin.conns.iter().find(|(_, conn)| conn.ticket == Some(ticket));
        let Some((key, _)) = found else { return };
        self.admin_put(key as u32, &answer);
        self.admin_again(key as u32);
    }

    fn admin_accept(&mut self) {
        for _ in 0..ACCEPT_BUDGET {
            match self.observing.admin.accept() {
                Ok(stream) => self.admin_admit(stream),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if crate::sys::out_of_files(&error) => {
                    let pause_ms = NO_FILES_PAUSE.as_millis() as u64;
                    self.part_timer_after(Part::Admin, LISTENER, pause_ms);
                    return;
                }
                // A client that gave up before it was taken.
                Err(_) => {}
            }
        }
        self.part_timer_after(Part::Admin, LISTENER, 1);
    }

    fn admin_admit(&mut self, stream: Stream) {
        let admin = &mut self.observing.admin;
        if admin.conns.len() >= CONNS_MAX {
            match admin.idlest() {
                Some(idle) => self.admin_drop(idle),
                None => return refuse(stream),
            }
        }
        let now_ns = self.core.now_ns;
        let admin = &mut self.observing.admin;
        let Some(hosts) = admin.bound.as_ref().map(|bound| bound.hosts.clone()) else { return };
        let entry = admin.conns.vacant_entry();
        let key = entry.key() as u32;
        let mut stream = stream;
        let interest = Interest::READABLE | Interest::WRITABLE;
        if stream.register(&self.registry, token(Part::Admin, key), interest).is_ok() {
            entry.insert(Conn::new(stream, hosts, now_ns));
            self.admin_serve(key);
        }
    }

    fn admin_drop(&mut self, key: u32) {
        if let Some(conn) = self.observing.admin.conns.try_remove(key as usize) {
            self.core.wheel.clear(conn.timer);
            conn.close(&self.registry);
        }
    }

    /// Lets a conn go on in the next turn.
    fn admin_again(&mut self, key: u32) {
        let again = &mut self.observing.admin.again;
        if again.contains(&key) {
            return;
        }
        again.push(key);
        if again.len() == 1 {
            self.part_timer_after(Part::Admin, AGAIN, 1);
        }
    }

    /// Answers what a client asks, as far as a turn's budget goes. A panic ends the client and nothing else.
    fn admin_serve(&mut self, key: u32) {
        if catch_unwind(AssertUnwindSafe(|| self.admin_pump(key))).is_err() {
            self.admin_drop(key);
        }
    }

    fn admin_pump(&mut self, key: u32) {
        for _ in 0..ASK_BUDGET {
            let start_ns = monotonic_ns();
            if !self.observing.admin.spent.allows(start_ns) {
                break;
            }
            let Some(conn) = self.observing.admin.conns.get_mut(key as usize) else { return };
            match conn.next() {
                Ok(event) => {
                    self.admin_heard(key, event);
                    self.observing.admin.spent.note(start_ns, monotonic_ns());
                }
                Err(Socket::Gone) => return self.admin_drop(key),
                Err(Socket::Wait) => return self.admin_rearm(key),
                Err(Socket::Go) => break,
            }
        }
        self.admin_rearm(key);
        self.admin_again(key);
    }

    fn admin_heard(&mut self, key: u32, event: http::Event) {
        let answer = match event {
            http::Event::Refusal(refusal) => Answer::text(refusal.status, refusal.text + "\n"),
            http::Event::Request(request) => {
                self.observing.admin.tickets += 1;
                let ticket = Ticket(self.observing.admin.tickets);
                if let Some(conn) = self.observing.admin.conns.get_mut(key as usize) {
                    conn.ticket = Some(ticket);
                }
                match self.admin_ask(request, ticket) {
                    Outcome::Now(answer) => answer,
                    Outcome::Later => return,
                }
            }
        };
        self.admin_put(key, &answer);
    }

    fn admin_ask(&mut self, request: Request, ticket: Ticket) -> Outcome {
        let Some((_, route)) = ROUTES.iter().find(|(path, _)| *path == request.path) else {
            let known: Vec<&str> = ROUTES.iter().map(|(path, _)| *path).collect();
            let text = format!("{}: nothing is here; there is {}\n", request.path, known.join(", "));
            return Outcome::Now(Answer::text(404, text));
        };
        let answered = catch_unwind(AssertUnwindSafe(|| {
            let query = Options::parse(&request.query)?;
            let mut ask = Ask { path: request.path, query, accept: request.accept, ticket };
            route(self, &mut ask)
        }));
        match answered {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(error)) => Outcome::Now(Answer::text(400, format!("{error}\n"))),
            Err(_) => Outcome::Now(Answer::text(500, "a fault of iokernel's own; the program goes on\n")),
        }
    }

    fn admin_put(&mut self, key: u32, answer: &Answer) {
        let now_ns = self.core.now_ns;
        let unread: usize = self.observing.admin.conns.iter().map(|(_, conn)| conn.unread_bytes()).sum();
        let Some(conn) = self.observing.admin.conns.get_mut(key as usize) else { return };
        if unread + answer.body.len() > UNREAD_BYTES_MAX {
            conn.answer(503, TEXT, b"too many answers are waiting to be read\n", now_ns);
        } else {
            conn.answer(answer.status, answer.content_type, &answer.body, now_ns);
        }
    }

    /// A client, or we ourselves, took too long.
    fn admin_late(&mut self, key: u32) {
        let Some(conn) = self.observing.admin.conns.get_mut(key as usize) else { return };
        let Some((phase, _)) = conn.timed.take() else { return };
        conn.timer = TimerKey::NONE;
        match phase {
            Phase::Idle | Phase::Writing | Phase::Linger => return self.admin_drop(key),
            Phase::Later => self.admin_put(key, &Answer::text(504, "no answer in time\n")),
            Phase::Head => {
                let event = conn.session.time_out();
                self.admin_heard(key, event);
            }
        }
        self.admin_serve(key);
    }

    /// Sets a conn's timer for what it is waited for, unless that has begun before.
    fn admin_rearm(&mut self, key: u32) {
        let Some(conn) = self.observing.admin.conns.get_mut(key as usize) else { return };
        let timed = (conn.phase(), conn.answers);
        if conn.timed == Some(timed) {
            return;
        }
        conn.timed = Some(timed);
        let before = conn.timer;
        self.core.wheel.clear(before);
        let timer = self.part_timer_after(Part::Admin, key, timed.0.limit_ms());
        if let Some(conn) = self.observing.admin.conns.get_mut(key as usize) {
            conn.timer = timer;
        }
    }
}

/// One client too many is told so, as far as its socket takes it at once.
fn refuse(mut stream: Stream) {
    use std::io::Write;
    let text = "too many clients\n";
    let head = format!(
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        text.len()
    );
    let _: Result<usize, Error> = stream.write(format!("{head}{text}").as_bytes());
    let _ = stream.shutdown(std::net::Shutdown::Write);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_have_a_share_of_the_time_and_no_more() {
        let mut spent = Spent::default();
        let (mut now_ns, mut answers) = (1_000_000_000, 0);
        let end_ns = now_ns + 1_000_000_000;
        while now_ns < end_ns {
            if spent.allows(now_ns) {
                spent.note(now_ns, now_ns + 3_000_000);
                now_ns += 3_000_000;
                answers += 1;
            } else {
                now_ns += 1_000_000;
            }
        }
        // Half of the second, and the burst.
        assert!((165..=180).contains(&answers), "{answers}");
        assert!(spent.allows(end_ns + 100_000_000));
        assert_eq!(spent.credit_ns, TIME_BURST_NS);
    }
}
