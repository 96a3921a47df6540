//! What stands in the place of [`tls`](super::tls) in a library that is built without it: nothing of it can be.

use std::io;
use std::time::Instant;

use super::dial::Stream;
use super::greeting::Handshake;
use super::io::Io;
use super::line::Got;
use super::observing::own::TlsMeter;
use super::state::MapWriter;
use crate::config::{ConfigError, Url};
use crate::peer::Peer;
use crate::proto::{Scheme, Wish};

pub struct Tls {
    none: None,
    pub meter: Option<TlsMeter>,
}

pub struct Session(None);

pub struct Securing {
    pub socket: Stream,
    _none: None,
}

enum None {}

impl Tls {
    pub fn take(url: &mut Url, scheme: &Scheme, _: bool) -> Result<Option<Box<Self>>, ConfigError> {
        match scheme.starttls.map(|start| (start.wish)(url)).transpose()? {
            Some(Wish::Must) => Err(ConfigError::new("scheme", scheme.name, "a library with the feature tls for TLS")),
            _ => Ok(Option::None),
        }
    }

    pub fn start(&self) -> Option<Box<dyn Handshake>> {
        match self.none {}
    }

    pub fn name_of(&self, _: &Peer) -> Option<String> {
        match self.none {}
    }

    pub fn tell(&mut self, _: Instant, _: &mut MapWriter) {
        match self.none {}
    }
}

impl Session {
    pub fn read(&mut self, _: &mut Stream, _: &mut [u8]) -> io::Result<Got> {
        match self.0 {}
    }

    pub fn write(&mut self, _: &mut Stream, _: &[u8]) -> io::Result<usize> {
        match self.0 {}
    }

    pub fn is_settled(&self) -> bool {
        match self.0 {}
    }

    pub fn settle(&mut self, _: &mut Stream) -> io::Result<()> {
        match self.0 {}
    }

    pub fn say_goodbye(&mut self, _: &mut Stream) {
        match self.0 {}
    }
}

impl Io {
    pub(in crate::kernel) fn secure(&mut self, _: u32, _: Stream) {}

    pub(in crate::kernel) fn handshake_event(&mut self, _: u32) {}

    pub(in crate::kernel) fn shake_hands(&mut self) {}

    pub(in crate::kernel) fn handshake_late(&mut self, _: u32) {}

    pub(in crate::kernel) fn handshake_left(&mut self, _: u32) {}

    pub(in crate::kernel) fn has_room(&self, _: u32) -> bool {
        true
    }

    pub(in crate::kernel) fn make_room(&mut self, _: u32) {}
}
