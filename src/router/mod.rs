//! Many conns behind one endpoint, without I/O: who gets which conn, who waits, what is dialled.
//!
//! A [`Router`] hears what happens (a request came, a conn is ready, a conn is gone) and acts through [`Act`], which the
//! kernel implements. Time is passed in, randomness is seeded, so that a failing run can be replayed.
//!
//! # Architecture invariants
//! No socket, no clock, no libc, no unsafe, and no protocol's name. A router never waits: what it wants done it asks for,
//! and hears of later.

pub mod backoff;
pub mod balance;
pub mod service;
#[cfg(test)]
mod tests;
pub mod throttle;
pub mod topics;

use std::time::{Duration, Instant};

use crate::peer::{Peer, Place, Role};
use crate::proto::{Body, Class, Fact, Need, Rejection, RequestId, Route, Tenancy};
use crate::status::Status;

/// One conn of the kernel; not used again for another while anyone may still name it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct ConnId(pub u32);

/// What a router may ask of the kernel.
pub trait Act {
    /// Begins a conn. `handle_ready` or `handle_down` follows.
    fn dial(&mut self, peer: &Peer) -> ConnId;
    /// Closes a conn; its requests end as lost. `handle_down` does not follow.
    fn drop_conn(&mut self, conn: ConnId, why: &str);
    /// Gives a request to a ready conn.
    fn send(&mut self, conn: ConnId, request: RequestId, how: How) -> Sent;
    /// Takes a tenant's state off a conn; `handle_idle` follows once that is done.
    fn reset(&mut self, conn: ConnId);
    fn subscribe(&mut self, conn: ConnId, topic: &[u8]);
    fn unsubscribe(&mut self, conn: ConnId, topic: &[u8]);
    /// Has the peer asked what it is and what it knows; `handle_fact` follows.
    fn probe(&mut self, conn: ConnId);
    /// The set of peers may be out of date: its source is to look again.
    fn doubt(&mut self);
    /// Requests under way on a conn, and the state that its tenants left.
    fn tenancy(&self, conn: ConnId) -> (usize, Tenancy);
    /// Ordinary requests of this endpoint that were sent and have not ended.
    fn inflight(&self) -> usize;
    /// How long a conn's requests take at present, smoothed; 0 before the first reply.
    fn latency_ns(&self, conn: ConnId) -> u64;
    /// The request at the head of a conn has kept it from giving any reply for longer than this.
    fn is_held_up(&self, conn: ConnId, span: Duration) -> bool;
    /// Where a conn leads.
    fn place(&self, conn: ConnId) -> Option<Place>;
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

/// How a request travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Among others; it counts as in flight.
    Shared,
    /// The same, to a peer that is asked to serve what it does not own yet.
    Asking,
    /// On a conn of its own.
    Own,
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
    /// Requests that it had and that were not done.
    pub under_way: usize,
    /// No other attempt will fare better until someone changes something: who waits is told at once.
    pub refused: bool,
    pub status: Status,
    pub message: String,
}

/// Why a request comes to its router once more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    /// Nothing of it had been written.
    NotSent,
    /// It was written, and may be repeated.
    Idempotent,
}

/// A request that a peer did not execute.
#[derive(Clone, Debug)]
pub struct Returned<'a> {
    /// Where it came from; None if that conn is gone.
    pub conn: Option<ConnId>,
    pub request: RequestId,
    pub need: Need,
    pub why: Rejection<'a>,
}

/// What an endpoint is like.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// `up`, `degraded`, `connecting` or `down`.
    pub word: &'static str,
    pub conns: usize,
    pub queued: usize,
    pub leases: usize,
    pub topics: usize,
    /// Attempts to connect since the last success, of the peer that has most.
    pub attempts: u32,
    pub last_error: Option<String>,
    pub description: String,
    pub peers: Vec<PeerState>,
}

/// What one peer of an endpoint is like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerState {
    pub name: String,
    /// `up`, `connecting`, `down`, `ejected`, `superseded`, `draining`, or `idle` for one that nothing is sent to.
    pub word: &'static str,
    pub role: Role,
    pub conns: usize,
    pub inflight: usize,
    pub latency_ns: u64,
    /// Ordinary requests that it was given.
    pub requests: u64,
    /// Conns that failed, and times that it refused to serve.
    pub failures: u64,
    pub weight: u16,
    pub priority: u16,
    pub last_error: Option<String>,
}

/// One endpoint's mind.
pub trait Router: Send {
    /// The endpoint's peers, all of them; again after each change.
    fn handle_peers(&mut self, now: Instant, peers: &[Peer], act: &mut dyn Act);
    /// The source of the peers cannot tell more than before.
    fn handle_unknown(&mut self, why: &str, act: &mut dyn Act);
    /// A request or stream came. `lease` is 0 for none.
    fn handle_request(&mut self, now: Instant, request: RequestId, need: Need, lease: u64, act: &mut dyn Act);
    /// A request comes once more, because its conn is gone.
    fn handle_again(&mut self, now: Instant, request: RequestId, need: Need, why: Again, act: &mut dyn Act);
    /// A peer did not execute a request. False: its caller is to have the peer's error.
    fn handle_rejected(&mut self, now: Instant, returned: Returned<'_>, act: &mut dyn Act) -> bool;
    /// Somebody wants a conn of their own.
    fn handle_lease(&mut self, now: Instant, request: RequestId, route: Route, act: &mut dyn Act);
    /// A lease comes back. False if nobody held it.
    fn handle_release(&mut self, now: Instant, lease: u64, act: &mut dyn Act) -> bool;
    /// The program has gone silent: what it holds for itself alone is taken from it.
    fn handle_silence(&mut self, now: Instant, why: &str, act: &mut dyn Act);
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
    /// A conn learnt something of its peer; may come before `handle_ready`.
    fn handle_fact(&mut self, now: Instant, conn: ConnId, fact: &Fact<'_>, act: &mut dyn Act);
    /// A conn is gone, or was never made.
    fn handle_down(&mut self, now: Instant, conn: ConnId, down: &Down, act: &mut dyn Act);
    /// A conn has heard from its peer; `inflight` requests are left on it.
    fn handle_progress(&mut self, now: Instant, conn: ConnId, inflight: usize, tenancy: Tenancy, act: &mut dyn Act);
    /// A topic flows (None), or was refused or withdrawn, for the reason given.
    fn handle_topic(&mut self, now: Instant, conn: ConnId, topic: &[u8], end: Option<(&str, &str)>, act: &mut dyn Act);
    /// Who hears of a topic on this conn.
    fn listeners(&self, conn: ConnId, topic: &[u8]) -> &[RequestId];
    /// The stream that took a conn over.
    fn owner(&self, conn: ConnId) -> Option<RequestId>;
    /// True if progress on this conn is worth a `handle_progress`.
    fn wants_progress(&self, conn: ConnId) -> bool;
    fn handle_timeout(&mut self, now: Instant, act: &mut dyn Act);
    fn poll_timeout(&self) -> Option<Instant>;
    /// The caller names what it knows of conns.
    fn state(&self, act: &dyn Act) -> State;
    /// Another number after each change of the state, the peers or their roles.
    fn version(&self) -> u64;
    /// Why a request that waits here has no conn, if that is because there is none.
    fn why_unavailable(&self) -> Option<String>;
    /// True while requests are served.
    fn is_up(&self) -> bool;
}

/// What comes as a stream alone, and never on a lease.
pub fn is_stream(class: &Class) -> bool {
    matches!(class, Class::Topics(_) | Class::Takeover | Class::Flow)
}
