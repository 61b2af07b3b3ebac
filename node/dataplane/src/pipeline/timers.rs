//! Peers that come and go, and WireGuard's timers.

use weir_common::{DropReason, Slot, wire::message_type};

use super::{Pipeline, data_kind, gso_batch::BatchKind, push_datagram};
use crate::peer::Peer;
use weir_wireguard::tunnel::{REPLY_LEN, Reply};

/// The number of ticks in which all active peers are looked at: each is looked at once a second.
const TICKS_PER_ROUND: usize = 4;
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
        self.active.remove(index);
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

    /// Runs the timers of those in the next quarter of the active peers that have something to do, and
    /// those of flows.
    pub fn tick(&mut self) {
        let now = self.iteration.now;
        if let Some(exit) = &mut self.exit {
            exit.tick(now);
        }
        let mut count = self.active.len().div_ceil(TICKS_PER_ROUND);
        while self.sealed.room() >= REPLY_LEN {
            let Some((index, left)) = self.active.next_due(count, now.nanos) else { return };
            let due = self.tick_peer(index);
            self.active.served(index, due);
            count = left;
        }
    }

    /// Keeps the timers of the peer at `index` running from now on.
    ///
    /// # Errors
    ///
    /// Fails if there is no such peer.
    pub(super) fn wake(&mut self, index: usize) -> Result<(), DropReason> {
        if self.peers.get(index).is_none_or(Option::is_none) {
            return Err(DropReason::UnknownIndex);
        }
        self.active.wake(index);
        Ok(())
    }

    /// Runs the timers of the peer at `index`. Returns when they next have something to do, in
    /// nanoseconds, and `None` once they stop.
    fn tick_peer(&mut self, index: usize) -> Option<u64> {
        // It may wipe keys.
        self.seal();
        let peer = self.peers.get_mut(index).and_then(Option::as_deref_mut)?;
        let now = self.iteration.now;
        let Some((mut chunk, out)) = self.sealed.take(REPLY_LEN) else { return Some(now.nanos) };
        let (reply, due) = peer.tunnel.tick(now.nanos, now.date(), out);
        let due = match due {
            Some(_) if peer.grow_silent() => Some(now.nanos),
            Some(due) => Some(due),
            None => {
                peer.sleep();
                None
            }
        };
        let (Reply::Send(len), Some(to)) = (reply, peer.endpoint) else {
            self.sealed.truncate(chunk.start);
            return due;
        };
        let kind = match out.first() {
            Some(&message_type::DATA) => data_kind(peer, self.iteration.number, len),
            _ => BatchKind::Handshake,
        };
        chunk.len = len as u32;
        self.sealed.truncate(chunk.end());
        push_datagram(&mut self.batches, self.iteration.number, peer, to, kind, chunk);
        due
    }
}
