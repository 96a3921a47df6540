//! COPY from and to the client (PostgreSQL 15 documentation, 55.2.6 "COPY Operations"). What a program sends is written at
//! once: a server drops it if its COPY has failed meanwhile.
use super::answer::CHUNK_BYTES;
use super::incoming::{Outcome, cut_short, unasked};
use super::request::bad_request;
use super::session::Session;
use super::units::{Kind, Owner, Progress};
use super::wire::{self, Fields};
use crate::proto::{Body, Event, Fault, Of, Out, Refusal, RequestId, Then};
use crate::value::{Reader, Token, write};

impl Session {
    /// One more message of a COPY: bin or str is data, nil ends it well, `{"abort": why}` has it fail.
    pub fn send_copy(&mut self, id: RequestId, body: &[u8], wire: &mut Vec<u8>) -> Result<Then, Refusal> {
        let Some((open, has_failed)) = self.units.copy_mut(id) else {
            return Err(bad_request("nothing is sent after this request: COPY ... FROM STDIN alone takes data"));
        };
        let message = Message::read(body)?;
        if !*open {
            return Err(bad_request("this COPY takes no data: it was ended, or it gives data itself"));
        }
        *open = matches!(message, Message::Data(_));
        let then = if *open { Then::Open } else { Then::Done };
        match message {
            _ if has_failed => {}
            // An empty message says nothing.
            Message::Data(b"") => {}
            Message::Data(data) => wire::copy_data(wire, data),
            Message::Done => wire::copy_done(wire),
            Message::Abort(why) => wire::copy_fail(wire, why),
        }
        Ok(then)
    }

    /// Nobody waits for this COPY any more: nothing of it is to stay.
    pub fn end_copy(&mut self, id: RequestId, wire: &mut Vec<u8>) {
        if let Some((open @ true, has_failed)) = self.units.copy_mut(id) {
            *open = false;
            if !has_failed {
                wire::copy_fail(wire, b"cancelled by the program");
            }
        }
    }

    /// CopyInResponse, CopyOutResponse, CopyData or CopyDone.
    pub fn copy(&mut self, kind: u8, body: &[u8], out: &mut Out<'_>) -> Result<(), Fault> {
        let Some(Kind::Copy { owner, open }) = self.units.front_mut() else { return Err(unasked(kind)) };
        let id = owner.id;
        match kind {
            b'G' | b'H' => {
                *open &= kind == b'G';
                let mut fields = Fields(body);
                let told = (|| Some((fields.byte()?, fields.count()?)))();
                let (format, columns) = told.ok_or_else(|| cut_short("the beginning of a COPY"))?;
                self.scratch.clear();
                write::array(&mut self.scratch, 3);
                write::str(&mut self.scratch, if kind == b'G' { b"in" } else { b"out" });
                write::str(&mut self.scratch, if format == 0 { b"text" } else { b"binary" });
                write::uint(&mut self.scratch, columns as u64);
                if !self.cancelled.contains(&id) {
                    out.events.emit(Event::Accepted { id, body: Body::Msgpack(&self.scratch) });
                }
            }
            b'd' => {
                if !self.answer.has_failed() {
                    self.copied.extend_from_slice(body);
                    self.tell_copied(CHUNK_BYTES, out);
                }
            }
            _ => self.tell_copied(1, out),
        }
        Ok(())
    }

    /// Tells what a COPY gave, once that is so many bytes.
    pub fn tell_copied(&mut self, bytes_min: usize, out: &mut Out<'_>) {
        if self.copied.len() < bytes_min {
            return;
        }
        if let Some(Kind::Copy { owner, .. }) = self.units.front()
            && !self.cancelled.contains(&owner.id)
            && !self.answer.has_failed()
        {
            out.events.emit(Event::Chunk { of: Of::Request(owner.id), body: Body::Bytes(&self.copied) });
        }
        self.copied.clear();
        self.copied.shrink_to(4 * CHUNK_BYTES);
    }

    pub fn copy_ended(&mut self, owner: Owner, head: Progress, out: &mut Out<'_>) {
        let outcome = match head.error {
            Some(error) => self.judged(error, false),
            None => Outcome::Reply,
        };
        self.finish(owner, outcome, out);
    }
}

enum Message<'a> {
    Data(&'a [u8]),
    Done,
    Abort(&'a [u8]),
}

impl<'a> Message<'a> {
    fn read(body: &'a [u8]) -> Result<Self, Refusal> {
        let mut reader = Reader::new(body);
        let malformed = |error: crate::value::Malformed| bad_request(error.to_string());
        let message = match reader.token().map_err(malformed)? {
            Token::Bin(data) | Token::Str(data) if data.len() <= wire::SENT_BYTES_MAX => Message::Data(data),
            Token::Bin(data) | Token::Str(data) => {
                let (bytes, max) = (data.len(), wire::SENT_BYTES_MAX);
                return Err(bad_request(format!("a piece of {bytes} bytes: PostgreSQL takes {max}")));
            }
            Token::Nil => Message::Done,
            Token::Map(1) => match (reader.token().map_err(malformed)?, reader.token().map_err(malformed)?) {
                (Token::Str(b"abort"), Token::Str(why)) if !why.contains(&0) => Message::Abort(why),
                _ => return Err(bad_request("a map: expected {\"abort\": why}, a text without NUL")),
            },
            other => {
                let kind = other.kind();
                return Err(bad_request(format!("{kind}: expected bin or str, nil at the end, or {{\"abort\": why}}")));
            }
        };
        if reader.is_at_end() { Ok(message) } else { Err(bad_request("bytes follow the message")) }
    }
}
