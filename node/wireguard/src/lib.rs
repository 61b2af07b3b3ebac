//! WireGuard (the whitepaper's protocol) as an exit node speaks it: the node's keys, initiations
//! before they are anybody's, and one tunnel for each consumer. Only [`keys`] does I/O, on key files.
#![forbid(unsafe_code)]

pub mod identity;
pub mod initiation;
pub mod keys;
pub mod timestamp;
pub mod tunnel;
