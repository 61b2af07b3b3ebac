//! weir and other WireGuard implementations in turn on the same rig.

pub mod case;
pub mod exit;
pub mod iperf;
