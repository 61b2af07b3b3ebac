//! The ledger: the sessions, what they used, what they paid, and whatever else a node must not lose. It is one SQLite
//! file, with one writer.
//!
//! The path of a byte through it:
//!
//! 1. The packet path counts the byte in the session's account. [`Ledger::checkpoint`] copies the counters here.
//! 2. [`Ledger::record`] writes a [`UsageRecord`], signed with the key in `receipt.key`.
//! 3. [`SharedLedger::announce`] wakes the readers, which hold a [`UsageLog`] and nothing else of the ledger.
//! 4. Each reader takes the records after its cursor ([`UsageLog::after`]) and delivers them.
//! 5. Only then does it move its cursor ([`UsageLog::set_delivered`]).
//! 6. [`Ledger::forget`] deletes records that every receiver has, after the configured time.
//! 7. [`Ledger::end`] closes the session with a last record. [`Ledger::sweep`] deletes its rows when their time is
//!    over, and adds what it used to the totals of all swept sessions.
//!
//! Beside that, [`Ledger::write_blocks`] has which session held which block of external ports, so that an abuse notice
//! can be answered ([`PortLog`]) without a log of flows. [`Ledger::forget_blocks`] deletes it in time.
//!
//! Each table has a checksum, which a start and [`scrub::scrub`] compare. [`check::Reader`] reads a ledger without
//! writing to it. [`agreements`] is what the ledger keeps of consumers who pay as they go (`weir-promise`).

pub mod agreements;
pub mod check;
pub mod counters;
pub mod credit;
mod deliveries;
pub mod ecash;
mod error;
mod integrity;
mod ledger;
mod port_blocks;
mod quota;
mod rates;
mod records;
mod retention;
mod row;
pub mod sales;
mod schema;
pub mod scrub;
mod session;
mod shared;
mod sql;
mod status;
mod sweep;
#[cfg(any(test, feature = "test-util"))]
#[doc(hidden)]
pub mod testing;
mod usage_log;
mod usage_record;
pub mod vouchers;

pub use error::LedgerError;
pub use ledger::Ledger;
pub use port_blocks::{BlockEvent, BlockSpan, PortLog, Ports};
pub use quota::{Began, Mark, Marks};
pub use records::MAX_RECORDS;
pub use retention::{Retention, Swept};
pub use session::{
    Credit, NotAnId, OwnRates, Pause, Session, SessionId, Usage, billed, state_name, unix_now,
};
pub use shared::SharedLedger;
pub use usage_log::UsageLog;
pub use usage_record::UsageRecord;
pub use weir_receipt::Receipt;
