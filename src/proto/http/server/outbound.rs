//! What the client is answered: by the program, or by the conn itself.

use std::time::Instant;

use super::exchange::{Exchange, Stage, Upgrade};
use super::reply::{self, Asked, Content, Framing, Ours, Reply};
use super::{Server, State};
use crate::proto::http::talk::Talk;
use crate::proto::http::value::{Piece, bad_request, piece, trailers};
use crate::proto::http::wire::{Malformed, Pairs, last_chunk, lists, members};
use crate::proto::websocket::{Config, Role};
use crate::proto::{Emit, Event, Of, Out, Refusal, Then};

impl Server {
    /// The program's reply to a slot. What cannot be sent is refused, and the client is told of a failure instead.
    pub(super) fn reply(&mut self, now: Instant, slot: u64, body: &[u8], out: &mut Out<'_>) -> Result<Then, Refusal> {
        let waits = |exchange: &Exchange| exchange.told && exchange.stage == Stage::Waiting;
        let index = self.index(slot).filter(|index| self.queue.get(*index).is_some_and(waits));
        let Some(index) = index else { return Err(bad_request(format!("slot {slot} waits for no reply"))) };
        if reply::is_error(body) {
            self.own(now, index, 500, "The program failed.", "", out);
            return Ok(Then::Done);
        }
        let begun = Reply::read(body).and_then(|reply| match reply.status {
            101 => self.switch(now, index, &reply, out),
            _ if reply.is_interim() => self.interim(index, &reply, out),
            _ => self.respond(now, index, &reply, out),
        });
        begun.unwrap_or_else(|refusal| {
            self.own(now, index, 500, "The program's reply cannot be sent.", "", out);
            Err(refusal)
        })
    }

    fn interim(
        &mut self,
        index: usize,
        reply: &Reply<'_>,
        out: &mut Out<'_>,
    ) -> Result<Result<Then, Refusal>, Refusal> {
        let Some(exchange) = self.queue.get_mut(index) else { return Ok(Ok(Then::Open)) };
        // RFC 9110, 15.2: clients of HTTP/1.0 know none.
        if exchange.asked.version >= 11 {
            let (written, held) = exchange.write(index == 0, out, |sink| {
                let start = sink.wire.len();
                reply.write_interim(&[], sink.wire).inspect_err(|_| sink.wire.truncate(start))
            });
            self.held_bytes += held;
            written?;
        }
        Ok(Ok(Then::Open))
    }

    /// A final response. The outer error: nothing of it was written.
    fn respond(
        &mut self,
        now: Instant,
        index: usize,
        reply: &Reply<'_>,
        out: &mut Out<'_>,
    ) -> Result<Result<Then, Refusal>, Refusal> {
        let follows = matches!(reply.body, Content::Follows);
        let is_last = index + 1 == self.queue.len();
        let leaves_body = is_last && !follows && self.is_long();
        let Some(exchange) = self.queue.get_mut(index) else { return Ok(Ok(Then::Done)) };
        exchange.asked.keeps &= !leaves_body;
        let asked = exchange.asked;
        let mut ours = Ours { clock: &mut self.clock, server: &self.options.server, now };
        let (begun, held) = exchange.write(index == 0, out, |sink| {
            let start = sink.wire.len();
            let begun = reply.write_head(asked, &mut ours, sink.wire).inspect_err(|_| sink.wire.truncate(start))?;
            let mut framing = begun.framing;
            let sent = reply::write_content(&reply.body, &mut framing, sink);
            if let (Framing::Chunked, false) = (framing, follows) {
                last_chunk(sink.wire, reply.trailers.iter().flatten().copied());
            }
            Ok((begun, framing, sent))
        });
        self.held_bytes += held;
        let (begun, framing, sent) = begun?;
        exchange.status = begun.status;
        exchange.asked.keeps = begun.keeps;
        exchange.stage = Stage::Open(framing);
        let is_lane = framing == Framing::Close && asked.is_connect;
        let sent = match sent {
            Ok(sent) => {
                exchange.sent_bytes += sent;
                Ok(())
            }
            Err(refusal) => Err(refusal),
        };
        if follows {
            if is_last && matches!(self.state, State::Undecided) {
                self.state = if is_lane { State::Lane } else { self.after_decision() };
                self.since = Some(now);
            }
            if is_last && !begun.keeps && matches!(self.state, State::Head) {
                self.state = State::Deaf;
            }
            return Ok(Ok(Then::Open));
        }
        let whole = self.complete(now, index, out);
        Ok(sent.and(whole).map(|()| Then::Done))
    }

    /// What is read after an upgrade that was not taken.
    fn after_decision(&self) -> State {
        if self.queue.back().is_some_and(|last| last.asked.keeps) { State::Head } else { State::Deaf }
    }

    /// 101: the conn becomes a lane (RFC 9110, 15.2.2).
    fn switch(
        &mut self,
        now: Instant,
        index: usize,
        reply: &Reply<'_>,
        out: &mut Out<'_>,
    ) -> Result<Result<Then, Refusal>, Refusal> {
        let Some(exchange) = self.queue.get_mut(index) else { return Ok(Ok(Then::Done)) };
        if !matches!(reply.body, Content::Follows) {
            return Err(bad_request("101 comes with the body true: what follows is the other protocol"));
        }
        let (lines, talk) = match &exchange.upgrade {
            None => return Err(bad_request("101 is for requests that ask for an upgrade")),
            Some(Upgrade::Other(asked)) => {
                // The one that the client likes best, unless the program chooses another of them (RFC 9110, 7.8).
                let to = reply.header(b"upgrade").or_else(|| members(asked).next()).unwrap_or(asked);
                if !lists(asked, to) {
                    return Err(bad_request("101 is for a protocol that the request asks for"));
                }
                (vec![("Upgrade", to.to_vec()), ("Connection", b"Upgrade".to_vec())], None)
            }
            Some(Upgrade::WebSocket(offer)) => {
                let lines = offer.answer(reply.header(b"sec-websocket-protocol"), true).map_err(bad_request)?;
                let config = Config {
                    role: Role::Server,
                    message_bytes_max: self.limits.message_bytes_max,
                    deflate: offer.deflate,
                    mask_seed: 0,
                };
                (lines, Some(Box::new(Talk::new(config, now))))
            }
        };
        let (written, held) = exchange.write(index == 0, out, |sink| {
            let start = sink.wire.len();
            reply.write_interim(&lines, sink.wire).inspect_err(|_| sink.wire.truncate(start))
        });
        self.held_bytes += held;
        written?;
        exchange.status = 101;
        exchange.asked.keeps = false;
        exchange.stage = Stage::Open(Framing::Close);
        self.since = Some(now);
        if matches!(self.state, State::Undecided) {
            self.state = talk.map_or(State::Lane, State::WebSocket);
        }
        if self.closing {
            self.talk(out, |talk, _, wire, _| talk.leave(now, wire));
        }
        Ok(Ok(Then::Open))
    }

    /// A piece of a response, or a message of a lane.
    pub(super) fn send(&mut self, now: Instant, slot: u64, body: &[u8], out: &mut Out<'_>) -> Result<Then, Refusal> {
        let index = self.index(slot);
        let Some((index, exchange)) = index.and_then(|index| Some((index, self.queue.get_mut(index)?))) else {
            return Err(bad_request(format!("slot {slot} waits for nothing")));
        };
        let Stage::Open(mut framing) = exchange.stage else {
            return Err(bad_request(format!("slot {slot} waits for nothing more")));
        };
        let is_websocket =
            matches!((&self.state, &exchange.upgrade), (State::WebSocket(_), Some(Upgrade::WebSocket(_))));
        if !is_websocket && reply::is_error(body) {
            // The program failed in the middle: the client sees that something is missing (RFC 9112, 8).
            exchange.asked.keeps = false;
            let _ = self.complete(now, index, out);
            return Ok(Then::Done);
        }
        if index > 0 && self.held_bytes > self.limits.message_bytes_max {
            return Err(Refusal { code: "BUSY", message: "the responses before this one are not done".into() });
        }
        let piece = piece(body)?;
        if is_websocket {
            return self.send_message(now, index, piece, out);
        }
        let content = match piece {
            Piece::Bytes(bytes) | Piece::Text(bytes) => Content::Bytes(bytes),
            Piece::Span(span) => Content::File(span),
            Piece::End => return self.end_body(now, index, Vec::new(), out),
            Piece::Array(mut reader) => return self.end_body(now, index, trailers(&mut reader)?, out),
            Piece::Ping(_) => return Err(bad_request("only a WebSocket has pings")),
        };
        let (sent, held) = exchange.write(index == 0, out, |sink| reply::write_content(&content, &mut framing, sink));
        self.held_bytes += held;
        exchange.stage = Stage::Open(framing);
        match sent {
            Ok(sent) => {
                exchange.sent_bytes += sent;
                Ok(Then::Open)
            }
            Err(refusal) => {
                let _ = self.complete(now, index, out);
                out.events.emit(Event::Settled { slot });
                Err(refusal)
            }
        }
    }

    fn end_body(
        &mut self,
        now: Instant,
        index: usize,
        trailers: Pairs<'_>,
        out: &mut Out<'_>,
    ) -> Result<Then, Refusal> {
        if let Some(exchange) = self.queue.get_mut(index)
            && exchange.stage == Stage::Open(Framing::Chunked)
        {
            let ((), held) = exchange.write(index == 0, out, |sink| last_chunk(sink.wire, trailers.into_iter()));
            self.held_bytes += held;
        }
        // One that is too short ends with the conn, so that the client sees it.
        let _ = self.complete(now, index, out);
        Ok(Then::Done)
    }

    /// A message of a WebSocket.
    fn send_message(
        &mut self,
        now: Instant,
        index: usize,
        piece: Piece<'_>,
        out: &mut Out<'_>,
    ) -> Result<Then, Refusal> {
        let (Some(exchange), State::WebSocket(talk)) = (self.queue.get_mut(index), &mut self.state) else {
            return Err(bad_request("the lane is gone"));
        };
        if let Piece::Bytes(bytes) | Piece::Text(bytes) = piece {
            exchange.sent_bytes += bytes.len() as u64;
        }
        let (sent, held) = exchange.write(index == 0, out, |sink| talk.send(now, piece, sink.wire));
        self.held_bytes += held;
        sent?;
        if !talk.is_over() {
            return Ok(Then::Open);
        }
        let _ = self.complete(now, index, out);
        Ok(Then::Done)
    }

    /// What the WebSocket says by itself: answers, pings, closes.
    pub(super) fn talk<T>(
        &mut self,
        out: &mut Out<'_>,
        act: impl FnOnce(&mut Talk, Of, &mut Vec<u8>, &mut dyn Emit) -> T,
    ) -> Option<T> {
        let (of, is_first) = (Of::Slot(self.last_slot()), self.queue.len() == 1);
        let (Some(last), State::WebSocket(talk)) = (self.queue.back_mut(), &mut self.state) else { return None };
        let mut wire = Vec::new();
        let done = act(talk, of, &mut wire, out.events);
        let ((), held) = last.write(is_first, out, |sink| sink.wire.append(&mut wire));
        self.held_bytes += held;
        Some(done)
    }

    /// Both closes are done, or the client broke the protocol, or it is silent.
    pub(super) fn leave_websocket(&mut self, now: Instant, out: &mut Out<'_>) {
        self.talk(out, |talk, of, _, events| talk.lose(of, events));
        out.events.emit(Event::Settled { slot: self.last_slot() });
        self.state = State::Deaf;
        if let Some(index) = self.queue.len().checked_sub(1) {
            let _ = self.complete(now, index, out);
        }
    }

    /// A request that cannot be served, or that did not come whole: this status, and the end of the conn.
    pub(super) fn refuse(&mut self, now: Instant, refused: Malformed, out: &mut Out<'_>) {
        match &self.state {
            State::Head => {
                let asked = Asked { is_head: self.is_head, is_connect: false, version: 11, keeps: false };
                let notes = self.spare.pop().unwrap_or_default();
                self.queue.push_back(Exchange::new(asked, self.since.unwrap_or(now), notes));
            }
            State::Whole(_) => {}
            State::Streamed(_) => {
                let slot = self.last_slot();
                if self.queue.back().is_some_and(|last| last.stage != Stage::Over) {
                    out.events.emit(Event::Settled { slot });
                }
            }
            _ => return self.deafen(out),
        }
        self.state = State::Deaf;
        let Some(index) = self.queue.len().checked_sub(1) else { return self.drain(out) };
        let Some(last) = self.queue.get_mut(index) else { return };
        last.asked.keeps = false;
        let is_begun = last.stage != Stage::Waiting;
        let extra = match refused.status {
            // RFC 6455, 4.4.
            426 => "Sec-WebSocket-Version: 13\r\nUpgrade: websocket\r\n",
            405 => "Allow: GET\r\n",
            _ => "",
        };
        if is_begun {
            last.stage = Stage::Over;
            self.advance(now, out);
        } else {
            self.own(now, index, refused.status, refused.what, extra, out);
        }
    }

    /// A response of our own.
    fn own(&mut self, now: Instant, index: usize, status: u16, line: &str, extra: &str, out: &mut Out<'_>) {
        let leaves_body = index + 1 == self.queue.len() && self.is_long();
        let Some(exchange) = self.queue.get_mut(index) else { return };
        exchange.asked.keeps &= !leaves_body;
        let asked = exchange.asked;
        let mut ours = Ours { clock: &mut self.clock, server: &self.options.server, now };
        let ((), held) = exchange.write(index == 0, out, |sink| ours.own(asked, status, line, extra, sink.wire));
        self.held_bytes += held;
        exchange.status = status;
        exchange.sent_bytes = if asked.is_head { 0 } else { line.len() as u64 + 1 };
        exchange.stage = Stage::Open(Framing::Nothing);
        let _ = self.complete(now, index, out);
    }

    /// A response is whole as far as the program is concerned. An error: it gave less than it had said.
    fn complete(&mut self, now: Instant, index: usize, out: &mut Out<'_>) -> Result<(), Refusal> {
        let is_last = index + 1 == self.queue.len();
        let Some(exchange) = self.queue.get_mut(index) else { return Ok(()) };
        let short = matches!(exchange.stage, Stage::Open(Framing::Length(1..)));
        if short || exchange.stage == Stage::Open(Framing::Close) {
            exchange.asked.keeps = false;
        }
        exchange.stage = Stage::Over;
        let keeps = exchange.asked.keeps;
        if is_last {
            match self.state {
                State::Streamed(_) => {
                    self.drop_body();
                    self.since = Some(now);
                }
                State::Undecided => {
                    self.state = self.after_decision();
                    self.since = Some(now);
                }
                State::Lane | State::WebSocket(_) => self.state = State::Deaf,
                // What comes behind a response that says `close` is not processed (RFC 9112, 9.6), though those before it
                // are still to be written.
                State::Head if !keeps => self.state = State::Deaf,
                _ => {}
            }
        }
        self.advance(now, out);
        if short { Err(bad_request("the body is shorter than its Content-Length: the conn is closed")) } else { Ok(()) }
    }
}
