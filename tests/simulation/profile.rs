//! How the endpoint is opened.

/// One kind of endpoint, and the servers behind it.
pub struct Profile {
    pub name: &'static str,
    base: &'static str,
    query: &'static str,
    pub servers: Servers,
    pub count: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Servers {
    /// Each is a primary of its own.
    Alike,
    /// One primary, the others follow it.
    Replicated,
    /// Pairs of a primary and a replica, each with its share of the slots.
    Cluster,
}

use Servers::*;

const fn profile(
    name: &'static str,
    base: &'static str,
    query: &'static str,
    servers: Servers,
    count: usize,
) -> Profile {
    Profile { name, base, query, servers, count }
}

const LIST: &str = "redis://10.0.0.1,10.0.0.2,10.0.0.3";

pub static PROFILES: &[Profile] = &[
    profile("single", "redis://10.0.0.1", "", Alike, 1),
    profile("name", "redis://cache.test", "", Alike, 2),
    profile("list", LIST, "", Replicated, 3),
    profile("spread", "redis://all.test", "role=primary", Replicated, 3),
    profile("replica", LIST, "role=replica", Replicated, 3),
    profile("any", LIST, "role=any", Alike, 3),
    profile("nearest", LIST, "role=nearest", Alike, 3),
    profile("hash", "redis://all.test,b.test", "role=any&balance=hash&peers=all", Alike, 4),
    profile("elastic", "redis://10.0.0.1,10.0.0.2", "role=any", Alike, 2),
    profile("pool", LIST, "role=any&pool=2", Alike, 3),
    profile("growing", LIST, "role=any", Alike, 3),
    profile("cluster", "redis+cluster://10.0.0.1,10.0.0.2", "", Cluster, 6),
    profile("cluster-reads", "redis+cluster://all.test", "role=any", Cluster, 6),
    profile("inflight", LIST, "role=any&max_inflight=8&max_queue=24", Alike, 3),
    profile("rate", LIST, "role=primary&rate=200/s&burst=5&max_queue=40", Replicated, 3),
    profile("adaptive", LIST, "role=any&adaptive=true", Alike, 3),
    profile("peer-limits", LIST, "role=any&peer_rate=100/s&peer_burst=4&peer_inflight=6&max_queue=50", Alike, 3),
    profile("app", "redis+app://label", "role=any", Alike, 4),
    profile("app-primary", "redis+app://label", "role=primary", Replicated, 4),
    profile("srv", "redis+srv://cache.test", "role=any", Alike, 4),
    profile("srv-primary", "redis+srv://cache.test", "role=primary&peers=all", Replicated, 4),
    profile("sentinel", "redis+sentinel://s1,s2,s3/main", "", Replicated, 3),
    profile("sentinel-reads", "redis+sentinel://s1,s2,s3/main", "role=replica", Replicated, 3),
];

impl Profile {
    pub fn url(&self, rng: &mut fastrand::Rng) -> String {
        let mut query: Vec<String> =
            self.query.split('&').filter(|pair| !pair.is_empty()).map(str::to_string).collect();
        let mut maybe = |odds: usize, pair: &str| {
            let key = pair.split('=').next().unwrap_or_default();
            if rng.usize(..odds) == 0 && !query.iter().any(|known| known.starts_with(&format!("{key}="))) {
                query.push(pair.to_string());
            }
        };
        maybe(2, "timeout=3s");
        maybe(2, "connect_timeout=800ms");
        maybe(3, "heartbeat=300ms");
        maybe(3, "max_silence=700ms");
        maybe(2, "drain=400ms");
        maybe(3, "drain=3s");
        maybe(2, "lanes=3");
        maybe(3, "lane_idle=600ms");
        maybe(3, "max_queue=30");
        maybe(4, "retry_budget=0%");
        maybe(3, "max_backoff=1s");
        maybe(6, "pool=3");
        maybe(6, "max_inflight=20");
        maybe(6, "protocol=2");
        maybe(5, "rate=500/s");
        maybe(8, "adaptive=true");
        format!("{}?{}", self.base, query.join("&"))
    }

    /// Requests have conns to themselves.
    pub fn is_exclusive(&self) -> bool {
        self.name.starts_with("elastic")
    }

    /// There are more shared conns while those that there are are held up.
    pub fn is_growing(&self) -> bool {
        self.name == "growing"
    }

    pub fn is_cluster(&self) -> bool {
        self.servers == Cluster
    }

    /// The set of peers never changes.
    pub fn is_fixed(&self) -> bool {
        self.base.contains("redis://10.")
    }

    pub fn is_told(&self) -> bool {
        self.base.contains("+app")
    }

    pub fn has_sentinels(&self) -> bool {
        self.base.contains("+sentinel")
    }
}
