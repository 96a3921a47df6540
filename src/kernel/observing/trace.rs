//! Tracing: spans of requests that carry a W3C trace context, sent as OTLP/HTTP.

use std::net::IpAddr;

use mio::event::Event;

use crate::config::{ConfigError, Options};
use crate::kernel::core::Ending;
use crate::kernel::io::Io;
use crate::kernel::request::Request;

#[derive(Clone, Debug, Default)]
pub struct TraceConfig {}

impl TraceConfig {
    pub fn take(_options: &mut Options) -> Result<Self, ConfigError> {
        Ok(TraceConfig {})
    }
}

#[derive(Default)]
pub struct Trace {}

impl Trace {
    /// A request that carries a trace context has ended.
    pub fn ended(&mut self, _request: &Request, _ending: &Ending, _now_ns: u64) {}
}

impl Io {
    pub fn begin_trace(&mut self) {}

    pub fn trace_event(&mut self, _key: u32, _event: &Event) {}

    pub fn trace_timer(&mut self, _key: u32) {}

    pub fn trace_resolved(&mut self, _key: u32, _outcome: Result<Vec<IpAddr>, String>) {}
}
