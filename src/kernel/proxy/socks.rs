//! A tunnel through a SOCKS proxy, version 5 (RFC 1928), with user and password (RFC 1929).

use std::net::SocketAddr;

use super::{Handshake, Target};
use crate::kernel::greeting::Stands;

const VERSION: u8 = 5;
const NO_AUTHENTICATION: u8 = 0;
const USER_AND_PASSWORD: u8 = 2;
const CONNECT: u8 = 1;

enum Phase {
    Method,
    Password,
    Reply,
}

pub struct Socks {
    target: Target,
    credentials: Option<(String, String)>,
    phase: Phase,
    input: Vec<u8>,
}

impl Socks {
    pub fn new(target: &Target, credentials: Option<&(String, String)>) -> Self {
        Socks { target: target.clone(), credentials: credentials.cloned(), phase: Phase::Method, input: Vec::new() }
    }

    /// Bytes of the message that is awaited, as far as its beginning tells.
    fn length(&self) -> usize {
        match (&self.phase, &self.input[..]) {
            (Phase::Method | Phase::Password, _) => 2,
            (Phase::Reply, [_, _, _, 1, ..]) => 10,
            (Phase::Reply, [_, _, _, 4, ..]) => 22,
            (Phase::Reply, [_, _, _, 3, length, ..]) => 7 + usize::from(*length),
            (Phase::Reply, [_, _, _, 3]) => 5,
            (Phase::Reply, _) => 4,
        }
    }

    fn ask(&mut self, out: &mut Vec<u8>) {
        self.phase = Phase::Reply;
        out.extend([VERSION, CONNECT, 0]);
        let port = match &self.target {
            Target::Name(host, port) => {
                out.extend([3, host.len() as u8]);
                out.extend(host.as_bytes());
                *port
            }
            Target::Address(SocketAddr::V4(address)) => {
                out.push(1);
                out.extend(address.ip().octets());
                address.port()
            }
            Target::Address(SocketAddr::V6(address)) => {
                out.push(4);
                out.extend(address.ip().octets());
                address.port()
            }
        };
        out.extend(port.to_be_bytes());
    }

    fn authenticate(&mut self, out: &mut Vec<u8>) -> Result<(), String> {
        let Some((user, password)) = &self.credentials else {
            return Err("it chose a method that was not offered".into());
        };
        self.phase = Phase::Password;
        out.extend([1, user.len() as u8]);
        out.extend(user.as_bytes());
        out.push(password.len() as u8);
        out.extend(password.as_bytes());
        Ok(())
    }
}

/// RFC 1928, section 6.
fn reason(code: u8) -> &'static str {
    match code {
        1 => "general failure",
        2 => "not allowed by its rules",
        3 => "network unreachable",
        4 => "host unreachable",
        5 => "connection refused",
        6 => "TTL expired",
        7 => "command not supported",
        8 => "address type not supported",
        _ => "unknown",
    }
}

impl Handshake for Socks {
    fn begin(&mut self, out: &mut Vec<u8>) {
        match self.credentials {
            Some(_) => out.extend([VERSION, 2, NO_AUTHENTICATION, USER_AND_PASSWORD]),
            None => out.extend([VERSION, 1, NO_AUTHENTICATION]),
        }
    }

    fn wants(&self) -> usize {
        self.length().saturating_sub(self.input.len()).max(1)
    }

    fn handle(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<Option<Stands>, String> {
        self.input.extend_from_slice(input);
        let version = if matches!(self.phase, Phase::Password) { 1 } else { VERSION };
        if self.input.first().is_some_and(|first| *first != version) {
            return Err("it is no SOCKS5 proxy: its answer has another version".into());
        }
        if self.input.len() >= 4 && !matches!(self.input[3], 1 | 3 | 4) {
            return Err(format!("its answer has an unknown type of address ({})", self.input[3]));
        }
        if self.input.len() < self.length() {
            return Ok(None);
        }
        let code = self.input[1];
        self.input.clear();
        match (&self.phase, code) {
            (Phase::Method, NO_AUTHENTICATION) => self.ask(out),
            (Phase::Method, USER_AND_PASSWORD) => self.authenticate(out)?,
            (Phase::Method, _) if self.credentials.is_none() => {
                return Err("it wants credentials, as in proxy=socks5://user:password@host".into());
            }
            (Phase::Method, _) => return Err("it takes neither no credentials nor user and password".into()),
            (Phase::Password, 0) => self.ask(out),
            (Phase::Password, code) => return Err(format!("it does not take this user and password (status {code})")),
            (Phase::Reply, 0) => return Ok(Some(Stands::Tunnel)),
            (Phase::Reply, code) => return Err(format!("it answered {code}: {}", reason(code))),
        }
        Ok(None)
    }
}
