//! The packet path: workers, each with its own sockets, TUN queue and sessions.
//!
//! [`pipeline`] is what a worker does to packets, without any I/O. Around it are two shells,
//! `uring` and `syscall`, that bring packets in and out. [`handshake`] keeps handshakes away from
//! the workers until they are known to be somebody's.

pub mod arena;
mod buffers;
pub mod checksum;
pub mod coalesce;
pub mod contacts;
pub mod direct;
pub mod ecn;
pub mod endpoint;
pub mod fallback;
pub mod flow;
pub mod handshake;
pub mod identity;
pub mod inbox;
mod initiation;
pub mod inner;
pub mod limiter;
mod mapping;
mod message;
pub mod meters;
pub mod now;
pub mod outer;
pub mod peer;
pub mod pieces;
pub mod pipeline;
mod ring;
pub mod runs;
pub mod sketch;
pub mod split;
pub mod start;
pub mod stats;
mod syscall;
#[cfg(test)]
mod testing;
pub mod throttle;
mod timestamp;
pub mod tunnel;
pub mod udp;
pub mod uring;
pub mod virtio;
mod worker;
pub mod xsk;
