//! The buyer's side of a sale.
//!
//! 1. [`Plan`] judges a listing: whether this buyer can buy there, with what, and for how much. It is pure.
//! 2. [`Buyer`] pays and asks the exit for a configuration. A purchase is on the disk before the exit sees it, so that
//!    one that was interrupted goes on.
//! 3. [`WgConfig`] is the configuration. What an exit sends is parsed and written anew, because a configuration for
//!    `wg-quick` can have commands in it.
//! 4. [`TopUp`] pays an exit from inside the tunnel.
#![forbid(unsafe_code)]

mod buyer;
mod config;
mod plan;
mod record;
mod top_up;

pub use buyer::{BuyError, Buyer, Purchase, info};
pub use config::{NotAConfig, WgConfig};
pub use plan::{CannotBuy, Funds, Pay, Plan, Wish};
pub use record::{Open, OpenState, RecordError};
pub use top_up::{TopUp, TopUpError, ToppedUp, Wanted};
