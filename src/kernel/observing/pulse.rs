//! Whether the program's main thread does what it should: for how long it has been busy without a break, and what
//! `/healthz` makes of that.

use crate::config::{ConfigError, Options};
use crate::kernel::io::Io;

use super::admin::{Answer, Ask, Outcome};

#[derive(Clone, Debug, Default)]
pub struct PulseConfig {}

impl PulseConfig {
    pub fn take(_options: &mut Options) -> Result<Self, ConfigError> {
        Ok(PulseConfig {})
    }
}

#[derive(Default)]
pub struct Pulse {}

impl Io {
    pub fn begin_pulse(&mut self) {}

    pub fn pulse_timer(&mut self) {}

    /// The main thread, as `/state` shows it.
    pub fn main_json(&mut self) -> serde_json::Value {
        serde_json::json!({})
    }

    pub fn answer_healthz(&mut self, _ask: &mut Ask) -> Result<Outcome, ConfigError> {
        Ok(Outcome::Now(Answer::text(200, "ok\n")))
    }

    pub fn answer_readyz(&mut self, _ask: &mut Ask) -> Result<Outcome, ConfigError> {
        Ok(Outcome::Now(Answer::text(200, "ok\n")))
    }
}
