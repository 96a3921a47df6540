//! The slow-request log: the last requests that took longer than their endpoint's `slow=`, in memory.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::admin::{Answer, Ask, Outcome};
use crate::config::ConfigError;
use crate::kernel::core::{Core, Ending};
use crate::kernel::io::Io;
use crate::kernel::request::Request;
use crate::ring::layout::*;
use crate::status::row;

/// Requests that are remembered; the oldest goes when one more comes.
const KEPT: usize = 256;

/// One slow request. Times are nanoseconds.
struct Entry {
    url: Arc<str>,
    peer: Arc<str>,
    command: String,
    bytes: u32,
    status: &'static str,
    fate: u8,
    marker: Option<String>,
    queued_ns: u64,
    wire_ns: u64,
    total_ns: u64,
    /// Since 1970.
    ended_ns: u64,
}

pub struct Slow {
    entries: VecDeque<Entry>,
    /// All there ever were.
    count: u64,
    /// By the key of the endpoint; 0: its requests are not logged.
    thresholds: Vec<u64>,
    /// What a request must take at least to be looked at.
    pub least_ns: u64,
}

impl Default for Slow {
    fn default() -> Self {
        Slow { entries: VecDeque::new(), count: 0, thresholds: Vec::new(), least_ns: u64::MAX }
    }
}

impl Slow {
    /// Sets the threshold of an endpoint.
    pub fn set(&mut self, key: usize, threshold: Option<Duration>) {
        if self.thresholds.len() <= key {
            self.thresholds.resize(key + 1, 0);
        }
        self.thresholds[key] = threshold.map_or(0, |threshold| threshold.as_nanos() as u64);
        self.least_ns = self.thresholds.iter().copied().filter(|threshold| *threshold != 0).min().unwrap_or(u64::MAX);
    }

    fn threshold(&self, key: u32) -> Option<u64> {
        self.thresholds.get(key as usize).copied().filter(|threshold| *threshold != 0)
    }

    fn push(&mut self, entry: Entry) {
        if self.entries.len() == KEPT {
            self.entries.pop_front();
        }
        self.count += 1;
        self.entries.push_back(entry);
    }
}

/// The part of a request's time that it waited for its last byte to be given to the system, and the part from there on
/// to the first byte of its reply, or to its end where there was none.
pub fn phases(request: &Request, ending: &Ending, now_ns: u64) -> (u64, u64) {
    let sent = request.sent_ns;
    if sent == 0 {
        return (now_ns.saturating_sub(request.queued_ns), 0);
    }
    let until = if ending.first_byte_ns >= sent { ending.first_byte_ns } else { now_ns };
    (sent.saturating_sub(request.queued_ns), until.saturating_sub(sent))
}

impl Core {
    /// A request has ended that took longer than the least threshold.
    #[cold]
    pub fn log_slow(&mut self, request: &Request, ending: &Ending) {
        let total_ns = self.now_ns.saturating_sub(request.queued_ns);
        let threshold = self.slow.threshold(Io::endpoint_key(request.endpoint));
        if threshold.is_none_or(|threshold| total_ns < threshold) {
            return;
        }
        let Some(endpoint) = self.names.endpoint_of(request.endpoint) else { return };
        let (queued_ns, wire_ns) = phases(request, ending, self.now_ns);
        let entry = Entry {
            url: endpoint.url.clone(),
            peer: self.names.peer_of(ending.peer),
            command: request.command.text(),
            bytes: request.bytes,
            status: status_name(ending),
            fate: request.fate(ending),
            marker: self.marker_text(request.marker),
            queued_ns,
            wire_ns,
            total_ns,
            ended_ns: self.now_ns + self.unix.offset_ns(self.now_ns),
        };
        self.slow.push(entry);
    }
}

/// `TIMEOUT`.
pub fn status_name(ending: &Ending) -> &'static str {
    row(ending.status).map_or("", |row| row.name.trim_start_matches("IOK_STATUS_"))
}

/// `maybe_executed`.
pub fn fate_name(fate: u8) -> &'static str {
    match fate {
        IOK_FATE_REPLIED => "replied",
        IOK_FATE_MAYBE_EXECUTED => "maybe_executed",
        _ => "not_sent",
    }
}

fn shown(entry: &Entry) -> Value {
    let ms = |ns: u64| ns as f64 / 1e6;
    json!({
        "url": &*entry.url,
        "peer": &*entry.peer,
        "command": entry.command,
        "bytes": entry.bytes,
        "status": entry.status,
        "fate": fate_name(entry.fate),
        "marker": entry.marker,
        "queued_ms": ms(entry.queued_ns),
        "wire_ms": ms(entry.wire_ns),
        "total_ms": ms(entry.total_ns),
        "ended": entry.ended_ns as f64 / 1e9,
    })
}

impl Io {
    pub fn answer_slow(&mut self, ask: &mut Ask) -> Result<Outcome, ConfigError> {
        let limit = ask.query.number("limit", 100, 1..=1 << 20)? as usize;
        ask.query.finish()?;
        let slow = &self.core.slow;
        let entries: Vec<Value> = slow.entries.iter().rev().take(limit).map(shown).collect();
        Ok(Outcome::Now(Answer::json(200, &json!({ "count": slow.count, "slow": entries }))))
    }
}
