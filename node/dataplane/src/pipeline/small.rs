//! What is too small for a super-packet: single frames, many of which one system call sends.
//!
//! A super-packet of few packets costs the kernel nearly as much as a large one. Below the
//! [cut](super::cut) it is cheaper to send the frames by themselves, if one system call takes all of
//! them. The packets of a flow, and the datagrams to a consumer, all go the same way in an iteration,
//! so that none overtakes another.

use super::Pipeline;

/// The MTU that every IPv6 link has at least (RFC 8200, section 5).
const MIN_V6_MTU: usize = 1280;

impl Pipeline {
    /// Sends the small frames and batches of a finished iteration. `send` takes the parts of a frame,
    /// and returns whether it was taken. Returns the number of frames taken.
    pub(crate) fn send_small(&mut self, mut send: impl FnMut(&[&[u8]]) -> bool) -> u32 {
        let Some(mut exit) = self.exit.take() else { return 0 };
        let uplink = &exit.uplink;
        let mut frames = 0;
        for packet in uplink.packets().iter().filter(|packet| packet.is_small) {
            for frame in uplink.coalescer.frames(packet, &self.plain) {
                let is_taken = send(&[frame]);
                frames += u32::from(is_taken);
                uplink.segment_done(&self.stats, is_taken);
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
            frames += u32::from(taken);
            self.udp_send_done(batch, taken, bytes);
        }
        self.exit = Some(exit);
        frames
    }

    /// Notes how long the frames of [`Pipeline::send_small`] took, in nanoseconds.
    pub(crate) fn small_took(&mut self, frames: u32, nanos: u64) {
        self.cut.frames_took(frames, nanos);
    }

    /// Notes how long all other output of the iteration took, in nanoseconds.
    pub(crate) fn large_took(&mut self, nanos: u64) {
        let Some(exit) = &self.exit else { return };
        let packets = exit.uplink.packets().iter().filter(|packet| !packet.is_small);
        let batches = self.batches.all().iter().filter(|batch| !batch.is_small);
        let counts = packets.map(|packet| packet.packets).chain(batches.map(|it| it.datagrams));
        let (sends, packets) =
            counts.fold((0, 0), |(sends, sum), count| (sends + 1, sum + u32::from(count)));
        self.cut.super_packets_took(sends, packets, nanos);
    }

    /// Marks the batches that [`Pipeline::send_small`] sends, and notes the headers of each.
    pub(super) fn mark_small(&mut self) {
        let Some(exit) = self.exit.as_deref_mut().filter(|exit| exit.sends_small) else { return };
        exit.headers.clear();
        self.batches.mark_small(self.cut.min(), |batch| {
            let Some(header) = exit.outer_header(batch) else { return false };
            // No router fragments IPv6, and only the kernel knows the narrower paths.
            let limit = if batch.to.remote.is_ipv6() { MIN_V6_MTU } else { exit.mtu() };
            let fits = header.packet_len(usize::from(batch.segment)) <= limit;
            if fits {
                exit.headers.push(header);
            }
            fits
        });
        if !(self.batches.all().is_empty() && exit.uplink.packets().is_empty()) {
            self.cut.end_iteration();
        }
    }
}
