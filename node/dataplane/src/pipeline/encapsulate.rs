//! From the internet towards consumers.

use weir_common::{DropReason, wire::DATA_OVERHEAD};

use super::{MAX_SEALED_FRAME, Misdirected, Pipeline, push_datagram, push_datagram_with_ecn};
use crate::{limit::policer::Direction, peer::Admission, pipeline::gso_batch::BatchKind};
use weir_packet::{
    ecn::Ecn,
    gso::{Segmenter, complete_checksum},
    headers,
    virtio::{Gso, HEADER_LEN, NetHeader},
};
use weir_wireguard::tunnel::{REPLY_LEN, Reply, padded_len};

/// How many bytes behind a frame the buffer must have: packets are padded in index.
pub const TAILROOM: usize = 16;

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handled {
    /// It is done with.
    Done,
    /// This iteration has no room for it: finish the iteration and come again, with the frame unchanged.
    NextIteration,
}

impl Pipeline {
    /// Takes a frame from the TUN device: the first `len` bytes of `buffer`, which has at least
    /// [`TAILROOM`] bytes more. The buffer's content is void afterwards.
    pub fn handle_tun_packet(&mut self, buffer: &mut [u8], len: usize) -> Handled {
        match self.frame(buffer, len) {
            Ok(transmitted) => transmitted,
            Err((reason, packets)) => {
                self.stats.refuse_many(reason, packets);
                Handled::Done
            }
        }
    }

    fn frame(&mut self, buffer: &mut [u8], len: usize) -> Result<Handled, (DropReason, u64)> {
        const BAD: (DropReason, u64) = (DropReason::TunFrame, 1);
        let header: &[u8; HEADER_LEN] = buffer.first_chunk().ok_or(BAD)?;
        let header = NetHeader::parse(header).ok_or(BAD)?;
        // What the kernel hands over is cut off where the buffer ends, without a word.
        let packet = buffer.get(HEADER_LEN..len).and_then(headers::whole).ok_or(BAD)?;
        let len = HEADER_LEN + packet.len();
        let destination = headers::destination(packet).ok_or(BAD)?;
        let cut = match header.gso {
            Gso::None => None,
            _ => Some(Segmenter::plan(&header, packet).map_err(|_| BAD)?),
        };
        let packets = cut.map_or(1, |cut| cut.packets());
        let lost = |reason| (reason, packets as u64);
        let slot = self.slot_of_address(destination).ok_or(lost(DropReason::NoSession))?;
        let index = match self.index_of(slot) {
            Ok(index) => index,
            Err(owner) => {
                let frame = buffer.get(..len + TAILROOM).unwrap_or_default();
                self.push_misdirected(owner, Misdirected::TunPacket(frame.into()));
                return Ok(Handled::Done);
            }
        };
        self.stats.tun_read.add(packets as u64);
        let peer = self.peers.get_mut(index).and_then(Option::as_deref_mut);
        let peer = peer.ok_or(lost(DropReason::NoSession))?;
        let longest = cut.map_or(packet.len(), |cut| cut.longest());
        let admission = peer.admission(self.iteration, longest + DATA_OVERHEAD);
        let from_gateway = match admission {
            Admission::Metered => false,
            Admission::Free(_) if self.shared.is_from_gateway(packet) => true,
            Admission::Free(_) | Admission::Refused => return Err(lost(admission.refusal_down())),
        };
        let to = peer.endpoint.ok_or(lost(DropReason::NoEndpoint))?;
        // Outward as it is inside (RFC 6040, section 4.1, normal mode).
        let ecn = Ecn::of_packet(packet);
        let needed = packets * (longest + TAILROOM + DATA_OVERHEAD) + REPLY_LEN;
        if needed > MAX_SEALED_FRAME {
            return Err(lost(DropReason::TunFrame));
        }
        if needed > self.sealed.room() {
            return Ok(Handled::NextIteration);
        }
        if !peer.tunnel.is_connected() {
            self.initiate(index);
            return Err(lost(DropReason::NotConnected));
        }
        let rate = peer.rate(Direction::Down, self.fair_share[Direction::Down as usize]);
        let now = self.now.nanos;
        let mtu = self.shared.mtu;
        let (sealed, batches, iteration, stats) =
            (&mut self.sealed, &mut self.batches, self.iteration, &self.stats);
        let mut seal = |buffer: &mut [u8], start: usize, len: usize| {
            let padded = padded_len(len, mtu);
            let admission = peer.admission(iteration, padded + DATA_OVERHEAD);
            if admission != Admission::Metered && !from_gateway {
                stats.refuse(admission.refusal_down());
                return;
            }
            if rate != 0
                && admission == Admission::Metered
                && !peer.is_within(Direction::Down, rate, now, len)
            {
                stats.refuse(DropReason::EgressRateLimit);
                return;
            }
            if from_gateway && !peer.meters.take_answer(now) {
                stats.refuse(DropReason::EgressPaused);
                return;
            }
            let Some((chunk, out)) = sealed.take(padded + DATA_OVERHEAD) else {
                stats.refuse(DropReason::TunFrame);
                return;
            };
            // The padding lies where the next packet's payload is: it is put back afterwards.
            let mut kept = [0u8; TAILROOM];
            let kept = &mut kept[..padded - len];
            let Some(packet) = buffer.get_mut(start..start + padded) else { return };
            kept.copy_from_slice(&packet[len..]);
            packet[len..].fill(0);
            let done = peer.tunnel.seal(packet, out);
            packet[len..].copy_from_slice(kept);
            if done {
                if admission == Admission::Metered {
                    peer.will_send(iteration, padded + DATA_OVERHEAD);
                }
                push_datagram_with_ecn(batches, iteration, peer, to, admission.kind(), ecn, chunk);
            } else {
                sealed.truncate(chunk.start);
                stats.refuse(DropReason::NotConnected);
            }
        };
        let room = buffer.get_mut(HEADER_LEN..).ok_or(BAD)?;
        match cut {
            Some(cut) => cut.for_each(room, seal),
            None => {
                let len = len - HEADER_LEN;
                if let Some((start, offset)) = header.checksum {
                    let packet = room.get_mut(..len).ok_or(BAD)?;
                    complete_checksum(packet, start, offset).map_err(|_| BAD)?;
                }
                seal(room, 0, len);
            }
        }
        Ok(Handled::Done)
    }

    /// Begins a handshake with the peer at `index`, if it is known where it is.
    pub(super) fn initiate(&mut self, index: usize) {
        if self.wake(index).is_err() {
            return;
        }
        let Some(peer) = self.peers.get_mut(index).and_then(Option::as_deref_mut) else { return };
        let Some(to) = peer.endpoint else { return };
        let Some((mut chunk, out)) = self.sealed.take(REPLY_LEN) else { return };
        match peer.tunnel.initiate(out) {
            Reply::Send(len) => {
                chunk.len = len as u32;
                push_datagram(
                    &mut self.batches,
                    self.iteration,
                    peer,
                    to,
                    BatchKind::Handshake,
                    chunk,
                );
            }
            Reply::None => self.sealed.truncate(chunk.start),
        }
    }
}
