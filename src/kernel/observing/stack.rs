//! The program's stack, taken by the program's own thread in a signal handler: `/stack`.

use mio::event::Event;

use super::admin::{Answer, Ask, Outcome};
use crate::config::ConfigError;
use crate::kernel::io::Io;

#[derive(Default)]
pub struct Stack {}

impl Io {
    pub fn stack_event(&mut self, _event: &Event) {}

    pub fn stack_timer(&mut self) {}

    pub fn answer_stack(&mut self, _ask: &mut Ask) -> Result<Outcome, ConfigError> {
        Ok(Outcome::Now(Answer::json(200, &serde_json::json!({}))))
    }
}
