//! What is not packets: peers that come and go, and time.

use weir_common::{DropReason, Slot, wire::message_type};

use super::{Pipeline, data_kind, push_run};
use crate::{peer::Peer, pipeline::gso_batch::RunKind};
use weir_wireguard::tunnel::{REPLY_LEN, Reply};

/// Each tick serves one of so many parts of the active peers: each has its turn every second.
const TICKS_PER_ROUND: usize = 4;
/// With more active peers than this, each has its turn every two seconds: that is exact enough for
/// timers of 5 seconds and more, and 10,000 idle peers cost less than 1 % of a core.
const MANY: usize = 1024;
/// Peers of a dead node that are greeted in one turn: each costs two scalar multiplications.
const GREETINGS_PER_TURN: usize = 4;

impl Pipeline {
    /// Serves a peer from now on. Peers of other workers are ignored.
    pub fn add(&mut self, peer: Box<Peer>) {
        let Ok(place) = self.place(peer.slot) else { return };
        self.remove(peer.slot);
        if peer.greet {
            self.greetings.push(place as u32);
        }
        if let Some(entry) = self.peers.get_mut(place) {
            *entry = Some(peer);
        }
    }

    /// Serves a peer no more.
    pub fn remove(&mut self, slot: Slot) {
        let Ok(place) = self.place(slot) else { return };
        self.active.retain(|active| *active as usize != place);
        if let Some(entry) = self.peers.get_mut(place) {
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
    pub fn has_greetings(&self) -> bool {
        !self.greetings.is_empty()
    }

    /// Begins handshakes with some of the peers that were connected to a node that died, so that
    /// they need not wait for their own timers.
    pub fn greet(&mut self) {
        for _ in 0..GREETINGS_PER_TURN {
            let Some(place) = self.greetings.pop() else { return };
            self.initiate(place as usize);
        }
    }

    /// Lets time pass for the next quarter of the active peers.
    pub fn tick(&mut self) {
        let parts = if self.active.len() > MANY { 2 * TICKS_PER_ROUND } else { TICKS_PER_ROUND };
        let count = self.active.len().div_ceil(parts);
        for _ in 0..count {
            if self.tick_at >= self.active.len() {
                self.tick_at = 0;
            }
            let Some(&place) = self.active.get(self.tick_at) else { return };
            if self.sealed.room() < REPLY_LEN {
                return;
            }
            if let Some(peer) = self.peers.get_mut(place as usize).and_then(Option::as_mut) {
                peer.grow_silent();
            }
            if self.tick_peer(place as usize) {
                self.tick_at += 1;
            } else {
                self.active.swap_remove(self.tick_at);
                if let Some(peer) = self.peers.get_mut(place as usize).and_then(Option::as_mut) {
                    peer.sleep();
                }
            }
        }
    }

    /// Lets the peer at `place` know the time, and runs its timers from now on.
    ///
    /// # Errors
    ///
    /// Says that there is no such peer.
    pub(super) fn wake(&mut self, place: usize) -> Result<(), DropReason> {
        self.tick_peer(place);
        let peer = self.peers.get_mut(place).and_then(Option::as_deref_mut);
        let peer = peer.ok_or(DropReason::UnknownIndex)?;
        if !peer.active {
            peer.active = true;
            self.active.push(place as u32);
        }
        Ok(())
    }

    /// Returns whether the peer's timers must go on.
    fn tick_peer(&mut self, place: usize) -> bool {
        let Some(peer) = self.peers.get_mut(place).and_then(Option::as_deref_mut) else {
            return false;
        };
        let Some((mut span, out)) = self.sealed.take(REPLY_LEN) else { return true };
        let (reply, alive) = peer.tunnel.tick(out);
        let (Reply::Send(len), Some(to)) = (reply, peer.endpoint) else {
            self.sealed.truncate(span.start);
            return alive;
        };
        let kind = match out.first() {
            Some(&message_type::DATA) => data_kind(peer, self.turn, len),
            _ => RunKind::Handshake,
        };
        span.len = len as u32;
        self.sealed.truncate(span.end());
        push_run(&mut self.runs, self.turn, peer, to, kind, span);
        alive
    }
}
