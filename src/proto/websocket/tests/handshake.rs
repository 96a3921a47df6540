//! The heads of the upgrade (RFC 6455, 4; RFC 7692, 7.1).
use super::*;
use crate::proto::websocket::handshake::{Agreed, Asked, Offer, Request, Wrong, accept_key, read_request};

type Headers<'a> = Vec<(&'a str, &'a str)>;

fn bytes<'a>(headers: &'a [(&str, &str)]) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
    headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()))
}

/// RFC 6455, 1.3, with more than one header changed or added by each test.
fn asking<'a>(changes: &[(&'a str, &'a str)]) -> Asked {
    let mut headers: Headers = vec![
        ("Host", "server.example.com"),
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("Origin", "http://example.com"),
        ("Sec-WebSocket-Version", "13"),
    ];
    headers.retain(|(name, _)| !changes.iter().any(|(changed, _)| changed == name));
    headers.extend(changes.iter().filter(|(_, value)| *value != "-"));
    read_request(b"GET", 11, bytes(&headers))
}

fn offer(changes: &[(&str, &str)]) -> Offer {
    match asking(changes) {
        Asked::Yes(offer) => offer,
        other => panic!("{other:?}"),
    }
}

fn texts(lines: &[(&'static str, Vec<u8>)]) -> Vec<(&'static str, String)> {
    lines.iter().map(|(name, value)| (*name, String::from_utf8(value.clone()).unwrap())).collect()
}

fn extensions(offer: &Offer) -> Option<String> {
    let lines = texts(&offer.answer(None, true).unwrap());
    lines.into_iter().find(|(name, _)| *name == "Sec-WebSocket-Extensions").map(|(_, value)| value)
}

/// RFC 6455, 1.3.
#[test]
fn the_example_of_the_rfc() {
    assert_eq!(accept_key(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    let offer = offer(&[("Sec-WebSocket-Protocol", "chat, superchat")]);
    assert_eq!(offer.protocols, [b"chat".to_vec(), b"superchat".to_vec()]);
    assert_eq!(offer.deflate, None);
    let expected = [
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
        ("Sec-WebSocket-Protocol", "chat"),
    ]
    .map(|(name, value)| (name, value.to_owned()));
    assert_eq!(texts(&offer.answer(Some(b"chat"), true).unwrap()), expected);
}

#[test]
fn ordinary_requests_are_none_of_ours() {
    assert_eq!(asking(&[("Upgrade", "-")]), Asked::No);
    assert_eq!(asking(&[("Upgrade", "h2c")]), Asked::No);
    assert_eq!(asking(&[("Upgrade", "websockets, xwebsocket")]), Asked::No);
    assert_eq!(read_request(b"POST", 11, bytes(&[("Host", "a")])), Asked::No);
    // RFC 9110, 7.8.
    assert_eq!(read_request(b"GET", 10, bytes(&[("Upgrade", "websocket"), ("Connection", "Upgrade")])), Asked::No);
}

#[test]
fn names_and_tokens_are_of_any_case_and_in_lists() {
    offer(&[("Upgrade", "WebSocket"), ("Connection", "keep-alive, UPGRADE")]);
    offer(&[("Upgrade", "h2c ,\twebsocket"), ("Connection", "keep-alive"), ("connection", " upgrade ")]);
    let offer = offer(&[("Sec-WebSocket-Protocol", "a,,b"), ("SEC-WEBSOCKET-PROTOCOL", "c")]);
    assert_eq!(offer.protocols, [b"a", b"b", b"c"]);
}

/// RFC 6455, 4.2.1 and 4.4.
#[test]
fn a_handshake_that_breaks_a_rule_is_refused() {
    let wrong = |status, message| Asked::Wrong(Wrong { status, message });
    let no_key = "Sec-WebSocket-Key is not 16 bytes in base64";
    let mut rows: Vec<(Headers, Asked)> = vec![
        (vec![("Connection", "-")], wrong(400, "Connection does not name Upgrade")),
        (vec![("Connection", "keep-alive")], wrong(400, "Connection does not name Upgrade")),
        (vec![("Sec-WebSocket-Version", "-")], wrong(400, "Sec-WebSocket-Version is missing")),
        (
            vec![("Sec-WebSocket-Version", "13"), ("sec-websocket-version", "13")],
            wrong(400, "Sec-WebSocket-Version is there twice"),
        ),
        (vec![("Sec-WebSocket-Key", "-")], wrong(400, "Sec-WebSocket-Key is missing")),
        (
            vec![("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="), ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")],
            wrong(400, "Sec-WebSocket-Key is there twice"),
        ),
        (vec![("Sec-WebSocket-Protocol", "a b")], wrong(400, "a subprotocol of WebSocket that is no token")),
        (vec![("Sec-WebSocket-Protocol", "a, b, a")], wrong(400, "a subprotocol of WebSocket that is named twice")),
    ];
    for version in ["8", "7", "0", "14", "013", "+13", "13, 8", ""] {
        rows.push((vec![("Sec-WebSocket-Version", version)], wrong(426, "the version of WebSocket is 13")));
    }
    for key in ["", "AAAA", "dGhlIHNhbXBsZSBub25jZQ", "dGhlIHNhbXBsZSBub25jZQ=", "dGhlIHNhbXBsZSBub25jZTEx", "????"] {
        rows.push((vec![("Sec-WebSocket-Key", key)], wrong(400, no_key)));
    }
    for value in ["permessage-deflate;", "permessage-deflate; =1", "a b", "a; b=", "a; b=\"", "a; b=\"c d\"", "=", ";a"]
    {
        let expected = wrong(400, "Sec-WebSocket-Extensions is malformed");
        rows.push((vec![("Sec-WebSocket-Extensions", value)], expected));
    }
    for (changes, expected) in rows {
        assert_eq!(asking(&changes), expected, "{changes:?}");
    }
    let headers = [("Upgrade", "websocket"), ("Connection", "Upgrade")];
    assert_eq!(read_request(b"POST", 11, bytes(&headers)), wrong(400, "a WebSocket is asked for by GET"));
}

#[test]
fn a_subprotocol_is_chosen_from_what_was_offered() {
    let offer = offer(&[("Sec-WebSocket-Protocol", "v2.chat, v1.chat")]);
    assert_eq!(offer.select(&[b"v1.chat", b"v2.chat"]), Some(&b"v2.chat"[..]));
    assert_eq!(offer.select(&[b"V2.chat", b"v3.chat"]), None);
    assert!(offer.answer(Some(b"v3.chat"), false).is_err());
    assert!(texts(&offer.answer(None, false).unwrap()).iter().all(|(name, _)| *name != "Sec-WebSocket-Protocol"));
}

/// RFC 7692, 7.1: offers, and how they are answered.
#[test]
fn the_first_offer_of_compression_that_can_be_kept_is_taken() {
    let name = "permessage-deflate";
    for (offered, answered) in [
        ("permessage-deflate", Some("")),
        ("Permessage-Deflate", Some("")),
        ("permessage-deflate; client_max_window_bits", Some("")),
        ("permessage-deflate; client_max_window_bits=8", Some("")),
        ("permessage-deflate; client_max_window_bits=\"15\"", Some("")),
        ("permessage-deflate; server_no_context_takeover", Some("; server_no_context_takeover")),
        ("permessage-deflate; client_no_context_takeover", Some("; client_no_context_takeover")),
        (
            "permessage-deflate; client_no_context_takeover; server_no_context_takeover",
            Some("; server_no_context_takeover; client_no_context_takeover"),
        ),
        ("permessage-deflate; server_max_window_bits=15", Some("; server_max_window_bits=15")),
        ("permessage-deflate ;\tserver_max_window_bits = \"15\"", Some("; server_max_window_bits=15")),
        ("permessage-deflate; server_max_window_bits=14", None),
        ("permessage-deflate; server_max_window_bits=8", None),
        ("permessage-deflate; server_max_window_bits=10, permessage-deflate", Some("")),
        (
            "x-webkit-deflate-frame, foo; bar=baz, permessage-deflate; server_max_window_bits=15",
            Some("; server_max_window_bits=15"),
        ),
        (", permessage-deflate,", Some("")),
        // Invalid offers are declined, not errors (7.1).
        ("permessage-deflate; server_max_window_bits", None),
        ("permessage-deflate; server_max_window_bits=16", None),
        ("permessage-deflate; server_max_window_bits=7", None),
        ("permessage-deflate; server_max_window_bits=015", None),
        ("permessage-deflate; client_max_window_bits=0", None),
        ("permessage-deflate; client_max_window_bits=99", None),
        ("permessage-deflate; server_no_context_takeover=1", None),
        ("permessage-deflate; client_no_context_takeover=true", None),
        ("permessage-deflate; unknown", None),
        ("permessage-deflate; server_no_context_takeover; server_no_context_takeover", None),
        ("permessage-deflate; client_max_window_bits; client_max_window_bits=10", None),
        ("permessage-bzip2", None),
    ] {
        let offer = offer(&[("Sec-WebSocket-Extensions", offered)]);
        assert_eq!(extensions(&offer), answered.map(|rest| format!("{name}{rest}")), "{offered}");
        assert!(texts(&offer.answer(None, false).unwrap()).iter().all(|(name, _)| *name != "Sec-WebSocket-Extensions"));
    }
    let two = offer(&[
        ("Sec-WebSocket-Extensions", "permessage-deflate; server_max_window_bits=9"),
        ("sec-websocket-extensions", "permessage-deflate; client_no_context_takeover"),
    ]);
    assert!(two.deflate.unwrap().client_no_context_takeover);
}

fn request() -> Request {
    Request::new(5, vec![b"a".to_vec(), b"b".to_vec()], true).unwrap()
}

/// A server's answer to `request`, with headers changed or added.
fn answered(request: &Request, changes: &[(&str, &str)]) -> Result<Agreed, &'static str> {
    let accept = accept_key(request.key.as_bytes());
    let mut headers: Headers =
        vec![("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", &accept)];
    headers.retain(|(name, _)| !changes.iter().any(|(changed, _)| changed == name));
    headers.extend(changes.iter().filter(|(_, value)| *value != "-"));
    request.check(bytes(&headers))
}

#[test]
fn a_client_asks() {
    let lines = texts(&request().lines());
    assert_eq!(lines[0], ("Upgrade", "websocket".into()));
    assert_eq!(lines[1], ("Connection", "Upgrade".into()));
    assert_eq!(lines[3], ("Sec-WebSocket-Version", "13".into()));
    assert_eq!(lines[4], ("Sec-WebSocket-Protocol", "a, b".into()));
    assert_eq!(lines[5], ("Sec-WebSocket-Extensions", "permessage-deflate".into()));
    assert_eq!(Request::new(5, vec![], false).unwrap().lines().len(), 4);
    let headers: Headers = lines.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let Asked::Yes(offer) = read_request(b"GET", 11, bytes(&headers)) else { panic!("{headers:?}") };
    assert_eq!((offer.protocols, offer.deflate), (request().protocols, Some(TAKEOVER)));
    assert_ne!(Request::new(6, vec![], false).unwrap().key, request().key);
    assert!(Request::new(5, vec![b"a b".to_vec()], true).is_err());
    assert!(Request::new(5, vec![vec![]], true).is_err());
    assert!(Request::new(5, vec![b"a".to_vec(), b"a".to_vec()], true).is_err());
}

/// The masks of a conn cannot be had from its key, though both are of one seed.
#[test]
fn the_key_tells_nothing_of_the_masks() {
    use base64::Engine;
    let key = base64::engine::general_purpose::STANDARD.decode(request().key).unwrap();
    assert_eq!(key.len(), 16);
    let mut wire = Vec::new();
    let mut client = Codec::new(Config { role: Role::Client, message_bytes_max: 9, deflate: None, mask_seed: 5 });
    client.binary(b"", &mut wire).unwrap();
    assert!(key.windows(4).all(|window| window != &wire[2..6]));
}

#[test]
fn a_client_judges_the_answer() {
    let with = |changes: &[(&str, &str)]| answered(&request(), changes);
    assert_eq!(with(&[]), Ok(Agreed::default()));
    assert_eq!(with(&[("Upgrade", "WebSocket"), ("Connection", "keep-alive, upgrade")]), Ok(Agreed::default()));
    let agreed = Agreed { protocol: Some(b"b".to_vec()), deflate: Some(TAKEOVER) };
    let both = [("Sec-WebSocket-Protocol", "b"), ("Sec-WebSocket-Extensions", "permessage-deflate")];
    assert_eq!(with(&both), Ok(agreed));
    for (name, values) in [
        ("Upgrade", &["-", "h2c", "websocket, h2c"][..]),
        ("Connection", &["-", "close"]),
        ("Sec-WebSocket-Accept", &["-", "", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="]),
        ("Sec-WebSocket-Protocol", &["c", "a, b", "A", ""]),
        (
            "Sec-WebSocket-Extensions",
            &[
                "permessage-bzip2",
                "permessage-deflate, permessage-deflate",
                "permessage-deflate; client_max_window_bits=15",
                "permessage-deflate; client_max_window_bits",
                "permessage-deflate; unknown",
                "permessage-deflate; server_max_window_bits",
                "permessage-deflate; server_max_window_bits=7",
                "permessage-deflate; server_no_context_takeover=x",
                "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
                "permessage-deflate;",
            ],
        ),
    ] {
        for value in values {
            assert!(with(&[(name, value)]).is_err(), "{name}: {value}");
        }
    }
    let accept = accept_key(request().key.as_bytes());
    assert!(with(&[("Sec-WebSocket-Accept", &accept), ("sec-websocket-accept", &accept)]).is_err());
    assert!(with(&[("Sec-WebSocket-Protocol", "a"), ("sec-websocket-protocol", "a")]).is_err());
    let plain = Request::new(5, vec![], false).unwrap();
    assert!(answered(&plain, &[("Sec-WebSocket-Extensions", "permessage-deflate")]).is_err());
    assert!(answered(&plain, &[("Sec-WebSocket-Protocol", "a")]).is_err());
}

#[test]
fn a_client_takes_every_parameter_that_a_server_may_set() {
    for (value, expected) in [
        ("permessage-deflate", TAKEOVER),
        ("permessage-deflate; server_no_context_takeover", Params { server_no_context_takeover: true, ..TAKEOVER }),
        ("permessage-deflate; client_no_context_takeover", Params { client_no_context_takeover: true, ..TAKEOVER }),
        ("permessage-deflate; server_max_window_bits=8", Params { server_max_window_bits: true, ..TAKEOVER }),
    ] {
        let agreed = answered(&request(), &[("Sec-WebSocket-Extensions", value)]);
        assert_eq!(agreed.unwrap().deflate, Some(expected), "{value}");
    }
}
