//! Whom to ask and how, as resolv.conf(5) and the hosts file tell, read again when they change.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::discovery::hosts::Hosts;
use crate::discovery::stamp::Stamp;
use crate::sys::file;

/// How often the files are looked at, at most.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The most that is read of a file.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// The system's resolver uses the first three name servers (MAXNS).
const SERVERS_MAX: usize = 3;
const DNS_PORT: u16 = 53;

/// What a resolver goes by. With `resolv_conf`, what that file says takes the place of the five fields above it each time
/// it changes; while it is missing, they hold.
#[derive(Clone, Debug)]
pub struct ResolverConfig {
    /// Asked one after the other, in this order.
    pub nameservers: Vec<SocketAddr>,
    /// Domains that are tried after a short name.
    pub search: Vec<String>,
    /// A name with at least this many dots is tried as it is before the search list.
    pub ndots: usize,
    /// How long one name server has for one answer.
    pub timeout: Duration,
    /// How often the list of name servers is gone through.
    pub attempts: u32,
    pub resolv_conf: Option<PathBuf>,
    pub hosts: Option<PathBuf>,
    /// Lookups on the network at the same time; others wait their turn. Each has two sockets at most.
    pub lookups_max: usize,
}

impl Default for ResolverConfig {
    /// No files, and the defaults of resolv.conf(5).
    fn default() -> Self {
        ResolverConfig {
            nameservers: vec![SocketAddr::from(([127, 0, 0, 1], DNS_PORT))],
            search: Vec::new(),
            ndots: 1,
            timeout: Duration::from_secs(5),
            attempts: 2,
            resolv_conf: None,
            hosts: None,
            lookups_max: 32,
        }
    }
}

impl ResolverConfig {
    /// As the machine is configured: `/etc/resolv.conf` and `/etc/hosts`.
    pub fn system() -> Self {
        ResolverConfig {
            resolv_conf: Some("/etc/resolv.conf".into()),
            hosts: Some("/etc/hosts".into()),
            ..ResolverConfig::default()
        }
    }

    /// With the five fields as a resolv.conf of this text sets them. What makes no sense is passed over. A server may
    /// have a port: `nameserver [127.0.0.1]:5353`, as OpenBSD writes it.
    fn with_resolv_conf(&self, text: &str, hostname: &str) -> Self {
        let defaults = ResolverConfig::default();
        let domain = hostname.trim().split_once('.').map(|(_, domain)| domain.to_string());
        let mut config = ResolverConfig {
            nameservers: Vec::new(),
            search: domain.into_iter().collect(),
            ndots: defaults.ndots,
            timeout: defaults.timeout,
            attempts: defaults.attempts,
            ..self.clone()
        };
        for line in text.lines().filter(|line| !line.starts_with(['#', ';'])) {
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") => config.nameservers.extend(words.next().and_then(parse_server)),
                Some("domain") => config.search = words.take(1).map(str::to_string).collect(),
                Some("search") => config.search = words.map(str::to_string).collect(),
                Some("options") => words.for_each(|option| config.set_option(option)),
                _ => {}
            }
        }
        config.nameservers.truncate(SERVERS_MAX);
        if config.nameservers.is_empty() {
            config.nameservers = defaults.nameservers;
        }
        config
    }

    /// The bounds are the system's.
    fn set_option(&mut self, option: &str) {
        let Some((name, number)) = option.split_once(':') else { return };
        let Ok(number) = number.parse::<u32>() else { return };
        match name {
            "ndots" => self.ndots = number.min(15) as usize,
            "timeout" => self.timeout = Duration::from_secs(number.clamp(1, 30).into()),
            "attempts" => self.attempts = number.clamp(1, 5),
            _ => {}
        }
    }
}

fn parse_server(text: &str) -> Option<SocketAddr> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(SocketAddr::new(address, DNS_PORT));
    }
    if let Some((address, port)) = text.strip_prefix('[').and_then(|rest| rest.split_once("]:")) {
        return Some(SocketAddr::new(address.parse().ok()?, port.parse().ok()?));
    }
    let (address, link) = text.split_once('%')?;
    let index = match link.parse() {
        Ok(index) => index,
        Err(_) if link.contains('/') => return None,
        Err(_) => small(&format!("/sys/class/net/{link}/ifindex"))?.trim().parse().ok()?,
    };
    Some(SocketAddrV6::new(address.parse::<Ipv6Addr>().ok()?, DNS_PORT, 0, index).into())
}

/// A configuration and a hosts file that follow their files.
pub struct Files {
    given: ResolverConfig,
    config: Arc<ResolverConfig>,
    config_seen: Option<Stamp>,
    hosts: Hosts,
    hosts_seen: Option<Stamp>,
    looked: Option<Instant>,
}

impl Files {
    pub fn new(given: ResolverConfig) -> Self {
        let config = Arc::new(given.clone());
        Files { given, config, config_seen: None, hosts: Hosts::default(), hosts_seen: None, looked: None }
    }

    pub fn config(&self) -> Arc<ResolverConfig> {
        self.config.clone()
    }

    pub fn hosts(&self) -> &Hosts {
        &self.hosts
    }

    /// Reads what has changed, looking once a second at most. A file that cannot be read leaves what was known: it may
    /// be in the middle of being replaced.
    pub fn refresh(&mut self, now: Instant) {
        if self.looked.is_some_and(|looked| now < looked + LOOK_EVERY) {
            return;
        }
        self.looked = Some(now);
        if let Some(text) = changed(self.given.resolv_conf.as_deref(), &mut self.config_seen) {
            let hostname = small("/proc/sys/kernel/hostname").unwrap_or_default();
            self.config = Arc::new(self.given.with_resolv_conf(&text, &hostname));
        }
        if let Some(text) = changed(self.given.hosts.as_deref(), &mut self.hosts_seen) {
            self.hosts = Hosts::parse(&text);
        }
    }
}

/// A line that the system tells in a file.
fn small(path: &str) -> Option<String> {
    String::from_utf8(file::read(path, 4096).ok()?).ok()
}

fn changed(path: Option<&Path>, seen: &mut Option<Stamp>) -> Option<String> {
    let path = path?;
    let stamp = Stamp::of(path).ok()?;
    if *seen == Some(stamp) {
        return None;
    }
    let bytes = file::read(path, FILE_BYTES_MAX).ok()?;
    *seen = Some(stamp);
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_is_read_as_the_system_reads_it() {
        let text = "; c\n# c\nnameserver 10.0.0.1\nnameserver nonsense\nnameserver [::1]:5353\nnameserver fe80::1%7\n\
                    nameserver 10.0.0.4\ndomain x.test\nsearch a.test b.test\noptions ndots:99 timeout:0 attempts:9 rotate";
        let config = ResolverConfig::default().with_resolv_conf(text, "web-1.example.org\n");
        let servers: Vec<String> = config.nameservers.iter().map(SocketAddr::to_string).collect();
        assert_eq!(servers, ["10.0.0.1:53", "[::1]:5353", "[fe80::1%7]:53"]);
        assert_eq!(config.search, ["a.test", "b.test"]);
        assert_eq!((config.ndots, config.timeout, config.attempts), (15, Duration::from_secs(1), 5));
    }

    #[test]
    fn an_empty_resolv_conf_means_this_machine_and_its_own_domain() {
        let config = ResolverConfig::default().with_resolv_conf("", "web-1.example.org\n");
        assert_eq!(config.nameservers, [SocketAddr::from(([127, 0, 0, 1], 53))]);
        assert_eq!(config.search, ["example.org"]);
        assert!(ResolverConfig::default().with_resolv_conf("", "web-1\n").search.is_empty());
    }
}
