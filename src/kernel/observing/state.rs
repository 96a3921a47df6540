//! The whole kernel as JSON: `/state` and `/config`.

use super::admin::{Answer, Ask, Outcome};
use crate::config::ConfigError;
use crate::kernel::io::Io;

impl Io {
    pub fn answer_state(&mut self, _ask: &mut Ask) -> Result<Outcome, ConfigError> {
        Ok(Outcome::Now(Answer::json(200, &serde_json::json!({}))))
    }

    pub fn answer_config(&mut self, _ask: &mut Ask) -> Result<Outcome, ConfigError> {
        Ok(Outcome::Now(Answer::json(200, &serde_json::json!({}))))
    }
}
