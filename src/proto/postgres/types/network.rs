//! Addresses and bit strings, whose text is what programs know.

use std::io::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::cursor::Cursor;

const IPV4: u8 = 2;
/// PostgreSQL's own number, one more than `AF_INET` of wherever it runs.
const IPV6: u8 = 3;

/// inet and cidr: family, bits of the network, whether it is a cidr, length and bytes of the address (`network_send` in
/// `utils/adt/network.c`). An inet shows its bits where they are not all.
pub fn inet(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
    let mut cursor = Cursor::new("inet", bytes);
    let (family, bits, is_cidr, length) = (cursor.u8()?, cursor.u8()?, cursor.u8()?, cursor.u8()?);
    let bits_max = match (family, length) {
        (IPV4, 4) => {
            put(out, format_args!("{}", Ipv4Addr::from(cursor.array::<4>()?)));
            32
        }
        (IPV6, 16) => {
            ipv6(out, Ipv6Addr::from(cursor.array::<16>()?));
            128
        }
        _ => return Err(format!("inet: family {family} with {length} bytes given, 2 with 4 or 3 with 16 expected")),
    };
    if bits > bits_max {
        return Err(format!("inet: {bits} bits of a network given, at most {bits_max} expected"));
    }
    if is_cidr != 0 || bits < bits_max {
        put(out, format_args!("/{bits}"));
    }
    cursor.end()
}

/// As PostgreSQL's `inet_net_ntop` does, which writes the last four bytes of an IPv4-compatible address in decimal.
fn ipv6(out: &mut Vec<u8>, address: Ipv6Addr) {
    match address.segments() {
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 => {
            put(out, format_args!("::{}", Ipv4Addr::from(u32::from(high) << 16 | u32::from(low))));
        }
        _ => put(out, format_args!("{address}")),
    }
}

/// macaddr and macaddr8: six or eight bytes, in hex with colons.
pub fn mac(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
    if !matches!(bytes.len(), 6 | 8) {
        return Err(format!("macaddr: {} bytes given, 6 or 8 expected", bytes.len()));
    }
    for (place, byte) in bytes.iter().enumerate() {
        put(out, format_args!("{}{byte:02x}", if place == 0 { "" } else { ":" }));
    }
    Ok(())
}

/// bit and varbit: how many bits, then they, from the highest of the first byte.
pub fn bits(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
    let mut cursor = Cursor::new("bit", bytes);
    let count = cursor.i32()?;
    let packed = cursor.rest();
    let count = usize::try_from(count).ok().filter(|count| count.div_ceil(8) == packed.len());
    let count = count.ok_or_else(|| format!("bit: a count that does not fit {} bytes given", packed.len()))?;
    out.extend((0..count).map(|place| b'0' + (packed[place / 8] >> (7 - place % 8) & 1)));
    Ok(())
}

/// Four groups and more, with hyphens: the text of a uuid.
pub fn write_uuid(out: &mut Vec<u8>, bytes: &[u8]) {
    for (place, byte) in bytes.iter().enumerate() {
        put(out, format_args!("{}{byte:02x}", if matches!(place, 4 | 6 | 8 | 10) { "-" } else { "" }));
    }
}

/// The text of a uuid as PostgreSQL writes it.
pub fn read_uuid(text: &[u8]) -> Option<[u8; 16]> {
    let mut uuid = [0; 16];
    let mut digits = text.iter().filter(|byte| **byte != b'-').map(|byte| (*byte as char).to_digit(16));
    for byte in &mut uuid {
        *byte = (digits.next()?? << 4 | digits.next()??) as u8;
    }
    digits.next().is_none().then_some(uuid)
}

/// The text of a bytea (documentation, 8.4): hex after `\x`, or the escape format.
pub fn read_bytea(text: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| (byte as char).to_digit(16).map(|digit| digit as u8);
    if let Some(hex) = text.strip_prefix(b"\\x") {
        let pairs = hex.chunks_exact(2);
        if !pairs.remainder().is_empty() {
            return None;
        }
        return pairs.map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect();
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    loop {
        rest = match rest {
            [] => return Some(bytes),
            [b'\\', b'\\', rest @ ..] => {
                bytes.push(b'\\');
                rest
            }
            [b'\\', high @ b'0'..=b'3', middle @ b'0'..=b'7', low @ b'0'..=b'7', rest @ ..] => {
                bytes.push((high - b'0') << 6 | (middle - b'0') << 3 | (low - b'0'));
                rest
            }
            [b'\\', ..] => return None,
            [byte, rest @ ..] => {
                bytes.push(*byte);
                rest
            }
        };
    }
}

/// Hex after `\x`.
pub fn write_bytea(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(b"\\x");
    for byte in bytes {
        put(out, format_args!("{byte:02x}"));
    }
}

fn put(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    // Writing into a Vec does not fail.
    let _ = out.write_fmt(text);
}
