//! A consumer of the load generator: a WireGuard peer whose packets are sealed beforehand.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::AsFd,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::{RecvFlags, SendFlags},
};
use socket2::Socket;
use weir_common::wire::message_type;

pub use crate::tunnel::OVERHEAD;
use crate::tunnel::{Tunnel, public_key};

use super::{namespace::Namespace, socket};

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// An initiation without an answer is sent again.
const HANDSHAKE_RETRY: Duration = Duration::from_millis(500);
/// A peer that sends nothing back is shaken hands with anew after KEEPALIVE_TIMEOUT and
/// REKEY_TIMEOUT, 15 s (whitepaper, section 6.2).
const INITIATION_TIMEOUT: Duration = Duration::from_secs(30);

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
        public_key(self.private)
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
    tunnel: Tunnel,
    /// Its socket; sends are cut into datagrams of one size.
    pub socket: Socket,
    /// Its inner address.
    pub address: Ipv4Addr,
}

impl Consumer {
    /// Opens a socket in `namespace` for inner packets of `size` bytes, and shakes hands.
    ///
    /// # Errors
    ///
    /// Fails when the node does not answer within ten seconds.
    pub fn connect(
        namespace: &Namespace,
        access: &Access,
        credentials: &Credentials,
        size: usize,
    ) -> anyhow::Result<Self> {
        let segment = size + OVERHEAD;
        let socket = namespace.enter(|| socket::consumer(access.from, access.node, segment))?;
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
        let mut tunnel = Tunnel::new(credentials.private, access.key, 1);
        handshake(&socket, &mut tunnel, HANDSHAKE_RETRY, HANDSHAKE_TIMEOUT)
            .with_context(|| format!("cannot connect to {}", access.node))?;
        Ok(Self { tunnel, socket, address: credentials.address })
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
        self.tunnel.seal(packet, out).context("the consumer cannot seal: its session is over")?;
        Ok(())
    }

    /// Opens a datagram; the inner packet, if it is authentic.
    pub fn open<'a>(&mut self, datagram: &[u8], out: &'a mut [u8]) -> Option<&'a [u8]> {
        self.tunnel.open(datagram, out)
    }
}

/// A handshake that was completed.
#[derive(Clone, Copy, Debug)]
pub struct Handshake {
    /// How long it took from the first initiation.
    pub took: Duration,
    /// Whether the node asked for a cookie.
    pub by_cookie: bool,
    /// The node's receiver index of the new keys: where an attacker who sees the traffic would
    /// send to.
    pub node_index: u32,
}

/// Shakes hands over a socket that is connected to the node. An initiation that has no response
/// after `retry` is sent again.
///
/// # Errors
///
/// Fails when it is not done within `timeout`.
pub fn handshake(
    socket: &impl AsFd,
    tunnel: &mut Tunnel,
    retry: Duration,
    timeout: Duration,
) -> anyhow::Result<Handshake> {
    let start = Instant::now();
    let end = start + timeout;
    let mut by_cookie = false;
    let mut buffer = [0; 2048];
    while Instant::now() < end {
        let initiation = tunnel.initiation().context("no initiation")?;
        rustix::net::send(socket, &initiation, SendFlags::empty())
            .context("cannot send a handshake")?;
        let again = end.min(Instant::now() + retry);
        while let Some(left) = again.checked_duration_since(Instant::now()) {
            let Ok((len, _)) = receive(socket, &mut buffer) else {
                let left = Timespec::try_from(left).context("a short time")?;
                poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&left)).ok();
                continue;
            };
            let message = buffer.get(..len).unwrap_or_default();
            by_cookie |= message.first() == Some(&message_type::COOKIE_REPLY);
            let Some(keepalive) = tunnel.handshake(message) else { continue };
            // Sender index of a response (whitepaper, section 5.4.3).
            if let Some(&[message_type::RESPONSE, _, _, _, i0, i1, i2, i3]) = message.first_chunk()
            {
                rustix::net::send(socket, &keepalive, SendFlags::empty())
                    .context("cannot send a keepalive")?;
                let node_index = u32::from_le_bytes([i0, i1, i2, i3]);
                return Ok(Handshake { took: start.elapsed(), by_cookie, node_index });
            }
        }
    }
    bail!("no handshake within {timeout:?}; a cookie came: {by_cookie}")
}

/// Receives without waiting: the bytes now in `buffer`, and the message's whole length.
pub(super) fn receive(socket: &impl AsFd, buffer: &mut [u8]) -> rustix::io::Result<(usize, usize)> {
    let flags = RecvFlags::TRUNC | RecvFlags::DONTWAIT;
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
