//! IP packets as bytes: headers, checksums, and the super-packets of TUN devices. Pure: no I/O, no
//! clock.
//!
//! [`headers`] finds what a packet is; [`gro`] coalesces packets of a flow into a super-packet and
//! [`gso`] segments one again; [`virtio`] is the header that says how; [`arena`] and [`iov`] are the
//! memory that both build in.
#![forbid(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::indexing_slicing))]

pub mod arena;
pub mod checksum;
pub mod ecn;
pub mod gro;
pub mod gso;
pub mod headers;
pub mod iov;
#[cfg(any(test, feature = "test-util"))]
#[doc(hidden)]
pub mod testing;
pub mod virtio;
