//! weir against real clients, in network namespaces.
//!
//! A [`Lab`] is three namespaces: a consumer, the internet, and the node. The node has one uplink,
//! as most deployments have: consumers reach it, and their traffic leaves, through the same
//! interface. A [`Node`] is `weir run` in there, a [`Client`] is wireguard-go with the
//! configuration that the node printed, and [`traffic`] is what they carry. What the benchmarks and
//! `weir bench` need too is in the crate `weir_testkit`.
//!
//! Everything needs root and says so when it is missing. Nothing is left behind: a lab removes
//! itself when dropped, also on a panic, and the next lab removes what a killed run left.

pub mod client;
pub mod connect;
pub mod disk;
pub mod faketime;
pub mod foreign_relay;
pub mod http;
pub mod iperf;
pub mod lab;
pub mod marketplace;
pub mod nats;
pub mod newcomer;
pub mod node;
pub mod nutshell;
pub mod payer;
pub mod privacy;
pub mod prometheus;
pub mod registry;
pub mod relay;
pub mod standin;
pub mod steps;
pub mod sweep;
pub mod traffic;
pub mod wallet;
pub mod wgquick;

pub use client::Client;
pub use lab::Lab;
pub use node::Node;
pub use payer::Payer;
pub use weir_testkit::{Namespace, Settings, command, flood, frames, process, until};
