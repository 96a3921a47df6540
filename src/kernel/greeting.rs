//! What is said on a socket before TLS and the protocol: to a proxy, for a tunnel; to a peer, for TLS. They never learn of it.
//!
//! # Architecture invariants
//! A [`Handshake`] knows no socket and no clock, and reads not a byte past its own end.

use std::io::{self, Read, Write};

use super::conn::Link;
use super::dial::Stream;
use super::io::Io;
use crate::peer::Place;
use crate::status::IOK_STATUS_UNAVAILABLE;

/// One kind of talk.
pub trait Handshake: Send {
    /// What is said first.
    fn begin(&mut self, out: &mut Vec<u8>);
    /// Bytes that may be read next without taking any of what follows: at least 1.
    fn wants(&self) -> usize;
    /// Bytes came, `wants` of them at most. `Some`: what stands from here on. An error says what the other side answered.
    fn handle(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<Option<Stands>, String>;
}

/// What a talk has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stands {
    /// A tunnel to the peer.
    Tunnel,
    /// TLS begins.
    Secure,
    /// There is to be no TLS.
    Plain,
}

/// A socket whose other side was not yet told, or did not yet say yes.
pub struct Greeting {
    pub stream: Stream,
    handshake: Box<dyn Handshake>,
    out: Vec<u8>,
    out_at: usize,
}

impl Greeting {
    fn new(stream: Stream, mut handshake: Box<dyn Handshake>) -> Self {
        let mut out = Vec::new();
        handshake.begin(&mut out);
        Greeting { stream, handshake, out, out_at: 0 }
    }

    /// Writes and reads what can be.
    fn advance(&mut self) -> Result<Option<Stands>, String> {
        match self.exchange() {
            Ok(done) => done,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }

    fn exchange(&mut self) -> io::Result<Result<Option<Stands>, String>> {
        let mut input = [0; 512];
        loop {
            while self.out_at < self.out.len() {
                match self.stream.write(&self.out[self.out_at..]) {
                    Ok(count) => self.out_at += count,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            (self.out_at, self.out) = (0, Vec::new());
            let wants = self.handshake.wants().min(input.len());
            let count = match self.stream.read(&mut input[..wants]) {
                Ok(0) => return Ok(Err("it closed the connection instead of an answer".into())),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            match self.handshake.handle(&input[..count], &mut self.out) {
                Ok(None) => {}
                done => return Ok(done),
            }
        }
    }
}

impl Io {
    pub(super) fn begin_greeting(&mut self, key: u32, stream: Stream, handshake: Box<dyn Handshake>) {
        let Some(conn) = self.conns.get_mut(key as usize) else { return };
        conn.link = Link::Greeting(Box::new(Greeting::new(stream, handshake)));
        self.greeting_event(key);
    }

    /// Something came from the other side, or it takes more.
    pub(super) fn greeting_event(&mut self, key: u32) {
        let Some(conn) = self.conns.get_mut(key as usize) else { return };
        let Link::Greeting(greeting) = &mut conn.link else { return };
        let stands = match greeting.advance() {
            Ok(None) => return self.rearm(key),
            Ok(Some(stands)) => stands,
            Err(why) => {
                let message = self.through_proxy(key, why);
                return self.conn_failed(key, IOK_STATUS_UNAVAILABLE, false, message);
            }
        };
        let Link::Greeting(greeting) = std::mem::replace(&mut conn.link, Link::Resolving) else { return };
        match stands {
            Stands::Tunnel => {
                conn.place = match &conn.tunnel {
                    Some(super::proxy::Target::Address(address)) => Some(Place::Tcp(*address)),
                    _ => None,
                };
                self.socket_stands(key, greeting.stream);
            }
            Stands::Secure => self.secure(key, greeting.stream),
            Stands::Plain => self.plain(key, greeting.stream),
        }
    }
}
