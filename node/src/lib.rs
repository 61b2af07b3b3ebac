//! weir: a high-capacity exit node for decentralised VPNs. This crate is the command: it puts the
//! crates below it together.
//!
//! - [`run()`] runs a node. [`sandbox`] is what a running one gives up; [`core_dump`]: there is none.
//! - [`cli`]: the commands. [`doctor`]: what a machine offers a node, told without changing it.
//! - [`mod@bench`]: how much a machine carries, measured with load of our own.
//! - [`logging`]: what a node writes of all that, which is nothing about consumers.

pub mod bench;
pub mod cli;
pub mod core_dump;
pub mod doctor;
pub mod logging;
mod run;
pub mod sandbox;

pub use run::{ledger_path, run};
