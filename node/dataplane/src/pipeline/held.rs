//! Packets that have waited for their next hop's link address.

use weir_common::DropReason;
use weir_packet::{arena::Chunk, virtio::HEADER_LEN};

use super::Pipeline;

impl Pipeline {
    /// Sends what has waited for its next hop.
    pub fn release_held(&mut self) {
        let Some(mut exit) = self.exit.take_if(|exit| exit.may_release()) else { return };
        let plain = &mut self.plain;
        let mut ready = Vec::new();
        let given_up = exit.release(self.iteration.now.nanos, |frame| {
            let Some((chunk, room)) = plain.take(HEADER_LEN + frame.len()) else { return false };
            let Some(room) = room.get_mut(HEADER_LEN..HEADER_LEN + frame.len()) else {
                return false;
            };
            room.copy_from_slice(frame);
            let chunk = Chunk { len: (HEADER_LEN + frame.len()) as u32, ..chunk };
            plain.truncate(chunk.end());
            ready.push(chunk);
            true
        });
        ready.into_iter().for_each(|chunk| exit.uplink.coalescer.push(&self.plain, chunk));
        if given_up > 0 {
            self.stats.refuse_many(DropReason::NextHop, given_up);
        }
        self.exit = Some(exit);
    }
}
