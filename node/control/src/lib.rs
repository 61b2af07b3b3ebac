//! How the operator, the payment layer, Prometheus and consumers reach the node's control plane.
//!
//! 1. [`view`] is what all of them can see of a node: its status, as its [`view::NodeView`] reports
//!    it.
//!    [`flows`] is what they see of its exit: how packets leave, and the flows that it translates.
//! 2. [`api`] serves HTTP on a socket and a port, with the status page; [`client`] is its client.
//!    `connections` limits what unauthenticated clients can hold.
//! 3. [`metrics`] answers Prometheus, and [`uapi`] answers `wg show`.
//! 4. [`delivery`] pushes usage records to a webhook or a file, and [`fleet`] to a NATS server,
//!    whose commands it also takes.
//! 5. [`gateway`] serves consumers inside the tunnel: payments and DNS.
//! 6. [`market`] publishes the node's listing, and [`purchase`] sells sessions to strangers.
//! 7. [`reload`] changes a running node to a new configuration.
//! 8. [`resolver`] looks names up in a process outside the node's sandbox.

pub mod api;
pub mod client;
mod connections;
pub mod delivery;
pub mod ecash;
pub mod fleet;
pub mod flows;
pub mod gateway;
pub mod market;
pub mod metrics;
pub mod purchase;
pub mod reload;
pub mod resolver;
#[cfg(any(test, feature = "test-util"))]
#[doc(hidden)]
pub mod testing;
pub mod uapi;
pub mod view;
