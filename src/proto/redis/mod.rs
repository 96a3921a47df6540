//! Redis and Valkey: RESP2 and RESP3, client and server.
//!
//! [`wire`] takes frames off the wire and [`encode`] puts requests on it; [`commands`] knows which commands are not
//! ordinary, [`keys`] where keys stand, [`routes`] what follows from them; [`session`] is one conn of a service ([`handshake`], [`slots`], [`follow`] and [`rejected`] are its parts),
//! [`server`] one conn of a listener ([`inbound`], [`outbound`] and [`own`] are its parts).
//! The manual page is `docs/redis.md`.
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::config::{ConfigError, Url};
use crate::proto::{Driver, Follow, Limits, Need, Protocol, Refusal, Route, Scheme, Sharing, database_tracing};
use crate::value::{Reader, Token};

mod commands;
mod encode;
mod follow;
mod handshake;
mod inbound;
mod keys;
mod number;
mod outbound;
mod own;
mod rejected;
mod routes;
mod samples;
mod server;
mod session;
mod slots;
#[cfg(test)]
mod tests;
mod topology;
mod wire;

/// The row of [`crate::proto::TABLE`].
pub const SCHEME: Scheme = Scheme {
    name: "redis",
    tls: false,
    starttls: None,
    alpn: &[],
    rebuff: b"-ERR this port speaks TLS: use rediss://\r\n",
    default_port: 6379,
    sharing: Sharing::Shared,
    adapt: None,
    tracing: database_tracing("redis"),
    open,
    samples: samples::SAMPLES,
};

/// The same over TLS.
#[cfg(feature = "tls")]
pub const SCHEME_TLS: Scheme = Scheme { name: "rediss", tls: true, samples: &[], ..SCHEME };

/// What the URL chose. Holds a secret, hence no `Debug`.
pub struct Options {
    /// Absent: the default user.
    pub user: Option<String>,
    pub password: Option<String>,
    pub database: u32,
    pub version: Version,
    pub client_name: Option<String>,
    /// Attributes are kept, as ext 5.
    pub attributes: bool,
    pub tracking: Tracking,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// RESP3 if the server has it.
    Auto,
    Two,
    Three,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tracking {
    Off,
    /// Invalidations of the keys that this conn read.
    On,
    /// Invalidations of every key.
    Broadcast,
}

fn open(url: &mut Url, limits: &Limits) -> Result<Box<dyn Driver>, ConfigError> {
    let version = match url.options.word("protocol", "auto", &["auto", "2", "3"])? {
        "2" => Version::Two,
        "3" => Version::Three,
        _ => Version::Auto,
    };
    let tracking = match url.options.word("tracking", "off", &["off", "on", "bcast"])? {
        "on" => Tracking::On,
        "bcast" => Tracking::Broadcast,
        _ => Tracking::Off,
    };
    if version == Version::Two && tracking != Tracking::Off {
        return Err(ConfigError::new("tracking", "on", "protocol=3 or auto, because RESP2 cannot push invalidations"));
    }
    if url.user.is_some() && url.password.is_none() {
        return Err(ConfigError::new("user", "", "a password too, as in redis://user:password@host"));
    }
    let options = Options {
        user: url.user.clone(),
        password: url.password.clone(),
        database: database(url)?,
        version,
        client_name: client_name(url)?,
        attributes: url.options.flag("attributes", false)?,
        tracking,
    };
    let slots = limits.follow == Follow::Topology;
    if slots && options.database != 0 {
        let expected = "0, or nothing: a cluster has no other database";
        return Err(ConfigError::new("database", &options.database.to_string(), expected));
    }
    Ok(Box::new(Redis { options: Arc::new(options), limits: *limits, slots, next_client: AtomicU64::new(1) }))
}

/// The path, or `db=`.
fn database(url: &mut Url) -> Result<u32, ConfigError> {
    let option = url.options.text("db").map(|text| commands::database(&text)).transpose()?;
    let path = (!url.path.is_empty()).then(|| commands::database(&url.path)).transpose()?;
    match (path, option) {
        (Some(path), Some(option)) if path != option => {
            Err(ConfigError::new("database", &url.path, format!("the same as db={option}, or only one of them")))
        }
        (path, option) => Ok(path.or(option).unwrap_or(0)),
    }
}

fn client_name(url: &mut Url) -> Result<Option<String>, ConfigError> {
    let Some(name) = url.options.text("client_name") else { return Ok(None) };
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(ConfigError::new("client_name", &name, "printable ASCII without spaces"));
    }
    Ok(Some(name))
}

struct Redis {
    options: Arc<Options>,
    limits: Limits,
    /// It is a cluster, whose slots decide where requests go.
    slots: bool,
    /// CLIENT ID of the listener's next conn.
    next_client: AtomicU64,
}

impl Redis {
    /// Apart from `classify`, which is hot where there is only one place to go to.
    #[cold]
    #[inline(never)]
    fn routed(&self, need: Need, body: &[u8], hashes: bool) -> Result<Need, Refusal> {
        Ok(Need { route: routes::route(body, self.slots, hashes)?, ..need })
    }
}

impl Driver for Redis {
    #[inline]
    fn classify(&self, body: &[u8], hashes: bool) -> Result<Need, Refusal> {
        let class = encode::classify(body, self.options.tracking != Tracking::Off)?;
        let need = Need { class, idempotent: false, route: Route::default() };
        if hashes | self.slots { self.routed(need, body, hashes) } else { Ok(need) }
    }

    fn is_secret(&self, body: &[u8]) -> bool {
        const WORDS: [&[u8]; 6] = [b"AUTH", b"AUTH2", b"HELLO", b"ACL", b"CONFIG", b"SENTINEL"];
        let mut reader = Reader::new(body);
        loop {
            match reader.token() {
                Ok(Token::Str(word) | Token::Bin(word)) if WORDS.iter().any(|it| it.eq_ignore_ascii_case(word)) => {
                    return true;
                }
                Ok(_) if !reader.is_at_end() => {}
                Ok(_) => return false,
                // What cannot be read is not shown.
                Err(_) => return true,
            }
        }
    }

    fn client(&self) -> Box<dyn Protocol> {
        Box::new(session::Session::new(self.options.clone(), self.limits))
    }

    fn server(&self) -> Box<dyn Protocol> {
        let id = self.next_client.fetch_add(1, Ordering::Relaxed);
        Box::new(server::ServerSession::new(self.options.clone(), self.limits, id))
    }
}
