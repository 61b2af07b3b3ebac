//! Ecash in the ledger: tokens that consumers gave, their proofs, swaps with the mint, and what these brought.
//!
//! A token's way, each step in one transaction:
//!
//! 1. [`Ledger::take_token`]: token and proofs are written and credited, or written and held until the mint has
//!    exchanged them.
//! 2. [`Ledger::begin_swap`]: proofs join a swap whose blinded outputs are written before the mint sees them, so that
//!    a lost answer can be asked for again.
//! 3. [`Ledger::finish_swap`]: the mint's signatures are in the purse, and the proofs' secrets are gone.
//! 4. [`Ledger::credit_token`]: a token that was held is credited.
//! 5. [`Ledger::withdraw`]: proofs of the purse become a token for the operator's wallet, which stays until
//!    [`Ledger::confirm_withdrawal`].
//!
//! [`Ledger::take_token`]: crate::Ledger::take_token
//! [`Ledger::begin_swap`]: crate::Ledger::begin_swap
//! [`Ledger::finish_swap`]: crate::Ledger::finish_swap
//! [`Ledger::credit_token`]: crate::Ledger::credit_token
//! [`Ledger::withdraw`]: crate::Ledger::withdraw
//! [`Ledger::confirm_withdrawal`]: crate::Ledger::confirm_withdrawal

mod mints;
mod purse;
mod swaps;
pub(crate) mod tokens;

pub use self::{
    mints::MintTotals,
    purse::Withdrawal,
    swaps::{HeldProof, OpenSwap},
    tokens::{Accept, MAX_HELD, NewProof, NewToken, Taken, Uncredited},
};

#[cfg(test)]
mod tests;
