//! WireGuard at an exit node: the node's keys, the identification of initiations, and one tunnel for
//! each consumer. The sections named in this crate are those of the WireGuard whitepaper
//! (<https://www.wireguard.com/papers/wireguard.pdf>). Only [`keys`] does I/O, on key files.
#![forbid(unsafe_code)]

pub mod identity;
pub mod initiation;
pub mod keys;
pub mod timestamp;
pub mod tunnel;
