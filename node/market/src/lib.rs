//! The market: exits that describe and sign themselves.
//!
//! [`listing`] has weir's own types. [`event`] is the foreign format: a signed Nostr event with the
//! tags of the Europa Protocol. [`key`] signs it. Nothing here needs root, eBPF or a node.
#![forbid(unsafe_code)]

pub mod event;
pub mod key;
pub mod listing;
#[cfg(any(test, feature = "test-util"))]
#[doc(hidden)]
pub mod testing;
