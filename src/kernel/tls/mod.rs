//! TLS for every protocol, by rustls: services and listeners whose scheme's row says so ([`crate::proto::Scheme::tls`]).
//!
//! From a URL to encrypted bytes: [`options`] are read from it, [`made`] (with [`pem`], [`roots`] and [`verifier`]) makes
//! of them and of the files that they name what rustls works with, and again when a file has changed ([`Tls::look`]);
//! where a protocol begins in the clear, the peer is asked ([`ask`]);
//! [`handshakes`] are carried on a few in each turn of the loop; a [`Session`] then encrypts and decrypts for one conn, under
//! [`super::line`]. What goes wrong is told by [`words`].
//!
//! # Architecture invariants
//! rustls is named nowhere else. Nothing is encrypted, signed or verified but by it and its provider. Early data (0-RTT) is
//! neither sent nor taken. Files are read when an endpoint is opened and when they have changed, never for each conn.

mod ask;
mod handshakes;
mod made;
mod options;
mod pem;
mod roots;
mod session;
#[cfg(test)]
mod tests;
mod verifier;
mod words;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

pub use handshakes::Securing;
use made::{Asked, Made};
use options::{Named, Side, TlsOptions, Verify};
use session::Agreed;
pub use session::Session;

use super::greeting::Handshake;
use super::observing::own::TlsMeter;
use super::state::MapWriter;
use crate::config::{Address, ConfigError, Url};
use crate::discovery::stamp::Stamp;
use crate::peer::Peer;
use crate::proto::{Scheme, StartTls, Wish};

/// How long files are taken to be what they were when they were last looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// One endpoint's TLS.
pub struct Tls {
    options: TlsOptions,
    /// The peer is asked first, and it must have it.
    ask: Option<(StartTls, bool)>,
    made: Made,
    asked: Arc<Asked>,
    /// See [`Scheme::rebuff`].
    rebuff: &'static [u8],
    /// As they were when `made` was made of them; None: not there.
    files: Vec<(PathBuf, Option<Stamp>)>,
    looked: Option<Instant>,
    /// Why the files as they are at present are of no use; empty: they are in use.
    files_error: String,
    counts: Counts,
    pub meter: Option<TlsMeter>,
    /// What the last handshake came to.
    last: Option<Agreed>,
    last_error: String,
    /// A listener's conns whose handshake is under way: key and number, in the order in which they came, some of them
    /// done already.
    half_open: VecDeque<(u32, u32)>,
    pending: usize,
}

#[derive(Clone, Copy, Default)]
struct Counts {
    handshakes: u64,
    resumed: u64,
    failures: u64,
    reloads: u64,
    reload_failures: u64,
}

impl Tls {
    /// Takes what a URL says, and reads the files that it names. None if its scheme has no TLS.
    pub fn take(url: &mut Url, scheme: &Scheme, listener: bool) -> Result<Option<Box<Self>>, ConfigError> {
        let ask = match scheme.starttls.filter(|_| !listener) {
            None if scheme.tls => None,
            None => return Ok(None),
            Some(start) => match (start.wish)(url)? {
                Wish::No => return Ok(None),
                wish => Some((start, wish == Wish::Must)),
            },
        };
        let options = TlsOptions::take(&mut url.options, scheme.alpn, listener)?;
        if let (Side::Client(client), Address::Unix(path)) = (&options.side, &url.address)
            && client.verify == Verify::Full
            && !matches!(client.name, Named::Fixed(_))
        {
            let expected = format!("the name that the certificate must be for, which {path} does not tell");
            return Err(ConfigError::new("tls_server_name", "", expected));
        }
        if let Some(word) = url.options.peek("proxy_protocol").filter(|word| *word != "off") {
            let expected = "off, as that header would come before TLS: let the proxy end TLS, or say nothing itself";
            return Err(ConfigError::new("proxy_protocol", word, expected));
        }
        let asked = Arc::new(Asked::default());
        // Looked at first: what is written meanwhile shows as a change.
        let files = made::files(&options).into_iter().map(|path| (path.clone(), Stamp::of(&path).ok())).collect();
        let made = Made::new(&options, &asked)?;
        Ok(Some(Box::new(Tls {
            options,
            ask,
            made,
            asked,
            rebuff: scheme.rebuff,
            files,
            looked: None,
            files_error: String::new(),
            counts: Counts::default(),
            meter: None,
            last: None,
            last_error: String::new(),
            half_open: VecDeque::new(),
            pending: 0,
        })))
    }

    /// What is said in the clear before the handshake.
    pub fn start(&self) -> Option<Box<dyn Handshake>> {
        self.ask.map(|(start, must)| Box::new(ask::Ask { start, must }) as Box<dyn Handshake>)
    }

    /// Whose certificate a peer must have.
    pub fn name_of(&self, peer: &Peer) -> Option<String> {
        let Side::Client(client) = &self.options.side else { return None };
        let own = || peer.host().map(|(host, _)| host.to_string());
        let name = match &client.name {
            Named::Fixed(name) => Some(name.clone()),
            Named::Asked => peer.server_name.clone().or_else(own),
            Named::Own => own(),
        };
        // Whose name is not verified needs one all the same.
        if client.verify == Verify::Full { name } else { name.or_else(|| Some("localhost".into())) }
    }

    /// Looks whether a file has changed, at most once in [`LOOK_EVERY`]. What is of no use changes nothing, and is looked at
    /// again.
    pub fn look(&mut self, now: Instant) {
        if self.looked.is_some_and(|at| now < at + LOOK_EVERY) {
            return;
        }
        self.looked = Some(now);
        let stamps: Vec<Option<Stamp>> = self.files.iter().map(|(path, _)| Stamp::of(path).ok()).collect();
        if self.files.iter().zip(&stamps).all(|((_, used), found)| used == found) {
            return self.files_error.clear();
        }
        match Made::new(&self.options, &self.asked) {
            Ok(made) => {
                self.made = made;
                self.files.iter_mut().zip(stamps).for_each(|((_, used), found)| *used = found);
                self.files_error.clear();
                self.count(|counts| &mut counts.reloads, |meter| meter.reloads.add(1));
            }
            Err(error) => {
                let error = error.to_string();
                if self.files_error != error {
                    self.count(|counts| &mut counts.reload_failures, |meter| meter.reload_failures.add(1));
                }
                self.files_error = error;
            }
        }
    }

    fn count(&mut self, own: impl FnOnce(&mut Counts) -> &mut u64, meter: impl FnOnce(&TlsMeter)) {
        *own(&mut self.counts) += 1;
        if let Some(of) = &self.meter {
            meter(of);
        }
    }

    fn succeeded(&mut self, agreed: Agreed) {
        self.count(|counts| &mut counts.handshakes, |meter| meter.handshakes.add(1));
        if agreed.resumed {
            self.count(|counts| &mut counts.resumed, |meter| meter.resumed.add(1));
        }
        self.last = Some(agreed);
    }

    fn failed(&mut self, error: &str) {
        self.count(|counts| &mut counts.failures, |meter| meter.failures.add(1));
        self.last_error = error.into();
    }

    /// The name that the client asked for whose hello was answered last, once.
    fn take_asked(&self) -> Option<String> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// What `state` shows of it.
    pub fn tell(&mut self, now: Instant, map: &mut MapWriter) {
        self.look(now);
        if let Side::Client(client) = &self.options.side {
            map.text("verify", client.verify.word());
        }
        map.number("handshakes", self.counts.handshakes);
        map.number("resumed", self.counts.resumed);
        map.number("failures", self.counts.failures);
        map.number("pending", self.pending as u64);
        if let Some(last) = &self.last {
            map.text("version", last.version);
            map.text("cipher", &last.cipher);
            map.text("alpn", &String::from_utf8_lossy(last.alpn.as_deref().unwrap_or_default()));
        }
        map.text("last_error", &self.last_error);
        map.number("reloads", self.counts.reloads);
        map.number("reload_failures", self.counts.reload_failures);
        map.text("files_error", &self.files_error);
    }
}
