//! A listener that leaves (`IOK_OP_CLOSE` with a time): nobody new is let in, who is in the middle of something finishes.

use std::time::Duration;

use super::conn::Link;
use super::core::Target;
use super::io::Io;
use crate::proto::Body;
use crate::ring::layout::{IOK_TIMEOUT_NONE, Submission};
use crate::status::{IOK_STATUS_OK, IOK_STATUS_TIMEOUT};

/// From the moment in which nobody new may begin to connect until the door is closed: whoever has begun is there by then,
/// where a segment takes no longer than half of it.
const LAST_COMERS_MS: u64 = 100;

/// Who waits for a listener to be gone.
#[derive(Clone, Copy)]
pub struct Leaving {
    channel: u32,
    head: Submission,
    door: Door,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Door {
    Open,
    /// Nobody new comes; those who were about to come in still do.
    Barred,
    Closed,
}

impl Io {
    /// Begins to leave: whoever asks is told that we are not ready. `key` milliseconds later the door is closed.
    pub(super) fn leave(&mut self, channel: u32, head: &Submission) {
        let key = Self::endpoint_key(head.endpoint);
        let Some(of) = self.endpoints.get_mut(key as usize) else { return };
        if of.leaving.is_some() {
            let message = "the listener leaves already";
            return self.core.refuse(channel, head, crate::status::IOK_STATUS_BAD_REQUEST, "LEAVING", message);
        }
        of.leaving = Some(Leaving { channel, head: *head, door: Door::Open });
        self.tell_kernel_watchers();
        if head.timeout_ms != IOK_TIMEOUT_NONE {
            self.core.timer(head.key.saturating_add(u64::from(head.timeout_ms)), Target::Leaving(head.endpoint));
        }
        match head.key {
            0 => self.bar_door(head.endpoint),
            delay_ms => {
                self.core.timer(delay_ms, Target::Leaving(head.endpoint));
            }
        }
    }

    /// A socket that is closed resets who waits in its queue, so that nobody may be in it by then.
    fn bar_door(&mut self, number: u32) {
        let key = Self::endpoint_key(number);
        let Some(of) = self.endpoints.get_mut(key as usize) else { return };
        let (Some(leaving), Some(listener)) = (&mut of.leaving, &mut of.listener) else { return };
        leaving.door = Door::Barred;
        match listener.bar() {
            true => {
                self.core.timer(LAST_COMERS_MS, Target::Leaving(number));
            }
            false => self.close_door(key),
        }
    }

    /// Clients that wait to be accepted still are; each conn ends with the reply that it waits for.
    fn close_door(&mut self, key: u32) {
        super::turn::accept_all(self, key);
        let Some(of) = self.endpoints.get_mut(key as usize) else { return };
        if let Some(leaving) = &mut of.leaving {
            leaving.door = Door::Closed;
        }
        if let Some(listener) = &mut of.listener {
            listener.stop(&self.registry);
        }
        self.leavers.push(key);
        for conn in self.conns_of(key) {
            // Its client may have asked already, for all that can be told before its handshake is over.
            if self.conns.get(conn as usize).is_some_and(|conn| matches!(conn.link, Link::Securing(_))) {
                continue;
            }
            // What has come already was asked before we left.
            self.read(conn);
            self.drive(conn, |conn, now, out| {
                conn.proto.close(now, out);
                Ok(())
            });
            self.flush(conn);
        }
    }

    /// A client of a listener came through a door that is closed by now: what it has asked is answered, and no more.
    #[cfg(feature = "tls")]
    pub(super) fn came_late(&mut self, key: u32) {
        let Some(conn) = self.conns.get(key as usize) else { return };
        let leaving = self.endpoints.get(conn.endpoint as usize).and_then(|of| of.leaving);
        if leaving.is_some_and(|leaving| leaving.door == Door::Closed) {
            self.drive(key, |conn, now, out| {
                conn.proto.close(now, out);
                Ok(())
            });
            self.flush(key);
        }
    }

    pub(super) fn conns_of(&self, endpoint: u32) -> Vec<u32> {
        self.conns.iter().filter(|(_, conn)| conn.endpoint == endpoint).map(|(key, _)| key as u32).collect()
    }

    /// Ends listeners that everyone has left.
    pub(super) fn see_off(&mut self) {
        if self.leavers.is_empty() {
            return;
        }
        for key in std::mem::take(&mut self.leavers) {
            match self.endpoints.get(key as usize).and_then(|of| of.listener.as_ref()).map(|listener| listener.conns) {
                Some(0) => self.left(key),
                Some(_) => self.leavers.push(key),
                None => {}
            }
        }
    }

    fn left(&mut self, key: u32) {
        let Some(of) = self.endpoints.get_mut(key as usize) else { return };
        let (leaving, left) = (of.leaving.take(), of.listener.as_ref().map_or(0, |listener| listener.conns));
        self.close_endpoint(key, "the listener has left");
        let Some(Leaving { channel, head, .. }) = leaving else { return };
        if left == 0 {
            self.core.answer(channel, &head, IOK_STATUS_OK, Body::None);
        } else {
            let within = Duration::from_millis(u64::from(head.timeout_ms));
            let message = format!("{left} clients had not finished within {within:?}, and were dropped");
            self.core.refuse(channel, &head, IOK_STATUS_TIMEOUT, "TIMEOUT", &message);
        }
    }

    /// The time to close the door, or to leave, has come.
    pub(super) fn leaving_timer(&mut self, number: u32) {
        let key = Self::endpoint_key(number);
        match self.endpoint(number).and_then(|of| of.leaving).map(|leaving| leaving.door) {
            Some(Door::Open) => self.bar_door(number),
            Some(Door::Barred) => self.close_door(key),
            Some(Door::Closed) => self.left(key),
            None => {}
        }
    }

    /// A client asks whether the program is well.
    pub(super) fn tell_health(&mut self, key: u32, slot: u64) {
        let Some(conn) = self.conns.get(key as usize) else { return };
        let leaves = self.endpoints.get(conn.endpoint as usize).is_some_and(|of| of.leaving.is_some());
        let (status, mut told) = self.health();
        if leaves {
            told["status"] = "leaving".into();
        }
        let text = format!("{told}\n");
        let mut body = Vec::new();
        use crate::value::write;
        write::array(&mut body, 3);
        write::uint(&mut body, if leaves { 503 } else { u64::from(status) });
        write::map(&mut body, 2);
        for (name, value) in [("Content-Type", "application/json"), ("Cache-Control", "no-store")] {
            write::str(&mut body, name.as_bytes());
            write::str(&mut body, value.as_bytes());
        }
        write::bin(&mut body, text.as_bytes());
        self.reply_to_client(key, slot, &body);
    }
}
