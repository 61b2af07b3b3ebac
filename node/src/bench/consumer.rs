//! A consumer of the load generator: a WireGuard peer whose packets are sealed beforehand.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use boringtun::{
    noise::{Tunn, TunnResult},
    x25519::{PublicKey, StaticSecret},
};
use socket2::Socket;
use weir_common::wire::message_type;

use super::{place::Place, socket};

/// Bytes that WireGuard adds to an inner packet.
pub const OVERHEAD: usize = 32;
const PATIENCE: Duration = Duration::from_secs(10);
/// A peer that sends nothing back is shaken hands with anew after KEEPALIVE_TIMEOUT and
/// REKEY_TIMEOUT, 15 s (whitepaper, section 6.2).
const INITIATION_TIMEOUT: Duration = Duration::from_secs(30);
/// An initiation without an answer is sent again.
const AGAIN: Duration = Duration::from_millis(500);

/// What makes a session.
#[derive(Clone, Copy)]
pub struct Credentials {
    /// The consumer's private key.
    pub private: [u8; 32],
    /// Its inner address.
    pub address: Ipv4Addr,
}

impl Credentials {
    /// Those of consumer number `index`, always the same: no secret.
    #[must_use]
    pub fn fixed(index: u32, address: Ipv4Addr) -> Self {
        let mut private = [0x57; 32];
        // Not at an end, where X25519 fixes some bits.
        private[8..12].copy_from_slice(&index.to_le_bytes());
        Self { private, address }
    }

    /// The public key.
    #[must_use]
    pub fn public(&self) -> [u8; 32] {
        PublicKey::from(&StaticSecret::from(self.private)).to_bytes()
    }
}

/// A node as its consumers know it, and where they are.
#[derive(Clone, Copy, Debug)]
pub struct Access {
    /// Where the consumers send from.
    pub from: Ipv4Addr,
    /// Where the node listens.
    pub node: SocketAddrV4,
    /// Its public key.
    pub key: [u8; 32],
}

/// A connected consumer.
pub struct Consumer {
    tunn: Tunn,
    /// Its socket; sends are cut into datagrams of one size.
    pub socket: Socket,
    /// Its inner address.
    pub address: Ipv4Addr,
}

impl Consumer {
    /// Opens a socket in `place` for inner packets of `size` bytes, and shakes hands.
    ///
    /// # Errors
    ///
    /// Fails when the node does not answer within ten seconds.
    pub fn connect(
        place: &Place,
        access: &Access,
        credentials: &Credentials,
        size: usize,
    ) -> anyhow::Result<Self> {
        let segment = size + OVERHEAD;
        let socket = place.enter(|| socket::consumer(access.from, access.node, segment))?;
        Self::shake(socket, access, credentials)
    }

    /// Shakes hands over a socket that there is.
    ///
    /// # Errors
    ///
    /// As [`Self::connect`].
    pub fn shake(
        socket: Socket,
        access: &Access,
        credentials: &Credentials,
    ) -> anyhow::Result<Self> {
        let private = StaticSecret::from(credentials.private);
        let tunn = Tunn::new(private, PublicKey::from(access.key), None, None, 1, None);
        let mut consumer = Self { tunn, socket, address: credentials.address };
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if consumer.attempt()? {
                return Ok(consumer);
            }
        }
        bail!("no handshake with {} within {} s", access.node, PATIENCE.as_secs())
    }

    fn attempt(&mut self) -> anyhow::Result<bool> {
        let mut out = [0; 2048];
        if let TunnResult::WriteToNetwork(initiation) =
            self.tunn.format_handshake_initiation(&mut out, true)
        {
            self.socket.send(initiation).context("cannot send a handshake")?;
        }
        let again = Instant::now() + AGAIN;
        let mut message = [0; 2048];
        while Instant::now() < again {
            let Ok((len, _)) = receive(&self.socket, &mut message) else {
                std::thread::sleep(Duration::from_micros(50));
                continue;
            };
            if let TunnResult::WriteToNetwork(keepalive) =
                self.tunn.decapsulate(None, message.get(..len).unwrap_or_default(), &mut out)
            {
                self.socket.send(keepalive).context("cannot send a keepalive")?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Says nothing until the node begins a handshake; the index of its initiation.
    ///
    /// # Errors
    ///
    /// Fails when none comes within half a minute.
    pub fn await_initiation(&self) -> anyhow::Result<u32> {
        let end = Instant::now() + INITIATION_TIMEOUT;
        let mut message = [0; 2048];
        while Instant::now() < end {
            let Ok((len, _)) = receive(&self.socket, &mut message) else {
                std::thread::sleep(Duration::from_millis(1));
                continue;
            };
            let message = message.get(..len).unwrap_or_default();
            if let Some(&[message_type::INITIATION, _, _, _, i0, i1, i2, i3]) =
                message.first_chunk()
            {
                return Ok(u32::from_le_bytes([i0, i1, i2, i3]));
            }
        }
        bail!("no initiation of the node's within {} s", INITIATION_TIMEOUT.as_secs())
    }

    /// Seals a packet into `out`, which has [`OVERHEAD`] bytes more.
    ///
    /// # Errors
    ///
    /// Fails when the session is over.
    pub fn seal(&mut self, packet: &[u8], out: &mut [u8]) -> anyhow::Result<()> {
        match self.tunn.encapsulate(packet, out) {
            TunnResult::WriteToNetwork(sealed) if sealed.len() == packet.len() + OVERHEAD => Ok(()),
            _ => bail!("the consumer cannot seal: its session is over"),
        }
    }

    /// Opens a datagram; the inner packet, if it is authentic.
    pub fn open<'a>(&mut self, datagram: &[u8], out: &'a mut [u8]) -> Option<&'a [u8]> {
        match self.tunn.decapsulate(None, datagram, out) {
            TunnResult::WriteToTunnelV4(packet, _) => Some(packet),
            _ => None,
        }
    }
}

/// Receives without waiting: the bytes now in `buffer`, and the message's whole length.
pub(super) fn receive(socket: &Socket, buffer: &mut [u8]) -> rustix::io::Result<(usize, usize)> {
    let flags = rustix::net::RecvFlags::TRUNC | rustix::net::RecvFlags::DONTWAIT;
    let len = buffer.len();
    let (_, whole) = rustix::net::recv(socket, buffer, flags)?;
    Ok((whole.min(len), whole))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_consumer_has_a_key_of_its_own() {
        let address = Ipv4Addr::UNSPECIFIED;
        let keys: HashSet<_> =
            (0..1000).map(|index| Credentials::fixed(index, address).public()).collect();
        assert_eq!(keys.len(), 1000);
    }
}
