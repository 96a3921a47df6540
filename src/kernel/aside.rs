//! A word to a peer on a conn of its own ([`Event::Aside`](crate::proto::Event::Aside)), by the same way as the conn that
//! has it said: through the same proxy, with the same TLS, to the same place.

use std::time::Instant;

use super::conn::{Conn, Link};
use super::io::Io;
use crate::peer::Peer;
use crate::proto::{
    Admit, Command, Fault, FaultKind, Out, Progress, Protocol, Refusal, RequestId, Tenancy, Then, Transport,
};

/// Says it, and waits for the peer to close.
struct Aside {
    say: Vec<u8>,
}

impl Io {
    pub(super) fn begin_aside(&mut self, key: u32, say: Vec<u8>) {
        let Some(of) = self.conns.get(key as usize) else { return };
        let (endpoint, number) = (of.endpoint, of.number);
        let peer = Peer::new(of.peer_name.clone(), of.place.iter().cloned().collect());
        let server_name = of.server_name.clone();
        self.conn_numbers += 1;
        let mut conn = Conn::new(self.conn_numbers, endpoint, false, Link::Resolving, Box::new(Aside { say }));
        conn.connect_by = Some(self.core.now() + self.endpoints[endpoint as usize].options.connect_timeout);
        conn.aside_of = Some((key, number));
        (conn.peer_name, conn.server_name) = (peer.name.clone(), server_name);
        self.dial_conn(conn, &peer);
    }

    /// The conn of a word is gone.
    pub(super) fn aside_over(&mut self, (key, number): (u32, u32)) {
        if self.is_conn(key, number) {
            self.drive(key, |conn, now, out| {
                // It has nothing to refuse.
                let _ = conn.proto.command(now, Command::AsideOver, out);
                Ok(())
            });
        }
    }
}

impl Protocol for Aside {
    fn handle_open(&mut self, _now: Instant, _transport: &Transport, out: &mut Out<'_>) -> Result<(), Fault> {
        out.wire.append(&mut self.say);
        Ok(())
    }

    fn handle_input(&mut self, _now: Instant, input: &[u8], _out: &mut Out<'_>) -> Result<Progress, Fault> {
        Ok(Progress::Consumed(input.len()))
    }

    fn handle_eof(&mut self, _now: Instant, _out: &mut Out<'_>) -> Result<(), Fault> {
        Err(Fault { kind: FaultKind::Closed, message: "it was heard".into() })
    }

    fn handle_timeout(&mut self, _now: Instant, _out: &mut Out<'_>) -> Result<(), Fault> {
        Ok(())
    }

    fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    fn admit(&self, _body: &[u8]) -> Admit {
        Admit::Later
    }

    fn command(&mut self, _now: Instant, _command: Command<'_>, _out: &mut Out<'_>) -> Result<Then, Refusal> {
        Err(Refusal { code: "CLOSED", message: "this conn takes no requests".into() })
    }

    fn inflight(&self) -> usize {
        0
    }

    fn tenancy(&self) -> Tenancy {
        Tenancy::Spoiled
    }

    fn reset(&mut self, _now: Instant, _out: &mut Out<'_>) -> Result<(), Fault> {
        Ok(())
    }

    fn close(&mut self, _now: Instant, _out: &mut Out<'_>) {}

    fn abandon(&mut self, _each: &mut dyn FnMut(RequestId)) {}
}
