//! What is too small for a super-packet: single frames, many of which one system call sends.
//!
//! A super-packet of few packets costs the kernel nearly as much as a large one. Below
//! [`MIN_SUPER_PACKET`] packets it is cheaper to send the frames by themselves, if one system call
//! takes all of them. The packets of a flow, and the datagrams to a consumer, all go the same way in
//! an iteration, so that none overtakes another.

use super::Pipeline;

/// The least number of packets that is sent as one super-packet: at 3, a frame of its own costs about
/// as much as its part of an `AF_PACKET` send.
pub(crate) const MIN_SUPER_PACKET: u16 = 3;

impl Pipeline {
    /// Sends the small frames and batches of a finished iteration. `send` takes the parts of a frame,
    /// and returns whether it was taken.
    pub(crate) fn send_small(&mut self, mut send: impl FnMut(&[&[u8]]) -> bool) {
        let Some(mut exit) = self.exit.take() else { return };
        let uplink = &exit.uplink;
        for packet in uplink.packets().iter().filter(|packet| packet.is_small) {
            for frame in uplink.coalescer.frames(packet, &self.plain) {
                uplink.segment_done(&self.stats, send(&[frame]));
            }
        }
        let small = self.batches.all().iter().filter(|batch| batch.is_small);
        for (batch, header) in small.zip(&mut exit.headers) {
            let (mut taken, mut bytes) = (0, 0);
            let chunks = self.batches.chunks(batch).map(|chunk| self.sealed.get(chunk));
            for datagram in chunks.flat_map(|part| part.chunks(usize::from(batch.segment.max(1)))) {
                exit.next_id = exit.next_id.wrapping_add(1);
                if send(&[header.complete(datagram, exit.next_id), datagram]) {
                    taken += 1;
                    bytes += datagram.len() as u32;
                }
            }
            self.udp_send_done(batch, taken, bytes);
        }
        self.exit = Some(exit);
    }

    /// Marks the batches that [`Pipeline::send_small`] sends, and notes the headers of each.
    pub(super) fn mark_small(&mut self) {
        let Some(exit) = self.exit.as_deref_mut().filter(|exit| exit.sends_small) else { return };
        exit.headers.clear();
        self.batches.mark_small(MIN_SUPER_PACKET, |batch| {
            let Some(header) = exit.outer_header(batch) else { return false };
            let fits = header.packet_len(usize::from(batch.segment)) <= exit.mtu();
            if fits {
                exit.headers.push(header);
            }
            fits
        });
    }
}
