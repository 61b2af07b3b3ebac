//! The market: exits that describe and sign themselves.
//!
//! [`listing`] has weir's own types. [`event`] is the foreign format: a signed Nostr event with the
//! tags of the Europa Protocol. [`key`] signs it. [`purchase`] is what a buyer and an exit send each
//! other. Nothing here needs root, eBPF or a node.
#![forbid(unsafe_code)]

pub mod event;
pub mod key;
pub mod listing;
pub mod purchase;
#[cfg(any(test, feature = "test-util"))]
#[doc(hidden)]
pub mod testing;
