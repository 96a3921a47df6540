//! What Sentinel's replies say, in either protocol: RESP3 answers with maps, RESP2 with flat arrays of keys and values.

use crate::peer::Peer;
use crate::value::{Malformed, Reader, Token, whole};

/// An error inside a value: `[code, message]`.
const ERROR_EXT: i8 = 1;
const DEPTH_MAX: usize = 16;
/// More than any service has; a reply that tells more is cut.
const REPLICAS_MAX: usize = 4096;

/// Why a reply says nothing of the master.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The sentinel knows no master of that name; its words.
    NoSuchMaster(String),
    /// It knows no such question, being older than that.
    NoSuchQuestion,
    /// Anything else, with the cause.
    Other(String),
}

impl Trouble {
    /// An error by its text.
    pub fn of(text: &str) -> Self {
        let lower = text.to_ascii_lowercase();
        match () {
            _ if lower.contains("no such master") => Trouble::NoSuchMaster(text.into()),
            _ if lower.contains("unknown") && lower.contains("subcommand") => Trouble::NoSuchQuestion,
            _ => Trouble::Other(text.into()),
        }
    }
}

impl From<Malformed> for Trouble {
    fn from(error: Malformed) -> Self {
        Trouble::Other(error.to_string())
    }
}

/// `SENTINEL MASTER name`: the epoch of the configuration that the sentinel holds. The address beside it is the old one
/// until a failover is over, so it is not read.
pub fn epoch(body: &[u8]) -> Result<u64, Trouble> {
    let fields = Fields::read(&mut open(body)?)?;
    let epoch = fields.get("config-epoch").and_then(|epoch| epoch.parse().ok());
    epoch.ok_or_else(|| Trouble::of(&format!("{} instead of a master with its config-epoch", fields.joined())))
}

/// `SENTINEL GET-MASTER-ADDR-BY-NAME name`: ip and port.
pub fn address(body: &[u8]) -> Result<Peer, Trouble> {
    let mut reader = open(body)?;
    match reader.token()? {
        Token::Array(2) => {}
        Token::Nil => return Err(Trouble::NoSuchMaster("nil".into())),
        other => return Err(Trouble::Other(format!("{} instead of ip and port", other.kind()))),
    }
    let (ip, port) = (text(&mut reader)?, text(&mut reader)?);
    peer(&ip, &port).ok_or_else(|| Trouble::of(&format!("{ip} {port} instead of ip and port")))
}

/// One line of `SENTINEL REPLICAS name`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica {
    pub peer: Peer,
    pub usable: bool,
}

pub fn replicas(body: &[u8]) -> Result<Vec<Replica>, Trouble> {
    let mut reader = open(body)?;
    let count = match reader.token()? {
        Token::Array(count) => count as usize,
        other => return Err(Trouble::Other(format!("{} instead of a list of replicas", other.kind()))),
    };
    let mut replicas = Vec::new();
    for _ in 0..count.min(REPLICAS_MAX) {
        let fields = Fields::read(&mut reader)?;
        if let Some(peer) = fields.peer() {
            replicas.push(Replica { peer, usable: fields.is_usable() });
        }
    }
    Ok(replicas)
}

/// The texts of a message, at any depth.
pub fn words(body: &[u8]) -> Vec<String> {
    let mut reader = Reader::new(body);
    let mut words = Vec::new();
    while let Ok(token) = reader.token() {
        if let Token::Str(text) | Token::Bin(text) = token {
            words.extend(String::from_utf8_lossy(text).split_ascii_whitespace().map(str::to_string));
        }
    }
    words
}

fn open(body: &[u8]) -> Result<Reader<'_>, Trouble> {
    whole(body, DEPTH_MAX)?;
    let mut reader = Reader::new(body);
    match reader.token()? {
        Token::Ext(ERROR_EXT, payload) => Err(Trouble::of(&error_text(payload))),
        Token::Nil => Err(Trouble::NoSuchMaster("nil".into())),
        _ => Ok(Reader::new(body)),
    }
}

fn error_text(payload: &[u8]) -> String {
    let mut reader = Reader::new(payload);
    let mut parts = Vec::new();
    while let Ok(token) = reader.token() {
        if let Token::Str(text) | Token::Bin(text) = token {
            parts.push(String::from_utf8_lossy(text).into_owned());
        }
    }
    parts.join(" ")
}

/// The fields of one instance.
struct Fields(Vec<(String, String)>);

impl Fields {
    fn read(reader: &mut Reader<'_>) -> Result<Self, Trouble> {
        let pairs = match reader.token()? {
            Token::Map(count) => count,
            Token::Array(count) if count % 2 == 0 => count / 2,
            other => return Err(Trouble::Other(format!("{} instead of fields and values", other.kind()))),
        };
        let mut fields = Vec::new();
        for _ in 0..pairs {
            fields.push((text(reader)?, text(reader)?));
        }
        Ok(Fields(fields))
    }

    fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str())
    }

    fn joined(&self) -> String {
        self.0.iter().flat_map(|(key, value)| [key.as_str(), value]).take(4).collect::<Vec<_>>().join(" ")
    }

    fn peer(&self) -> Option<Peer> {
        peer(self.get("ip")?, self.get("port")?)
    }

    /// Neither down nor disconnected in the sentinel's eyes, and not a former master that follows nobody yet.
    fn is_usable(&self) -> bool {
        let flags = self.get("flags").unwrap_or_default();
        let down = flags.split(',').any(|flag| matches!(flag, "s_down" | "o_down" | "disconnected"));
        !down && self.get("role-reported") != Some("master")
    }
}

fn peer(host: &str, port: &str) -> Option<Peer> {
    let port = port.parse().ok().filter(|port| *port != 0)?;
    (!host.is_empty() && host != "?").then(|| Peer::at(host, port))
}

/// A scalar as text; an aggregate is walked over.
fn text(reader: &mut Reader<'_>) -> Result<String, Malformed> {
    let before = reader.clone();
    Ok(match reader.token()? {
        Token::Str(text) | Token::Bin(text) => String::from_utf8_lossy(text).into_owned(),
        Token::Int(number) => number.to_string(),
        Token::Array(_) | Token::Map(_) => {
            *reader = before;
            reader.skip(DEPTH_MAX)?;
            String::new()
        }
        _ => String::new(),
    })
}
