//! One consumer's WireGuard, by boringtun, with the gaps closed that its `Tunn` leaves to its
//! caller: counters beyond WireGuard's limit (on which it panics or accepts replays), padding,
//! its queue of packets before a handshake, buffers that are too small (on which it panics), and
//! time, which passes for it only in [`Tunnel::tick`].

use std::{net::IpAddr, sync::Arc};

use boringtun::{
    noise::{Tunn, TunnResult, errors::WireGuardError, rate_limiter::RateLimiter},
    x25519,
};
use weir_common::{
    DropReason, PeerIndex,
    wire::{DATA_OVERHEAD, INITIATION_LEN},
};

/// REJECT_AFTER_MESSAGES (whitepaper, section 6.1): no counter may reach it.
pub const REJECT_AFTER_MESSAGES: u64 = u64::MAX - (1 << 13);

/// The least room that a reply to a handshake message, or a timer's message, may take.
pub const REPLY_LEN: usize = INITIATION_LEN;

/// The node's static key pair, and what all tunnels derive from it.
#[derive(Clone)]
pub struct Identity {
    private: x25519::StaticSecret,
    public: x25519::PublicKey,
    /// For the tunnels, which only see what the handshake thread has judged.
    lenient: Arc<RateLimiter>,
}

impl Identity {
    /// The identity with this private key.
    #[must_use]
    pub fn new(private: [u8; 32]) -> Self {
        let private = x25519::StaticSecret::from(private);
        let public = x25519::PublicKey::from(&private);
        let lenient = Arc::new(RateLimiter::new(&public, u64::MAX));
        Self { private, public, lenient }
    }

    /// The public key.
    #[must_use]
    pub fn public(&self) -> &x25519::PublicKey {
        &self.public
    }

    /// The private key, for finding out whose an initiation is.
    #[must_use]
    pub(super) fn private(&self) -> &x25519::StaticSecret {
        &self.private
    }
}

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
}

impl Tunnel {
    /// A tunnel to the consumer with `public_key`. Takes two scalar multiplications (0.1 ms).
    #[must_use]
    pub fn new(identity: &Identity, public_key: [u8; 32], index: PeerIndex) -> Self {
        let tunn = Tunn::new(
            identity.private.clone(),
            x25519::PublicKey::from(public_key),
            None,
            None,
            index.get(),
            Some(Arc::clone(&identity.lenient)),
        );
        Self { tunn }
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
        match self.tunn.decapsulate(None, message, out) {
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

    /// Whether packets can be sealed: a handshake was completed and is not too old.
    #[must_use]
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
        match self.tunn.decapsulate(Some(source), message, out) {
            TunnResult::WriteToNetwork(reply) => Ok(Reply::Send(reply.len())),
            TunnResult::Done => Ok(Reply::None),
            TunnResult::Err(WireGuardError::InvalidMac) => Err(DropReason::Mac1),
            TunnResult::Err(_)
            | TunnResult::WriteToTunnelV4(..)
            | TunnResult::WriteToTunnelV6(..) => Err(DropReason::HandshakeInvalid),
        }
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
        let reply = reply(&self.tunn.update_timers(out));
        (reply, !self.tunn.is_expired())
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

#[cfg(test)]
#[path = "tunnel_tests.rs"]
mod tests;
