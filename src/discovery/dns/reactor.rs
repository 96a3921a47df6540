//! What hickory takes from an async runtime, made of the kernel's poll: sockets, timers, and nothing else.
//!
//! hickory's [`Time`] has no `self`, so the reactor whose futures are being polled is found through a thread-local that
//! [`Runtime::enter`] sets for that while.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice, Read, Write};
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use futures_io::{AsyncRead, AsyncWrite};
use hickory_resolver::net::runtime::{DnsTcpStream, DnsUdpSocket, RuntimeProvider, Spawn, Time};
use mio::event::Source;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use slab::Slab;

use super::executor::lock;
use crate::sys::owned::Owned;

/// A handle on the sockets and timers of one resolver.
#[derive(Clone)]
pub struct Runtime(Arc<Mutex<Reactor>>);

struct Reactor {
    registry: Registry,
    tokens: Range<usize>,
    sockets: Slab<Waiting>,
    timers: BTreeMap<(Instant, u64), Waker>,
    timers_made: u64,
    now: Instant,
}

/// Who waits for a socket.
#[derive(Default)]
struct Waiting {
    read: Option<Waker>,
    write: Option<Waker>,
}

thread_local! {
    static CURRENT: RefCell<Option<Runtime>> = const { RefCell::new(None) };
}

impl Runtime {
    pub fn new(registry: Registry, tokens: Range<usize>, now: Instant) -> Self {
        let (sockets, timers) = (Slab::new(), BTreeMap::new());
        Runtime(Arc::new(Mutex::new(Reactor { registry, tokens, sockets, timers, timers_made: 0, now })))
    }

    /// Runs `work` with this reactor as the one that hickory's timers find.
    pub fn enter<R>(&self, work: impl FnOnce() -> R) -> R {
        struct Leave(Option<Runtime>);
        impl Drop for Leave {
            fn drop(&mut self) {
                CURRENT.set(self.0.take());
            }
        }
        let _leave = Leave(CURRENT.replace(Some(self.clone())));
        work()
    }

    pub fn now(&self) -> Instant {
        lock(&self.0).now
    }

    pub fn owns(&self, token: Token) -> bool {
        lock(&self.0).tokens.contains(&token.0)
    }

    pub fn handle_event(&self, token: Token, readable: bool, writable: bool) {
        let mut reactor = lock(&self.0);
        let Some(key) = token.0.checked_sub(reactor.tokens.start) else { return };
        let Some(waiting) = reactor.sockets.get_mut(key) else { return };
        let reader = waiting.read.take_if(|_| readable);
        let writer = waiting.write.take_if(|_| writable);
        drop(reactor);
        reader.into_iter().chain(writer).for_each(Waker::wake);
    }

    /// Moves the clock, which never goes back, and wakes whoever waited for it.
    pub fn handle_timeout(&self, now: Instant) {
        let mut reactor = lock(&self.0);
        reactor.now = reactor.now.max(now);
        let later = reactor.timers.split_off(&(now, u64::MAX));
        let due = std::mem::replace(&mut reactor.timers, later);
        drop(reactor);
        due.into_values().for_each(Waker::wake);
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        lock(&self.0).timers.keys().next().map(|(at, _)| *at)
    }

    pub fn sleep(&self, span: Duration) -> Sleep {
        Sleep { at: self.now() + span, key: None, runtime: self.clone() }
    }

    fn current() -> Self {
        CURRENT.with_borrow(|current| current.clone()).expect("hickory's futures are polled by a resolver")
    }

    fn register<S: Source>(&self, mut source: Owned<S>, interest: Interest) -> io::Result<Registered<S>> {
        let mut reactor = lock(&self.0);
        let key = reactor.sockets.vacant_key();
        let token = Token(reactor.tokens.start + key);
        if !reactor.tokens.contains(&token.0) {
            return Err(io::Error::other("too many DNS sockets"));
        }
        reactor.registry.register(&mut *source, token, interest)?;
        reactor.sockets.insert(Waiting::default());
        drop(reactor);
        Ok(Registered { source, key, runtime: self.clone() })
    }
}

/// Ends when the clock says so.
pub struct Sleep {
    at: Instant,
    key: Option<(Instant, u64)>,
    runtime: Runtime,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let mut reactor = lock(&this.runtime.0);
        if reactor.now >= this.at {
            return Poll::Ready(());
        }
        let key = *this.key.get_or_insert_with(|| {
            reactor.timers_made += 1;
            (this.at, reactor.timers_made)
        });
        reactor.timers.insert(key, cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            lock(&self.runtime.0).timers.remove(&key);
        }
    }
}

/// A source that the poll knows for as long as this lives. Deregistered by name, since a forked child may hold the
/// descriptor open beyond our closing it.
struct Registered<S: Source> {
    source: Owned<S>,
    key: usize,
    runtime: Runtime,
}

impl<S: Source> Registered<S> {
    /// Tries at once; when that would block, the next event of its kind wakes the caller.
    fn attempt<T>(&self, cx: &Context<'_>, write: bool, io: impl Fn() -> io::Result<T>) -> Poll<io::Result<T>> {
        loop {
            match io() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                result => return Poll::Ready(result),
            }
        }
        self.wait(cx, write);
        Poll::Pending
    }

    fn wait(&self, cx: &Context<'_>, write: bool) {
        let mut reactor = lock(&self.runtime.0);
        if let Some(waiting) = reactor.sockets.get_mut(self.key) {
            let place = if write { &mut waiting.write } else { &mut waiting.read };
            *place = Some(cx.waker().clone());
        }
    }
}

impl<S: Source> Drop for Registered<S> {
    fn drop(&mut self) {
        let mut reactor = lock(&self.runtime.0);
        let _ = reactor.registry.deregister(&mut *self.source);
        let waiting = reactor.sockets.try_remove(self.key);
        drop((reactor, waiting));
    }
}

/// A UDP socket connected to one name server, so that the system drops what others send and reports a refusing port.
pub struct Udp {
    socket: Registered<mio::net::UdpSocket>,
    server: SocketAddr,
}

impl DnsUdpSocket for Udp {
    type Time = Clock;

    fn poll_recv_from(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<(usize, SocketAddr)>> {
        let buffer = RefCell::new(buffer);
        let received = self.socket.attempt(cx, false, || self.socket.source.recv(&mut buffer.borrow_mut()));
        received.map_ok(|bytes| (bytes, self.server))
    }

    fn poll_send_to(&self, cx: &mut Context<'_>, bytes: &[u8], _server: SocketAddr) -> Poll<io::Result<usize>> {
        let sent = self.socket.attempt(cx, true, || self.socket.source.send(bytes));
        if sent.is_pending() {
            // Registered for reading alone, which saves an event a socket: sending hardly ever blocks.
            let reactor = lock(&self.socket.runtime.0);
            let token = Token(reactor.tokens.start + self.socket.key);
            let fd = self.socket.source.as_raw_fd();
            reactor.registry.reregister(&mut SourceFd(&fd), token, Interest::READABLE | Interest::WRITABLE)?;
        }
        sent
    }
}

/// A TCP connection to a name server.
pub struct Tcp(Registered<mio::net::TcpStream>);

impl Tcp {
    /// mio's way: writable, without an error, and with a peer.
    fn poll_connected(&self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        self.0.attempt(cx, true, || match self.0.source.take_error()? {
            Some(error) => Err(error),
            None => match self.0.source.peer_addr() {
                Err(error) if error.kind() == io::ErrorKind::NotConnected => Err(io::ErrorKind::WouldBlock.into()),
                peer => peer.map(drop),
            },
        })
    }
}

impl DnsTcpStream for Tcp {
    type Time = Clock;
}

impl AsyncRead for Tcp {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let buffer = RefCell::new(buffer);
        self.0.attempt(cx, false, || (&*self.0.source).read(&mut buffer.borrow_mut()))
    }
}

impl AsyncWrite for Tcp {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.attempt(cx, true, || (&*self.0.source).write(bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.attempt(cx, true, || (&*self.0.source).write_vectored(slices))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.0.source.shutdown(std::net::Shutdown::Write))
    }
}

type Pending<T> = Pin<Box<dyn Send + Future<Output = io::Result<T>>>>;

impl RuntimeProvider for Runtime {
    type Handle = NoBackground;
    type Timer = Clock;
    type Udp = Udp;
    type Tcp = Tcp;

    fn create_handle(&self) -> NoBackground {
        NoBackground
    }

    fn connect_tcp(&self, server: SocketAddr, _bind: Option<SocketAddr>, timeout: Option<Duration>) -> Pending<Tcp> {
        let runtime = self.clone();
        Box::pin(async move {
            let socket = Owned::make(|| mio::net::TcpStream::connect(server))?;
            let stream = Tcp(runtime.register(socket, Interest::READABLE | Interest::WRITABLE)?);
            let limit = timeout.unwrap_or(Duration::from_secs(5));
            within(runtime.sleep(limit), poll_fn(|cx| stream.poll_connected(cx))).await??;
            Ok(stream)
        })
    }

    fn bind_udp(&self, local: SocketAddr, server: SocketAddr) -> Pending<Udp> {
        let runtime = self.clone();
        Box::pin(async move {
            let socket = Owned::make(|| mio::net::UdpSocket::bind(local))?;
            socket.connect(server)?;
            Ok(Udp { socket: runtime.register(socket, Interest::READABLE)?, server })
        })
    }
}

/// Every exchange here is driven by the lookup that wants its answer, and ends with it.
#[derive(Clone)]
pub struct NoBackground;

impl Spawn for NoBackground {
    fn spawn_bg(&mut self, _: impl Future<Output = ()> + Send + 'static) {
        debug_assert!(false, "an exchange wanted to run in the background");
    }
}

/// The time of the reactor whose futures are being polled.
pub struct Clock;

// Spelled out as async_trait would.
impl Time for Clock {
    fn delay_for<'async_trait>(span: Duration) -> Pin<Box<dyn Future<Output = ()> + Send + 'async_trait>> {
        Box::pin(async move { Runtime::current().sleep(span).await })
    }

    fn timeout<'async_trait, F>(
        span: Duration,
        future: F,
    ) -> Pin<Box<dyn Future<Output = Result<F::Output, io::Error>> + Send + 'async_trait>>
    where
        F: 'static + Future + Send + 'async_trait,
    {
        Box::pin(async move { within(Runtime::current().sleep(span), future).await })
    }
}

/// The future's output, or `TimedOut` once the sleep is over.
pub async fn within<F: Future>(sleep: Sleep, future: F) -> io::Result<F::Output> {
    let (mut sleep, mut future) = (pin!(sleep), pin!(future));
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Ok(output)),
        Poll::Pending => sleep.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into())),
    })
    .await
}
