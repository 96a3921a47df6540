//! The live page: one file that asks the admin endpoint for all the rest, and nobody else for anything.

use super::admin::{Answer, Ask, Outcome};
use crate::config::ConfigError;
use crate::kernel::io::Io;

const PAGE: &[u8] = include_bytes!("page.html");

impl Io {
    pub fn answer_page(&mut self, ask: &mut Ask) -> Result<Outcome, ConfigError> {
        ask.query.finish()?;
        Ok(Outcome::Now(Answer { status: 200, content_type: "text/html; charset=utf-8", body: PAGE.to_vec() }))
    }
}
