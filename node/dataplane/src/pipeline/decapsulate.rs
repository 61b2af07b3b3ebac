//! From consumers towards the internet.

use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use weir_common::{
    DropReason,
    account::add_single_writer,
    meter::{Meter, Origin},
    wire::{Message, message_type},
};

use super::{Misdirected, Owner, Pipeline, data_kind, push_datagram};
use crate::{
    limit::flow_key::FlowKey, limit::policer::Direction, mailbox::Initiation, outer::Outer,
    peer::Admission, pipeline::gso_batch::BatchKind,
};
use weir_accounts::Endpoint;
use weir_packet::{ecn::Ecn, virtio::HEADER_LEN};
use weir_wireguard::{
    identity::Identity,
    tunnel::{Opened, REPLY_LEN, Reply},
};

impl Pipeline {
    /// Takes what one receive call brought: datagrams of `segment` bytes one behind the other, the
    /// last may be shorter, all with the same `outer` headers.
    pub fn handle_udp_batch<'a>(
        &mut self,
        outer: impl Into<Outer<'a>>,
        buffer: &'a [u8],
        segment: usize,
    ) {
        let outer = outer.into();
        let segment = segment.max(1);
        self.stats.udp_receive.add(buffer.len().div_ceil(segment).max(1) as u64);
        if buffer.is_empty() {
            self.stats.refuse(DropReason::Message);
        }
        for datagram in buffer.chunks(segment) {
            self.handle_datagram(outer, datagram);
        }
    }

    /// Takes one datagram.
    #[inline]
    pub fn handle_datagram<'a>(&mut self, outer: impl Into<Outer<'a>>, datagram: &'a [u8]) {
        let outer = outer.into();
        let receiver_index = match Message::parse(datagram) {
            Ok(Message::Initiation) => {
                let misdirected =
                    Misdirected::Datagram(Bytes::copy_from_slice(datagram), outer.verified());
                self.push_misdirected(Owner::Handshakes, misdirected);
                return;
            }
            Ok(
                Message::Data { receiver_index }
                | Message::Response { receiver_index }
                | Message::CookieReply { receiver_index },
            ) => receiver_index,
            Err(_) => {
                self.stats.refuse(DropReason::Message);
                return;
            }
        };
        let Some(slot) = self.slot_of(receiver_index) else {
            self.stats.refuse(DropReason::UnknownIndex);
            return;
        };
        let index = match self.index_of(slot) {
            Ok(index) => index,
            Err(owner) => {
                let misdirected =
                    Misdirected::Datagram(Bytes::copy_from_slice(datagram), outer.verified());
                self.push_misdirected(owner, misdirected);
                return;
            }
        };
        let result = if datagram.first() == Some(&message_type::DATA) {
            self.data(index, &outer, datagram)
        } else {
            self.handshake(index, outer.from, datagram, None)
        };
        if let Err(reason) = result {
            self.stats.refuse(reason);
        }
    }

    /// A data message of the peer at `index`.
    #[inline]
    fn data(&mut self, index: usize, outer: &Outer<'_>, message: &[u8]) -> Result<(), DropReason> {
        let peer = self.peers.get_mut(index).and_then(Option::as_deref_mut);
        let peer = peer.ok_or(DropReason::UnknownIndex)?;
        let origin = peer.origin(&outer.from);
        if let Some(meter) = peer.meter_of_data(origin)? {
            peer.meters.take(meter, origin, self.now.nanos)?;
        }
        let taken = self.plain.take(HEADER_LEN + message.len());
        let (mut chunk, buffer) = taken.ok_or(DropReason::Truncated)?;
        let opened = match peer.tunnel.open(message, &mut buffer[HEADER_LEN..]) {
            Ok(opened) => opened,
            Err(reason) => {
                self.plain.truncate(chunk.start);
                return Err(reason);
            }
        };
        // From here on the message is authentic and new: it is billed whatever it carries, as the
        // consumer's own count has it. Only who may not send it anyway has it for nothing.
        let admission = peer.admission(self.iteration, message.len());
        let mut beyond = None;
        if origin == Origin::Elsewhere && matches!(admission, Admission::Free(_)) {
            // Before, it took from what is for those who move, of which there is more.
            let now = self.now.nanos;
            beyond = peer.meters.take(Meter::PausedData, Origin::Endpoint, now).err();
        }
        if let Opened::Packet(len, source) = opened
            && admission == Admission::Metered
            && peer.owns(source)
        {
            let packet = buffer.get(HEADER_LEN..HEADER_LEN + len).unwrap_or_default();
            let limits = self.flow_limits;
            if !limits.is_off()
                && let Some(flow) = FlowKey::of(&self.shared.flow_secret, packet)
                && let flow_limiter = peer.flow_limiter()
                && !flow_limiter.knows(limits, &flow)
                && !self.shared.is_to_gateway(packet)
            {
                beyond = flow_limiter.admit(limits, &flow, self.now.nanos).err();
            }
            let rate = peer.rate(Direction::Up, self.fair_share[Direction::Up as usize]);
            if beyond.is_none() && rate != 0 {
                let within = peer.is_within(Direction::Up, rate, self.now.nanos, len);
                beyond = (!within).then_some(DropReason::RateLimit);
            }
        }
        if let Some(account) = peer.account() {
            if admission == Admission::Metered && beyond.is_none() {
                add_single_writer(&account.metered.bytes_up, message.len() as u64);
                add_single_writer(&account.metered.packets_up, 1);
            } else {
                add_single_writer(&account.metered.unbilled_bytes, message.len() as u64);
            }
        }
        // The payload is authentic; only a checksum vouches for where it came from.
        if peer.endpoint != Some(outer.from) && outer.vouches() {
            peer.heard_from(outer.from);
        }
        let verdict = match (opened, beyond) {
            (_, Some(reason)) => Err(reason),
            (Opened::Packet(len, source), None) if peer.owns(source) => {
                let packet = buffer.get(HEADER_LEN..HEADER_LEN + len).unwrap_or_default();
                let passes = match admission {
                    Admission::Metered => true,
                    Admission::Free(_) => self.shared.is_to_gateway(packet),
                    Admission::Refused => false,
                };
                if passes { Ok(len) } else { Err(admission.refusal()) }
            }
            (Opened::Packet(..), None) => Err(DropReason::SourceAddress),
            (Opened::NotIp, None) => Err(DropReason::InnerMalformed),
            (Opened::Keepalive, None) => {
                self.plain.truncate(chunk.start);
                return Ok(());
            }
        };
        let verdict = match (verdict, outer.ecn) {
            (Ok(len), ecn) if ecn != Ecn::NotEct => {
                let packet = buffer.get_mut(HEADER_LEN..HEADER_LEN + len).unwrap_or_default();
                Ecn::decapsulate(ecn, packet).map(|()| len).map_err(|_| DropReason::Ecn)
            }
            (verdict, _) => verdict,
        };
        match verdict {
            Ok(len) => {
                chunk.len = (HEADER_LEN + len) as u32;
                self.plain.truncate(chunk.end());
                self.coalescer.push(&self.plain, chunk);
                Ok(())
            }
            Err(reason) => {
                self.plain.truncate(chunk.start);
                Err(reason)
            }
        }
    }

    /// A handshake response or cookie reply for the peer at `index`, or an initiation for
    /// `identity`.
    fn handshake(
        &mut self,
        index: usize,
        from: Endpoint,
        message: &[u8],
        identity: Option<&Identity>,
    ) -> Result<(), DropReason> {
        let peer = self.peers.get_mut(index).and_then(Option::as_deref_mut);
        let peer = peer.ok_or(DropReason::UnknownIndex)?;
        if peer.admission(self.iteration, 0) == Admission::Refused {
            return Err(DropReason::SessionState);
        }
        if identity.is_none() {
            // The handshake thread has metered initiations. Who does not know the node's key takes
            // nothing from the bucket, and an empty one is seen before the hashes.
            let (origin, now) = (peer.origin(&from), self.now.nanos);
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
        let peer = self.peers.get_mut(index).and_then(Option::as_deref_mut);
        let peer = peer.ok_or(DropReason::UnknownIndex)?;
        let (mut chunk, buffer) = self.sealed.take(REPLY_LEN).ok_or(DropReason::Truncated)?;
        let kind = message.first().copied().unwrap_or_default();
        let source = from.remote.ip();
        let result = match identity {
            Some(identity) => peer.tunnel.initiation(identity, source, message, buffer),
            None => peer.tunnel.handshake(source, message, buffer),
        };
        let Ok(reply) = result else {
            self.sealed.truncate(chunk.start);
            return result.map(drop);
        };
        // The endpoint stays where it is: the first data message under the new keys moves it.
        if let Some(account) = peer.account() {
            add_single_writer(&account.metered.handshake_bytes_up, message.len() as u64);
            if kind != message_type::COOKIE_REPLY {
                account.metered.last_handshake.store(self.now.unix, Relaxed);
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
        // The answer to a response is a first data message, empty, and billed like all data.
        let kind = if kind == message_type::RESPONSE {
            data_kind(peer, self.iteration, len)
        } else {
            BatchKind::Handshake
        };
        push_datagram(&mut self.batches, self.iteration, peer, from, kind, chunk);
        Ok(())
    }

    /// Takes an initiation that the handshake thread found to be of this worker's peer.
    pub fn handle_initiation(&mut self, initiation: &Initiation) {
        let Initiation { slot, from, identity, message } = initiation;
        let result = match self.index_of(*slot) {
            Ok(index) => self.handshake(index, *from, message, Some(identity)),
            Err(_) => Err(DropReason::UnknownPeer),
        };
        if let Err(reason) = result {
            self.stats.refuse(reason);
        }
    }
}
