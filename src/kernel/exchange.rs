//! Messages after a request: what the program sends on (`IOK_OP_SEND`), what comes in pieces, and the window that keeps
//! either from piling up.
//!
//! Pieces that come count against the window of their request until the program gives them back (`IOK_OP_CREDIT`). A conn
//! whose request has no window left is *choked*: nothing is read from it. What the program sends is acknowledged once the
//! conn has room for more.

use std::collections::VecDeque;

use super::core::{Core, Ending};
use super::io::Io;
use super::request::{NO_CONN, What};
use crate::proto::{Body, Command, Of, Refusal, RequestId, Then};
use crate::ring::layout::*;
use crate::status::*;

/// Bytes that may wait on a conn while sends are still acknowledged.
pub const SEND_BYTES_SOFT: usize = 256 << 10;
/// Bytes that may be sent for a request that has no conn yet.
const HELD_BYTES_MAX: usize = 4 << 20;

/// What a request has beside itself once more than one message belongs to it.
#[derive(Default)]
pub struct Exchange {
    /// Bytes of pieces that the program has not given back.
    unread: usize,
    /// Sent by the program before there was a conn.
    held: VecDeque<(Submission, u32, Box<[u8]>)>,
    held_bytes: usize,
    /// Something was sent after the request, or came of its reply: it cannot go another way.
    pub begun: bool,
}

/// A send that is acknowledged when its conn has room.
#[derive(Clone, Copy)]
pub struct Ack {
    channel: u32,
    head: Submission,
}

/// What a piece counts for: an empty one is no less a record.
fn weight(body: &Body<'_>) -> usize {
    match body {
        Body::None => 1,
        Body::Msgpack(bytes) | Body::Bytes(bytes) | Body::Text(bytes) | Body::Raw(bytes) => bytes.len().max(1),
    }
}

impl Core {
    /// The request that a piece is of. `incoming`: of the conn's clients.
    fn whose(
        &self,
        of: Of,
        incoming: &VecDeque<(u64, RequestId)>,
        fresh: &VecDeque<(u64, RequestId)>,
    ) -> Option<RequestId> {
        match of {
            Of::Request(id) => Some(id),
            Of::Slot(slot) => {
                let find = |all: &VecDeque<(u64, RequestId)>| {
                    let at = all.binary_search_by_key(&slot, |(slot, _)| *slot).ok()?;
                    Some(all[at].1)
                };
                find(fresh).or_else(|| find(incoming))
            }
        }
    }

    /// Tells a piece of a message. True if its request has no window left.
    pub fn chunk(
        &mut self,
        of: Of,
        body: Body<'_>,
        window: usize,
        peer: u32,
        incoming: [&VecDeque<(u64, RequestId)>; 2],
    ) -> bool {
        let Some(id) = self.whose(of, incoming[0], incoming[1]) else { return false };
        let Some(request) = self.requests.get_mut(id) else { return false };
        let exchange = request.exchange.get_or_insert_default();
        exchange.begun = true;
        exchange.unread += weight(&body);
        let choked = exchange.unread >= window;
        self.more(id, IOK_KIND_PUSH, body, peer);
        choked
    }

    /// One more completion of a request that goes on.
    pub fn more(&mut self, id: RequestId, kind: u16, body: Body<'_>, peer: u32) {
        let now_ns = self.now_ns;
        let Some(request) = self.requests.get(id) else { return };
        let tag = if matches!(request.what, What::Incoming { .. }) { id.0 } else { request.tag };
        let (channel, endpoint) = (request.channel, request.endpoint);
        let Some(channel) = self.channels.get_mut(channel as usize) else { return };
        let (encoding, payload) = super::core::encoded(body);
        let head = Completion {
            kind,
            endpoint,
            status: IOK_STATUS_OK,
            tag,
            peer,
            fate: IOK_FATE_REPLIED,
            encoding,
            queued_ns: request.queued_ns,
            sent_ns: request.sent_ns,
            first_byte_ns: now_ns,
            done_ns: now_ns,
            ..Completion::default()
        };
        channel.put(head, payload);
    }

    /// The peer will send nothing more of it.
    pub fn ended(&mut self, of: Of, body: Body<'_>, peer: u32, incoming: [&VecDeque<(u64, RequestId)>; 2]) {
        if let Some(id) = self.whose(of, incoming[0], incoming[1]) {
            self.more(id, IOK_KIND_END, body, peer);
        }
    }

    /// A streamed request has its reply's beginning: its time is met.
    pub fn accepted(&mut self, id: RequestId, body: Body<'_>, peer: u32) {
        let Some(request) = self.requests.get_mut(id) else { return };
        request.exchange.get_or_insert_default().begun = true;
        request.payload = None;
        let timer = std::mem::take(&mut request.timer);
        self.wheel.clear(timer);
        self.more(id, IOK_KIND_ACCEPTED, body, peer);
    }

    /// Ends what was sent for a request that has ended.
    pub fn drop_held(&mut self, exchange: Option<Box<Exchange>>) {
        for (head, channel, _) in exchange.into_iter().flat_map(|exchange| exchange.held) {
            self.refuse(channel, &head, IOK_STATUS_LOST, "LOST", "the request has ended");
        }
    }
}

impl Io {
    /// `IOK_OP_SEND`.
    pub(super) fn send_op(&mut self, channel: u32, head: &Submission, payload: &[u8]) {
        let Some(of) = self.endpoint(head.endpoint) else { return self.no_endpoint(channel, head) };
        let id = match of.listener {
            Some(_) => Some(RequestId(head.key)),
            None => self.core.find(channel, head.key),
        };
        let found = id.and_then(|id| Some((id, self.core.requests.get_mut(id)?)));
        let Some((id, request)) = found.filter(|(_, request)| request.endpoint == head.endpoint) else {
            let message = format!("key: {}: expected the tag of a request under way", head.key);
            return self.core.refuse(channel, head, IOK_STATUS_NO_REQUEST, "NOREQUEST", &message);
        };
        let exchange = request.exchange.get_or_insert_default();
        if request.conn != NO_CONN && exchange.held.is_empty() {
            return self.send_on(id, channel, head, payload);
        }
        if exchange.held_bytes + payload.len() > HELD_BYTES_MAX {
            let message = format!("{HELD_BYTES_MAX} bytes wait for a conn already: wait for what was sent before");
            return self.core.refuse(channel, head, IOK_STATUS_OVERLOADED, "OVERLOADED", &message);
        }
        exchange.held_bytes += payload.len();
        exchange.held.push_back((*head, channel, payload.into()));
    }

    /// Gives one more message to the conn of its request.
    fn send_on(&mut self, id: RequestId, channel: u32, head: &Submission, payload: &[u8]) {
        let Some(request) = self.core.requests.get_mut(id) else { return };
        let (key, what) = (request.conn, request.what);
        if let Some(exchange) = &mut request.exchange {
            exchange.begun = true;
        }
        request.payload = None;
        let command = match what {
            What::Incoming { slot } => Command::SendTo { slot, body: payload },
            _ => Command::Send { id, body: payload },
        };
        match self.give(key, command) {
            Err(refusal) => {
                self.core.refuse(channel, head, IOK_STATUS_BAD_REQUEST, refusal.code, &refusal.message);
            }
            Ok(then) => {
                if let (What::Incoming { slot }, Then::Done) = (what, then) {
                    self.settled(key, id, slot);
                }
                self.acknowledge(key, Ack { channel, head: *head });
            }
        }
    }

    /// Gives a conn a command of the program's.
    fn give(&mut self, key: u32, command: Command<'_>) -> Result<Then, Refusal> {
        let mut outcome = Err(Refusal { code: "LOST", message: "the conn is gone".into() });
        self.drive(key, |conn, now, out| {
            outcome = conn.proto.command(now, command, out);
            Ok(())
        });
        outcome
    }

    /// Says that a send is on its way, now or when the conn has room.
    fn acknowledge(&mut self, key: u32, ack: Ack) {
        if ack.head.flags & IOK_FLAG_QUIET != 0 {
            return;
        }
        match self.conns.get_mut(key as usize).filter(|conn| conn.unwritten() > SEND_BYTES_SOFT) {
            Some(conn) => conn.acks.push_back(ack),
            None => self.core.answer(ack.channel, &ack.head, IOK_STATUS_OK, Body::None),
        }
    }

    /// A conn was written: whoever waits for room may go on.
    pub(super) fn acknowledge_all(&mut self, key: u32) {
        let Some(conn) = self.conns.get_mut(key as usize) else { return };
        if conn.acks.is_empty() || conn.unwritten() > SEND_BYTES_SOFT {
            return;
        }
        for ack in std::mem::take(&mut conn.acks) {
            self.core.answer(ack.channel, &ack.head, IOK_STATUS_OK, Body::None);
        }
    }

    /// What was sent before there was a conn follows its request.
    pub(super) fn send_held(&mut self) {
        while let Some(id) = self.to_send.pop() {
            while let Some(request) = self.core.requests.get_mut(id).filter(|request| request.conn != NO_CONN)
                && let Some((head, channel, payload)) =
                    request.exchange.as_mut().and_then(|exchange| exchange.held.pop_front())
            {
                if let Some(exchange) = &mut request.exchange {
                    exchange.held_bytes -= payload.len();
                }
                self.send_on(id, channel, &head, &payload);
            }
        }
    }

    /// `IOK_OP_CREDIT`.
    pub(super) fn credit_op(&mut self, channel: u32, head: &Submission) {
        let Some(of) = self.endpoint(head.endpoint) else { return };
        let window = of.options.window;
        let id = match of.listener {
            Some(_) => Some(RequestId(head.key)),
            None => self.core.find(channel, head.key),
        };
        let Some(request) = id.and_then(|id| self.core.requests.get_mut(id)) else { return };
        let Some(exchange) = &mut request.exchange else { return };
        exchange.unread = exchange.unread.saturating_sub(usize::try_from(head.tag).unwrap_or(usize::MAX));
        if exchange.unread < window {
            let key = request.conn;
            self.unchoke(key);
        }
    }

    /// Reads on from a conn.
    pub(super) fn unchoke(&mut self, key: u32) {
        if let Some(conn) = self.conns.get_mut(key as usize).filter(|conn| conn.choked) {
            conn.choked = false;
            self.to_read.push(key);
        }
    }

    /// The program answers a listener's client.
    pub(super) fn reply(&mut self, channel: u32, head: &Submission, payload: &[u8]) {
        let quiet = Submission { flags: head.flags | IOK_FLAG_QUIET, ..*head };
        let id = RequestId(head.tag);
        let asked = self.core.requests.get(id).map(|request| (request.what, request.conn));
        let Some((What::Incoming { slot }, key)) = asked else {
            let message = format!("tag: {}: expected the tag of a REQUEST that was not answered", head.tag);
            return self.core.refuse(channel, &quiet, IOK_STATUS_NO_REQUEST, "NOREQUEST", &message);
        };
        match self.give(key, Command::Reply { slot, body: payload }) {
            Ok(Then::Open) => return,
            Ok(Then::Done) => {}
            Err(refusal) => {
                self.core.refuse(channel, &quiet, IOK_STATUS_BAD_REQUEST, refusal.code, &refusal.message);
            }
        }
        self.settled(key, id, slot);
    }

    /// A listener's request has all of its reply.
    fn settled(&mut self, key: u32, id: RequestId, slot: u64) {
        if let Some(conn) = self.conns.get_mut(key as usize) {
            conn.forget_incoming(slot);
        }
        self.core.end(id, Ending::not_sent(IOK_STATUS_OK), Body::None);
        self.unchoke(key);
        self.resume(key);
    }

    /// A listener's request can have nothing more of its reply: its conn has said so.
    pub(super) fn settled_by_itself(&mut self, key: u32, slot: u64) {
        let Some(conn) = self.conns.get(key as usize) else { return };
        let Ok(at) = conn.incoming.binary_search_by_key(&slot, |(slot, _)| *slot) else { return };
        let (id, number) = (conn.incoming[at].1, conn.number);
        if let Some(request) = self.core.requests.get(id) {
            let (channel, endpoint) = (request.channel, request.endpoint);
            self.core.tell(channel, IOK_KIND_GONE, endpoint, id, number, Body::None);
        }
        self.settled(key, id, slot);
    }

    /// Gives the kernel's own reply to the conn of a listener's client.
    pub fn reply_to_client(&mut self, key: u32, slot: u64, body: &[u8]) {
        // A value that cannot be sent has become an error for the client.
        let _ = self.give(key, Command::Reply { slot, body });
        if let Some(conn) = self.conns.get_mut(key as usize) {
            conn.forget_incoming(slot);
        }
        self.resume(key);
    }

    /// The sends that wait on a conn that is gone.
    pub(super) fn lose_acks(&mut self, acks: VecDeque<Ack>) {
        for ack in acks {
            self.core.refuse(ack.channel, &ack.head, IOK_STATUS_LOST, "LOST", "the conn was lost");
        }
    }
}
