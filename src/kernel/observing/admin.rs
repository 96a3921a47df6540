//! The admin endpoint: a small HTTP server for people and health checkers, on its own sockets in the I/O thread.

use mio::Registry;
use mio::event::Event;

use crate::config::{ConfigError, Options};
use crate::kernel::Failure;
use crate::kernel::io::Io;

#[derive(Clone, Debug, Default)]
pub struct AdminConfig {}

impl AdminConfig {
    pub fn take(_options: &mut Options) -> Result<Self, ConfigError> {
        Ok(AdminConfig {})
    }

    pub fn is_wanted(&self) -> bool {
        false
    }
}

/// Names a question whose answer comes later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(pub u64);

/// What was asked: the path without its query, and the query.
pub struct Ask {
    pub path: String,
    pub query: Options,
    /// The request's `Accept`, or empty.
    pub accept: String,
    pub ticket: Ticket,
}

/// An HTTP answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub content_type: &'static str,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn json(status: u16, value: &serde_json::Value) -> Self {
        let mut body = serde_json::to_vec_pretty(value).unwrap_or_default();
        body.push(b'\n');
        Answer { status, content_type: "application/json", body }
    }

    pub fn text(status: u16, text: impl Into<String>) -> Self {
        Answer { status, content_type: "text/plain; charset=utf-8", body: text.into().into_bytes() }
    }
}

/// Now, or by [`Io::admin_answer`] under the ask's ticket.
pub enum Outcome {
    Now(Answer),
    Later,
}

/// Everything that can be asked. `/` is the live page.
type Route = fn(&mut Io, &mut Ask) -> Result<Outcome, ConfigError>;
pub static ROUTES: &[(&str, Route)] = &[
    ("/requests", Io::answer_requests),
    ("/state", Io::answer_state),
    ("/config", Io::answer_config),
    ("/healthz", Io::answer_healthz),
    ("/readyz", Io::answer_readyz),
    ("/metrics", Io::answer_metrics),
    ("/stack", Io::answer_stack),
    ("/slow", Io::answer_slow),
];

#[derive(Default)]
pub struct Admin {}

impl Admin {
    /// Binds the sockets, where there are any to bind.
    pub fn bind(_config: &AdminConfig, _registry: &Registry) -> Result<Self, Failure> {
        Ok(Admin {})
    }
}

impl Io {
    pub fn admin_event(&mut self, _key: u32, _event: &Event) {}

    pub fn admin_timer(&mut self, _key: u32) {}

    /// The answer to an [`Outcome::Later`]. Of no effect if whoever asked has gone.
    pub fn admin_answer(&mut self, _ticket: Ticket, _answer: Answer) {}
}
