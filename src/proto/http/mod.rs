//! HTTP/1.1 (RFC 9110, RFC 9112), client and server.
//!
//! Both sides share [`wire`], the framing; [`value`], what programs say and are told; and [`talk`], a conn that has become a
//! WebSocket. [`coding`] takes content codings off. [`client`] is one conn of a service, [`server`] one of a listener.
//!
//! # Room for HTTP/2 (RFC 9113)
//! `handle_open` is told what ALPN agreed on ([`Transport::alpn`](crate::proto::Transport)) before a byte is written, so a
//! session of HTTP/2 would be chosen there, beside `client` and `server`, once the row of `https` offers `h2`. It would
//! share `value`, `coding` and `talk` (RFC 8441), whose shapes say nothing of version 1.1 but a number, and none of
//! `wire`. It admits requests while it has streams left: routers give a conn more than one where no further conn may be
//! made (`pool=1`) and `admit` says now, and replies carry the ids of their requests, in any order.
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use crate::config::{Address, ConfigError, Url};
use crate::proto::{Class, Driver, Limits, Need, Protocol, Refusal, Route, Scheme, Sharing, Tracing};
use client::Settings;
use client::request::Asked;

mod client;
mod coding;
#[cfg(test)]
mod corpus;
mod samples;
mod server;
mod talk;
mod value;
pub(in crate::proto) mod wire;

/// The row of [`crate::proto::TABLE`].
pub const SCHEME: Scheme = Scheme {
    name: "http",
    tls: false,
    starttls: None,
    alpn: &[],
    rebuff: b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: 33\r\nConnection: close\r\n\r\n\
        This port speaks TLS: use https.\n",
    default_port: 80,
    sharing: Sharing::Exclusive,
    adapt: None,
    // OpenTelemetry semantic conventions 1.38, "HTTP client span".
    tracing: Tracing {
        system: ("network.protocol.name", "http"),
        operation: "http.request.method",
        error_code: "error.type",
    },
    open,
    samples: samples::SAMPLES,
};

/// The same over TLS.
#[cfg(feature = "tls")]
pub const SCHEME_TLS: Scheme =
    Scheme { name: "https", tls: true, alpn: &[b"http/1.1"], default_port: 443, samples: &[], ..SCHEME };

/// What a path may not have as it is (RFC 3986, 3.3). A percent sign stands for itself: the path was decoded.
const PATH: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'`')
    .add(b'{')
    .add(b'}')
    .add(b'|')
    .add(b'\\')
    .add(b'^')
    .add(b'[')
    .add(b']');

struct Http {
    /// A service's.
    settings: Arc<Settings>,
    /// A listener's.
    server: Arc<server::Options>,
    limits: Limits,
}

/// Reads what the URL says of HTTP: a service's options, or a listener's (`limits.listener`).
fn open(url: &mut Url, limits: &Limits) -> Result<Box<dyn Driver>, ConfigError> {
    let server = if limits.listener { server::Options::take(url)? } else { server::Options::default() };
    let pipeline = if limits.listener { false } else { url.options.flag("pipeline", false)? };
    let authorization = match (&url.user, &url.password) {
        (None, None) => None,
        (user, password) => {
            let (user, password) = (user.as_deref().unwrap_or(""), password.as_deref().unwrap_or(""));
            if user.contains(':') {
                return Err(ConfigError::new("user", user, "a name without a colon (RFC 7617, 2)"));
            }
            Some(format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))).into_bytes())
        }
    };
    let path = url.path.trim_end_matches('/');
    let base = if path.is_empty() { String::new() } else { format!("/{}", utf8_percent_encode(path, PATH)) };
    let settings = Settings {
        host: host(url).into_bytes(),
        base: base.into_bytes(),
        authorization,
        pipeline,
        // The keys of this map are random, and nobody else knows them.
        seed: AtomicU64::new(RandomState::new().build_hasher().finish()),
    };
    Ok(Box::new(Http { settings: Arc::new(settings), limits: *limits, server: Arc::new(server) }))
}

/// The field Host (RFC 9110, 7.2): without the scheme's own port, IPv6 in brackets.
fn host(url: &Url) -> String {
    match &url.address {
        Address::Unix(_) => "localhost".into(),
        Address::Host { host, port } => {
            let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
            let is_default = *port == if url.scheme == "https" { 443 } else { 80 };
            if is_default { host } else { format!("{host}:{port}") }
        }
    }
}

impl Driver for Http {
    fn classify(&self, body: &[u8], _hashes: bool) -> Result<Need, Refusal> {
        let asked = Asked::read(body)?;
        Ok(Need { class: Class::Exchange, idempotent: asked.is_idempotent(), route: Route::default() })
    }

    fn is_secret(&self, body: &[u8]) -> bool {
        // What cannot be read is not shown.
        Asked::read(body).map_or(true, |asked| asked.is_secret())
    }

    fn client(&self) -> Box<dyn Protocol> {
        Box::new(client::Client::new(self.settings.clone(), self.limits))
    }

    fn server(&self) -> Box<dyn Protocol> {
        Box::new(server::Server::new(self.server.clone(), self.limits))
    }
}
