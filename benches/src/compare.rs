//! weir and other WireGuard implementations in turn on the same rig.

pub mod attack;
pub mod case;
pub mod chart;
pub mod exit;
pub mod floods;
pub mod handshakes;
pub mod idle;
pub mod iperf;
pub mod metering;
pub mod parts;
pub mod report;
