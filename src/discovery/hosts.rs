//! The hosts file, as hosts(5) tells.

use std::collections::HashMap;
use std::net::IpAddr;

/// Names and their addresses, in the file's order.
#[derive(Clone, Debug, Default)]
pub struct Hosts {
    addresses: HashMap<String, Vec<IpAddr>>,
}

impl Hosts {
    /// Lines that make no sense are passed over, as the system does.
    pub fn parse(text: &str) -> Self {
        let mut hosts = Hosts::default();
        for line in text.lines() {
            let mut words = line.split('#').next().unwrap_or("").split_ascii_whitespace();
            let Some(Ok(address)) = words.next().map(str::parse::<IpAddr>) else { continue };
            for name in words {
                let known = hosts.addresses.entry(normal(name)).or_default();
                if !known.contains(&address) {
                    known.push(address);
                }
            }
        }
        hosts
    }

    /// Every address of a name, of either family. Empty when the file does not name it.
    pub fn lookup(&self, name: &str) -> &[IpAddr] {
        self.addresses.get(&normal(name)).map_or(&[], Vec::as_slice)
    }
}

fn normal(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_all_their_addresses_and_nonsense_is_passed_over() {
        let hosts =
            Hosts::parse("# c\n127.0.0.1 localhost\n::1 localhost # x\n10.0.0.1\tDB db.internal\nnonsense y\n\n");
        assert_eq!(hosts.lookup("localhost").len(), 2);
        assert_eq!(hosts.lookup("db."), ["10.0.0.1".parse::<IpAddr>().unwrap()]);
        assert_eq!(hosts.lookup("DB.Internal"), hosts.lookup("db"));
        assert!(hosts.lookup("y").is_empty() && hosts.lookup("x").is_empty());
    }
}
