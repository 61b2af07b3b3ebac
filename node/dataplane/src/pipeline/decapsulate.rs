//! Up: UDP datagrams from consumers become packets for the TUN device.

use bytes::Bytes;
use weir_common::{
    DropReason,
    account::add_single_writer,
    meter::{Meter, Origin},
    wire::Message,
};

use super::{Iteration, Misdirected, Owner, Pipeline, Shared};
use crate::{
    limit::{flow_key::FlowKey, policer::Direction},
    outer::Outer,
    peer::{Peer, admission::Admission},
};
use weir_packet::{ecn::Ecn, virtio::HEADER_LEN};
use weir_wireguard::tunnel::Opened;

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
        for datagram in buffer.chunks(segment) {
            self.handle_datagram(outer, datagram);
        }
    }

    /// Takes one datagram.
    #[inline]
    pub fn handle_datagram<'a>(&mut self, outer: impl Into<Outer<'a>>, datagram: &'a [u8]) {
        let outer = outer.into();
        let result = match self.classify(datagram) {
            Ok(Target::Data(index)) => self.handle_data(index, &outer, datagram),
            Ok(Target::Handshake(index)) => {
                self.handle_handshake(index, outer.from, datagram, None)
            }
            Ok(Target::Elsewhere(owner)) => {
                let datagram = Bytes::copy_from_slice(datagram);
                self.push_misdirected(owner, Misdirected::Datagram(datagram, outer.verified()));
                return;
            }
            Err(reason) => Err(reason),
        };
        if let Err(reason) = result {
            self.stats.refuse(reason);
        }
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

    /// Takes a data message of the peer at `index`, through all steps.
    #[inline]
    fn handle_data(
        &mut self,
        index: usize,
        outer: &Outer<'_>,
        message: &[u8],
    ) -> Result<(), DropReason> {
        let peer = self.peers.get_mut(index).and_then(Option::as_deref_mut);
        let peer = peer.ok_or(DropReason::UnknownIndex)?;
        let origin = peer.origin(&outer.from);
        if let Some(meter) = peer.meter_of_data(origin)? {
            peer.meters.take(meter, origin, self.iteration.now.nanos)?;
        }
        let taken = self.plain.take(HEADER_LEN + message.len());
        let (mut chunk, buffer) = taken.ok_or(DropReason::Truncated)?;
        let room = buffer.get_mut(HEADER_LEN..).unwrap_or_default();
        let passed = decapsulate(peer, &self.shared, &self.iteration, outer, origin, message, room);
        match passed {
            Ok(Some(len)) => {
                chunk.len = (HEADER_LEN + len) as u32;
                self.plain.truncate(chunk.end());
                self.coalescer.push(&self.plain, chunk);
                Ok(())
            }
            Ok(None) => {
                self.plain.truncate(chunk.start);
                Ok(())
            }
            Err(reason) => {
                self.plain.truncate(chunk.start);
                Err(reason)
            }
        }
    }
}

/// Opens, admits and accounts a data message. Returns the length of the packet in `out` that passes,
/// if the message carries one.
#[inline(always)]
fn decapsulate(
    peer: &mut Peer,
    shared: &Shared,
    iteration: &Iteration,
    outer: &Outer<'_>,
    origin: Origin,
    message: &[u8],
    out: &mut [u8],
) -> Result<Option<usize>, DropReason> {
    let payload = open(peer, message, out)?;
    // From here on the message is authentic and new. It is billed whatever it carries, so that the
    // bill agrees with the consumer's own count.
    let admission = peer.admission(iteration.number, message.len());
    let packet = match payload {
        Payload::Packet(len) => out.get(..len),
        Payload::Keepalive | Payload::Invalid(_) => None,
    };
    let admitted = admit(peer, shared, iteration, origin, admission, packet);
    account(peer, admission == Admission::Metered && admitted.is_ok(), message.len());
    // The payload is authentic, but only a checksum proves where it came from.
    if peer.endpoint != Some(outer.from) && outer.vouches() {
        peer.move_endpoint(outer.from);
    }
    admitted?;
    match payload {
        Payload::Packet(len) => {
            propagate_ecn(outer.ecn, out.get_mut(..len).unwrap_or_default())?;
            Ok(Some(len))
        }
        Payload::Keepalive => Ok(None),
        Payload::Invalid(reason) => Err(reason),
    }
}

/// Opens a message into `out`, and checks the source address of the packet in it.
#[inline(always)]
fn open(peer: &mut Peer, message: &[u8], out: &mut [u8]) -> Result<Payload, DropReason> {
    Ok(match peer.tunnel.open(message, out)? {
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
) -> Result<(), DropReason> {
    let now = iteration.now.nanos;
    match (admission, packet) {
        (Admission::Metered, Some(packet)) => {
            admit_flow(peer, shared, iteration, packet)?;
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
