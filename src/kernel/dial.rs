//! Connecting: addresses race each other as RFC 8305 ("Happy Eyeballs") tells, and the first that connects wins.
//!
//! A dialer is driven from outside. [`Dialer::advance`] is the one function for the start, for events and for the clock.
//! All attempts of a dialer share one mio token: an event names the dialer, and the dialer looks at each of its
//! attempts, of which there are few.

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::peer::Place;
use crate::proto::Transport;
use mio::event::Source;
use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};
use socket2::{SockRef, TcpKeepalive};

use crate::sys::owned::Owned;

/// RFC 8305, section 8: the connection attempt delay.
pub const ATTEMPT_DELAY: Duration = Duration::from_millis(250);
/// How soon a unix socket whose backlog is full is tried again; the system gives no event for that.
const BACKLOG_DELAY: Duration = Duration::from_millis(20);
/// How many addresses an error names one by one.
const NAMED_MAX: usize = 8;

/// What holds for every attempt of a dialer.
#[derive(Clone, Debug)]
pub struct DialOptions {
    /// For all attempts together.
    pub timeout: Duration,
    /// Probes of TCP's own keep-alive begin after this much silence; None leaves keep-alive off.
    pub keepalive: Option<Duration>,
    /// TCP_USER_TIMEOUT: how long sent data may stay unacknowledged.
    pub user_timeout: Option<Duration>,
}

impl Default for DialOptions {
    fn default() -> Self {
        DialOptions { timeout: Duration::from_secs(5), keepalive: Some(Duration::from_secs(60)), user_timeout: None }
    }
}

/// How a dialer stands.
#[derive(Debug)]
pub enum DialState {
    /// Call again on an event, or at [`Dialer::poll_timeout`].
    Pending,
    /// Still registered under the dialer's token. Its first readiness was used up here, so reregister it (which arms it
    /// anew), or write first and ask later. Events of the losers may still be in the same batch, under the same token.
    Connected(Stream),
    /// No target connected.
    Failed(DialError),
}

/// Every address that was tried, and its cause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DialError {
    pub message: String,
    /// One that had not answered might have, with more time.
    pub timed_out: bool,
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for DialError {}

/// Races connects to a few targets, in the order given.
#[derive(Debug)]
pub struct Dialer {
    attempts: Vec<Attempt>,
    options: DialOptions,
    begun: Instant,
    /// When the next target gets its turn though the ones before it are still trying.
    next_at: Instant,
}

#[derive(Debug)]
struct Attempt {
    target: Place,
    state: AttemptState,
}

#[derive(Debug)]
enum AttemptState {
    Waiting,
    /// A unix socket's backlog is full.
    Again(Instant),
    Trying(Stream),
    Failed(String),
}

impl Dialer {
    /// Does nothing yet: call [`Dialer::advance`].
    pub fn new(targets: Vec<Place>, options: DialOptions, now: Instant) -> Self {
        let attempts = targets.into_iter().map(|target| Attempt { target, state: AttemptState::Waiting }).collect();
        Dialer { attempts, options, begun: now, next_at: now }
    }

    /// Starts what is due and looks at what is under way: first of all, on each event of `token`, and when
    /// `poll_timeout` is over. After anything but `Pending` the dialer is spent.
    pub fn advance(&mut self, now: Instant, registry: &Registry, token: Token) -> DialState {
        if let Some(winner) = self.look(now, registry, token) {
            return self.finish(winner, registry);
        }
        if now >= self.deadline() {
            return self.fail(now, registry);
        }
        loop {
            let trying = self.attempts.iter().any(|attempt| attempt.state.is_trying());
            let waiting = self.attempts.iter().position(|attempt| matches!(attempt.state, AttemptState::Waiting));
            match waiting {
                Some(at) if now >= self.next_at || !trying => {
                    self.next_at = now + ATTEMPT_DELAY;
                    self.attempts[at].start(now, registry, token);
                    if self.attempts[at].connected(&self.options, registry) {
                        return self.finish(at, registry);
                    }
                    if matches!(self.attempts[at].state, AttemptState::Failed(_)) {
                        self.next_at = now;
                    }
                }
                None if !trying => return self.fail(now, registry),
                _ => return DialState::Pending,
            }
        }
    }

    /// When [`Dialer::advance`] is to be called though no event came.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let next = self.attempts.iter().filter_map(|attempt| match attempt.state {
            AttemptState::Waiting => Some(self.next_at),
            AttemptState::Again(at) => Some(at),
            _ => None,
        });
        next.chain([self.deadline()]).min()
    }

    /// Ends every attempt. Better than a mere drop: a descriptor that a forked child still holds keeps its place in the
    /// poll, and its events come until it is deregistered.
    pub fn abandon(&mut self, registry: &Registry) {
        for attempt in &mut self.attempts {
            attempt.abandon(registry);
        }
    }

    fn deadline(&self) -> Instant {
        self.begun + self.options.timeout
    }

    /// The first attempt that has connected. One that failed gives its turn to the next target at once.
    fn look(&mut self, now: Instant, registry: &Registry, token: Token) -> Option<usize> {
        for at in 0..self.attempts.len() {
            let attempt = &mut self.attempts[at];
            if !attempt.state.is_trying() {
                continue;
            }
            if matches!(attempt.state, AttemptState::Again(due) if now >= due) {
                attempt.start(now, registry, token);
            }
            if attempt.connected(&self.options, registry) {
                return Some(at);
            }
            if matches!(attempt.state, AttemptState::Failed(_)) {
                self.next_at = now;
            }
        }
        None
    }

    fn finish(&mut self, winner: usize, registry: &Registry) -> DialState {
        let won = self.attempts.swap_remove(winner).state;
        self.abandon(registry);
        match won {
            AttemptState::Trying(stream) => DialState::Connected(stream),
            _ => unreachable!("only an attempt that is trying can have connected"),
        }
    }

    fn fail(&mut self, now: Instant, registry: &Registry) -> DialState {
        let error = self.error(now);
        self.abandon(registry);
        DialState::Failed(error)
    }

    fn error(&self, now: Instant) -> DialError {
        let waited = now.saturating_duration_since(self.begun);
        let causes = self.attempts.iter().map(|attempt| match &attempt.state {
            AttemptState::Failed(cause) => format!("{}: {cause}", attempt.target),
            AttemptState::Trying(_) => format!("{}: no answer within {waited:.1?}", attempt.target),
            AttemptState::Again(_) => format!("{}: backlog full for {waited:.1?}", attempt.target),
            AttemptState::Waiting => format!("{}: not tried within {waited:.1?}", attempt.target),
        });
        let mut causes: Vec<String> = causes.collect();
        let more = causes.len().saturating_sub(NAMED_MAX);
        causes.truncate(NAMED_MAX);
        let mut message = match causes.is_empty() {
            true => "connect: no addresses".to_string(),
            false => format!("connect to {}", causes.join("; ")),
        };
        if more > 0 {
            message.push_str(&format!("; and {more} more"));
        }
        let timed_out = !self.attempts.iter().all(|attempt| matches!(attempt.state, AttemptState::Failed(_)));
        DialError { message, timed_out }
    }
}

impl AttemptState {
    fn is_trying(&self) -> bool {
        matches!(self, AttemptState::Trying(_) | AttemptState::Again(_))
    }
}

impl Attempt {
    fn start(&mut self, now: Instant, registry: &Registry, token: Token) {
        let begun = Stream::connect(&self.target).and_then(|mut stream| {
            registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
            Ok(stream)
        });
        self.state = match begun {
            Ok(stream) => AttemptState::Trying(stream),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => AttemptState::Again(now + BACKLOG_DELAY),
            Err(error) => AttemptState::Failed(cause(&error)),
        };
    }

    /// True when the stream stands; a failure becomes the attempt's state.
    fn connected(&mut self, options: &DialOptions, registry: &Registry) -> bool {
        let AttemptState::Trying(stream) = &self.state else { return false };
        let judged = stream.connected().and_then(|connected| {
            if connected {
                stream.set_options(options)?;
            }
            Ok(connected)
        });
        match judged {
            Ok(connected) => connected,
            Err(error) => {
                self.abandon(registry);
                self.state = AttemptState::Failed(cause(&error));
                false
            }
        }
    }

    fn abandon(&mut self, registry: &Registry) {
        if let AttemptState::Trying(stream) = &mut self.state {
            let _ = registry.deregister(stream);
        }
    }
}

/// The system's words without its number.
pub fn cause(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_string()
}

/// A byte stream to a peer.
#[derive(Debug)]
pub enum Stream {
    Tcp(Owned<TcpStream>),
    Unix(Owned<UnixStream>),
}

impl Stream {
    /// The peer's address as logs and errors name it.
    pub fn peer_name(&self) -> String {
        match self {
            Stream::Tcp(stream) => stream.peer_addr().map_or_else(|_| "?".into(), |address| address.to_string()),
            Stream::Unix(stream) => match stream.peer_addr() {
                Ok(address) => match (address.as_pathname(), address.as_abstract_name()) {
                    (Some(path), _) => format!("unix:{}", path.display()),
                    (None, Some(name)) => format!("unix:@{}", String::from_utf8_lossy(name)),
                    (None, None) => "unix:unnamed".into(),
                },
                Err(_) => "unix:?".into(),
            },
        }
    }

    /// What a protocol is told of it.
    pub fn transport(&self) -> Transport {
        match self {
            Stream::Tcp(stream) => {
                Transport { peer: stream.peer_addr().ok(), local: stream.local_addr().ok(), ..Transport::default() }
            }
            Stream::Unix(_) => Transport::default(),
        }
    }

    /// Where it leads, unless that is a unix socket without a name.
    pub fn place(&self) -> Option<Place> {
        match self {
            Stream::Tcp(stream) => stream.peer_addr().ok().map(Place::Tcp),
            Stream::Unix(stream) => {
                let address = stream.peer_addr().ok()?;
                let name = address.as_abstract_name().map(|name| format!("@{}", String::from_utf8_lossy(name)).into());
                Some(Place::Unix(name.or_else(|| address.as_pathname().map(Into::into))?))
            }
        }
    }

    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.shutdown(how),
            Stream::Unix(stream) => stream.shutdown(how),
        }
    }

    fn connect(target: &Place) -> io::Result<Self> {
        match target {
            Place::Tcp(address) => Owned::make(|| TcpStream::connect(*address)).map(Stream::Tcp),
            Place::Unix(path) => {
                let address = unix_address(path)?;
                Owned::make(|| UnixStream::connect_addr(&address)).map(Stream::Unix)
            }
        }
    }

    fn connected(&self) -> io::Result<bool> {
        let Stream::Tcp(stream) = self else { return Ok(true) }; // a unix socket connects at once or not at all
        if let Some(error) = stream.take_error()? {
            return Err(error);
        }
        match stream.peer_addr() {
            // Without a listener, a connect to a local ephemeral port may meet itself.
            Ok(peer) if stream.local_addr().is_ok_and(|local| local == peer) => {
                Err(io::Error::from_raw_os_error(ECONNREFUSED))
            }
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn set_options(&self, options: &DialOptions) -> io::Result<()> {
        let Stream::Tcp(stream) = self else { return Ok(()) };
        stream.set_nodelay(true)?;
        let socket = SockRef::from(stream);
        options.keepalive.map_or(Ok(()), |idle| keep_alive(&socket, idle))?;
        if options.user_timeout.is_some() {
            socket.set_tcp_user_timeout(options.user_timeout)?;
        }
        Ok(())
    }
}

const ECONNREFUSED: i32 = 111;

/// The system's own probes begin after `idle`.
pub fn keep_alive(socket: &SockRef<'_>, idle: Duration) -> io::Result<()> {
    let interval = (idle / 6).max(Duration::from_secs(1)); // three lost probes: dead after 1.5 times the idle
    let keepalive = TcpKeepalive::new().with_time(idle.max(Duration::from_secs(1)));
    socket.set_tcp_keepalive(&keepalive.with_interval(interval).with_retries(3))
}

/// The address of a path, or of an abstract socket when the path begins with `@`.
pub fn unix_address(path: &Path) -> io::Result<std::os::unix::net::SocketAddr> {
    use std::os::unix::ffi::OsStrExt;
    match path.as_os_str().as_bytes().split_first() {
        Some((b'@', name)) => std::os::unix::net::SocketAddr::from_abstract_name(name),
        _ => std::os::unix::net::SocketAddr::from_pathname(path),
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.read(buffer),
            Stream::Unix(stream) => stream.read(buffer),
        }
    }

    fn read_vectored(&mut self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.read_vectored(buffers),
            Stream::Unix(stream) => stream.read_vectored(buffers),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.write(bytes),
            Stream::Unix(stream) => stream.write(bytes),
        }
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.write_vectored(slices),
            Stream::Unix(stream) => stream.write_vectored(slices),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Source for Stream {
    fn register(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.register(registry, token, interests),
            Stream::Unix(stream) => stream.register(registry, token, interests),
        }
    }

    fn reregister(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.reregister(registry, token, interests),
            Stream::Unix(stream) => stream.reregister(registry, token, interests),
        }
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.deregister(registry),
            Stream::Unix(stream) => stream.deregister(registry),
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Stream::Tcp(stream) => stream.as_fd(),
            Stream::Unix(stream) => stream.as_fd(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream as StdTcpStream};
    use std::os::unix::net::UnixListener;

    use mio::{Events, Poll};
    use socket2::{Domain, Socket, Type};

    use std::net::SocketAddr;
    use std::path::PathBuf;

    use super::*;

    const TOKEN: Token = Token(7);

    fn dial(targets: Vec<Place>, timeout: Duration) -> (Result<Stream, DialError>, Duration) {
        let mut poll = Poll::new().unwrap();
        let mut events = Events::with_capacity(16);
        let begun = Instant::now();
        let mut dialer = Dialer::new(targets, DialOptions { timeout, ..DialOptions::default() }, begun);
        loop {
            match dialer.advance(Instant::now(), poll.registry(), TOKEN) {
                DialState::Connected(stream) => return (Ok(stream), begun.elapsed()),
                DialState::Failed(error) => return (Err(error), begun.elapsed()),
                DialState::Pending => {}
            }
            let wait = dialer.poll_timeout().unwrap().saturating_duration_since(Instant::now());
            poll.poll(&mut events, Some(wait)).unwrap();
        }
    }

    fn refused_port() -> SocketAddr {
        TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
    }

    /// A listener that accepts nobody, its backlog full: a connect to it stays without an answer.
    struct Blackhole {
        address: SocketAddr,
        _keep: (Socket, Vec<Socket>),
    }

    impl Blackhole {
        fn open() -> Self {
            let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            listener.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
            listener.listen(0).unwrap();
            let address = listener.local_addr().unwrap().as_socket().unwrap();
            let fill = || {
                let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
                socket.set_nonblocking(true).unwrap();
                let _ = socket.connect(&address.into());
                socket
            };
            let keep = (listener, (0..4).map(|_| fill()).collect());
            std::thread::sleep(Duration::from_millis(20));
            Blackhole { address, _keep: keep }
        }
    }

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn a_listener_is_connected_to_with_its_options_set() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut stream = dial(vec![Place::Tcp(address)], LONG).0.unwrap();
        assert_eq!(stream.peer_name(), address.to_string());
        let Stream::Tcp(tcp) = &stream else { panic!("tcp wanted") };
        assert!(tcp.nodelay().unwrap());
        assert!(SockRef::from(tcp).keepalive().unwrap());
        assert_eq!(SockRef::from(tcp).tcp_keepalive_time().unwrap(), Duration::from_secs(60));
        stream.write_all(b"x").unwrap();
        let mut byte = [0];
        listener.accept().unwrap().0.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"x");
    }

    #[test]
    fn a_refused_address_gives_its_turn_to_the_next_at_once() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut targets: Vec<Place> = (0..8).map(|_| Place::Tcp(refused_port())).collect();
        targets.push(Place::Tcp(address));
        let (stream, took) = dial(targets, LONG);
        assert_eq!(stream.unwrap().peer_name(), address.to_string());
        assert!(took < ATTEMPT_DELAY * 8, "{took:?}");
    }

    #[test]
    fn a_silent_address_does_not_hold_up_the_next_and_is_let_go() {
        let hole = Blackhole::open();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (stream, took) = dial(vec![Place::Tcp(hole.address), Place::Tcp(address)], LONG);
        assert_eq!(stream.unwrap().peer_name(), address.to_string());
        assert!(took >= ATTEMPT_DELAY && took < LONG, "{took:?}");
    }

    #[test]
    fn a_slow_first_address_still_wins_over_a_refused_second() {
        let hole = Blackhole::open();
        let mut poll = Poll::new().unwrap();
        let begun = Instant::now();
        let targets = vec![Place::Tcp(hole.address), Place::Tcp(refused_port())];
        let mut dialer = Dialer::new(targets, DialOptions { timeout: LONG, ..DialOptions::default() }, begun);
        assert!(matches!(dialer.advance(begun, poll.registry(), TOKEN), DialState::Pending));
        let later = begun + ATTEMPT_DELAY;
        assert_eq!(dialer.poll_timeout(), Some(later));
        let mut events = Events::with_capacity(16);
        assert!(matches!(dialer.advance(later, poll.registry(), TOKEN), DialState::Pending));
        while !matches!(dialer.attempts[1].state, AttemptState::Failed(_)) {
            poll.poll(&mut events, Some(Duration::from_secs(1))).unwrap();
            assert!(matches!(dialer.advance(later, poll.registry(), TOKEN), DialState::Pending));
        }
        let (listener, _fill) = &hole._keep;
        listener.set_nonblocking(true).unwrap();
        loop {
            let _ = listener.accept(); // room in the backlog: the system's next SYN gets through
            poll.poll(&mut events, Some(Duration::from_millis(100))).unwrap();
            match dialer.advance(later, poll.registry(), TOKEN) {
                DialState::Connected(stream) => break assert_eq!(stream.peer_name(), hole.address.to_string()),
                DialState::Failed(error) => panic!("{error}"),
                DialState::Pending => assert!(begun.elapsed() < LONG),
            }
        }
    }

    #[test]
    fn what_fails_at_once_costs_no_delay_though_another_is_trying() {
        let hole = Blackhole::open();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let poll = Poll::new().unwrap();
        let begun = Instant::now();
        let mut targets = vec![Place::Unix("/nonexistent/socket".into()); 4];
        targets[0] = Place::Tcp(hole.address);
        targets.push(Place::Tcp(listener.local_addr().unwrap()));
        let mut dialer = Dialer::new(targets, DialOptions::default(), begun);
        assert!(matches!(dialer.advance(begun, poll.registry(), TOKEN), DialState::Pending));
        let state = dialer.advance(begun + ATTEMPT_DELAY, poll.registry(), TOKEN);
        assert!(matches!(state, DialState::Connected(_)) || dialer.attempts[4].state.is_trying());
    }

    #[test]
    fn an_error_names_each_address_and_its_cause() {
        let (hole, refused) = (Blackhole::open(), refused_port());
        let targets = vec![Place::Tcp(refused), Place::Tcp(hole.address), Place::Unix("/nonexistent/socket".into())];
        let error = dial(targets, Duration::from_millis(400)).0.unwrap_err().to_string();
        assert!(error.starts_with(&format!("connect to {refused}: Connection refused; ")), "{error}");
        assert!(error.contains(&format!("{}: no answer within 4", hole.address)), "{error}");
        assert!(error.ends_with("unix:/nonexistent/socket: No such file or directory"), "{error}");
        assert_eq!(dial(vec![], LONG).0.unwrap_err().to_string(), "connect: no addresses");
    }

    #[test]
    fn the_timeout_bounds_all_attempts_together() {
        let holes: Vec<Blackhole> = (0..4).map(|_| Blackhole::open()).collect();
        let targets = holes.iter().map(|hole| Place::Tcp(hole.address)).collect();
        let (result, took) = dial(targets, Duration::from_millis(600));
        let error = result.unwrap_err().to_string();
        assert!(took >= Duration::from_millis(600) && took < LONG, "{took:?}");
        assert!(error.contains("not tried within"), "{error}");
    }

    #[test]
    fn unix_sockets_by_path_and_by_abstract_name() {
        let folder = std::env::temp_dir().join(format!("iokernel-dial-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("socket");
        let _listener = UnixListener::bind(&path).unwrap();
        let stream = dial(vec![Place::Unix(path.clone())], LONG).0.unwrap();
        assert_eq!(stream.peer_name(), format!("unix:{}", path.display()));
        let name = PathBuf::from(format!("@iokernel-dial-{}", std::process::id()));
        let _abstract = UnixListener::bind_addr(&unix_address(&name).unwrap()).unwrap();
        let stream = dial(vec![Place::Unix(name.clone())], LONG).0.unwrap();
        assert_eq!(stream.peer_name(), format!("unix:{}", name.display()));
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_unix_socket_with_a_full_backlog_is_tried_again() {
        let name = PathBuf::from(format!("@iokernel-dial-full-{}", std::process::id()));
        let listener = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        listener.bind(&socket2::SockAddr::unix(format!("\0{}", &name.to_str().unwrap()[1..])).unwrap()).unwrap();
        listener.listen(0).unwrap();
        let poll = Poll::new().unwrap();
        let begun = Instant::now();
        let mut held = Vec::new();
        let mut full = loop {
            let mut dialer = Dialer::new(vec![Place::Unix(name.clone())], DialOptions::default(), begun);
            match dialer.advance(begun, poll.registry(), TOKEN) {
                DialState::Connected(stream) => held.push(stream),
                DialState::Pending => break dialer,
                DialState::Failed(error) => panic!("{error}"),
            }
        };
        assert_eq!(full.poll_timeout(), Some(begun + BACKLOG_DELAY));
        while held.pop().is_some() {
            listener.accept().unwrap();
        }
        let later = begun + BACKLOG_DELAY;
        assert!(matches!(full.advance(later, poll.registry(), TOKEN), DialState::Connected(_)));
    }

    #[test]
    fn a_dropped_dialer_leaves_no_socket_behind() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let poll = Poll::new().unwrap();
        let targets = vec![Place::Tcp(listener.local_addr().unwrap())];
        let mut dialer = Dialer::new(targets, DialOptions::default(), Instant::now());
        let state = dialer.advance(Instant::now(), poll.registry(), TOKEN);
        drop((state, dialer));
        let (mut accepted, _): (StdTcpStream, _) = listener.accept().unwrap();
        assert_eq!(accepted.read(&mut [0]).unwrap_or(0), 0);
    }
}
