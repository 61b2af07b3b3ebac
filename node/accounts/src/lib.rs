//! What the control plane and the packet path share.
//!
//! [`Accounts`] has one account for each slot, in memory that the guard may share and that outlives a
//! killed node. [`SharedLimits`] are the limits of all sessions. [`PeerControl`] adds and removes
//! sessions. [`Boundaries`] and [`Drops`] are counters.

mod accounts;
mod counts;
mod endpoint;
pub mod file;
mod peer;
mod shared_limits;

pub use accounts::Accounts;
pub use counts::{BATCHES, Boundaries, Boundary, Drops, GuardCount};
pub use endpoint::Endpoint;
pub use peer::{PeerControl, PeerSpec};
pub use shared_limits::{FlowLimits, SharedLimits};
