//! WireGuard at an exit node: the node's keys, the identification of initiations, and one tunnel for
//! each consumer. The sections named in this crate are those of the WireGuard whitepaper
//! (<https://www.wireguard.com/papers/wireguard.pdf>). Only [`keys`] does I/O, on key files.
//!
//! 1. [`identity`] holds the node's key pairs, the old one included while it is still accepted.
//! 2. [`initiation`] identifies the peer of an initiation, and [`timestamp`] detects its replay.
//! 3. [`tunnel`] is the tunnel with one consumer.
//!    Its parts are in `noise`.
//! 4. [`wg_quick`] prints a configuration.
//! 5. [`aead`] is the cipher of transport data. It alone has unsafe code.
#![deny(unsafe_code)]

pub mod aead;
pub mod identity;
pub mod initiation;
pub mod keys;
pub(crate) mod noise;
pub mod timestamp;
pub mod tunnel;
pub mod wg_quick;
