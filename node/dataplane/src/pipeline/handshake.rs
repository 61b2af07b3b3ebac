//! Handshake messages of the worker's peers. The handshake thread has authenticated initiations.

use std::sync::atomic::Ordering::Relaxed;

use weir_common::{DropReason, account::add_single_writer, meter::Meter, wire::message_type};

use super::{Pipeline, data_kind, gso_batch::BatchKind, push_datagram};
use crate::{mailbox::Initiation, peer::admission::Admission};
use weir_accounts::Endpoint;
use weir_wireguard::{
    identity::Identity,
    tunnel::{REPLY_LEN, Reply},
};

impl Pipeline {
    /// Takes a handshake response or cookie reply for the peer at `index`, or an initiation for
    /// `identity`.
    pub(super) fn handle_handshake(
        &mut self,
        index: usize,
        from: Endpoint,
        message: &[u8],
        identity: Option<&Identity>,
    ) -> Result<(), DropReason> {
        let peer = self.peers.get_mut(index).and_then(Option::as_deref_mut);
        let peer = peer.ok_or(DropReason::UnknownIndex)?;
        if peer.admission(self.iteration.number, 0) == Admission::Refused {
            return Err(DropReason::SessionState);
        }
        if identity.is_none() {
            // The handshake thread has metered initiations. An empty bucket is found before the
            // hashes of mac1, and a sender without the node's key takes nothing from it.
            let (origin, now) = (peer.origin(&from), self.iteration.now.nanos);
            if !peer.meters.has_room(Meter::Responses, origin, now) {
                return Err(DropReason::Responses);
            }
            if message.first() == Some(&message_type::RESPONSE)
                && !peer.tunnel.has_right_mac1(message)
            {
                return Err(DropReason::Mac1);
            }
            peer.meters.take(Meter::Responses, origin, now)?;
        }
        self.wake(index)?;
        // It may change the keys.
        self.seal();
        let peer = self.peers.get_mut(index).and_then(Option::as_deref_mut);
        let peer = peer.ok_or(DropReason::UnknownIndex)?;
        let (mut chunk, buffer) = self.sealed.take(REPLY_LEN).ok_or(DropReason::Truncated)?;
        let kind = message.first().copied().unwrap_or_default();
        let now = self.iteration.now.nanos;
        let result = match identity {
            Some(identity) => peer.tunnel.initiation(identity, message, now, buffer),
            None => peer.tunnel.handshake(message, now, buffer),
        };
        let Ok(reply) = result else {
            self.sealed.truncate(chunk.start);
            return result.map(drop);
        };
        // The endpoint does not move yet. The first data message under the new keys moves it.
        if let Some(account) = peer.account() {
            add_single_writer(&account.metered.handshake_bytes_up, message.len() as u64);
            if kind != message_type::COOKIE_REPLY {
                account.metered.last_handshake.store(self.iteration.now.unix, Relaxed);
            }
        }
        if kind != message_type::COOKIE_REPLY {
            add_single_writer(&self.stats.handshakes, 1);
        }
        let Reply::Send(len) = reply else {
            self.sealed.truncate(chunk.start);
            return Ok(());
        };
        chunk.len = len as u32;
        self.sealed.truncate(chunk.end());
        // The answer to a response is an empty data message, which is billed like all others.
        let kind = if kind == message_type::RESPONSE {
            data_kind(peer, self.iteration.number, len)
        } else {
            BatchKind::Handshake
        };
        push_datagram(&mut self.batches, self.iteration.number, peer, from, kind, chunk);
        Ok(())
    }

    /// Takes an initiation that the handshake thread has authenticated.
    pub fn handle_initiation(&mut self, initiation: &Initiation) {
        let Initiation { slot, from, identity, message } = initiation;
        let result = match self.index_of(*slot) {
            Ok(index) => self.handle_handshake(index, *from, message, Some(identity)),
            Err(_) => Err(DropReason::UnknownPeer),
        };
        if let Err(reason) = result {
            self.stats.refuse(reason);
        }
    }
}
