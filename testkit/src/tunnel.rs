//! The consumer's end of a WireGuard tunnel, without I/O.

use boringtun::{
    noise::{Tunn, TunnResult},
    x25519::{PublicKey, StaticSecret},
};
use weir_common::wire::INITIATION_LEN;

/// Bytes that a data message has beside the inner packet: a header of 16 and a tag of 16
/// (whitepaper, section 5.4.6). boringtun does not pad.
pub const OVERHEAD: usize = 32;

/// Room for any handshake message and its answer.
const HANDSHAKE_ROOM: usize = 256;

/// A tunnel to one node.
pub struct Tunnel(Tunn);

impl Tunnel {
    /// A tunnel from the holder of a private key to the node with this public key. `index` is the
    /// upper part of the consumer's own receiver indexes.
    #[must_use]
    pub fn new(private: [u8; 32], node: [u8; 32], index: u32) -> Self {
        let private = StaticSecret::from(private);
        Self(Tunn::new(private, PublicKey::from(node), None, None, index, None))
    }

    /// A handshake initiation, newer than the last; with a cookie's MAC, if the node sent one.
    pub fn initiation(&mut self) -> Option<Vec<u8>> {
        let mut out = [0; INITIATION_LEN];
        match self.0.format_handshake_initiation(&mut out, true) {
            TunnResult::WriteToNetwork(message) => Some(message.to_vec()),
            _ => None,
        }
    }

    /// Takes a handshake message of the node's. For the response to the last initiation it returns
    /// the keepalive that confirms it, without which the node sends nothing.
    pub fn handshake(&mut self, message: &[u8]) -> Option<Vec<u8>> {
        let mut out = [0; HANDSHAKE_ROOM];
        match self.0.decapsulate(None, message, &mut out) {
            TunnResult::WriteToNetwork(answer) => Some(answer.to_vec()),
            _ => None,
        }
    }

    /// Seals an inner packet into `out`, which needs [`OVERHEAD`] bytes more; the message. None
    /// without a handshake.
    pub fn seal<'a>(&mut self, packet: &[u8], out: &'a mut [u8]) -> Option<&'a [u8]> {
        let len = packet.len() + OVERHEAD;
        match self.0.encapsulate(packet, out) {
            // Without a session it would be an initiation.
            TunnResult::WriteToNetwork(message) if message.len() == len => Some(message),
            _ => None,
        }
    }

    /// Opens a datagram into `out`; the inner packet, if there is one and it is authentic.
    pub fn open<'a>(&mut self, datagram: &[u8], out: &'a mut [u8]) -> Option<&'a [u8]> {
        match self.0.decapsulate(None, datagram, out) {
            TunnResult::WriteToTunnelV4(packet, _) | TunnResult::WriteToTunnelV6(packet, _) => {
                Some(packet)
            }
            _ => None,
        }
    }
}

/// The public key of a private one.
#[must_use]
pub fn public_key(private: [u8; 32]) -> [u8; 32] {
    PublicKey::from(&StaticSecret::from(private)).to_bytes()
}
