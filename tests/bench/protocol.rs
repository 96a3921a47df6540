//! What one request costs in the protocol alone: classify, admit, encode, and the reply's way back. `cargo bench`.
use std::hint::black_box;
use std::time::Instant;

use iokernel::config::Url;
use iokernel::proto::{Command, Emit, Event, Limits, Out, Progress, Protocol, RequestId, Transport, scheme};

const ROUNDS: u64 = 2_000;
const IN_FLIGHT: u64 = 100;

struct Count(u64);

impl Emit for Count {
    #[inline]
    fn emit(&mut self, event: Event<'_>) {
        self.0 += u64::from(matches!(black_box(event), Event::Reply { .. }));
    }
}

fn main() {
    let mut url = Url::parse("redis://localhost?protocol=2", |_| Some(6379)).expect("a URL");
    let row = scheme("redis").expect("redis is in the table");
    let driver = (row.open)(&mut url, &Limits::default()).expect("no options");
    let value = [b"$100\r\n".as_slice(), &[b'x'; 100], b"\r\n"].concat();
    let list = [b"*100\r\n".as_slice(), &b"$10\r\n0123456789\r\n".repeat(100)].concat();
    for (name, body, reply) in [
        ("GET key:000000000001, 100 bytes", &b"\x92\xa3GET\xb0key:000000000001"[..], value.as_slice()),
        ("SET key:000000000001 and 3 bytes, +OK", b"\x93\xa3SET\xb0key:000000000001\xa3VXK", b"+OK\r\n"),
        ("INCR n, :1000", b"\x92\xa4INCR\xa1n", b":1000\r\n"),
        ("LRANGE l 0 -1, 100 of 10 bytes", b"\x94\xa6LRANGE\xa1l\x00\xff", &list),
    ] {
        let (mut wire, mut count) = (Vec::new(), Count(0));
        let mut conn = driver.client();
        let now = Instant::now();
        conn.handle_open(
            now,
            &Transport::default(),
            &mut Out { wire: &mut wire, files: &mut Vec::new(), events: &mut count },
        )
        .expect("open");
        let greeting = b"+PONG\r\n+OK\r\n+OK\r\n";
        feed(&mut *conn, now, greeting, &mut Out { wire: &mut wire, files: &mut Vec::new(), events: &mut count });
        let replies = reply.repeat(IN_FLIGHT as usize);
        let (mut asking, mut answering) = (Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            wire.clear();
            let mut out = Out { wire: &mut wire, files: &mut Vec::new(), events: &mut count };
            let start = Instant::now();
            for id in 0..IN_FLIGHT {
                let id = RequestId(round * IN_FLIGHT + id);
                black_box(driver.classify(black_box(body), false)).expect("a class");
                black_box(conn.admit(body));
                conn.command(now, Command::Request { id, body, asking: false, streams: false }, &mut out)
                    .expect("sent");
            }
            let half = Instant::now();
            feed(&mut *conn, now, &replies, &mut out);
            asking.push((half - start).as_nanos());
            answering.push(half.elapsed().as_nanos());
        }
        assert_eq!(count.0, ROUNDS * IN_FLIGHT);
        println!("{name}: {} ns to ask, {} ns to take the reply", best(asking), best(answering));
    }
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
