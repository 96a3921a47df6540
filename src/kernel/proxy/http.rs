//! A tunnel through an HTTP proxy: CONNECT (RFC 9110, section 9.3.6).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{Handshake, Target};
use crate::kernel::greeting::Stands;

/// Bytes of a proxy's answer, at most.
const HEAD_MAX: usize = 16 << 10;

pub struct Http {
    request: Vec<u8>,
    head: Vec<u8>,
}

impl Http {
    pub fn new(target: &Target, credentials: Option<&(String, String)>) -> Self {
        let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n");
        if let Some((user, password)) = credentials {
            // Basic (RFC 7617).
            let encoded = STANDARD.encode(format!("{user}:{password}"));
            request.push_str(&format!("Proxy-Authorization: Basic {encoded}\r\n"));
        }
        request.push_str("\r\n");
        Http { request: request.into_bytes(), head: Vec::new() }
    }

    /// A 2xx answer has no body: what follows its head is the tunnel. Interim answers come before it.
    fn judge(&mut self) -> Result<Option<Stands>, String> {
        let line = self.head.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let line = String::from_utf8_lossy(line).trim_end().to_string();
        let status = line.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)?.parse::<u16>().ok());
        self.head.clear();
        match status {
            Some(200..=299) => Ok(Some(Stands::Tunnel)),
            Some(100..=199) => Ok(None),
            Some(407) => Err(format!("it wants other credentials, in proxy=http://user:password@host ({line})")),
            Some(403) => Err(format!("it does not allow this ({line})")),
            Some(_) => Err(format!("it answered {line}")),
            None => Err(format!("it is no HTTP proxy: it answered {line:?}")),
        }
    }
}

impl Handshake for Http {
    fn begin(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.request);
    }

    /// A head ends with an empty line, which is two bytes at least after anything else.
    fn wants(&self) -> usize {
        match self.head.last() {
            Some(b'\n') | Some(b'\r') => 1,
            _ => 2,
        }
    }

    fn handle(&mut self, input: &[u8], _out: &mut Vec<u8>) -> Result<Option<Stands>, String> {
        self.head.extend_from_slice(input);
        if self.head.ends_with(b"\r\n\r\n") || self.head.ends_with(b"\n\n") {
            return self.judge();
        }
        if self.head.len() > HEAD_MAX {
            return Err(format!("its answer has a head of more than {HEAD_MAX} bytes"));
        }
        Ok(None)
    }
}
