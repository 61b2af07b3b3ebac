//! Turns an offload of a device off if the kernel refuses super-packets.

use std::cell::Cell;

use weir_packet::{gro::Coalescing, virtio::Gso};

/// The number of refusals without a success between them that turns an offload off. A few prove
/// nothing: some kernels refuse only super-packets of a certain form.
const MAX_REFUSALS: u32 = 8;
/// How long the offload stays off, in nanoseconds. After that one refusal turns it off again.
const RETRY_DELAY: u64 = 60_000_000_000;

/// The super-packets that a device has turned out to take.
#[derive(Debug, Default)]
pub(crate) struct Offloads {
    tcp: Offload,
    udp: Offload,
}

impl Offloads {
    /// The protocols to coalesce at `now`, in nanoseconds.
    pub(crate) fn coalescing(&self, uso: bool, now: u64) -> Coalescing {
        Coalescing { tcp: self.tcp.is_on(now), udp: uso && self.udp.is_on(now) }
    }

    /// Notes that the device took a super-packet.
    pub(crate) fn taken(&self, gso: Gso) {
        self.of(gso).refusals.set(0);
    }

    /// Notes that the device refused a super-packet.
    pub(crate) fn refused(&self, gso: Gso, now: u64) {
        let offload = self.of(gso);
        offload.refusals.set(offload.refusals.get().saturating_add(1));
        if offload.refusals.get() >= MAX_REFUSALS {
            offload.off_until.set(now + RETRY_DELAY);
        }
    }

    fn of(&self, gso: Gso) -> &Offload {
        match gso {
            Gso::Udp => &self.udp,
            Gso::None | Gso::TcpV4 | Gso::TcpV6 => &self.tcp,
        }
    }
}

#[derive(Debug, Default)]
struct Offload {
    refusals: Cell<u32>,
    off_until: Cell<u64>,
}

impl Offload {
    fn is_on(&self, now: u64) -> bool {
        now >= self.off_until.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: Coalescing = Coalescing { tcp: true, udp: true };

    #[test]
    fn a_device_that_goes_on_refusing_is_left_alone_and_tried_again_later() {
        let offloads = Offloads::default();
        for _ in 1..MAX_REFUSALS {
            offloads.refused(Gso::Udp, 5);
        }
        assert_eq!(offloads.coalescing(true, 5), BOTH);
        offloads.refused(Gso::Udp, 5);
        assert_eq!(offloads.coalescing(true, 5), Coalescing { tcp: true, udp: false });
        let later = 5 + RETRY_DELAY;
        assert_eq!(offloads.coalescing(true, later - 1), Coalescing { tcp: true, udp: false });
        assert_eq!(offloads.coalescing(true, later), BOTH);
        // Still refused: one try was enough.
        offloads.refused(Gso::Udp, later);
        assert_eq!(offloads.coalescing(true, later), Coalescing { tcp: true, udp: false });
        offloads.taken(Gso::Udp);
        offloads.refused(Gso::Udp, later + RETRY_DELAY);
        assert_eq!(offloads.coalescing(true, later + RETRY_DELAY), BOTH);
    }

    #[test]
    fn refusals_now_and_then_turn_nothing_off() {
        let offloads = Offloads::default();
        for now in 0..1000 {
            offloads.refused(Gso::TcpV4, now);
            offloads.taken(Gso::TcpV6);
            assert_eq!(offloads.coalescing(true, now), BOTH);
        }
        assert_eq!(offloads.coalescing(false, 0), Coalescing { tcp: true, udp: false });
    }
}
