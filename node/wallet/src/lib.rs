//! A consumer's purse of ecash (Cashu). A mint is a custodian: it holds the money that the ecash stands for.
//!
//! [`Wallet`] receives tokens, pays exact amounts that one payee alone can spend, and takes back what was not claimed.
//! No unit is lost when the process is killed: each exchange with a mint is in the wallet's file before the mint sees
//! it, and is finished later if its answer is lost.
#![forbid(unsafe_code)]

mod error;
pub mod http;
mod lock;
mod mint;
mod place;
mod store;
mod wallet;

pub use error::WalletError;
pub use mint::{Asked, Mints};
pub use place::default_directory;
pub use store::{Balance, Sent, SentState};
pub use wallet::{Amount, Mint, Payment, Received, Refund, Taken, Trust, Wallet};
