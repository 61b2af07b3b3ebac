//! A watcher: it buys at an exit like a consumer, measures from inside the tunnel, and signs what it
//! found, with one reason word.
//!
//! 1. [`schedule`] and [`budget`] say which exit is next, when, and whether it may be paid.
//! 2. [`Watcher`] does one measurement, from the purchase to the attestation.
//! 3. [`measure`] looks from inside a network namespace whose only way out is the tunnel.
//! 4. [`judge`] makes an attestation of what was found. It is pure.
//! 5. [`server`] is what a watcher measures against: the operator's own.
//!
//! What is the watcher's own trouble, such as an empty wallet or a line that is down, is no word about
//! an exit: then nothing is attested.
#![forbid(unsafe_code)]

pub mod budget;
mod http;
pub mod judge;
pub mod measure;
mod names;
pub mod schedule;
pub mod server;
mod targets;
mod watcher;

pub use targets::{NameCheck, NotACheck, Resolved, Targets};
pub use watcher::{Outcome, Published, Watched, Watcher};
