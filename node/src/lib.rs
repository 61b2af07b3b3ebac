//! weir: a high-capacity exit node for decentralised VPNs.
//!
//! A tour, in the order in which a packet and then its bytes meet the modules:
//!
//! - [`kernel`]: the eBPF programs (XDP guard, socket and queue steering) and the accounts that
//!   they share with us.
//! - [`dataplane`]: the workers. `dataplane::pipeline` is pure; the rest is I/O around it.
//! - [`host`]: what the node changes on the machine (TUN, addresses, nftables) and how it takes
//!   every change back.
//! - [`sandbox`]: what a running node gives up.
//! - [`resolver`]: names, looked up outside of the sandbox.
//! - [`core_dump`]: there is none.
//! - [`policy`]: what consumers may not reach, and why.
//! - [`session`]: who may use the node, and what they have used; kept in SQLite.
//! - [`limits`]: how much may pass: rates, quotas, times of the week.
//! - [`payment`]: how consumers pay as they go, in the format of the Mysterium network.
//! - [`gateway`]: what consumers reach of the node itself, inside the tunnel.
//! - [`api`] and [`metrics`]: how the operator, the payment layer and Prometheus see it.
//! - [`mod@bench`]: how much a machine carries, measured with load of our own.
//! - [`doctor`]: what a machine offers a node and what is in the way, told without changing it.
//! - [`reload`]: how a running node takes a changed configuration.
//! - [`logging`]: what it writes of all that, which is nothing about consumers.
//! - [`config`], [`cli`], [`node`]: the edges. [`node`] puts everything together.

pub mod api;
pub mod bench;
pub mod cli;
pub mod config;
mod connections;
pub mod control;
pub mod core_dump;
pub mod dataplane;
pub mod delivery;
pub mod doctor;
pub mod fleet;
pub mod gateway;
pub mod host;
pub mod kernel;
pub mod limits;
pub mod live;
pub mod logging;
pub mod metrics;
pub mod node;
pub mod payment;
pub mod policy;
pub mod reload;
pub mod resolver;
pub mod sandbox;
pub mod session;
pub mod uapi;
