//! Listeners: sockets that clients connect to.

use std::fs::{File, Permissions};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::time::Duration;

use mio::net::{TcpListener, UnixListener};
use mio::{Interest, Registry, Token};
use socket2::{Domain, Protocol as SocketProtocol, SockAddr, Socket, Type};

use super::dial::Stream;
use super::observing::own::PeerMeter;
use crate::config::Address;
use crate::sys::owned::Owned;

/// How long accepting pauses when the system has no file descriptor left.
pub const NO_FILES_PAUSE: Duration = Duration::from_millis(100);
/// Clients accepted in one turn.
pub const ACCEPT_BUDGET: usize = 64;
const BACKLOG: i32 = 1024;

enum Bound {
    /// It listens no more.
    Closed,
    Tcp(Owned<TcpListener>),
    Unix(Owned<UnixListener>, String),
}

pub struct Listener {
    socket: Bound,
    /// The channel that takes its requests.
    pub channel: u32,
    pub conns: usize,
    /// What is counted of all its clients.
    pub meter: Option<PeerMeter>,
}

impl Listener {
    /// Binds and begins to listen. The address may be an IP, `localhost`, or empty for loopback.
    pub fn bind(address: &Address, channel: u32, registry: &Registry, token: Token) -> io::Result<Self> {
        let mut socket = match address {
            Address::Host { host, port } => Bound::Tcp(Owned::make(|| bind_tcp(host, *port))?),
            Address::Unix(path) => Bound::Unix(Owned::make(|| bind_unix(path, None))?, path.clone()),
        };
        match &mut socket {
            Bound::Closed => {}
            Bound::Tcp(listener) => registry.register(&mut **listener, token, Interest::READABLE)?,
            Bound::Unix(listener, _) => registry.register(&mut **listener, token, Interest::READABLE)?,
        }
        Ok(Listener { socket, channel, conns: 0, meter: None })
    }

    /// Where it listens, as the rest of a URL.
    pub fn address(&self) -> String {
        match &self.socket {
            Bound::Closed => String::new(),
            Bound::Tcp(listener) => listener.local_addr().map_or_else(|_| String::new(), |at| format!("//{at}")),
            Bound::Unix(_, path) => format!("//{path}"),
        }
    }

    pub fn accept(&self) -> io::Result<Stream> {
        match &self.socket {
            Bound::Closed => Err(io::ErrorKind::WouldBlock.into()),
            Bound::Tcp(listener) => {
                let stream = Owned::make(|| Ok(listener.accept()?.0))?;
                // Best effort: a client that is gone already shows at the first read.
                let _ = stream.set_nodelay(true);
                Ok(Stream::Tcp(stream))
            }
            Bound::Unix(listener, _) => Owned::make(|| Ok(listener.accept()?.0)).map(Stream::Unix),
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
                if !path.starts_with('@') {
                    let _ = std::fs::remove_file(path);
                }
            }
        }
    }
}

/// A socket that listens on an IP address, `localhost`, or `*` for all of IPv4.
pub fn bind_tcp(host: &str, port: u16) -> io::Result<TcpListener> {
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
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::from(address))?;
    socket.listen(BACKLOG)?;
    Ok(TcpListener::from_std(socket.into()))
}

/// A unix socket that listens; `@` names an abstract one. With a `mode`, its file never has another: Linux gives the
/// file the mode of the socket's own inode, which is set before there is a file.
pub fn bind_unix(path: &str, mode: Option<u32>) -> io::Result<UnixListener> {
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
    socket.listen(BACKLOG)?;
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
