//! What a buyer and an exit send each other: the messages of the Europa Protocol's purchase, without
//! I/O and without a clock.
//!
//! 1. [`Info`] is the exit's description of itself (`GET /info`).
//! 2. [`Order`] is what is bought, and what it is paid with: the body and the headers of
//!    `POST /purchase`.
//! 3. [`Authorization`] is a signed event of the buyer (kind 24242) in the header `Authorization`.
//! 4. [`Answer`] is what the exit says: a configuration, or a [`Refusal`] with a [`Reason`].
//! 5. [`letter`] has the same messages, sealed (NIP-59), for exits that only relays can reach.
//!
//! Both sides use these types. Vouchers are weir's own addition.

mod answer;
mod auth;
mod info;
pub mod letter;
mod order;
mod reason;
#[cfg(test)]
mod tests;

pub use answer::{Answer, MAX_ANSWER, NotAnAnswer, Sold};
pub use auth::{AUTHORIZATION, Authorization, BuyerKey, Expected, MAX_HEADER, Offer};
pub use info::{Info, InfoPrice, Region, SPEC_VERSION, WireGuard};
pub use order::{MAX_BODY, MAX_PAYMENT, Order, Payment, X_CASHU, X_VOUCHER};
pub use reason::{Reason, Refusal};
