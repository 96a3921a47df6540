//! What comes from a conn: read from its socket, given to its protocol frame by frame.

use std::io::ErrorKind;

use super::conn::Link;
use super::io::Io;
use super::line::Got;
use super::sink::Sink;
use crate::proto::{Out, Progress};
use crate::status::*;

/// Bytes read from one conn in a turn, so that one busy conn starves no other.
const READ_BUDGET: usize = 1 << 20;
/// What a read counts for that brought nothing for the protocol.
const OWN_WEIGHT: usize = 64 << 10;

impl Io {
    /// Reads until the socket is dry or the budget is used up, one frame after the other.
    pub fn read(&mut self, key: u32) {
        let mut scratch = std::mem::take(&mut self.scratch);
        let outcome = self.read_into(key, &mut scratch);
        self.scratch = scratch;
        if let Err(error) = outcome
            && self.conns.contains(key as usize)
        {
            let peer = self.conns[key as usize].peer_name.clone();
            // What a line itself finds wrong; sockets have no such errors when they are read.
            let status = match error.kind() {
                ErrorKind::InvalidData => IOK_STATUS_PROTOCOL,
                ErrorKind::PermissionDenied => IOK_STATUS_REFUSED,
                _ => IOK_STATUS_LOST,
            };
            let refused = status == IOK_STATUS_REFUSED && self.conns[key as usize].first_byte_ns == 0;
            if refused {
                self.conns[key as usize].untouched();
            }
            self.conn_failed(key, status, refused, format!("{peer}: {error}"));
        }
    }

    fn read_into(&mut self, key: u32, scratch: &mut [u8]) -> std::io::Result<()> {
        let mut budget = READ_BUDGET;
        if self.conns.get(key as usize).is_some_and(|conn| conn.held_back && !conn.is_paused()) {
            self.parse(key, None);
        }
        loop {
            let Some(conn) = self.conns.get_mut(key as usize) else { return Ok(()) };
            if !conn.readable {
                return Ok(());
            }
            if conn.is_paused() {
                return Ok(());
            }
            if budget == 0 {
                self.to_read.push(key);
                return Ok(());
            }
            let Link::Up(line) = &mut conn.link else { return Ok(()) };
            let fresh = conn.input.is_empty();
            let got = match fresh {
                true => line.read(scratch),
                false => conn.input.read_from(line, conn.need, scratch),
            };
            let Got { bytes: count, more, .. } = match got {
                Ok(Got { closed: true, .. }) => return self.peer_closed(key),
                Ok(got) => got,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    conn.readable = false;
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            // A short read has emptied the socket: the next bytes come with an event of their own.
            if !more && !conn.peer_hung_up {
                conn.readable = false;
            }
            if count == 0 {
                budget = budget.saturating_sub(OWN_WEIGHT);
                continue;
            }
            self.core.tick();
            let conn = &mut self.conns[key as usize];
            conn.first_byte_ns = self.core.now_ns;
            conn.count(|meter| meter.received_bytes.add(count as u64));
            budget = budget.saturating_sub(count);
            if conn.lingers_until.is_some() {
                continue;
            }
            let alive = if fresh { self.parse(key, Some(&scratch[..count])) } else { self.parse(key, None) };
            if !alive {
                return Ok(());
            }
        }
    }

    /// Feeds what came to the protocol, frame by frame. `fresh` was read just now; None: what the conn holds.
    fn parse(&mut self, key: u32, fresh: Option<&[u8]>) -> bool {
        let now = self.core.now();
        let Some(conn) = self.conns.get_mut(key as usize) else { return false };
        let mut notes = Vec::new();
        let mut wire = std::mem::take(&mut conn.out);
        let mut held = std::mem::take(&mut conn.input);
        let incoming = std::mem::take(&mut conn.incoming);
        let of = &self.endpoints[conn.endpoint as usize];
        let mut sink = Sink::new(&mut self.core, of, key, conn, &incoming, &mut notes);
        let mut files = Vec::new();
        let input = fresh.unwrap_or(held.filled());
        let mut at = 0;
        let mut need = 1;
        let mut outcome = Ok(());
        while at < input.len() && !conn.proto.paused() && !sink.choked {
            let mut out = Out { wire: &mut wire, files: &mut files, events: &mut sink };
            match conn.proto.handle_input(now, &input[at..], &mut out) {
                Ok(Progress::Consumed(count)) => at += count,
                Ok(Progress::Need(count)) => {
                    need = count;
                    break;
                }
                Err(fault) => {
                    outcome = Err(fault);
                    break;
                }
            }
        }
        let learnt = sink.finish();
        conn.incoming = incoming;
        match fresh {
            Some(bytes) if at < bytes.len() => held.append(&bytes[at..]),
            Some(_) => {}
            None => held.consume(at),
        }
        (conn.out, conn.input, conn.need) = (wire, held, need);
        conn.queue_files(files);
        learnt.keep(conn);
        conn.held_back = outcome.is_ok() && conn.is_paused() && !conn.input.is_empty();
        let number = conn.number;
        self.after_protocol(key, number, notes);
        if !self.is_conn(key, number) {
            return false;
        }
        self.progress(key);
        self.is_conn(key, number) && self.judge(key, outcome)
    }

    fn peer_closed(&mut self, key: u32) -> std::io::Result<()> {
        if self.drive(key, |conn, now, out| conn.proto.handle_eof(now, out)) {
            let conn = &mut self.conns[key as usize];
            if conn.is_server || conn.proto.inflight() > 0 {
                // Something is still to be written; the protocol says when the last of it is.
                (conn.readable, conn.at_eof) = (false, true);
                return Ok(());
            }
            let peer = self.conns[key as usize].peer_name.clone();
            self.conn_failed(key, IOK_STATUS_LOST, false, format!("{peer} closed the connection"));
        }
        Ok(())
    }

    /// An event for a conn.
    pub fn conn_event(&mut self, key: u32, event: &crate::sys::epoll::Event) {
        let Some(conn) = self.conns.get_mut(key as usize) else { return };
        match conn.link {
            Link::Greeting(_) => return self.greeting_event(key),
            Link::Dialling(_) => return self.advance_dial(key),
            Link::Securing(_) => return self.handshake_event(key),
            Link::Resolving | Link::Up(_) => {}
        }
        if event.is_read_closed() || event.is_error() {
            conn.peer_hung_up = true;
        }
        if event.is_writable() {
            conn.writable = true;
            self.queue_flush(key);
        }
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            let conn = &mut self.conns[key as usize];
            conn.readable = !conn.at_eof;
            self.read(key);
        }
    }
}
