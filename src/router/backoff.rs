//! When to try again: sooner at first, never in step with others.

use std::time::{Duration, Instant};

/// Exponential backoff with full jitter: each delay is drawn between half and the whole of a span that doubles.
#[derive(Clone, Debug)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    attempts: u32,
    until: Option<Instant>,
}

impl Backoff {
    pub fn new(min: Duration, max: Duration) -> Self {
        Backoff { min, max: max.max(min), attempts: 0, until: None }
    }

    /// One more failure: no attempt before the moment that `until` then says.
    pub fn failed(&mut self, now: Instant, rng: &mut fastrand::Rng) {
        let span = self.min.saturating_mul(1 << self.attempts.min(20)).min(self.max);
        let delay = span.mul_f64(0.5 + 0.5 * rng.f64());
        self.attempts = self.attempts.saturating_add(1);
        self.until = Some(now + delay);
    }

    pub fn succeeded(&mut self) {
        (self.attempts, self.until) = (0, None);
    }

    /// The next attempt may be made at once; what it grew to stays.
    pub fn hurry(&mut self) {
        self.until = None;
    }

    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// The next attempt's moment, while it is in the future.
    pub fn until(&self) -> Option<Instant> {
        self.until
    }

    /// May an attempt be made? Ends the wait if it is over.
    pub fn may_try(&mut self, now: Instant) -> bool {
        if self.until.is_some_and(|until| until <= now) {
            self.until = None;
        }
        self.until.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_longest_and_start_over_after_success() {
        let (min, max) = (Duration::from_millis(50), Duration::from_secs(1));
        let mut rng = fastrand::Rng::with_seed(1);
        let mut backoff = Backoff::new(min, max);
        let now = Instant::now();
        let mut spans = Vec::new();
        for _ in 0..12 {
            backoff.failed(now, &mut rng);
            assert!(!backoff.may_try(now));
            spans.push(backoff.until().unwrap() - now);
        }
        assert!(spans[0] >= min / 2 && spans[0] <= min);
        assert!(spans[11] >= max / 2 && spans[11] <= max);
        assert!(backoff.may_try(now + max));
        backoff.succeeded();
        backoff.failed(now, &mut rng);
        assert!(backoff.until().unwrap() - now <= min);
    }
}
