//! Conversations as they were on the wire. `*.http` were recorded from servers and clients of others; the rest is written
//! by hand after the RFCs, so that every form is there once.
use crate::proto::{Follow, Sample};

const URL: &str = "http://localhost";
const GET: &[u8] = b"\x92\xa3GET\xa1/";
const HEAD: &[u8] = b"\x92\xa4HEAD\xa1/";
const POST: &[u8] = b"\x94\xa4POST\xa2/a\x81\xa1X\xa1y\xc4\x02hi";
const EXPECTS: &[u8] = b"\x95\xa3PUT\xa1/\xc0\xa4body\x81\xa6expect\xc3";
const DECODES: &[u8] = b"\x95\xa3GET\xa1/\xc0\xc0\x81\xa6decode\xc3";
/// The key of RFC 6455, 1.3.
const WEBSOCKET: &[u8] =
    b"\x95\xa3GET\xa1/\x81\xb1Sec-WebSocket-Key\xb8dGhlIHNhbXBsZSBub25jZQ==\xc0\x81\xa7upgrade\xa9websocket";
const UPGRADE: &[u8] = b"\x95\xa3GET\xa1/\xc0\xc0\x81\xa7upgrade\xa3foo";

const fn sample(
    name: &'static str,
    url: &'static str,
    requests: &'static [&'static [u8]],
    bytes: &'static [u8],
) -> Sample {
    Sample { name, url, follow: Follow::Nothing, from_server: true, requests, bytes }
}

/// "hello hello hello" as gzip.
const ZIPPED: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n\
                        a\r\n\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03\r\n\
                        9\r\n\xcb\x48\xcd\xc9\xc9\x57\xc8\x40\x90\r\n9\r\n\x00\x80\x88\xf9\xe5\x11\x00\x00\x00\r\n0\r\n\r\n";

pub static SAMPLES: &[Sample] = &[
    sample(
        "replies",
        URL,
        &[GET, HEAD, POST, GET, EXPECTS, GET],
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX: \t y \r\n\r\nhi\
          HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n\
          HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n\
          HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\n\r\n4;a=\"b\"\r\nWiki\r\n00A\r\npedia\r\n\r\n \r\n0\r\nT: v\r\nHost: x\r\n\r\n\
          HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n\
          HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx",
    ),
    sample(
        "streamed replies",
        URL,
        &[GET, GET],
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nWiki\r\n6\r\npedia \r\n0\r\nT: v\r\n\r\n\
          HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nHello world!",
    ),
    sample(
        "pipelined",
        "http://user:secret@localhost:8080/base?pipeline=true",
        &[GET, HEAD, GET],
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhiHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n\
          HTTP/1.1 304 Not Modified\r\n\r\n",
    ),
    sample("decoded", URL, &[DECODES], ZIPPED),
    sample("streamed and decoded", URL, &[DECODES], ZIPPED),
    sample(
        "streamed websocket",
        URL,
        &[WEBSOCKET],
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
          Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n\
          \x81\x05Hello\x01\x03Hel\x89\x01p\x80\x02lo\x82\x02\x00\x01\x88\x05\x03\xe8bye",
    ),
    sample(
        "streamed upgrade that is refused",
        URL,
        &[UPGRADE],
        b"HTTP/1.1 426 Upgrade Required\r\nContent-Length: 2\r\n\r\nno",
    ),
    sample("not http", URL, &[GET], b"-ERR unknown command\r\n\r\n"),
    Sample {
        name: "a client of every kind",
        url: URL,
        follow: Follow::Nothing,
        from_server: false,
        requests: &[],
        bytes: b"GET /a%20b?c=d HTTP/1.1\r\nHost: localhost\r\nUser-Agent: x\r\nCookie: a=b\r\nCookie: c=d\r\n\r\n\
                 POST /form HTTP/1.1\r\nHost: localhost\r\nContent-Length: 7\r\n\r\na=b&c=d\
                 PUT /chunks HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n\
                 4\r\nWiki\r\n6;x=y\r\npedia \r\n0\r\nT: v\r\n\r\n\
                 HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\nOPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n\
                 DELETE /last HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    },
];
