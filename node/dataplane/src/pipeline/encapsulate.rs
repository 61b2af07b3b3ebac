//! Down: packets from the TUN device become UDP datagrams to consumers.

use weir_common::{DropReason, wire::DATA_OVERHEAD};

use super::{
    Iteration, MAX_SEALED_LEN, Misdirected, Pipeline,
    gso_batch::{BatchKind, GsoBatches},
    push_datagram, push_datagram_with_ecn,
    sealing::Sealings,
};
use crate::{
    exit::{Exit, HEADROOM},
    limit::policer::Direction,
    peer::{Peer, admission::Admission},
    stats::WorkerStats,
};
use weir_accounts::Endpoint;
use weir_packet::{
    arena::Arena,
    ecn::Ecn,
    ethernet::ETHERNET_HEADER,
    fragment,
    gso::{Segmenter, complete_checksum},
    headers,
    virtio::{Gso, HEADER_LEN, NetHeader},
};
use weir_wireguard::tunnel::{REPLY_LEN, Reply, padded_len};

/// The number of bytes that a buffer must have behind a TUN packet, because packets are padded in
/// place.
pub const TAILROOM: usize = 16;

/// What became of a TUN packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handled {
    /// It was taken, misdirected or dropped.
    Done,
    /// The iteration has no room for it. Finish the iteration and try again with the same packet.
    NextIteration,
}

/// Why a TUN packet was dropped, and the number of packets in it.
type Dropped = (DropReason, u64);

/// What is delivered at once: a packet, or a super-packet.
#[derive(Clone, Copy)]
pub(super) struct Unit {
    /// The length in bytes.
    len: usize,
    /// How a super-packet is segmented.
    segmenter: Option<Segmenter>,
    /// If the checksum is only the sum of the pseudo-header: where, as [`NetHeader::checksum`] says.
    checksum: Option<(u16, u16)>,
}

impl Unit {
    /// A packet of `len` bytes whose checksum is complete.
    pub(super) fn packet(len: usize) -> Self {
        Self { len, segmenter: None, checksum: None }
    }

    fn packets(&self) -> usize {
        self.segmenter.map_or(1, |segmenter| segmenter.packets())
    }
}

impl Pipeline {
    /// Takes a packet from the TUN device: the first `len` bytes of `buffer`, which has at least
    /// [`TAILROOM`] bytes more. Overwrites the buffer.
    pub fn handle_tun_packet(&mut self, buffer: &mut [u8], len: usize) -> Handled {
        match self.encapsulate(buffer, len) {
            Ok(handled) => handled,
            Err((reason, packets)) => {
                self.stats.refuse_many(reason, packets);
                Handled::Done
            }
        }
    }

    /// Takes a packet from the uplink: the first `len` bytes of `buffer`, which has at least
    /// [`TAILROOM`] bytes more. Overwrites the buffer.
    pub fn handle_return_packet(&mut self, buffer: &mut [u8], len: usize) {
        if let Err((reason, packets)) = self.take_return_packet(buffer, len) {
            self.stats.refuse_many(reason, packets);
        }
    }

    fn take_return_packet(&mut self, buffer: &mut [u8], len: usize) -> Result<(), Dropped> {
        const BAD: Dropped = (DropReason::DownMalformed, 1);
        let now = self.iteration.now.nanos;
        let exit = self.exit.as_deref_mut().ok_or((DropReason::DownNoFlow, 1))?;
        let packet = buffer.get_mut(..len).ok_or(BAD)?;
        if self.shared.workers > 1 {
            let owner = exit.worker_of(packet).ok_or((DropReason::DownNoFlow, 1))?;
            if owner != self.worker {
                let packet = buffer.get(..len + TAILROOM).ok_or(BAD)?;
                self.send_return_packet(owner, packet);
                return Ok(());
            }
        }
        headers::complete_partial_checksum(packet);
        if len > self.shared.mtu {
            return self.take_too_big(buffer, len);
        }
        let slot = exit.accept(packet, now).map_err(|reason| (reason, 1))?;
        let index = self.index_of(slot).map_err(|_| (DropReason::NoSession, 1))?;
        self.stats.tun_read.add(1);
        match self.deliver(index, buffer, Unit::packet(len))? {
            Handled::Done => Ok(()),
            // The ring of received frames is no longer than the room for them.
            Handled::NextIteration => Err((DropReason::DownWorkerQueueFull, 1)),
        }
    }

    /// Fragments a packet that is too big for the tunnel, or tells its sender.
    #[cold]
    fn take_too_big(&mut self, buffer: &mut [u8], len: usize) -> Result<(), Dropped> {
        const TOO_BIG: Dropped = (DropReason::DownTooBig, 1);
        let (mtu, now) = (self.shared.mtu, self.iteration.now.nanos);
        let exit = self.exit.as_deref_mut().ok_or(TOO_BIG)?;
        let packet = buffer.get_mut(..len).ok_or(TOO_BIG)?;
        let original = packet.to_vec();
        // Nobody without a flow can have the node send something.
        let slot = exit.accept(packet, now).map_err(|reason| (reason, 1))?;
        let index = self.index_of(slot).map_err(|_| (DropReason::NoSession, 1))?;
        if let Some(fragments) = fragment::split(packet, mtu) {
            self.stats.tun_read.add(1);
            for mut fragment in fragments {
                let len = fragment.len();
                fragment.resize(len + TAILROOM, 0);
                self.deliver(index, &mut fragment, Unit::packet(len))?;
            }
            return Ok(());
        }
        let exit = self.exit.as_deref_mut().ok_or(TOO_BIG)?;
        let peer = self.peers.get_mut(index).and_then(Option::as_deref_mut).ok_or(TOO_BIG)?;
        if peer.meters.take_refusal(now)
            && let Some(len) = exit.write_too_big(&original, mtu as u16)
        {
            transmit_answer(exit, &mut self.plain, len);
        }
        Err(TOO_BIG)
    }

    fn encapsulate(&mut self, buffer: &mut [u8], len: usize) -> Result<Handled, Dropped> {
        const BAD: Dropped = (DropReason::DownMalformed, 1);
        let header: &[u8; HEADER_LEN] = buffer.first_chunk().ok_or(BAD)?;
        let header = NetHeader::parse(header).ok_or(BAD)?;
        // The kernel truncates a packet that does not fit the buffer, and does not say so.
        let packet = buffer.get(HEADER_LEN..len).and_then(headers::whole).ok_or(BAD)?;
        let len = packet.len();
        let destination = headers::destination(packet).ok_or(BAD)?;
        let segmenter = match header.gso {
            Gso::None => None,
            _ => Some(Segmenter::plan(&header, packet).map_err(|_| BAD)?),
        };
        let unit = Unit { len, segmenter, checksum: header.checksum };
        let dropped = |reason| (reason, unit.packets() as u64);
        let slot = self.slot_of_address(destination).ok_or(dropped(DropReason::NoSession))?;
        let index = match self.index_of(slot) {
            Ok(index) => index,
            Err(owner) => {
                let packet = buffer.get(..HEADER_LEN + len + TAILROOM).unwrap_or_default();
                self.push_misdirected(owner, Misdirected::TunPacket(packet.into()));
                return Ok(Handled::Done);
            }
        };
        self.stats.tun_read.add(unit.packets() as u64);
        let room = buffer.get_mut(HEADER_LEN..).ok_or(BAD)?;
        self.deliver(index, room, unit)
    }

    /// Seals a packet or super-packet at the start of `room` for the peer at `index`.
    pub(super) fn deliver(
        &mut self,
        index: usize,
        room: &mut [u8],
        unit: Unit,
    ) -> Result<Handled, Dropped> {
        const BAD: Dropped = (DropReason::DownMalformed, 1);
        let Unit { len, segmenter, checksum } = unit;
        let packet = room.get(..len).ok_or(BAD)?;
        let packets = unit.packets();
        let dropped = |reason| (reason, packets as u64);
        let peer = self.peers.get_mut(index).and_then(Option::as_deref_mut);
        let peer = peer.ok_or(dropped(DropReason::NoSession))?;
        let longest = segmenter.map_or(len, |segmenter| segmenter.longest());
        let admission = peer.admission(self.iteration.number, longest + DATA_OVERHEAD);
        let from_gateway = match admission {
            Admission::Metered => false,
            Admission::Free(_) if self.shared.is_from_gateway(packet) => true,
            Admission::Free(_) | Admission::Refused => {
                return Err(dropped(admission.refusal_down()));
            }
        };
        let to = peer.endpoint.ok_or(dropped(DropReason::NoEndpoint))?;
        // The outer header gets the inner ECN field (RFC 6040, section 4.1, normal mode).
        let ecn = Ecn::of_packet(packet);
        let needed = packets * (longest + TAILROOM + DATA_OVERHEAD) + REPLY_LEN;
        if needed > MAX_SEALED_LEN {
            return Err(dropped(DropReason::DownMalformed));
        }
        if needed > self.sealed.room() {
            return Ok(Handled::NextIteration);
        }
        if self.sealings.is_full() || segmenter.is_some() {
            self.seal();
        }
        let peer = self.peers.get_mut(index).and_then(Option::as_deref_mut);
        let peer = peer.ok_or(dropped(DropReason::NoSession))?;
        if !peer.tunnel.is_connected(self.iteration.now.nanos) {
            self.initiate(index);
            return Err(dropped(DropReason::NotConnected));
        }
        self.active.wake(index);
        let [_, share] = self.iteration.fair_share;
        let rate = peer.rate(Direction::Down, share);
        let mut sender = Sender {
            peer,
            index,
            sealed: &mut self.sealed,
            sealings: &mut self.sealings,
            batches: &mut self.batches,
            stats: &self.stats,
            iteration: &self.iteration,
            mtu: self.shared.mtu,
            from_gateway,
            rate,
            to,
            ecn,
        };
        match segmenter {
            Some(segmenter) => {
                segmenter.for_each(room, |buffer, start, len| sender.send(buffer, start, len));
            }
            None => {
                if let Some((start, offset)) = checksum {
                    let packet = room.get_mut(..len).ok_or(BAD)?;
                    complete_checksum(packet, start, offset).map_err(|_| BAD)?;
                }
                sender.send(room, 0, len);
            }
        }
        Ok(Handled::Done)
    }

    /// Initiates a handshake with the peer at `index`, if its endpoint is known.
    pub(super) fn initiate(&mut self, index: usize) {
        if self.wake(index).is_err() {
            return;
        }
        let Some(peer) = self.peers.get_mut(index).and_then(Option::as_deref_mut) else { return };
        let Some(to) = peer.endpoint else { return };
        let Some((mut chunk, out)) = self.sealed.take(REPLY_LEN) else { return };
        let now = self.iteration.now;
        match peer.tunnel.initiate(now.nanos, now.date(), out) {
            Reply::Send(len) => {
                chunk.len = len as u32;
                let (batches, number) = (&mut self.batches, self.iteration.number);
                push_datagram(batches, number, peer, to, BatchKind::Handshake, chunk);
            }
            Reply::None => self.sealed.truncate(chunk.start),
        }
    }
}

/// Sends the answer of `len` bytes in the exit's scratch buffer to the internet.
#[cold]
fn transmit_answer(exit: &mut Exit, plain: &mut Arena, len: usize) {
    let Some((chunk, frame)) = plain.take(HEADROOM + len) else { return };
    let Some(frame) = frame.get_mut(HEADER_LEN..) else { return };
    if let (Some(packet), Some(answer)) =
        (frame.get_mut(ETHERNET_HEADER..), exit.scratch.get(..len))
    {
        packet.copy_from_slice(answer);
    }
    match exit.address(frame) {
        Some(()) => exit.uplink.coalescer.push(plain, chunk),
        None => plain.truncate(chunk.start),
    }
}

/// Sends the packets of one TUN packet to its consumer.
struct Sender<'a> {
    peer: &'a mut Peer,
    index: usize,
    sealed: &'a mut Arena,
    sealings: &'a mut Sealings,
    batches: &'a mut GsoBatches,
    stats: &'a WorkerStats,
    iteration: &'a Iteration,
    mtu: usize,
    from_gateway: bool,
    /// In bytes per second. 0 means no limit.
    rate: u64,
    to: Endpoint,
    ecn: Ecn,
}

impl Sender<'_> {
    /// Admits and seals the packet of `len` bytes at `start`, and appends it to the consumer's batch.
    #[inline(always)]
    fn send(&mut self, buffer: &mut [u8], start: usize, len: usize) {
        let padded = padded_len(len, self.mtu);
        let number = self.iteration.number;
        let sent = self.admit(len, padded).and_then(|admission| {
            let packet = buffer.get(start..start + len).ok_or(DropReason::DownMalformed)?;
            let taken = self.sealed.take(padded + DATA_OVERHEAD);
            let (chunk, _) = taken.ok_or(DropReason::DownMalformed)?;
            let now = self.iteration.now.nanos;
            let Some(sealing) = self.peer.tunnel.begin_seal(true, now) else {
                self.sealed.truncate(chunk.start);
                return Err(DropReason::NotConnected);
            };
            if self.sealings.is_full() {
                // All of them are of this super-packet.
                let tunnel = &self.peer.tunnel;
                self.sealings.seal(self.sealed, |_, sealing| tunnel.send_key(sealing));
            }
            let key = || self.peer.tunnel.send_key(sealing);
            self.sealings.push(self.sealed, self.index, sealing, packet, chunk, key);
            if admission == Admission::Metered {
                self.peer.will_send(number, padded + DATA_OVERHEAD);
            }
            let kind = admission.kind();
            push_datagram_with_ecn(self.batches, number, self.peer, self.to, kind, self.ecn, chunk);
            Ok(())
        });
        if let Err(reason) = sent {
            self.stats.refuse(reason);
        }
    }

    /// Decides whether a packet passes, by the session's credit and rate.
    #[inline(always)]
    fn admit(&mut self, len: usize, padded: usize) -> Result<Admission, DropReason> {
        let now = self.iteration.now.nanos;
        let admission = self.peer.admission(self.iteration.number, padded + DATA_OVERHEAD);
        let is_metered = admission == Admission::Metered;
        if !is_metered && !self.from_gateway {
            return Err(admission.refusal_down());
        }
        if self.rate != 0
            && is_metered
            && !self.peer.is_within(Direction::Down, self.rate, now, len)
        {
            return Err(DropReason::DownRateLimit);
        }
        if self.from_gateway && !self.peer.meters.take_answer(now) {
            return Err(DropReason::DownPaused);
        }
        Ok(admission)
    }
}
