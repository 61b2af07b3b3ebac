//! The packet path: workers, each with its own sockets, TUN queue and sessions.
//!
//! [`pipeline`] is what a worker does to packets, without any I/O. Around it are two shells,
//! `uring` and `syscall`, that bring packets in and out. [`handshake`] keeps handshakes away from
//! the workers until they are known to be somebody's.

mod buffers;
pub mod contacts;
pub mod direct;
pub mod fallback;
pub mod flow;
pub mod handshake;
pub mod inbox;
pub mod limiter;
mod mapping;
mod message;
pub mod meters;
pub mod now;
pub mod outer;
pub mod peer;
pub mod pipeline;
mod ring;
pub mod runs;
pub mod sketch;
pub mod start;
pub mod stats;
mod syscall;
#[cfg(test)]
mod testing;
pub mod throttle;
#[cfg(test)]
mod tunnel_tests;
pub mod udp;
pub mod uring;
mod worker;
pub mod xsk;
