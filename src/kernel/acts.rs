//! What a router may do: the kernel's hands.

use std::time::{Duration, Instant};

use super::core::{Ending, Target};
use super::io::Io;
use super::request::{NO_CONN, What};
use super::wheel::TimerKey;
use crate::discovery::News;
use crate::peer::{Peer, Place};
use crate::proto::{Admit, Body, Command, Refusal, RequestId, Tenancy};
use crate::ring::layout::*;
use crate::router::{Act, ConnId, How, Router, Sent};
use crate::status::*;

/// The kernel as one endpoint's router sees it.
pub struct Acts<'a> {
    io: &'a mut Io,
    endpoint: u32,
    /// The request that just came, whose payload still lies where it came.
    fresh: Option<(RequestId, &'a [u8])>,
}

impl Io {
    /// Lets an endpoint's router act. None if the endpoint is gone, or has no router.
    pub fn with_router<R>(
        &mut self,
        endpoint: u32,
        body: impl FnOnce(&mut dyn Router, Instant, &mut Acts<'_>) -> R,
    ) -> Option<R> {
        self.with_router_and(endpoint, None, body)
    }

    /// The same, with a request that just came.
    #[inline]
    pub fn with_router_and<R>(
        &mut self,
        endpoint: u32,
        fresh: Option<(RequestId, &[u8])>,
        body: impl FnOnce(&mut dyn Router, Instant, &mut Acts<'_>) -> R,
    ) -> Option<R> {
        let now = self.core.now();
        let of = self.endpoints.get_mut(endpoint as usize)?;
        let mut router = of.router.take()?;
        if !of.touched {
            of.touched = true;
            self.touched.push(endpoint);
        }
        let result = body(&mut *router, now, &mut Acts { io: self, endpoint, fresh });
        if let Some(of) = self.endpoints.get_mut(endpoint as usize) {
            of.router = Some(router);
        }
        if !self.unheard.is_empty() {
            self.hear();
        }
        Some(result)
    }

    /// Sets the timers of routers that had something to do.
    pub fn rearm_endpoints(&mut self) {
        while let Some(key) = self.touched.pop() {
            let Some(of) = self.endpoints.get_mut(key as usize) else { continue };
            of.touched = false;
            if std::mem::take(&mut of.doubted) {
                self.tell_source(key, News::Doubt);
            }
            self.tell_watchers(key);
            let Some(of) = self.endpoints.get_mut(key as usize) else { continue };
            let Some(next) = of.router.as_ref().and_then(|router| router.poll_timeout()) else { continue };
            if of.timer_at.is_some_and(|at| at <= next) {
                continue;
            }
            self.core.wheel.clear(std::mem::replace(&mut of.timer, TimerKey::NONE));
            of.timer_at = Some(next);
            of.timer = self.core.timer_at(next, Target::Endpoint(key));
        }
    }

    /// A router's timer has come.
    pub fn endpoint_timer(&mut self, key: u32) {
        if let Some(of) = self.endpoints.get_mut(key as usize) {
            (of.timer, of.timer_at) = (TimerKey::NONE, None);
            self.with_router(key, |router, now, act| router.handle_timeout(now, act));
        }
    }
}

impl Acts<'_> {
    fn refused(&mut self, id: RequestId, refusal: &Refusal) -> Sent {
        let ending = Ending::not_sent(IOK_STATUS_BAD_REQUEST);
        self.io.core.fail(id, ending, refusal.code, &refusal.message);
        Sent::Gone
    }

    /// Gives the payload to the conn's protocol.
    #[inline]
    fn encode(&mut self, key: u32, id: RequestId, body: &[u8], how: How, keep: bool) -> Result<bool, Refusal> {
        let now = self.io.core.now();
        let Some(conn) = self.io.conns.get_mut(key as usize).filter(|conn| Io::takes_requests(conn)) else {
            return Ok(false);
        };
        match conn.proto.admit(body) {
            Admit::Now => {}
            Admit::Later => return Ok(false),
            Admit::Never(refusal) => return Err(refusal),
        }
        if conn.proto.inflight() == 0 {
            conn.begun_ns = self.io.core.now_ns;
        }
        let start = conn.wire_position();
        let mut wire = std::mem::take(&mut conn.out);
        let streams = self.io.core.requests.get(id).is_some_and(|request| request.what == What::Exchange);
        let mut out = crate::proto::Out { wire: &mut wire, files: &mut Vec::new(), events: &mut Nothing };
        let outcome =
            conn.proto.command(now, Command::Request { id, body, asking: how == How::Asking, streams }, &mut out);
        conn.out = wire;
        outcome?;
        // What is kept until its reply needs no second place until it is written.
        conn.mark(id, if keep { &[] } else { body });
        if let Some(request) = self.io.core.requests.get_mut(id) {
            (request.conn, request.wire_start) = (key, start);
            if request.what == What::Stream {
                conn.stream = Some(id);
            }
            if request.exchange.is_some() {
                self.io.to_send.push(id);
            }
        }
        if how != How::Own {
            self.io.core.count(id, true);
        }
        self.io.queue_flush(key);
        Ok(true)
    }
}

/// A request's encoding makes no events.
struct Nothing;

impl crate::proto::Emit for Nothing {
    fn emit(&mut self, event: crate::proto::Event<'_>) {
        debug_assert!(false, "a request made an event: {event:?}");
    }
}

impl Act for Acts<'_> {
    fn dial(&mut self, peer: &Peer) -> ConnId {
        ConnId(self.io.dial(self.endpoint, peer))
    }

    fn drop_conn(&mut self, conn: ConnId, why: &str) {
        let again = self.io.remove_conn(conn.0, IOK_STATUS_LOST, why);
        self.io.unheard.extend(again.into_iter().map(|(id, why)| super::io::Unheard::SendAgain(id, why)));
    }

    #[inline]
    fn send(&mut self, conn: ConnId, id: RequestId, how: How) -> Sent {
        let fresh = self.fresh.filter(|(fresh, _)| *fresh == id).map(|(_, payload)| payload);
        let keeps = self.io.endpoints[self.endpoint as usize].keeps_payloads();
        let Some(request) = self.io.core.requests.get_mut(id) else { return Sent::Gone };
        let (keep, kept) =
            (keeps || request.flags & IOK_FLAG_IDEMPOTENT != 0 || request.what == What::Stream, request.payload.take());
        let body = kept.as_deref().or(fresh).unwrap_or_default();
        let outcome = self.encode(conn.0, id, body, how, keep);
        if outcome == Ok(true) && self.io.endpoints[self.endpoint as usize].options.service.exclusive {
            // What waits for the peer's leave waits for a time (HTTP: Expect).
            self.io.rearm(conn.0);
        }
        match outcome {
            Err(refusal) => return self.refused(id, &refusal),
            Ok(true) if keep => {}
            Ok(true) => return Sent::Gone,
            Ok(false) => {}
        }
        let payload = kept.or_else(|| fresh.map(Into::into));
        if let Some(request) = self.io.core.requests.get_mut(id) {
            request.payload = payload;
        }
        match outcome {
            Ok(false) => Sent::Later,
            _ => Sent::Gone,
        }
    }

    fn reset(&mut self, conn: ConnId) {
        let alive = self.io.drive(conn.0, |conn, now, out| conn.proto.reset(now, out));
        debug_assert!(alive || !self.io.conns.contains(conn.0 as usize));
    }

    fn subscribe(&mut self, conn: ConnId, topic: &[u8]) {
        self.io.topic_command(conn.0, Command::Subscribe { topic });
    }

    fn unsubscribe(&mut self, conn: ConnId, topic: &[u8]) {
        self.io.topic_command(conn.0, Command::Unsubscribe { topic });
    }

    fn probe(&mut self, conn: ConnId) {
        self.io.drive(conn.0, |conn, now, out| {
            // One that cannot be asked at present is asked later.
            let _ = conn.proto.command(now, Command::Probe, out);
            Ok(())
        });
    }

    fn doubt(&mut self) {
        if let Some(of) = self.io.endpoints.get_mut(self.endpoint as usize) {
            of.doubted = true;
        }
    }

    #[inline]
    fn inflight(&self) -> usize {
        self.io.core.inflight(self.endpoint)
    }

    fn latency_ns(&self, conn: ConnId) -> u64 {
        self.io.conns.get(conn.0 as usize).map_or(0, |conn| conn.latency_ns)
    }

    fn is_held_up(&self, conn: ConnId, span: Duration) -> bool {
        let span_ns = span.as_nanos() as u64;
        self.io.conns.get(conn.0 as usize).is_some_and(|conn| {
            let since_ns = conn.begun_ns.max(conn.replied_ns);
            self.io.core.now_ns > since_ns.saturating_add(span_ns) && conn.proto.inflight() > 0
        })
    }

    fn place(&self, conn: ConnId) -> Option<Place> {
        self.io.conns.get(conn.0 as usize)?.place.clone()
    }

    fn tenancy(&self, conn: ConnId) -> (usize, Tenancy) {
        self.io
            .conns
            .get(conn.0 as usize)
            .map_or((0, Tenancy::Spoiled), |conn| (conn.proto.inflight(), conn.proto.tenancy()))
    }

    fn fail(&mut self, request: RequestId, status: Status, code: &str, message: &str) {
        let known = self.io.core.requests.get_mut(request).filter(|_| status == IOK_STATUS_LOST);
        let message = match known.and_then(|request| request.loss.take()) {
            Some(loss) => &format!("{loss}; {message}"),
            None => message,
        };
        self.io.core.fail(request, Ending::not_sent(status), code, message);
    }

    fn finish(&mut self, request: RequestId, body: Body<'_>) {
        let ending = Ending { status: IOK_STATUS_OK, fate: IOK_FATE_REPLIED, peer: 0, first_byte_ns: 0 };
        self.io.core.end(request, ending, body);
    }

    fn lease(&mut self, request: RequestId, lease: u64) {
        let Some(channel) = self.io.core.requests.get(request).map(|request| request.channel) else { return };
        self.io.leases.push((self.endpoint, lease, channel));
        let mut body = Vec::with_capacity(9);
        crate::value::write::uint(&mut body, lease);
        self.finish(request, Body::Msgpack(&body));
    }

    fn accept(&mut self, stream: RequestId) {
        self.io.core.push(stream, IOK_KIND_ACCEPTED, Body::None, 0);
    }

    fn is_live(&self, request: RequestId) -> bool {
        self.io.core.requests.get(request).is_some()
    }
}

impl Io {
    /// Begins or ends a topic.
    fn topic_command(&mut self, key: u32, command: Command<'_>) {
        self.drive(key, |conn, now, out| {
            // A refusal comes as an event of the topic.
            let _ = conn.proto.command(now, command, out);
            Ok(())
        });
    }

    /// Keeps the payload of a request that was not sent at once.
    #[inline]
    pub fn keep_payload(&mut self, id: RequestId, payload: &[u8]) {
        if let Some(request) = self.core.requests.get_mut(id)
            && (request.conn == NO_CONN && request.payload.is_none())
        {
            request.payload = Some(payload.into());
        }
    }
}
