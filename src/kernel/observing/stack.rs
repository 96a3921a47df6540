//! Where the program's threads are: `/stack`.
//!
//! One thread is asked at a time, by the signal of [`crate::sys::signal`], and writes its answer to a pipe; who asks for
//! the same thread meanwhile shares it. A thread that does not answer in time is told of by what the system knows.

use std::collections::VecDeque;
use std::io::ErrorKind;

use memchr::memmem;
use mio::Interest;
use mio::unix::SourceFd;
use serde_json::{Map, Value, json};

use super::admin::{Answer, Ask, Outcome, Ticket};
use super::native::{Registers, Symbols};
use super::task::{self, Task};
use super::{Part, token};
use crate::config::{ConfigError, Options};
use crate::kernel::io::Io;
use crate::kernel::wheel::TimerKey;
use crate::sys::epoll::Event;
use crate::sys::signal::{self, Claim, State};

/// How long a thread has to answer, and after which time it is asked once more.
const ANSWER_MS: u64 = 40;
const AGAIN_MS: u64 = 20;
/// How often to look whether another kernel has done with the door, or a thread with its last answer.
const CLAIM_MS: u64 = 2;
/// So many looks in a row find that a thread blocks the signal before it is told so: it does while it answers.
const BLOCKED_LOOKS: u32 = 5;
/// Threads that are asked for one answer, and for how long altogether.
const ASKED_MAX: usize = 64;
const ALL_MS: u64 = 500;
/// Asks that wait.
const JOBS_MAX: usize = 256;
/// Bytes of one dump, and of the text in it.
const DUMP_BYTES_MAX: usize = 512 << 10;
const TEXT_BYTES_MAX: usize = 64 << 10;
/// Bytes of a record.
const RECORD: usize = signal::RECORD_WORDS * 8;

#[derive(Clone, Debug)]
pub struct StackConfig {
    /// By which threads are asked.
    pub signal: i32,
}

impl Default for StackConfig {
    fn default() -> Self {
        StackConfig { signal: signal::DEFAULT_SIGNAL }
    }
}

impl StackConfig {
    pub fn take(options: &mut Options) -> Result<Self, ConfigError> {
        let Some(text) = options.text("stack_signal") else { return Ok(StackConfig::default()) };
        let signal = signal::parse(&text).ok_or_else(|| ConfigError::new("stack_signal", &text, signal::EXPECTED))?;
        Ok(StackConfig { signal })
    }
}

#[derive(Default)]
pub struct Stack {
    /// The descriptor that the poll watches; 0: none.
    watched: i32,
    jobs: VecDeque<Job>,
    dump: Option<Dump>,
    timer: Option<TimerKey>,
    answered: Vec<(Ticket, Answer)>,
    symbols: Symbols,
}

/// Which threads are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Main,
    Thread,
    All,
}

/// One ask of somebody.
struct Job {
    ticket: Ticket,
    wanted: Wanted,
    /// Threads yet to be asked.
    left: VecDeque<i32>,
    told: Vec<Value>,
    began_ns: u64,
    /// How often the front thread was found to block the signal.
    blocked: u32,
}

/// A thread is being asked.
struct Dump {
    claim: Claim,
    ask: u32,
    task: Task,
    began_ns: u64,
    asked_again: bool,
    bytes: Vec<u8>,
    jobs: Vec<Job>,
}

impl Io {
    pub fn answer_stack(&mut self, ask: &mut Ask) -> Result<Outcome, ConfigError> {
        let (wanted, left) = wanted(&mut ask.query)?;
        ask.query.finish()?;
        let stack = &mut self.observing.stack;
        if stack.jobs.len() >= JOBS_MAX {
            return Ok(Outcome::Now(Answer::text(503, "too many asks wait for a stack\n")));
        }
        let job = Job { ticket: ask.ticket, wanted, left, told: Vec::new(), began_ns: self.core.now_ns, blocked: 0 };
        match &mut stack.dump {
            Some(dump) if job.left.front() == Some(&dump.task.tid) => dump.jobs.push(job),
            _ => stack.jobs.push_back(job),
        }
        self.step_stack();
        Ok(self.deliver(Some(ask.ticket)).map_or(Outcome::Later, Outcome::Now))
    }

    pub fn stack_event(&mut self, _event: &Event) {
        self.read_dump();
        self.step_stack();
        self.deliver(None);
    }

    pub fn stack_timer(&mut self) {
        self.observing.stack.timer = None;
        self.read_dump();
        self.hurry_dump();
        self.step_stack();
        self.deliver(None);
    }

    /// Hands out the answers that are ready. The one under `own`, if it is among them, is handed back.
    fn deliver(&mut self, own: Option<Ticket>) -> Option<Answer> {
        let mut now = None;
        for (ticket, answer) in std::mem::take(&mut self.observing.stack.answered) {
            if Some(ticket) == own {
                now = Some(answer);
            } else {
                self.admin_answer(ticket, answer);
            }
        }
        now
    }

    /// Asks the next thread, until one has to be waited for.
    fn step_stack(&mut self) {
        while self.observing.stack.dump.is_none() {
            let Some(mut job) = self.observing.stack.jobs.pop_front() else { return };
            let Some(tid) = job.left.front().copied() else {
                self.observing.stack.answered.push(job.answer(self.core.now_ns));
                continue;
            };
            let Some(task) = task::task(tid) else {
                job.tell(told(&Task { tid, name: String::new(), state: 'X' }, Some("the thread has ended")));
                self.observing.stack.jobs.push_front(job);
                continue;
            };
            if let Some(why) = self.why_not(&job) {
                job.tell(told(&task, Some(&why)));
                self.observing.stack.jobs.push_front(job);
                continue;
            }
            let blocks = task::blocks(task.tid, signal::signal());
            job.blocked = if blocks { job.blocked + 1 } else { 0 };
            match if blocks { None } else { Claim::take() } {
                Some(claim) => self.begin_dump(claim, task, job),
                None => {
                    self.observing.stack.jobs.push_front(job);
                    return self.stack_timer_after(CLAIM_MS);
                }
            }
        }
    }

    /// Why a thread need not be asked.
    fn why_not(&self, job: &Job) -> Option<String> {
        let name = signal::name(signal::signal());
        let waited_ms = self.core.now_ns.saturating_sub(job.began_ns) / 1_000_000;
        match signal::state() {
            State::Closed => Some("the program has not opened its stack".into()),
            State::Replaced => Some(format!("the program has another handler for {name}")),
            State::Armed if job.blocked >= BLOCKED_LOOKS => Some(format!("the thread blocks {name}")),
            State::Armed if job.wanted == Wanted::All && waited_ms >= ALL_MS => {
                Some(format!("not asked: the others took {ALL_MS} ms"))
            }
            // Others wait as well: their turn comes.
            State::Armed if job.wanted != Wanted::All && waited_ms >= ALL_MS + ANSWER_MS => {
                Some("not asked: others asked before".into())
            }
            State::Armed => None,
        }
    }

    fn begin_dump(&mut self, claim: Claim, task: Task, mut job: Job) {
        let asked = self.watch_pipe().and_then(|()| {
            let mut stale = [0; 4096];
            while claim.read(&mut stale).is_ok_and(|count| count > 0) {}
            claim.ask(task.tid)
        });
        let ask = match asked {
            Ok(ask) => ask,
            Err(error) => {
                job.tell(told(&task, Some(&format!("the signal was not sent: {error}"))));
                return self.observing.stack.jobs.push_front(job);
            }
        };
        let stack = &mut self.observing.stack;
        let shares = |other: &Job| other.left.front() == Some(&task.tid);
        let (sharing, others): (Vec<Job>, Vec<Job>) = stack.jobs.drain(..).partition(shares);
        stack.jobs = others.into();
        let jobs = std::iter::once(job).chain(sharing).collect();
        let began_ns = self.core.now_ns;
        stack.dump = Some(Dump { claim, ask, task, began_ns, asked_again: false, bytes: Vec::new(), jobs });
        self.stack_timer_after(AGAIN_MS);
    }

    fn watch_pipe(&mut self) -> std::io::Result<()> {
        let fd = signal::read_fd();
        if self.observing.stack.watched != fd {
            self.registry.register(&mut SourceFd(&fd), token(Part::Stack, 0), Interest::READABLE)?;
            self.observing.stack.watched = fd;
        }
        Ok(())
    }

    fn stack_timer_after(&mut self, after_ms: u64) {
        let timer = self.part_timer_after(Part::Stack, 0, after_ms);
        if let Some(before) = self.observing.stack.timer.replace(timer) {
            self.core.wheel.clear(before);
        }
    }

    fn read_dump(&mut self) {
        let Some(dump) = &mut self.observing.stack.dump else { return };
        let mut part = [0; 16 << 10];
        let is_over = loop {
            match dump.claim.read(&mut part) {
                Ok(count) if count > 0 => dump.bytes.extend_from_slice(&part[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                _ => break Parts::of(&dump.bytes, dump.ask).is_whole(signal::is_late()),
            }
            if dump.bytes.len() > DUMP_BYTES_MAX {
                break true;
            }
        };
        if is_over {
            self.end_dump(None);
        }
    }

    /// Time has passed: the thread is asked once more, or no longer waited for.
    fn hurry_dump(&mut self) {
        let now_ns = self.core.now_ns;
        let Some(dump) = &mut self.observing.stack.dump else { return };
        let waited_ms = now_ns.saturating_sub(dump.began_ns) / 1_000_000;
        if waited_ms >= ANSWER_MS {
            let why = why_silent(&dump.task, &Parts::of(&dump.bytes, dump.ask));
            return self.end_dump(why);
        }
        if !dump.asked_again && waited_ms >= AGAIN_MS {
            dump.asked_again = true;
            // Whether it reaches the thread or not, time tells.
            let _ = dump.claim.ask_again(dump.ask, dump.task.tid);
        }
        self.stack_timer_after(ANSWER_MS.saturating_sub(waited_ms));
    }

    fn end_dump(&mut self, error: Option<String>) {
        let stack = &mut self.observing.stack;
        let Some(dump) = stack.dump.take() else { return };
        if let Some(timer) = stack.timer.take() {
            self.core.wheel.clear(timer);
        }
        dump.claim.withdraw();
        let parts = Parts::of(&dump.bytes, dump.ask);
        let mut value = told(&dump.task, error.as_deref());
        if let Value::Object(fields) = &mut value {
            parts.fill(fields, &mut self.observing.stack.symbols);
        }
        let jobs = &mut self.observing.stack.jobs;
        for mut job in dump.jobs.into_iter().rev() {
            job.tell(value.clone());
            jobs.push_front(job);
        }
    }
}

/// Which threads are asked for: `thread=TID`, `threads=all`, or the main one.
fn wanted(query: &mut Options) -> Result<(Wanted, VecDeque<i32>), ConfigError> {
    let all = query.word("threads", "main", &["main", "all"])? == "all";
    let main = std::process::id() as i32;
    let Some(text) = query.text("thread") else {
        let tids =
            if all { task::tasks().iter().map(|task| task.tid).take(ASKED_MAX).collect() } else { [main].into() };
        return Ok((if all { Wanted::All } else { Wanted::Main }, tids));
    };
    let tid = text.parse().ok().filter(|tid| !all && task::task(*tid).is_some());
    let tid = tid.ok_or_else(|| ConfigError::new("thread", &text, "the number of a thread of this process"))?;
    Ok((Wanted::Thread, [tid].into()))
}

impl Job {
    /// What the front one of the wanted threads has told.
    fn tell(&mut self, told: Value) {
        self.left.pop_front();
        self.blocked = 0;
        self.told.push(told);
    }

    fn answer(self, now_ns: u64) -> (Ticket, Answer) {
        let pid = std::process::id();
        let took_ms = now_ns.saturating_sub(self.began_ns) / 1_000_000;
        let mut body = json!({ "pid": pid, "took_ms": took_ms });
        if self.wanted == Wanted::All {
            let main = self.told.iter().find(|told| told["tid"] == pid).cloned();
            body["main"] = main.unwrap_or_default();
            body["threads"] = self.told.into();
        } else {
            let told = self.told.into_iter().next().unwrap_or_default();
            if let Some(error) = told.get("error") {
                body["error"] = error.clone();
            }
            body[if self.wanted == Wanted::Main { "main" } else { "thread" }] = told;
            body["threads"] = task::tasks().iter().map(listed).map(Value::Object).collect();
        }
        (self.ticket, Answer::json(200, &body))
    }
}

fn listed(task: &Task) -> Map<String, Value> {
    let pairs =
        [("tid", task.tid.into()), ("name", task.name.clone().into()), ("state", task.state.to_string().into())];
    pairs.into_iter().map(|(key, value)| (key.to_string(), value)).collect()
}

/// A thread of which nothing is known but what the system tells.
fn told(task: &Task, error: Option<&str>) -> Value {
    let mut fields = listed(task);
    fields.extend([("python".into(), json!([])), ("native".into(), json!([])), ("text".into(), json!(""))]);
    if let Some(error) = error {
        fields.insert("error".into(), error.into());
        fields.insert("wait_channel".into(), task::wait_channel(task.tid).into());
        fields.insert("system_call".into(), task::system_call(task.tid).into());
    }
    fields.into()
}

/// Why there is no whole answer.
fn why_silent(task: &Task, parts: &Parts<'_>) -> Option<String> {
    let name = signal::name(signal::signal());
    let state = task::task(task.tid).map_or('X', |task| task.state);
    Some(match (signal::state(), state) {
        // Whole but for text that the runtime has had no safe point to write at.
        _ if parts.is_whole(false) => "the runtime has come to no safe point to tell its own frames".into(),
        _ if parts.began => "the answer was cut short".into(),
        (State::Replaced, _) => format!("the program has another handler for {name}"),
        (_, 'D') => "the thread waits in the system where no signal reaches it".into(),
        (_, 'T' | 't') => "the thread is stopped".into(),
        (_, 'X' | 'Z') => "the thread has ended".into(),
        _ if task::blocks(task.tid, signal::signal()) => format!("the thread blocks {name}"),
        _ => format!("the thread has not answered within {ANSWER_MS} ms"),
    })
}

/// What a thread has written so far: `BEGIN`, text, `REGISTERS`, a copy of its stack, `END`, late text.
#[derive(Debug, Default, PartialEq, Eq)]
struct Parts<'a> {
    began: bool,
    text: &'a [u8],
    registers: Registers,
    stack: &'a [u8],
    ended: bool,
    /// Text after the end; whole if it was ended by a zero byte.
    late: &'a [u8],
    late_ended: bool,
}

impl<'a> Parts<'a> {
    fn of(bytes: &'a [u8], ask: u32) -> Self {
        let mut parts = Parts::default();
        let Some((_, rest, _)) = split(bytes, signal::BEGIN, ask) else { return parts };
        parts.began = true;
        let Some((text, rest, [pc, sp, fp, lr])) = split(rest, signal::REGISTERS, ask) else {
            parts.text = rest;
            return parts;
        };
        (parts.text, parts.registers) = (text, Registers { pc, sp, fp, lr });
        let Some((stack, rest, _)) = split(rest, signal::END, ask) else {
            parts.stack = rest;
            return parts;
        };
        (parts.stack, parts.ended) = (stack, true);
        let end = memchr::memchr(0, rest);
        (parts.late, parts.late_ended) = (&rest[..end.unwrap_or(rest.len())], end.is_some());
        parts
    }

    fn is_whole(&self, late: bool) -> bool {
        self.ended && (self.late_ended || !late)
    }

    fn fill(&self, fields: &mut Map<String, Value>, symbols: &mut Symbols) {
        let text = if self.late.is_empty() { self.text } else { self.late };
        let text = String::from_utf8_lossy(&text[..text.len().min(TEXT_BYTES_MAX)]);
        fields.insert("python".into(), text.lines().filter_map(python_frame).collect());
        fields.insert("text".into(), text.as_ref().into());
        fields.insert("native".into(), symbols.frames(self.registers, self.stack).into());
    }
}

/// What is before the record and after it, and what it says.
fn split(bytes: &[u8], kind: u64, ask: u32) -> Option<(&[u8], &[u8], [u64; 4])> {
    let head = [signal::MAGIC.to_ne_bytes(), kind.to_ne_bytes(), u64::from(ask).to_ne_bytes()].concat();
    let at = memmem::find(bytes, &head)?;
    let record = bytes.get(at..at + RECORD)?;
    let words = record.chunks_exact(8).map(|word| word.try_into().map_or(0, u64::from_ne_bytes));
    let words: Vec<u64> = words.skip(4).collect();
    Some((&bytes[..at], &bytes[at + RECORD..], words.try_into().ok()?))
}

/// `  File "/srv/app.py", line 12 in handle`, as CPython's faulthandler writes it.
fn python_frame(line: &str) -> Option<Value> {
    let rest = line.trim_start().strip_prefix("File ")?;
    let (file, rest) = rest.rsplit_once(", line ")?;
    let (number, function) = rest.split_once(" in ")?;
    let file = file.trim_matches('"');
    Some(json!({ "file": file, "line": number.parse::<u64>().ok(), "function": function }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u64, ask: u64, words: [u64; 4]) -> Vec<u8> {
        let [a, b, c, d] = words;
        [signal::MAGIC, kind, ask, 1, a, b, c, d].iter().flat_map(|word| word.to_ne_bytes()).collect()
    }

    /// All that a thread writes, after rests of an older ask.
    fn dump() -> Vec<u8> {
        let older = [record(signal::REGISTERS, 6, [9; 4]), record(signal::END, 6, [0; 4])];
        let own = [
            record(signal::BEGIN, 7, [0; 4]),
            b"text".to_vec(),
            record(signal::REGISTERS, 7, [1, 2, 3, 4]),
            b"stack".to_vec(),
            record(signal::END, 7, [5, 0, 0, 0]),
            b"late\0".to_vec(),
        ];
        older.concat().into_iter().chain(own.concat()).collect()
    }

    #[test]
    fn a_dump_comes_apart() {
        let bytes = dump();
        let parts = Parts::of(&bytes, 7);
        assert_eq!((parts.text, parts.stack, parts.late), (&b"text"[..], &b"stack"[..], &b"late"[..]));
        assert_eq!(parts.registers, Registers { pc: 1, sp: 2, fp: 3, lr: 4 });
        assert!(parts.is_whole(true) && parts.is_whole(false));
        let early = Parts::of(&bytes[..bytes.len() - 1], 7);
        assert!(early.is_whole(false) && !early.is_whole(true));
    }

    #[test]
    fn a_dump_may_be_cut_anywhere() {
        let bytes = dump();
        for end in 0..bytes.len() - 5 {
            let parts = Parts::of(&bytes[..end], 7);
            assert!(!parts.is_whole(false), "{end}");
        }
        assert!(!Parts::of(&bytes, 8).began);
    }

    #[test]
    fn lines_of_faulthandler_become_frames() {
        let frame = |line| python_frame(line);
        let expected = json!({ "file": "/srv/a, line 1 in x.py", "line": 12, "function": "<module>" });
        assert_eq!(frame("  File \"/srv/a, line 1 in x.py\", line 12 in <module>"), Some(expected));
        let unknown = json!({ "file": "???", "line": null, "function": "f in g" });
        assert_eq!(frame("  File ???, line ??? in f in g"), Some(unknown));
        assert_eq!(frame("Stack (most recent call first):"), None);
        assert_eq!(frame("  <no Python frame>"), None);
    }

    #[test]
    fn signals_that_others_need_are_refused() {
        let signal = |text: &str| {
            let mut options = Options::parse(&format!("stack_signal={text}")).unwrap();
            StackConfig::take(&mut options).map(|config| config.signal)
        };
        assert_eq!(signal("URG"), Ok(signal::DEFAULT_SIGNAL));
        assert_eq!(signal("sigurg"), Ok(signal::DEFAULT_SIGNAL));
        assert_eq!(signal("23"), Ok(23));
        assert_eq!(signal::name(signal("RTMIN%2B3").unwrap()), "SIGRTMIN+3");
        for refused in ["KILL", "STOP", "SEGV", "9", "11", "CHLD", "0", "-1", "65", "RTMIN%2B99", "RTMIN-1", "32", ""] {
            assert!(signal(refused).is_err(), "{refused}");
        }
        let text = signal("KILL").unwrap_err().to_string();
        assert!(text.starts_with("stack_signal: \"KILL\": expected one of URG"), "{text}");
    }
}
