//! What breaks, and what must hold nonetheless: the library through its C ABI, against a real Redis server, behind a
//! proxy that spoils what passes. `IOKERNEL_SOAK=1` (`make soak`) runs the long variants.

#[path = "../support/alone.rs"]
mod alone;
#[path = "../support/client.rs"]
mod client;
#[path = "../support/proxy.rs"]
mod proxy;
#[path = "../support/record.rs"]
mod record;
#[path = "../support/redis.rs"]
mod redis;
#[path = "../support/values.rs"]
mod values;

mod bad;
mod cancel;
mod closing;
mod corrupt;
mod cuts;
mod forks;
mod heart;
mod leading;
mod leases;
mod order;
mod silent;
mod threads;

/// Starts a private server, or ends the test with the reason printed.
#[macro_export]
macro_rules! redis_or_skip {
    ($($argument:expr),*) => {
        match $crate::redis::RedisServer::start(&[$($argument),*]) {
            Some(server) => server,
            None => return,
        }
    };
}
