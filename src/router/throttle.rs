//! How much an endpoint and its peers are given: rates with bursts, a budget for retries, and a limit that finds itself.

use std::time::{Duration, Instant};

/// So many per second, and so many at once: a token bucket.
#[derive(Clone, Debug)]
pub struct Bucket {
    per_second: f64,
    burst: f64,
    tokens: f64,
    at: Instant,
}

impl Bucket {
    /// Starts full.
    pub fn new(rate: Rate, now: Instant) -> Self {
        Bucket { per_second: rate.per_second, burst: rate.burst, tokens: rate.burst, at: now }
    }

    fn refill(&mut self, now: Instant) {
        let gained = now.saturating_duration_since(self.at).as_secs_f64() * self.per_second;
        self.tokens = (self.tokens + gained).min(self.burst);
        self.at = self.at.max(now);
    }

    /// Takes one, if one is there.
    pub fn take(&mut self, now: Instant) -> bool {
        self.refill(now);
        let there = self.tokens >= 1.0;
        if there {
            self.tokens -= 1.0;
        }
        there
    }

    /// True if one is there.
    pub fn has(&mut self, now: Instant) -> bool {
        self.refill(now);
        self.tokens >= 1.0
    }

    /// How many are there.
    pub fn count(&mut self, now: Instant) -> usize {
        self.refill(now);
        self.tokens as usize
    }

    /// When the next one is there.
    pub fn next(&self) -> Instant {
        // A little later than exact, so that rounding never makes it early.
        let missing = (1.0 - self.tokens).max(0.0) / self.per_second;
        self.at + Duration::from_secs_f64(missing) + Duration::from_micros(1)
    }
}

/// A rate as the URL gives it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    pub per_second: f64,
    /// At least 1.
    pub burst: f64,
}

/// How many retries there may be, as a share of the requests: when everything fails, retries must not double the load.
#[derive(Clone, Debug)]
pub struct Budget {
    /// What each request adds.
    share: f64,
    tokens: f64,
}

impl Budget {
    /// Retries that are there before any request, so that a quiet program has some.
    const RESERVE: f64 = 100.0;
    /// The most that a long quiet time gathers.
    const KEPT_MAX: f64 = 10_000.0;

    pub fn new(share: f64) -> Self {
        Budget { share, tokens: if share > 0.0 { Self::RESERVE } else { 0.0 } }
    }

    #[inline]
    pub fn request(&mut self) {
        self.tokens = (self.tokens + self.share).min(Self::KEPT_MAX);
    }

    pub fn take(&mut self) -> bool {
        let there = self.tokens >= 1.0;
        if there {
            self.tokens -= 1.0;
        }
        there
    }
}

/// A limit of requests in flight that follows what the peer can take: it grows while latency stays near the best that
/// was seen, and shrinks as requests begin to queue in the peer (the gradient of Netflix' concurrency-limits).
#[derive(Clone, Debug)]
pub struct Adaptive {
    limit: f64,
    max: f64,
    /// The best latency of late; rises slowly, so that a peer which became slower for good is believed after a while.
    best_ns: f64,
    next: Option<Instant>,
}

impl Adaptive {
    const MIN: f64 = 4.0;
    const START: f64 = 32.0;
    const EVERY: Duration = Duration::from_millis(10);
    /// Latency may be so many times the best before the limit shrinks.
    const TOLERANCE: f64 = 2.0;

    pub fn new(max: usize) -> Self {
        Adaptive { limit: Self::START.min(max as f64), max: max as f64, best_ns: 0.0, next: None }
    }

    pub fn limit(&self) -> usize {
        self.limit as usize
    }

    /// Learns from the latency of late, with so many in flight.
    pub fn learn(&mut self, now: Instant, latency_ns: u64, inflight: usize) {
        if latency_ns == 0 || self.next.is_some_and(|next| now < next) {
            return;
        }
        let latency = latency_ns as f64;
        self.next = Some(now + Self::EVERY.max(Duration::from_nanos(latency_ns)));
        self.best_ns = if self.best_ns == 0.0 { latency } else { latency.min(self.best_ns * 1.002) };
        let gradient = (Self::TOLERANCE * self.best_ns / latency).clamp(0.5, 1.0);
        let room = self.limit.sqrt();
        // A limit that nobody reaches proves nothing.
        if gradient < 1.0 || inflight as f64 * 2.0 >= self.limit {
            let wanted = self.limit * gradient + room;
            self.limit = (0.8 * self.limit + 0.2 * wanted).clamp(Self::MIN.min(self.max), self.max);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let now = Instant::now();
        let mut bucket = Bucket::new(Rate { per_second: 100.0, burst: 5.0 }, now);
        assert_eq!((0..10).filter(|_| bucket.take(now)).count(), 5);
        assert!(!bucket.take(now + Duration::from_millis(9)));
        let next = bucket.next();
        assert!(next > now && next <= now + Duration::from_millis(11));
        assert!(bucket.take(next) && !bucket.take(next));
        let mut given = 0;
        for ms in 0..1000 {
            given += usize::from(bucket.take(next + Duration::from_millis(ms)));
        }
        assert!((98..=101).contains(&given), "{given}");
    }

    #[test]
    fn a_budget_is_a_share_of_the_requests() {
        let mut budget = Budget::new(0.2);
        while budget.take() {}
        (0..100).for_each(|_| budget.request());
        assert!((19..=20).contains(&std::iter::repeat_with(|| budget.take()).take_while(|taken| *taken).count()));
        assert!(!Budget::new(0.0).take());
    }

    #[test]
    fn an_adaptive_limit_grows_while_it_is_fast_and_shrinks_when_it_is_slow() {
        let mut now = Instant::now();
        let mut adaptive = Adaptive::new(1000);
        let mut learn = |adaptive: &mut Adaptive, latency_ns, times| {
            for _ in 0..times {
                now += Duration::from_millis(50);
                adaptive.learn(now, latency_ns, adaptive.limit());
            }
        };
        learn(&mut adaptive, 1_000_000, 100);
        let fast = adaptive.limit();
        assert!(fast > 100, "{fast}");
        learn(&mut adaptive, 20_000_000, 30);
        assert!(adaptive.limit() < fast / 4, "{}", adaptive.limit());
        assert!(adaptive.limit() >= 4);
    }
}
