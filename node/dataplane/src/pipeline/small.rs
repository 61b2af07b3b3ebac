//! What is too small for a super-packet: single frames, many of which one system call sends.
//!
//! A super-packet of few packets costs the kernel nearly as much as a large one. Below
//! [`MIN_SUPER_PACKET`] packets it is cheaper to send the frames by themselves, if one system call
//! takes all of them. The packets of a flow, and the datagrams to a consumer, all go the same way in
//! an iteration, so that none overtakes another.

use weir_common::DropReason;

use super::{Pipeline, gso_batch::GsoBatch};
use crate::exit::OuterHeader;

/// The least number of packets that is sent as one super-packet. Measured: see docs/performance.md.
pub(crate) const MIN_SUPER_PACKET: u16 = 3;

impl Pipeline {
    /// Sends the small frames and batches of a finished iteration. `send` takes the parts of a frame,
    /// and returns whether it was taken.
    pub(crate) fn send_small(&mut self, mut send: impl FnMut(&[&[u8]]) -> bool) {
        let Some(exit) = &self.exit else { return };
        let coalescer = &exit.coalescer;
        for packet in coalescer.tun_packets().iter().filter(|packet| packet.is_small) {
            for frame in coalescer.frames(packet, &self.plain) {
                if send(&[frame]) {
                    self.stats.tun_write.add(1);
                } else {
                    self.stats.refuse(DropReason::UplinkSend);
                }
            }
        }
        let mut id = exit.next_id;
        for batch in self.batches.all().iter().filter(|batch| batch.is_small) {
            let Some(mut header) = exit.outer_header(batch) else {
                self.udp_send_done(batch, 0, 0);
                continue;
            };
            let (mut taken, mut bytes) = (0, 0);
            let chunks = self.batches.chunks(batch).map(|chunk| self.sealed.get(chunk));
            for datagram in chunks.flat_map(|part| part.chunks(usize::from(batch.segment.max(1)))) {
                id = id.wrapping_add(1);
                if send(&[header.complete(datagram, id), datagram]) {
                    taken += 1;
                    bytes += datagram.len() as u32;
                }
            }
            self.udp_send_done(batch, taken, bytes);
        }
        if let Some(exit) = &mut self.exit {
            exit.next_id = id;
        }
    }

    /// Marks the batches that [`Pipeline::send_small`] sends.
    pub(super) fn mark_small(&mut self) {
        let Some(exit) = self.exit.as_deref_mut().filter(|exit| exit.sends_small) else { return };
        let can_send = |batch: &GsoBatch| {
            let header: Option<OuterHeader> = exit.outer_header(batch);
            header.is_some_and(|header| header.packet_len(usize::from(batch.segment)) <= exit.mtu())
        };
        self.batches.mark_small(MIN_SUPER_PACKET, can_send);
    }
}
