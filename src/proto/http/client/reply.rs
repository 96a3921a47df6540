//! What comes back: heads, bodies, and what becomes of the conn.
use std::time::Instant;

use super::lane::Lane;
use super::request::agrees;
use super::{Client, Sending, Upgrade, fault};
use crate::proto::http::coding::Decoder;
use crate::proto::http::value::write_headers;
use crate::proto::http::wire::{
    self, Chunked, Framing, Length, Malformed, PIECE_BYTES_MAX, Pairs, Part, Response, Room, Scan,
};
use crate::proto::websocket::{Config, Role};
use crate::proto::{Body, Event, Fact, Fault, FaultKind, Of, Out, Progress};
use crate::value::write;

/// What every response begins with.
const VERSION: &[u8] = b"HTTP/1.";
/// Interim responses that one request may get.
const INTERIMS_MAX: u32 = 32;

/// Where in the replies we are.
pub enum Reading {
    Head,
    Body(Box<Incoming>),
    Lane(Box<Lane>),
    /// A lane is over: what still comes is not looked at.
    Over,
}

/// A reply whose body is under way.
pub struct Incoming {
    framed: Framed,
    decoder: Option<Decoder>,
    persists: bool,
    /// None: it is streamed.
    whole: Option<Whole>,
}

enum Framed {
    Exact { left: u64 },
    Chunked(Chunked),
    UntilClose,
}

/// A reply in the making: `[status, headers, body, reason, version, trailers]`, as far as the body.
struct Whole {
    payload: Vec<u8>,
    body: write::Open,
    body_bytes: usize,
    reason: Vec<u8>,
    version: u8,
}

impl Client {
    pub(super) fn read(&mut self, now: Instant, input: &[u8], out: &mut Out<'_>) -> Result<Progress, Fault> {
        if input.is_empty() {
            return Ok(Progress::Need(1));
        }
        match &mut self.reading {
            Reading::Head => self.head(now, input, out),
            Reading::Body(_) => self.body(input, out),
            Reading::Lane(lane) => {
                let deaf = self.exchanges.front().is_none_or(|exchange| exchange.is_deaf);
                let progress = lane.input(now, input, deaf, out)?;
                self.end_lane(out);
                Ok(progress)
            }
            Reading::Over => Ok(Progress::Consumed(input.len())),
        }
    }

    fn head(&mut self, now: Instant, input: &[u8], out: &mut Out<'_>) -> Result<Progress, Fault> {
        let Some(exchange) = self.exchanges.front_mut() else {
            // 408, mostly; or bytes that somebody smuggled.
            return Err(fault(FaultKind::Closed, "the server sent bytes though nothing was asked"));
        };
        if input.iter().zip(VERSION).any(|(byte, expected)| byte != expected) {
            return Err(fault(FaultKind::Protocol, "the server sent no response of HTTP/1.1"));
        }
        let had_line = self.scan.first_line(input).is_some();
        let found = self.scan.find(input, self.bounds);
        let need = Ok(Progress::Need(input.len() + 1));
        let Some(first) = self.scan.first_line(input) else { return found.map_err(wrong).and(need) };
        if had_line && found == Ok(None) {
            return need;
        }
        // Judged as soon as it is there, and before what is wrong behind it, wherever the input was cut.
        let line = wire::status_line(first).map_err(wrong)?;
        let Some(end) = found.map_err(wrong)? else { return need };
        self.scan = Scan::default();
        let mut room = Room::new();
        let headers = wire::fields(&input[first.len()..end], &mut room).map_err(wrong)?;
        let head = Response { headers, ..line };
        match head.status {
            101 => self.switch(now, &head, out)?,
            100..=199 => {
                exchange.interims += 1;
                if exchange.interims > INTERIMS_MAX {
                    return Err(fault(FaultKind::Protocol, "the server sends interim responses without end"));
                }
                if head.status == 100 {
                    exchange.release(out);
                }
            }
            _ => self.begin(now, &head, out)?,
        }
        Ok(Progress::Consumed(end))
    }

    /// 101: the conn is another protocol's.
    fn switch(&mut self, now: Instant, head: &Response<'_>, out: &mut Out<'_>) -> Result<(), Fault> {
        let Some(exchange) = self.exchanges.front_mut() else { return Ok(()) };
        let lane = match &exchange.upgrade {
            None => return Err(fault(FaultKind::Protocol, "the server switches protocols though nobody asked (101)")),
            Some(Upgrade::Other(asked)) => {
                if !head.headers.all("upgrade").any(|value| agrees(value, asked)) {
                    return Err(fault(FaultKind::Protocol, "the server switches to a protocol that was not asked for"));
                }
                Lane::raw(exchange.id)
            }
            Some(Upgrade::WebSocket { handshake, seed }) => {
                let agreed = handshake.check(head.headers.iter());
                let agreed = agreed.map_err(|why| fault(FaultKind::Protocol, format!("not a WebSocket: {why}")))?;
                let config = Config {
                    role: Role::Client,
                    message_bytes_max: self.limits.message_bytes_max,
                    deflate: agreed.deflate,
                    mask_seed: *seed,
                };
                Lane::websocket(exchange.id, now, config)
            }
        };
        self.accept(head, false, out);
        self.reading = Reading::Lane(Box::new(lane));
        Ok(())
    }

    fn accept(&self, head: &Response<'_>, decodes: bool, out: &mut Out<'_>) {
        let Some(exchange) = self.exchanges.front().filter(|exchange| !exchange.is_deaf) else { return };
        let mut payload = Vec::new();
        write::array(&mut payload, 5);
        write::uint(&mut payload, u64::from(head.status));
        write_headers(&mut payload, told(head, decodes));
        write::nil(&mut payload);
        write::str(&mut payload, &reason(head));
        write::uint(&mut payload, u64::from(head.version));
        out.events.emit(Event::Accepted { id: exchange.id, body: Body::Msgpack(&payload) });
    }

    /// A final response begins.
    fn begin(&mut self, now: Instant, head: &Response<'_>, out: &mut Out<'_>) -> Result<(), Fault> {
        let _ = now;
        let Some(exchange) = self.exchanges.front_mut() else { return Ok(()) };
        let framing = Framing::of(head.headers);
        let length = framing.response_length(head.version, head.status, exchange.method).map_err(wrong)?;
        if exchange.held.take().is_some() {
            // The body was promised and is not wanted: the server cannot tell it from the next request.
            exchange.sending = Sending::Chunked;
        }
        if exchange.method == b"CONNECT" && matches!(head.status, 200..=299) {
            let lane = Lane::raw(exchange.id);
            self.accept(head, false, out);
            self.reading = Reading::Lane(Box::new(lane));
            return Ok(());
        }
        // The conn was idle for too long, and our request crossed that (RFC 9110, 15.5.9): the server knows nothing of it.
        if head.status == 408 && self.served && exchange.pipelined && framing.connection.close {
            return Err(fault(FaultKind::Closed, "the server closed the conn before it had the request (408)"));
        }
        let persists = framing.connection.persists(head.version) && length != Length::UntilClose;
        let has_body = !matches!(length, Length::None | Length::Exact(0));
        // A part of a body (206) is a part of its coding, which nobody can take off.
        let decoder = (exchange.decode && has_body && head.status != 206).then(|| Decoder::of(head.headers)).flatten();
        let streams = exchange.streams;
        if matches!(length, Length::Exact(bytes) if !streams && bytes > self.limits.message_bytes_max as u64) {
            return Err(self.too_large());
        }
        if streams {
            self.accept(head, decoder.is_some(), out);
        }
        let framed = match length {
            Length::None => Framed::Exact { left: 0 },
            Length::Exact(left) => Framed::Exact { left },
            Length::Chunked => Framed::Chunked(Chunked::new(self.bounds)),
            Length::UntilClose => Framed::UntilClose,
        };
        let whole = (!streams).then(|| Whole::new(head, decoder.is_some(), &framed));
        let is_over = matches!(framed, Framed::Exact { left: 0 });
        self.draining |= !persists;
        self.reading = Reading::Body(Box::new(Incoming { framed, decoder, persists, whole }));
        if is_over { self.end(Vec::new(), out) } else { Ok(()) }
    }

    fn body(&mut self, input: &[u8], out: &mut Out<'_>) -> Result<Progress, Fault> {
        let Reading::Body(incoming) = &mut self.reading else { return Ok(Progress::Consumed(input.len())) };
        let (used, data) = match &mut incoming.framed {
            Framed::Exact { left } => {
                let most = usize::try_from(*left).unwrap_or(usize::MAX).min(PIECE_BYTES_MAX);
                let data = &input[..input.len().min(most)];
                *left -= data.len() as u64;
                (data.len(), data)
            }
            Framed::UntilClose => {
                let data = &input[..input.len().min(PIECE_BYTES_MAX)];
                (data.len(), data)
            }
            Framed::Chunked(chunked) => match chunked.step(input).map_err(wrong)? {
                Part::Need(bytes) => return Ok(Progress::Need(bytes)),
                Part::Framing(used) => return Ok(Progress::Consumed(used)),
                Part::Data { used, data } => (used, data),
                Part::End { used, trailers } => {
                    self.end(trailers, out)?;
                    return Ok(Progress::Consumed(used));
                }
            },
        };
        let unread = self.data(data, out)?;
        let Reading::Body(incoming) = &mut self.reading else { return Ok(Progress::Consumed(used)) };
        match &mut incoming.framed {
            Framed::Exact { left } => {
                *left += unread as u64;
                if *left == 0 {
                    self.end(Vec::new(), out)?;
                }
            }
            Framed::Chunked(chunked) => chunked.unread(unread),
            Framed::UntilClose => {}
        }
        Ok(Progress::Consumed(used - unread))
    }

    /// Tells or keeps a piece of the body; how many bytes of it must come again.
    fn data(&mut self, data: &[u8], out: &mut Out<'_>) -> Result<usize, Fault> {
        let (Reading::Body(incoming), Some(exchange)) = (&mut self.reading, self.exchanges.front()) else {
            return Ok(0);
        };
        let max = self.limits.message_bytes_max;
        let Incoming { decoder, whole, .. } = &mut **incoming;
        let (deaf, id) = (exchange.is_deaf, exchange.id);
        let mut too_large = false;
        let mut sink = |piece: &[u8]| {
            match whole {
                _ if deaf => {}
                Some(whole) => {
                    whole.body_bytes += piece.len();
                    too_large = whole.body_bytes > max;
                    if too_large {
                        return Err("");
                    }
                    whole.payload.extend_from_slice(piece);
                }
                None => out.events.emit(Event::Chunk { of: Of::Request(id), body: Body::Bytes(piece) }),
            }
            Ok(())
        };
        let used = match decoder {
            None => sink(data).map(|()| data.len()),
            Some(decoder) => decoder.decode(data, &mut sink),
        };
        match used {
            Ok(used) => Ok(data.len() - used),
            Err(_) if too_large => Err(self.too_large()),
            Err(why) => Err(fault(FaultKind::Protocol, format!("the server sent {why}"))),
        }
    }

    /// The reply is complete.
    fn end(&mut self, trailers: Pairs<'_>, out: &mut Out<'_>) -> Result<(), Fault> {
        let Reading::Body(incoming) = std::mem::replace(&mut self.reading, Reading::Head) else { return Ok(()) };
        if let Some(decoder) = &incoming.decoder {
            decoder.finish().map_err(|why| fault(FaultKind::Protocol, format!("the server sent {why}")))?;
        }
        let Some(exchange) = self.exchanges.pop_front() else { return Ok(()) };
        self.served = true;
        // A body that was not sent to its end is what the server expects next.
        self.draining |= !incoming.persists || !exchange.sending.is_whole();
        if !exchange.is_deaf {
            let payload = match incoming.whole {
                Some(whole) => whole.finish(trailers),
                None => {
                    let mut payload = Vec::new();
                    write_trailers(&mut payload, trailers);
                    payload
                }
            };
            out.events.emit(Event::Reply { id: exchange.id, error: false, body: Body::Msgpack(&payload) });
        }
        if self.draining {
            out.events.emit(Event::Fact(Fact::Draining));
            if !self.exchanges.is_empty() {
                return Err(fault(
                    FaultKind::Closed,
                    "the server closes the conn before it has replied to all requests",
                ));
            }
        }
        Ok(())
    }

    /// Ends a lane that both sides are done with.
    pub(super) fn end_lane(&mut self, out: &mut Out<'_>) {
        if !matches!(&self.reading, Reading::Lane(lane) if lane.is_over()) {
            return;
        }
        self.reading = Reading::Over;
        self.draining = true;
        if let Some(exchange) = self.exchanges.pop_front().filter(|exchange| !exchange.is_deaf) {
            out.events.emit(Event::Reply { id: exchange.id, error: false, body: Body::Msgpack(NIL) });
        }
        out.events.emit(Event::Fact(Fact::Draining));
    }

    pub(super) fn read_eof(&mut self, out: &mut Out<'_>) -> Result<(), Fault> {
        let is_deaf = self.exchanges.front().is_none_or(|exchange| exchange.is_deaf);
        let what = match &mut self.reading {
            Reading::Over => return Ok(()),
            Reading::Lane(lane) => {
                lane.eof(is_deaf, out)?;
                self.end_lane(out);
                return Ok(());
            }
            Reading::Body(incoming) if matches!(incoming.framed, Framed::UntilClose) => {
                return self.end(Vec::new(), out);
            }
            Reading::Body(_) => "the server closed the conn in the middle of a reply",
            Reading::Head if self.closing && self.exchanges.is_empty() => return Ok(()),
            Reading::Head if self.exchanges.is_empty() => "the server closed the conn",
            Reading::Head => "the server closed the conn without a reply",
        };
        Err(fault(FaultKind::Closed, what))
    }

    fn too_large(&self) -> Fault {
        let max = self.limits.message_bytes_max;
        fault(FaultKind::TooLarge, format!("the reply is larger than {max} bytes (max_reply); take it as a stream"))
    }
}

const NIL: &[u8] = b"\xc0";

impl Whole {
    fn new(head: &Response<'_>, decodes: bool, framed: &Framed) -> Self {
        // Room for most heads, and for a body that is not long: a length alone reserves no more than a piece.
        let body = if let Framed::Exact { left } = framed { *left as usize } else { 0 };
        let mut payload = Vec::with_capacity(512 + body.min(PIECE_BYTES_MAX));
        write::array(&mut payload, 6);
        write::uint(&mut payload, u64::from(head.status));
        write_headers(&mut payload, told(head, decodes));
        let body = write::bin_open(&mut payload);
        Whole { payload, body, body_bytes: 0, reason: reason(head), version: head.version }
    }

    fn finish(mut self, trailers: Pairs<'_>) -> Vec<u8> {
        write::bin_close(&mut self.payload, self.body);
        write::str(&mut self.payload, &self.reason);
        write::uint(&mut self.payload, u64::from(self.version));
        write_trailers(&mut self.payload, trailers);
        self.payload
    }
}

/// The fields that the program is told: not those that are untrue of a body that is decoded.
fn told<'a>(head: &Response<'a>, decodes: bool) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
    head.headers.iter().filter(move |(name, _)| {
        !(decodes && (name.eq_ignore_ascii_case(b"content-encoding") || name.eq_ignore_ascii_case(b"content-length")))
    })
}

/// As text, whatever the server wrote.
fn reason(head: &Response<'_>) -> Vec<u8> {
    String::from_utf8_lossy(head.reason).into_owned().into_bytes()
}

/// Pairs, or nil where there are none.
fn write_trailers(payload: &mut Vec<u8>, trailers: Pairs<'_>) {
    match trailers.is_empty() {
        true => write::nil(payload),
        false => write_headers(payload, trailers.into_iter()),
    }
}

fn wrong(malformed: Malformed) -> Fault {
    match malformed.is_too_large() {
        true => fault(FaultKind::TooLarge, format!("the server sent {}", malformed.what)),
        false => fault(FaultKind::Protocol, format!("the server sent {}", malformed.what)),
    }
}
