//! HTTP/1.1 (RFC 9110, RFC 9112), client and server.

mod client;
mod server;
mod value;
mod wire;

use crate::config::{ConfigError, Url};
use crate::proto::{Class, Driver, Limits, Need, Protocol, Refusal, Route, Scheme, Tracing};

/// The row of [`crate::proto::TABLE`].
pub const SCHEME: Scheme = Scheme {
    name: "http",
    tls: false,
    alpn: &[],
    default_port: 80,
    exclusive: true,
    // OpenTelemetry semantic conventions 1.38, "HTTP client span".
    tracing: Tracing {
        system: ("network.protocol.name", "http"),
        operation: "http.request.method",
        error_code: "error.type",
    },
    open,
    samples: &[],
};

/// The same over TLS.
#[cfg(feature = "tls")]
pub const SCHEME_TLS: Scheme = Scheme { name: "https", tls: true, alpn: &[b"http/1.1"], default_port: 443, ..SCHEME };

struct Http {
    limits: Limits,
}

/// Reads what the URL says of HTTP: a service's options, or a listener's (`limits.listener`).
fn open(_url: &mut Url, limits: &Limits) -> Result<Box<dyn Driver>, ConfigError> {
    Ok(Box::new(Http { limits: *limits }))
}

impl Driver for Http {
    fn classify(&self, _body: &[u8], _hashes: bool) -> Result<Need, Refusal> {
        Ok(Need { class: Class::Exchange, idempotent: false, route: Route::default() })
    }

    fn is_secret(&self, _body: &[u8]) -> bool {
        true
    }

    fn client(&self) -> Box<dyn Protocol> {
        Box::new(client::Client::new(self.limits))
    }

    fn server(&self) -> Box<dyn Protocol> {
        Box::new(server::Server::new(self.limits))
    }
}
