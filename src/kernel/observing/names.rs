//! What endpoints and peers are called by the parts that hear of a request's end. By then its conn may be gone, and
//! `Core`, which ends requests, knows neither endpoints nor conns.

use std::collections::HashMap;
use std::sync::Arc;

use crate::config::Address;
use crate::kernel::io::Io;
use crate::proto::Tracing;

/// A service.
#[derive(Clone, Debug)]
pub struct EndpointName {
    pub number: u32,
    /// Its URL without secrets.
    pub url: Arc<str>,
    /// Host, or path of a unix socket, as the URL has it.
    pub host: Arc<str>,
    pub port: Option<u16>,
    pub tracing: Tracing,
}

#[derive(Default)]
pub struct Names {
    endpoints: Vec<Option<EndpointName>>,
    /// By the numbers of conns that stand.
    peers: HashMap<u32, Arc<str>>,
}

impl Names {
    /// A conn stands.
    pub fn peer(&mut self, conn: u32, name: &str) {
        self.peers.insert(conn, name.into());
    }

    /// A conn is gone, and every request that it had.
    pub fn forget_peer(&mut self, conn: u32) {
        self.peers.remove(&conn);
    }

    /// The peer of a conn's number, or an empty name.
    pub fn peer_of(&self, conn: u32) -> Arc<str> {
        self.peers.get(&conn).cloned().unwrap_or_default()
    }

    /// The service of that number.
    pub fn endpoint_of(&self, number: u32) -> Option<&EndpointName> {
        let endpoint = self.endpoints.get(Io::endpoint_key(number) as usize)?.as_ref();
        endpoint.filter(|endpoint| endpoint.number == number)
    }

    fn set(&mut self, key: usize, name: Option<EndpointName>) {
        if self.endpoints.len() <= key {
            self.endpoints.resize(key + 1, None);
        }
        self.endpoints[key] = name;
    }
}

impl Io {
    /// A service was opened: those who hear of its requests' ends learn what they need of it.
    pub fn name_endpoint(&mut self, key: u32) {
        let Some(of) = self.endpoints.get(key as usize) else { return };
        let (host, port) = match &of.address {
            Address::Host { host, port } => (host.as_str().into(), Some(*port)),
            Address::Unix(path) => (path.as_str().into(), None),
        };
        let name = EndpointName { number: of.number, url: of.shown.as_str().into(), host, port, tracing: of.tracing };
        let slow = of.options.slow;
        self.core.names.set(key as usize, Some(name));
        self.core.slow.set(key as usize, slow);
    }

    /// A service is closed, and every request of it has ended.
    pub fn forget_endpoint(&mut self, key: u32) {
        self.core.names.set(key as usize, None);
        self.core.slow.set(key as usize, None);
    }
}
