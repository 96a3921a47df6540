//! The slow-request log: requests that took longer than their endpoint's `slow=`.

use super::admin::{Answer, Ask, Outcome};
use crate::config::ConfigError;
use crate::kernel::core::Ending;
use crate::kernel::io::Io;
use crate::kernel::request::Request;

#[derive(Default)]
pub struct Slow {}

impl Slow {
    /// A request of a service has ended.
    pub fn ended(&mut self, _request: &Request, _ending: &Ending, _now_ns: u64) {}
}

impl Io {
    pub fn answer_slow(&mut self, _ask: &mut Ask) -> Result<Outcome, ConfigError> {
        Ok(Outcome::Now(Answer::json(200, &serde_json::json!({ "slow": [] }))))
    }
}
