//! Endpoints: what the program opened by URL.

use std::time::Instant;

use super::options::EndpointOptions;
use super::request::Name;
use super::tls::Tls;
use super::wheel::TimerKey;
use crate::config::{Address, ConfigError, Url, redact};
use crate::discovery::{self, Source};
use crate::proto::{self, Driver, Follow, RequestId, Tracing};
use crate::router::Router;

/// How much of a request's payload is kept to be shown.
const ARGUMENTS_BYTES: usize = 512;

/// What a URL came to.
pub struct Endpoint {
    /// The number that the program knows.
    pub number: u32,
    /// The URL without its secrets.
    pub shown: String,
    pub tracing: Tracing,
    pub driver: Box<dyn Driver>,
    pub options: EndpointOptions,
    pub tls: Option<Box<Tls>>,
    pub address: Address,
    /// None for listeners, and while the router is at work.
    pub router: Option<Box<dyn Router>>,
    pub listener: Option<super::listener::Listener>,
    /// The listener leaves, and who waits for that.
    pub leaving: Option<super::leaving::Leaving>,
    pub timer: TimerKey,
    pub timer_at: Option<Instant>,
    /// The router may have a new timeout.
    pub touched: bool,
    /// None for listeners, and while the source is at work.
    pub source: Option<Box<dyn Source>>,
    pub source_timer: TimerKey,
    /// The keys of the services that the source asks.
    pub helpers: Vec<u32>,
    /// The router has reason to doubt what the source told.
    pub doubted: bool,
    /// A helper of another endpoint, which the program did not open.
    pub internal: bool,
    /// Streams of `IOK_OP_WATCH`, and the version of the state that they have.
    pub watchers: Vec<RequestId>,
    pub version_told: u64,
    /// Heartbeats stopped on purpose.
    pub muted: bool,
}

impl Endpoint {
    pub fn new(opened: Opened, number: u32, internal: bool) -> Self {
        Endpoint {
            number,
            shown: opened.shown,
            tracing: opened.tracing,
            driver: opened.driver,
            options: opened.options,
            tls: opened.tls,
            address: opened.address,
            router: None,
            listener: None,
            leaving: None,
            timer: TimerKey::NONE,
            timer_at: None,
            touched: false,
            source: opened.source,
            source_timer: TimerKey::NONE,
            helpers: Vec::new(),
            doubted: false,
            internal,
            watchers: Vec::new(),
            version_told: 0,
            muted: false,
        }
    }

    /// Peers may hand requests back, so payloads are kept until the reply is there.
    #[inline]
    pub fn keeps_payloads(&self) -> bool {
        self.options.limits.follow != Follow::Nothing
    }

    /// What is shown of a request: its command, and, where that is wanted and no secret, the beginning of its arguments.
    #[inline]
    pub fn shown_of(&self, payload: &[u8]) -> (Name, Option<Box<[u8]>>) {
        let command = self.driver.command(payload);
        let shows = self.options.shows_arguments && !self.driver.is_secret(payload);
        (Name::of(command), shows.then(|| payload[..payload.len().min(ARGUMENTS_BYTES)].into()))
    }

    /// Requests are told their hashes.
    #[inline]
    pub fn hashes(&self) -> bool {
        self.options.service.balance == crate::router::balance::Balance::Hash
    }
}

/// A URL, read as far as it can be without the network.
pub struct Opened {
    pub shown: String,
    pub tracing: Tracing,
    pub driver: Box<dyn Driver>,
    pub options: EndpointOptions,
    /// None for schemes without it.
    pub tls: Option<Box<Tls>>,
    pub address: Address,
    /// None for listeners.
    pub source: Option<Box<dyn Source>>,
}

/// Reads a URL: scheme, address, common options by whatever name, then the source's and the protocol's own; anything left
/// is an error.
pub fn read_url(text: &[u8], listener: bool, seed: u64) -> Result<Opened, ConfigError> {
    let text =
        std::str::from_utf8(text).map_err(|_| ConfigError::new("url", &String::from_utf8_lossy(text), "UTF-8"))?;
    let mut url = Url::parse(text, |name| proto::scheme(name).map(|scheme| scheme.default_port)).map_err(known)?;
    let scheme = proto::scheme(&url.scheme).ok_or_else(|| known(ConfigError::new("scheme", &url.scheme, "")))?;
    if let Some(adapt) = scheme.adapt.filter(|_| !listener) {
        adapt(&mut url)?;
    }
    let options = EndpointOptions::take(&mut url, listener, scheme.default_port, scheme.sharing, seed)?;
    let source = if listener { None } else { Some(discovery::open(&mut url, &options.terms)?) };
    let tls = Tls::take(&mut url, scheme, listener)?;
    if let Some((key, value)) = url.options.copies("tls_").into_iter().next().filter(|_| tls.is_none()) {
        return Err(ConfigError::new(&key, &value, format!("a scheme with TLS: {}", secure_schemes())));
    }
    let driver = (scheme.open)(&mut url, &options.limits)?;
    url.options.finish()?;
    let tracing = scheme.tracing;
    Ok(Opened { shown: redact(text), tracing, driver, options, tls, address: url.address, source })
}

fn secure_schemes() -> String {
    let names: Vec<&str> = proto::TABLE
        .iter()
        .filter(|scheme| scheme.tls || scheme.starttls.is_some())
        .map(|scheme| scheme.name)
        .collect();
    if names.is_empty() { "this library is built without the feature tls".into() } else { names.join(", ") }
}

/// An unknown scheme is told which ones there are, and one that only another build has, which feature that is.
fn known(error: ConfigError) -> ConfigError {
    if error.key != "scheme" {
        return error;
    }
    let plain = error.value.strip_suffix('s').filter(|plain| proto::scheme(plain).is_some());
    if plain.is_some() && !cfg!(feature = "tls") {
        return ConfigError { expected: "a library that is built with the feature tls".into(), ..error };
    }
    let names: Vec<&str> = proto::TABLE.iter().map(|scheme| scheme.name).collect();
    ConfigError { expected: format!("one of {}, unix", names.join(", ")), ..error }
}
