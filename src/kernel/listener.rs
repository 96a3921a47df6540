//! Listeners: sockets that clients connect to.

use std::fs::{File, Permissions};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::time::Duration;

use mio::net::{TcpListener, UnixListener};
use mio::{Interest, Registry, Token};
use socket2::{Domain, Protocol as SocketProtocol, SockAddr, SockRef, Socket, Type};

use super::dial::Stream;
use super::observing::own::PeerMeter;
use crate::config::{Address, ConfigError, Options};
use crate::sys::owned::Owned;

/// How long accepting pauses when the system has no file descriptor left.
pub const NO_FILES_PAUSE: Duration = Duration::from_millis(100);
/// The same where so many handshakes are under way that there is no room for another.
pub const NO_ROOM_PAUSE: Duration = Duration::from_millis(1);
/// Clients accepted in one turn.
pub const ACCEPT_BUDGET: usize = 64;
pub const BACKLOG: i32 = 1024;
pub const BACKLOG_MAX: u64 = 65_535;
/// Bytes that a client's socket takes before it can send them (tcp(7), TCP_NOTSENT_LOWAT). What a slow reader leaves waits
/// with whoever makes it, and not in the system's memory, megabytes for each.
const UNSENT_BYTES: u32 = 256 << 10;

enum Bound {
    /// It listens no more.
    Closed,
    Tcp(Owned<TcpListener>),
    /// With the path of the file that it leaves.
    Unix(Owned<UnixListener>, Option<String>),
}

/// How its socket is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketOptions {
    /// Several processes listen, each on a socket of its own, and the system shares the clients out (SO_REUSEPORT).
    reuse_port: bool,
    backlog: i32,
    /// The system probes clients that are silent for so long.
    keepalive: Option<Duration>,
    /// A socket that the program was given (systemd, gunicorn): it listens already, and stays the program's own.
    fd: Option<i32>,
}

impl Default for SocketOptions {
    fn default() -> Self {
        SocketOptions { reuse_port: false, backlog: BACKLOG, keepalive: None, fd: None }
    }
}

impl SocketOptions {
    pub fn take(options: &mut Options, keepalive: Option<Duration>) -> Result<Self, ConfigError> {
        let given = options.has("fd");
        let fd = options.number("fd", 0, 0..=i32::MAX as u64)? as i32;
        Ok(SocketOptions {
            reuse_port: options.flag("reuse_port", false)?,
            backlog: options.number("backlog", BACKLOG as u64, 1..=BACKLOG_MAX)? as i32,
            keepalive,
            fd: given.then_some(fd),
        })
    }
}

pub struct Listener {
    socket: Bound,
    /// Others may have the same socket, and listen on.
    is_shared: bool,
    /// The channel that takes its requests.
    pub channel: u32,
    pub conns: usize,
    /// What is counted of all its clients.
    pub meter: Option<PeerMeter>,
}

impl Listener {
    /// Binds and begins to listen. The address may be an IP, `localhost`, or empty for loopback.
    pub fn bind(
        address: &Address,
        options: &SocketOptions,
        channel: u32,
        registry: &Registry,
        token: Token,
    ) -> io::Result<Self> {
        let mut socket = match (options.fd, address) {
            (Some(fd), _) => adopt(fd, options)?,
            (None, Address::Host { host, port }) => Bound::Tcp(Owned::make(|| bind_tcp(host, *port, options))?),
            (None, Address::Unix(path)) => {
                Bound::Unix(Owned::make(|| bind_unix(path, None, options.backlog))?, Some(path.clone()))
            }
        };
        match &mut socket {
            Bound::Closed => {}
            Bound::Tcp(listener) => registry.register(&mut **listener, token, Interest::READABLE)?,
            Bound::Unix(listener, _) => registry.register(&mut **listener, token, Interest::READABLE)?,
        }
        Ok(Listener { socket, is_shared: options.fd.is_some(), channel, conns: 0, meter: None })
    }

    /// Where it listens, as the rest of a URL.
    pub fn address(&self) -> String {
        match &self.socket {
            Bound::Closed => String::new(),
            Bound::Tcp(listener) => listener.local_addr().map_or_else(|_| String::new(), |at| format!("//{at}")),
            Bound::Unix(_, Some(path)) => format!("//{path}"),
            Bound::Unix(listener, None) => {
                let address = listener.local_addr().ok();
                let path = address.as_ref().and_then(|address| address.as_pathname());
                path.map_or_else(|| "//".into(), |path| format!("//{}", path.display()))
            }
        }
    }

    pub fn accept(&self) -> io::Result<Stream> {
        match &self.socket {
            Bound::Closed => Err(io::ErrorKind::WouldBlock.into()),
            Bound::Tcp(listener) => Owned::make(|| Ok(listener.accept()?.0)).map(Stream::Tcp),
            Bound::Unix(listener, _) => Owned::make(|| Ok(listener.accept()?.0)).map(Stream::Unix),
        }
    }

    /// Lets nobody new begin to connect; who has begun may still be accepted, and comes at once. False where that cannot
    /// be, because the socket is not its alone.
    pub fn bar(&mut self) -> bool {
        match &mut self.socket {
            Bound::Tcp(listener) if !self.is_shared => crate::sys::socket::drop_syns(&**listener).is_ok(),
            Bound::Unix(_, path) if !self.is_shared => {
                path.take_if(|path| !path.starts_with('@')).is_some_and(|path| std::fs::remove_file(path).is_ok())
            }
            _ => false,
        }
    }

    /// Listens no more; where it did stays known.
    pub fn stop(&mut self, registry: &Registry) {
        self.close(registry);
        self.socket = Bound::Closed;
    }

    pub fn close(&mut self, registry: &Registry) {
        match &mut self.socket {
            Bound::Closed => {}
            Bound::Tcp(listener) => {
                let _ = registry.deregister(&mut **listener);
            }
            Bound::Unix(listener, path) => {
                let _ = registry.deregister(&mut **listener);
                if let Some(path) = path.as_ref().filter(|path| !path.starts_with('@')) {
                    let _ = std::fs::remove_file(path);
                }
            }
        }
    }
}

/// A duplicate of a socket that listens already.
fn adopt(fd: i32, options: &SocketOptions) -> io::Result<Bound> {
    let wrong = |what: &str| {
        let text = format!("fd={fd}: {what}: expected a stream socket that listens");
        io::Error::new(io::ErrorKind::InvalidInput, text)
    };
    let file = crate::sys::file::duplicate(fd).map_err(|error| wrong(&error.to_string()))?;
    let socket = SockRef::from(&file);
    if !socket.is_listener().unwrap_or(false) {
        return Err(wrong("not a socket that listens"));
    }
    socket.set_nonblocking(true)?;
    let domain = socket.domain()?;
    let own = || file.as_fd().try_clone_to_owned();
    if domain == Domain::UNIX {
        Owned::make(|| Ok(UnixListener::from_std(own()?.into()))).map(|listener| Bound::Unix(listener, None))
    } else {
        for_clients(&socket, options);
        Owned::make(|| Ok(TcpListener::from_std(own()?.into()))).map(Bound::Tcp)
    }
}

/// What clients' sockets inherit from the one that listens. Best effort: a system without one of them does without.
fn for_clients(socket: &SockRef<'_>, options: &SocketOptions) {
    let _ = socket.set_tcp_nodelay(true);
    let _ = socket.set_tcp_notsent_lowat(UNSENT_BYTES);
    let _ = options.keepalive.map(|idle| super::dial::keep_alive(socket, idle));
}

/// A socket that listens on an IP address, `localhost`, or `*` for all of IPv4.
pub fn bind_tcp(host: &str, port: u16, options: &SocketOptions) -> io::Result<TcpListener> {
    let ip: IpAddr = match host {
        "localhost" => Ipv4Addr::LOCALHOST.into(),
        "*" => Ipv4Addr::UNSPECIFIED.into(),
        host => host.parse().map_err(|_| {
            let text = format!("{host:?}: expected an IP address to listen on, or localhost");
            io::Error::new(io::ErrorKind::InvalidInput, text)
        })?,
    };
    let address = SocketAddr::new(ip, port);
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(SocketProtocol::TCP))?;
    socket.set_reuse_address(true)?;
    if options.reuse_port {
        socket.set_reuse_port(true)?;
    }
    for_clients(&SockRef::from(&socket), options);
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::from(address))?;
    socket.listen(options.backlog)?;
    Ok(TcpListener::from_std(socket.into()))
}

/// A unix socket that listens; `@` names an abstract one. With a `mode`, its file never has another: Linux gives the
/// file the mode of the socket's own inode, which is set before there is a file.
pub fn bind_unix(path: &str, mode: Option<u32>, backlog: i32) -> io::Result<UnixListener> {
    let address = match path.strip_prefix('@') {
        Some(name) => SockAddr::unix(format!("\0{name}"))?,
        None => SockAddr::unix(path)?,
    };
    let mut socket: OwnedFd = Socket::new(Domain::UNIX, Type::STREAM, None)?.into();
    if let Some(mode) = mode {
        let file = File::from(socket);
        file.set_permissions(Permissions::from_mode(mode))?;
        socket = file.into();
    }
    let socket = Socket::from(socket);
    socket.set_nonblocking(true)?;
    match socket.bind(&address) {
        // A socket file that nobody listens on is left from a process that died.
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && !path.starts_with('@') => {
            if !is_abandoned(path)? {
                return Err(error);
            }
            std::fs::remove_file(path)?;
            socket.bind(&address)?;
        }
        bound => bound?,
    }
    socket.listen(backlog)?;
    Ok(UnixListener::from_std(socket.into()))
}

/// True for a socket that refuses connections. A file that is none refuses them too, and is not ours to remove.
fn is_abandoned(path: &str) -> io::Result<bool> {
    if !std::fs::symlink_metadata(path)?.file_type().is_socket() {
        return Ok(false);
    }
    // Never blocks: a backlog that is full is an answer, too.
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    Ok(socket.connect(&SockAddr::unix(path)?).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_inherit_what_the_socket_that_listens_was_told() {
        let options = SocketOptions { keepalive: Some(Duration::from_secs(7)), ..SocketOptions::default() };
        let listener = bind_tcp("localhost", 0, &options).unwrap();
        let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, _) = listener.accept().unwrap();
        assert!(stream.nodelay().unwrap());
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(7));
        assert_eq!(socket.tcp_notsent_lowat().unwrap(), UNSENT_BYTES);
    }
}
