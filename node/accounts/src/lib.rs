//! What the control plane and the packet path share: one account for each slot, in memory that the
//! kernel's guard may share and that outlives a killed node; the limits of all sessions; what was
//! counted.

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
