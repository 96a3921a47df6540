//! What goes to a conn: from its buffer to its socket.

use std::time::Duration;

use super::conn::{Flushed, Input, Link, OUT_BYTES_HARD};
use super::io::Io;
use crate::status::*;

/// How long a client that was said goodbye to is read on from: time enough for what it has on its way, and to see why.
const LINGER: Duration = Duration::from_secs(2);

impl Io {
    /// Notes that a conn has something to write.
    #[inline]
    pub fn queue_flush(&mut self, key: u32) {
        let Some(conn) = self.conns.get_mut(key as usize) else { return };
        let has_to = !conn.is_flushed() || !conn.half_closed && conn.proto.has_sent_all();
        if has_to && conn.writable && !conn.queued_for_flush {
            conn.queued_for_flush = true;
            self.to_flush.push(key);
        }
    }

    /// Writes what every conn has to write.
    pub fn flush_all(&mut self) {
        let keys = std::mem::take(&mut self.to_flush);
        for key in &keys {
            if let Some(conn) = self.conns.get_mut(*key as usize) {
                conn.queued_for_flush = false;
                self.flush(*key);
            }
        }
        if self.to_flush.is_empty() {
            self.to_flush = keys;
            self.to_flush.clear();
        }
    }

    pub(super) fn flush_once(&mut self, key: u32) -> std::io::Result<Flushed> {
        let Some(conn) = self.conns.get_mut(key as usize) else { return Ok(Flushed::All) };
        let requests = &mut self.core.requests;
        conn.flush(|id, now_ns| {
            if let Some(request) = requests.get_mut(id) {
                request.sent_ns = now_ns;
            }
        })
    }

    pub fn flush(&mut self, key: u32) {
        let before = self.conns.get(key as usize).map_or(0, |conn| conn.written);
        let outcome = self.flush_once(key);
        self.watch_reader(key, before);
        self.acknowledge_all(key);
        match outcome {
            Ok(Flushed::All) => {
                self.half_close(key);
                self.leave_when_flushed(key);
                self.resume(key);
            }
            Ok(Flushed::More) => self.queue_flush(key),
            Ok(Flushed::Blocked) => self.blocked(key),
            Err(error) => self.write_failed(key, &error),
        }
    }

    /// A socket takes nothing more. Why may stand in what came last.
    fn write_failed(&mut self, key: u32, error: &std::io::Error) {
        let Some(conn) = self.conns.get_mut(key as usize) else { return };
        let (number, peer) = (conn.number, conn.peer_name.clone());
        if matches!(&conn.link, Link::Up(line) if line.is_secure()) {
            conn.readable = !conn.at_eof;
            self.read(key);
        }
        if self.is_conn(key, number) {
            self.conn_failed(key, IOK_STATUS_LOST, false, format!("{peer}: {error}"));
        }
    }

    /// A client has to take something of what waits for it, again and again, though it be slow.
    #[inline]
    fn watch_reader(&mut self, key: u32, before: u64) {
        let Some(conn) = self.conns.get_mut(key as usize).filter(|conn| conn.is_server) else { return };
        if conn.is_flushed() {
            conn.send_by = None;
        } else if conn.send_by.is_none() || conn.written > before {
            let span = self.endpoints[conn.endpoint as usize].options.send_timeout;
            conn.send_by = span.map(|span| self.core.now() + span);
            self.rearm(key);
        }
    }

    /// Tells the peer that nothing more comes, once that is so.
    fn half_close(&mut self, key: u32) {
        let Some(conn) = self.conns.get_mut(key as usize) else { return };
        if conn.half_closed || !conn.proto.has_sent_all() {
            return;
        }
        let Link::Up(line) = &mut conn.link else { return };
        conn.half_closed = true;
        line.end_sending();
        self.drive(key, |conn, _, out| {
            conn.proto.handle_sent_all(out);
            Ok(())
        });
        self.progress(key);
    }

    /// Reads on from a client that had too much under way.
    pub(super) fn resume(&mut self, key: u32) {
        let Some(conn) = self.conns.get(key as usize).filter(|conn| !conn.is_paused()) else {
            return;
        };
        if conn.held_back || conn.readable {
            self.to_read.push(key);
        }
    }

    /// A client that said goodbye, or was said goodbye to, is let go once it has every reply.
    pub(super) fn leave_when_flushed(&mut self, key: u32) {
        let Some(conn) = self.conns.get(key as usize) else { return };
        if !(conn.is_server && conn.draining && conn.is_flushed()) || conn.lingers_until.is_some() {
            return;
        }
        let sends_more = conn.proto.leaves_unread() || conn.readable || !conn.input.is_empty();
        if sends_more && !conn.at_eof {
            return self.linger(key);
        }
        self.remove_conn(key, IOK_STATUS_LOST, "the client said goodbye");
    }

    /// Closes our side alone, and reads on for a while.
    fn linger(&mut self, key: u32) {
        let until = self.core.now() + LINGER;
        let Some(conn) = self.conns.get_mut(key as usize) else { return };
        if let Link::Up(line) = &mut conn.link {
            line.end_sending();
        }
        conn.half_closed = true;
        conn.lingers_until = Some(until);
        (conn.input, conn.held_back) = (Input::default(), false);
        if conn.readable {
            self.to_read.push(key);
        }
        self.rearm(key);
    }

    /// A client of ours that never reads its replies is let go.
    fn blocked(&mut self, key: u32) {
        let Some(conn) = self.conns.get(key as usize) else { return };
        if conn.is_server && conn.pending_bytes() > OUT_BYTES_HARD {
            let message = format!("the client left more than {OUT_BYTES_HARD} bytes of replies unread");
            self.conn_failed(key, IOK_STATUS_OVERLOADED, false, message);
        }
    }
}
