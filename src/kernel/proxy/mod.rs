//! Conns through a proxy (`proxy=`): the proxy is dialled in the peer's place, and asked for a tunnel before anything else
//! is said.
//!
//! * [`http`]: CONNECT. [`socks`]: SOCKS5. Neither reads a byte past its own end: what follows is the tunnel's.
//!
//! # Architecture invariants
//! The handshakes know no socket and no clock.

mod http;
mod socks;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::SocketAddr;

use super::dial::Stream;
use super::greeting::Handshake;
use super::io::Io;
use crate::config::{Address, ConfigError, Options, Url};
use crate::discovery::dns::LookupId;
use crate::peer::{Peer, Place};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Http,
    Socks,
}

/// What the URL says of a proxy.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    kind: Kind,
    /// Names are looked up by the proxy.
    pub resolves: bool,
    host: String,
    port: u16,
    /// Never shown.
    credentials: Option<(String, String)>,
}

const EXPECTED: &str = "http://, socks5:// or socks5h://, user:password@ if it wants them, host and port";

impl Proxy {
    /// Takes `proxy=`, of an endpoint that is at this address.
    pub fn take(options: &mut Options, address: &Address) -> Result<Option<Box<Self>>, ConfigError> {
        let Some(text) = options.text("proxy").filter(|text| !text.is_empty()) else { return Ok(None) };
        let shown = crate::config::redact(&text);
        let bad = |expected: &str| ConfigError::new("proxy", &shown, expected);
        if matches!(address, Address::Unix(_)) {
            return Err(bad("no proxy for a unix socket"));
        }
        let port = |scheme: &str| match scheme {
            "http" => Some(80),
            "socks5" | "socks5h" => Some(1080),
            _ => None,
        };
        let url = Url::parse(&text, port).map_err(|_| bad(EXPECTED))?;
        let plain = url.via.is_none() && url.hosts.len() == 1 && url.path.is_empty() && url.options.finish().is_ok();
        let Address::Host { host, port } = url.address else { return Err(bad(EXPECTED)) };
        if !plain {
            return Err(bad(EXPECTED));
        }
        let kind = if url.scheme == "http" { Kind::Http } else { Kind::Socks };
        let credentials = url.user.map(|user| (user, url.password.unwrap_or_default()));
        if let Some((user, password)) = &credentials {
            // RFC 1929, section 2; RFC 7617, section 2.
            if kind == Kind::Socks && (user.len() > 255 || password.len() > 255) {
                return Err(bad("a user and a password of at most 255 bytes"));
            }
            if kind == Kind::Http && user.contains(':') {
                return Err(bad("a user without a colon"));
            }
        }
        Ok(Some(Box::new(Proxy { kind, resolves: url.scheme != "socks5", host, port, credentials })))
    }

    fn handshake(&self, target: &Target) -> Box<dyn Handshake> {
        match self.kind {
            Kind::Http => Box::new(http::Http::new(target, self.credentials.as_ref())),
            Kind::Socks => Box::new(socks::Socks::new(target, self.credentials.as_ref())),
        }
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = Address::Host { host: self.host.clone(), port: self.port };
        write!(f, "the proxy {host}")
    }
}

/// Where a tunnel is to lead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Name(String, u16),
    Address(SocketAddr),
}

impl Target {
    /// Of a peer. `turn` chooses among its addresses, so that another attempt tries another one.
    fn of(peer: &Peer, resolves: bool, turn: usize) -> Option<Self> {
        let (host, port) = peer.host()?;
        if let Ok(ip) = host.parse() {
            return Some(Target::Address(SocketAddr::new(ip, port)));
        }
        let places = peer.places.iter().filter_map(|place| match place {
            Place::Tcp(address) => Some(*address),
            Place::Unix(_) => None,
        });
        let places: Vec<SocketAddr> = places.collect();
        Some(match places.is_empty() || resolves {
            true => Target::Name(host.into(), port),
            false => Target::Address(places[turn % places.len()]),
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Name(host, port) => write!(f, "{host}:{port}"),
            Target::Address(address) => address.fmt(f),
        }
    }
}

impl Io {
    /// Begins a conn through its endpoint's proxy. False if there is none.
    pub(super) fn dial_proxy(&mut self, key: u32, peer: &Peer) -> bool {
        let Some(conn) = self.conns.get_mut(key as usize) else { return false };
        let Some(proxy) = self.endpoints[conn.endpoint as usize].options.proxy.as_deref() else { return false };
        let Some(target) = Target::of(peer, proxy.resolves, conn.number as usize) else { return false };
        let unresolved = match &target {
            Target::Name(host, _) if !proxy.resolves => Some(host.clone()),
            _ => None,
        };
        conn.tunnel = Some(target);
        match unresolved {
            Some(host) => self.resolver.lookup(self.core.now(), LookupId(u64::from(key)), &host),
            None => self.reach_proxy(key),
        }
        true
    }

    /// Dials the proxy itself.
    fn reach_proxy(&mut self, key: u32) {
        let Some(conn) = self.conns.get(key as usize) else { return };
        let Some(proxy) = self.endpoints[conn.endpoint as usize].options.proxy.as_deref() else { return };
        match proxy.host.parse() {
            Ok(ip) => {
                let place = Place::Tcp(SocketAddr::new(ip, proxy.port));
                self.start_dialling(key, vec![place]);
            }
            Err(_) => {
                let host = proxy.host.clone();
                self.resolver.lookup(self.core.now(), LookupId(u64::from(key)), &host);
            }
        }
        self.rearm(key);
    }

    /// A name has come to addresses: the port to dial them at, unless they were those of a tunnel's end.
    pub(super) fn resolved_for_proxy(&mut self, key: u32, ips: &[std::net::IpAddr]) -> Option<u16> {
        let conn = self.conns.get_mut(key as usize)?;
        let proxy = self.endpoints[conn.endpoint as usize].options.proxy.as_deref()?;
        match &conn.tunnel {
            Some(Target::Name(_, port)) if !proxy.resolves && !ips.is_empty() => {
                conn.tunnel = Some(Target::Address(SocketAddr::new(ips[conn.number as usize % ips.len()], *port)));
                self.reach_proxy(key);
                None
            }
            _ => Some(proxy.port),
        }
    }

    /// The socket to a proxy stands: it is asked for its tunnel. The stream comes back if there is no proxy.
    pub(super) fn greet(&mut self, key: u32, stream: Stream) -> Option<Stream> {
        let conn = self.conns.get_mut(key as usize)?;
        let proxy = self.endpoints[conn.endpoint as usize].options.proxy.as_deref();
        let (Some(proxy), Some(target)) = (proxy, &conn.tunnel) else { return Some(stream) };
        let handshake = proxy.handshake(target);
        self.begin_greeting(key, stream, handshake);
        None
    }

    /// What went wrong on the way to a peer, with the proxy's name if it is one's fault.
    pub(super) fn through_proxy(&self, key: u32, why: String) -> String {
        let Some(conn) = self.conns.get(key as usize).filter(|conn| conn.tunnel.is_some()) else { return why };
        match &self.endpoints[conn.endpoint as usize].options.proxy {
            Some(proxy) => format!("{} through {proxy}: {why}", conn.peer_name),
            None => why,
        }
    }
}
