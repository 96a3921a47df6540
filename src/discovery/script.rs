//! A kernel for the sources' own tests: it remembers what it was asked, and time is what the test says.

use super::{Ask, Query};
use crate::peer::Peer;

#[derive(Debug, Default)]
pub struct Script {
    pub lookups: Vec<(Query, String)>,
    pub services: Vec<(Query, String)>,
    pub requests: Vec<(Query, usize, Vec<u8>)>,
    pub streams: Vec<(Query, usize, Vec<u8>)>,
    pub sets: Vec<Vec<Peer>>,
    pub unknown: Vec<String>,
}

impl Script {
    /// The names of the latest set, with their roles where those are known.
    pub fn shown(&self) -> Vec<String> {
        let show = |peer: &Peer| match peer.role {
            crate::peer::Role::Unknown => peer.name.clone(),
            role => format!("{} {}", role.name(), peer.name),
        };
        let mut shown: Vec<String> = self.sets.last().into_iter().flatten().map(show).collect();
        shown.sort();
        shown
    }
}

impl Ask for Script {
    fn lookup(&mut self, query: Query, host: &str) {
        self.lookups.push((query, host.into()));
    }

    fn lookup_services(&mut self, query: Query, name: &str) {
        self.services.push((query, name.into()));
    }

    fn request(&mut self, query: Query, service: usize, body: &[u8]) {
        self.requests.push((query, service, body.into()));
    }

    fn stream(&mut self, query: Query, service: usize, body: &[u8]) {
        self.streams.push((query, service, body.into()));
    }

    fn set_peers(&mut self, peers: Vec<Peer>) {
        self.sets.push(peers);
    }

    fn unknown(&mut self, why: &str) {
        self.unknown.push(why.into());
    }
}
