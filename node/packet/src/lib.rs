//! IP packets as bytes: headers, checksums, and the super-packets of TUN devices. Pure: no I/O and no
//! clock.
//!
//! [`headers`] parses a packet, and [`extension`] what may lie between its IPv6 header and the next. [`gro`] coalesces packets of a flow into a super-packet, and [`gso`]
//! segments one. [`virtio`] is the header of a super-packet. [`arena`] and [`iov`] are the memory for
//! all of them. [`checksum`] and [`ecn`] are the arithmetic of two header fields.
//!
//! The modules are the face of this crate. Each is one noun with few items, and its name says which
//! kind of header, length or packet an item is about (`virtio::HEADER_LEN`, `gro::TunPacket`).
#![forbid(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::indexing_slicing))]

pub mod arena;
pub mod checksum;
pub mod ecn;
pub mod ethernet;
pub mod extension;
pub mod fragment;
pub mod gro;
pub mod gso;
pub mod headers;
pub mod iov;
#[cfg(any(test, feature = "test-util"))]
#[doc(hidden)]
pub mod testing;
pub mod virtio;
