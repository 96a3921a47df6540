//! Whether the program lives: for endpoints with `max_app_silence`, a program that takes nothing for so long loses its
//! leases, and its heartbeats stop, so that its peers learn of it as they would of a dead one.

use std::time::Duration;

use super::core::Target;
use super::io::Io;
use crate::ring::layout::{Completion, IOK_KIND_TICK};

/// What was last seen of the program.
#[derive(Default)]
pub struct Silence {
    watched: bool,
    seen_ns: u64,
    /// Changes whenever the program takes or submits anything.
    mark: u64,
}

/// Looks per shortest silence.
const LOOKS: u32 = 8;

impl Io {
    /// Begins to watch, if this endpoint wants that.
    pub fn watch_silence(&mut self, key: u32) {
        let wants = self.endpoints.get(key as usize).is_some_and(|of| of.options.app_silence.is_some());
        if wants && !self.silence.watched {
            (self.silence.watched, self.silence.seen_ns) = (true, self.core.now_ns);
            self.core.timer(1, Target::Silence);
        }
    }

    fn shortest_silence(&self) -> Option<Duration> {
        self.endpoints.iter().filter_map(|(_, of)| of.options.app_silence).min()
    }

    /// Looks at the program, and gives it something to take.
    pub fn look_at_program(&mut self) {
        let Some(shortest) = self.shortest_silence() else {
            self.silence.watched = false;
            return;
        };
        let mark = self.core.channels.iter().fold(0u64, |mark, (_, channel)| mark.wrapping_add(channel.activity()));
        if mark != self.silence.mark {
            (self.silence.mark, self.silence.seen_ns) = (mark, self.core.now_ns);
        }
        for (_, channel) in &mut self.core.channels {
            if channel.is_read_dry() {
                channel.put(Completion { kind: IOK_KIND_TICK, ..Completion::default() }, &[]);
            }
        }
        let silent = Duration::from_nanos(self.core.now_ns.saturating_sub(self.silence.seen_ns));
        let keys: Vec<u32> = self.endpoints.iter().map(|(key, _)| key as u32).collect();
        for key in keys {
            self.judge_silence(key, silent);
        }
        self.core.timer((shortest / LOOKS).as_millis() as u64, Target::Silence);
    }

    fn judge_silence(&mut self, key: u32, silent: Duration) {
        let of = &mut self.endpoints[key as usize];
        let Some(max) = of.options.app_silence else { return };
        let muted = silent >= max;
        if of.muted == muted {
            return;
        }
        of.muted = muted;
        if muted {
            let why = format!("the program took nothing for {silent:.1?} (max_app_silence={max:?})");
            self.with_router(key, |router, now, act| router.handle_silence(now, &why, act));
        } else {
            let conns: Vec<u32> =
                self.conns.iter().filter(|(_, conn)| conn.endpoint == key).map(|(key, _)| key as u32).collect();
            for conn in conns {
                self.rearm(conn);
            }
        }
    }
}
