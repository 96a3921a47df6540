//! The requests under way: `/requests`.

use super::admin::{Answer, Ask, Outcome};
use crate::config::ConfigError;
use crate::kernel::io::Io;

impl Io {
    pub fn answer_requests(&mut self, _ask: &mut Ask) -> Result<Outcome, ConfigError> {
        Ok(Outcome::Now(Answer::json(200, &serde_json::json!({ "count": self.core.requests.len() }))))
    }
}
