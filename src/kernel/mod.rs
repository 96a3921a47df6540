//! The I/O thread: poll loop, timers, conns, listeners.

pub mod dial;
