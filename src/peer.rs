//! Who a service consists of: the words that discovery, router, protocols and kernel share.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Where a peer can be dialled.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    Tcp(SocketAddr),
    /// A path in the file system; a leading `@` names an abstract socket.
    Unix(PathBuf),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Tcp(address) => address.fmt(f),
            Place::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// What a peer is to its service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    #[default]
    Unknown,
    /// Takes writes.
    Primary,
    /// Follows a primary, and serves reads.
    Replica,
}

impl Role {
    pub fn name(self) -> &'static str {
        match self {
            Role::Unknown => "unknown",
            Role::Primary => "primary",
            Role::Replica => "replica",
        }
    }
}

/// Which peers an endpoint's requests may go to (`role=`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wanted {
    Primary,
    Replica,
    /// Replicas, and whoever else there is while there is none.
    PreferReplica,
    /// All of them alike; what they are is not asked.
    #[default]
    Any,
    /// The one that answers soonest, whatever its role.
    Nearest,
}

/// One peer of a service, as its source tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its own within the set, and what people are shown: `host:port`, `[v6]:port` or the path of a unix socket.
    pub name: String,
    /// What to dial, raced in this order (RFC 8305). Empty: the host in the name is looked up for each dial.
    pub places: Vec<Place>,
    /// The name that its certificate must be for, where that is not the host of its own name.
    pub server_name: Option<String>,
    /// As in SRV records (RFC 2782): peers of the lowest number are used while any of them can be.
    pub priority: u16,
    /// Its share among peers of one priority. 0 counts as the least.
    pub weight: u16,
    /// What the source says it is. `Unknown`: the peer itself is believed.
    pub role: Role,
}

impl Peer {
    /// A peer with no more known of it.
    pub fn new(name: impl Into<String>, places: Vec<Place>) -> Self {
        Peer { name: name.into(), places, server_name: None, priority: 0, weight: 1, role: Role::Unknown }
    }

    /// A peer at `host:port`; an IP address needs no lookup.
    pub fn at(host: &str, port: u16) -> Self {
        match host.parse() {
            Ok(ip) => {
                let address = SocketAddr::new(ip, port);
                Peer::new(address.to_string(), vec![Place::Tcp(address)])
            }
            Err(_) => Peer::new(format!("{host}:{port}"), Vec::new()),
        }
    }

    /// `host:port` as text, IPv6 in brackets or not: the port is what follows the last colon.
    pub fn parse(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let valid = !host.is_empty() && host.len() <= 255 && !host.contains(char::is_whitespace);
        valid.then(|| port.parse().ok().filter(|port| *port != 0)).flatten().map(|port| Peer::at(host, port))
    }

    /// The host and port of its name, unless it is a unix socket.
    pub fn host(&self) -> Option<(&str, u16)> {
        let (host, port) = self.name.rsplit_once(':')?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        Some((host, port.parse().ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_shown_alike() {
        for text in ["10.0.0.1:6379", "[::1]:7", "cache.internal:6379"] {
            let peer = Peer::parse(text).unwrap();
            assert_eq!(peer.name, text);
            assert_eq!(peer.places.is_empty(), text.starts_with("cache"));
        }
        assert_eq!(Peer::parse("::1:7").unwrap().name, "[::1]:7");
        assert_eq!(Peer::parse("[::1]:7").unwrap().host(), Some(("::1", 7)));
        for text in ["", "host", ":7", "host:", "host:0", "host:65536", "a b:7"] {
            assert!(Peer::parse(text).is_none(), "{text}");
        }
    }
}
