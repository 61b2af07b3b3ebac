//! Where the cut lies between super-packets and single frames: found by what each costs here.
//!
//! A device of a virtual machine or a `veth` may cost an interrupt to another core for each send, and
//! then two packets are cheaper as one super-packet. Without one, the super-packet's longer way costs
//! more than a frame's.

/// Where the cut lies until both costs are known.
const START: u16 = 3;
/// At this many packets, a super-packet is always cheaper.
const MAX: u16 = 6;
/// After this many iterations with output, one is sent by the other cut, so that the cost of what is
/// not used stays known.
const TRIAL_INTERVAL: u32 = 512;
/// An iteration with fewer sends says too little of the cost of one.
const MIN_SENDS: u32 = 4;
/// A super-packet with more packets costs more for their bytes.
const MAX_PACKETS_PER_SEND: u32 = 4;

/// The mean cost of one send in nanoseconds, times 16.
#[derive(Clone, Copy, Debug, Default)]
struct MeanCost(u64);

impl MeanCost {
    fn add(&mut self, sends: u32, nanos: u64) {
        let nanos = nanos / u64::from(sends.max(1));
        self.0 = if self.0 == 0 { nanos * 16 } else { self.0 - self.0 / 16 + nanos };
    }

    fn get(self) -> Option<u64> {
        Some(self.0 / 16).filter(|nanos| *nanos > 0)
    }
}

/// The cut.
#[derive(Debug)]
pub(crate) struct Cut {
    frame: MeanCost,
    super_packet: MeanCost,
    min: u16,
    iterations: u32,
}

impl Default for Cut {
    fn default() -> Self {
        let (frame, super_packet) = <(MeanCost, MeanCost)>::default();
        Self { frame, super_packet, min: START, iterations: 0 }
    }
}

impl Cut {
    /// The least number of packets that this iteration sends as one super-packet.
    #[must_use]
    pub(crate) fn min(&self) -> u16 {
        if self.iterations % TRIAL_INTERVAL != TRIAL_INTERVAL - 1 {
            self.min
        } else if self.min <= 2 {
            START
        } else {
            2
        }
    }

    /// Notes what single frames have cost, all of an iteration together.
    pub(crate) fn frames_took(&mut self, frames: u32, nanos: u64) {
        if frames >= MIN_SENDS {
            self.frame.add(frames, nanos);
            self.adjust();
        }
    }

    /// Notes what super-packets have cost, all of an iteration together, with `packets` packets in
    /// them.
    pub(crate) fn super_packets_took(&mut self, sends: u32, packets: u32, nanos: u64) {
        if sends >= MIN_SENDS && packets <= sends.saturating_mul(MAX_PACKETS_PER_SEND) {
            self.super_packet.add(sends, nanos);
            self.adjust();
        }
    }

    /// Ends an iteration with output.
    pub(crate) fn end_iteration(&mut self) {
        self.iterations = self.iterations.wrapping_add(1);
    }

    fn adjust(&mut self) {
        if let (Some(frame), Some(super_packet)) = (self.frame.get(), self.super_packet.get()) {
            let packets = super_packet.div_ceil(frame);
            self.min = u16::try_from(packets).unwrap_or(MAX).clamp(2, MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends `buckets` buckets of two packets in each iteration, on a device where a frame and a
    /// super-packet cost so much.
    fn cut_after(cut: &mut Cut, iterations: u32, frame: u64, super_packet: u64) -> u16 {
        const BUCKETS: u32 = 32;
        for _ in 0..iterations {
            if cut.min() > 2 {
                cut.frames_took(2 * BUCKETS, u64::from(2 * BUCKETS) * frame);
            } else {
                cut.super_packets_took(BUCKETS, 2 * BUCKETS, u64::from(BUCKETS) * super_packet);
            }
            cut.end_iteration();
        }
        cut.min
    }

    #[test]
    fn the_cheaper_way_is_found_and_found_again_when_the_device_changes() {
        let mut cut = Cut::default();
        assert_eq!(cut_after(&mut cut, 2 * TRIAL_INTERVAL, 2500, 3200), 2, "a send costs much");
        assert_eq!(cut_after(&mut cut, 64 * TRIAL_INTERVAL, 900, 2200), 3, "only the way costs");
        assert_eq!(cut_after(&mut cut, 64 * TRIAL_INTERVAL, 100, 2200), MAX, "zero-copy");
    }

    #[test]
    fn little_output_and_large_super_packets_say_nothing() {
        let mut cut = Cut::default();
        for _ in 0..100 {
            cut.frames_took(1, 1_000_000);
            cut.super_packets_took(1, 2, 1);
            cut.super_packets_took(8, 8 * 40, 1);
            cut.frames_took(100, 100_000);
        }
        assert_eq!(cut.min(), START, "no super-packet was measured");
    }
}
