//! What is not packets: peers that come and go, and time.

use weir_common::{DropReason, Slot, wire::message_type};

use super::{Pipeline, data_kind, push_datagram};
use crate::{peer::Peer, pipeline::gso_batch::BatchKind};
use weir_wireguard::tunnel::{REPLY_LEN, Reply};

/// Each tick serves one of so many parts of the active peers: each has its iteration every second.
const TICKS_PER_ROUND: usize = 4;
/// With more active peers than this, each has its iteration every two seconds: that is exact enough for
/// timers of 5 seconds and more, and 10,000 idle peers cost less than 1 % of a core.
const SLOW_TICK_THRESHOLD: usize = 1024;
/// Peers of a dead node that are greeted in one iteration: each costs two scalar multiplications.
const RESUMPTIONS_PER_ITERATION: usize = 4;

impl Pipeline {
    /// Serves a peer from now on. Peers of other workers are ignored.
    pub fn add(&mut self, peer: Box<Peer>) {
        let Ok(index) = self.index_of(peer.slot) else { return };
        self.remove(peer.slot);
        if peer.resume {
            self.resumptions.push(index as u32);
        }
        if let Some(entry) = self.peers.get_mut(index) {
            *entry = Some(peer);
        }
    }

    /// Serves a peer no more.
    pub fn remove(&mut self, slot: Slot) {
        let Ok(index) = self.index_of(slot) else { return };
        self.active.retain(|active| *active as usize != index);
        if let Some(entry) = self.peers.get_mut(index) {
            *entry = None;
        }
    }

    /// Whether time must pass for any peer: then [`Pipeline::tick`] wants to be called four times
    /// a second.
    #[must_use]
    pub fn wants_ticks(&self) -> bool {
        !self.active.is_empty()
    }

    /// Whether peers wait to be greeted.
    #[must_use]
    pub fn has_resumptions(&self) -> bool {
        !self.resumptions.is_empty()
    }

    /// Begins handshakes with some of the peers that were connected to a node that died, so that
    /// they need not wait for their own timers.
    pub fn resume(&mut self) {
        for _ in 0..RESUMPTIONS_PER_ITERATION {
            let Some(index) = self.resumptions.pop() else { return };
            self.initiate(index as usize);
        }
    }

    /// Lets time pass for the next quarter of the active peers.
    pub fn tick(&mut self) {
        let parts = if self.active.len() > SLOW_TICK_THRESHOLD {
            2 * TICKS_PER_ROUND
        } else {
            TICKS_PER_ROUND
        };
        let count = self.active.len().div_ceil(parts);
        for _ in 0..count {
            if self.tick_at >= self.active.len() {
                self.tick_at = 0;
            }
            let Some(&index) = self.active.get(self.tick_at) else { return };
            if self.sealed.room() < REPLY_LEN {
                return;
            }
            if let Some(peer) = self.peers.get_mut(index as usize).and_then(Option::as_mut) {
                peer.grow_silent();
            }
            if self.tick_peer(index as usize) {
                self.tick_at += 1;
            } else {
                self.active.swap_remove(self.tick_at);
                if let Some(peer) = self.peers.get_mut(index as usize).and_then(Option::as_mut) {
                    peer.sleep();
                }
            }
        }
    }

    /// Lets the peer at `index` know the time, and batches its timers from now on.
    ///
    /// # Errors
    ///
    /// Says that there is no such peer.
    pub(super) fn wake(&mut self, index: usize) -> Result<(), DropReason> {
        self.tick_peer(index);
        let peer = self.peers.get_mut(index).and_then(Option::as_deref_mut);
        let peer = peer.ok_or(DropReason::UnknownIndex)?;
        if !peer.active {
            peer.active = true;
            self.active.push(index as u32);
        }
        Ok(())
    }

    /// Returns whether the peer's timers must go on.
    fn tick_peer(&mut self, index: usize) -> bool {
        let Some(peer) = self.peers.get_mut(index).and_then(Option::as_deref_mut) else {
            return false;
        };
        let Some((mut chunk, out)) = self.sealed.take(REPLY_LEN) else { return true };
        let (reply, alive) = peer.tunnel.tick(out);
        let (Reply::Send(len), Some(to)) = (reply, peer.endpoint) else {
            self.sealed.truncate(chunk.start);
            return alive;
        };
        let kind = match out.first() {
            Some(&message_type::DATA) => data_kind(peer, self.iteration, len),
            _ => BatchKind::Handshake,
        };
        chunk.len = len as u32;
        self.sealed.truncate(chunk.end());
        push_datagram(&mut self.batches, self.iteration, peer, to, kind, chunk);
        alive
    }
}
