//! A name becomes a set of addresses.
//!
//! * [`dns`]: the resolver, driven by the kernel's poll loop.
//! * [`hosts`]: the hosts file, which is asked before any server.
//! * [`sort`]: the order in which addresses are dialled.
//!
//! Watched sets (a name asked again as its TTL ends, the difference handed to the router), SRV records, files of peers
//! and Sentinel get a module each beside these.
//!
//! # Architecture invariants
//! Nothing here blocks, starts a thread or sleeps: the one I/O thread runs it all, and a slow name delays no other.
//! Small local files (resolv.conf, hosts) are the exception; they are read when they change.

pub mod dns;
pub mod hosts;
pub mod sort;
