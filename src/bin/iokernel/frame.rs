//! One frame of the live view, from what was last seen, for a screen of a given size. No I/O.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::Value;

use super::show::{self, Line, Rates, Tone, line};
use super::words::{cut, items, span};

/// What the screen shows below its header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum View {
    #[default]
    Overview,
    Requests,
    Stack,
}

/// One look at a kernel.
#[derive(Clone, Debug, Default)]
pub struct Look {
    pub state: Value,
    /// Null, or the answer of `/requests`.
    pub requests: Value,
    /// Null, or the answer of `/stack`.
    pub stack: Value,
}

/// Everything that a frame is drawn from.
#[derive(Clone, Debug, Default)]
pub struct Scene {
    pub view: View,
    pub look: Option<Look>,
    pub rates: Rates,
    /// Since when and why nothing was heard.
    pub silent: Option<(Duration, String)>,
}

const KEYS: &str = "q quit  r requests  s stack  o overview";

/// At most `height` lines of at most `width` characters. Without a height, everything, and no keys.
pub fn draw(scene: &Scene, width: usize, height: Option<usize>) -> Vec<Line> {
    let mut lines = head(scene, width);
    let room = height.map_or(usize::MAX, |height| height.saturating_sub(lines.len() + 1));
    if let Some(look) = &scene.look {
        lines.extend(body(scene, look, width, room));
    }
    if let Some(height) = height {
        lines.truncate(height.saturating_sub(1));
        lines.resize(height.saturating_sub(1), line(Tone::Plain, ""));
        lines.push(line(Tone::Faint, KEYS));
    }
    lines.into_iter().map(|one| line(one.tone, cut(&one.text, width))).collect()
}

fn head(scene: &Scene, width: usize) -> Vec<Line> {
    let mut lines = match &scene.look {
        Some(look) => show::kernel(&look.state, width),
        None if scene.silent.is_none() => vec![line(Tone::Faint, "looking …")],
        None => Vec::new(),
    };
    if let Some((since, why)) = &scene.silent {
        let text = format!("no answer for {}: {}", span(since.as_millis() as f64), super::words::clean(why));
        lines.insert(0, line(Tone::Bad, text));
    }
    lines
}

fn body(scene: &Scene, look: &Look, width: usize, room: usize) -> Vec<Line> {
    match scene.view {
        View::Overview => overview(scene, look, width, room),
        View::Requests => section(show::requests(&look.requests, width), room),
        View::Stack if look.stack.is_null() => section(vec![line(Tone::Faint, "looking …")], room),
        View::Stack => section(show::stack(&look.stack, width), room),
    }
}

/// Endpoints and peers get up to a third of the room each, requests in flight what is left; what one does not need, the
/// next may have.
fn overview(scene: &Scene, look: &Look, width: usize, room: usize) -> Vec<Line> {
    let mut lines = section(show::endpoints(&look.state, &scene.rates, width), room / 3);
    let peers = show::peers(&look.state, &scene.rates, width);
    let requests = show::requests(&look.requests, width);
    let left = room - lines.len();
    let for_peers = if requests.len() < left / 2 { left - (requests.len() + 1).min(left) } else { left / 2 };
    if peers.len() > 1 {
        lines.extend(section(peers, for_peers));
    }
    lines.extend(section(requests, room - lines.len()));
    lines
}

/// An empty line and `lines`, cut to `room`, with how many were left out.
fn section(mut lines: Vec<Line>, room: usize) -> Vec<Line> {
    lines.insert(0, line(Tone::Plain, ""));
    if lines.len() > room {
        let kept = room.saturating_sub(1);
        let more = lines.len() - kept;
        lines.truncate(kept);
        if room > 0 {
            lines.push(line(Tone::Faint, format!("  … {more} more")));
        }
    }
    lines
}

/// Requests that each peer has seen.
#[derive(Clone, Debug, Default)]
pub struct Counts(HashMap<(u64, String), u64>);

impl Counts {
    pub fn of(state: &Value) -> Self {
        let endpoints = items(&state["endpoints"]).iter();
        let counts = endpoints.flat_map(|one| {
            items(&one["peers"]).iter().filter_map(|peer| {
                let key = (one["endpoint"].as_u64()?, super::words::text(&peer["name"]));
                Some((key, peer["requests"].as_u64()?))
            })
        });
        Counts(counts.collect())
    }

    /// Requests per second since `before`. A peer that is gone, or that began again, counts nothing.
    pub fn rates(&self, before: &Counts, passed: Duration) -> Rates {
        let mut rates = Rates::new();
        if passed.is_zero() {
            return rates;
        }
        for ((endpoint, peer), now) in &self.0 {
            let Some(then) = before.0.get(&(*endpoint, peer.clone())) else { continue };
            let rate = now.saturating_sub(*then) as f64 / passed.as_secs_f64();
            // Tenths say all that an eye can follow.
            let rate = (rate * 10.0).round() / 10.0;
            rates.insert((*endpoint, Some(peer.clone())), rate);
            *rates.entry((*endpoint, None)).or_insert(0.0) += rate;
        }
        rates
    }
}

#[cfg(test)]
mod tests;
