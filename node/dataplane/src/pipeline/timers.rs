//! Peers that come and go, and WireGuard's timers.

use weir_common::{DropReason, Slot, wire::message_type};

use super::{Pipeline, data_kind, gso_batch::BatchKind, push_datagram};
use crate::peer::Peer;
use weir_wireguard::tunnel::{REPLY_LEN, Reply};

/// The number of ticks in which all active peers are served: each is served once a second.
const TICKS_PER_ROUND: usize = 4;
/// With more active peers than this, each is served every two seconds. That is exact enough for
/// timers of 5 seconds and more, and 10,000 idle peers then cost less than 1 % of a core.
const SLOW_TICK_THRESHOLD: usize = 1024;
/// The number of handshakes initiated after a restart in one iteration. Each costs two scalar
/// multiplications.
const RESUMPTIONS_PER_ITERATION: usize = 4;

impl Pipeline {
    /// Adds a peer. Ignores a peer of another worker.
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

    /// Removes a slot's peer.
    pub fn remove(&mut self, slot: Slot) {
        let Ok(index) = self.index_of(slot) else { return };
        // The keys go with the peer.
        self.seal();
        if let Some(exit) = &mut self.exit {
            exit.remove(slot, self.iteration.now);
        }
        self.active.retain(|active| *active as usize != index);
        if let Some(entry) = self.peers.get_mut(index) {
            *entry = None;
        }
    }

    /// Whether any peer's timers run. If so, call [`Pipeline::tick`] four times a second.
    #[must_use]
    pub fn wants_ticks(&self) -> bool {
        !self.active.is_empty() || self.exit.as_ref().is_some_and(|exit| exit.wants_ticks())
    }

    /// Whether handshakes remain to be initiated after a restart.
    #[must_use]
    pub fn has_resumptions(&self) -> bool {
        !self.resumptions.is_empty()
    }

    /// Initiates handshakes with some of the peers that were connected to a node that died, so that
    /// they need not wait for their own timers.
    pub fn resume(&mut self) {
        for _ in 0..RESUMPTIONS_PER_ITERATION {
            let Some(index) = self.resumptions.pop() else { return };
            self.initiate(index as usize);
        }
    }

    /// Runs the timers of the next quarter of the active peers, and those of flows.
    pub fn tick(&mut self) {
        if let Some(exit) = &mut self.exit {
            exit.tick(self.iteration.now);
        }
        let is_slow = self.active.len() > SLOW_TICK_THRESHOLD;
        let parts = if is_slow { 2 * TICKS_PER_ROUND } else { TICKS_PER_ROUND };
        let count = self.active.len().div_ceil(parts);
        for _ in 0..count {
            if self.next_tick >= self.active.len() {
                self.next_tick = 0;
            }
            let Some(&index) = self.active.get(self.next_tick) else { return };
            if self.sealed.room() < REPLY_LEN {
                return;
            }
            if let Some(peer) = self.peers.get_mut(index as usize).and_then(Option::as_mut) {
                peer.grow_silent();
            }
            if self.tick_peer(index as usize) {
                self.next_tick += 1;
            } else {
                self.active.swap_remove(self.next_tick);
                if let Some(peer) = self.peers.get_mut(index as usize).and_then(Option::as_mut) {
                    peer.sleep();
                }
            }
        }
    }

    /// Keeps the timers of the peer at `index` running from now on.
    ///
    /// # Errors
    ///
    /// Fails if there is no such peer.
    pub(super) fn wake(&mut self, index: usize) -> Result<(), DropReason> {
        let peer = self.peers.get_mut(index).and_then(Option::as_deref_mut);
        let peer = peer.ok_or(DropReason::UnknownIndex)?;
        if !peer.active {
            peer.active = true;
            self.active.push(index as u32);
        }
        Ok(())
    }

    /// Runs the timers of the peer at `index`. Returns whether they must go on.
    fn tick_peer(&mut self, index: usize) -> bool {
        // It may wipe keys.
        self.seal();
        let Some(peer) = self.peers.get_mut(index).and_then(Option::as_deref_mut) else {
            return false;
        };
        let now = self.iteration.now;
        let Some((mut chunk, out)) = self.sealed.take(REPLY_LEN) else { return true };
        let (reply, alive) = peer.tunnel.tick(now.nanos, now.date(), out);
        let (Reply::Send(len), Some(to)) = (reply, peer.endpoint) else {
            self.sealed.truncate(chunk.start);
            return alive;
        };
        let kind = match out.first() {
            Some(&message_type::DATA) => data_kind(peer, self.iteration.number, len),
            _ => BatchKind::Handshake,
        };
        chunk.len = len as u32;
        self.sealed.truncate(chunk.end());
        push_datagram(&mut self.batches, self.iteration.number, peer, to, kind, chunk);
        alive
    }
}
