//! The ledger: what must not be lost of sessions, their use and their payments; kept in SQLite.
//!
//! - [`store`]: the database, its schema, usage records, integrity.
//! - [`payment`]: how consumers pay as they go, in the format of the Mysterium network.
//! - [`counters`]: the counters of an account, as columns.

pub mod counters;
pub mod payment;
mod quota;
mod session;
pub mod store;

pub use quota::{Began, Mark, Marks};
pub use session::{
    Credit, NotAnId, OwnRates, Pause, Session, SessionId, Usage, billed, state_name, unix_now,
};
pub use store::{Store, StoreError};
