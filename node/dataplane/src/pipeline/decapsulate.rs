//! Up: UDP datagrams from consumers become packets for the TUN device.

use bytes::Bytes;
use weir_common::{
    DropReason,
    account::add_single_writer,
    meter::{Meter, Origin},
    wire::Message,
};

use super::{
    Iteration, Misdirected, Owner, Pipeline, Shared,
    encapsulate::Unit,
    opening::{Opening, Openings},
};
use crate::{
    exit::{self, Exit, Gate, Leaves},
    limit::{flow_key::FlowKey, policer::Direction},
    outer::Outer,
    peer::{Peer, admission::Admission},
};
use weir_packet::{arena::Chunk, ecn::Ecn, ethernet::ETHERNET_HEADER, headers, virtio::HEADER_LEN};
use weir_wireguard::tunnel::{Header, Opened};

/// Where a datagram goes.
enum Target {
    /// A data message of the peer with this index.
    Data(usize),
    /// A handshake response or cookie reply for the peer with this index.
    Handshake(usize),
    /// Another thread.
    Elsewhere(Owner),
}

/// What an authentic data message carries.
#[derive(Clone, Copy)]
enum Payload {
    /// A packet of this length in bytes, from an address of the session.
    Packet(usize),
    /// Nothing: a keepalive.
    Keepalive,
    /// Something that may not pass, though it is billed like a packet.
    Invalid(DropReason),
}

impl Pipeline {
    /// Takes what one receive call returned: datagrams of `segment` bytes, one behind the other, all
    /// with the same `outer` headers. The last one may be shorter.
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
            self.stats.refuse(DropReason::MalformedMessage);
        }
        self.handle_datagrams(buffer.chunks(segment).map(|datagram| (outer, datagram)));
    }

    /// Takes one datagram.
    #[inline]
    pub fn handle_datagram<'a>(&mut self, outer: impl Into<Outer<'a>>, datagram: &'a [u8]) {
        self.handle_datagrams(std::iter::once((outer.into(), datagram)));
    }

    /// Takes datagrams, and opens data messages together. What comes of them is the same as if each
    /// was taken by itself.
    #[inline]
    pub(crate) fn handle_datagrams<'a>(
        &mut self,
        datagrams: impl Iterator<Item = (Outer<'a>, &'a [u8])>,
    ) {
        let mut openings = Openings::new();
        for (outer, datagram) in datagrams {
            let result = match self.classify(datagram) {
                Ok(Target::Data(index)) => self.begin_open(&mut openings, index, outer, datagram),
                Ok(Target::Handshake(index)) => {
                    self.open(&mut openings);
                    self.handle_handshake(index, outer.from, datagram, None)
                }
                Ok(Target::Elsewhere(Owner::Worker(worker))) => {
                    self.send_datagram(worker, &outer, datagram);
                    continue;
                }
                Ok(Target::Elsewhere(owner)) => {
                    let datagram = Bytes::copy_from_slice(datagram);
                    self.push_misdirected(owner, Misdirected::Datagram(datagram, outer.verified()));
                    continue;
                }
                Err(reason) => Err(reason),
            };
            if let Err(reason) = result {
                self.stats.refuse(reason);
            }
        }
        self.open(&mut openings);
    }

    /// Finds where a datagram goes, by its message type and receiver index.
    #[inline(always)]
    fn classify(&self, datagram: &[u8]) -> Result<Target, DropReason> {
        let (receiver_index, is_data) = match Message::parse(datagram) {
            Ok(Message::Data { receiver_index }) => (receiver_index, true),
            Ok(Message::Response { receiver_index } | Message::CookieReply { receiver_index }) => {
                (receiver_index, false)
            }
            Ok(Message::Initiation) => return Ok(Target::Elsewhere(Owner::Handshakes)),
            Err(_) => return Err(DropReason::MalformedMessage),
        };
        let slot = self.slot_of(receiver_index).ok_or(DropReason::UnknownIndex)?;
        Ok(match self.index_of(slot) {
            Ok(index) if is_data => Target::Data(index),
            Ok(index) => Target::Handshake(index),
            Err(owner) => Target::Elsewhere(owner),
        })
    }

    /// Takes a data message that was opened, through all further steps.
    #[inline]
    pub(super) fn take_opened(&mut self, opening: &Opening<'_>) -> Result<(), DropReason> {
        let Opening { index, chunk, .. } = *opening;
        let peer = self.peers.get_mut(index).and_then(Option::as_deref_mut);
        let peer = peer.ok_or(DropReason::UnknownIndex)?;
        let exit = self.exit.as_deref_mut();
        let headroom = headroom(exit.is_some());
        let frame = self.plain.get_mut(chunk).get_mut(HEADER_LEN..).unwrap_or_default();
        let passed = decapsulate(peer, exit, &self.shared, &self.iteration, opening, frame);
        match passed {
            Ok(Passed::Tun(len)) => {
                // The TUN device has no link header.
                let unused = (headroom - HEADER_LEN) as u32;
                let (start, len) = (chunk.start + unused, (HEADER_LEN + len) as u32);
                self.tun.coalescer.push(&self.plain, Chunk { start, len });
                Ok(())
            }
            Ok(Passed::Uplink(len)) => {
                let chunk = Chunk { start: chunk.start, len: (headroom + len) as u32 };
                if let Some(exit) = &mut self.exit {
                    exit.uplink.coalescer.push(&self.plain, chunk);
                }
                Ok(())
            }
            Ok(Passed::Nothing) => Ok(()),
            Err(reason) => {
                self.answer(index, chunk);
                Err(reason)
            }
        }
    }

    /// Tells the sender of a refused packet what has become of it, if there is something to tell.
    #[inline]
    fn answer(&mut self, index: usize, refused: Chunk) {
        if self.exit.as_ref().is_some_and(|exit| exit.has_answer()) {
            self.send_answer(index, refused);
        }
    }

    #[cold]
    fn send_answer(&mut self, index: usize, refused: Chunk) {
        let Some(exit) = &mut self.exit else { return };
        let Some(peer) = self.peers.get_mut(index).and_then(Option::as_deref_mut) else { return };
        let refused = self.plain.get(refused).get(exit::HEADROOM..).and_then(headers::whole);
        let Some(len) = refused.and_then(|refused| exit.take_answer(refused)) else { return };
        if !peer.meters.take_refusal(self.iteration.now.nanos) {
            return;
        }
        let mut scratch = std::mem::take(&mut exit.scratch);
        if let Err((reason, packets)) = self.deliver(index, &mut scratch, Unit::packet(len)) {
            self.stats.refuse_many(reason, packets);
        }
        if let Some(exit) = &mut self.exit {
            exit.scratch = scratch;
        }
    }
}

/// What passes of a data message, with the length of its packet in bytes.
enum Passed {
    /// A packet for the TUN device.
    Tun(usize),
    /// A packet for the uplink, translated and with its Ethernet header.
    Uplink(usize),
    /// Nothing now: it was a keepalive, or waits for its next hop.
    Nothing,
}

/// The room before a packet: for the virtio header, and for the Ethernet header if there is an exit.
pub(super) fn headroom(has_exit: bool) -> usize {
    if has_exit { exit::HEADROOM } else { HEADER_LEN }
}

/// Admits and accounts an authentic data message. `frame` has room for the Ethernet header before the
/// packet if there is an exit.
#[inline(always)]
fn decapsulate(
    peer: &mut Peer,
    exit: Option<&mut Exit>,
    shared: &Shared,
    iteration: &Iteration,
    opening: &Opening<'_>,
    frame: &mut [u8],
) -> Result<Passed, DropReason> {
    let Opening { outer, origin, message, header, .. } = opening;
    let link_len = if exit.is_some() { ETHERNET_HEADER } else { 0 };
    let out = frame.get_mut(link_len..).unwrap_or_default();
    let payload = payload(peer, *header, out, iteration.now.nanos)?;
    // From here on the message is authentic and new. It is billed whatever it carries, so that the
    // bill agrees with the consumer's own count.
    let admission = peer.admission(iteration.number, message.len());
    let packet = match payload {
        Payload::Packet(len) => out.get(..len),
        Payload::Keepalive | Payload::Invalid(_) => None,
    };
    let to_exit = match (&exit, packet) {
        (Some(_), Some(packet)) => !shared.is_to_gateway(packet),
        _ => false,
    };
    let mut admitted = admit(peer, shared, iteration, *origin, admission, packet, to_exit);
    let mut is_billed = admission == Admission::Metered && admitted.is_ok();
    let mut waits = false;
    if let (true, Ok(()), Payload::Packet(len), Some(exit)) = (to_exit, admitted, payload, exit) {
        let left = leave(peer, exit, shared, iteration, outer.ecn, frame, len);
        // What is beyond the session's flow limits is not billed, as elsewhere.
        is_billed &= !matches!(left, Err(DropReason::NewFlows | DropReason::Destinations));
        waits = left == Ok(Leaves::Later);
        admitted = left.map(drop);
    }
    account(peer, is_billed, message.len());
    // The payload is authentic, but only a checksum proves where it came from.
    if peer.endpoint != Some(outer.from) && outer.vouches() {
        peer.move_endpoint(outer.from);
    }
    admitted?;
    match payload {
        Payload::Packet(_) if waits => Ok(Passed::Nothing),
        Payload::Packet(len) if to_exit => Ok(Passed::Uplink(len)),
        Payload::Packet(len) => {
            let out = frame.get_mut(link_len..).unwrap_or_default();
            propagate_ecn(outer.ecn, out.get_mut(..len).unwrap_or_default())?;
            Ok(Passed::Tun(len))
        }
        Payload::Keepalive => Ok(Passed::Nothing),
        Payload::Invalid(reason) => Err(reason),
    }
}

/// Translates the packet of `len` bytes in `frame`, and addresses it to its next hop.
#[inline(always)]
fn leave(
    peer: &mut Peer,
    exit: &mut Exit,
    shared: &Shared,
    iteration: &Iteration,
    ecn: Ecn,
    frame: &mut [u8],
    len: usize,
) -> Result<Leaves, DropReason> {
    let frame = frame.get_mut(..ETHERNET_HEADER + len).ok_or(DropReason::UpMalformed)?;
    propagate_ecn(ecn, frame.get_mut(ETHERNET_HEADER..).unwrap_or_default())?;
    let slot = peer.slot;
    let mut gate = Gate { peer, limits: iteration.flow_limits, secret: &shared.flow_secret };
    exit.forward(frame, slot, iteration.now.nanos, &mut gate)
}

/// What an authentic message carries, if it is new: with a check of the packet's source address.
#[inline(always)]
fn payload(peer: &mut Peer, header: Header, plain: &[u8], now: u64) -> Result<Payload, DropReason> {
    Ok(match peer.tunnel.finish_open(header, plain, now)? {
        Opened::Packet(len, source) if peer.owns(source) => Payload::Packet(len),
        Opened::Packet(..) => Payload::Invalid(DropReason::SourceAddress),
        Opened::NotIp => Payload::Invalid(DropReason::UpMalformed),
        Opened::Keepalive => Payload::Keepalive,
    })
}

/// Decides whether a message passes, by the session's state, flow limits and rate.
#[inline(always)]
fn admit(
    peer: &mut Peer,
    shared: &Shared,
    iteration: &Iteration,
    origin: Origin,
    admission: Admission,
    packet: Option<&[u8]>,
    to_exit: bool,
) -> Result<(), DropReason> {
    let now = iteration.now.nanos;
    match (admission, packet) {
        (Admission::Metered, Some(packet)) => {
            // The exit's flow table knows better which flows are new.
            if !to_exit {
                admit_flow(peer, shared, iteration, packet)?;
            }
            let [share, _] = iteration.fair_share;
            let rate = peer.rate(Direction::Up, share);
            let passes = rate == 0 || peer.is_within(Direction::Up, rate, now, packet.len());
            if passes { Ok(()) } else { Err(DropReason::RateLimit) }
        }
        (Admission::Metered, None) => Ok(()),
        (Admission::Free(_), packet) => {
            if origin == Origin::Elsewhere {
                // Before it was opened, it took from the meter of roaming sessions, which allows
                // more than that of paused ones.
                peer.meters.take(Meter::PausedData, Origin::Endpoint, now)?;
            }
            match packet {
                Some(packet) if !shared.is_to_gateway(packet) => Err(admission.refusal()),
                _ => Ok(()),
            }
        }
        (Admission::Refused, Some(_)) => Err(admission.refusal()),
        (Admission::Refused, None) => Ok(()),
    }
}

/// Counts the packet's flow and destination, if they are new and not the gateway's.
#[inline(always)]
fn admit_flow(
    peer: &mut Peer,
    shared: &Shared,
    iteration: &Iteration,
    packet: &[u8],
) -> Result<(), DropReason> {
    let limits = iteration.flow_limits;
    if limits.is_off() {
        return Ok(());
    }
    let Some(flow) = FlowKey::of(&shared.flow_secret, packet) else { return Ok(()) };
    let limiter = peer.flow_limiter();
    if limiter.knows(limits, &flow) || shared.is_to_gateway(packet) {
        return Ok(());
    }
    limiter.admit(limits, &flow, iteration.now.nanos)
}

/// Counts an authentic message of `len` bytes.
#[inline(always)]
fn account(peer: &Peer, is_billed: bool, len: usize) {
    let Some(account) = peer.account() else { return };
    if is_billed {
        add_single_writer(&account.metered.bytes_up, len as u64);
        add_single_writer(&account.metered.packets_up, 1);
    } else {
        add_single_writer(&account.metered.unbilled_bytes, len as u64);
    }
}

/// Propagates the outer header's ECN field to the packet (RFC 6040, section 4.2).
#[inline(always)]
fn propagate_ecn(outer: Ecn, packet: &mut [u8]) -> Result<(), DropReason> {
    if outer == Ecn::NotEct {
        return Ok(());
    }
    Ecn::decapsulate(outer, packet).map_err(|_| DropReason::Ecn)
}
