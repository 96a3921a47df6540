//! SRV records (RFC 2782): `redis+srv://name`.
//!
//! The name is asked as `_<scheme>._tcp.<name>`, or as it stands if it begins with `_`. Its records are asked for again
//! when their TTL ends; so is each target's name, by itself, so that a slow one delays no other.
//!
//! Records are not signed, so that whoever forges them could name a host of his own, with a good certificate. A target
//! must therefore have a certificate for the name of the URL (RFC 6125, 6.2.1), or for its own if that lies under it.
//! `tls_server_name=*` believes the records.

use std::time::Instant;

use super::dns::ResolveError;
use super::set::Published;
use super::watch::{Name, Numbers, Pace};
use super::{Ask, News, ServiceRecord, Services, Source, Terms};
use crate::config::{Address, ConfigError, Url};
use crate::peer::Peer;

struct Srv {
    name: String,
    /// The name of the URL, without service and protocol. None: targets may name themselves.
    domain: Option<String>,
    terms: Terms,
    pace: Pace,
    /// None until they are known.
    records: Option<Vec<ServiceRecord>>,
    /// Every target of the records, once.
    targets: Vec<Name>,
    numbers: Numbers,
    published: Published,
}

pub fn open(url: &mut Url, terms: &Terms) -> Result<Box<dyn Source>, ConfigError> {
    let [Address::Host { host, .. }] = url.hosts.as_slice() else {
        let shown: Vec<String> = url.hosts.iter().map(Address::to_string).collect();
        return Err(ConfigError::new("host", &shown.join(","), "one name, whose SRV records tell the hosts"));
    };
    if host.parse::<std::net::IpAddr>().is_ok() {
        return Err(ConfigError::new("host", host, "a name: an address has no SRV records"));
    }
    let name = match host.starts_with('_') {
        true => host.clone(),
        false => format!("_{}._tcp.{host}", url.scheme),
    };
    let believed = url.options.peek("tls_server_name") == Some("*");
    Ok(Box::new(Srv {
        name,
        domain: (!believed).then(|| domain(host).to_string()),
        terms: *terms,
        pace: Pace::default(),
        records: None,
        targets: Vec::new(),
        numbers: Numbers::default(),
        published: Published::default(),
    }))
}

impl Srv {
    fn learn(&mut self, now: Instant, outcome: Result<Services, ResolveError>, ask: &mut dyn Ask) {
        match outcome {
            Ok(services) => {
                self.pace.answered(now, services.ttl, &self.terms);
                self.follow(services.records);
            }
            Err(error) => {
                self.pace.failed(now);
                ask.unknown(&error.message);
            }
        }
    }

    /// Targets that are known already keep what is known of them.
    fn follow(&mut self, records: Vec<ServiceRecord>) {
        let mut before = std::mem::take(&mut self.targets);
        for record in &records {
            let host = absolute(&record.target);
            if self.targets.iter().any(|name| name.host() == host) {
                continue;
            }
            let known = before.iter().position(|name| name.host() == host);
            self.targets.push(known.map_or_else(|| Name::new(host), |at| before.swap_remove(at)));
        }
        self.records = Some(records);
    }

    /// What is gone from the records stays until every target that took its place was looked up, and for as long as
    /// none of the targets can be found.
    fn publish(&mut self, ask: &mut dyn Ask) {
        let Some(records) = &self.records else { return };
        let mut peers: Vec<Peer> = records.iter().flat_map(|record| self.peers(record)).collect();
        if peers.is_empty() && !records.is_empty() {
            return;
        }
        if self.targets.iter().any(Name::is_pending) {
            peers.extend_from_slice(self.published.peers());
        }
        self.published.publish(peers, ask);
    }

    fn peers(&self, record: &ServiceRecord) -> Vec<Peer> {
        let host = absolute(&record.target);
        let name = self.targets.iter().find(|name| name.host() == host);
        let mut peers = name.map_or(Vec::new(), |name| name.peers(&record.target, record.port, self.terms.spread));
        let server_name = server_name(self.domain.as_deref(), &record.target);
        for peer in &mut peers {
            (peer.priority, peer.weight) = (record.priority, record.weight);
            peer.server_name = Some(server_name.to_string());
        }
        peers
    }

    fn ask_due(&mut self, now: Instant, ask: &mut dyn Ask) {
        if self.pace.is_due(now) {
            let query = self.numbers.take();
            self.pace.begin(now, query);
            ask.lookup_services(query, &self.name);
        }
        self.targets.iter_mut().for_each(|name| name.ask_if_due(now, &mut self.numbers, ask));
    }
}

/// What a name is about that begins with a service and a protocol.
fn domain(name: &str) -> &str {
    let mut labels = name.splitn(3, '.');
    match (labels.next(), labels.next(), labels.next()) {
        (Some(service), Some(protocol), Some(domain)) if service.starts_with('_') && protocol.starts_with('_') => {
            domain
        }
        _ => name,
    }
}

/// Whose certificate a target must have, where it must be one for this domain.
fn server_name<'a>(domain: Option<&'a str>, target: &'a str) -> &'a str {
    let is_under = |domain: &str| {
        let (target, domain) = (target.to_ascii_lowercase(), domain.to_ascii_lowercase());
        let (target, domain) = (target.trim_end_matches('.'), domain.trim_end_matches('.'));
        target.strip_suffix(domain).is_some_and(|labels| labels.is_empty() || labels.ends_with('.'))
    };
    domain.filter(|domain| !is_under(domain)).unwrap_or(target)
}

/// With a dot at its end, so that no search list is tried (RFC 2782: the target is a domain name, not an abbreviation).
fn absolute(target: &str) -> String {
    match target.parse::<std::net::IpAddr>() {
        Ok(_) => target.to_string(),
        Err(_) => format!("{target}."),
    }
}

impl Source for Srv {
    fn handle(&mut self, now: Instant, news: News<'_>, ask: &mut dyn Ask) {
        match news {
            News::Doubt => {
                self.pace.doubt(now);
                self.targets.iter_mut().for_each(|name| name.doubt(now));
            }
            News::Services { query, outcome } if self.pace.awaits(query) => {
                self.learn(now, outcome, ask);
                self.publish(ask);
            }
            News::Addresses { query, outcome } => {
                // A target that is gone may still be answered.
                let Some(name) = self.targets.iter_mut().find(|name| name.awaits(query)) else { return };
                name.handle(now, outcome, &self.terms, ask);
                self.publish(ask);
            }
            _ => {}
        }
        self.ask_due(now, ask);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.targets.iter().filter_map(Name::timeout).chain(self.pace.timeout()).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_has_a_certificate_of_its_own_only_where_the_url_vouches_for_it() {
        assert_eq!(domain("cache.internal"), "cache.internal");
        assert_eq!(domain("_redis._tcp.cache.internal"), "cache.internal");
        assert_eq!(domain("_alias.internal"), "_alias.internal");
        for (target, expected) in [
            ("node-1.cache.internal", "node-1.cache.internal"),
            ("Node-1.Cache.Internal.", "Node-1.Cache.Internal."),
            ("cache.internal", "cache.internal"),
            ("node-1.internal", "cache.internal"),
            ("evilcache.internal", "cache.internal"),
            ("evil.test", "cache.internal"),
        ] {
            assert_eq!(server_name(Some("cache.internal"), target), expected);
            assert_eq!(server_name(None, target), target);
        }
    }
}
