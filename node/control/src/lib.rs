//! How the operator, the payment layer, Prometheus and consumers reach the node's control plane.
//!
//! - [`api`]: HTTP on a socket and a port, with the status page; [`client`] asks it.
//! - [`metrics`]: for Prometheus. [`uapi`]: for `wg show`.
//! - [`delivery`] and [`fleet`]: usage records, pushed to the payment layer.
//! - [`gateway`]: what consumers reach of the node itself, inside the tunnel.
//! - [`reload`]: how a running node takes a changed configuration.
//! - [`resolver`]: names, looked up outside of the sandbox.

pub mod api;
pub mod client;
mod connections;
pub mod delivery;
pub mod fleet;
pub mod gateway;
pub mod metrics;
pub mod reload;
pub mod resolver;
#[cfg(any(test, feature = "test-util"))]
#[doc(hidden)]
pub mod testing;
pub mod uapi;
pub mod view;
