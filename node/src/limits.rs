//! How much passes: rates, quotas, times of the week.
//!
//! [`Limiter`] decides, off the packet path, and says it in four places: the rates in the accounts
//! (through [`Sessions`](crate::session::Sessions)), the level above which no session gets anything
//! of the node's rate ([`Levels`](crate::dataplane::throttle::Levels)), the flows that a session may
//! have open ([`FlowTable`]), and whether all sessions are paused. The rest of this module is
//! arithmetic.

pub mod calendar;
pub mod demand;
mod limiter;
pub mod share;

pub use crate::config::{limit::BadLimit, limits::Change};
pub use limiter::{FlowTable, LimitError, Limiter};
