//! One peer as people and programs write it: an address, and perhaps its weight, priority and role.

use crate::peer::{Peer, Place, Role};

/// The most peers that a file or a program may tell.
pub const PEERS_MAX: usize = 4096;

pub const ADDRESS_EXPECTED: &str = "host:port, [v6]:port or unix:/path";

/// The keys of an entry, and what each is.
pub const KEYS_EXPECTED: &str = "one of address, weight, priority, role";

/// An entry that is being read.
#[derive(Debug, Default)]
pub struct Entry {
    peer: Option<Peer>,
    weight: Option<u16>,
    priority: Option<u16>,
    role: Option<Role>,
}

/// A value as it was written.
#[derive(Clone, Copy, Debug)]
pub enum Given<'a> {
    Text(&'a str),
    Number(i64),
    /// Something else, as it is to be shown.
    Other(&'a str),
}

impl std::fmt::Display for Given<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Given::Text(text) => write!(f, "{:?}", text.chars().take(80).collect::<String>()),
            Given::Number(number) => number.fmt(f),
            Given::Other(what) => f.write_str(what),
        }
    }
}

impl Entry {
    /// An error says which value, and what was expected.
    pub fn set(&mut self, key: &str, given: Given<'_>) -> Result<(), String> {
        let bad = |expected: &str| format!("{key}: {given}: expected {expected}");
        let number = |given| match given {
            Given::Number(number) => u16::try_from(number).map_err(|_| bad("a whole number from 0 to 65535")),
            _ => Err(bad("a whole number from 0 to 65535")),
        };
        match key {
            "address" => self.peer = Some(address(given).ok_or_else(|| bad(ADDRESS_EXPECTED))?),
            "weight" => self.weight = Some(number(given)?),
            "priority" => self.priority = Some(number(given)?),
            "role" => self.role = Some(role(given).ok_or_else(|| bad("primary or replica"))?),
            _ => return Err(bad(&format!("no such key, but {KEYS_EXPECTED}"))),
        }
        Ok(())
    }

    pub fn finish(self) -> Result<Peer, String> {
        let peer = self.peer.ok_or_else(|| format!("address: missing: expected {ADDRESS_EXPECTED}"))?;
        Ok(Peer {
            weight: self.weight.unwrap_or(peer.weight),
            priority: self.priority.unwrap_or(peer.priority),
            role: self.role.unwrap_or(peer.role),
            ..peer
        })
    }
}

fn address(given: Given<'_>) -> Option<Peer> {
    let Given::Text(text) = given else { return None };
    match text.strip_prefix("unix:") {
        Some("") => None,
        Some(path) => Some(Peer::new(path, vec![Place::Unix(path.into())])),
        None => Peer::parse(text),
    }
}

fn role(given: Given<'_>) -> Option<Role> {
    let Given::Text(text) = given else { return None };
    [Role::Primary, Role::Replica].into_iter().find(|role| role.name() == text)
}

/// Two entries with one name would be one peer with two minds.
pub fn refuse_doubles(peers: &[Peer]) -> Result<(), (usize, String)> {
    let mut names = std::collections::HashMap::new();
    for (index, peer) in peers.iter().enumerate() {
        if let Some(first) = names.insert(peer.name.as_str(), index) {
            return Err((index, format!("{:?}: expected each address once, it is entry {first} too", peer.name)));
        }
    }
    Ok(())
}
