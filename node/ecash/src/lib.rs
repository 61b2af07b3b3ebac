//! Ecash in the format of Cashu, without I/O and without a clock.
//!
//! 1. [`Keysets`] are a mint's public keys, fetched beforehand.
//! 2. [`verify()`] judges a token with them alone: whether the mint signed each proof (NUT-12), and whether nobody
//!    but this node can spend it (NUT-11).
//! 3. [`Outputs`] are what such proofs are exchanged for at the mint (NUT-03), written down before the mint sees them.
//! 4. [`wallet_token`] makes a token for a wallet out of what the mint gave.
//! 5. [`WalletToken`], [`choose`] and [`Outputs::exact`] are what a consumer's wallet does: it reads a token, chooses
//!    proofs, and exchanges them for an exact amount that only a node can spend.
//! 6. [`request()`] tells a payer what to send (NUT-18, NUT-24).
//!
//! The crate `cashu` has the formats and the arithmetic. What it says of itself is "alpha", hence its exact version.

mod key;
mod keyset;
mod purse;
mod request;
mod swap;
#[cfg(any(test, feature = "test-util"))]
#[doc(hidden)]
pub mod testing;
mod verify;

pub use key::{LockKey, NotAKey};
pub use keyset::{Keysets, KeysetsError, mint_url};
pub use purse::{Held, TokenError, WalletToken, choose};
pub use request::{WantedPayment, request};
pub use swap::{
    Lock, Outputs, Refund, SpentState, SwapError, check_request, check_response, wallet_token,
};
pub use verify::{MAX_PROOFS, MAX_TOKEN, Refusal, Rules, Verified, VerifiedProof, verify};
