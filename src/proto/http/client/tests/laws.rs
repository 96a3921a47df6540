//! What holds for any input, any sequence of operations, and any conversation with our own listener.
use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::proto::Of;

/// Requests of every kind: `(pipeline, streams, request)`.
fn requests() -> Vec<(bool, V)> {
    let options = |name| V::Map(vec![(name, V::True)]);
    let upgrade = |to| request("GET", vec![V::Nil, V::Nil, V::Map(vec![("upgrade", V::Str(to))])]);
    vec![
        (false, request("GET", vec![])),
        (false, request("HEAD", vec![])),
        (false, request("POST", vec![V::Nil, V::Str("hi")])),
        (false, request("PUT", vec![V::Nil, V::True])),
        (false, request("PUT", vec![V::Map(vec![("Content-Length", V::Str("4"))]), V::True])),
        (false, request("PUT", vec![V::Nil, V::Str("body"), options("expect")])),
        (false, request("PUT", vec![V::Nil, V::True, options("expect")])),
        (false, request("GET", vec![V::Nil, V::Nil, options("decode")])),
        (false, request("GET", vec![V::Map(vec![("Connection", V::Str("close"))])])),
        (true, request("GET", vec![])),
        (true, request("PUT", vec![V::Nil, V::True])),
        (true, upgrade("foo")),
        (true, upgrade("websocket")),
        (true, V::Array(vec![V::Str("CONNECT"), V::Str("o:1")])),
    ]
}

/// What a server may say, whole or not.
const SAID: &[&[u8]] = &[
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
    b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"4\r\nWiki\r\n",
    b"0\r\n\r\n",
    b"0\r\nT: v\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n\r\n",
    b"some bytes",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
    b"HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 500 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi",
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: foo\r\nConnection: Upgrade\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x1f\x8b\x08\x00",
    b"\x81\x02hi\x89\x00\x88\x02\x03\xe8",
    b"HTTP/1.1 200 OK\r\nX: ",
    b"\r\n",
    b"\0",
];

/// Messages that may follow a request.
fn pieces() -> Vec<V> {
    vec![
        V::Str("hi"),
        V::Bin(vec![7; 3000]),
        V::Nil,
        V::Array(vec![V::Array(vec![V::Str("T"), V::Str("v")])]),
        V::Array(vec![V::Int(1000), V::Str("bye")]),
        V::Map(vec![("fd", V::Int(3)), ("length", V::Int(2))]),
        V::Map(vec![("ping", V::Str("p"))]),
        V::True,
    ]
}

#[derive(Clone, Debug)]
enum Op {
    Ask(usize),
    Send(usize),
    Feed(usize, usize),
    Cancel,
    Pass(u64),
    Eof,
    Close,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0..requests().len()).prop_map(Op::Ask),
        3 => (0..pieces().len()).prop_map(Op::Send),
        8 => (0..SAID.len(), 1..100usize).prop_map(|(what, size)| Op::Feed(what, size)),
        1 => Just(Op::Cancel),
        2 => (0..20_000u64).prop_map(Op::Pass),
        1 => Just(Op::Eof),
        1 => Just(Op::Close),
    ]
}

/// What became of the requests of a conn.
#[derive(Default)]
struct Ends {
    /// By number: the request was answered.
    open: BTreeMap<u64, bool>,
    faulted: bool,
}

impl Ends {
    /// Law 3: at most one reply each, and none to who cancelled or never asked.
    fn see(&mut self, told: &[String]) {
        for id in told.iter().filter_map(|line| line.strip_prefix("reply ")) {
            let id: u64 = id.split(' ').next().unwrap().parse().unwrap();
            assert_eq!(self.open.insert(id, true), Some(false), "reply {id}: {told:?}");
        }
    }
}

fn run(pipeline: bool, ops: &[Op]) {
    let mut rig = Rig::new(if pipeline { "http://x?pipeline=true" } else { "http://x" });
    let (requests, pieces) = (requests(), pieces());
    let mut ends = Ends::default();
    let mut half_closed = false;
    for op in ops {
        if ends.faulted {
            break;
        }
        let fault = match op {
            Op::Ask(which) => {
                let (streams, body) = &requests[which % requests.len()];
                if rig.conn.admit(&pack(body)) == Admit::Now {
                    let before = rig.wire.len();
                    match rig.ask(body, *streams) {
                        Ok(_) => drop(ends.open.insert(rig.next, false)),
                        Err(why) => panic!("admitted, but refused: {why}, {} bytes", rig.wire.len() - before),
                    }
                }
                None
            }
            Op::Send(which) => {
                let before = (rig.wire.len(), rig.files.len());
                if rig.send(&pieces[which % pieces.len()]).is_err() {
                    assert_eq!((rig.wire.len(), rig.files.len()), before, "a refusal left bytes");
                }
                None
            }
            Op::Feed(what, size) => SAID[what % SAID.len()].chunks(*size).find_map(|part| rig.feed(part)),
            Op::Cancel => {
                rig.cancel();
                if ends.open.get(&rig.next) == Some(&false) {
                    ends.open.remove(&rig.next);
                }
                None
            }
            Op::Pass(millis) => rig.pass(Duration::from_millis(*millis)),
            Op::Eof => rig.eof(),
            Op::Close => {
                rig.close();
                None
            }
        };
        ends.faulted = fault.is_some();
        half_closed |= !half_closed && !ends.faulted && rig.flushed();
        ends.see(&rig.told());
        assert!(rig.input.len() < 8192, "what waits for its end is bounded");
    }
    if ends.faulted {
        let (wire, next) = (rig.wire.len(), rig.next);
        assert!(rig.feed(b"HTTP/1.1 200 OK\r\n\r\n").is_some() && rig.eof().is_some());
        assert!(rig.ask(&request("GET", vec![]), false).is_err() && rig.send(&V::Str("x")).is_err());
        assert_eq!((rig.told(), rig.wire.len(), rig.conn.poll_timeout()), (vec![], wire, None), "law 7");
        rig.next = next;
    }
    let mut named = Vec::new();
    rig.conn.abandon(&mut |id| named.push(id.0));
    let open: Vec<u64> = ends.open.iter().filter(|(_, replied)| !**replied).map(|(id, _)| *id).collect();
    assert_eq!(named, open, "law 3");
}

/// A server that answers what it is asked to, by the target: `/number/plan`.
struct Program {
    conn: Box<dyn Protocol>,
    wire: Vec<u8>,
    files: Vec<(usize, Span)>,
    told: Told,
    input: Vec<u8>,
    now: Instant,
}

/// Events of a listener.
#[derive(Default)]
struct Told {
    requests: Vec<Arrived>,
    drains: bool,
}

/// A request, and as much of its body as has come.
struct Arrived {
    slot: u64,
    plan: u8,
    number: String,
    body: Vec<u8>,
    whole: bool,
}

impl Emit for Told {
    fn emit(&mut self, event: Event<'_>) {
        match event {
            Event::Request { slot, body: Body::Msgpack(body) } => {
                let mut reader = Reader::new(body);
                assert_eq!(reader.token(), Ok(Token::Array(2)));
                let mut head = reader.clone();
                reader.skip(8).unwrap();
                assert_eq!(head.token(), Ok(Token::Array(5)));
                let (Ok(Token::Str(_)), Ok(Token::Str(target))) = (head.token(), head.token()) else { panic!() };
                let target = std::str::from_utf8(target).unwrap();
                let (number, plan) = target[1..].split_once('/').unwrap();
                let (body, whole) = match reader.token().unwrap() {
                    Token::Nil => (Vec::new(), true),
                    Token::Bin(body) => (body.to_vec(), true),
                    Token::Bool(true) => (Vec::new(), false),
                    other => panic!("{other:?}"),
                };
                self.requests.push(Arrived { slot, plan: plan.parse().unwrap(), number: number.into(), body, whole });
            }
            Event::Chunk { of: Of::Slot(slot), body: Body::Bytes(bytes) } => {
                let arrived = self.requests.iter_mut().find(|arrived| arrived.slot == slot);
                arrived.expect("a body of a request").body.extend_from_slice(bytes);
            }
            Event::End { of: Of::Slot(slot), .. } => {
                self.requests.iter_mut().find(|arrived| arrived.slot == slot).unwrap().whole = true;
            }
            Event::Settled { slot } => self.requests.retain(|arrived| arrived.slot != slot),
            Event::Fact(Fact::Draining) => self.drains = true,
            other => panic!("{other:?}"),
        }
    }
}

const PLANS: u8 = 7;
/// The plan whose reply is the last of its conn.
const CLOSES: u8 = 5;

impl Program {
    fn new(now: Instant) -> Self {
        let mut url = Url::parse("http://h?stream_above=64&server=", |_| Some(80)).unwrap();
        let limits = Limits { listener: true, inflight_max: 5, ..Limits::default() };
        let conn = open(&mut url, &limits).unwrap().server();
        let told = Told::default();
        let mut program = Program { conn, wire: Vec::new(), files: Vec::new(), told, input: Vec::new(), now };
        program.with(|conn, now, out| conn.handle_open(now, &Transport::default(), out)).unwrap();
        program
    }

    fn with<T>(&mut self, act: impl FnOnce(&mut dyn Protocol, Instant, &mut Out<'_>) -> T) -> T {
        let mut out = Out { wire: &mut self.wire, files: &mut self.files, events: &mut self.told };
        act(&mut *self.conn, self.now, &mut out)
    }

    fn feed(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
        while !self.input.is_empty() && !self.conn.paused() {
            let input = std::mem::take(&mut self.input);
            let progress = self.with(|conn, now, out| conn.handle_input(now, &input, out)).unwrap();
            match progress {
                Progress::Consumed(used) => self.input = input[used..].to_vec(),
                Progress::Need(_) => {
                    self.input = input;
                    break;
                }
            }
        }
    }

    fn answer(&mut self, slot: u64, bytes: &[V]) {
        for (index, message) in bytes.iter().enumerate() {
            let body = pack(message);
            let command = match index {
                0 => Command::Reply { slot, body: &body },
                _ => Command::SendTo { slot, body: &body },
            };
            self.with(|conn, now, out| conn.command(now, command, out)).unwrap();
        }
    }

    /// Answers one of the requests whose body is there: it says the request's number and its body.
    fn work(&mut self, which: usize) {
        let ready: Vec<usize> = (0..self.told.requests.len()).filter(|at| self.told.requests[*at].whole).collect();
        let Some(at) = ready.get(which % ready.len().max(1)) else { return };
        let Arrived { slot, plan, number, body, .. } = self.told.requests.remove(*at);
        let said = V::Bin([number.as_bytes(), b" ", &body].concat());
        let length = number.len() + 1 + body.len();
        let headers =
            |name: &'static str, value: String| V::Array(vec![V::Array(vec![V::Str(name), V::Bin(value.into())])]);
        let trailers = headers("T", "v".into());
        let begin = |headers| V::Array(vec![V::Int(200), headers, V::True]);
        match plan % PLANS {
            0 => self.answer(slot, &[V::Array(vec![V::Int(200), V::Nil, said])]),
            1 => self.answer(slot, &[V::Array(vec![V::Int(200), V::Nil, V::Array(vec![said, V::Str("")])])]),
            2 => self.answer(slot, &[begin(V::Nil), said, V::Nil]),
            3 => self.answer(slot, &[begin(headers("Content-Length", length.to_string())), said, V::Nil]),
            4 => self.answer(slot, &[begin(V::Nil), V::Str(""), said, trailers]),
            CLOSES => {
                self.answer(slot, &[V::Array(vec![V::Int(200), headers("Connection", "close".into()), said])]);
            }
            _ => {
                let early = V::Array(vec![V::Int(103), headers("Link", "x".into())]);
                let body = pack(&early);
                self.with(|conn, now, out| conn.command(now, Command::Reply { slot, body: &body }, out)).unwrap();
                self.answer(slot, &[V::Array(vec![V::Int(200), V::Nil, said, trailers])]);
            }
        }
    }
}

/// One turn of a conversation: what is asked, how it is answered, how the bytes are cut, who works when.
#[derive(Clone, Debug)]
struct Turn {
    method: u8,
    plan: u8,
    body: usize,
    cut: usize,
    works: u8,
}

fn turn() -> impl Strategy<Value = Turn> {
    (any::<u8>(), 0..PLANS, 0..300usize, 1..80usize, any::<u8>()).prop_map(|(method, plan, body, cut, works)| Turn {
        method,
        plan,
        body,
        cut,
        works,
    })
}

/// A request with its number, and what its reply must be.
fn asked(number: usize, turn: &Turn) -> (V, Vec<V>, String) {
    let target = V::Bin(format!("/{number}/{}", turn.plan).into_bytes());
    let body = vec![b'a' + (number % 26) as u8; turn.body];
    let text = String::from_utf8(body.clone()).unwrap();
    let whole = |method, body: V| V::Array(vec![V::Str(method), target.clone(), V::Nil, body]);
    let expects = V::Map(vec![("expect", V::True)]);
    match turn.method % 6 {
        0 => (whole("GET", V::Nil), vec![], format!("{number} ")),
        1 => (whole("HEAD", V::Nil), vec![], String::new()),
        2 => (whole("POST", V::Bin(body)), vec![], format!("{number} {text}")),
        3 => {
            (whole("PUT", V::True), vec![V::Bin(body.clone()), V::Bin(body), V::Nil], format!("{number} {text}{text}"))
        }
        4 => {
            let length = V::Map(vec![("Content-Length", V::Bin(turn.body.to_string().into_bytes()))]);
            let ask = V::Array(vec![V::Str("PUT"), target, length, V::True]);
            (ask, vec![V::Bin(body), V::Nil], format!("{number} {text}"))
        }
        _ => {
            let ask = V::Array(vec![V::Str("PUT"), target, V::Nil, V::Bin(body), expects]);
            (ask, vec![], format!("{number} {text}"))
        }
    }
}

/// Our client and our listener, joined: every request has its own answer, and every conn its end where one says so.
fn converse(pipeline: bool, turns: &[Turn]) {
    let fresh = || Rig::new(if pipeline { "http://x?pipeline=true" } else { "http://x" });
    let mut client = fresh();
    let mut server = Program::new(client.now);
    let mut expected: BTreeMap<u64, String> = BTreeMap::new();
    let mut answered = 0;
    for (number, turn) in turns.iter().enumerate() {
        let (ask, pieces, reply) = asked(number, turn);
        // Whoever waits for a conn makes the server work.
        let busy = Turn { works: turn.works | 3, ..turn.clone() };
        let mut rounds = 0;
        while client.conn.admit(&pack(&ask)) != Admit::Now {
            if client.conn.inflight() == 0 {
                // One that has been said to be the last.
                client = fresh();
                server = Program::new(client.now);
                assert!(expected.is_empty());
            }
            carry(&mut client, &mut server, &busy, &mut expected, &mut answered);
            rounds += 1;
            assert!(rounds < 200, "it hangs: {expected:?}");
        }
        client.ask(&ask, false).unwrap();
        expected.insert(client.next, reply);
        for piece in &pieces {
            client.send(piece).unwrap();
        }
        if turn.works & 1 == 0 {
            carry(&mut client, &mut server, turn, &mut expected, &mut answered);
        }
    }
    let last = Turn { method: 0, plan: 0, body: 0, cut: 9, works: 255 };
    for _ in 0..200 {
        carry(&mut client, &mut server, &last, &mut expected, &mut answered);
    }
    assert!(expected.is_empty(), "{expected:?}");
    assert!(answered > 0 || turns.is_empty());
}

fn carry(
    client: &mut Rig,
    server: &mut Program,
    turn: &Turn,
    expected: &mut BTreeMap<u64, String>,
    answered: &mut usize,
) {
    // Bodies that wait for leave get it, or their time is over.
    client.pass(Duration::from_millis(100));
    for part in std::mem::take(&mut client.wire).chunks(turn.cut) {
        server.feed(part);
    }
    for which in 0..turn.works % 4 {
        server.work(usize::from(turn.works / 4 + which));
        server.feed(b"");
    }
    let mut fault = None;
    for part in std::mem::take(&mut server.wire).chunks(turn.cut) {
        fault = fault.or_else(|| client.feed(part));
    }
    for line in client.told() {
        let Some(reply) = line.strip_prefix("reply ") else { continue };
        let (id, reply) = reply.split_once(' ').unwrap();
        let body = expected.remove(&id.parse().unwrap()).expect("one reply a request");
        assert!(
            reply.starts_with("[200, [") && reply.contains(&format!("], '{body}', \"OK\", 11, ")),
            "{body}: {reply}"
        );
        *answered += 1;
    }
    if fault.is_some() {
        // Requests behind one whose reply was the last: they were not served, and may be asked again elsewhere.
        assert_eq!(fault, Some(FaultKind::Closed));
        client.conn.abandon(&mut |id| drop(expected.remove(&id.0).expect("it was open")));
    }
    assert!(fault.is_none() || expected.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn no_sequence_of_operations_breaks_a_law(pipeline in any::<bool>(), ops in vec(op(), 0..40)) {
        run(pipeline, &ops);
    }

    #[test]
    fn our_listener_understands_our_client(pipeline in any::<bool>(), turns in vec(turn(), 0..24)) {
        converse(pipeline, &turns);
    }
}
