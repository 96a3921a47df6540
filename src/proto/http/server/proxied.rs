//! The PROXY protocol, versions 1 and 2 (haproxy.org, "The PROXY protocol", 2020-03-05): who the client of a proxy is.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::options::Proxied;
use crate::proto::Progress;

/// The longest header of version 1, its line end included (2.1).
const LINE_BYTES_MAX: usize = 107;
/// What version 2 begins with (2.2).
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Of version 2: the signature, version and command, family, length.
const FIXED_BYTES: usize = 16;
/// Addresses and extensions of version 2 that are taken: those of unix sockets with room for all known extensions.
const REST_BYTES_MAX: usize = 4096;

/// Whose conn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// As the transport says: the proxy itself speaks, or does not tell.
    Same,
    Told {
        client: SocketAddr,
        local: SocketAddr,
    },
}

/// Reads the header: the client with what was used up, or how much must be there.
pub fn read(input: &[u8], mode: Proxied) -> Result<(Progress, Option<Client>), &'static str> {
    let common = input.iter().zip(SIGNATURE).take_while(|(byte, expected)| byte == expected).count();
    if matches!(mode, Proxied::Two | Proxied::Any) && (common == SIGNATURE.len() || common == input.len()) {
        return if common < SIGNATURE.len() { Ok((Progress::Need(input.len() + 1), None)) } else { binary(input) };
    }
    if matches!(mode, Proxied::One | Proxied::Any) {
        return line(input);
    }
    Err("no PROXY protocol header of version 2 came first")
}

fn line(input: &[u8]) -> Result<(Progress, Option<Client>), &'static str> {
    const START: &[u8] = b"PROXY ";
    let start = input.len().min(START.len());
    if input[..start] != START[..start] {
        return Err("no PROXY protocol header came first");
    }
    let Some(end) = input.iter().take(LINE_BYTES_MAX).position(|byte| *byte == b'\n') else {
        return match input.len() {
            LINE_BYTES_MAX.. => Err("the PROXY protocol header has no end"),
            length => Ok((Progress::Need(length + 1), None)),
        };
    };
    let text = input[..end].strip_suffix(b"\r").and_then(|line| std::str::from_utf8(line).ok());
    let client = text.and_then(told).ok_or("the PROXY protocol header is malformed")?;
    Ok((Progress::Consumed(end + 1), Some(client)))
}

/// `PROXY TCP4 192.0.2.1 198.51.100.1 56324 443`
fn told(line: &str) -> Option<Client> {
    let mut words = line.split(' ').skip(1);
    let family = words.next()?;
    if family == "UNKNOWN" {
        return Some(Client::Same);
    }
    let ip = |text: &str| -> Option<IpAddr> {
        match family {
            "TCP4" => text.parse::<Ipv4Addr>().ok().map(Into::into),
            "TCP6" => text.parse::<Ipv6Addr>().ok().map(Into::into),
            _ => None,
        }
    };
    let port = |text: &str| -> Option<u16> {
        let canonical = text == "0" || !text.starts_with(['0', '+']);
        text.parse().ok().filter(|_| canonical)
    };
    let (client, local) = (ip(words.next()?)?, ip(words.next()?)?);
    let (client_port, local_port) = (port(words.next()?)?, port(words.next()?)?);
    let told = Client::Told { client: SocketAddr::new(client, client_port), local: SocketAddr::new(local, local_port) };
    words.next().is_none().then_some(told)
}

fn binary(input: &[u8]) -> Result<(Progress, Option<Client>), &'static str> {
    let Some(&[command, family, high, low]) = input.get(12..FIXED_BYTES) else {
        return Ok((Progress::Need(input.len() + 1), None));
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    if command >> 4 != 2 {
        return Err("the PROXY protocol header is of another version");
    }
    if length > REST_BYTES_MAX {
        return Err("the PROXY protocol header is too long");
    }
    let Some(rest) = input.get(FIXED_BYTES..FIXED_BYTES + length) else {
        return Ok((Progress::Need(FIXED_BYTES + length), None));
    };
    let client = match (command & 0x0f, family) {
        // LOCAL: a health check of the proxy's own.
        (0, _) => Client::Same,
        (1, 0x11) => addresses::<4>(rest)?,
        (1, 0x21) => addresses::<16>(rest)?,
        // Unix sockets, datagrams, or nothing known.
        (1, _) => Client::Same,
        _ => return Err("the PROXY protocol header has an unknown command"),
    };
    Ok((Progress::Consumed(FIXED_BYTES + length), Some(client)))
}

fn addresses<const N: usize>(rest: &[u8]) -> Result<Client, &'static str>
where
    IpAddr: From<[u8; N]>,
{
    const SHORT: &str = "the PROXY protocol header is too short for its addresses";
    let ip = |at: usize| rest.get(at..).and_then(|rest| rest.first_chunk::<N>()).map(|bytes| IpAddr::from(*bytes));
    let port = |at: usize| rest.get(at..).and_then(|rest| rest.first_chunk::<2>()).map(|b| u16::from_be_bytes(*b));
    let (Some(client), Some(local)) = (ip(0), ip(N)) else { return Err(SHORT) };
    let (Some(client_port), Some(local_port)) = (port(2 * N), port(2 * N + 2)) else { return Err(SHORT) };
    Ok(Client::Told { client: SocketAddr::new(client, client_port), local: SocketAddr::new(local, local_port) })
}
