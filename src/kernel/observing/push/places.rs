//! Where an exporter sends: an address as it was configured, and what its name has come to.

use std::net::{IpAddr, SocketAddr};

use crate::config::{Address, ConfigError, Options};
use crate::peer::Place;

/// One address and the places that it means.
#[derive(Debug)]
pub struct Places {
    address: Address,
    known: Vec<Place>,
    /// Which of them is used.
    at: usize,
}

/// The address of an option, if it is given and not empty.
pub fn take_address(
    options: &mut Options,
    key: &'static str,
    default_port: u16,
) -> Result<Option<Address>, ConfigError> {
    let Some(text) = options.text(key).filter(|text| !text.is_empty()) else { return Ok(None) };
    match Address::parse(&text, default_port) {
        Some(address) => Ok(Some(address)),
        None => Err(ConfigError::new(key, &text, "host:port or unix:/path")),
    }
}

impl Places {
    pub fn new(address: Address) -> Self {
        let known = match &address {
            Address::Unix(path) => vec![Place::Unix(path.into())],
            Address::Host { host, port } => {
                let ip: Option<IpAddr> = host.parse().ok();
                ip.map(|ip| Place::Tcp(SocketAddr::new(ip, *port))).into_iter().collect()
            }
        };
        Places { address, known, at: 0 }
    }

    /// The name to look up; None for what needs no lookup.
    pub fn name(&self) -> Option<&str> {
        match &self.address {
            Address::Host { host, .. } if host.parse::<IpAddr>().is_err() => Some(host),
            _ => None,
        }
    }

    pub fn all(&self) -> &[Place] {
        &self.known
    }

    pub fn current(&self) -> Option<&Place> {
        self.known.get(self.at)
    }

    /// What the name has come to. False if the place that is used is not among it any more.
    pub fn resolved(&mut self, ips: &[IpAddr]) -> bool {
        let Address::Host { port, .. } = &self.address else { return true };
        let current = self.current().cloned();
        self.known = ips.iter().map(|ip| Place::Tcp(SocketAddr::new(*ip, *port))).collect();
        let kept = self.known.iter().position(|place| Some(place) == current.as_ref());
        self.at = kept.unwrap_or(0);
        kept.is_some()
    }

    /// Goes to the place after the one that is used. False if there is no other.
    pub fn turn(&mut self) -> bool {
        self.at = (self.at + 1) % self.known.len().max(1);
        self.known.len() > 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn a_place_is_kept_while_its_name_means_it() {
        let mut places = Places::new(Address::parse("stats", 8125).unwrap());
        assert_eq!((places.name(), places.current()), (Some("stats"), None));
        assert!(!places.turn());
        assert!(!places.resolved(&ips(&["::1", "127.0.0.1"])));
        assert!(places.turn());
        assert_eq!(places.current().unwrap().to_string(), "127.0.0.1:8125");
        assert!(places.resolved(&ips(&["127.0.0.1"])));
        assert_eq!(places.current().unwrap().to_string(), "127.0.0.1:8125");
        assert!(!places.resolved(&ips(&["10.0.0.1"])));
        assert_eq!(places.current().unwrap().to_string(), "10.0.0.1:8125");
    }

    #[test]
    fn literal_addresses_and_paths_need_no_lookup() {
        for (text, expected) in [("[::1]:7", "[::1]:7"), ("10.0.0.1", "10.0.0.1:1"), ("unix:/run/s", "unix:/run/s")] {
            let places = Places::new(Address::parse(text, 1).unwrap());
            assert_eq!((places.name(), places.all()[0].to_string()), (None, expected.to_string()));
        }
    }
}
