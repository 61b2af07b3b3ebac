//! A consumer that does nothing but shake hands, as boringtun does it.

use std::{
    net::{SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use boringtun::{
    noise::{Tunn, TunnResult},
    x25519::{PublicKey, StaticSecret},
};

use weir_wireguard::keys;

use crate::{Namespace, wgquick::WgQuick};

/// WireGuard's REKEY_TIMEOUT.
const RETRY: Duration = Duration::from_secs(5);

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

/// Shakes hands with the node at `to`, within `patience`.
///
/// # Errors
/// If it is not done by then.
pub fn shake_hands(
    from: &Namespace,
    to: SocketAddr,
    private: [u8; 32],
    node: [u8; 32],
    patience: Duration,
) -> Result<Handshake> {
    shake_hands_over(&socket(from, to)?, private, node, patience)
}

/// A socket of its own towards the node at `to`.
///
/// # Errors
/// If there can be none.
pub fn socket(from: &Namespace, to: SocketAddr) -> Result<UdpSocket> {
    let socket = from.enter(|| Ok(UdpSocket::bind("0.0.0.0:0")?))?;
    socket.connect(to)?;
    Ok(socket)
}

/// Shakes hands over a socket that is connected to the node.
///
/// # Errors
/// If it is not done within `patience`.
pub fn shake_hands_over(
    socket: &UdpSocket,
    private: [u8; 32],
    node: [u8; 32],
    patience: Duration,
) -> Result<Handshake> {
    let mut tunn =
        Tunn::new(StaticSecret::from(private), PublicKey::from(node), None, None, 7, None);
    let start = Instant::now();
    let mut by_cookie = false;
    let (mut out, mut buffer) = ([0; 512], [0; 2048]);
    while start.elapsed() < patience {
        if let TunnResult::WriteToNetwork(initiation) =
            tunn.format_handshake_initiation(&mut out, true)
        {
            socket.send(initiation)?;
        }
        let retry = Instant::now() + RETRY;
        while let Some(left) = retry.checked_duration_since(Instant::now()) {
            socket.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
            let Ok(len) = socket.recv(&mut buffer) else { break };
            let message = buffer.get(..len).unwrap_or_default();
            by_cookie |= message.first() == Some(&3);
            let is_response = message.first() == Some(&2);
            let node_index = message.get(4..8).and_then(|index| index.try_into().ok());
            if let TunnResult::WriteToNetwork(keepalive) = tunn.decapsulate(None, message, &mut out)
                && is_response
            {
                socket.send(keepalive)?;
                let node_index = u32::from_le_bytes(node_index.context("an index")?);
                return Ok(Handshake { took: start.elapsed(), by_cookie, node_index });
            }
        }
    }
    bail!("no handshake within {patience:?}; a cookie came: {by_cookie}")
}

/// The consumer's private and the node's public key.
///
/// # Errors
/// If they are not in this configuration for wg-quick.
pub fn keys_of(config: &str) -> Result<([u8; 32], [u8; 32])> {
    let wg = WgQuick::parse(config)?.wg;
    let key = |name: &str| {
        let line = wg.lines().find_map(|line| line.strip_prefix(name));
        let (_, text) = line.and_then(|line| line.split_once('=')).context("no such key")?;
        anyhow::Ok(text.trim().to_owned())
    };
    let private = keys::PrivateKey::parse(&key("PrivateKey")?)?.secret().to_bytes();
    Ok((private, keys::parse_public(&key("PublicKey")?)?.0))
}
