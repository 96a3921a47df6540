//! The whole kernel as JSON: `/state` and `/config`. What `/state` says of endpoints is what the program hears when it
//! asks: one map, told twice.

use serde_json::{Value, json};

use super::admin::{Answer, Ask, Outcome};
use crate::config::ConfigError;
use crate::kernel::io::Io;
use crate::value::json::to_json;

impl Io {
    pub fn answer_state(&mut self, ask: &mut Ask) -> Result<Outcome, ConfigError> {
        ask.query.finish()?;
        let state = json!({
            "kernel": self.kernel_json(),
            "main": self.main_json(),
            "endpoints": self.endpoints_json(),
            "channels": self.channels_json(),
            "traces": self.trace_json(),
        });
        Ok(Outcome::Now(Answer::json(200, &state)))
    }

    pub fn answer_config(&mut self, ask: &mut Ask) -> Result<Outcome, ConfigError> {
        ask.query.finish()?;
        let given = self.observing.config.given.iter();
        let kernel: serde_json::Map<String, Value> =
            given.map(|(key, value)| (key.clone(), value.as_str().into())).collect();
        let own = self.endpoints.iter().filter(|(_, of)| !of.internal);
        let endpoints: Vec<Value> = own.map(|(_, of)| json!({ "endpoint": of.number, "url": of.shown })).collect();
        Ok(Outcome::Now(Answer::json(200, &json!({ "kernel": kernel, "endpoints": endpoints }))))
    }

    fn kernel_json(&self) -> Value {
        let mut kernel = shown(&self.kernel_state_value());
        let uptime_ns = self.core.now_ns.saturating_sub(self.core.clock.started_ns());
        let more = [
            ("name", json!(self.observing.name)),
            ("pid", json!(std::process::id())),
            ("version", json!(env!("CARGO_PKG_VERSION"))),
            ("uptime_ms", json!(uptime_ns / 1_000_000)),
            ("admin", json!(self.admin_address())),
        ];
        if let Value::Object(map) = &mut kernel {
            // Each endpoint has its own map beside this one.
            map.remove("endpoints");
            map.extend(more.map(|(key, value)| (key.to_string(), value)));
        }
        kernel
    }

    fn endpoints_json(&mut self) -> Vec<Value> {
        let own = self.endpoints.iter().filter(|(_, of)| !of.internal);
        let keys: Vec<u32> = own.map(|(key, _)| key as u32).collect();
        keys.into_iter().map(|key| shown(&self.state_value(key))).collect()
    }

    fn channels_json(&self) -> Vec<Value> {
        let channels = self.core.channels.iter();
        let each = channels
            .map(|(_, channel)| json!({ "channel": channel.id, "live": channel.live, "backlog": channel.backlog() }));
        each.collect()
    }
}

fn shown(map: &[u8]) -> Value {
    to_json(map).unwrap_or_else(|error| json!({ "error": error.to_string() }))
}
