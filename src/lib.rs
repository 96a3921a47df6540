//! iokernel: all the networking of a program in one I/O thread that its interpreter cannot stall.
//!
//! A program opens endpoints by URL and exchanges complete messages with the thread over two rings in shared memory. The
//! thread resolves, connects, handshakes, heartbeats, frames, pipelines and fails over, whatever the program is doing.
//! Programs come in through the C ABI (`include/iokernel.h`); this crate has no other public promise.
//!
//! # The code map
//!
//! | room | what it is for |
//! |---|---|
//! | [`ffi`] | the only `extern "C"`: handles, the guard for panics and NULL, one file per noun of the header |
//! | [`ring`] | layout of the shared region, producer, consumer, the wake; the program's end of a channel |
//! | [`sys`] | the only libc: memfd, eventfd, futex, fork, threads, the clock |
//! | [`kernel`] | the I/O thread: poll loop, timers, conns, listeners, the life of a request |
//! | [`router`] | many conns behind one endpoint: the shared conn, lanes, leases, topics, backoff; no I/O |
//! | [`discovery`] | a URL becomes a changing set of peers: lists, DNS, SRV, files, the program, other services |
//! | [`proto`] | the [`proto::Protocol`] trait, the table of protocols, one folder each; no I/O |
//! | [`observe`] | counters in shared memory, and the texts that tell them |
//! | [`value`] | MessagePack in and out |
//! | `bin/iokernel` | the program `iokernel`, which asks kernels from outside and knows nothing of the other rooms |
//! | [`config`], [`peer`], [`status`] | the one grammar of URLs and options; peers and roles; how things went |
//!
//! From a URL scheme to the wire in four hops: `kernel/submit.rs` (an op) → `kernel/endpoint.rs` (the URL) →
//! [`proto::TABLE`] (the row) → `proto/<name>/` (the bytes).
//!
//! # Architecture invariants
//!
//! Arrows, proved by `tests/arrows.rs`: `ffi → kernel → {router, discovery, observe}`, `{ffi, kernel} → ring → sys`,
//! `router → proto → value`.
//!
//! - `proto`, `router` and `value` know no socket, no clock, no libc and no unsafe: time and bytes are passed in.
//! - `unsafe` stands in `ffi`, `ring` and `sys` alone, each block with its reason.
//! - The I/O thread calls nothing that it did not bring along: no callback, no interpreter, no second runtime. A thread
//!   of the program that waits in `iok_wait` turns its loop meanwhile, by the same code (`kernel/lead.rs`).
//! - Adding a protocol touches one folder and one word in one table; adding a language touches one folder.

// Models of the ring and the wake (`tests/loom.rs`) are built without the rooms that use them.
#[cfg(not(loom))]
pub mod config;
#[cfg(not(loom))]
pub mod discovery;
#[cfg(not(loom))]
pub mod ffi;
#[cfg(not(loom))]
pub mod kernel;
#[cfg(not(loom))]
pub mod observe;
#[cfg(not(loom))]
pub mod peer;
#[cfg(not(loom))]
pub mod proto;
pub mod ring;
#[cfg(not(loom))]
pub mod router;
pub mod status;
pub mod sys;
#[cfg(not(loom))]
pub mod value;
