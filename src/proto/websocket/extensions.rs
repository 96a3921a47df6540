//! Sec-WebSocket-Extensions (RFC 6455, 9.1), and what is said in it of permessage-deflate (RFC 7692, 7.1).

use super::deflate::Params;
use crate::proto::http::wire::{is_token, is_token_byte};

/// The extension's name; also the whole of what we offer as a client, so that a server may not limit our window.
pub const NAME: &str = "permessage-deflate";

/// One offer, or one part of an answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Extension<'a> {
    pub name: &'a [u8],
    pub parameters: Vec<(&'a [u8], Option<Vec<u8>>)>,
}

/// Reads one header's list. None: it is malformed.
pub fn read(value: &[u8]) -> Option<Vec<Extension<'_>>> {
    let mut rest = value;
    let mut extensions = Vec::new();
    loop {
        rest = rest.trim_ascii_start();
        match rest.first() {
            None => return Some(extensions),
            Some(b',') => rest = &rest[1..],
            Some(_) => extensions.push(extension(&mut rest)?),
        }
    }
}

/// One element of the list, up to its comma.
fn extension<'a>(rest: &mut &'a [u8]) -> Option<Extension<'a>> {
    let name = token(rest)?;
    let mut parameters = Vec::new();
    loop {
        *rest = rest.trim_ascii_start();
        match rest.split_first() {
            None | Some((b',', _)) => return Some(Extension { name, parameters }),
            Some((b';', after)) => *rest = after.trim_ascii_start(),
            Some(_) => return None,
        }
        let name = token(rest)?;
        *rest = rest.trim_ascii_start();
        let value = match rest.split_first() {
            Some((b'=', after)) => {
                *rest = after.trim_ascii_start();
                Some(word(rest)?)
            }
            _ => None,
        };
        parameters.push((name, value));
    }
}

/// A token, or a quoted one (9.1: what is quoted is a token too).
fn word(rest: &mut &[u8]) -> Option<Vec<u8>> {
    let Some((b'"', mut after)) = rest.split_first() else { return token(rest).map(<[u8]>::to_vec) };
    let mut value = Vec::new();
    loop {
        let (&byte, tail) = after.split_first()?;
        after = tail;
        match byte {
            b'"' => break,
            b'\\' => {
                let (&escaped, tail) = after.split_first()?;
                after = tail;
                value.push(escaped);
            }
            _ => value.push(byte),
        }
    }
    *rest = after;
    is_token(&value).then_some(value)
}

fn token<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let count = rest.iter().take_while(|byte| is_token_byte(**byte)).count();
    let (token, after) = rest.split_at(count);
    *rest = after;
    (count > 0).then_some(token)
}

/// As a server: whether an offer can be kept (RFC 7692, 5 and 7.1). Our window is of 15 bits, so an offer that wants a
/// smaller one of us is declined; what the client says of its own window is no matter to us.
pub fn accept(offer: &Extension<'_>) -> Option<Params> {
    if !offer.name.eq_ignore_ascii_case(NAME.as_bytes()) {
        return None;
    }
    let mut params = Params::default();
    let mut is_client_window_known = false;
    for (name, value) in &offer.parameters {
        let (flag, is_valid) = match *name {
            b"server_no_context_takeover" => (&mut params.server_no_context_takeover, value.is_none()),
            b"client_no_context_takeover" => (&mut params.client_no_context_takeover, value.is_none()),
            b"server_max_window_bits" => (&mut params.server_max_window_bits, bits(value.as_deref()) == Some(15)),
            b"client_max_window_bits" => {
                (&mut is_client_window_known, value.is_none() || bits(value.as_deref()).is_some())
            }
            _ => return None,
        };
        if !is_valid || std::mem::replace(flag, true) {
            return None;
        }
    }
    Some(params)
}

/// As a client: what the answer to our offer says (RFC 7692, 7.1). It may limit the server's window, which ours holds
/// in any case, but not our own, as we did not say that we could have that.
pub fn check(answer: &Extension<'_>) -> Result<Params, &'static str> {
    if !answer.name.eq_ignore_ascii_case(NAME.as_bytes()) {
        return Err("the server answers with an extension that was not offered");
    }
    let mut params = Params::default();
    for (name, value) in &answer.parameters {
        let (flag, is_valid) = match *name {
            b"server_no_context_takeover" => (&mut params.server_no_context_takeover, value.is_none()),
            b"client_no_context_takeover" => (&mut params.client_no_context_takeover, value.is_none()),
            b"server_max_window_bits" => (&mut params.server_max_window_bits, bits(value.as_deref()).is_some()),
            _ => return Err("the server answers with a parameter of permessage-deflate that was not offered"),
        };
        if !is_valid {
            return Err("the server answers with an invalid value of permessage-deflate");
        }
        if std::mem::replace(flag, true) {
            return Err("the server answers with a parameter of permessage-deflate twice");
        }
    }
    Ok(params)
}

/// As a server: how the offer that was accepted is answered.
pub fn answer(params: &Params) -> String {
    let mut text = NAME.to_owned();
    for (is_agreed, parameter) in [
        (params.server_no_context_takeover, "; server_no_context_takeover"),
        (params.client_no_context_takeover, "; client_no_context_takeover"),
        (params.server_max_window_bits, "; server_max_window_bits=15"),
    ] {
        if is_agreed {
            text.push_str(parameter);
        }
    }
    text
}

/// 8 to 15, without leading zeros.
fn bits(value: Option<&[u8]>) -> Option<u8> {
    match value? {
        [digit @ b'8'..=b'9'] => Some(digit - b'0'),
        [b'1', digit @ b'0'..=b'5'] => Some(10 + digit - b'0'),
        _ => None,
    }
}
