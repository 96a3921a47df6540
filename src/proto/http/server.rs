//! The server's side of one conn.

use std::time::Instant;

use crate::proto::{
    Admit, Command, Fault, Limits, Out, Progress, Protocol, Refusal, RequestId, Tenancy, Then, Transport,
};

pub struct Server {
    limits: Limits,
}

impl Server {
    pub fn new(limits: Limits) -> Self {
        Server { limits }
    }
}

impl Protocol for Server {
    fn handle_open(&mut self, _now: Instant, _transport: &Transport, _out: &mut Out<'_>) -> Result<(), Fault> {
        Ok(())
    }

    fn handle_input(&mut self, _now: Instant, input: &[u8], _out: &mut Out<'_>) -> Result<Progress, Fault> {
        Ok(Progress::Consumed(input.len().min(self.limits.message_bytes_max)))
    }

    fn handle_eof(&mut self, _now: Instant, _out: &mut Out<'_>) -> Result<(), Fault> {
        Ok(())
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
        Ok(Then::Done)
    }

    fn inflight(&self) -> usize {
        0
    }

    fn tenancy(&self) -> Tenancy {
        Tenancy::Clean
    }

    fn reset(&mut self, _now: Instant, _out: &mut Out<'_>) -> Result<(), Fault> {
        Ok(())
    }

    fn close(&mut self, _now: Instant, _out: &mut Out<'_>) {}

    fn abandon(&mut self, _each: &mut dyn FnMut(RequestId)) {}
}
