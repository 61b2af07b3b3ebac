//! A consumer that does nothing but shake hands, as boringtun does it.

use std::{
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, Result};
use weir_testkit::{Tunnel, consumer::handshake};
use weir_wireguard::keys;

pub use weir_testkit::consumer::Handshake;

use crate::{Namespace, wgquick::WgQuick};

/// WireGuard's REKEY_TIMEOUT.
const REKEY_TIMEOUT: Duration = Duration::from_secs(5);

/// Shakes hands with the node at `to`, within `timeout`.
///
/// # Errors
/// If it is not done by then.
pub fn shake_hands(
    from: &Namespace,
    to: SocketAddr,
    private: [u8; 32],
    node: [u8; 32],
    timeout: Duration,
) -> Result<Handshake> {
    shake_hands_over(&socket(from, to)?, private, node, timeout)
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
/// If it is not done within `timeout`.
pub fn shake_hands_over(
    socket: &UdpSocket,
    private: [u8; 32],
    node: [u8; 32],
    timeout: Duration,
) -> Result<Handshake> {
    handshake(socket, &mut Tunnel::new(private, node, 7), REKEY_TIMEOUT, timeout)
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
