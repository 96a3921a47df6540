//! What the program asks for.

use iokernel::proto::{Class, RequestId, Route};
use iokernel::status::IOK_STATUS_CANCELLED;
use iokernel::value::write;

use crate::kernel::{Expect, Req, What};
use crate::world::{Event, MS, World};

/// Requests under way at most: more teach nothing.
const LIVE_MAX: usize = 200;

#[derive(Default)]
pub struct Program {
    /// Those that it holds.
    pub leases: Vec<u64>,
    pub streams: Vec<u64>,
    /// It asks for nothing more.
    pub silent: bool,
}

/// A command, or several, as MessagePack.
fn body(words: &str) -> Vec<u8> {
    let batch: Vec<&str> = words.split(';').collect();
    let mut out = Vec::new();
    if batch.len() > 1 {
        write::array(&mut out, batch.len() as u32);
    }
    for command in batch {
        let words: Vec<&str> = command.split(' ').collect();
        write::array(&mut out, words.len() as u32);
        words.iter().for_each(|word| write::str(&mut out, word.as_bytes()));
    }
    out
}

impl World {
    pub fn program_turn(&mut self) {
        if self.program.silent {
            return;
        }
        let pace = if self.calm { 60 } else { [2, 5, 12][(self.seed % 3) as usize] };
        let wait = self.rng.u64(MS / 10..pace * MS);
        self.at(self.now_ns + wait, Event::Program);
        let burst = if self.rng.usize(..40) == 0 { self.rng.usize(5..40) } else { 1 };
        for _ in 0..burst {
            self.some_op();
        }
    }

    fn some_op(&mut self) {
        if self.live_ids.len() >= LIVE_MAX {
            return self.cancel_some();
        }
        match self.rng.usize(..100) {
            0..70 => self.some_request(),
            70..75 => self.wait_in_server(),
            75..80 => self.cancel_some(),
            80..83 => self.take_lease(),
            83..91 => self.use_lease(),
            91..95 => self.give_lease(),
            95..97 => self.open_stream(),
            97 => self.close_stream(),
            98 => self.wait_until_up(),
            _ => self.fall_silent(),
        }
    }

    pub fn request(&self, words: String, what: What) -> Req {
        Req {
            what,
            body: body(&words),
            words,
            expect: Expect::Mark,
            shared: what == What::Request,
            idempotent: false,
            route: None,
            lease: 0,
            due_ns: None,
            has_payload: false,
            conn: None,
            retries: 0,
            rejections: 0,
            counted: false,
            wire_start: 0,
            sent_ns: 0,
            doubtful: false,
            ended: None,
            executions: 0,
            sends: 0,
            accepted: false,
            pushes: Vec::new(),
        }
    }

    fn due(&mut self) -> Option<u64> {
        let given = match self.rng.usize(..4) {
            0 => self.rng.u64(1..100),
            1 => self.rng.u64(100..2000),
            _ => u64::from(self.options.timeout_ms).min(40_000),
        };
        Some(self.timeout_ms(given))
    }

    /// Words of an ordinary command that carries its number.
    pub fn some_words(&mut self) -> String {
        let (id, key) = (self.requests_made + 1, self.rng.usize(..50));
        match self.rng.usize(..20) {
            0..7 => format!("SET {{k{key}}} #{id}#"),
            7..14 => format!("GET {{k{key}}} #{id}#"),
            14 => format!("MGET {{k{key}}} {{k{key}}}#{id}#"),
            15 => format!("MSET {{k{key}}} x {{k{key}}}#{id}# y"),
            16 => format!("GET {{k{key}}};SET {{k{key}}} #{id}#"),
            17 => format!("ECHO #{id}#"),
            _ => format!("INCR {{k{key}}} #{id}#"),
        }
    }

    fn some_request(&mut self) {
        let words = self.some_words();
        let mut req = self.request(words, What::Request);
        req.idempotent = self.rng.usize(..3) == 0;
        req.route = (self.rng.usize(..20) == 0).then(|| self.rng.u64(..));
        req.due_ns = self.due();
        self.submit(req);
    }

    /// Gives a request to the endpoint. Its number.
    pub fn submit(&mut self, mut req: Req) -> u64 {
        let hashes = self.profile_hashes();
        match self.driver.classify(&req.body, hashes) {
            Err(refusal) => self.fail(&format!("{} is refused: {refusal:?}", req.words)),
            Ok(need) => {
                req.shared = need.class == Class::Shared && req.lease == 0 && req.what == What::Request;
                self.checks.first_ns.get_or_insert(self.now_ns);
                let id = self.begin(req);
                self.route(id, need);
                id
            }
        }
    }

    fn wait_in_server(&mut self) {
        let (id, key) = (self.requests_made + 1, self.rng.usize(..50));
        let mut req = self.request(format!("BLPOP {{k{key}}}#{id}# 1"), What::Request);
        req.due_ns = self.due();
        self.submit(req);
    }

    fn cancel_some(&mut self) {
        let count = self.live_ids.len();
        if count > 0 {
            let nth = self.rng.usize(..count);
            if let Some(id) = self.live_ids.iter().nth(nth).copied() {
                self.program.streams.retain(|stream| *stream != id);
                self.end_early(id, IOK_STATUS_CANCELLED);
            }
        }
    }

    fn take_lease(&mut self) {
        let mut req = self.request(String::new(), What::Lease);
        req.due_ns = self.due();
        let id = self.begin(req);
        self.with_router(None, |router, now, act| {
            router.handle_lease(now, RequestId(id), Route::default(), act);
        });
    }

    fn use_lease(&mut self) {
        if self.program.leases.is_empty() {
            return;
        }
        let lease = self.program.leases[self.rng.usize(..self.program.leases.len())];
        let (id, key) = (self.requests_made + 1, self.rng.usize(..50));
        let plain = lease.is_multiple_of(2);
        let words = match self.rng.usize(..6) {
            0 | 1 => format!("SET {{k{key}}} #{id}#"),
            2 => format!("ECHO #{id}#"),
            3 if !plain => "MULTI".into(),
            4 if !plain => "EXEC".into(),
            5 if !plain => format!("WATCH {{k{key}}}"),
            _ => format!("GET {{k{key}}} #{id}#"),
        };
        let mut req = self.request(words, What::Request);
        req.lease = lease;
        req.expect = if plain { Expect::Mark } else { Expect::Anything };
        req.due_ns = self.due();
        self.submit(req);
    }

    fn give_lease(&mut self) {
        if !self.program.leases.is_empty() {
            let at = self.rng.usize(..self.program.leases.len());
            self.give_back(at);
        }
    }

    pub fn give_back(&mut self, at: usize) {
        let lease = self.program.leases.swap_remove(at);
        self.checks.lease_ends(lease);
        if !self.release_lease(lease) {
            self.fail(&format!("lease {lease} was held and is not known"));
        }
    }

    fn open_stream(&mut self) {
        let live: Vec<u64> = self.program.streams.iter().copied().filter(|id| self.live(*id).is_some()).collect();
        self.program.streams = live;
        if self.program.streams.len() >= 6 {
            return;
        }
        let words = match self.rng.usize(..8) {
            0 if !self.profile.is_cluster() => "MONITOR".to_string(),
            1..4 if self.profile.is_cluster() => format!("SSUBSCRIBE {{s{}}}", self.rng.usize(..3)),
            _ => format!("SUBSCRIBE t{} t{}", self.rng.usize(..3), self.rng.usize(3..5)),
        };
        let req = self.request(words, What::Stream);
        let id = self.submit(req);
        self.program.streams.push(id);
    }

    fn close_stream(&mut self) {
        if let Some(id) = self.program.streams.pop() {
            self.end_early(id, IOK_STATUS_CANCELLED);
        }
    }

    fn wait_until_up(&mut self) {
        let mut req = self.request(String::new(), What::UntilUp);
        req.due_ns = self.due();
        let id = self.begin(req);
        self.with_router(None, |router, _, act| router.handle_waiter(RequestId(id), act));
    }

    /// The program polls nothing for so long that its leases are taken from it.
    fn fall_silent(&mut self) {
        if self.rng.usize(..10) == 0 {
            self.with_router(None, |router, now, act| router.handle_silence(now, "the program is silent", act));
        }
    }
}
