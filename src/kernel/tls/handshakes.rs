//! Handshakes are carried on a few in each turn of the loop, in the order in which they have something to do, so that a
//! storm of them delays running conns by no more than [`TURN_NS`] and one step.
//!
//! A listener has `tls_pending` of them at most. One more takes the place of the one that has waited longest for its
//! client; if all of them wait for us, it stays in the backlog for a moment.

use std::io::Write;
use std::time::Instant;

use super::session::{Agreed, Session};
use super::words::Failure;
use super::{Side, Tls};
use crate::kernel::conn::{Conn, Link};
use crate::kernel::dial::Stream;
use crate::kernel::io::Io;
use crate::kernel::line::Line;
use crate::proto::Transport;
use crate::sys::clock::monotonic_ns;

/// Time that a turn spends on handshakes. An RSA signature takes the whole of it, thirty by ECDSA do.
const TURN_NS: u64 = 1_000_000;

/// A socket whose peer and we have yet to agree on keys.
pub struct Securing {
    pub socket: Stream,
    /// None before its first step.
    session: Option<Session>,
    /// The name that a client asked for.
    asked: Option<String>,
    /// It has something to do.
    queued: bool,
}

impl Securing {
    /// Does what can be done. What was agreed on, once it was.
    fn advance(
        &mut self,
        now: Instant,
        tls: &mut Tls,
        name: Option<&str>,
        scratch: &mut [u8],
    ) -> Result<Option<Agreed>, Failure> {
        let session = match &mut self.session {
            Some(session) => session,
            None => {
                tls.look(now);
                self.session.insert(tls.made.begin(name)?)
            }
        };
        let outcome = session.shake(&mut self.socket, scratch);
        self.asked = tls.take_asked().or(self.asked.take());
        Ok(outcome?.then(|| session.agreed()))
    }
}

fn securing(conn: &mut Conn) -> Option<&mut Securing> {
    match &mut conn.link {
        Link::Securing(securing) => Some(securing),
        _ => None,
    }
}

impl Io {
    fn tls_of(&mut self, endpoint: u32) -> Option<&mut Tls> {
        self.endpoints.get_mut(endpoint as usize)?.tls.as_deref_mut()
    }

    /// A socket stands: its handshake begins when it is its turn.
    pub(in crate::kernel) fn secure(&mut self, key: u32, socket: Stream) {
        let now = self.core.now();
        let Some(conn) = self.conns.get_mut(key as usize) else { return };
        conn.link = Link::Securing(Box::new(Securing { socket, session: None, asked: None, queued: false }));
        let (endpoint, number, is_server) = (conn.endpoint, conn.number, conn.is_server);
        if is_server && let Some(tls) = self.tls_of(endpoint) {
            tls.pending += 1;
            tls.half_open.push_back((key, number));
            let by = tls.timeout().map(|timeout| now + timeout);
            self.conns[key as usize].connect_by = by;
        }
        self.handshake_event(key);
        self.rearm(key);
    }

    /// Something came for a handshake, or its socket takes more.
    pub(in crate::kernel) fn handshake_event(&mut self, key: u32) {
        let Some(securing) = self.conns.get_mut(key as usize).and_then(securing) else { return };
        if !std::mem::replace(&mut securing.queued, true) {
            self.handshakes.push_back(key);
        }
    }

    /// Carries handshakes on for a while; at least one step of one.
    pub(in crate::kernel) fn shake_hands(&mut self) {
        if self.handshakes.is_empty() {
            return;
        }
        let begun_ns = monotonic_ns();
        while let Some(key) = self.handshakes.pop_front() {
            self.contain(key, |io| io.handshake(key));
            self.core.tick();
            if self.core.now_ns.saturating_sub(begun_ns) >= TURN_NS {
                break;
            }
        }
    }

    fn handshake(&mut self, key: u32) {
        let now = self.core.now();
        let Some(conn) = self.conns.get_mut(key as usize) else { return };
        let (name, endpoint) = (conn.server_name.take(), conn.endpoint);
        let of = self.endpoints.get_mut(endpoint as usize);
        let (Some(securing), Some(tls)) = (securing(conn), of.and_then(|of| of.tls.as_deref_mut())) else { return };
        securing.queued = false;
        let outcome = securing.advance(now, tls, name.as_deref(), &mut self.scratch);
        conn.server_name = name;
        match outcome {
            Ok(None) => {}
            Ok(Some(agreed)) => self.secured(key, agreed),
            Err(failure) => self.handshake_failed(key, failure),
        }
    }

    fn secured(&mut self, key: u32, agreed: Agreed) {
        let wall = Some(self.core.wall());
        let Some(conn) = self.conns.get_mut(key as usize) else { return };
        let Link::Securing(securing) = std::mem::replace(&mut conn.link, Link::Resolving) else { return };
        let Securing { socket, session: Some(session), asked, .. } = *securing else { return };
        let (endpoint, is_server) = (conn.endpoint, conn.is_server);
        if is_server {
            conn.connect_by = None;
            self.handshake_left(endpoint);
        }
        let (alpn, server_name) = (agreed.alpn.clone(), asked);
        let certificate = if is_server { None } else { session.certificate() };
        let transport = Transport { secure: true, certificate, alpn, server_name, wall, ..socket.transport() };
        if let Some(tls) = self.tls_of(endpoint) {
            tls.succeeded(agreed);
        }
        self.line_stands(key, Line::secure(socket, session), &transport);
        if is_server {
            self.came_late(key);
        }
    }

    fn handshake_failed(&mut self, key: u32, failure: Failure) {
        if failure.no_tls {
            self.rebuff(key);
        }
        let Some(conn) = self.conns.get(key as usize) else { return };
        let (endpoint, peer) = (conn.endpoint, &conn.peer_name);
        let message = match conn.server_name.as_ref().filter(|name| !peer.contains(name.as_str())) {
            Some(name) => format!("TLS with {name} at {peer}: {}", failure.words),
            None => format!("TLS with {peer}: {}", failure.words),
        };
        if let Some(tls) = self.tls_of(endpoint) {
            tls.failed(&message);
        }
        self.conn_failed(key, failure.status, failure.refused, message);
    }

    /// A client that speaks in the clear is told so, as far as its socket takes it.
    fn rebuff(&mut self, key: u32) {
        let Some(conn) = self.conns.get_mut(key as usize).filter(|conn| conn.is_server) else { return };
        let of = self.endpoints.get(conn.endpoint as usize);
        if let (Some(tls), Some(securing)) = (of.and_then(|of| of.tls.as_deref()), securing(conn)) {
            let _ = securing.socket.write(tls.rebuff);
        }
    }

    /// A handshake has taken too long.
    pub(in crate::kernel) fn handshake_late(&mut self, key: u32) {
        let Some(conn) = self.conns.get(key as usize) else { return };
        let Some(of) = self.endpoints.get(conn.endpoint as usize) else { return };
        let timeout = of.tls.as_ref().and_then(|tls| tls.timeout()).unwrap_or(of.options.connect_timeout);
        let heard = matches!(&conn.link, Link::Securing(one) if one.session.as_ref().is_some_and(Session::has_heard));
        let words = match heard {
            true => format!("the peer did not finish the handshake within {timeout:?}"),
            false => format!("the peer said nothing to the handshake within {timeout:?}: does it speak TLS?"),
        };
        self.handshake_failed(key, Failure::lost(words));
    }

    /// A handshake of a listener's client is over, well or not.
    pub(in crate::kernel) fn handshake_left(&mut self, endpoint: u32) {
        if let Some(tls) = self.tls_of(endpoint) {
            tls.pending = tls.pending.saturating_sub(1);
        }
    }

    /// Whether a listener may take one more client.
    pub(in crate::kernel) fn has_room(&self, endpoint: u32) -> bool {
        let Some(tls) = self.endpoints.get(endpoint as usize).and_then(|of| of.tls.as_deref()) else { return true };
        !tls.is_full() || self.longest_waiting(tls).is_some()
    }

    /// Takes its place from the handshake that has waited longest for its client, if there are too many.
    pub(in crate::kernel) fn make_room(&mut self, endpoint: u32) {
        let Some(tls) = self.endpoints.get_mut(endpoint as usize).and_then(|of| of.tls.as_deref_mut()) else { return };
        if tls.half_open.len() >= 2 * tls.pending.max(64) {
            let conns = &self.conns;
            tls.half_open.retain(|(key, number)| half_open(conns, *key, *number).is_some());
        }
        let longest = self.endpoints[endpoint as usize].tls.as_deref().filter(|tls| tls.is_full());
        if let Some(key) = longest.and_then(|tls| self.longest_waiting(tls)) {
            self.handshake_failed(key, Failure::lost("others came while the peer let us wait (tls_pending=)"));
        }
    }

    fn longest_waiting(&self, tls: &Tls) -> Option<u32> {
        let waits = |(key, number): &&(u32, u32)| half_open(&self.conns, *key, *number).is_some_and(|one| !one.queued);
        tls.half_open.iter().find(waits).map(|(key, _)| *key)
    }
}

/// The handshake of that conn, if it is under way.
fn half_open(conns: &slab::Slab<Conn>, key: u32, number: u32) -> Option<&Securing> {
    match &conns.get(key as usize).filter(|conn| conn.number == number)?.link {
        Link::Securing(securing) => Some(securing),
        _ => None,
    }
}

impl Tls {
    fn is_full(&self) -> bool {
        matches!(&self.options.side, Side::Server(server) if self.pending >= server.pending_max)
    }

    /// How long a listener's handshake may take.
    fn timeout(&self) -> Option<std::time::Duration> {
        match &self.options.side {
            Side::Server(server) => Some(server.timeout),
            Side::Client(_) => None,
        }
    }
}
