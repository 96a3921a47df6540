//! What one request costs in the protocol alone: classify, admit, encode, and the reply's way back; for a listener, the
//! head of a request taken apart and told, and its response written. `cargo bench`.
use std::hint::black_box;
use std::time::Instant;

use iokernel::config::Url;
use iokernel::proto::{
    Command, Driver, Emit, Event, Limits, Out, Progress, Protocol, RequestId, Then, Transport, scheme,
};

const ROUNDS: u64 = 2_000;
const IN_FLIGHT: u64 = 100;

/// Replies and requests that were told.
#[derive(Default)]
struct Count(u64);

impl Emit for Count {
    #[inline]
    fn emit(&mut self, event: Event<'_>) {
        self.0 += u64::from(matches!(black_box(event), Event::Reply { .. } | Event::Request { .. }));
    }
}

/// A request of a service, and its reply on the wire.
struct Asked<'a> {
    name: &'static str,
    url: &'static str,
    greeting: &'a [u8],
    body: &'a [u8],
    reply: &'a [u8],
}

/// `[method, target, [[name, value], ...]]`
const GET: &[u8] = b"\x93\xa3GET\xab/items?id=1\x92\x92\xa6Accept\xc4\x10application/json\x92\xaaUser-Agent\xc4\x03b/1";

const HTTP_REPLY: &[u8] = b"HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
    Content-Type: application/json\r\nContent-Length: 28\r\nConnection: keep-alive\r\nVary: Accept-Encoding\r\n\
    ETag: \"65f1c2a1-1b\"\r\nCache-Control: no-cache\r\n\r\n{\"id\": 1, \"name\": \"Teapot\"}\n";

const HTTP_REQUEST: &[u8] = b"GET /items?id=1 HTTP/1.1\r\nHost: www.example.com\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\nAccept-Language: en-US,en;q=0.5\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\nConnection: keep-alive\r\nCookie: session=0123456789abcdef\r\n\
    Upgrade-Insecure-Requests: 1\r\n\r\n";

/// `[200, [["Content-Type", "text/plain"]], "Hello, world!"]`
const HTTP_ANSWER: &[u8] = b"\x93\xcc\xc8\x91\x92\xacContent-Type\xaatext/plain\xc4\x0dHello, world!";

fn main() {
    let value = [b"$100\r\n".as_slice(), &[b'x'; 100], b"\r\n"].concat();
    let list = [b"*100\r\n".as_slice(), &b"$10\r\n0123456789\r\n".repeat(100)].concat();
    let redis = |name, body, reply| {
        let greeting = b"+PONG\r\n+OK\r\n+OK\r\n".as_slice();
        asked(&Asked { name, url: "redis://localhost?protocol=2", greeting, body, reply });
    };
    redis("GET key:000000000001, 100 bytes", b"\x92\xa3GET\xb0key:000000000001", &value);
    redis("SET key:000000000001 and 3 bytes, +OK", b"\x93\xa3SET\xb0key:000000000001\xa3VXK", b"+OK\r\n");
    redis("INCR n, :1000", b"\x92\xa4INCR\xa1n", b":1000\r\n");
    redis("LRANGE l 0 -1, 100 of 10 bytes", b"\x94\xa6LRANGE\xa1l\x00\xff", &list);
    asked(&Asked {
        name: "http GET, 8 headers back",
        url: "http://localhost?pipeline=true",
        greeting: b"",
        body: GET,
        reply: HTTP_REPLY,
    });
    for form in ["message", "cgi", "scope"] {
        served(&format!("http listener, 8 headers, form={form}"), &format!("http://localhost?form={form}"));
    }
}

fn driver(url: &str, limits: &Limits) -> Box<dyn Driver> {
    let mut url = Url::parse(url, |name| scheme(name).map(|row| row.default_port)).expect("a URL");
    let row = scheme(&url.scheme).expect("a scheme of the table");
    (row.open)(&mut url, limits).expect("its options")
}

fn opened(mut conn: Box<dyn Protocol>, now: Instant) -> Box<dyn Protocol> {
    let mut out = Out { wire: &mut Vec::new(), files: &mut Vec::new(), events: &mut Count::default() };
    conn.handle_open(now, &Transport::default(), &mut out).expect("open");
    conn
}

fn asked(case: &Asked<'_>) {
    let driver = driver(case.url, &Limits::default());
    let now = Instant::now();
    let mut conn = opened(driver.client(), now);
    let (mut wire, mut files, mut count) = (Vec::new(), Vec::new(), Count::default());
    let mut out = Out { wire: &mut wire, files: &mut files, events: &mut count };
    feed(&mut *conn, now, case.greeting, &mut out);
    let replies = case.reply.repeat(IN_FLIGHT as usize);
    let (mut asking, mut answering) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        wire.clear();
        let mut out = Out { wire: &mut wire, files: &mut files, events: &mut count };
        let start = Instant::now();
        for id in 0..IN_FLIGHT {
            let id = RequestId(round * IN_FLIGHT + id);
            black_box(driver.classify(black_box(case.body), false)).expect("a class");
            black_box(conn.admit(case.body));
            let command = Command::Request { id, body: case.body, asking: false, streams: false };
            conn.command(now, command, &mut out).expect("sent");
        }
        let half = Instant::now();
        feed(&mut *conn, now, &replies, &mut out);
        asking.push((half - start).as_nanos());
        answering.push(half.elapsed().as_nanos());
    }
    assert_eq!(count.0, ROUNDS * IN_FLIGHT);
    println!("{}: {} ns to ask, {} ns to take the reply", case.name, best(asking), best(answering));
}

fn served(name: &str, url: &str) {
    let driver = driver(url, &Limits { listener: true, ..Limits::default() });
    let now = Instant::now();
    let mut conn = opened(driver.server(), now);
    let (mut wire, mut files, mut count) = (Vec::new(), Vec::new(), Count::default());
    let requests = HTTP_REQUEST.repeat(IN_FLIGHT as usize);
    let (mut taking, mut answering) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        wire.clear();
        let mut out = Out { wire: &mut wire, files: &mut files, events: &mut count };
        let start = Instant::now();
        feed(&mut *conn, now, &requests, &mut out);
        let half = Instant::now();
        for slot in 0..IN_FLIGHT {
            let command = Command::Reply { slot: round * IN_FLIGHT + slot, body: HTTP_ANSWER };
            assert_eq!(conn.command(now, command, &mut out), Ok(Then::Done));
        }
        taking.push((half - start).as_nanos());
        answering.push(half.elapsed().as_nanos());
    }
    assert_eq!(count.0, ROUNDS * IN_FLIGHT);
    println!("{name}: {} ns to take the request, {} ns to answer", best(taking), best(answering));
}

/// Best and median, per request.
fn best(mut nanoseconds: Vec<u128>) -> String {
    nanoseconds.sort_unstable();
    let each = |nanoseconds: u128| nanoseconds as f64 / IN_FLIGHT as f64;
    format!("{:.1} (median {:.1})", each(nanoseconds[0]), each(nanoseconds[nanoseconds.len() / 2]))
}

fn feed(conn: &mut dyn Protocol, now: Instant, mut input: &[u8], out: &mut Out<'_>) {
    while !input.is_empty() {
        match conn.handle_input(now, input, out).expect("no fault") {
            Progress::Consumed(used) => input = &input[used..],
            Progress::Need(_) => break,
        }
    }
}
