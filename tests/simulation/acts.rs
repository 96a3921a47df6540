//! What the router may do, with a check before each act.

use std::time::Duration;

use iokernel::peer::{Peer, Place};
use iokernel::proto::{Admit, Body, Command, Emit, Event, Out, Refusal, RequestId, Tenancy};
use iokernel::ring::layout::{IOK_FATE_NOT_SENT, IOK_FATE_REPLIED};
use iokernel::router::{Act, Again, ConnId, How, Sent};
use iokernel::status::*;

use crate::kernel::{Unheard, What};
use crate::world::World;

pub struct Acts<'a> {
    pub world: &'a mut World,
    /// The request that just came.
    pub fresh: Option<u64>,
}

/// A request's encoding makes no events.
struct Nothing;

impl Emit for Nothing {
    fn emit(&mut self, event: Event<'_>) {
        panic!("a request made an event: {event:?}");
    }
}

impl Acts<'_> {
    fn encode(&mut self, key: u32, id: u64, how: How) -> Result<bool, Refusal> {
        let now = self.world.now();
        let body = self.world.requests[&id].body.clone();
        let Some(conn) = self.world.conns.get_mut(&key).filter(|conn| conn.takes_requests()) else { return Ok(false) };
        match conn.proto.admit(&body) {
            Admit::Now => {}
            Admit::Later => return Ok(false),
            Admit::Never(refusal) => return Err(refusal),
        }
        if conn.proto.inflight() == 0 {
            conn.begun_ns = self.world.now_ns;
        }
        let start = conn.wire_position();
        let mut out = Out { wire: &mut conn.out, files: &mut Vec::new(), events: &mut Nothing };
        let command = Command::Request { id: RequestId(id), body: &body, asking: how == How::Asking, streams: false };
        conn.proto.command(now, command, &mut out)?;
        conn.unsent.push_back((conn.wire_position(), id));
        if how != How::Own {
            self.world.count(id, true);
        }
        if let Some(req) = self.world.requests.get_mut(&id) {
            (req.conn, req.wire_start) = (Some(key), start);
            req.sends += 1;
        }
        self.world.queue_flush(key);
        Ok(true)
    }
}

impl Act for Acts<'_> {
    fn dial(&mut self, peer: &Peer) -> ConnId {
        ConnId(self.world.dial(peer))
    }

    fn drop_conn(&mut self, conn: ConnId, why: &str) {
        if !self.world.conns.contains_key(&conn.0) {
            self.world.fail(&format!("{conn:?} is dropped ({why}) and not there"));
        }
        self.world.note(&format!("  drop {conn:?} {why}"));
        let again: Vec<(RequestId, Again)> = self.world.remove_conn(conn.0, IOK_STATUS_LOST);
        self.world.unheard.extend(again.into_iter().map(|(id, why)| Unheard::SendAgain(id, why)));
    }

    fn send(&mut self, conn: ConnId, id: RequestId, how: How) -> Sent {
        let fresh = self.fresh == Some(id.0);
        let Some(req) = self.world.live_mut(id.0) else { return Sent::Gone };
        if req.what == What::Stream {
            // It had a conn of its own, which is gone.
            req.conn = None;
        }
        if req.conn.is_some() {
            self.world.fail(&format!("{id:?} is sent and on a conn already"));
        }
        if !(fresh || req.has_payload) {
            self.world.fail(&format!("{id:?} is sent and its payload is gone"));
        }
        let keep = self.world.options.limits.follow != iokernel::proto::Follow::Nothing
            || self.world.requests[&id.0].idempotent
            || self.world.requests[&id.0].what == What::Stream;
        self.world.check_send(conn.0, id.0, how);
        let outcome = self.encode(conn.0, id.0, how);
        if let Some(req) = self.world.requests.get_mut(&id.0) {
            req.has_payload = keep || matches!(outcome, Ok(false));
        }
        match outcome {
            Err(refusal) => {
                let text = format!("{} {}", refusal.code, refusal.message);
                self.world.end(id.0, IOK_STATUS_BAD_REQUEST, IOK_FATE_NOT_SENT, text.as_bytes());
                Sent::Gone
            }
            Ok(true) => {
                self.world.sent(conn.0, id.0, how);
                Sent::Gone
            }
            Ok(false) => Sent::Later,
        }
    }

    fn is_held_up(&self, conn: ConnId, span: Duration) -> bool {
        let now_ns = self.world.now_ns;
        self.world.conns.get(&conn.0).is_some_and(|conn| {
            now_ns > conn.begun_ns.max(conn.replied_ns) + span.as_nanos() as u64 && conn.proto.inflight() > 0
        })
    }

    fn reset(&mut self, conn: ConnId) {
        self.world.drive(conn.0, |conn, now, out| conn.proto.reset(now, out));
    }

    fn subscribe(&mut self, conn: ConnId, topic: &[u8]) {
        self.world.check_topic(conn.0, topic);
        self.world.drive(conn.0, |conn, now, out| {
            let _ = conn.proto.command(now, Command::Subscribe { topic }, out);
            Ok(())
        });
    }

    fn unsubscribe(&mut self, conn: ConnId, topic: &[u8]) {
        self.world.drive(conn.0, |conn, now, out| {
            let _ = conn.proto.command(now, Command::Unsubscribe { topic }, out);
            Ok(())
        });
    }

    fn probe(&mut self, conn: ConnId) {
        self.world.checks.probes += 1;
        self.world.drive(conn.0, |conn, now, out| {
            let _ = conn.proto.command(now, Command::Probe, out);
            Ok(())
        });
    }

    fn doubt(&mut self) {
        self.world.doubted = true;
    }

    fn inflight(&self) -> usize {
        self.world.inflight
    }

    fn latency_ns(&self, conn: ConnId) -> u64 {
        self.world.conns.get(&conn.0).map_or(0, |conn| conn.latency_ns)
    }

    fn place(&self, conn: ConnId) -> Option<Place> {
        self.world.conns.get(&conn.0)?.place.clone()
    }

    fn tenancy(&self, conn: ConnId) -> (usize, Tenancy) {
        let of = self.world.conns.get(&conn.0);
        of.map_or((0, Tenancy::Spoiled), |conn| (conn.proto.inflight(), conn.proto.tenancy()))
    }

    fn fail(&mut self, request: RequestId, status: Status, code: &str, message: &str) {
        self.world.end(request.0, status, IOK_FATE_NOT_SENT, format!("{code} {message}").as_bytes());
    }

    fn finish(&mut self, request: RequestId, _body: Body<'_>) {
        self.world.end(request.0, IOK_STATUS_OK, IOK_FATE_REPLIED, b"");
    }

    fn lease(&mut self, request: RequestId, lease: u64) {
        self.world.program.leases.push(lease);
        self.world.end(request.0, IOK_STATUS_OK, IOK_FATE_REPLIED, b"");
    }

    fn accept(&mut self, stream: RequestId) {
        if let Some(req) = self.world.live_mut(stream.0) {
            req.accepted = true;
        }
    }

    fn is_live(&self, request: RequestId) -> bool {
        self.world.live(request.0).is_some()
    }
}
