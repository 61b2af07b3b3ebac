//! From the internet towards consumers.

use weir_common::{DropReason, wire::DATA_OVERHEAD};

use super::{MAX_SEALED_FRAME, Pipeline, Stray, push_marked, push_run};
use crate::{limit::policer::Way, peer::Fare, pipeline::gso_batch::RunKind};
use weir_packet::{
    ecn::Ecn,
    gso::{Cut, complete_checksum},
    headers,
    virtio::{Gso, HEADER_LEN, NetHeader},
};
use weir_wireguard::tunnel::{REPLY_LEN, Reply, padded_len};

/// How many bytes behind a frame the buffer must have: packets are padded in place.
pub const FRAME_SLACK: usize = 16;

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transmitted {
    /// It is done with.
    Done,
    /// This turn has no room for it: finish the turn and come again, with the frame unchanged.
    NextTurn,
}

impl Pipeline {
    /// Takes a frame from the TUN device: the first `len` bytes of `buffer`, which has at least
    /// [`FRAME_SLACK`] bytes more. The buffer's content is void afterwards.
    pub fn transmit(&mut self, buffer: &mut [u8], len: usize) -> Transmitted {
        match self.frame(buffer, len) {
            Ok(transmitted) => transmitted,
            Err((reason, packets)) => {
                self.stats.refuse_many(reason, packets);
                Transmitted::Done
            }
        }
    }

    fn frame(&mut self, buffer: &mut [u8], len: usize) -> Result<Transmitted, (DropReason, u64)> {
        const BAD: (DropReason, u64) = (DropReason::TunFrame, 1);
        let header: &[u8; HEADER_LEN] = buffer.first_chunk().ok_or(BAD)?;
        let header = NetHeader::parse(header).ok_or(BAD)?;
        // What the kernel hands over is cut off where the buffer ends, without a word.
        let packet = buffer.get(HEADER_LEN..len).and_then(headers::whole).ok_or(BAD)?;
        let len = HEADER_LEN + packet.len();
        let destination = headers::destination(packet).ok_or(BAD)?;
        let cut = match header.gso {
            Gso::None => None,
            _ => Some(Cut::plan(&header, packet).map_err(|_| BAD)?),
        };
        let packets = cut.map_or(1, |cut| cut.packets());
        let lost = |reason| (reason, packets as u64);
        let slot = self.slot_of_address(destination).ok_or(lost(DropReason::NoSession))?;
        let place = match self.place(slot) {
            Ok(place) => place,
            Err(owner) => {
                let frame = buffer.get(..len + FRAME_SLACK).unwrap_or_default();
                self.push_stray(owner, Stray::Frame(frame.into()));
                return Ok(Transmitted::Done);
            }
        };
        self.stats.tun_read.add(packets as u64);
        let peer = self.peers.get_mut(place).and_then(Option::as_deref_mut);
        let peer = peer.ok_or(lost(DropReason::NoSession))?;
        let longest = cut.map_or(packet.len(), |cut| cut.longest());
        let fare = peer.fare(self.turn, longest + DATA_OVERHEAD);
        let from_gateway = match fare {
            Fare::Billed => false,
            Fare::Unbilled(_) if self.shared.is_from_gateway(packet) => true,
            Fare::Unbilled(_) | Fare::Closed => return Err(lost(fare.refusal_down())),
        };
        let to = peer.endpoint.ok_or(lost(DropReason::NoEndpoint))?;
        // Outward as it is inside (RFC 6040, section 4.1, normal mode).
        let ecn = Ecn::of_packet(packet);
        let needed = packets * (longest + FRAME_SLACK + DATA_OVERHEAD) + REPLY_LEN;
        if needed > MAX_SEALED_FRAME {
            return Err(lost(DropReason::TunFrame));
        }
        if needed > self.sealed.room() {
            return Ok(Transmitted::NextTurn);
        }
        if !peer.tunnel.is_connected() {
            self.initiate(place);
            return Err(lost(DropReason::NotConnected));
        }
        let rate = peer.rate(Way::Down, self.levels[Way::Down as usize]);
        let now = self.now.nanos;
        let mtu = self.shared.mtu;
        let (sealed, runs, turn, stats) =
            (&mut self.sealed, &mut self.runs, self.turn, &self.stats);
        let mut seal = |buffer: &mut [u8], start: usize, len: usize| {
            let padded = padded_len(len, mtu);
            let fare = peer.fare(turn, padded + DATA_OVERHEAD);
            if fare != Fare::Billed && !from_gateway {
                stats.refuse(fare.refusal_down());
                return;
            }
            if rate != 0 && fare == Fare::Billed && !peer.is_within(Way::Down, rate, now, len) {
                stats.refuse(DropReason::EgressRateLimit);
                return;
            }
            if from_gateway && !peer.meters.take_answer(now) {
                stats.refuse(DropReason::EgressPaused);
                return;
            }
            let Some((span, out)) = sealed.take(padded + DATA_OVERHEAD) else {
                stats.refuse(DropReason::TunFrame);
                return;
            };
            // The padding lies where the next packet's payload is: it is put back afterwards.
            let mut kept = [0u8; FRAME_SLACK];
            let kept = &mut kept[..padded - len];
            let Some(packet) = buffer.get_mut(start..start + padded) else { return };
            kept.copy_from_slice(&packet[len..]);
            packet[len..].fill(0);
            let done = peer.tunnel.seal(packet, out);
            packet[len..].copy_from_slice(kept);
            if done {
                if fare == Fare::Billed {
                    peer.will_send(turn, padded + DATA_OVERHEAD);
                }
                push_marked(runs, turn, peer, to, fare.kind(), ecn, span);
            } else {
                sealed.truncate(span.start);
                stats.refuse(DropReason::NotConnected);
            }
        };
        let room = buffer.get_mut(HEADER_LEN..).ok_or(BAD)?;
        match cut {
            Some(cut) => cut.each(room, seal),
            None => {
                let len = len - HEADER_LEN;
                if let Some((start, offset)) = header.checksum {
                    let packet = room.get_mut(..len).ok_or(BAD)?;
                    complete_checksum(packet, start, offset).map_err(|_| BAD)?;
                }
                seal(room, 0, len);
            }
        }
        Ok(Transmitted::Done)
    }

    /// Begins a handshake with the peer at `place`, if it is known where it is.
    pub(super) fn initiate(&mut self, place: usize) {
        if self.wake(place).is_err() {
            return;
        }
        let Some(peer) = self.peers.get_mut(place).and_then(Option::as_deref_mut) else { return };
        let Some(to) = peer.endpoint else { return };
        let Some((mut span, out)) = self.sealed.take(REPLY_LEN) else { return };
        match peer.tunnel.initiate(out) {
            Reply::Send(len) => {
                span.len = len as u32;
                push_run(&mut self.runs, self.turn, peer, to, RunKind::Handshake, span);
            }
            Reply::None => self.sealed.truncate(span.start),
        }
    }
}
