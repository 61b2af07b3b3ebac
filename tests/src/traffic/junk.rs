//! Datagrams that no WireGuard client would send.

use std::{
    net::{SocketAddr, UdpSocket},
    thread,
    time::Duration,
};

use anyhow::Result;

use crate::Namespace;

/// Sends every length from 0 to `longest` with every first byte that means something, and some
/// that mean nothing, from the namespace to `server`. Gives how many were sent.
///
/// # Errors
/// If the socket cannot be made.
pub fn send(from: &Namespace, server: SocketAddr, longest: usize) -> Result<u64> {
    let any: SocketAddr =
        if server.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = from.enter(|| Ok(UdpSocket::bind(any)?))?;
    let mut sent = 0;
    for length in 0..=longest {
        // Slow enough for the links' queues: what is lost there tests nothing.
        thread::sleep(Duration::from_millis(1));
        for kind in [0, 1, 2, 3, 4, 5, 0x80, 0xff] {
            for fill in [0x00, 0xff, 0x5a] {
                let mut datagram = vec![fill; length];
                if let Some(first) = datagram.first_mut() {
                    *first = kind;
                }
                // Once with the reserved bytes zero, as the protocol has them, once not.
                if fill == 0x5a
                    && let Some(reserved) = datagram.get_mut(1..4)
                {
                    reserved.fill(0);
                }
                socket.send_to(&datagram, server)?;
                sent += 1;
            }
        }
    }
    Ok(sent)
}
