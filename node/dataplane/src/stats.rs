//! The counters of a worker. Each has one writer, and anyone may read it without a lock.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use weir_common::{DropReason, account::add_single_writer};

use weir_accounts::{BATCHES, Boundaries, Boundary};

/// The packets and super-packets that crossed one boundary.
#[derive(Debug, Default)]
pub struct BoundaryCount {
    /// The super-packets by size: see [`BATCHES`].
    batches: [AtomicU64; BATCHES.len() + 1],
    packets: AtomicU64,
}

impl BoundaryCount {
    /// Counts one super-packet of `packets`.
    #[inline]
    pub fn add(&self, packets: u64) {
        // The bounds are the powers of two.
        let bits = u64::BITS - packets.saturating_sub(1).leading_zeros();
        let [.., last] = &self.batches;
        add_single_writer(self.batches.get(bits as usize).unwrap_or(last), 1);
        add_single_writer(&self.packets, packets);
    }

    fn read(&self) -> Boundary {
        let batches = self.batches.each_ref().map(|count| count.load(Relaxed));
        let super_packets = batches.iter().sum();
        Boundary { super_packets, packets: self.packets.load(Relaxed), batches }
    }
}

#[derive(Debug)]
struct Drops([AtomicU64; DropReason::COUNT]);

impl Default for Drops {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

/// The counters of one worker.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct WorkerStats {
    drops: Drops,
    /// UDP sockets to worker.
    pub udp_receive: BoundaryCount,
    /// Worker to TUN device.
    pub tun_write: BoundaryCount,
    /// TUN device to worker.
    pub tun_read: BoundaryCount,
    /// Worker to UDP sockets.
    pub udp_send: BoundaryCount,
    /// Handshakes completed.
    pub handshakes: AtomicU64,
    /// Cookie replies sent instead of handshake responses.
    pub cookies: AtomicU64,
    /// The CPU time of the worker's thread in nanoseconds, refreshed several times a second.
    pub cpu_nanos: AtomicU64,
    /// Iterations of the worker.
    pub iterations: AtomicU64,
    /// The offloads that the kernel refuses the worker.
    pub without: Without,
}

/// The offloads that the kernel has refused a worker.
#[derive(Debug, Default)]
pub struct Without {
    /// The TUN device takes no TCP super-packets.
    pub tun_tcp: AtomicBool,
    /// The TUN device takes no UDP super-packets, though it has the offload.
    pub tun_udp: AtomicBool,
    /// The kernel cannot segment datagrams (`UDP_SEGMENT`).
    pub udp_segmentation: AtomicBool,
}

impl WorkerStats {
    /// Counts a drop.
    #[inline]
    pub fn refuse(&self, reason: DropReason) {
        self.refuse_many(reason, 1);
    }

    /// Counts drops.
    #[inline]
    pub fn refuse_many(&self, reason: DropReason, packets: u64) {
        if let Some(counter) = self.drops.0.get(reason as usize) {
            add_single_writer(counter, packets);
        }
    }

    /// The number of packets dropped for a reason.
    #[must_use]
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.drops.0.get(reason as usize).map_or(0, |counter| counter.load(Relaxed))
    }

    /// The four boundaries.
    #[must_use]
    pub fn boundaries(&self) -> Boundaries {
        Boundaries {
            udp_receive: self.udp_receive.read(),
            tun_write: self.tun_write.read(),
            tun_read: self.tun_read.read(),
            udp_send: self.udp_send.read(),
        }
    }
}

/// Adds up the boundaries of several workers.
#[must_use]
pub(crate) fn total(boundaries: impl Iterator<Item = Boundaries>) -> Boundaries {
    let add = |a: Boundary, b: Boundary| {
        let mut batches = a.batches;
        for (sum, more) in batches.iter_mut().zip(b.batches) {
            *sum += more;
        }
        Boundary {
            super_packets: a.super_packets + b.super_packets,
            packets: a.packets + b.packets,
            batches,
        }
    };
    boundaries.fold(Boundaries::default(), |sum, one| Boundaries {
        udp_receive: add(sum.udp_receive, one.udp_receive),
        tun_write: add(sum.tun_write, one.tun_write),
        tun_read: add(sum.tun_read, one.tun_read),
        udp_send: add(sum.udp_send, one.udp_send),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn super_packets_are_counted_by_their_size() {
        let count = BoundaryCount::default();
        for packets in [0, 1, 2, 3, 4, 5, 64, 65, 1000] {
            count.add(packets);
        }
        let read = count.read();
        assert_eq!(read.batches, [2, 1, 2, 1, 0, 0, 1, 2]);
        assert_eq!((read.super_packets, read.packets), (9, 1144));
        for (packets, bound) in BATCHES.iter().enumerate().map(|(at, bound)| (1 << at, *bound)) {
            assert_eq!(packets, bound, "the bounds are the powers of two");
        }
        let read = Boundaries { udp_receive: read, ..Boundaries::default() };
        assert_eq!(total([read, read].into_iter()).udp_receive.batches, [4, 2, 4, 2, 0, 0, 2, 4]);
    }
}
