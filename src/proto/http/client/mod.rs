//! The client's side of one conn.
//!
//! [`request`] reads what the program asks for and writes it, [`reply`] tells what comes back, [`lane`] is a conn after an
//! upgrade. One request is under way at a time, or several with `pipeline=true`; their replies come in their order.
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::value::{Piece, bad_request, piece, trailers};
use super::wire::{self, Bounds, Scan};
use crate::proto::websocket::handshake;
use crate::proto::{
    Admit, Command, Event, Fact, Fault, FaultKind, Limits, Out, Progress, Protocol, Refusal, RequestId, Span, Tenancy,
    Then, Transport,
};
use reply::Reading;
use request::{Asked, Given};

mod lane;
mod reply;
pub mod request;
#[cfg(test)]
mod tests;

/// The longest head of a reply, and its most fields.
const HEAD_BYTES_MAX: usize = 64 << 10;
const HEADERS_MAX: usize = 256;
/// How long a body waits for leave to come (RFC 9110, 10.1.1).
const EXPECT_WAIT: Duration = Duration::from_secs(1);
/// A body that waits is sent without leave once it is as long as this.
const HELD_BYTES_MAX: usize = 1 << 20;

/// What the URL of a service chose. Holds a secret, hence no `Debug`.
pub struct Settings {
    /// As in the field Host.
    pub host: Vec<u8>,
    /// Goes before the path of each target: "/v1", or nothing.
    pub base: Vec<u8>,
    /// The value of Authorization.
    pub authorization: Option<Vec<u8>>,
    pub pipeline: bool,
    /// Of the keys and masks of WebSockets; each conn takes the next.
    pub seed: AtomicU64,
}

/// One conn to a server.
pub struct Client {
    settings: Arc<Settings>,
    limits: Limits,
    bounds: Bounds,
    fault: Option<Fault>,
    closing: bool,
    is_open: bool,
    /// It must not carry another request.
    draining: bool,
    spoiled: bool,
    /// It has carried a whole reply.
    served: bool,
    exchanges: VecDeque<Exchange>,
    scan: Scan,
    reading: Reading,
}

/// A request whose reply is not complete.
struct Exchange {
    id: RequestId,
    /// HEAD and CONNECT, whose responses are others; else nothing.
    method: &'static [u8],
    streams: bool,
    is_deaf: bool,
    decode: bool,
    /// It may share the conn with others, and be repeated.
    pipelined: bool,
    sending: Sending,
    held: Option<Held>,
    upgrade: Option<Upgrade>,
    /// Interim responses that came.
    interims: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sending {
    Done,
    Chunked,
    Exact { left: u64 },
}

/// A body that waits for 100 (Continue).
#[derive(Debug)]
struct Held {
    wire: Vec<u8>,
    files: Vec<(usize, Span)>,
    until: Instant,
}

/// What a 101 has to agree with.
enum Upgrade {
    Other(Vec<u8>),
    WebSocket { handshake: handshake::Request, seed: u64 },
}

impl Client {
    pub fn new(settings: Arc<Settings>, limits: Limits) -> Self {
        let head_bytes_max = HEAD_BYTES_MAX.min(limits.message_bytes_max);
        Client {
            settings,
            limits,
            bounds: Bounds { head_bytes_max, headers_max: HEADERS_MAX },
            fault: None,
            closing: false,
            is_open: false,
            draining: false,
            spoiled: false,
            served: false,
            exchanges: VecDeque::new(),
            scan: Scan::default(),
            reading: Reading::Head,
        }
    }

    fn check(&self) -> Result<(), Fault> {
        self.fault.clone().map_or(Ok(()), Err)
    }

    fn fail(&mut self, fault: Fault) -> Fault {
        self.fault = Some(fault.clone());
        fault
    }

    fn is_free(&self) -> bool {
        self.is_open
            && self.fault.is_none()
            && !(self.closing || self.draining || self.spoiled)
            && self.exchanges.len() < self.limits.inflight_max
            && !matches!(self.reading, Reading::Lane(_) | Reading::Over)
    }

    fn request(
        &mut self,
        now: Instant,
        id: RequestId,
        body: &[u8],
        streams: bool,
        out: &mut Out<'_>,
    ) -> Result<Then, Refusal> {
        let asked = Asked::read(body)?;
        let alone = self.exchanges.is_empty();
        if !self.is_free() || !(alone || self.settings.pipeline && asked.may_be_pipelined()) {
            return Err(closed("the conn is not ready for requests"));
        }
        if asked.may_become_lane() && !streams {
            return Err(bad_request("an upgrade and CONNECT are streams, not requests"));
        }
        let upgrade = self.upgrade(&asked)?;
        let lines = match &upgrade {
            Some(Upgrade::WebSocket { handshake, .. }) => handshake.lines(),
            _ => Vec::new(),
        };
        asked.write(&self.settings, &lines, out.wire);
        let sending = match (asked.body, asked.length) {
            (Given::Pieces, Some(left)) => Sending::Exact { left },
            (Given::Pieces, None) => Sending::Chunked,
            _ => Sending::Done,
        };
        let mut held =
            asked.waits_to_send().then(|| Held { wire: Vec::new(), files: Vec::new(), until: now + EXPECT_WAIT });
        if let Given::Whole(body) = asked.body {
            held.as_mut().map_or(&mut *out.wire, |held| &mut held.wire).extend_from_slice(body);
        }
        let open = sending != Sending::Done || asked.may_become_lane();
        // The server may close as soon as it has replied.
        self.draining |= asked.closes;
        self.exchanges.push_back(Exchange {
            id,
            method: [&b"HEAD"[..], b"CONNECT"].into_iter().find(|it| *it == asked.method).unwrap_or(b""),
            streams,
            is_deaf: false,
            decode: asked.decode,
            pipelined: asked.may_be_pipelined(),
            sending,
            held,
            upgrade,
            interims: 0,
        });
        Ok(if open { Then::Open } else { Then::Done })
    }

    fn upgrade(&self, asked: &Asked<'_>) -> Result<Option<Upgrade>, Refusal> {
        let Some(protocol) = asked.upgrade else { return Ok(None) };
        if !asked.is_websocket() {
            return Ok(Some(Upgrade::Other(protocol.to_vec())));
        }
        // SplitMix64's increment: each conn has another seed.
        let seed = self.settings.seed.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        let protocols = asked.protocols.iter().map(|name| name.to_vec()).collect();
        let mut handshake = handshake::Request::new(seed, protocols, asked.compress).map_err(bad_request)?;
        if let Some(key) = asked.header(b"sec-websocket-key") {
            handshake.key = String::from_utf8_lossy(key).into_owned();
        }
        Ok(Some(Upgrade::WebSocket { handshake, seed }))
    }

    fn send(&mut self, now: Instant, id: RequestId, body: &[u8], out: &mut Out<'_>) -> Result<Then, Refusal> {
        if let Reading::Lane(lane) = &mut self.reading {
            if lane.id != id {
                return Err(closed("the request is over"));
            }
            return lane.send(now, body, out);
        }
        let Some(exchange) = self.exchanges.iter_mut().find(|exchange| exchange.id == id && !exchange.is_deaf) else {
            return Err(closed("the request is over"));
        };
        if exchange.upgrade.is_some() || exchange.method == b"CONNECT" {
            return Err(bad_request("the server has not agreed to the upgrade yet"));
        }
        exchange.send(body, out)
    }
}

impl Sending {
    /// Every byte of the body was given, whether or not the program has said so.
    fn is_whole(self) -> bool {
        matches!(self, Sending::Done | Sending::Exact { left: 0 })
    }
}

impl Exchange {
    fn send(&mut self, body: &[u8], out: &mut Out<'_>) -> Result<Then, Refusal> {
        let piece = piece(body)?;
        let was_held = self.held.is_some();
        let (wire, files) = match &mut self.held {
            Some(held) => (&mut held.wire, &mut held.files),
            None => (&mut *out.wire, &mut *out.files),
        };
        match (piece, self.sending) {
            (_, Sending::Done) => return Err(closed("the request has its whole body")),
            (Piece::Ping(_), _) => return Err(bad_request("only a WebSocket has pings")),
            (Piece::Bytes(bytes) | Piece::Text(bytes), Sending::Chunked) => wire::chunk(wire, bytes),
            (Piece::Bytes(bytes) | Piece::Text(bytes), Sending::Exact { left }) => {
                let left = left.checked_sub(bytes.len() as u64).ok_or_else(too_long)?;
                wire.extend_from_slice(bytes);
                self.sending = Sending::Exact { left };
            }
            (Piece::Span(span), sending) => {
                if let Sending::Exact { left } = sending {
                    self.sending = Sending::Exact { left: left.checked_sub(span.length).ok_or_else(too_long)? };
                }
                let chunked = sending == Sending::Chunked;
                if span.length > 0 {
                    if chunked {
                        wire::chunk_head(wire, span.length);
                    }
                    files.push((wire.len(), span));
                    if chunked {
                        wire.extend_from_slice(b"\r\n");
                    }
                }
            }
            (Piece::End, Sending::Chunked) => {
                wire::last_chunk(wire, std::iter::empty());
                self.sending = Sending::Done;
            }
            (Piece::Array(mut reader), Sending::Chunked) => {
                wire::last_chunk(wire, trailers(&mut reader)?.into_iter());
                self.sending = Sending::Done;
            }
            (Piece::End, Sending::Exact { left: 0 }) => self.sending = Sending::Done,
            (Piece::End, Sending::Exact { left }) => {
                return Err(bad_request(format!("{left} bytes are missing of the Content-Length")));
            }
            (Piece::Array(_), Sending::Exact { .. }) => {
                return Err(bad_request("a body with a Content-Length has no trailers"));
            }
        }
        if was_held && wire.len() > HELD_BYTES_MAX {
            self.release(out);
        }
        Ok(if self.sending == Sending::Done { Then::Done } else { Then::Open })
    }

    /// The body may go.
    fn release(&mut self, out: &mut Out<'_>) {
        if let Some(held) = self.held.take() {
            let start = out.wire.len();
            out.wire.extend_from_slice(&held.wire);
            out.files.extend(held.files.into_iter().map(|(at, span)| (start + at, span)));
        }
    }
}

impl Protocol for Client {
    fn handle_open(&mut self, _now: Instant, _: &Transport, out: &mut Out<'_>) -> Result<(), Fault> {
        self.check()?;
        self.is_open = true;
        out.events.emit(Event::Fact(Fact::Ready { topics_beside_requests: false, description: "HTTP/1.1" }));
        Ok(())
    }

    fn handle_input(&mut self, now: Instant, input: &[u8], out: &mut Out<'_>) -> Result<Progress, Fault> {
        self.check()?;
        self.read(now, input, out).map_err(|fault| self.fail(fault))
    }

    fn handle_eof(&mut self, _now: Instant, out: &mut Out<'_>) -> Result<(), Fault> {
        self.check()?;
        self.read_eof(out).map_err(|fault| self.fail(fault))
    }

    fn handle_timeout(&mut self, now: Instant, out: &mut Out<'_>) -> Result<(), Fault> {
        self.check()?;
        if let Reading::Lane(lane) = &mut self.reading {
            return lane.beat(now, &self.limits, out).map_err(|fault| self.fail(fault));
        }
        for exchange in &mut self.exchanges {
            if exchange.held.as_ref().is_some_and(|held| held.until <= now) {
                exchange.release(out);
            }
        }
        Ok(())
    }

    fn poll_timeout(&self) -> Option<Instant> {
        if self.fault.is_some() {
            return None;
        }
        if let Reading::Lane(lane) = &self.reading {
            return lane.deadline(&self.limits);
        }
        self.exchanges.iter().filter_map(|exchange| exchange.held.as_ref()).map(|held| held.until).min()
    }

    fn admit(&self, body: &[u8]) -> Admit {
        let free = self.is_free()
            && (self.exchanges.is_empty()
                || (self.settings.pipeline
                    && self.exchanges.iter().all(|exchange| exchange.pipelined)
                    && Asked::read(body).is_ok_and(|asked| asked.may_be_pipelined())));
        if free { Admit::Now } else { Admit::Later }
    }

    fn command(&mut self, now: Instant, command: Command<'_>, out: &mut Out<'_>) -> Result<Then, Refusal> {
        if let Command::Cancel { id } = command {
            if let Some(exchange) = self.exchanges.iter_mut().find(|exchange| exchange.id == id) {
                exchange.is_deaf = true;
                self.spoiled = true;
            }
            return Ok(Then::Done);
        }
        if self.fault.is_some() || self.closing {
            return Err(closed("the conn is closed"));
        }
        match command {
            Command::Request { id, body, streams, .. } => self.request(now, id, body, streams, out),
            Command::Send { id, body } => self.send(now, id, body, out),
            Command::Probe | Command::AsideOver | Command::Cancel { .. } => Ok(Then::Done),
            Command::Subscribe { .. } | Command::Unsubscribe { .. } => Err(bad_request("HTTP has no topics")),
            Command::Reply { .. } | Command::SendTo { .. } => Err(bad_request("a service has no requests to reply to")),
        }
    }

    fn has_sent_all(&self) -> bool {
        matches!(&self.reading, Reading::Lane(lane) if lane.has_sent_all())
    }

    fn handle_sent_all(&mut self, out: &mut Out<'_>) {
        if let Reading::Lane(lane) = &mut self.reading {
            lane.handle_sent_all();
            self.end_lane(out);
        }
    }

    fn inflight(&self) -> usize {
        self.exchanges.len()
    }

    fn tenancy(&self) -> Tenancy {
        let lane = matches!(self.reading, Reading::Lane(_) | Reading::Over);
        if self.spoiled || lane { Tenancy::Spoiled } else { Tenancy::Clean }
    }

    fn reset(&mut self, _now: Instant, _: &mut Out<'_>) -> Result<(), Fault> {
        self.check()
    }

    fn close(&mut self, now: Instant, out: &mut Out<'_>) {
        if let (Reading::Lane(lane), None, false) = (&mut self.reading, &self.fault, self.closing) {
            lane.leave(now, out);
        }
        self.closing = true;
    }

    fn abandon(&mut self, each: &mut dyn FnMut(RequestId)) {
        for exchange in self.exchanges.drain(..).filter(|exchange| !exchange.is_deaf) {
            each(exchange.id);
        }
    }
}

fn closed(message: &str) -> Refusal {
    Refusal { code: "CLOSED", message: message.into() }
}

fn too_long() -> Refusal {
    bad_request("more bytes than the Content-Length says")
}

fn fault(kind: FaultKind, message: impl Into<String>) -> Fault {
    Fault { kind, message: message.into() }
}
