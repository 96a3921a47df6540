//! The kernel: one I/O thread and all it owns.
//!
//! Who turns the loop, the kernel's own thread or one of the program's that waits anyway, is in [`lead`]. A turn
//! ([`turn`]) takes submissions ([`submit`]), writes ([`writing`]), waits, reads ([`reading`]), fires timers
//! ([`wheel`]) and publishes completions ([`channel`]). What happens to one conn is in [`io`] and [`conn`]; what a
//! router may do about it in [`acts`]; how requests go on without a reply in [`endings`]; what a request is in
//! [`request`] and [`core`], and what more than one message of it makes in [`exchange`]; how a listener leaves in
//! [`leaving`]; how a conn goes through a [`proxy`], and how it is encrypted ([`tls`], under [`line`]).
//!
//! # Architecture invariants
//! No protocol is named here. The loop never blocks but in its poll and never calls foreign code; its own thread
//! takes no signal. A panic ends the conn that caused it; one that nothing nearer contains ends the kernel with a
//! status.

pub mod acts;
mod aside;
pub mod channel;
pub mod conn;
pub mod core;
pub mod dial;
pub mod endings;
pub mod endpoint;
mod exchange;
mod files;
mod greeting;
pub mod io;
mod lead;
mod leaving;
mod line;
pub mod listener;
pub mod observing;
pub mod options;
mod proxy;
mod reading;
pub mod request;
pub mod shared;
pub mod silence;
pub mod sink;
pub mod sources;
pub mod state;
pub mod submit;
#[cfg(not(feature = "tls"))]
#[path = "no_tls.rs"]
mod tls;
#[cfg(feature = "tls")]
mod tls;
pub mod turn;
pub mod wheel;
mod writing;

#[cfg(test)]
mod tests;

use std::io::Error;
use std::os::fd::{AsRawFd, RawFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use channel::ChannelConfig;
use lead::Helm;
use mio::unix::SourceFd;
use mio::{Interest, Poll};
use observing::own::Own;
use observing::{Observing, ObservingConfig};
use shared::{Control, Shared};
use turn::NEVER_NS;

use crate::config::{ConfigError, Options};
use crate::discovery::dns::{Resolver, ResolverConfig};
use crate::observe::area::Area;
use crate::ring::app::AppSide;
use crate::ring::region::Region;
use crate::ring::wake::Bell;
use crate::status::*;
use crate::sys::clock::monotonic_ns;
use crate::sys::owned::Owned;
use crate::sys::signal::Door;

/// How long past its drain time a close waits for the thread.
const CLOSE_GRACE: Duration = Duration::from_secs(2);
/// Sockets that name lookups may have open at a time.
const DNS_SOCKETS: usize = 64;

/// An error with its status.
#[derive(Debug)]
pub struct Failure {
    pub status: Status,
    pub message: String,
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Failure { status: IOK_STATUS_BAD_CONFIG, message: error.to_string() }
    }
}

impl Failure {
    fn system(call: &str, error: &Error) -> Self {
        let status = match error.kind() {
            std::io::ErrorKind::OutOfMemory => IOK_STATUS_NO_MEMORY,
            _ if crate::sys::out_of_files(error) => IOK_STATUS_NO_FILES,
            _ => IOK_STATUS_SYSTEM,
        };
        Failure { status, message: format!("{call}: {error}") }
    }
}

/// The area of `metrics=`: a file by its path, or one of that name in /dev/shm; else that of this process.
fn metrics_area(place: Option<String>) -> Result<Area, Failure> {
    let Some(place) = place else {
        return Area::of_process().map_err(|error| Failure::system("the area of metrics", &error));
    };
    let path = match place.as_str() {
        path if path.starts_with('/') => PathBuf::from(path),
        "" => return Err(ConfigError::new("metrics", "", "a name, or the path of a file").into()),
        name if name.contains('/') => {
            return Err(ConfigError::new("metrics", name, "a name without /, or a path that begins with /").into());
        }
        name => PathBuf::from(format!("/dev/shm/iokernel-{name}")),
    };
    Area::open(Some(&path)).map_err(|error| match error.kind() {
        std::io::ErrorKind::OutOfMemory => Failure::system("the area of metrics", &error),
        _ if crate::sys::out_of_files(&error) => Failure::system("the area of metrics", &error),
        _ => {
            let expected = format!("a file that can be shared: {}: {error}", path.display());
            ConfigError::new("metrics", &place, expected).into()
        }
    })
}

/// A running I/O thread, from the outside.
pub struct Kernel {
    shared: Arc<Shared>,
    helm: Arc<Helm>,
    channel_ids: AtomicU64,
    area: Area,
    /// By which threads are asked where they are.
    stack_signal: i32,
    stack: Mutex<Option<Door>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Kernel {
    /// Starts the thread. `config` takes `name` (at most 15 bytes, the thread's), `resolv_conf` and `hosts` (files to read
    /// instead of the system's).
    pub fn open(config: &str) -> Result<Self, Failure> {
        let mut options = Options::parse(config)?;
        let given = options.shown();
        let name = options.text("name").unwrap_or_else(|| "iokernel".into());
        if name.len() > 15 || name.bytes().any(|byte| byte == 0) || name.is_empty() {
            return Err(ConfigError::new("name", &name, "1 to 15 bytes").into());
        }
        let mut names = ResolverConfig::system();
        if let Some(path) = options.text("resolv_conf") {
            names.resolv_conf = Some(path.into());
        }
        if let Some(path) = options.text("hosts") {
            names.hosts = Some(path.into());
        }
        let area = metrics_area(options.text("metrics"))?;
        let observing = ObservingConfig { given, ..ObservingConfig::take(&mut options)? };
        options.finish()?;
        let stack_signal = observing.stack.signal;
        let bell = Arc::new(Bell::new().map_err(|error| Failure::system("eventfd", &error))?);
        let io = Owned::with(|| Kernel::prepare(&bell, names, Own::new(area, &name), observing))?;
        let shared = Arc::new(Shared::new(bell));
        let helm = Arc::new(Helm::new(&io, shared.clone()));
        let own = helm.clone();
        let thread = crate::sys::thread::spawn_without_signals(name, move || own.run(io))
            .map_err(|error| Failure::system("clone", &error))?;
        let (channel_ids, thread) = (AtomicU64::new(1), Mutex::new(Some(thread)));
        Ok(Kernel { shared, helm, channel_ids, area, stack_signal, stack: Mutex::default(), thread })
    }

    /// What the thread will own, and the descriptors of its poll.
    fn prepare(
        bell: &Bell,
        names: ResolverConfig,
        own: Own,
        observing: ObservingConfig,
    ) -> Result<(io::Io, [RawFd; 3]), Failure> {
        let poll = Poll::new().map_err(|error| Failure::system("epoll_create1", &error))?;
        let fd = bell.event().as_raw_fd();
        let registry = poll.registry().try_clone().map_err(|error| Failure::system("dup", &error))?;
        registry
            .register(&mut SourceFd(&fd), io::BELL_TOKEN, Interest::READABLE)
            .map_err(|error| Failure::system("epoll_ctl", &error))?;
        let names_fd = registry.as_raw_fd();
        let resolver = Resolver::new(registry, io::DNS_TOKENS..io::DNS_TOKENS + DNS_SOCKETS, names);
        let observing = Observing::prepare(&own, observing, poll.registry())?;
        let io = io::Io::new(poll, resolver, observing, own).map_err(|error| Failure::system("dup", &error))?;
        let fds = [io.poll.as_raw_fd(), io.registry.as_raw_fd(), names_fd];
        Ok((io, fds))
    }

    /// Opens a channel: the program's end, and the number by which it is closed.
    pub fn open_channel(&self, config: &str) -> Result<(AppSide, u64), Failure> {
        self.ask_open()?;
        let config = ChannelConfig::parse(config)?;
        let region = Region::new(config.ring_bytes, config.ring_bytes)
            .map_err(|error| Failure::system("the channel's memory", &error))?;
        let region = Arc::new(region);
        let key = self.channel_ids.fetch_add(1, Ordering::Relaxed);
        self.shared.ask(Control::OpenChannel { region: region.clone(), config, key });
        let mut app = AppSide::new(region, self.shared.bell.clone(), config.ring_bytes, config.message_bytes_max);
        app.mark_by(self.area.markers());
        Ok((app, key))
    }

    /// The cells of a series, by its description: see [`observing::cells`].
    pub fn cells(&self, spec: &str) -> Result<&'static [AtomicU64], Failure> {
        self.ask_open()?;
        observing::cells::cells(self.area, spec)
    }

    /// The words in which the thread that asks says what it is doing.
    pub fn marker_slot(&self) -> Result<&'static [AtomicU64], Failure> {
        self.ask_open()?;
        observing::cells::marker_slot(self.area)
    }

    /// Has the submissions of a channel taken: by this thread where that is cheaper than a wake. As `iok_flush`.
    pub fn flush(&self, app: &mut AppSide) {
        if !(app.is_worth_lending() && self.helm.lend()) {
            app.flush();
        }
    }

    /// Waits for a channel: leads the loop meanwhile if nobody else does, else sleeps. As `iok_wait`.
    pub fn wait(&self, app: &mut AppSide, timeout: Option<Duration>) -> Status {
        if app.has_cause() {
            app.flush();
            return app.cause();
        }
        if timeout == Some(Duration::ZERO) {
            return app.wait(timeout);
        }
        let deadline_ns = timeout.map_or(NEVER_NS, |span| monotonic_ns().saturating_add(span.as_nanos() as u64));
        self.helm.lead(app, deadline_ns).unwrap_or_else(|| {
            app.wait(timeout.map(|_| Duration::from_nanos(deadline_ns.saturating_sub(monotonic_ns()))))
        })
    }

    fn ask_open(&self) -> Result<(), Failure> {
        match self.shared.is_finished() {
            true => Err(Failure { status: IOK_STATUS_CLOSED, message: "the kernel was closed".into() }),
            false => Ok(()),
        }
    }

    pub fn close_channel(&self, key: u64) {
        self.shared.ask(Control::CloseChannel { key });
    }

    /// Lets the I/O thread ask the program's threads where they are. The signal, and where a handler of the runtime's
    /// writes its text.
    pub fn open_stack(&self) -> Result<(i32, RawFd), Failure> {
        let mut stack = self.stack.lock().unwrap_or_else(PoisonError::into_inner);
        if stack.is_none() {
            *stack = Some(Door::open(self.stack_signal).map_err(|error| Failure::system("the stack's pipe", &error))?);
        }
        Ok(stack.as_ref().map_or((0, -1), |door| (door.signal(), door.text_fd())))
    }

    /// The runtime's handler is installed, if it has one. `late`: it writes at its next safe point.
    pub fn arm_stack(&self, late: bool) -> Result<(), Failure> {
        let stack = self.stack.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(door) = stack.as_ref() else {
            return Err(ConfigError::new("kernel", "", "iok_stack_open before iok_stack_arm").into());
        };
        door.arm(late).map_err(|error| Failure::system("sigaction", &error))
    }

    /// True if that was the last use in this process and the program's handler is in its place again.
    pub fn close_stack(&self) -> bool {
        let door = self.stack.lock().unwrap_or_else(PoisonError::into_inner).take();
        door.is_some_and(Door::close)
    }

    /// Lets requests under way finish for at most `drain`, ends the rest, and waits for the thread. False if the thread
    /// has not ended in time (it then ends by itself).
    pub fn close(&self, drain: Duration) -> bool {
        self.close_stack();
        self.shared.ask(Control::Close { drain });
        let finished = self.shared.wait_finished(drain + CLOSE_GRACE);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take_if(|_| finished);
        // What it says of its end comes a moment before it has let go of its descriptors. Its panics were contained.
        let _ = thread.map(JoinHandle::join);
        finished
    }
}
