//! MessagePack in and out: the one form in which values cross the ring.
//!
//! [`Reader`] walks a buffer token by token without allocation; [`write`](mod@write) appends to a `Vec<u8>`. Both are
//! small cursors of our own: `rmp` reads through `std::io::Read`, whose error handling costs more than the decoding of
//! the few bytes a token has. Markers and numbers follow <https://github.com/msgpack/msgpack/blob/master/spec.md>.
//!
//! # Architecture invariants
//! No input panics, nothing recurses without a bound, and no length that a stranger wrote reserves memory.
pub mod date;
pub mod json;
mod read;
pub mod write;

pub use read::{Kind, Malformed, Reader, Token, whole};

#[cfg(test)]
mod tests;
