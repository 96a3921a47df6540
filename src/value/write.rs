//! Writing: functions that append one token each, in its shortest form.
//!
//! Sizes that are known only afterwards are reserved at their full width with `*_open` and filled in with `*_close`.
#![allow(clippy::match_overlapping_arm)] // Each arm takes what those above it left.

pub fn nil(out: &mut Vec<u8>) {
    out.push(0xc0);
}

pub fn bool(out: &mut Vec<u8>, value: bool) {
    out.push(if value { 0xc3 } else { 0xc2 });
}

pub fn int(out: &mut Vec<u8>, value: i64) {
    if value >= 0 {
        return uint(out, value as u64);
    }
    match value {
        -32.. => out.push(value as u8),
        -0x80.. => marked(out, 0xd0, &(value as i8).to_be_bytes()),
        -0x8000.. => marked(out, 0xd1, &(value as i16).to_be_bytes()),
        -0x8000_0000.. => marked(out, 0xd2, &(value as i32).to_be_bytes()),
        _ => marked(out, 0xd3, &value.to_be_bytes()),
    }
}

pub fn uint(out: &mut Vec<u8>, value: u64) {
    match value {
        ..=0x7f => out.push(value as u8),
        ..=0xff => marked(out, 0xcc, &(value as u8).to_be_bytes()),
        ..=0xffff => marked(out, 0xcd, &(value as u16).to_be_bytes()),
        ..=0xffff_ffff => marked(out, 0xce, &(value as u32).to_be_bytes()),
        _ => marked(out, 0xcf, &value.to_be_bytes()),
    }
}

pub fn float(out: &mut Vec<u8>, value: f64) {
    marked(out, 0xcb, &value.to_be_bytes());
}

/// Text; longer than 4 GiB - 1 is cut, which the limits of messages exclude.
pub fn str(out: &mut Vec<u8>, text: &[u8]) {
    let length = length(text.len());
    match length {
        ..=31 => out.push(0xa0 | length as u8),
        ..=0xff => marked(out, 0xd9, &(length as u8).to_be_bytes()),
        ..=0xffff => marked(out, 0xda, &(length as u16).to_be_bytes()),
        _ => marked(out, 0xdb, &length.to_be_bytes()),
    }
    out.extend_from_slice(&text[..length as usize]);
}

/// Bytes; longer than 4 GiB - 1 are cut, which the limits of messages exclude.
pub fn bin(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = length(bytes.len());
    match length {
        ..=0xff => marked(out, 0xc4, &(length as u8).to_be_bytes()),
        ..=0xffff => marked(out, 0xc5, &(length as u16).to_be_bytes()),
        _ => marked(out, 0xc6, &length.to_be_bytes()),
    }
    out.extend_from_slice(&bytes[..length as usize]);
}

/// The head of an array; `count` values follow.
pub fn array(out: &mut Vec<u8>, count: u32) {
    match count {
        ..=15 => out.push(0x90 | count as u8),
        ..=0xffff => marked(out, 0xdc, &(count as u16).to_be_bytes()),
        _ => marked(out, 0xdd, &count.to_be_bytes()),
    }
}

/// The head of a map; `count` pairs of values follow.
pub fn map(out: &mut Vec<u8>, count: u32) {
    match count {
        ..=15 => out.push(0x80 | count as u8),
        ..=0xffff => marked(out, 0xde, &(count as u16).to_be_bytes()),
        _ => marked(out, 0xdf, &count.to_be_bytes()),
    }
}

pub fn ext(out: &mut Vec<u8>, kind: i8, bytes: &[u8]) {
    let length = length(bytes.len());
    match length {
        1 | 2 | 4 | 8 | 16 => out.push(0xd4 + length.trailing_zeros() as u8),
        ..=0xff => marked(out, 0xc7, &(length as u8).to_be_bytes()),
        ..=0xffff => marked(out, 0xc8, &(length as u16).to_be_bytes()),
        _ => marked(out, 0xc9, &length.to_be_bytes()),
    }
    out.push(kind as u8);
    out.extend_from_slice(&bytes[..length as usize]);
}

/// `[code, message]`, the payload of everything that failed.
pub fn error(out: &mut Vec<u8>, code: &[u8], message: &[u8]) {
    array(out, 2);
    str(out, code);
    str(out, message);
}

/// `[code, message]` as ext `kind`, for an error inside a value.
pub fn error_ext(out: &mut Vec<u8>, kind: i8, code: &[u8], message: &[u8]) {
    let open = ext_open(out, kind);
    error(out, code, message);
    ext_close(out, open);
}

/// Where a reserved size waits to be filled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Open(usize);

pub fn array_open(out: &mut Vec<u8>) -> Open {
    open(out, 0xdd)
}

pub fn map_open(out: &mut Vec<u8>) -> Open {
    open(out, 0xdf)
}

pub fn bin_open(out: &mut Vec<u8>) -> Open {
    open(out, 0xc6)
}

pub fn ext_open(out: &mut Vec<u8>, kind: i8) -> Open {
    let at = open(out, 0xc9);
    out.push(kind as u8);
    at
}

/// Fills in the count of an `array_open` or `map_open`.
pub fn count_close(out: &mut [u8], open: Open, count: u32) {
    if let Some(size) = out.get_mut(open.0..open.0 + 4) {
        size.copy_from_slice(&count.to_be_bytes());
    }
}

/// Fills in the length of a `bin_open`: everything written since.
pub fn bin_close(out: &mut [u8], open: Open) {
    let length = length(out.len().saturating_sub(open.0 + 4));
    count_close(out, open, length);
}

/// Fills in the length of an `ext_open`: everything written since.
pub fn ext_close(out: &mut [u8], open: Open) {
    let length = length(out.len().saturating_sub(open.0 + 5));
    count_close(out, open, length);
}

fn open(out: &mut Vec<u8>, marker: u8) -> Open {
    let at = out.len() + 1;
    out.extend_from_slice(&[marker, 0, 0, 0, 0]);
    Open(at)
}

#[inline]
fn marked<const N: usize>(out: &mut Vec<u8>, marker: u8, number: &[u8; N]) {
    out.push(marker);
    out.extend_from_slice(number);
}

fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}
