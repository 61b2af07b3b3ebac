//! How much passes: rates, quotas, times of the week.
//!
//! [`Limiter`] decides, off the packet path, and says it in three places: the rates in the accounts
//! (through [`Sessions`](crate::Sessions)), the level above which no session gets anything
//! of the node's rate ([`SharedLimits`](weir_accounts::SharedLimits)), and whether all sessions are
//! paused. The rest of this module is arithmetic.

pub mod calendar;
pub mod change;
pub mod demand;
mod limiter;
mod now;
pub mod share;

pub use change::{BadLimit, Change};
pub use limiter::{FlowShare, Limiter};
pub use now::{LimitsNow, QuotaNow};
