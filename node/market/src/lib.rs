//! The market: exits that describe and sign themselves.
//!
//! [`listing`] and [`attestation`] have weir's own types. [`event`] is the foreign format: a signed Nostr event with the
//! tags of the Europa Protocol. [`key`] signs it. [`client`] gives it to relays and fetches those of
//! others. [`view`] is what a consumer knows of the market, and [`score`] compares exits for a wish.
//! [`history`] is what it has measured itself.
//! [`place`] reads an operator's databases of addresses. [`purchase`] is what a buyer and an exit send
//! each other. Nothing here needs root, eBPF or a node.
#![forbid(unsafe_code)]

pub mod attestation;
pub mod client;
pub mod event;
pub mod history;
pub mod key;
pub mod listing;
pub mod place;
pub mod purchase;
pub mod replace;
pub mod score;
#[cfg(any(test, feature = "test-util"))]
#[doc(hidden)]
pub mod testing;
pub mod view;
