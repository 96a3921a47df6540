//! What servers tell of themselves and of each other: the replies to ROLE, INFO replication and CLUSTER SLOTS.
use super::routes::SLOTS;
use crate::peer::Role;
use crate::proto::Shard;
use crate::value::{Reader, Token};

/// Nesting of what is skipped.
const DEPTH_MAX: usize = 16;

/// What a server says it is.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Told {
    pub role: Role,
    /// `host:port` of a replica's primary.
    pub follows: Option<String>,
}

/// Reads the reply to ROLE; anything strange is an unknown role.
pub fn role(reply: &[u8]) -> Told {
    read_role(&mut Reader::new(reply)).unwrap_or_default()
}

fn read_role(reader: &mut Reader<'_>) -> Option<Told> {
    let Token::Array(_) = reader.token().ok()? else { return None };
    match text(reader)? {
        "master" => Some(Told { role: Role::Primary, follows: None }),
        "slave" => {
            let (host, port) = (text(reader)?, port(reader)?);
            Some(Told { role: Role::Replica, follows: address(host, port) })
        }
        // A sentinel serves no data.
        _ => None,
    }
}

/// Reads the reply to INFO replication.
pub fn info(text: &str) -> Told {
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
    match field("role") {
        Some("master") => Told { role: Role::Primary, follows: None },
        Some("slave") => {
            let port = field("master_port").and_then(|port| port.parse().ok()).unwrap_or(0);
            Told { role: Role::Replica, follows: field("master_host").and_then(|host| address(host, port)) }
        }
        _ => Told::default(),
    }
}

/// Reads the reply to CLUSTER SLOTS: ranges of one primary become one shard. None: it is no such reply.
pub fn shards(reply: &[u8]) -> Option<Vec<Shard>> {
    let mut reader = Reader::new(reply);
    let Token::Array(count) = reader.token().ok()? else { return None };
    let mut shards: Vec<Shard> = Vec::new();
    for _ in 0..count {
        let Some(shard) = range(&mut reader)? else { continue };
        match shards.iter_mut().find(|known| known.primary == shard.primary) {
            Some(known) => merge(known, shard),
            None => shards.push(shard),
        }
    }
    Some(shards)
}

fn merge(known: &mut Shard, more: Shard) {
    known.slots.extend(more.slots);
    for replica in more.replicas {
        if !known.replicas.contains(&replica) {
            known.replicas.push(replica);
        }
    }
}

/// `[first, last, primary, replica...]`; without a primary that can be reached, nobody serves the range.
fn range(reader: &mut Reader<'_>) -> Option<Option<Shard>> {
    let Token::Array(members) = reader.token().ok()? else { return None };
    let (first, last) = (slot(reader)?, slot(reader)?);
    let mut nodes = (2..members).map(|_| node(reader)).collect::<Option<Vec<_>>>()?.into_iter();
    let primary = nodes.next()?;
    if first > last {
        return None;
    }
    Some(primary.map(|primary| Shard { slots: vec![(first, last)], primary, replicas: nodes.flatten().collect() }))
}

fn slot(reader: &mut Reader<'_>) -> Option<u16> {
    match reader.token().ok()? {
        Token::Int(slot) => u16::try_from(slot).ok().filter(|slot| *slot < SLOTS),
        _ => None,
    }
}

/// `[host, port, id, metadata...]`; the inner None is a node without a known address.
fn node(reader: &mut Reader<'_>) -> Option<Option<String>> {
    let Token::Array(members) = reader.token().ok()? else { return None };
    // No host means the one that this conn is to; since 7.0 it may be nil.
    let host = match reader.token().ok()? {
        Token::Nil => "",
        Token::Str(host) | Token::Bin(host) => std::str::from_utf8(host).ok()?,
        _ => return None,
    };
    let port = port(reader)?;
    let mut fallback = None;
    for member in 2..members {
        let mut value = reader.clone();
        reader.skip(DEPTH_MAX).ok()?;
        if member == 3 {
            fallback = metadata_ip(&mut value);
        }
    }
    // A question mark stands for a hostname that is preferred but not known.
    Some(if host == "?" { fallback.and_then(|ip| address(ip, port)) } else { address(host, port) })
}

/// The `ip` among a node's metadata: an array of pairs, or a map.
fn metadata_ip<'a>(reader: &mut Reader<'a>) -> Option<&'a str> {
    let pairs = match reader.token().ok()? {
        Token::Array(count) => count / 2,
        Token::Map(count) => count,
        _ => return None,
    };
    for _ in 0..pairs {
        let key = text(reader)?;
        let mut value = reader.clone();
        reader.skip(DEPTH_MAX).ok()?;
        if key == "ip" {
            return text(&mut value).filter(|ip| !ip.is_empty());
        }
    }
    None
}

fn text<'a>(reader: &mut Reader<'a>) -> Option<&'a str> {
    std::str::from_utf8(super::commands::text(reader)?).ok()
}

fn port(reader: &mut Reader<'_>) -> Option<u16> {
    match reader.token().ok()? {
        Token::Int(port) => u16::try_from(port).ok(),
        _ => None,
    }
}

/// `host:port`, where IPv6 gets its brackets.
fn address(host: &str, port: u16) -> Option<String> {
    let valid = port != 0 && host.len() <= 255 && host.chars().all(|c| c.is_ascii_graphic());
    let shown = || if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    valid.then(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn info_tells_roles() {
        assert_eq!(info("# Replication\r\nrole:master\r\nconnected_slaves:0\r\n").role, Role::Primary);
        let replica = info("# Replication\r\nrole:slave\r\nmaster_host:::1\r\nmaster_port:6379\r\n");
        assert_eq!(replica, Told { role: Role::Replica, follows: Some("[::1]:6379".into()) });
        assert_eq!(info("nothing"), Told::default());
    }
}
