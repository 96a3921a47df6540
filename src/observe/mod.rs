//! What is counted and how it is told: cells in shared memory, snapshots of them, and the texts of exporters.
//!
//! # Architecture invariants
//! This room knows no kernel, no endpoint and no socket: shapes of memory, text and HTTP framing alone. Whoever only
//! reads ([`snapshot`]) maps nothing and trusts nothing: an area may be any process's, and half written.

pub mod area;
pub mod delta;
pub mod graphite;
pub mod http;
pub mod markers;
pub mod metrics;
pub mod number;
pub mod otlp;
pub mod post;
pub mod read;
#[cfg(test)]
mod samples;
pub mod snapshot;
pub mod statsd;
#[cfg(test)]
mod tests;
pub mod text;
