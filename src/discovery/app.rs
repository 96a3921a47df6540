//! The program tells the set: `redis+app://any-label`.
//!
//! A telling is a MessagePack array of addresses (`"host:port"`) or of maps `{address, weight, priority, role}`. It
//! takes the place of the one before as a whole, or, with one bad entry, changes nothing. A peer that is told by name
//! has its name looked up whenever it is dialled.

use std::time::Instant;

use super::entry::{ADDRESS_EXPECTED, Entry, Given, PEERS_MAX, refuse_doubles};
use super::set::Published;
use super::{Ask, News, Source, Terms};
use crate::config::{ConfigError, Url};
use crate::peer::Peer;
use crate::value::{Malformed, Reader, Token};

/// Deeper than anything that is expected.
const DEPTH_MAX: usize = 8;

#[derive(Default)]
struct Told(Published);

pub fn open(_url: &mut Url, _terms: &Terms) -> Result<Box<dyn Source>, ConfigError> {
    Ok(Box::new(Told::default()))
}

impl Source for Told {
    fn handle(&mut self, _now: Instant, news: News<'_>, ask: &mut dyn Ask) {
        if let News::Open = news {
            ask.unknown("the program has told no peers yet");
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    fn handle_told(&mut self, _now: Instant, body: &[u8], ask: &mut dyn Ask) -> Result<(), String> {
        self.0.publish(read(body)?, ask);
        Ok(())
    }
}

fn read(body: &[u8]) -> Result<Vec<Peer>, String> {
    let malformed = |error: Malformed| error.to_string();
    crate::value::whole(body, DEPTH_MAX).map_err(malformed)?;
    let mut reader = Reader::new(body);
    let count = match reader.token().map_err(malformed)? {
        Token::Array(count) if count as usize <= PEERS_MAX => count as usize,
        Token::Array(count) => return Err(format!("peers: {count} entries: expected at most {PEERS_MAX}")),
        other => return Err(format!("peers: {}: expected an array of addresses or maps", other.kind())),
    };
    let mut peers = Vec::with_capacity(count);
    for index in 0..count {
        let entry = entry(&mut reader).map_err(|why| format!("entry {index}: {why}"))?;
        peers.push(entry.finish().map_err(|why| format!("entry {index}: {why}"))?);
    }
    refuse_doubles(&peers).map_err(|(index, why)| format!("entry {index}: {why}"))?;
    Ok(peers)
}

fn entry(reader: &mut Reader<'_>) -> Result<Entry, String> {
    let mut entry = Entry::default();
    let malformed = |error: Malformed| error.to_string();
    match reader.token().map_err(malformed)? {
        Token::Str(text) | Token::Bin(text) => entry.set("address", given_text(text))?,
        Token::Map(count) => {
            for _ in 0..count {
                let key = match reader.token().map_err(malformed)? {
                    Token::Str(key) | Token::Bin(key) => String::from_utf8_lossy(key).into_owned(),
                    other => return Err(format!("a key of type {}: expected a str", other.kind())),
                };
                value(&mut entry, &key, reader.token().map_err(malformed)?)?;
            }
        }
        other => return Err(format!("{}: expected {ADDRESS_EXPECTED}, or a map", other.kind())),
    }
    Ok(entry)
}

fn value(entry: &mut Entry, key: &str, token: Token<'_>) -> Result<(), String> {
    match token {
        // As the defaults say.
        Token::Nil if key != "address" => Ok(()),
        Token::Str(text) | Token::Bin(text) => entry.set(key, given_text(text)),
        Token::Int(number) => entry.set(key, Given::Number(number)),
        other => entry.set(key, Given::Other(&other.kind().to_string())),
    }
}

fn given_text(text: &[u8]) -> Given<'_> {
    std::str::from_utf8(text).map_or(Given::Other("not UTF-8"), Given::Text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discovery::script::Script;
    use crate::peer::Role;
    use crate::value::write;

    fn text(out: &mut Vec<u8>, text: &str) {
        write::str(out, text.as_bytes());
    }

    fn tell(told: &mut Told, script: &mut Script, body: &[u8]) -> Result<(), String> {
        told.handle_told(Instant::now(), body, script)
    }

    #[test]
    fn nothing_is_known_before_the_first_telling_and_each_replaces_the_last() {
        let (mut told, mut script) = (Told::default(), Script::default());
        told.handle(Instant::now(), News::Open, &mut script);
        assert_eq!(script.unknown, ["the program has told no peers yet"]);
        assert!(script.sets.is_empty() && told.poll_timeout().is_none());
        let mut body = Vec::new();
        write::array(&mut body, 2);
        text(&mut body, "10.0.0.1:7");
        write::map(&mut body, 4);
        text(&mut body, "address");
        text(&mut body, "db.test:7");
        text(&mut body, "weight");
        write::int(&mut body, 5);
        text(&mut body, "priority");
        write::nil(&mut body);
        text(&mut body, "role");
        text(&mut body, "replica");
        tell(&mut told, &mut script, &body).unwrap();
        tell(&mut told, &mut script, &body).unwrap();
        assert_eq!(script.sets.len(), 1);
        let peer = &script.sets[0][1];
        assert_eq!((peer.weight, peer.priority, peer.role), (5, 0, Role::Replica));
        assert!(peer.places.is_empty(), "its name is looked up when it is dialled");
        tell(&mut told, &mut script, b"\x90").unwrap();
        assert_eq!(script.sets.last(), Some(&Vec::new()));
    }

    #[test]
    fn a_bad_entry_is_named_and_changes_nothing() {
        let (mut told, mut script) = (Told::default(), Script::default());
        let map = |key: &str, value: &dyn Fn(&mut Vec<u8>)| {
            let mut body = Vec::new();
            write::array(&mut body, 2);
            text(&mut body, "10.0.0.1:7");
            write::map(&mut body, 2);
            text(&mut body, "address");
            text(&mut body, "10.0.0.2:7");
            text(&mut body, key);
            value(&mut body);
            body
        };
        let cases: Vec<(Vec<u8>, &str)> = vec![
            (map("weight", &|out| write::int(out, 70_000)), "entry 1: weight: 70000: expected a whole number from 0"),
            (map("weight", &|out| text(out, "x")), "entry 1: weight: \"x\": expected a whole number"),
            (map("role", &|out| text(out, "boss")), "entry 1: role: \"boss\": expected primary or replica"),
            (map("wait", &|out| write::int(out, 1)), "entry 1: wait: 1: expected no such key, but one of address"),
            (map("address", &|out| text(out, "x")), "entry 1: address: \"x\": expected host:port"),
            (map("address", &|out| text(out, "10.0.0.1:7")), "entry 1: \"10.0.0.1:7\": expected each address once"),
            (map("role", &|out| write::array(out, 0)), "entry 1: role: array: expected primary or replica"),
            (b"\x91\x80".to_vec(), "entry 0: address: missing: expected host:port"),
            (b"\x91\x07".to_vec(), "entry 0: int: expected host:port"),
            (b"\x80".to_vec(), "peers: map: expected an array"),
            (b"\x91".to_vec(), "malformed MessagePack at byte 1"),
            (b"\x91\xa4host\xc0".to_vec(), "malformed MessagePack"),
        ];
        for (body, expected) in cases {
            let error = tell(&mut told, &mut script, &body).unwrap_err();
            assert!(error.starts_with(expected), "{error}");
        }
        let mut many = Vec::new();
        write::array(&mut many, 5000);
        (0..5000).for_each(|n| text(&mut many, &format!("10.0.0.1:{}", n + 1)));
        assert!(tell(&mut told, &mut script, &many).unwrap_err().contains("at most 4096"));
        assert!(script.sets.is_empty());
    }
}
