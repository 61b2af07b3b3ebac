//! The kernel's side: eBPF programs, and the accounts that they share with user space.
//!
//! - [`guard`]: loads the programs, takes over what a killed node left, attaches to the uplink.
//! - [`accounts`]: one record for each slot, in memory shared with the kernel; [`accounts_file`]
//!   keeps them where eBPF is not to be had.
//! - [`bpffs`]: the file system in which maps and the XDP link outlive a killed node.
//! - [`log`]: what the programs say, which is next to nothing.

pub mod accounts;
pub mod accounts_file;
pub mod bpffs;
pub mod guard;
pub mod log;

pub use accounts::Accounts;
pub use guard::{Guard, GuardCounts, GuardError, GuardOptions, XdpMode, XdpPolicy};
