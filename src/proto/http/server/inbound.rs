//! What the client sends: heads, bodies, and what comes after an upgrade.

use std::time::Instant;

use super::exchange::{Exchange, Upgrade};
use super::forms::Told;
use super::head::{Head, Line};
use super::proxied::{self, Client};
use super::reply::Asked;
use super::{DROPPED_BYTES_MAX, EMPTY_LINES_MAX, Incoming, Server, State};
use crate::proto::http::value::write_headers;
use crate::proto::http::wire::{self, Chunked, Length, Malformed, PIECE_BYTES_MAX, Room, Scan};
use crate::proto::websocket::handshake::{self, Offer};
use crate::proto::{Body, Event, Fault, FaultKind, Of, Out, Progress};
use crate::value::write;

impl Server {
    pub(super) fn input(&mut self, now: Instant, input: &[u8], out: &mut Out<'_>) -> Result<Progress, Fault> {
        match self.state {
            State::Head => Ok(self.head(now, input, out)),
            State::Whole(_) | State::Streamed(_) | State::Dropped(..) => Ok(self.body(now, input, out)),
            State::Proxied => self.proxied(now, input),
            State::Lane => {
                let piece = &input[..input.len().min(PIECE_BYTES_MAX)];
                out.events.emit(Event::Chunk { of: Of::Slot(self.last_slot()), body: Body::Bytes(piece) });
                Ok(Progress::Consumed(piece.len()))
            }
            State::WebSocket(_) => Ok(self.frame(now, input, out)),
            State::Undecided | State::Deaf => Ok(Progress::Consumed(input.len())),
        }
    }

    fn proxied(&mut self, now: Instant, input: &[u8]) -> Result<Progress, Fault> {
        match proxied::read(input, self.options.proxied) {
            Ok((progress, None)) => Ok(progress),
            Ok((progress, Some(client))) => {
                if let Client::Told { client, local } = client {
                    self.about.set(Some(client), Some(local));
                }
                self.state = State::Head;
                self.since = Some(now);
                Ok(progress)
            }
            Err(why) => Err(self.fail(FaultKind::Protocol, why)),
        }
    }

    fn head(&mut self, now: Instant, input: &[u8], out: &mut Out<'_>) -> Progress {
        if !self.began {
            match input {
                [b'\r'] => return Progress::Need(2),
                [b'\r', b'\n', ..] if self.empty_lines < EMPTY_LINES_MAX => {
                    self.empty_lines += 1;
                    return Progress::Consumed(2);
                }
                _ => {}
            }
            self.scan = Scan::default();
            self.began = true;
            self.since = Some(now);
        }
        self.is_head = input.starts_with(b"HEAD ");
        self.read_head(now, input, out).unwrap_or_else(|bad| {
            let line = self.scan.first_line(input).and_then(|line| Line::read(line).ok());
            self.refuse(now, bad, line, out);
            Progress::Consumed(input.len())
        })
    }

    fn read_head(&mut self, now: Instant, input: &[u8], out: &mut Out<'_>) -> Result<Progress, Malformed> {
        if !input.first().is_some_and(|byte| wire::is_token_byte(*byte)) {
            return Err(Malformed { status: 400, what: "no request of HTTP" });
        }
        let need = Ok(Progress::Need(input.len() + 1));
        let had_line = self.scan.first_line(input).is_some();
        let found = self.scan.find(input, self.options.bounds());
        let Some(first) = self.scan.first_line(input) else { return found.and(need) };
        if had_line && found == Ok(None) {
            return need;
        }
        // Judged as soon as it is there, and before what is wrong behind it, wherever the input was cut.
        let line = Line::read(first)?;
        let Some(end) = found? else { return need };
        let mut room = Room::new();
        let headers = wire::fields(&input[first.len()..end], &mut room)?;
        self.begin(now, &Head::read(line, headers)?, out)?;
        self.since = Some(now);
        Ok(Progress::Consumed(end))
    }

    /// A head is whole.
    fn begin(&mut self, now: Instant, head: &Head<'_>, out: &mut Out<'_>) -> Result<(), Malformed> {
        let length = head.length;
        if matches!(length, Length::Exact(bytes) if bytes > self.limits.message_bytes_max as u64) {
            return Err(TOO_LONG);
        }
        // An upgrade that comes with a body is not taken, which is a server's right (RFC 9110, 7.8).
        let upgrade = head.upgrade.filter(|_| length == Length::None);
        let offer = if upgrade.is_some() { offer(head)? } else { None };
        let asked = Asked {
            is_head: self.is_head,
            is_connect: head.line.is_connect(),
            version: head.line.version,
            keeps: head.keeps && !self.closing,
        };
        let mut exchange = Exchange::new(asked, self.since.unwrap_or(now), self.spare.pop().unwrap_or_default());
        if self.limits.access {
            exchange.note(&head.line, head.headers);
        }
        self.began = false;
        self.empty_lines = 0;
        self.body_bytes = 0;
        let is_first = self.queue.is_empty();
        if length != Length::None && head.expects_continue {
            // RFC 9110, 10.1.1: whoever reads the body wants it.
            const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
            let ((), held) = exchange.write(is_first, out, |sink| sink.wire.extend_from_slice(CONTINUE));
            self.held_bytes += held;
        }
        let is_health = self.is_health(&head.line) && length == Length::None;
        self.scratch.clear();
        if !is_health {
            write::array(&mut self.scratch, 2);
            let told = Told { head, about: &self.about, offer: offer.as_deref() };
            told.write(self.options.form, &mut self.scratch);
        }
        exchange.upgrade = match offer {
            Some(offer) => Some(Upgrade::WebSocket(offer)),
            None => upgrade.map(|protocol| Upgrade::Other(protocol.to_vec())),
        };
        let decides = exchange.upgrade.is_some() || asked.is_connect;
        self.queue.push_back(exchange);
        match length {
            Length::None | Length::UntilClose => {
                self.state = if decides { State::Undecided } else { self.next() };
                write::nil(&mut self.scratch);
                if is_health { self.ask_health(out) } else { self.tell(out) }
            }
            Length::Exact(bytes) if bytes <= self.options.stream_above_bytes as u64 => {
                bin_head(&mut self.scratch, bytes as u32);
                self.body_at = self.scratch.len();
                self.state = State::Whole(Incoming::Known(bytes));
            }
            Length::Exact(bytes) => {
                write::bool(&mut self.scratch, true);
                self.state = State::Streamed(Incoming::Known(bytes));
                self.tell(out);
            }
            Length::Chunked => {
                self.body_at = self.scratch.len();
                write::bin_open(&mut self.scratch);
                self.state = State::Whole(Incoming::Chunked(Box::new(Chunked::new(self.options.bounds()))));
            }
        }
        Ok(())
    }

    /// The state after a request that is whole.
    fn next(&self) -> State {
        if self.queue.back().is_none_or(|last| last.asked.keeps) { State::Head } else { State::Deaf }
    }

    fn is_health(&self, line: &Line<'_>) -> bool {
        let Some(health) = &self.options.health else { return false };
        let is_path = line.path.strip_prefix(&health[..]).is_some_and(|rest| matches!(rest, [] | [b'?', ..]));
        is_path && matches!(line.method, b"GET" | b"HEAD")
    }

    fn ask_health(&mut self, out: &mut Out<'_>) {
        let slot = self.last_slot();
        if let Some(last) = self.queue.back_mut() {
            last.told = true;
            last.upgrade = None;
        }
        out.events.emit(Event::Health { slot });
    }

    /// Tells the program the request in `scratch`.
    fn tell(&mut self, out: &mut Out<'_>) {
        let slot = self.last_slot();
        if let Some(last) = self.queue.back_mut() {
            last.told = true;
        }
        out.events.emit(Event::Request { slot, body: Body::Msgpack(&self.scratch) });
        self.scratch.clear();
        if self.scratch.capacity() > 2 * PIECE_BYTES_MAX {
            self.scratch = Vec::new();
        }
    }

    fn body(&mut self, now: Instant, input: &[u8], out: &mut Out<'_>) -> Progress {
        self.since = Some(now);
        let (State::Whole(incoming) | State::Streamed(incoming) | State::Dropped(incoming, _)) = &mut self.state else {
            return Progress::Consumed(input.len());
        };
        let (used, data, end) = match incoming {
            Incoming::Known(left) => {
                let most = usize::try_from(*left).unwrap_or(usize::MAX).min(PIECE_BYTES_MAX);
                let data = &input[..input.len().min(most)];
                *left -= data.len() as u64;
                (data.len(), data, (*left == 0).then(Vec::new))
            }
            Incoming::Chunked(chunked) => match chunked.step(input) {
                Ok(wire::Part::Need(need)) => return Progress::Need(need),
                Ok(wire::Part::Framing(used)) => (used, &input[..0], None),
                Ok(wire::Part::Data { used, data }) => (used, data, None),
                Ok(wire::Part::End { used, trailers }) => (used, &input[..0], Some(trailers)),
                Err(bad) => {
                    self.refuse(now, bad, None, out);
                    return Progress::Consumed(input.len());
                }
            },
        };
        self.body_bytes += data.len() as u64;
        if self.body_bytes > self.limits.message_bytes_max as u64 {
            self.refuse(now, TOO_LONG, None, out);
        } else {
            self.take(data, out);
            if let Some(trailers) = end {
                self.body_ended(&trailers, out);
            }
        }
        Progress::Consumed(used)
    }

    /// Bytes of the body.
    fn take(&mut self, data: &[u8], out: &mut Out<'_>) {
        let of = Of::Slot(self.last_slot());
        match &mut self.state {
            State::Whole(_) if self.body_bytes <= self.options.stream_above_bytes as u64 => {
                self.scratch.extend_from_slice(data);
            }
            // More than is told at once: from here on it is told in pieces.
            State::Whole(_) => {
                let taken = self.scratch.split_off(self.body_at);
                write::bool(&mut self.scratch, true);
                if let State::Whole(incoming) = std::mem::replace(&mut self.state, State::Deaf) {
                    self.state = State::Streamed(incoming);
                }
                self.tell(out);
                // What `bin_open` has reserved stands before it.
                for piece in taken.get(5..).unwrap_or_default().chunks(PIECE_BYTES_MAX) {
                    out.events.emit(Event::Chunk { of, body: Body::Bytes(piece) });
                }
                out.events.emit(Event::Chunk { of, body: Body::Bytes(data) });
            }
            State::Streamed(_) if !data.is_empty() => {
                out.events.emit(Event::Chunk { of, body: Body::Bytes(data) });
            }
            State::Dropped(_, left) => match left.checked_sub(data.len() as u64) {
                Some(rest) => *left = rest,
                None => {
                    self.unread = true;
                    self.deafen(out);
                }
            },
            _ => {}
        }
    }

    fn body_ended(&mut self, trailers: &[(&[u8], &[u8])], out: &mut Out<'_>) {
        let next = self.next();
        match std::mem::replace(&mut self.state, next) {
            State::Whole(incoming) => {
                if matches!(incoming, Incoming::Chunked(_)) {
                    let length = u32::try_from(self.body_bytes).unwrap_or(u32::MAX);
                    if let Some(size) = self.scratch.get_mut(self.body_at + 1..self.body_at + 5) {
                        size.copy_from_slice(&length.to_be_bytes());
                    }
                }
                self.tell(out);
            }
            State::Streamed(_) => {
                let of = Of::Slot(self.last_slot());
                let mut told = Vec::new();
                let body = match trailers {
                    [] => Body::None,
                    _ => {
                        write_headers(&mut told, trailers.iter().copied());
                        Body::Msgpack(&told)
                    }
                };
                out.events.emit(Event::End { of, body });
            }
            State::Deaf => self.state = State::Deaf,
            _ => {}
        }
        self.drain(out);
    }

    /// The program answered before the body was read: the rest is dropped, if it is not too much.
    pub(super) fn drop_body(&mut self) {
        let State::Streamed(incoming) = std::mem::replace(&mut self.state, State::Deaf) else { return };
        let Some(last) = self.queue.back_mut() else { return };
        if is_too_much(&incoming) {
            last.asked.keeps = false;
        }
        if last.asked.keeps {
            self.state = State::Dropped(incoming, DROPPED_BYTES_MAX);
        } else {
            self.unread = true;
        }
    }

    /// A body is under way that is too long to be dropped.
    pub(super) fn is_long(&self) -> bool {
        matches!(&self.state, State::Streamed(incoming) if is_too_much(incoming))
    }

    /// A message of a WebSocket, or a part of one.
    fn frame(&mut self, now: Instant, input: &[u8], out: &mut Out<'_>) -> Progress {
        let taken = self.talk(out, |talk, of, wire, events| {
            let progress = talk.input(now, input, of, wire, events).unwrap_or_else(|failure| {
                talk.end(of, failure.code, failure.message.as_bytes(), events);
                Progress::Consumed(input.len())
            });
            (progress, talk.is_over())
        });
        let Some((progress, is_over)) = taken else { return Progress::Consumed(input.len()) };
        if is_over {
            self.leave_websocket(now, out);
        }
        progress
    }
}

const TOO_LONG: Malformed = Malformed { status: 413, what: "a body that is too long" };

/// The valid handshake of WebSocket that this head is.
fn offer(head: &Head<'_>) -> Result<Option<Box<Offer>>, Malformed> {
    match handshake::read_request(head.line.method, head.line.version, head.headers.iter()) {
        handshake::Asked::No => Ok(None),
        handshake::Asked::Yes(offer) => Ok(Some(Box::new(offer))),
        handshake::Asked::Wrong(wrong) => Err(Malformed { status: wrong.status, what: wrong.message }),
    }
}

fn is_too_much(incoming: &Incoming) -> bool {
    matches!(incoming, Incoming::Known(left) if *left > DROPPED_BYTES_MAX)
}

/// What stands before so many bytes of a `bin`.
fn bin_head(out: &mut Vec<u8>, length: u32) {
    match length {
        ..=0xff => out.extend_from_slice(&[0xc4, length as u8]),
        0x100..=0xffff => {
            out.push(0xc5);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            out.push(0xc6);
            out.extend_from_slice(&length.to_be_bytes());
        }
    }
}
