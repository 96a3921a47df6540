//! How requests go on, or end, without a reply: their conn is lost, a peer does not execute them, their time is over.

use super::conn::Conn;
use super::core::Ending;
use super::io::{Io, Unheard};
use super::request::{NO_CONN, What};
use super::sink::Why;
use crate::proto::{Body, Command, Need, RequestId};
use crate::ring::layout::*;
use crate::router::{Again, ConnId, Returned};
use crate::status::*;

/// How often a request that was written, and may be repeated, is sent again.
const REPEATS_MAX: u8 = 3;
/// How often a request of which nothing was written goes by another conn, or one that met conns on their way out.
const RETRIES_MAX: u8 = 16;

impl Io {
    /// A peer did not execute a request: the router finds it another way, or its caller gets the peer's error.
    pub(super) fn rejected(&mut self, key: Option<u32>, id: RequestId, why: &Why, body: &[u8]) {
        let Some(request) = self.core.requests.get_mut(id) else { return };
        request.rejections += 1;
        (request.conn, request.sent_ns) = (NO_CONN, 0);
        let endpoint = Self::endpoint_key(request.endpoint);
        self.core.count(id, false);
        if self.is_acting(endpoint) {
            // Its router is at work: the request goes on as one that lost its conn.
            return self.unheard.push(Unheard::SendAgain(id, Again::NotSent));
        }
        let taken = self.need_of(id).and_then(|need| {
            self.with_router(endpoint, |router, now, act| {
                let returned = Returned { conn: key.map(ConnId), request: id, need, why: why.rejection() };
                router.handle_rejected(now, returned, act)
            })
        });
        if taken != Some(true) {
            let conn = key.and_then(|key| self.conns.get(key as usize));
            let (peer, at) = conn.map_or((0, 0), |conn| (conn.number, conn.first_byte_ns));
            self.core.reply(id, true, Body::Msgpack(body), peer, at);
        }
    }

    /// What a request needs, read from its payload once more.
    fn need_of(&self, id: RequestId) -> Option<Need> {
        let request = self.core.requests.get(id)?;
        let of = self.endpoints.get(Self::endpoint_key(request.endpoint) as usize)?;
        let mut need = of.driver.classify(request.payload.as_ref()?, of.hashes()).ok()?;
        need.route.hash = request.route.or(need.route.hash);
        Some(need)
    }

    /// A request's conn is gone: what may be repeated is handed back, the rest ends with its fate.
    pub(super) fn abandoned(
        &mut self,
        id: RequestId,
        conn: &Conn,
        status: Status,
        message: &str,
        again: &mut Vec<(RequestId, Again)>,
    ) {
        let Some(request) = self.core.requests.get_mut(id) else { return };
        let touched = conn.written > request.wire_start;
        let begun = request.exchange.as_ref().is_some_and(|exchange| exchange.begun);
        let exclusive = self.endpoints.get(conn.endpoint as usize).is_some_and(|of| of.options.service.exclusive);
        // Who has a conn to itself was answered with what broke the protocol, and would be again.
        let may_repeat = if begun || exclusive && status == IOK_STATUS_PROTOCOL {
            false
        } else if touched {
            // One that has served before and said nothing since was on its way to its end: so may be the next, and
            // one that is made for it is not.
            let was_leaving = exclusive && conn.first_byte_ns != 0 && conn.first_byte_ns <= request.sent_ns;
            let most = if was_leaving { RETRIES_MAX } else { REPEATS_MAX };
            request.flags & IOK_FLAG_IDEMPOTENT != 0 && request.retries < most
        } else {
            // Where conns come and go, one that is made for it serves, or none does.
            request.retries < if exclusive { REPEATS_MAX } else { RETRIES_MAX }
        };
        if may_repeat && request.payload.is_some() && request.lease == 0 && status != IOK_STATUS_CLOSED {
            request.retries += 1;
            request.doubtful |= touched;
            request.loss = touched.then(|| message.into());
            (request.conn, request.sent_ns) = (NO_CONN, 0);
            self.core.count(id, false);
            return again.push((id, if touched { Again::Idempotent } else { Again::NotSent }));
        }
        let fate = if touched { IOK_FATE_MAYBE_EXECUTED } else { IOK_FATE_NOT_SENT };
        let ending = Ending { status: status_of_loss(status, touched), fate, peer: conn.number, first_byte_ns: 0 };
        let code = match ending.status {
            IOK_STATUS_PROTOCOL => "PROTOCOL",
            IOK_STATUS_REFUSED => "REFUSED",
            _ => "LOST",
        };
        self.core.fail(id, ending, code, message);
    }

    /// Gives a request that lost its conn to the router once more.
    pub(super) fn send_again(&mut self, id: RequestId, why: Again) {
        let Some(request) = self.core.requests.get(id) else { return };
        let endpoint = Self::endpoint_key(request.endpoint);
        if self.is_acting(endpoint) {
            return self.unheard.push(Unheard::SendAgain(id, why));
        }
        if let Some(need) = self.need_of(id) {
            self.with_router(endpoint, |router, now, act| router.handle_again(now, id, need, why, act));
        }
    }

    /// Ends a request before its reply: cancelled, or its time is over.
    pub fn end_early(&mut self, id: RequestId, status: Status) {
        let Some(request) = self.core.requests.get(id) else { return };
        let endpoint = Self::endpoint_key(request.endpoint);
        let (conn, what) = (request.conn, request.what);
        if let What::Incoming { slot } = what {
            return self.incoming_expired(id, conn, slot);
        }
        let waited_ms = (self.core.now_ns - request.queued_ns + 500_000) / 1_000_000;
        let sent = conn != NO_CONN;
        // Bytes that are with a living conn will be written, if they were not yet.
        let fate = if sent { IOK_FATE_MAYBE_EXECUTED } else { IOK_FATE_NOT_SENT };
        let peer = self.conns.get(conn as usize).map_or(0, |conn| conn.number);
        let ending = |status| Ending { status, fate, peer, first_byte_ns: 0 };
        let number = request.endpoint;
        let unavailable = || match number {
            0 => self.why_not_ready(),
            _ => self.endpoints.get(endpoint as usize)?.router.as_ref()?.why_unavailable(),
        };
        if status == IOK_STATUS_CANCELLED {
            self.core.fail(id, ending(status), "CANCELLED", "cancelled by the program");
        } else if let Some(why) = if sent { None } else { unavailable() } {
            self.core.fail(id, ending(IOK_STATUS_UNAVAILABLE), "UNAVAILABLE", &why);
        } else {
            let what = if sent { "no reply" } else { "no conn was free" };
            self.core.fail(id, ending(IOK_STATUS_TIMEOUT), "TIMEOUT", &format!("{what} within {waited_ms} ms"));
        }
        if sent && self.conns.contains(conn as usize) {
            self.drive(conn, |conn, now, out| {
                // A refusal to cancel changes nothing: the slot is deaf already.
                let _ = conn.proto.command(now, Command::Cancel { id }, out);
                Ok(())
            });
        }
        let conn = sent.then_some(ConnId(conn));
        self.with_router(endpoint, |router, now, act| router.handle_ended(now, id, conn, act));
    }

    /// The program did not answer a listener's client in time: the client is told so.
    fn incoming_expired(&mut self, id: RequestId, conn: u32, slot: u64) {
        let Some(request) = self.core.requests.get(id) else { return };
        let (channel, endpoint) = (request.channel, request.endpoint);
        let mut body = Vec::new();
        crate::value::write::error_ext(&mut body, IOK_EXT_ERROR, b"TIMEOUT", b"the program did not answer in time");
        self.core.end(id, Ending::not_sent(IOK_STATUS_TIMEOUT), crate::proto::Body::None);
        self.core.tell(channel, IOK_KIND_GONE, endpoint, id, conn, crate::proto::Body::None);
        self.reply_to_client(conn, slot, &body);
    }
}

/// What a lost request's status is, of the status that its conn ended with.
fn status_of_loss(status: Status, touched: bool) -> Status {
    match status {
        IOK_STATUS_REFUSED if !touched => status,
        IOK_STATUS_PROTOCOL | IOK_STATUS_CLOSED | IOK_STATUS_PANIC => status,
        _ => IOK_STATUS_LOST,
    }
}
