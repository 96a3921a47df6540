//! The kernel's answers as people read them. A field that is missing is left out: the kernel may be older or younger
//! than this program.

use std::collections::HashMap;

use serde_json::Value;

use super::find::Survey;
use super::table::{Column, lines, number, prose, word};
use super::words::{self, clean, count, items, span, span_us, text};

/// What a line is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    Plain,
    Title,
    Faint,
    Bad,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub tone: Tone,
    pub text: String,
}

pub fn line(tone: Tone, text: impl Into<String>) -> Line {
    Line { tone, text: text.into() }
}

/// Requests per second by endpoint, or by endpoint and peer.
pub type Rates = HashMap<(u64, Option<String>), f64>;

/// A table; rows for which `bad` is true stand out.
fn table(columns: &[Column], rows: &[Vec<String>], bad: &[bool], width: usize) -> Vec<Line> {
    let tone = |at: usize| match at.checked_sub(1) {
        None => Tone::Title,
        Some(row) if bad.get(row) == Some(&true) => Tone::Bad,
        Some(_) => Tone::Plain,
    };
    lines(columns, rows, width).into_iter().enumerate().map(|(at, text)| line(tone(at), text)).collect()
}

/// Who it is, whether it is ready, and what its program does.
pub fn kernel(state: &Value, width: usize) -> Vec<Line> {
    let kernel = &state["kernel"];
    let ready = kernel["ready"].as_bool();
    let parts = [
        text(&kernel["name"]),
        words::number(&kernel["pid"], |pid| format!("pid {pid}")),
        ready.map_or("", |ready| if ready { "ready" } else { "NOT READY" }).into(),
        words::number(&kernel["uptime_ms"], |ms| format!("up {}", span(ms))),
        text(&kernel["version"]),
        text(&kernel["admin"]),
    ];
    let tone = if ready == Some(false) { Tone::Bad } else { Tone::Title };
    let mut found = vec![line(tone, words::cut(&joined(&parts, "  "), width))];
    if !items(&kernel["missing"]).is_empty() {
        found.push(line(Tone::Bad, words::cut(&format!("missing: {}", text(&kernel["missing"])), width)));
    }
    found.extend(main_thread(&state["main"], width));
    found
}

fn joined(parts: &[String], by: &str) -> String {
    parts.iter().filter(|part| !part.is_empty()).map(String::as_str).collect::<Vec<_>>().join(by)
}

/// A program that is busy for longer shows as such.
const BUSY_MS: f64 = 1_000.0;

fn main_thread(main: &Value, width: usize) -> Option<Line> {
    let busy_ms = main["busy_ms"].as_f64()?;
    let markers: Vec<String> = items(&main["markers"]).iter().map(text).collect();
    let parts = [
        format!("main thread: busy {}", span(busy_ms)),
        words::number(&main["tid"], |tid| format!("tid {tid}")),
        main["state"].as_str().map(|state| scheduled(state).to_owned()).unwrap_or_default(),
        markers.join(" > "),
    ];
    let tone = if busy_ms >= BUSY_MS { Tone::Bad } else { Tone::Plain };
    Some(line(tone, words::cut(&joined(&parts, "  "), width)))
}

/// The letter of /proc/PID/stat as a word.
fn scheduled(state: &str) -> &str {
    match state {
        "R" => "running",
        "S" => "sleeping",
        "D" => "in the system, uninterruptible",
        "T" | "t" => "stopped",
        "Z" => "ended",
        other => other,
    }
}

const ENDPOINTS: &[Column] = &[
    number("NUMBER", 7),
    prose("ENDPOINT", 0, 28),
    word("STATE", 0),
    number("REQ/S", 1),
    number("INFLIGHT", 1),
    number("QUEUED", 2),
    number("CONNS", 3),
    number("LEASES", 6),
    number("TOPICS", 6),
    prose("ABOUT", 5, 10),
];

/// The endpoints; without rates, their column is left out.
pub fn endpoints(state: &Value, rates: &Rates, width: usize) -> Vec<Line> {
    let of = items(&state["endpoints"]);
    let row = |one: &Value| {
        let rate = one["endpoint"].as_u64().and_then(|at| rates.get(&(at, None)));
        let error = text(&one["last_error"]);
        vec![
            text(&one["endpoint"]),
            text(&one["url"]),
            text(&one["state"]),
            rate.map(|rate| count(*rate)).unwrap_or_default(),
            words::number(&one["inflight"], count),
            words::number(&one["queued"], count),
            words::number(&one["conns"], count),
            words::number(&one["leases"], above_zero),
            words::number(&one["topics"], above_zero),
            if is_bad(one) && !error.is_empty() { error } else { text(&one["description"]) },
        ]
    };
    let rows: Vec<_> = of.iter().map(row).collect();
    table(ENDPOINTS, &rows, &of.iter().map(is_bad).collect::<Vec<_>>(), width)
}

fn above_zero(number: f64) -> String {
    if number > 0.0 { count(number) } else { String::new() }
}

/// Idle, draining and connecting peers are as they should be.
fn is_bad(one: &Value) -> bool {
    matches!(one["state"].as_str(), Some("down" | "ejected" | "superseded" | "failed"))
}

const PEERS: &[Column] = &[
    prose("PEER", 0, 15),
    word("STATE", 0),
    prose("ENDPOINT", 2, 20),
    word("ROLE", 5),
    number("REQ/S", 1),
    number("INFLIGHT", 3),
    number("LATENCY", 1),
    number("REQUESTS", 4),
    number("FAILURES", 3),
    number("CONNS", 6),
    prose("LAST ERROR", 7, 12),
];

/// The peers of all endpoints.
pub fn peers(state: &Value, rates: &Rates, width: usize) -> Vec<Line> {
    let of = items(&state["endpoints"]).iter();
    let all: Vec<_> = of.flat_map(|one| items(&one["peers"]).iter().map(move |peer| (one, peer))).collect();
    let row = |(one, peer): &(&Value, &Value)| {
        let name = text(&peer["name"]);
        let key = one["endpoint"].as_u64().map(|at| (at, Some(name.clone())));
        vec![
            name,
            text(&peer["state"]),
            text(&one["url"]),
            text(&peer["role"]),
            key.and_then(|key| rates.get(&key)).map(|rate| count(*rate)).unwrap_or_default(),
            words::number(&peer["inflight"], count),
            words::number(&peer["latency_us"], |us| if us > 0.0 { span_us(us) } else { String::new() }),
            words::number(&peer["requests"], count),
            words::number(&peer["failures"], count),
            words::number(&peer["conns"], count),
            text(&peer["last_error"]),
        ]
    };
    let rows: Vec<_> = all.iter().map(row).collect();
    table(PEERS, &rows, &all.iter().map(|(_, peer)| is_bad(peer)).collect::<Vec<_>>(), width)
}

const CHANNELS: &[Column] = &[number("CHANNEL", 0), number("LIVE", 0), number("BACKLOG", 0)];

/// The whole of `/state`.
pub fn state(state: &Value, width: usize) -> Vec<Line> {
    let mut found = kernel(state, width);
    let none = Rates::new();
    let parts = [
        ("endpoints", endpoints(state, &none, width)),
        ("peers", peers(state, &none, width)),
        ("channels", channels(state, width)),
    ];
    for (_, part) in parts.into_iter().filter(|(_, part)| part.len() > 1) {
        found.push(line(Tone::Plain, ""));
        found.extend(part);
    }
    found
}

fn channels(state: &Value, width: usize) -> Vec<Line> {
    let row = |one: &Value| vec![text(&one["channel"]), text(&one["live"]), text(&one["backlog"])];
    table(CHANNELS, &items(&state["channels"]).iter().map(row).collect::<Vec<_>>(), &[], width)
}

const REQUESTS: &[Column] = &[
    number("AGE", 0),
    word("PHASE", 1),
    prose("COMMAND", 0, 8),
    number("BYTES", 4),
    prose("ENDPOINT", 2, 16),
    prose("PEER", 3, 15),
    word("FATE", 6),
    number("LEASE", 8),
    number("CHANNEL", 9),
    number("RETRIES", 7),
    prose("MARKER", 5, 8),
    prose("ARGUMENTS", 3, 12),
];

/// Requests in flight, as many as the answer has.
pub fn requests(answer: &Value, width: usize) -> Vec<Line> {
    let of = items(&answer["requests"]);
    let row = |one: &Value| {
        vec![
            words::number(&one["age_ms"], span),
            text(&one["phase"]),
            text(&one["command"]),
            words::number(&one["bytes"], words::bytes),
            text(&one["url"]),
            text(&one["peer"]),
            text(&one["fate"]),
            words::number(&one["lease"], above_zero),
            text(&one["channel"]),
            words::number(&one["retries"], above_zero),
            text(&one["marker"]),
            text(&one["arguments"]),
        ]
    };
    let rows: Vec<_> = of.iter().map(row).collect();
    let mut found = vec![line(Tone::Plain, format!("{} in flight", total(answer, of)))];
    if !rows.is_empty() {
        found.extend(table(REQUESTS, &rows, &[], width));
        found.extend(left_out(answer, of));
    }
    found
}

fn total(answer: &Value, shown: &[Value]) -> u64 {
    answer["count"].as_u64().unwrap_or(shown.len() as u64)
}

fn left_out(answer: &Value, shown: &[Value]) -> Option<Line> {
    let more = total(answer, shown).saturating_sub(shown.len() as u64);
    (more > 0).then(|| line(Tone::Faint, format!("… and {more} more")))
}

const SLOW: &[Column] = &[
    number("AGO", 0),
    number("TOTAL", 0),
    number("QUEUED", 2),
    number("WIRE", 2),
    prose("COMMAND", 0, 8),
    number("BYTES", 5),
    word("STATUS", 1),
    word("FATE", 6),
    prose("ENDPOINT", 3, 12),
    prose("PEER", 4, 12),
    prose("MARKER", 5, 8),
];

/// The slow-request log; `now_s` is the wall clock.
pub fn slow(answer: &Value, now_s: f64, width: usize) -> Vec<Line> {
    let of = items(&answer["slow"]);
    let row = |one: &Value| {
        vec![
            words::number(&one["ended"], |ended| span((now_s - ended).max(0.0) * 1e3)),
            words::number(&one["total_ms"], span),
            words::number(&one["queued_ms"], span),
            words::number(&one["wire_ms"], span),
            text(&one["command"]),
            words::number(&one["bytes"], words::bytes),
            text(&one["status"]),
            text(&one["fate"]),
            text(&one["url"]),
            text(&one["peer"]),
            text(&one["marker"]),
        ]
    };
    let rows: Vec<_> = of.iter().map(row).collect();
    let mut found = vec![line(Tone::Plain, format!("{} slow", total(answer, of)))];
    if !rows.is_empty() {
        found.extend(table(SLOW, &rows, &[], width));
        found.extend(left_out(answer, of));
    }
    found
}

/// The main thread's stack, the innermost frame first, and the other threads: each with its stack, or a line each.
pub fn stack(answer: &Value, width: usize) -> Vec<Line> {
    let main = &answer["main"];
    let parts = [
        format!("main thread {}", text(&main["tid"])),
        text(&main["name"]),
        main["state"].as_str().map(|state| scheduled(state).to_owned()).unwrap_or_default(),
        words::number(&answer["took_ms"], |ms| format!("taken in {}", span(ms))),
    ];
    let mut found = vec![line(Tone::Title, joined(&parts, "  "))];
    if let Some(error) = main["error"].as_str().or(answer["error"].as_str()) {
        found.push(line(Tone::Bad, clean(error)));
    }
    found.extend(frames(main));
    found.extend(threads(answer, &main["tid"]));
    found.into_iter().map(|one| line(one.tone, words::cut(&one.text, width))).collect()
}

/// Python's frames and then the system's; the text as it came where neither could be read.
fn frames(thread: &Value) -> Vec<Line> {
    let (python, native) = (items(&thread["python"]), items(&thread["native"]));
    let mut found: Vec<Line> = python.iter().map(|frame| line(Tone::Plain, python_frame(frame))).collect();
    if !native.is_empty() {
        found.push(line(Tone::Faint, "  native:"));
        found.extend(native.iter().map(|frame| line(Tone::Plain, format!("  {}", text(frame)))));
    }
    if found.is_empty() {
        let raw = thread["text"].as_str().unwrap_or_default();
        found.extend(raw.lines().map(|row| line(Tone::Plain, format!("  {}", clean(row)))));
    }
    let waits = [("waits in", &thread["wait_channel"]), ("system call", &thread["system_call"])];
    let told = waits.into_iter().filter(|(_, what)| !text(what).is_empty());
    found.extend(told.map(|(word, what)| line(Tone::Faint, format!("  {word} {}", text(what)))));
    found
}

fn python_frame(frame: &Value) -> String {
    format!("  {}  {}:{}", text(&frame["function"]), text(&frame["file"]), text(&frame["line"]))
}

fn threads(answer: &Value, main_tid: &Value) -> Vec<Line> {
    let others: Vec<&Value> = items(&answer["threads"]).iter().filter(|one| one["tid"] != *main_tid).collect();
    if others.is_empty() {
        return Vec::new();
    }
    let mut found = vec![line(Tone::Plain, ""), line(Tone::Title, "other threads")];
    for one in others {
        let state = one["state"].as_str().map(scheduled).unwrap_or_default();
        let error = one["error"].as_str().map(clean).unwrap_or_default();
        let row = format!("{:<8} {:<16} {:<10} {error}", text(&one["tid"]), text(&one["name"]), clean(state));
        found.push(line(Tone::Plain, row.trim_end()));
        found.extend(frames(one));
    }
    found
}

const KERNELS: &[Column] = &[
    number("PID", 0),
    prose("NAME", 0, 8),
    word("READY", 2),
    number("UP", 3),
    number("BUSY", 2),
    number("ENDPOINTS", 4),
    prose("ADMIN", 0, 24),
];

/// What was found on this machine.
pub fn kernels(survey: &Survey, width: usize) -> Vec<Line> {
    let row = |one: &super::find::Kernel| {
        let kernel = &one.state["kernel"];
        vec![
            one.pid.to_string(),
            clean(&one.name),
            kernel["ready"].as_bool().map_or("", |ready| if ready { "yes" } else { "no" }).into(),
            words::number(&kernel["uptime_ms"], span),
            words::number(&one.state["main"]["busy_ms"], span),
            items(&one.state["endpoints"]).len().to_string(),
            clean(&one.address.to_string()),
        ]
    };
    let bad = |one: &super::find::Kernel| one.state["kernel"]["ready"].as_bool() == Some(false);
    let rows: Vec<_> = survey.kernels.iter().map(row).collect();
    table(KERNELS, &rows, &survey.kernels.iter().map(bad).collect::<Vec<_>>(), width)
}

/// The answers of `/healthz` and `/readyz`.
pub fn health(works: &super::http::Answer, ready: &super::http::Answer) -> Vec<Line> {
    let row = |what: &str, answer: &super::http::Answer| {
        let body = super::body_of(answer);
        let fine = answer.status == 200;
        let busy = words::number(&body["main_busy_ms"], |ms| format!("main thread busy {}", span(ms)));
        let missing = items(&body["missing"]);
        let missing = if missing.is_empty() { String::new() } else { format!("missing {}", text(&body["missing"])) };
        let word = match (body["status"].as_str(), body["ready"].as_bool(), &body) {
            (Some(status), ..) => clean(status),
            (_, Some(ready), _) => if ready { "ready" } else { "not ready" }.into(),
            (.., Value::String(said)) => clean(said),
            _ => if fine { "ok" } else { "not ok" }.into(),
        };
        let tone = if fine { Tone::Plain } else { Tone::Bad };
        line(tone, joined(&[format!("{what:<7} {word}"), busy, missing], "  "))
    };
    vec![row("health", works), row("ready", ready)]
}
