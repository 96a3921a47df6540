//! The requests under way: `/requests`.

use serde_json::{Value, json};

use super::admin::{Answer, Ask, Outcome};
use crate::config::ConfigError;
use crate::kernel::io::Io;
use crate::kernel::request::{NO_CONN, OWN_CHANNEL, Request, What};
use crate::proto::RequestId;
use crate::ring::layout::IOK_FLAG_IDEMPOTENT;
use crate::value::{Reader, Token};

/// Requests that one answer may list.
const LIMIT_MAX: u64 = 10_000;
const LIMIT: u64 = 100;

impl Io {
    /// The oldest first. `limit` (100), `endpoint` (its number; 0: all), `arguments` (false).
    pub fn answer_requests(&mut self, ask: &mut Ask) -> Result<Outcome, ConfigError> {
        let limit = ask.query.number("limit", LIMIT, 1..=LIMIT_MAX)? as usize;
        let endpoint = ask.query.number("endpoint", 0, 0..=u64::from(u32::MAX))? as u32;
        let arguments = ask.query.flag("arguments", false)?;
        ask.query.finish()?;
        let is_shown = |request: &Request| {
            request.channel != OWN_CHANNEL && (endpoint == 0 || request.endpoint == endpoint) && request.endpoint != 0
        };
        let mut ids = self.core.requests.ids(is_shown);
        let count = ids.len();
        // Numbers grow with each request. The rest need not be sorted.
        let by_age = |id: &RequestId| id.0 >> crate::kernel::request::INDEX_BITS;
        if count > limit {
            ids.select_nth_unstable_by_key(limit, by_age);
            ids.truncate(limit);
        }
        ids.sort_unstable_by_key(by_age);
        let json = |id| {
            let request = self.core.requests.get(id)?;
            let mut one = self.request_json(id, request);
            if let Some(kept) = request.arguments.as_ref().filter(|_| arguments) {
                one["arguments"] = arguments_json(kept);
            }
            Some(one)
        };
        let requests: Vec<Value> = ids.into_iter().filter_map(json).collect();
        Ok(Outcome::Now(Answer::json(200, &json!({ "count": count, "requests": requests }))))
    }

    fn request_json(&self, id: RequestId, request: &Request) -> Value {
        let conn = self.conns.get(request.conn as usize).filter(|_| request.conn != NO_CONN);
        let url = self.endpoint(request.endpoint).map_or("", |of| of.shown.as_str());
        let age_ms = self.core.now_ns.saturating_sub(request.queued_ns) / 1_000_000;
        json!({
            "request": id.0 >> crate::kernel::request::INDEX_BITS,
            "endpoint": request.endpoint,
            "url": url,
            "peer": conn.map(|conn| conn.peer_name.as_str()),
            "command": request.command.text(),
            "bytes": request.bytes,
            "age_ms": age_ms,
            "phase": self.phase(request, conn.is_some()),
            "fate": self.fate_so_far(request),
            "lease": request.lease,
            "channel": self.core.channels.get(request.channel as usize).map(|channel| channel.id),
            "retries": request.retries + request.rejections,
            "idempotent": request.flags & IOK_FLAG_IDEMPOTENT != 0,
            "marker": self.marker_text(request.marker),
        })
    }

    fn phase(&self, request: &Request, has_conn: bool) -> &'static str {
        match request.what {
            What::Incoming { .. } => "with the program",
            What::Lease => "waits for a lease",
            What::UntilUp => "waits until up",
            What::Stream | What::Exchange if has_conn => "streaming",
            _ if !has_conn => "queued",
            _ if request.sent_ns == 0 => "writing",
            _ => "waits for the reply",
        }
    }

    /// What its fate would be if it ended without a reply.
    fn fate_so_far(&self, request: &Request) -> &'static str {
        let conn = self.conns.get(request.conn as usize).filter(|_| request.conn != NO_CONN);
        let touched = conn.is_some_and(|conn| conn.written > request.wire_start);
        if touched || request.doubtful { "maybe_executed" } else { "not_sent" }
    }
}

/// Arguments that are shown, and bytes of each.
const ARGUMENTS_MAX: usize = 20;
const ARGUMENT_BYTES: usize = 64;

/// The words of a request's beginning, as text.
fn arguments_json(kept: &[u8]) -> Value {
    let mut reader = Reader::new(kept);
    let mut words = Vec::new();
    while let Ok(token) = reader.token() {
        let word = match token {
            Token::Str(bytes) | Token::Bin(bytes) if bytes.len() > ARGUMENT_BYTES => {
                format!("{}...", String::from_utf8_lossy(&bytes[..ARGUMENT_BYTES]))
            }
            Token::Str(bytes) | Token::Bin(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Token::Array(_) => continue,
            Token::Int(number) => number.to_string(),
            Token::Uint(number) => number.to_string(),
            Token::Float(number) => number.to_string(),
            Token::Bool(value) => value.to_string(),
            other => format!("({})", other.kind()),
        };
        words.push(Value::from(word));
        if words.len() == ARGUMENTS_MAX || reader.is_at_end() {
            break;
        }
    }
    // The first word is the command.
    Value::from(words.split_off(1.min(words.len())))
}
