//! UDP that never stops: what of it came back is counted, what was lost is not.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use anyhow::Result;

use crate::Namespace;

/// Bytes of UDP payload in each datagram.
pub const PAYLOAD: usize = 1000;

/// Bytes of the data message that carries each: headers of IPv4 and UDP, filled up to 16, and those
/// of WireGuard.
pub const MESSAGE: u64 = (PAYLOAD as u64 + 28).next_multiple_of(16) + 32;

/// Sends datagrams to an echo server until told to stop, whatever becomes of them.
#[derive(Debug, Default)]
pub struct Chatter {
    stop: AtomicBool,
    returned: AtomicU64,
}

impl Chatter {
    /// Datagrams that came back: each was billed once up and once down.
    #[must_use]
    pub fn returned(&self) -> u64 {
        self.returned.load(Ordering::Relaxed)
    }

    /// Ends [`Self::talk`].
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Sends until it is stopped.
    ///
    /// # Errors
    /// If the namespace cannot be entered.
    pub fn talk(&self, client: &Namespace, server: SocketAddr) -> Result<()> {
        let socket = client.enter(|| Ok(UdpSocket::bind("0.0.0.0:0")?))?;
        socket.set_nonblocking(true)?;
        let (datagram, mut buffer) = ([7; PAYLOAD], [0; 2048]);
        while !self.stop.load(Ordering::Relaxed) {
            for _ in 0..8 {
                // While the node is down nobody takes them.
                socket.send_to(&datagram, server).ok();
            }
            thread::sleep(Duration::from_millis(2));
            while let Ok(length) = socket.recv(&mut buffer) {
                if length == PAYLOAD {
                    self.returned.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        Ok(())
    }
}
