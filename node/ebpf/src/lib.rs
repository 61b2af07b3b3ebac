//! Loads and attaches weir's eBPF programs, and takes over those of a killed node.
//!
//! - [`guard`]: loads the programs, takes over what a killed node left, attaches to the uplink.
//! - [`bpffs`]: the file system in which maps and the XDP link outlive a killed node.
//! - [`log`]: what the programs say, which is next to nothing.

pub mod bpffs;
pub mod guard;
pub mod log;

pub use guard::{Guard, GuardCounts, GuardError, GuardOptions, XdpMode, XdpPolicy};
