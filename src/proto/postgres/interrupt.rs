//! Stopping what nobody waits for: a CancelRequest on a conn of its own (PostgreSQL 15 documentation, 55.2.8).
//!
//! The server stops whatever it executes when the word arrives. So the word is sent only while what nobody waits for is at
//! the head, and where others are behind it, only after a moment, in which most statements end by themselves. It may end in the very
//! moment of the word, and the unit behind it be hit: what was under way until the word had arrived and then failed as
//! cancelled was not executed, and is sent once more. Where a tenant has the conn, nothing is sent behind the word at all.
use std::time::{Duration, Instant};

use super::error::ServerError;
use super::session::{IDLE, Phase, Session};
use super::units::Kind;
use super::wire;
use crate::proto::{Event, Out};

/// How long what nobody waits for may keep others waiting before it is stopped.
const PATIENCE: Duration = Duration::from_millis(20);
/// A server that goes on nonetheless is asked again after twice as long each time.
const PATIENCE_MAX: Duration = Duration::from_secs(10);
/// SQLSTATE: query_canceled.
const CANCELED: &str = "57014";

/// What is under way to stop the unit at the head.
#[derive(Debug, Default)]
pub struct Interrupt {
    /// When the server is to be asked.
    at: Option<Instant>,
    /// How long the unit at the head may take after the word, before the next.
    patience: Duration,
    /// The word is on its way.
    pub asking: bool,
    /// So many units, from the head on, may be hit by a word that has arrived.
    exposed: usize,
}

impl Interrupt {
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.at.filter(|_| !self.asking)
    }

    /// The unit at the head is over. True if a word may have hit it.
    #[inline]
    pub fn popped(&mut self) -> bool {
        self.at = None;
        let exposed = self.asking || self.exposed > 0;
        self.exposed = self.exposed.saturating_sub(1);
        exposed
    }
}

impl Session {
    /// Another unit is at the head, or nobody waits for it any more.
    pub fn judge_head(&mut self, now: Instant, out: &mut Out<'_>) {
        if self.interrupt.at.is_some() || self.server.secret.is_none() || self.phase != Phase::Ready {
            return;
        }
        let owner = self.units.front().and_then(Kind::owner);
        if owner.is_none_or(|owner| !self.cancelled.contains(&owner.id)) {
            return;
        }
        self.interrupt.patience = PATIENCE;
        let is_alone = self.units.len() == 1;
        self.interrupt.at = Some(if is_alone { now } else { now + PATIENCE });
        self.interrupt_if_due(now, out);
    }

    pub fn interrupt_if_due(&mut self, now: Instant, out: &mut Out<'_>) {
        if self.interrupt.poll_timeout().is_none_or(|at| now < at) {
            return;
        }
        // Behind it is more of the same tenant's, which an error would end.
        if self.has_tenant() && self.units.len() > 1 {
            self.interrupt.at = Some(now + self.interrupt.patience);
            return;
        }
        let Some(secret) = self.server.secret else { return };
        self.interrupt.asking = true;
        self.scratch.clear();
        wire::cancel_request(&mut self.scratch, self.server.process, secret);
        out.events.emit(Event::Aside { say: &self.scratch });
    }

    /// The word has arrived, or will not.
    pub fn interrupted(&mut self, now: Instant, out: &mut Out<'_>) {
        self.interrupt.asking = false;
        self.interrupt.exposed = self.units.len();
        if self.interrupt.at.is_some() {
            self.interrupt.patience = (self.interrupt.patience * 2).min(PATIENCE_MAX);
            self.interrupt.at = Some(now + self.interrupt.patience);
        }
        if self.units.is_empty() && !self.waiting.is_empty() {
            self.send_waiting(out);
        }
    }

    /// Requests wait for the word to arrive.
    pub fn holds(&self) -> bool {
        self.interrupt.asking && self.has_tenant()
    }

    fn has_tenant(&self) -> bool {
        self.state.tenant || self.state.status != IDLE
    }

    /// A word that was meant for another has hit it, and it was rolled back whole.
    pub fn is_hit(&self, error: &ServerError, exposed: bool, may_have_acted: bool) -> bool {
        exposed && error.code == CANCELED && self.state.status == IDLE && !may_have_acted
    }
}
