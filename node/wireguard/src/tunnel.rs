//! One consumer's WireGuard, by boringtun, with the gaps closed that its `Tunn` leaves to its
//! caller: counters beyond WireGuard's limit (on which it panics or accepts replays), padding,
//! its queue of packets before a handshake, buffers that are too small (on which it panics), and
//! time, which passes for it only in [`Tunnel::tick`].

use std::{net::IpAddr, sync::Arc};

use boringtun::{
    noise::{Tunn, TunnResult, errors::WireGuardError},
    x25519,
};
use weir_common::{
    DropReason, PeerIndex,
    mac1::{Mac1Key, Mac1Keys},
    wire::{DATA_OVERHEAD, INITIATION_LEN},
};

use crate::identity::Identity;

/// REJECT_AFTER_MESSAGES (whitepaper, section 6.1): no counter may reach it.
pub const REJECT_AFTER_MESSAGES: u64 = u64::MAX - (1 << 13);

/// The least room that a reply to a handshake message, or a timer's message, may take.
pub const REPLY_LEN: usize = INITIATION_LEN;

/// What a data message turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub enum Opened {
    /// An IP packet of this length at the start of the buffer, and its source.
    Packet(usize, IpAddr),
    /// A keepalive.
    Keepalive,
    /// Authentic, but not an IP packet.
    NotIp,
}

/// What to do after a handshake message or a tick.
#[derive(Debug, PartialEq, Eq)]
pub enum Reply {
    /// Nothing.
    None,
    /// Send so many bytes from the start of the buffer.
    Send(usize),
}

/// The tunnel of one consumer.
pub struct Tunnel {
    tunn: Tunn,
    node_key: [u8; 32],
    consumer_key: x25519::PublicKey,
    index: PeerIndex,
    /// The consumer has begun to shake hands with the node's other key; until it has shown that it
    /// has the new keys, the old ones stay.
    successor: Option<Box<Successor>>,
}

struct Successor {
    tunn: Tunn,
    node_key: [u8; 32],
}

impl Tunnel {
    /// A tunnel to the consumer with `public_key`. Takes two scalar multiplications (0.1 ms).
    #[must_use]
    pub fn new(identity: &Identity, public_key: [u8; 32], index: PeerIndex) -> Self {
        let consumer_key = x25519::PublicKey::from(public_key);
        let node_key = identity.public.to_bytes();
        let tunn = new_tunn(identity, consumer_key, index);
        Self { tunn, node_key, consumer_key, index, successor: None }
    }

    /// Whether the present keys were agreed with this key of the node.
    #[must_use]
    pub fn is_for(&self, identity: &Identity) -> bool {
        self.node_key == identity.public.to_bytes()
    }

    /// Opens a data message into `out`, which must have room for the message.
    ///
    /// # Errors
    ///
    /// Says why the message is not authentic or not new.
    #[inline]
    pub fn open(&mut self, message: &[u8], out: &mut [u8]) -> Result<Opened, DropReason> {
        let counter = message.get(8..16).and_then(<[u8]>::first_chunk);
        let counter = counter.map_or(u64::MAX, |bytes| u64::from_le_bytes(*bytes));
        if counter >= REJECT_AFTER_MESSAGES {
            return Err(DropReason::CounterLimit);
        }
        if out.len() < message.len() {
            return Err(DropReason::Truncated);
        }
        match open(&mut self.tunn, message, out) {
            Err(reason) if self.successor.is_some() => self.succeed(message, out).ok_or(reason),
            opened => opened,
        }
    }

    /// Opens what the old keys do not open by those of the successor, which takes over then.
    #[cold]
    fn succeed(&mut self, message: &[u8], out: &mut [u8]) -> Option<Opened> {
        let opened = open(&mut self.successor.as_mut()?.tunn, message, out).ok()?;
        let Successor { tunn, node_key } = *self.successor.take()?;
        self.tunn = tunn;
        self.node_key = node_key;
        Some(opened)
    }

    /// Whether packets can be sealed: a handshake was completed and is not too old.
    #[must_use]
    #[inline]
    pub fn is_connected(&self) -> bool {
        self.tunn.time_since_last_handshake().is_some()
    }

    /// Seals `packet` into `out`, which has exactly [`DATA_OVERHEAD`] more bytes; an empty packet
    /// is a keepalive. Only after [`Tunnel::is_connected`]; else nothing is written.
    ///
    /// Returns whether `out` holds a message.
    #[inline]
    pub fn seal(&mut self, packet: &[u8], out: &mut [u8]) -> bool {
        let len = packet.len() + DATA_OVERHEAD;
        if out.len() < len {
            return false;
        }
        match self.tunn.encapsulate(packet, out) {
            TunnResult::WriteToNetwork(message) => message.len() == len,
            TunnResult::Done
            | TunnResult::Err(_)
            | TunnResult::WriteToTunnelV4(..)
            | TunnResult::WriteToTunnelV6(..) => false,
        }
    }

    /// Whether the first MAC of a handshake response is made with the node's key. Costs five hashes,
    /// and no scalar multiplication.
    #[must_use]
    pub fn has_right_mac1(&self, response: &[u8]) -> bool {
        Mac1Keys::one(Mac1Key::new(&self.node_key)).fit_response(response, 0)
    }

    /// Takes a handshake initiation, handshake response or cookie reply. `out` must have room for
    /// [`REPLY_LEN`] bytes. Call [`Tunnel::tick`] directly before, or the session that begins here
    /// begins in the past.
    ///
    /// # Errors
    ///
    /// Says that the message is not authentic, not new, or not asked for.
    pub fn handshake(
        &mut self,
        source: IpAddr,
        message: &[u8],
        out: &mut [u8],
    ) -> Result<Reply, DropReason> {
        if out.len() < REPLY_LEN {
            return Err(DropReason::Truncated);
        }
        handshake(&mut self.tunn, source, message, out)
    }

    /// Takes an initiation for the node's key of `identity`, which may be another than that of the
    /// present keys. As [`Tunnel::handshake`] otherwise.
    ///
    /// # Errors
    ///
    /// As [`Tunnel::handshake`].
    pub fn initiation(
        &mut self,
        identity: &Identity,
        source: IpAddr,
        message: &[u8],
        out: &mut [u8],
    ) -> Result<Reply, DropReason> {
        if self.is_for(identity) {
            return self.handshake(source, message, out);
        }
        let node_key = identity.public.to_bytes();
        if out.len() < REPLY_LEN {
            return Err(DropReason::Truncated);
        }
        // One that is there keeps its memory of what it has seen: a replay stays one.
        let mut successor = match self.successor.take() {
            Some(successor) if successor.node_key == node_key => successor,
            _ => {
                let tunn = new_tunn(identity, self.consumer_key, self.index);
                Box::new(Successor { tunn, node_key })
            }
        };
        // Nothing of its own is due yet: this is for its clock alone.
        successor.tunn.update_timers(out);
        let reply = handshake(&mut successor.tunn, source, message, out);
        self.successor = Some(successor);
        reply
    }

    /// Begins a handshake, unless one is under way. `out` must have room for [`REPLY_LEN`] bytes.
    pub fn initiate(&mut self, out: &mut [u8]) -> Reply {
        if out.len() < REPLY_LEN {
            return Reply::None;
        }
        reply(&self.tunn.format_handshake_initiation(out, false))
    }

    /// Lets time pass: at least every second or so, as long as it returns `true` beside the reply.
    /// `out` must have room for [`REPLY_LEN`] bytes.
    pub fn tick(&mut self, out: &mut [u8]) -> (Reply, bool) {
        if out.len() < REPLY_LEN {
            return (Reply::None, true);
        }
        if let Some(successor) = &mut self.successor {
            // It sends nothing by itself before it has taken over.
            successor.tunn.update_timers(out);
            if successor.tunn.is_expired() {
                self.successor = None;
            }
        }
        let reply = reply(&self.tunn.update_timers(out));
        (reply, !self.tunn.is_expired())
    }
}

fn new_tunn(identity: &Identity, consumer: x25519::PublicKey, index: PeerIndex) -> Tunn {
    let limiter = Some(Arc::clone(&identity.lenient));
    Tunn::new(identity.private.clone(), consumer, None, None, index.get(), limiter)
}

#[inline]
fn open(tunn: &mut Tunn, message: &[u8], out: &mut [u8]) -> Result<Opened, DropReason> {
    match tunn.decapsulate(None, message, out) {
        TunnResult::WriteToTunnelV4(packet, source) => {
            Ok(Opened::Packet(packet.len(), IpAddr::V4(source)))
        }
        TunnResult::WriteToTunnelV6(packet, source) => {
            Ok(Opened::Packet(packet.len(), IpAddr::V6(source)))
        }
        TunnResult::Done => Ok(Opened::Keepalive),
        // A data message is parsed before it is opened: this is about what was inside.
        TunnResult::Err(WireGuardError::InvalidPacket) => Ok(Opened::NotIp),
        TunnResult::Err(error) => Err(data_error(&error)),
        TunnResult::WriteToNetwork(_) => Err(DropReason::HandshakeInvalid),
    }
}

fn handshake(
    tunn: &mut Tunn,
    source: IpAddr,
    message: &[u8],
    out: &mut [u8],
) -> Result<Reply, DropReason> {
    match tunn.decapsulate(Some(source), message, out) {
        TunnResult::WriteToNetwork(reply) => Ok(Reply::Send(reply.len())),
        TunnResult::Done => Ok(Reply::None),
        TunnResult::Err(WireGuardError::InvalidMac) => Err(DropReason::Mac1),
        TunnResult::Err(_) | TunnResult::WriteToTunnelV4(..) | TunnResult::WriteToTunnelV6(..) => {
            Err(DropReason::HandshakeInvalid)
        }
    }
}

fn reply(result: &TunnResult<'_>) -> Reply {
    match result {
        TunnResult::WriteToNetwork(message) => Reply::Send(message.len()),
        TunnResult::Done
        | TunnResult::Err(_)
        | TunnResult::WriteToTunnelV4(..)
        | TunnResult::WriteToTunnelV6(..) => Reply::None,
    }
}

fn data_error(error: &WireGuardError) -> DropReason {
    match error {
        WireGuardError::InvalidCounter | WireGuardError::DuplicateCounter => DropReason::Replay,
        WireGuardError::NoCurrentSession | WireGuardError::WrongIndex => DropReason::NoKeys,
        _ => DropReason::Authentication,
    }
}

/// The length to which a packet is padded (whitepaper, section 5.4.6): a multiple of 16, but not
/// beyond the MTU.
#[must_use]
#[inline]
pub fn padded_len(len: usize, mtu: usize) -> usize {
    let padded = len.next_multiple_of(16);
    if len <= mtu { padded.min(mtu) } else { len }
}
