//! A registry: a Nostr relay for the listings of exits, with an API, a page and metrics on one port.
//! It needs neither root nor eBPF, and nothing of a node but the format of its listings.
//!
//! Without I/O and clocks:
//!
//! 1. [`admission`], [`quota`] and [`refusal`]: which events are stored, and why not.
//! 2. [`store`] and [`filter`]: the events in memory, and queries. [`record`] is one event.
//! 3. [`registry`] puts these together. [`relay`] is what a client may say (NIP-01, NIP-77).
//! 4. [`exits`], [`attestations`]: the API's queries and answers. [`info`]: the registry's description (NIP-11).
//!
//! With I/O: [`snapshot`] is the file that survives a restart, [`server`] listens, and its parts
//! serve sockets and copy from other registries.
#![forbid(unsafe_code)]

pub mod admission;
pub mod attestations;
mod clock;
mod dial_back;
pub mod exits;
pub mod filter;
mod http;
pub mod info;
mod listener;
pub mod metrics;
pub mod network;
mod page;
mod peers;
pub mod quota;
pub mod record;
pub mod refusal;
pub mod registry;
pub mod relay;
pub mod server;
pub mod snapshot;
mod socket;
pub mod source;
pub mod store;
#[cfg(any(test, feature = "test-util"))]
#[doc(hidden)]
pub mod testing;
