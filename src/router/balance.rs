//! Which of several peers gets a request.

/// How an endpoint chooses among its peers (`balance=`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Balance {
    /// Of two drawn at random, the one with the least to do, weighed by its latency (power of two choices).
    #[default]
    Least,
    /// The peer that the request's hash belongs to.
    Hash,
}

/// What is known of a candidate.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub inflight: usize,
    /// 0: not measured yet.
    pub latency_ns: u64,
    pub weight: u16,
}

impl Load {
    /// Below this, differences of latency are noise.
    const LATENCY_FLOOR_NS: f64 = 100_000.0;

    /// How long one more request would take there, in relation to its weight.
    fn cost(&self) -> f64 {
        let latency = (self.latency_ns as f64).max(Self::LATENCY_FLOOR_NS);
        (self.inflight as f64 + 1.0) * latency / weight(self.weight)
    }
}

/// A weight of 0 means the least there can be (RFC 2782), not none.
fn weight(weight: u16) -> f64 {
    if weight == 0 { 0.01 } else { f64::from(weight) }
}

/// One in so many goes to a peer drawn at random, so that what is believed of the others stays true.
const EXPLORE_ONE_IN: usize = 64;

/// Index of the candidate that gets it, of `count` (at least 1).
pub fn least(rng: &mut fastrand::Rng, count: usize, load: impl Fn(usize) -> Load) -> usize {
    if count < 2 {
        return 0;
    }
    let one = rng.usize(..count);
    if rng.usize(..EXPLORE_ONE_IN) == 0 {
        return one;
    }
    let other = (one + 1 + rng.usize(..count - 1)) % count;
    let (a, b) = (load(one).cost(), load(other).cost());
    // Equal loads are told apart by the draw, in proportion to the weights.
    if a < b { one } else { other }
}

/// The candidate with the lowest latency.
pub fn nearest(rng: &mut fastrand::Rng, count: usize, load: impl Fn(usize) -> Load) -> usize {
    if count > 1 && rng.usize(..EXPLORE_ONE_IN) == 0 {
        return rng.usize(..count);
    }
    (0..count).min_by_key(|candidate| load(*candidate).latency_ns).unwrap_or(0)
}

/// Rendezvous hashing with weights: when a peer comes or goes, only its own share moves. Stable over processes: it depends
/// on the names and weights of the peers alone.
pub fn rendezvous<'a>(hash: u64, peers: impl Iterator<Item = (&'a str, u16)>) -> usize {
    let score = |name: &str, weight_of: u16| {
        let mixed = mix(hash ^ mix(fnv(name)));
        // In (0, 1): the logarithm makes shares proportional to the weights (Resch, 1995).
        let unit = ((mixed >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
        weight(weight_of) / -unit.ln()
    };
    let scored = peers.map(|(name, weight)| score(name, weight)).enumerate();
    scored.max_by(|(_, a), (_, b)| a.total_cmp(b)).map_or(0, |(index, _)| index)
}

/// FNV-1a, 64 bits.
fn fnv(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The finalizer of SplitMix64: every bit of the input moves every bit of the output.
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_choices_keep_the_loads_level_and_follow_weight_and_latency() {
        let share = |weights: [u16; 2], latencies: [u64; 2]| {
            let mut rng = fastrand::Rng::with_seed(7);
            let mut done = [0f64; 2];
            let mut inflight = [0usize; 2];
            for step in 0..20_000 {
                let load = |i: usize| Load { inflight: inflight[i], latency_ns: latencies[i], weight: weights[i] };
                inflight[least(&mut rng, 2, load)] += 1;
                // Peers finish in proportion to their speed.
                for i in 0..2 {
                    let speed = f64::from(weights[i]) / latencies[i] as f64;
                    let all = (0..2).map(|i| f64::from(weights[i]) / latencies[i] as f64).sum::<f64>();
                    if inflight[i] > 0 && rng.f64() < speed / all {
                        inflight[i] -= 1;
                        done[i] += 1.0;
                    }
                }
                assert!(inflight.iter().sum::<usize>() < 400, "step {step}: {inflight:?}");
            }
            done[0] / (done[0] + done[1])
        };
        assert!((0.45..0.55).contains(&share([1, 1], [1_000_000, 1_000_000])));
        assert!(share([3, 1], [1_000_000, 1_000_000]) > 0.65);
        assert!(share([1, 1], [1_000_000, 10_000_000]) > 0.8);
    }

    #[test]
    fn a_peer_that_was_slow_once_is_tried_again() {
        let mut rng = fastrand::Rng::with_seed(7);
        let load = |i: usize| Load { inflight: 0, latency_ns: [200_000, 114_000_000][i], weight: 1 };
        let slow = (0..10_000).filter(|_| least(&mut rng, 2, load) == 1).count();
        assert!((40..200).contains(&slow), "{slow}");
    }

    #[test]
    fn a_peer_that_leaves_moves_its_own_share_only() {
        let names: Vec<String> = (0..10).map(|i| format!("10.0.0.{i}:6379")).collect();
        let pick =
            |hash: u64, names: &[String]| names[rendezvous(hash, names.iter().map(|name| (name.as_str(), 1)))].clone();
        let mut shares = std::collections::HashMap::new();
        for hash in 0..20_000u64 {
            let before = pick(mix(hash), &names);
            let after = pick(mix(hash), &names[..9]);
            assert!(before == after || before == names[9]);
            *shares.entry(before).or_insert(0) += 1;
        }
        assert!(shares.values().all(|share| (1_700..2_300).contains(share)), "{shares:?}");
        let heavy = (0..10_000u64).filter(|hash| rendezvous(mix(*hash), [("a", 3), ("b", 1)].into_iter()) == 0).count();
        assert!((7_200..7_800).contains(&heavy), "{heavy}");
    }
}
