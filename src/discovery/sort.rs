//! The order in which addresses are dialled: RFC 8305, section 4, with the parts of RFC 6724 that matter to a client
//! that races its addresses anyway.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use socket2::{Domain, Socket, Type};

use crate::sys::owned::Owned;

/// Addresses that can be reached come first (RFC 6724, rules 1 and 2); within both groups the families take turns,
/// IPv6 first (RFC 8305, section 4). Otherwise the order is the server's (RFC 6724, rule 10), so that a server which
/// rotates its answers still spreads the load. Doubles are dropped.
///
/// `reachable` is only asked when both families are there: within one family its answer would hardly differ.
pub fn dial_order(addresses: Vec<IpAddr>, reachable: impl Fn(&IpAddr) -> bool) -> Vec<IpAddr> {
    let mut unique: Vec<IpAddr> = Vec::with_capacity(addresses.len());
    for address in addresses {
        if !unique.contains(&address) {
            unique.push(address);
        }
    }
    if unique.iter().all(IpAddr::is_ipv4) || unique.iter().all(IpAddr::is_ipv6) {
        return unique;
    }
    let (near, far): (Vec<IpAddr>, Vec<IpAddr>) = unique.into_iter().partition(reachable);
    let mut ordered = interleave(near);
    ordered.extend(interleave(far));
    ordered
}

fn interleave(addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    let all = addresses.len();
    let (six, four): (Vec<IpAddr>, Vec<IpAddr>) = addresses.into_iter().partition(IpAddr::is_ipv6);
    let (mut six, mut four) = (six.into_iter(), four.into_iter());
    let mut ordered = Vec::with_capacity(all);
    while ordered.len() < all {
        ordered.extend(six.next());
        ordered.extend(four.next());
    }
    ordered
}

/// Asks the system for a route and the source address it would use, by connecting a UDP socket: nothing is sent.
#[derive(Debug, Default)]
pub struct RouteProbe {
    four: Option<Owned<Socket>>,
    six: Option<Owned<Socket>>,
}

impl RouteProbe {
    pub fn new() -> Self {
        let open = |domain| Owned::make(|| Socket::new(domain, Type::DGRAM, None)).ok();
        RouteProbe { four: open(Domain::IPV4), six: open(Domain::IPV6) }
    }

    /// True when there is a route, and the source address it gives can be expected to get an answer from there.
    pub fn reachable(&self, address: &IpAddr) -> bool {
        let socket = if address.is_ipv6() { &self.six } else { &self.four };
        let Some(socket) = socket else { return false };
        let any_port = SocketAddr::new(*address, 9);
        if socket.connect(&any_port.into()).is_err() {
            return false;
        }
        let source = socket.local_addr().ok().and_then(|source| source.as_socket());
        match (source.map(|source| source.ip()), address) {
            (Some(IpAddr::V6(source)), IpAddr::V6(target)) => suits(&source, target),
            (source, _) => source.is_some(),
        }
    }
}

/// RFC 6724, rules 2 and 5 for IPv6: a source of narrower scope, or a unique local one, gets no answer from the
/// internet at large.
fn suits(source: &Ipv6Addr, target: &Ipv6Addr) -> bool {
    reach(source) >= reach(target)
}

/// How far an address is known: this machine, this link, this site, everywhere.
fn reach(address: &Ipv6Addr) -> u8 {
    match address.segments()[0] {
        _ if address.is_loopback() => 0,
        head if head & 0xffc0 == 0xfe80 => 1,
        head if head & 0xfe00 == 0xfc00 => 2,
        _ => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(addresses: &[&str], reachable: impl Fn(&IpAddr) -> bool) -> Vec<String> {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        dial_order(addresses, reachable).iter().map(IpAddr::to_string).collect()
    }

    #[test]
    fn families_take_turns_and_ipv6_begins() {
        let ordered = order(&["1.0.0.1", "1.0.0.2", "1.0.0.3", "2::1", "2::2", "1.0.0.1"], |_| true);
        assert_eq!(ordered, ["2::1", "1.0.0.1", "2::2", "1.0.0.2", "1.0.0.3"]);
    }

    #[test]
    fn what_has_no_route_comes_last_and_is_kept() {
        assert_eq!(order(&["2::1", "1.0.0.1", "1.0.0.2"], IpAddr::is_ipv4), ["1.0.0.1", "1.0.0.2", "2::1"]);
        assert_eq!(order(&["2::1", "1.0.0.1"], |_| false), ["2::1", "1.0.0.1"]);
    }

    #[test]
    fn one_family_keeps_the_order_of_the_server() {
        assert_eq!(order(&["1.0.0.2", "1.0.0.1"], |_| panic!("asked")), ["1.0.0.2", "1.0.0.1"]);
    }

    #[test]
    fn the_probe_knows_loopback_and_scopes() {
        assert!(RouteProbe::new().reachable(&"127.0.0.1".parse().unwrap()));
        let suits = |source: &str, target: &str| suits(&source.parse().unwrap(), &target.parse().unwrap());
        assert!(suits("2001:db8::1", "2001:db8::2") && suits("fd00::1", "fd00::2") && suits("::1", "::1"));
        assert!(!suits("fd00::1", "2001:db8::2") && !suits("fe80::1", "fd00::2"));
    }
}
