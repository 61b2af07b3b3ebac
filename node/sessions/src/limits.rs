//! How much passes: rates, quotas, times of the week.
//!
//! [`Limiter`] decides, off the packet path, and says it in four places: the rates in the accounts
//! (through [`Sessions`](crate::Sessions)), the level above which no session gets anything
//! of the node's rate ([`SharedLimits`](weir_accounts::SharedLimits)), the flows that a session may
//! have open ([`FlowTable`]), and whether all sessions are paused. The rest of this module is
//! arithmetic.

pub mod calendar;
pub mod demand;
mod limiter;
mod now;
pub mod share;

pub use limiter::{FlowTable, LimitError, Limiter};
pub use now::{LimitsNow, QuotaNow};
pub use weir_config::{limit::BadLimit, limits::Change};
