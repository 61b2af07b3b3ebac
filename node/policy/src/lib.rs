//! The exit policy: what consumers may not reach, and why.
//!
//! 1. [`Lists::read`] reads the operator's lists from the configuration and its files. Each entry has
//!    its [`Origin`], so that an answer can name the line that decides; [`ListError`] names every
//!    mistake. Only this function does I/O.
//! 2. [`refused`] has the networks that registries reserve, which nobody on the internet answers at.
//! 3. [`Networks`] and [`Ports`] merge entries into the ranges that nftables takes. `weir-host` makes
//!    its rules of them.
//! 4. [`judge`] decides about one flow as those rules do: a [`FlowSpec`], the lists and the
//!    [`PolicyContext`] (the node's own addresses and services) give a [`Verdict`]. A running node
//!    answers through [`Judge`], with the lists that are in force.
//! 5. [`Compiled`] decides the same, at a cost that an exit can pay for each new flow. [`RuleCounts`]
//!    counts its decisions by [`RuleId`].
#![cfg_attr(not(test), warn(clippy::indexing_slicing))]

mod compiled;
mod lists;
mod merge;
mod ranges;
pub mod refused;
mod rule;
mod verdict;

pub use compiled::{Compiled, Decision};
pub use lists::{Entry, ListError, Lists, Origin};
pub use merge::{Networks, Ports};
pub use rule::{RuleCounts, RuleId};
pub use verdict::{FlowSpec, Judge, PolicyContext, SharedJudge, Verdict, judge};
