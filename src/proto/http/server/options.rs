//! What a listener's URL says of HTTP.

use std::time::Duration;

use crate::config::{ConfigError, Url};
use crate::proto::http::wire::Bounds;

/// How the head of a request is told to the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `[method, target, headers, version, client]`
    Message,
    /// The variables of CGI/1.1 (RFC 3875), as WSGI, Rack and PSGI want them.
    Cgi,
    /// The scope of ASGI.
    Scope,
}

/// Which header of the PROXY protocol must come first on each conn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proxied {
    No,
    One,
    Two,
    Any,
}

/// The options of a listener that are its protocol's.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bytes of a request's line and headers.
    pub head_bytes_max: usize,
    pub headers_max: usize,
    /// Longer bodies are told in pieces.
    pub stream_above_bytes: usize,
    /// From the first byte of a head to its last.
    pub head_timeout: Duration,
    /// Between two requests.
    pub idle_timeout: Duration,
    /// Between two bytes of a body.
    pub body_timeout: Duration,
    pub form: Form,
    /// The path whose requests ask whether the program is well.
    pub health: Option<Vec<u8>>,
    /// The Server header; empty: none.
    pub server: Vec<u8>,
    pub proxied: Proxied,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            head_bytes_max: 64 << 10,
            headers_max: 100,
            stream_above_bytes: 64 << 10,
            head_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            body_timeout: Duration::from_secs(30),
            form: Form::Message,
            health: None,
            server: b"iokernel".to_vec(),
            proxied: Proxied::No,
        }
    }
}

impl Options {
    pub fn bounds(&self) -> Bounds {
        Bounds { head_bytes_max: self.head_bytes_max, headers_max: self.headers_max }
    }

    /// Takes them out of the URL.
    pub fn take(url: &mut Url) -> Result<Self, ConfigError> {
        let default = Options::default();
        let options = &mut url.options;
        let head_bytes_max = options.bytes("max_head", default.head_bytes_max)?;
        if !(256..=16 << 20).contains(&head_bytes_max) {
            return Err(ConfigError::new("max_head", &head_bytes_max.to_string(), "a size from 256 to 16MiB"));
        }
        let stream_above_bytes = options.bytes("stream_above", default.stream_above_bytes)?;
        if stream_above_bytes > 1 << 30 {
            return Err(ConfigError::new("stream_above", &stream_above_bytes.to_string(), "a size of at most 1GiB"));
        }
        let form = match options.word("form", "message", &["message", "cgi", "scope"])? {
            "cgi" => Form::Cgi,
            "scope" => Form::Scope,
            _ => Form::Message,
        };
        let proxied = match options.word("proxy_protocol", "off", &["off", "v1", "v2", "any", "on"])? {
            "v1" => Proxied::One,
            "v2" => Proxied::Two,
            "any" | "on" => Proxied::Any,
            _ => Proxied::No,
        };
        let health = options.text("health");
        if let Some(path) = health.as_deref().filter(|path| !is_path(path)) {
            return Err(ConfigError::new("health", path, "a path, as in health=/healthz"));
        }
        let server = options.text("server").map_or(default.server, String::into_bytes);
        if !server.iter().all(|byte| matches!(byte, b' '..=b'~')) {
            let shown = String::from_utf8_lossy(&server);
            return Err(ConfigError::new("server", &shown, "printable ASCII, or nothing for no Server header"));
        }
        Ok(Options {
            head_bytes_max,
            headers_max: options.number("max_headers", default.headers_max as u64, 1..=10_000)? as usize,
            stream_above_bytes,
            head_timeout: span(options, "head_timeout", default.head_timeout)?,
            idle_timeout: span(options, "idle_timeout", default.idle_timeout)?,
            body_timeout: span(options, "body_timeout", default.body_timeout)?,
            form,
            health: health.map(String::into_bytes),
            server,
            proxied,
        })
    }
}

/// A span of time that is not empty: a timeout of nothing would be over before it began.
fn span(options: &mut crate::config::Options, key: &'static str, default: Duration) -> Result<Duration, ConfigError> {
    let span = options.duration(key, default)?;
    if span.is_zero() {
        return Err(ConfigError::new(key, "0", "a time that is longer than nothing"));
    }
    Ok(span)
}

fn is_path(text: &str) -> bool {
    text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#".contains(&byte))
}
