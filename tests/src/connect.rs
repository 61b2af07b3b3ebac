//! `weir connect` on a consumer's machine, what tries to leave beside it, a capture that sees whether
//! anything does, and exits that are not weir.

mod capture;
mod foreign_exit;
mod machine;
mod noise;

pub use capture::Capture;
pub use foreign_exit::{ForeignExit, Receipts, endpoint};
pub use machine::{Machine, RESOLV_CONF};
pub use noise::Noise;
