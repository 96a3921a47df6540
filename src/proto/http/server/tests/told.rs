//! How requests are told, and options.
use super::*;

fn transport(secure: bool) -> Transport {
    Transport {
        peer: Some("192.0.2.7:5000".parse().unwrap()),
        local: Some("198.51.100.1:8443".parse().unwrap()),
        secure,
        ..Transport::default()
    }
}

fn told(query: &str, transport: &Transport, request: &str) -> String {
    let mut rig = Rig::over(query, transport);
    rig.feed(request).unwrap();
    rig.events().swap_remove(0)
}

const REQUEST: &str = "GET /a%20b%C3%A9?q=%20 HTTP/1.1\r\nHost: www.example:81\r\nX-A: 1\r\nCookie: c\r\nx-a:  2 \r\n\
                       cookie: d\r\nX_A: 3\r\nProxy: evil\r\nContent-Type: t\r\n\r\n";

#[test]
fn form_message() {
    let text = told("", &transport(false), "GET /a?b HTTP/1.1\r\nHost: h\r\nA: \u{e9}\r\n\r\n");
    let headers = "[[b\"Host\", b\"h\"], [b\"A\", b\"\\xc3\\xa9\"]]";
    assert_eq!(text, format!("request 0 [[\"GET\", \"/a?b\", {headers}, 11, \"192.0.2.7:5000\"], nil]"));
    let text = told("", &Transport::default(), "GET / HTTP/1.0\r\n\r\n");
    assert_eq!(text, "request 0 [[\"GET\", \"/\", [], 10, \"\"], nil]");
}

#[test]
fn form_cgi() {
    let text = told("form=cgi", &transport(true), REQUEST);
    for pair in [
        "\"REQUEST_METHOD\": \"GET\"",
        "\"SCRIPT_NAME\": \"\"",
        "\"PATH_INFO\": \"/a b\u{c3}\u{a9}\"",
        "\"QUERY_STRING\": \"q=%20\"",
        "\"REQUEST_URI\": \"/a%20b%C3%A9?q=%20\"",
        "\"SERVER_NAME\": \"www.example\"",
        "\"SERVER_PORT\": \"8443\"",
        "\"SERVER_PROTOCOL\": \"HTTP/1.1\"",
        "\"REMOTE_ADDR\": \"192.0.2.7\"",
        "\"REMOTE_PORT\": \"5000\"",
        "\"HTTPS\": \"on\"",
        "\"HTTP_HOST\": \"www.example:81\"",
        "\"HTTP_X_A\": \"1,2\"",
        "\"HTTP_COOKIE\": \"c; d\"",
        "\"CONTENT_TYPE\": \"t\"",
    ] {
        assert!(text.contains(pair), "{pair}: {text}");
    }
    assert!(!text.contains("HTTP_PROXY") && !text.contains("\"3\"") && !text.contains("HTTP_CONTENT"), "{text}");
    assert_eq!(text.matches("HTTP_X_A").count(), 1);
    let text = told("form=cgi", &Transport::default(), "GET http://real/a HTTP/1.1\r\nHost: fake\r\n\r\n");
    assert!(text.contains("\"HTTP_HOST\": \"real\"") && text.contains("\"PATH_INFO\": \"/a\""), "{text}");
    assert!(!text.contains("HTTPS") && text.contains("\"SERVER_PORT\": \"80\""));
}

#[test]
fn form_scope() {
    let text = told("form=scope", &transport(true), REQUEST);
    for pair in [
        "\"type\": \"http\"",
        "\"http_version\": \"1.1\"",
        "\"method\": \"GET\"",
        "\"scheme\": \"https\"",
        "\"path\": \"/a b\u{e9}\"",
        "\"raw_path\": b\"/a%20b%C3%A9\"",
        "\"query_string\": b\"q=%20\"",
        "[b\"x-a\", b\"1\"]",
        "\"client\": [\"192.0.2.7\", 5000]",
        "\"server\": [\"www.example\", 8443]",
    ] {
        assert!(text.contains(pair), "{pair}: {text}");
    }
    assert!(told("form=scope", &Transport::default(), GET).contains("\"client\": nil"));
}

#[test]
fn the_host_of_an_absolute_target_goes_before_the_header() {
    for (query, pair) in [
        ("", "[[b\"Host\", b\"real:81\"]]"),
        ("form=cgi", "\"HTTP_HOST\": \"real:81\""),
        ("form=scope", "[b\"host\", b\"real:81\"]"),
    ] {
        let text = told(query, &transport(false), "GET http://real:81/a HTTP/1.1\r\nHost: fake\r\n\r\n");
        assert!(text.contains(pair) && !text.contains("fake"), "RFC 9112, 3.2.2: {text}");
    }
}

#[test]
fn a_proxy_tells_who_the_client_is() {
    let client = |query: &str, header: &[u8]| {
        let mut outcome = Vec::new();
        for size in [1, usize::MAX] {
            let mut rig = Rig::over(query, &transport(false));
            let bytes = [header, GET.as_bytes()].concat();
            let fed: Result<(), String> = bytes.chunks(size).try_for_each(|part| rig.feed(part));
            outcome.push(fed.map(|()| {
                let text = rig.events().swap_remove(0);
                text.split("11, ").nth(1).unwrap().trim_end_matches(", nil]").trim_end_matches(']').to_string()
            }));
        }
        assert_eq!(outcome[0], outcome[1], "{}", header.escape_ascii());
        outcome.swap_remove(0)
    };
    let told = |client: &str| Ok(format!("{client:?}"));
    let one = b"PROXY TCP4 203.0.113.9 198.51.100.1 56324 443\r\n";
    assert_eq!(client("proxy_protocol=v1", one), told("203.0.113.9:56324"));
    assert_eq!(client("proxy_protocol=any", one), told("203.0.113.9:56324"));
    assert!(client("proxy_protocol=v2", one).is_err());
    let six = b"PROXY TCP6 2001:db8::1 2001:db8::2 1 443\r\n";
    assert_eq!(client("proxy_protocol=v1", six), told("[2001:db8::1]:1"));
    assert_eq!(client("proxy_protocol=v1", b"PROXY UNKNOWN\r\n"), told("192.0.2.7:5000"));
    const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
    let two = [SIGNATURE, b"\x21\x11\x00\x0f\xcb\x00\x71\x09\xc6\x33\x64\x01\xdc\x04\x01\xbb\x04\x00\x00"].concat();
    assert_eq!(client("proxy_protocol=v2", &two), told("203.0.113.9:56324"));
    assert_eq!(client("proxy_protocol=on", &two), told("203.0.113.9:56324"));
    assert!(client("proxy_protocol=v1", &two).is_err());
    let local = [SIGNATURE, b"\x20\x00\x00\x00"].concat();
    assert_eq!(client("proxy_protocol=v2", &local), told("192.0.2.7:5000"));
    let mut six = [SIGNATURE, b"\x21\x21\x00\x24"].concat();
    six.extend([0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1].repeat(2));
    six.extend([0, 1, 1, 0xbb]);
    assert_eq!(client("proxy_protocol=v2", &six), told("[2001:db8::1]:1"));
    for bad in [
        &b""[..],
        b"PROXY TCP4 203.0.113.9 198.51.100.1 56324\r\n",
        b"PROXY TCP4 203.0.113.9 198.51.100.1 56324 65536\r\n",
        b"PROXY TCP4 203.0.113.9 198.51.100.1 056324 443\r\n",
        b"PROXY TCP4 ::1 ::1 1 2\r\n",
        b"PROXY TCP4 203.0.113.9 198.51.100.1 56324 443 \r\n",
        b"PROXY TCP4 203.0.113.9 198.51.100.1 56324 443\n",
        b"PROXY UDP4 203.0.113.9 198.51.100.1 56324 443\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x31\x11\x00\x00",
        b"\r\n\r\n\0\r\nQUIT\n\x22\x11\x00\x00",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x04\x01\x02\x03\x04",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff",
    ] {
        assert!(client("proxy_protocol=any", bad).is_err(), "{}", bad.escape_ascii());
    }
    let long = [b"PROXY UNKNOWN ".to_vec(), b"x".repeat(200)].concat();
    assert!(client("proxy_protocol=v1", &long).is_err());
}

#[test]
fn options_are_checked() {
    for bad in [
        "form=wsgi",
        "health=healthz",
        "health=/a?b",
        "server=a%0d%0ab",
        "head_timeout=0s",
        "max_head=1",
        "max_headers=0",
        "proxy_protocol=v3",
        "unknown=1",
    ] {
        assert!(options(bad).is_err(), "{bad}");
    }
    let all = "max_head=8KiB&max_headers=10&stream_above=0&head_timeout=1s&idle_timeout=1m&body_timeout=1s&form=scope\
               &health=/h&server=x&proxy_protocol=off";
    assert!(options(all).is_ok());
}

#[test]
fn exchanges_are_told_to_the_log() {
    let mut rig = Rig::new("");
    rig.feed("GET /a HTTP/1.1\r\nHost: h\r\nReferer: r\r\nUser-Agent: u\r\n\r\n").unwrap();
    rig.events();
    rig.reply(0, &made(404, &[], Give::Text("none"))).unwrap();
    assert_eq!(rig.events(), ["access GET /a 11 404 4 r u"]);
}
