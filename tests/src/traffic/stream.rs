//! UDP at a set rate, with every datagram's content checked and every loss counted.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};

use super::tcp::Direction;
use crate::Namespace;

/// Bytes of UDP payload in each datagram: fits the smallest tunnel.
pub const PAYLOAD: usize = 1200;

/// What one stream came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outcome {
    /// Datagrams sent.
    pub sent: u64,
    /// Datagrams that arrived with the right content.
    pub received: u64,
}

/// A server that both takes streams and sends them.
#[derive(Debug)]
pub struct Server {
    socket: UdpSocket,
}

impl Server {
    /// Binds it to any free port of one address.
    ///
    /// # Errors
    /// If the namespace cannot be entered.
    pub fn start(namespace: &Namespace, address: IpAddr) -> Result<Self> {
        let socket = namespace.enter(|| Ok(UdpSocket::bind((address, 0))?))?;
        Ok(Self { socket })
    }

    /// Streams for `time` at `per_millisecond` datagrams, and counts the received bytes in
    /// `progress`.
    ///
    /// # Errors
    /// If the sockets fail, nothing arrives at all, or a datagram is not what was sent.
    pub fn stream(
        &self,
        client: &Namespace,
        direction: Direction,
        per_millisecond: u32,
        time: Duration,
        progress: &AtomicU64,
    ) -> Result<Outcome> {
        let server = self.socket.local_addr()?;
        let any: SocketAddr =
            if server.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
        let client = client.enter(|| {
            let socket = UdpSocket::bind(any)?;
            socket.connect(server)?;
            Ok(socket)
        })?;
        // The first datagram opens the way through the node's address translation.
        client.send(b"hello")?;
        self.socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        let mut hello = [0; 16];
        let (_, translated) = self.socket.recv_from(&mut hello).context("no first datagram")?;
        let back = (direction == Direction::Down).then_some(translated);
        let (from, to) = if direction == Direction::Up {
            (&client, &self.socket)
        } else {
            (&self.socket, &client)
        };
        to.set_read_timeout(Some(Duration::from_millis(500)))?;
        thread::scope(|scope| {
            let sink = scope.spawn(|| receive(to, progress));
            let sent = send(from, back, per_millisecond, time)?;
            let received = sink.join().map_err(|_| anyhow!("the sink panicked"))??;
            ensure!(received > 0, "of {sent} datagrams none arrived");
            Ok(Outcome { sent, received })
        })
    }
}

fn send(
    socket: &UdpSocket,
    to: Option<SocketAddr>,
    per_millisecond: u32,
    time: Duration,
) -> Result<u64> {
    let start = Instant::now();
    let mut sent = 0;
    while start.elapsed() < time {
        let due = (start.elapsed().as_secs_f64() * 1000.0) as u64 * u64::from(per_millisecond);
        while sent < due {
            let datagram = datagram(sent);
            match to {
                Some(to) => socket.send_to(&datagram, to)?,
                None => socket.send(&datagram)?,
            };
            sent += 1;
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok(sent)
}

/// Receives until nothing has come for as long as the socket waits.
fn receive(socket: &UdpSocket, progress: &AtomicU64) -> Result<u64> {
    let mut buffer = [0; 2048];
    let mut received = 0;
    while let Ok(length) = socket.recv(&mut buffer) {
        let number = buffer.first_chunk().map_or(0, |number| u64::from_le_bytes(*number));
        ensure!(buffer[..length] == datagram(number), "datagram {number} has other content");
        received += 1;
        progress.fetch_add(length as u64, Ordering::Relaxed);
    }
    Ok(received)
}

fn datagram(number: u64) -> [u8; PAYLOAD] {
    let mut bytes = [number.wrapping_mul(0x9e37_79b9) as u8; PAYLOAD];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    bytes
}
