//! Pay as you go, in the format of the Mysterium network: invoices that rise with use, and the
//! consumer's signed promises that answer them.
//!
//! [`price`] says what is due, [`agreement`] how much may be used until that is paid, [`invoice`] asks
//! for it, [`verify`] judges the answer. The formats
//! are in [`promise`], [`exchange`], [`channel`] and [`signature`]; [`wire`] has them as JSON.
//! What must never be lost (agreements, preimages, the best promise of each channel) is in the
//! ledger: [`crate::agreements`]. Settlement on a chain is outside; the ledger has what it
//! needs.

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
