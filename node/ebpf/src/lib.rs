//! Loads and attaches weir's eBPF programs, and takes over those of a killed node.
//!
//! 1. [`Bpffs`] finds or mounts the file system in which maps and the XDP link outlive a node that
//!    was killed. [`is_mounted`] tells whether the system has one.
//! 2. [`Guard::load`] loads the programs into the kernel, with [`GuardOptions`], and takes over what
//!    a killed node pinned. [`OBJECT`] is the committed object that has them.
//! 3. [`Guard::attach`] puts the guard on the uplink as far as an [`XdpPolicy`] allows, and returns
//!    the [`XdpMode`] that it got.
//! 4. While the node runs, [`GuardCounts`] are read, and [`GuardLog`] forwards what the programs say.
//! 5. [`Guard::detach_and_unpin`] takes everything off the kernel.
//!
//! [`try_load`] only tries what the kernel accepts, for `weir doctor`. [`GuardError`] explains why a
//! step failed.

mod bpffs;
mod guard;
mod log;

pub use bpffs::{Bpffs, is_mounted};
pub use guard::{
    Guard, GuardCounts, GuardError, GuardOptions, Instructions, OBJECT, XdpMode, XdpPolicy,
    try_load,
};
pub use log::GuardLog;
