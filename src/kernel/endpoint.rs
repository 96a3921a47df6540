//! Endpoints: what the program opened by URL.

use std::time::Instant;

use super::options::EndpointOptions;
use super::wheel::TimerKey;
use crate::config::{Address, ConfigError, Url, redact};
use crate::proto::{self, Driver};
use crate::router::Router;

/// What a URL came to.
pub struct Endpoint {
    /// The number that the program knows.
    pub number: u32,
    /// The URL without its secrets.
    pub shown: String,
    pub driver: Box<dyn Driver>,
    pub options: EndpointOptions,
    pub address: Address,
    /// None for listeners, and while the router is at work.
    pub router: Option<Box<dyn Router>>,
    pub listener: Option<super::listener::Listener>,
    pub timer: TimerKey,
    pub timer_at: Option<Instant>,
    /// The router may have a new timeout.
    pub touched: bool,
}

/// A URL, read as far as it can be without the network.
pub struct Opened {
    pub shown: String,
    pub driver: Box<dyn Driver>,
    pub options: EndpointOptions,
    pub address: Address,
}

/// Reads a URL: scheme, address, common options, then the protocol's own; anything left is an error.
pub fn read_url(text: &[u8], listener: bool, seed: u64) -> Result<Opened, ConfigError> {
    let text =
        std::str::from_utf8(text).map_err(|_| ConfigError::new("url", &String::from_utf8_lossy(text), "UTF-8"))?;
    let mut url = Url::parse(text, |name| proto::scheme(name).map(|scheme| scheme.default_port)).map_err(known)?;
    let scheme = proto::scheme(&url.scheme).ok_or_else(|| known(ConfigError::new("scheme", &url.scheme, "")))?;
    let options = EndpointOptions::take(&mut url.options, listener, seed)?;
    let driver = (scheme.open)(&mut url, &options.limits)?;
    url.options.finish()?;
    Ok(Opened { shown: redact(text), driver, options, address: url.address })
}

/// An unknown scheme is told which ones there are.
fn known(error: ConfigError) -> ConfigError {
    if error.key != "scheme" {
        return error;
    }
    let names: Vec<&str> = proto::TABLE.iter().map(|scheme| scheme.name).collect();
    ConfigError { expected: format!("one of {}, unix", names.join(", ")), ..error }
}
