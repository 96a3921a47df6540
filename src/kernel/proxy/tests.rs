//! Talks with proxies, in pieces of every size.

use super::http::Http;
use super::socks::Socks;
use super::*;
use crate::kernel::greeting::Stands;

fn named() -> Target {
    Target::Name("cache.test".into(), 6379)
}

fn login() -> (String, String) {
    ("alice".into(), "p w".into())
}

/// Says what the proxy says, in pieces of at most `size` bytes, and hears what we say. The bytes that were not read come back.
fn talk(
    mut handshake: Box<dyn Handshake>,
    answer: &[u8],
    size: usize,
) -> (Result<Option<Stands>, String>, Vec<u8>, Vec<u8>) {
    let (mut said, mut at) = (Vec::new(), 0);
    handshake.begin(&mut said);
    while at < answer.len() {
        let end = (at + handshake.wants().min(size)).min(answer.len());
        assert!(end > at);
        match handshake.handle(&answer[at..end], &mut said) {
            Ok(None) => at = end,
            done => return (done, said, answer[end..].to_vec()),
        }
    }
    (Ok(None), said, Vec::new())
}

/// Where a talk fails there may be more or less of what was not read.
fn at_every_size(
    make: impl Fn() -> Box<dyn Handshake>,
    answer: &[u8],
) -> (Result<Option<Stands>, String>, Vec<u8>, Vec<u8>) {
    let whole = talk(make(), answer, usize::MAX);
    for size in 1..answer.len() {
        let (outcome, said, rest) = talk(make(), answer, size);
        assert_eq!((&outcome, &said), (&whole.0, &whole.1), "in pieces of {size}");
        assert!(outcome.is_err() || rest == whole.2, "in pieces of {size}");
    }
    whole
}

#[test]
fn a_tunnel_is_asked_of_an_http_proxy_and_begins_where_its_head_ends() {
    let make = || Box::new(Http::new(&named(), Some(&login()))) as Box<dyn Handshake>;
    for head in
        ["HTTP/1.1 200 OK\r\nVia: x\r\n\r\n", "HTTP/1.0 200\n\n", "HTTP/1.1 100 -\r\n\r\nHTTP/1.1 204 -\r\n\r\n"]
    {
        let (outcome, said, rest) = at_every_size(make, &[head.as_bytes(), b"\r\n+PONG"].concat());
        assert_eq!((outcome, rest.as_slice()), (Ok(Some(Stands::Tunnel)), &b"\r\n+PONG"[..]), "{head:?}");
        let said = String::from_utf8(said).unwrap();
        assert_eq!(
            said,
            "CONNECT cache.test:6379 HTTP/1.1\r\nHost: cache.test:6379\r\n\
             Proxy-Authorization: Basic YWxpY2U6cCB3\r\n\r\n"
        );
    }
    let v6 = Target::Address("[::1]:80".parse().unwrap());
    let (_, said, _) = talk(Box::new(Http::new(&v6, None)), b"", 1);
    assert_eq!(said, b"CONNECT [::1]:80 HTTP/1.1\r\nHost: [::1]:80\r\n\r\n");
}

#[test]
fn what_an_http_proxy_refuses_is_told_in_its_words() {
    let make = || Box::new(Http::new(&named(), None)) as Box<dyn Handshake>;
    for (head, told) in [
        ("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "credentials"),
        ("HTTP/1.1 403 Forbidden by rule 7\r\n\r\n", "Forbidden by rule 7"),
        ("HTTP/1.1 502 Bad Gateway\r\n\r\n", "502 Bad Gateway"),
        ("SSH-2.0-x\r\n\r\n", "no HTTP proxy"),
    ] {
        let error = at_every_size(make, head.as_bytes()).0.unwrap_err();
        assert!(error.contains(told), "{error}");
    }
    let endless = [b"HTTP/1.1 200 OK\r\nX: ".as_slice(), &vec![b'x'; 20 << 10]].concat();
    assert!(talk(make(), &endless, 100).0.unwrap_err().contains("head"));
}

#[test]
fn a_tunnel_is_asked_of_a_socks_proxy_by_name_or_by_address() {
    let ok = [&[5, 0, 5, 0, 0, 1, 10, 0, 0, 1, 0, 80][..], b"+PONG"].concat();
    let v6 = || Target::Address("[::1]:80".parse().unwrap());
    let v4 = || Target::Address("10.0.0.9:81".parse().unwrap());
    let asked_v6 = [&[5, 1, 0, 4][..], &[0; 15], &[1, 0, 80]].concat();
    for (target, asked) in [
        (named(), [&[5, 1, 0, 3, 10][..], b"cache.test", &6379u16.to_be_bytes()].concat()),
        (v4(), vec![5, 1, 0, 1, 10, 0, 0, 9, 0, 81]),
        (v6(), asked_v6),
    ] {
        let (outcome, said, rest) = at_every_size(|| Box::new(Socks::new(&target, None)), &ok);
        assert_eq!(
            (outcome, said, rest.as_slice()),
            (Ok(Some(Stands::Tunnel)), [&[5, 1, 0][..], &asked].concat(), &b"+PONG"[..])
        );
    }
    // Its answer may name a host, or an address of the other kind.
    for address in [&[3, 2, b'a', b'b', 0, 80][..], &[&[4][..], &[9; 18]].concat()] {
        let answer = [&[5, 2, 1, 0, 5, 0, 0][..], address, b"+"].concat();
        let (outcome, said, rest) = at_every_size(|| Box::new(Socks::new(&v4(), Some(&login()))), &answer);
        assert_eq!((outcome, rest.as_slice()), (Ok(Some(Stands::Tunnel)), &b"+"[..]));
        assert_eq!(said[..15], [&[5, 2, 0, 2, 1, 5][..], b"alice", &[3], b"p w"].concat());
    }
}

#[test]
fn what_a_socks_proxy_refuses_is_told_with_its_code() {
    let with = || Box::new(Socks::new(&named(), Some(&login()))) as Box<dyn Handshake>;
    let without = || Box::new(Socks::new(&named(), None)) as Box<dyn Handshake>;
    let told = |make: &dyn Fn() -> Box<dyn Handshake>, answer: &[u8]| at_every_size(make, answer).0.unwrap_err();
    assert!(told(&without, &[5, 255]).contains("wants credentials"));
    assert!(told(&without, &[5, 2]).contains("not offered"));
    assert!(told(&with, &[5, 255]).contains("neither"));
    assert!(told(&with, &[5, 2, 1, 1]).contains("status 1"));
    assert!(told(&without, &[5, 0, 5, 5, 0, 1, 0, 0, 0, 0, 0, 0]).contains("5: connection refused"));
    assert!(told(&without, &[5, 0, 5, 2, 0, 1, 0, 0, 0, 0, 0, 0]).contains("2: not allowed"));
    assert!(told(&without, b"HTTP/1.1 400").contains("no SOCKS5"));
    assert!(told(&without, &[5, 0, 5, 0, 0, 9]).contains("type of address"));
}

#[test]
fn a_proxy_is_read_from_its_option_and_shown_without_its_secrets() {
    let take = |text: &str| {
        let mut options = Options::parse(&format!("proxy={text}")).unwrap();
        Proxy::take(&mut options, &Address::Host { host: "h".into(), port: 1 })
    };
    let proxy = take("http://al:p%2540w@[::1]:3128").unwrap().unwrap();
    assert_eq!((proxy.to_string(), proxy.resolves), ("the proxy [::1]:3128".into(), true));
    assert_eq!(proxy.credentials, Some(("al".into(), "p@w".into())));
    let proxy = take("socks5://p.test").unwrap().unwrap();
    assert_eq!((proxy.to_string(), proxy.resolves), ("the proxy p.test:1080".into(), false));
    assert!(take("socks5h://p.test").unwrap().unwrap().resolves && take("").unwrap().is_none());
    for bad in ["ftp://p", "p:80", "http://a,b", "http://p/path", "http://u:secret@p?x=1"] {
        let error = take(bad).unwrap_err().to_string();
        assert!(error.contains("socks5h") && !error.contains("secret"), "{error}");
    }
    let mut options = Options::parse("proxy=http://p").unwrap();
    assert!(Proxy::take(&mut options, &Address::Unix("/x".into())).is_err());
}

#[test]
fn an_address_beside_a_name_is_used_where_we_look_names_up() {
    let place = |text: &str| Place::Tcp(text.parse().unwrap());
    let peer = Peer::new("web:80", vec![place("10.0.0.1:80"), place("10.0.0.2:80")]);
    assert_eq!(Target::of(&peer, true, 0), Some(Target::Name("web".into(), 80)));
    assert_eq!(Target::of(&peer, false, 3), Some(Target::Address("10.0.0.2:80".parse().unwrap())));
    assert_eq!(Target::of(&Peer::at("::1", 80), true, 0), Some(Target::Address("[::1]:80".parse().unwrap())));
}
