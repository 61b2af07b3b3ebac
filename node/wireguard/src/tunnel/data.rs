//! Transport data (whitepaper, section 5.4.6).

use std::net::IpAddr;

use weir_common::{
    DropReason,
    wire::{DATA_OVERHEAD, message_type},
};

use super::{REJECT_AFTER_MESSAGES, Tunnel};
use crate::{
    aead::{self, Key, Open, Outcome, Path, Seal, TAG_LEN},
    noise::keypair::Keypair,
};

/// The header of a data message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The receiver's index.
    pub index: u32,
    /// The number of the message.
    pub counter: u64,
}

impl Header {
    /// The length in bytes.
    pub const LEN: usize = DATA_OVERHEAD - TAG_LEN;

    /// The bytes.
    #[must_use]
    #[inline]
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let [i0, i1, i2, i3] = self.index.to_le_bytes();
        let [c0, c1, c2, c3, c4, c5, c6, c7] = self.counter.to_le_bytes();
        [message_type::DATA, 0, 0, 0, i0, i1, i2, i3, c0, c1, c2, c3, c4, c5, c6, c7]
    }

    /// Reads the header of a message whose type was checked. `None` if it is cut.
    #[must_use]
    #[inline]
    pub fn of(message: &[u8]) -> Option<Self> {
        message.first_chunk().map(Self::parse)
    }

    #[inline]
    fn parse(bytes: &[u8; Self::LEN]) -> Self {
        let [_, _, _, _, i0, i1, i2, i3, c0, c1, c2, c3, c4, c5, c6, c7] = *bytes;
        Self {
            index: u32::from_le_bytes([i0, i1, i2, i3]),
            counter: u64::from_le_bytes([c0, c1, c2, c3, c4, c5, c6, c7]),
        }
    }
}

/// A message that is to be sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sealing {
    /// Its header.
    pub header: Header,
    /// The receiver index of the keypair that has its key.
    keypair: u32,
}

/// What a data message turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opened {
    /// An IP packet of this length at the start of the buffer, and its source.
    Packet(usize, IpAddr),
    /// A keepalive.
    Keepalive,
    /// Authentic, but not an IP packet.
    NotIp,
}

impl Opened {
    /// What an authentic plaintext is. Behind a packet there may be padding.
    #[inline]
    fn of(plain: &[u8]) -> Self {
        let Some(first) = plain.first() else { return Self::Keepalive };
        let half =
            |at| plain.get(at..).and_then(<[u8]>::first_chunk).map(|x| u16::from_be_bytes(*x));
        let packet = match first >> 4 {
            4 => plain.first_chunk::<20>().and_then(|header| {
                let source = <[u8; 4]>::try_from(header.get(12..16)?).ok()?;
                Some((usize::from(half(2)?), IpAddr::from(source)))
            }),
            6 => plain.first_chunk::<40>().and_then(|header| {
                let source = <[u8; 16]>::try_from(header.get(8..24)?).ok()?;
                Some((usize::from(half(4)?) + header.len(), IpAddr::from(source)))
            }),
            _ => None,
        };
        match packet {
            Some((len, source)) if len <= plain.len() => Self::Packet(len, source),
            Some(_) | None => Self::NotIp,
        }
    }
}

impl Tunnel {
    /// Finds the keypair of a data message, and checks its counter. Remembers nothing: the message is
    /// not authentic yet.
    ///
    /// # Errors
    ///
    /// Says why the message cannot be authentic and new.
    #[inline]
    pub fn begin_open(&self, message: &[u8], now: u64) -> Result<Header, DropReason> {
        let header = Header::of(message).ok_or(DropReason::MalformedMessage)?;
        if header.counter >= REJECT_AFTER_MESSAGES {
            return Err(DropReason::CounterLimit);
        }
        let keypair = self.keypair(header.index).filter(|keypair| !keypair.is_expired(now));
        let keypair = keypair.ok_or(DropReason::NoKeys)?;
        if !keypair.allows(header.counter) {
            return Err(DropReason::Replay);
        }
        Ok(header)
    }

    /// Whether a message is under the next keys, which take over once it is known to be authentic.
    #[must_use]
    #[inline]
    pub fn is_first_of_next(&self, header: Header) -> bool {
        self.next.as_ref().is_some_and(|next| next.keypair.local_index == header.index)
    }

    /// The key for a message of [`Tunnel::begin_open`]. `None` if it was wiped meanwhile.
    #[must_use]
    #[inline]
    pub fn receive_key(&self, header: Header) -> Option<&Key> {
        self.keypair(header.index).map(Keypair::receive_key)
    }

    /// Takes an authentic message with its plaintext.
    ///
    /// # Errors
    ///
    /// Says why the message is not new.
    #[inline]
    pub fn finish_open(
        &mut self,
        header: Header,
        plain: &[u8],
        now: u64,
    ) -> Result<Opened, DropReason> {
        if self.is_first_of_next(header) {
            self.promote();
        }
        let keypair = [self.current.as_deref_mut(), self.previous.as_deref_mut()]
            .into_iter()
            .flatten()
            .find(|keypair| keypair.local_index == header.index);
        if !keypair.ok_or(DropReason::NoKeys)?.accept(header.counter) {
            return Err(DropReason::Replay);
        }
        self.timers.received(!plain.is_empty(), now);
        self.check_age(now, true);
        Ok(Opened::of(plain))
    }

    /// Opens a data message into `out`, which must have room for what is in it.
    ///
    /// # Errors
    ///
    /// Says why the message is not authentic or not new.
    pub fn open(&mut self, message: &[u8], now: u64, out: &mut [u8]) -> Result<Opened, DropReason> {
        let len = message.len().checked_sub(DATA_OVERHEAD).ok_or(DropReason::MalformedMessage)?;
        let out = out.get_mut(..len).ok_or(DropReason::Truncated)?;
        let header = self.begin_open(message, now)?;
        let key = self.receive_key(header).ok_or(DropReason::NoKeys)?;
        let sealed = message.get(Header::LEN..).unwrap_or_default();
        let job = Open::new(key, header.counter, sealed, out).map_err(|_| DropReason::Truncated)?;
        let mut jobs = [job];
        aead::open_batch(Path::best(), &mut jobs);
        let [job] = jobs;
        if job.outcome() != Outcome::Authentic {
            return Err(DropReason::Authentication);
        }
        self.finish_open(header, out, now)
    }

    /// Takes the next counter for a message, which carries a packet if `is_data`. `None` without
    /// usable keys.
    #[must_use]
    #[inline]
    pub fn begin_seal(&mut self, is_data: bool, now: u64) -> Option<Sealing> {
        let keypair = self.current.as_deref_mut().filter(|keypair| keypair.can_send(now))?;
        let header = Header { index: keypair.remote_index(), counter: keypair.take_counter() };
        let sealing = Sealing { header, keypair: keypair.local_index };
        self.timers.sent(is_data, now);
        self.check_age(now, false);
        Some(sealing)
    }

    /// The key for a message of [`Tunnel::begin_seal`]. `None` if it was wiped meanwhile.
    #[must_use]
    #[inline]
    pub fn send_key(&self, sealing: Sealing) -> Option<&Key> {
        self.keypair(sealing.keypair).map(Keypair::send_key)
    }

    /// Seals `packet` with `padding` zero bytes into `out`, which has exactly [`DATA_OVERHEAD`] more
    /// bytes; an empty packet is a keepalive. Returns whether `out` holds a message: not without
    /// usable keys.
    pub fn seal(&mut self, packet: &[u8], padding: usize, now: u64, out: &mut [u8]) -> bool {
        if out.len() != packet.len() + padding + DATA_OVERHEAD {
            return false;
        }
        let Some(sealing) = self.begin_seal(!packet.is_empty(), now) else { return false };
        let Some((place, sealed)) = out.split_first_chunk_mut() else { return false };
        *place = sealing.header.to_bytes();
        let (counter, key) = (sealing.header.counter, self.send_key(sealing));
        let job = key.and_then(|key| Seal::new(key, counter, packet, padding, sealed).ok());
        let Some(job) = job else { return false };
        aead::seal_batch(Path::best(), &mut [job]);
        true
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
