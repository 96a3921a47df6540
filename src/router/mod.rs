//! Many conns behind one endpoint, without I/O: who gets which conn, who waits, what is dialled.
//!
//! A [`Router`] hears what happens (a request came, a conn is ready, a conn is gone) and acts through [`Act`], which the
//! kernel implements. Time is passed in, randomness is seeded, so that a failing run can be replayed.
//!
//! # Architecture invariants
//! No socket, no clock, no libc, no unsafe, and no protocol's name. A router never waits: what it wants done it asks for,
//! and hears of later.

pub mod backoff;
pub mod service;
#[cfg(test)]
mod tests;
pub mod topics;

use std::time::Instant;

use crate::proto::{Body, Class, RequestId, Tenancy};
use crate::status::Status;

/// One conn of the kernel; not used again for another while anyone may still name it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ConnId(pub u32);

/// What a router may ask of the kernel.
pub trait Act {
    /// Begins a conn. `handle_ready` or `handle_down` follows.
    fn dial(&mut self) -> ConnId;
    /// Closes a conn; its requests end as lost. `handle_down` does not follow.
    fn drop_conn(&mut self, conn: ConnId, why: &str);
    /// Gives a request to a ready conn.
    fn send(&mut self, conn: ConnId, request: RequestId) -> Sent;
    /// Takes a tenant's state off a conn; `handle_idle` follows once that is done.
    fn reset(&mut self, conn: ConnId);
    fn subscribe(&mut self, conn: ConnId, topic: &[u8]);
    fn unsubscribe(&mut self, conn: ConnId, topic: &[u8]);
    /// Requests under way on a conn, and the state that its tenants left.
    fn tenancy(&self, conn: ConnId) -> (usize, Tenancy);
    /// Ends a request without a reply of a peer.
    fn fail(&mut self, request: RequestId, status: Status, code: &str, message: &str);
    /// Ends a request well.
    fn finish(&mut self, request: RequestId, body: Body<'_>);
    /// Ends a lease request well: the conn is the caller's under this number.
    fn lease(&mut self, request: RequestId, lease: u64);
    /// Says that a stream stands.
    fn accept(&mut self, stream: RequestId);
    /// False once a request has ended.
    fn is_live(&self, request: RequestId) -> bool;
}

/// What became of a request that was given to a conn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// On its way, or refused for good and ended: done with.
    Gone,
    /// The conn takes no more at present; the request waits.
    Later,
}

/// Why a conn is gone.
#[derive(Clone, Debug)]
pub struct Down {
    /// It had become ready before.
    pub was_ready: bool,
    /// No other attempt will fare better until someone changes something: who waits is told at once.
    pub refused: bool,
    pub status: Status,
    pub message: String,
}

/// What an endpoint is like.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// `up`, `connecting` or `down`.
    pub word: &'static str,
    pub conns: usize,
    pub queued: usize,
    pub leases: usize,
    pub topics: usize,
    /// Attempts to connect since the last success.
    pub attempts: u32,
    pub last_error: Option<String>,
    pub description: String,
}

/// One endpoint's mind.
pub trait Router: Send {
    /// The endpoint was opened.
    fn handle_open(&mut self, now: Instant, act: &mut dyn Act);
    /// A request or stream came. `lease` is 0 for none.
    fn handle_request(&mut self, now: Instant, request: RequestId, class: Class, lease: u64, act: &mut dyn Act);
    /// Somebody wants a conn of their own.
    fn handle_lease(&mut self, now: Instant, request: RequestId, act: &mut dyn Act);
    /// A lease comes back. False if nobody held it.
    fn handle_release(&mut self, now: Instant, lease: u64, act: &mut dyn Act) -> bool;
    /// Somebody wants to know when the endpoint is up.
    fn handle_waiter(&mut self, request: RequestId, act: &mut dyn Act);
    /// A request has ended before its reply: cancelled, or its time is over. `conn`: where it had been sent.
    fn handle_ended(&mut self, now: Instant, request: RequestId, conn: Option<ConnId>, act: &mut dyn Act);
    /// A conn's handshake is done.
    fn handle_ready(
        &mut self,
        now: Instant,
        conn: ConnId,
        topics_beside_requests: bool,
        description: &str,
        act: &mut dyn Act,
    );
    /// A conn is gone, or was never made.
    fn handle_down(&mut self, now: Instant, conn: ConnId, down: &Down, act: &mut dyn Act);
    /// A conn has heard from its peer; `inflight` requests are left on it.
    fn handle_progress(&mut self, now: Instant, conn: ConnId, inflight: usize, tenancy: Tenancy, act: &mut dyn Act);
    /// A topic flows (None), or was refused or withdrawn, for the reason given.
    fn handle_topic(&mut self, conn: ConnId, topic: &[u8], end: Option<(&str, &str)>, act: &mut dyn Act);
    /// Who hears of a topic.
    fn listeners(&self, topic: &[u8]) -> &[RequestId];
    /// The stream that took a conn over.
    fn owner(&self, conn: ConnId) -> Option<RequestId>;
    /// True if progress on this conn is worth a `handle_progress`.
    fn wants_progress(&self, conn: ConnId) -> bool;
    fn handle_timeout(&mut self, now: Instant, act: &mut dyn Act);
    fn poll_timeout(&self) -> Option<Instant>;
    fn state(&self) -> State;
    /// The endpoint closes: every conn is named, for dropping. Requests are the kernel's to end.
    fn close(&mut self) -> Vec<ConnId>;
}
