//! What the load and the sink agree on: the ports, and the counts.

/// The port to which the load goes: the discard service.
pub const PORT: u16 = 9;
/// The port to which latency probes go.
pub const PROBE_PORT: u16 = 10;

/// What has come through within the measured time.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub struct Counts {
    /// Seconds on the clock.
    pub seconds: f64,
    /// Inner packets that arrived.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Super-packets in which they arrived.
    pub super_packets: u64,
    /// Inner packets that were sent in the whole run, and never arrived.
    pub lost: u64,
    /// Packets whose content was compared.
    pub checked: u64,
    /// Those with the wrong content.
    pub wrong: u64,
    /// How many packets were under way at the end, at most.
    pub window: u64,
    /// Median and 99th percentile of the way through, in microseconds.
    pub latency_us: Option<[f64; 2]>,
}

impl Counts {
    /// Inner bits per second.
    #[must_use]
    pub fn bits_per_second(&self) -> f64 {
        if self.seconds > 0.0 { self.bytes as f64 * 8.0 / self.seconds } else { 0.0 }
    }

    /// What has come through since `earlier`; the rest is of now.
    pub(super) fn since(&self, earlier: &Self) -> Self {
        Self {
            packets: self.packets - earlier.packets,
            bytes: self.bytes - earlier.bytes,
            super_packets: self.super_packets - earlier.super_packets,
            ..*self
        }
    }
}
