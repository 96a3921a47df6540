//! Whether the program's main thread does what it should: for how long it has been busy without a break, and what
//! `/healthz` makes of that.
//!
//! The I/O thread looks at the main thread from outside, a few times a second: is it asleep, has it slept since the last
//! look (the system counts voluntary switches), has it taken or submitted anything. Each of these is a break. While
//! something lies unread in the channel of an event loop of its for longer than two looks, nothing but taking it counts:
//! a loop that turns takes what comes, and a C call that sleeps with the interpreter's lock held is no break.

use std::time::Duration;

use serde_json::{Value, json};

use super::Part;
use super::admin::{Answer, Ask, Outcome};
use crate::config::{ConfigError, Options};
use crate::kernel::core::Core;
use crate::kernel::io::Io;
use crate::observe::markers;
use crate::sys::process::{self, ThreadLook};

#[derive(Clone, Debug, Default)]
pub struct PulseConfig {
    /// `/healthz` says no once the main thread has been busy for so long.
    pub busy_limit: Option<Duration>,
}

impl PulseConfig {
    /// Takes `busy_limit` (none unless given).
    pub fn take(options: &mut Options) -> Result<Self, ConfigError> {
        let limit = options.duration("busy_limit", Duration::ZERO)?;
        Ok(PulseConfig { busy_limit: (!limit.is_zero()).then_some(limit) })
    }
}

/// Time between two looks.
const LOOK_MS: u64 = 100;
/// What waits unread for so long waits for a program that is busy.
const UNREAD_NS: u64 = 2 * LOOK_MS * 1_000_000;

#[derive(Default)]
pub struct Pulse {
    look: ThreadLook,
    /// The last break, or the start.
    break_ns: u64,
    activity: u64,
    /// Since when something waits to be taken, and how much was taken then.
    unread: Option<(u64, u64)>,
}

impl Core {
    /// What a marker said, by its number.
    pub fn marker_text(&self, number: u32) -> Option<String> {
        (number != 0).then(|| markers::text_of(self.own.area.markers(), number)).flatten()
    }
}

impl Io {
    /// Looks again and again where somebody may ask.
    pub fn begin_pulse(&mut self) {
        self.observing.pulse.break_ns = self.core.now_ns;
        if self.is_observed() {
            self.pulse_timer();
        }
    }

    pub fn pulse_timer(&mut self) {
        self.take_pulse();
        self.part_timer_after(Part::Pulse, 0, LOOK_MS);
    }

    fn take_pulse(&mut self) {
        let now_ns = self.core.now_ns;
        let (mut activity, mut is_dry) = (0u64, true);
        for (_, channel) in self.core.channels.iter().filter(|(_, channel)| channel.is_of_main()) {
            activity = activity.wrapping_add(channel.activity());
            is_dry &= !channel.is_of_loop() || channel.is_read_dry();
        }
        let look = process::look_at_main();
        let pulse = &mut self.observing.pulse;
        let took = activity != std::mem::replace(&mut pulse.activity, activity);
        pulse.unread = match pulse.unread {
            _ if is_dry => None,
            Some((since, mark)) if mark == activity => Some((since, mark)),
            _ => Some((now_ns, activity)),
        };
        let is_stuck = pulse.unread.is_some_and(|(since, _)| now_ns.saturating_sub(since) > UNREAD_NS);
        let rested = look.is_asleep() || look.switches != pulse.look.switches;
        if took || rested && !is_stuck {
            pulse.break_ns = now_ns;
        }
        pulse.look = look;
    }

    /// What a thread says that it is doing, the outermost first.
    pub fn markers_of(&self, tid: u32) -> Vec<String> {
        markers::active(self.core.own.area.markers(), tid)
    }

    /// What a marker said, by its number.
    pub fn marker_text(&self, number: u32) -> Option<String> {
        self.core.marker_text(number)
    }

    /// Somebody may ask about this program at any time.
    fn is_observed(&self) -> bool {
        let config = &self.observing.config;
        config.pulse.busy_limit.is_some() || config.admin.is_wanted() || config.push.is_wanted()
    }

    /// For how long the main thread has been busy.
    pub fn main_busy_ns(&self) -> u64 {
        if !self.is_observed() {
            return 0;
        }
        let busy_ns = self.core.now_ns.saturating_sub(self.observing.pulse.break_ns);
        // The last look is not older than this, and says no more than that there was a break at some time in it.
        if busy_ns <= LOOK_MS * 1_000_000 * 3 / 2 { 0 } else { busy_ns }
    }

    /// What `/state` says of the main thread.
    pub fn main_json(&mut self) -> Value {
        self.take_pulse();
        json!({
            "busy_ms": self.main_busy_ns() / 1_000_000,
            "tid": std::process::id(),
            "state": self.observing.pulse.look.state.to_string(),
            "markers": self.markers_of(std::process::id()),
        })
    }

    pub fn answer_healthz(&mut self, ask: &mut Ask) -> Result<Outcome, ConfigError> {
        ask.query.finish()?;
        let (status, answer) = self.health();
        Ok(Outcome::Now(Answer::json(status, &answer)))
    }

    /// Whether the program is well: a status of HTTP, and what there is to say.
    pub fn health(&self) -> (u16, Value) {
        let busy = Duration::from_nanos(self.main_busy_ns());
        let limit = self.observing.config.pulse.busy_limit;
        let is_busy = limit.is_some_and(|limit| busy >= limit);
        let mut answer = json!({
            "status": if is_busy { "busy" } else { "ok" },
            "main_busy_ms": busy.as_millis() as u64,
        });
        if let Some(limit) = limit {
            answer["busy_limit_ms"] = json!(limit.as_millis() as u64);
        }
        (if is_busy { 503 } else { 200 }, answer)
    }

    pub fn answer_readyz(&mut self, ask: &mut Ask) -> Result<Outcome, ConfigError> {
        ask.query.finish()?;
        let missing = self.missing();
        let ready = missing.is_empty();
        let answer = json!({ "ready": ready, "missing": missing });
        Ok(Outcome::Now(Answer::json(if ready { 200 } else { 503 }, &answer)))
    }
}
