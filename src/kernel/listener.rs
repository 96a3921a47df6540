//! Listeners: sockets that clients connect to.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
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
            Address::Unix(path) => Bound::Unix(Owned::make(|| bind_unix(path))?, path.clone()),
        };
        match &mut socket {
            Bound::Tcp(listener) => registry.register(&mut **listener, token, Interest::READABLE)?,
            Bound::Unix(listener, _) => registry.register(&mut **listener, token, Interest::READABLE)?,
        }
        Ok(Listener { socket, channel, conns: 0, meter: None })
    }

    /// Where it listens, as the rest of a URL.
    pub fn address(&self) -> String {
        match &self.socket {
            Bound::Tcp(listener) => listener.local_addr().map_or_else(|_| String::new(), |at| format!("//{at}")),
            Bound::Unix(_, path) => format!("//{path}"),
        }
    }

    pub fn accept(&self) -> io::Result<Stream> {
        match &self.socket {
            Bound::Tcp(listener) => {
                let stream = Owned::make(|| Ok(listener.accept()?.0))?;
                // Best effort: a client that is gone already shows at the first read.
                let _ = stream.set_nodelay(true);
                Ok(Stream::Tcp(stream))
            }
            Bound::Unix(listener, _) => Owned::make(|| Ok(listener.accept()?.0)).map(Stream::Unix),
        }
    }

    pub fn close(&mut self, registry: &Registry) {
        match &mut self.socket {
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

fn bind_tcp(host: &str, port: u16) -> io::Result<TcpListener> {
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

fn bind_unix(path: &str) -> io::Result<UnixListener> {
    let address = super::dial::unix_address(path.as_ref())?;
    match UnixListener::bind_addr(&address) {
        // A socket file that nobody listens on is left from a process that died.
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && !path.starts_with('@') => {
            match std::os::unix::net::UnixStream::connect_addr(&address) {
                Err(refused) if refused.kind() == io::ErrorKind::ConnectionRefused => {
                    std::fs::remove_file(path)?;
                    UnixListener::bind_addr(&address)
                }
                _ => Err(error),
            }
        }
        bound => bound,
    }
}
