//! Pay as you go by promises, in the format of the Mysterium network: invoices that rise with use, and the
//! consumer's signed promises that answer them.
//!
//! [`price`] says what is due, [`agreement`] how much may be used until that is paid, [`invoice`] asks
//! for it, and [`verify`] judges the answer. The formats are in [`promise`], [`exchange`], [`channel`]
//! and [`signature`]; [`wire`] and [`account`] have them as JSON, for the node and for its consumers.
//!
//! No I/O and no clock. What must never be lost (agreements, preimages, the best promise of each
//! channel) is in the node's ledger. Settlement on a chain is outside.
#![forbid(unsafe_code)]

pub mod account;
pub mod agreement;
pub mod channel;
pub mod exchange;
pub mod invoice;
pub mod price;
pub mod promise;
pub mod signature;
pub mod verify;
pub mod wire;

pub use agreement::Agreement;
pub use exchange::ExchangeMessage;
pub use invoice::Invoice;
pub use price::{Price, Use};
pub use promise::Promise;
pub use verify::{Refusal, Terms};

#[cfg(test)]
mod vectors;
