//! Where packets leave the pipeline to: the TUN device, or the uplink.

use weir_common::DropReason;
use weir_packet::{
    arena::{Arena, Chunk},
    gro::{Coalescer, Coalescing, TunPacket},
    virtio::Gso,
};

use super::offloads::Offloads;
use crate::stats::WorkerStats;

/// Which outlet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// The TUN device: packets to the gateway, or all of them.
    Tun,
    /// The uplink: frames past the kernel's stack.
    Uplink,
}

/// The packets of an iteration to one device, and what that device takes.
#[derive(Debug)]
pub(crate) struct Outlet {
    pub(crate) coalescer: Coalescer,
    offloads: Offloads,
    coalescing: Coalescing,
    uso: bool,
    /// The reason that a refused packet is counted under.
    refused: DropReason,
}

impl Outlet {
    /// The outlet to a device. `uso` is whether it takes UDP super-packets.
    pub(crate) fn new(coalescer: Coalescer, uso: bool, refused: DropReason) -> Self {
        let (offloads, coalescing) = (Offloads::default(), Coalescing::default());
        Self { coalescer, offloads, coalescing, uso, refused }
    }

    /// Begins an iteration at `now`, in nanoseconds. Returns what is coalesced from now on, if that
    /// has changed.
    pub(crate) fn begin(&mut self, now: u64) -> Option<Coalescing> {
        let coalescing = self.offloads.coalescing(self.uso, now);
        self.coalescer.begin(coalescing);
        let before = std::mem::replace(&mut self.coalescing, coalescing);
        (coalescing != before).then_some(coalescing)
    }

    /// The packets to write, in this order.
    pub(crate) fn packets(&self) -> &[TunPacket] {
        self.coalescer.tun_packets()
    }

    /// The chunks of a packet.
    pub(crate) fn chunks(&self, packet: &TunPacket) -> impl Iterator<Item = Chunk> + '_ {
        self.coalescer.chunks(packet)
    }

    /// Reports whether the device took a packet.
    #[inline]
    pub(crate) fn write_done(&self, stats: &WorkerStats, packet: &TunPacket, taken: bool) {
        let packets = u64::from(packet.packets);
        if taken {
            stats.tun_write.add(packets);
            if packet.gso != Gso::None {
                self.offloads.taken(packet.gso);
            }
        } else {
            stats.refuse_many(self.refused, packets);
        }
    }

    /// Reports whether the device took one packet of several.
    pub(crate) fn segment_done(&self, stats: &WorkerStats, taken: bool) {
        if taken {
            stats.tun_write.add(1);
        } else {
            stats.refuse(self.refused);
        }
    }

    /// Writes the packets of super-packet `index`, which the device refused at `now`, one by one.
    pub(crate) fn write_segments(
        &self,
        index: usize,
        now: u64,
        arena: &mut Arena,
        stats: &WorkerStats,
        mut write: impl FnMut(&[u8]) -> bool,
    ) {
        let Some(packet) = self.packets().get(index) else { return };
        self.offloads.refused(packet.gso, now);
        self.coalescer.split(index, arena, |packet| self.segment_done(stats, write(packet)));
    }
}
