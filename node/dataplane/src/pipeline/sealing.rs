//! Packets are sealed several at a time, into the arena of the datagrams. Until then they are kept
//! here: their own place is overwritten by the next packet of their super-packet, or given back.

use smallvec::SmallVec;
use weir_common::wire::DATA_OVERHEAD;

use super::cipher::{Cipher, GROUP};
use weir_packet::arena::{Arena, Chunk};
use weir_wireguard::{
    aead::{Key, Seal},
    tunnel::{Header, Sealing},
};

/// The room for a packet. A longer one is sealed by itself.
const ROOM: usize = 2048;

/// A packet to seal.
#[derive(Clone, Copy)]
struct Staged {
    /// The index of its peer.
    index: usize,
    sealing: Sealing,
    len: usize,
    padding: usize,
    /// Where the datagram goes.
    chunk: Chunk,
}

/// Packets to seal, in the order in which they came.
pub(super) struct Sealings {
    cipher: Cipher,
    staged: Vec<Staged>,
    packets: Box<[[u8; ROOM]]>,
}

impl Sealings {
    /// None yet.
    pub(super) fn new(cipher: Cipher) -> Self {
        let packets = vec![[0; ROOM]; cipher.group()].into_boxed_slice();
        Self { cipher, staged: Vec::with_capacity(packets.len()), packets }
    }

    /// Whether there is no room for another one.
    pub(super) fn is_full(&self) -> bool {
        self.staged.len() >= self.packets.len()
    }

    /// Takes a packet of the peer at `index`, and writes the header of its datagram, which is `chunk`
    /// of `sealed`. `key` is for a packet that is too long to be kept. Only while there is room.
    #[inline]
    pub(super) fn push<'a>(
        &mut self,
        sealed: &mut Arena,
        index: usize,
        sealing: Sealing,
        packet: &[u8],
        chunk: Chunk,
        key: impl FnOnce() -> Option<&'a Key>,
    ) {
        let len = packet.len();
        let padding = (chunk.len as usize).saturating_sub(len + DATA_OVERHEAD);
        let datagram = sealed.get_mut(chunk);
        if let Some(place) = datagram.first_chunk_mut() {
            *place = sealing.header.to_bytes();
        }
        let place = self.packets.get_mut(self.staged.len()).and_then(|room| room.get_mut(..len));
        if let Some(place) = place {
            place.copy_from_slice(packet);
            self.staged.push(Staged { index, sealing, len, padding, chunk });
            return;
        }
        let out = datagram.get_mut(Header::LEN..).unwrap_or_default();
        let counter = sealing.header.counter;
        match key().and_then(|key| Seal::new(key, counter, packet, padding, out).ok()) {
            Some(job) => self.cipher.seal(&mut [job]),
            None => debug_assert!(false, "the tunnel has just had the key"),
        }
    }

    /// Seals all of them. `key_of` says the key for a packet of a peer.
    #[inline]
    pub(super) fn seal<'a>(
        &mut self,
        sealed: &mut Arena,
        key_of: impl Fn(usize, Sealing) -> Option<&'a Key>,
    ) {
        if self.staged.is_empty() {
            return;
        }
        let outs = sealed.get_many_mut(self.staged.iter().map(|staged| staged.chunk));
        let mut jobs: SmallVec<[Seal<'_>; GROUP]> = SmallVec::new();
        for ((staged, packet), out) in self.staged.iter().zip(&self.packets).zip(outs) {
            let Staged { index, sealing, len, padding, .. } = *staged;
            let out = out.get_mut(Header::LEN..).unwrap_or_default();
            let packet = packet.get(..len).unwrap_or_default();
            let Some(key) = key_of(index, sealing) else {
                // What an earlier iteration left there is for somebody else.
                out.fill(0);
                continue;
            };
            match Seal::new(key, sealing.header.counter, packet, padding, out) {
                Ok(job) => jobs.push(job),
                Err(_) => debug_assert!(false, "the lengths fit"),
            }
        }
        self.cipher.seal(&mut jobs);
        self.staged.clear();
    }
}
