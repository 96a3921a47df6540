//! The options that every endpoint takes, whatever its protocol.

use std::time::Duration;

use crate::config::{ConfigError, Options};
use crate::proto::Limits;
use crate::ring::layout::IOK_TIMEOUT_NONE;
use crate::router::service::ServiceConfig;

/// Of a service or a listener.
#[derive(Clone, Debug)]
pub struct EndpointOptions {
    pub limits: Limits,
    /// Default of a request's `timeout_ms`.
    pub timeout_ms: u32,
    pub connect_timeout: Duration,
    pub keepalive: Duration,
    pub user_timeout: Option<Duration>,
    pub service: ServiceConfig,
    pub conns_max: usize,
}

fn as_ms(span: Duration) -> u32 {
    if span.is_zero() { IOK_TIMEOUT_NONE } else { (span.as_millis() as u32).max(1) }
}

impl EndpointOptions {
    /// Takes the common options; what is left is the protocol's, or unknown.
    pub fn take(options: &mut Options, listener: bool, seed: u64) -> Result<Self, ConfigError> {
        let seconds = Duration::from_secs;
        let default = Limits::default();
        let heartbeat = options.duration("heartbeat", default.heartbeat)?;
        let (message, timeout, inflight) =
            if listener { ("max_request", Duration::ZERO, 1024) } else { ("max_reply", seconds(30), 65_536) };
        let limits = Limits {
            message_bytes_max: options.bytes(message, default.message_bytes_max)?.min(u32::MAX as usize / 2),
            depth_max: options.number("max_depth", default.depth_max as u64, 1..=512)? as usize,
            inflight_max: options.number("max_inflight", inflight, 1..=1 << 24)? as usize,
            heartbeat: if heartbeat.is_zero() { seconds(365 * 86_400) } else { heartbeat },
            silence_max: options.duration("max_silence", seconds(10))?,
            raw: options.flag("raw", false)?,
            ..Limits::default()
        };
        let mut taken = EndpointOptions {
            limits,
            timeout_ms: as_ms(options.duration("timeout", timeout)?),
            connect_timeout: seconds(5),
            keepalive: options.duration("keepalive", seconds(60))?,
            user_timeout: None,
            service: ServiceConfig {
                queue_max: 65_536,
                lanes_max: 128,
                lane_idle: seconds(60),
                backoff_min: Duration::from_millis(50),
                backoff_max: seconds(5),
                seed,
            },
            conns_max: 10_000,
        };
        if listener {
            taken.conns_max = options.number("max_conns", 10_000, 1..=1 << 20)? as usize;
        } else {
            taken.take_service(options)?;
        }
        Ok(taken)
    }

    fn take_service(&mut self, options: &mut Options) -> Result<(), ConfigError> {
        self.connect_timeout = options.duration("connect_timeout", self.connect_timeout)?;
        let user_timeout = options.duration("user_timeout", Duration::ZERO)?;
        self.user_timeout = (!user_timeout.is_zero()).then_some(user_timeout);
        let service = &mut self.service;
        service.queue_max = options.number("max_queue", service.queue_max as u64, 1..=1 << 24)? as usize;
        service.lanes_max = options.number("lanes", service.lanes_max as u64, 1..=65_536)? as usize;
        service.lane_idle = options.duration("lane_idle", service.lane_idle)?;
        service.backoff_min = options.duration("backoff", service.backoff_min)?;
        service.backoff_max = options.duration("max_backoff", service.backoff_max)?;
        Ok(())
    }
}
