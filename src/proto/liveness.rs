//! When to send a heartbeat, and when a peer has been silent for too long.
use std::time::{Duration, Instant};

/// The shortest time a peer is given to answer.
const SILENCE_MIN: Duration = Duration::from_millis(1);

/// What a conn owes at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    Nothing,
    Heartbeat,
    /// The peer has said nothing for so long since the heartbeat.
    Silent(Duration),
}

/// Times of one conn. A heartbeat is due when nothing was written for `heartbeat`, so that the server sees no idle
/// client; and when replies were due for as long and not a byte came, however much was written meanwhile.
#[derive(Debug)]
pub struct Liveness {
    heartbeat: Duration,
    silence_max: Duration,
    written: Instant,
    heard: Instant,
    /// When replies became due, the last time that there were none before.
    due_since: Instant,
    heartbeat_sent: Option<Instant>,
}

impl Liveness {
    /// `heartbeat` zero: none at all.
    pub fn new(now: Instant, heartbeat: Duration, silence_max: Duration) -> Self {
        let silence_max = silence_max.max(SILENCE_MIN);
        Liveness { heartbeat, silence_max, written: now, heard: now, due_since: now, heartbeat_sent: None }
    }

    #[inline]
    pub fn heard(&mut self, now: Instant) {
        self.heard = now;
    }

    /// A request is being written; `was_idle`: no reply was due before.
    #[inline]
    pub fn wrote(&mut self, now: Instant, was_idle: bool) {
        self.written = now;
        if was_idle {
            self.due_since = now;
        }
    }

    pub fn heartbeat_sent(&mut self, now: Instant, was_idle: bool) {
        self.wrote(now, was_idle);
        self.heartbeat_sent = Some(now);
    }

    pub fn heartbeat_answered(&mut self) {
        self.heartbeat_sent = None;
    }

    /// When `due` will say more than `Nothing`. `replies_due`: some request is unanswered. `quiet`: a heartbeat
    /// would not be answered.
    pub fn deadline(&self, replies_due: bool, quiet: bool) -> Option<Instant> {
        if let Some(sent) = self.heartbeat_sent {
            return sent.max(self.heard).checked_add(self.silence_max);
        }
        if quiet || self.heartbeat.is_zero() {
            return None;
        }
        let unheard_since = self.heard.max(self.due_since);
        let since = if replies_due { self.written.min(unheard_since) } else { self.written };
        since.checked_add(self.heartbeat)
    }

    pub fn due(&self, now: Instant, replies_due: bool, quiet: bool) -> Due {
        match self.deadline(replies_due, quiet) {
            Some(deadline) if deadline <= now => match self.heartbeat_sent {
                Some(sent) => Due::Silent(now - sent.max(self.heard)),
                None => Due::Heartbeat,
            },
            _ => Due::Nothing,
        }
    }
}
