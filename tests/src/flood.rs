//! What an attacker sends to a node's port, from the internet and with sources of its choice.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use weir_common::mac1::Mac1Key;

use crate::Namespace;

/// Number of different messages, which are sent again and again.
const MESSAGES: usize = 1024;
/// Datagrams sent between two looks at the clock.
const BATCH: u64 = 32;

/// A kind of flood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Initiations with a wrong first MAC, from random sources.
    Forged,
    /// Initiations with the right first MAC and nothing else right, from random sources.
    ValidMac,
    /// The same, from one source.
    ValidMacOneSource,
    /// Data messages with random receiver indexes, from random sources.
    DeadIndexes,
    /// Data messages with this receiver index, from random sources.
    LiveIndex(u32),
}

/// A running flood; it ends when this is dropped.
#[derive(Debug)]
pub struct Flood {
    stop: Arc<AtomicBool>,
    sender: Option<JoinHandle<Result<f64>>>,
}

impl Flood {
    /// Begins to send `rate` datagrams a second, or as many as can be, from `from` to the node at
    /// `to` with this public key.
    ///
    /// # Errors
    /// Without root.
    pub fn start(
        from: &Namespace,
        to: SocketAddrV4,
        public_key: &[u8; 32],
        kind: Kind,
        rate: u32,
    ) -> Result<Self> {
        Ok(Self::over(from.enter(socket)?, to, public_key, kind, rate))
    }

    /// The same over a [`socket`] that was made where the flood is to come from.
    #[must_use]
    pub fn over(
        socket: Socket,
        to: SocketAddrV4,
        public_key: &[u8; 32],
        kind: Kind,
        rate: u32,
    ) -> Self {
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let key = Mac1Key::new(public_key);
        let packets: Vec<_> =
            (0..MESSAGES).map(|_| packet(to, &message(kind, &key, &mut random))).collect();
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let sender = thread::spawn(move || send(&socket, to, packets, kind, rate, &told));
        Self { stop, sender: Some(sender) }
    }

    /// Ends it, and gives how many datagrams a second it sent.
    ///
    /// # Errors
    /// If the kernel refused one.
    pub fn stop(mut self) -> Result<f64> {
        self.stop.store(true, Relaxed);
        let sender = self.sender.take().context("stopped once only")?;
        sender.join().map_err(|_| anyhow!("the flood panicked"))?
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
    }
}

/// A socket of the calling thread's namespace that sends whole IPv4 packets.
///
/// # Errors
/// Without root.
pub fn socket() -> Result<Socket> {
    // 255: the IP header is ours, but for its length and checksum, which the kernel fills in.
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(255)));
    socket.context("cannot make a raw socket. Fix: run this as root (CAP_NET_RAW)")
}

fn send(
    socket: &Socket,
    to: SocketAddrV4,
    mut packets: Vec<Vec<u8>>,
    kind: Kind,
    rate: u32,
    stop: &AtomicBool,
) -> Result<f64> {
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let to = SockAddr::from(to);
    let start = Instant::now();
    let mut sent = 0u64;
    for at in (0..MESSAGES).cycle() {
        let packet = packets.get_mut(at).context("within the packets")?;
        if kind != Kind::ValidMacOneSource {
            // 64.0.0.0/3, whose answers go nowhere in the lab.
            let source = (random.next() as u32 & 0x1fff_ffff) | 0x4000_0000;
            packet.get_mut(12..16).context("a header")?.copy_from_slice(&source.to_be_bytes());
        }
        match socket.send_to(packet, &to) {
            Ok(_) => sent += 1,
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {}
            Err(error) => return Err(error).context("flood"),
        }
        if sent.is_multiple_of(BATCH) {
            if stop.load(Relaxed) {
                break;
            }
            let due = Duration::from_secs_f64(sent as f64 / f64::from(rate.max(1)));
            thread::sleep(due.saturating_sub(start.elapsed()));
        }
    }
    Ok(sent as f64 / start.elapsed().as_secs_f64())
}

fn message(kind: Kind, key: &Mac1Key, random: &mut Random) -> Vec<u8> {
    let mut message = vec![0; 148];
    message.fill_with(|| random.next() as u8);
    let (tag, index) = match kind {
        Kind::Forged | Kind::ValidMac | Kind::ValidMacOneSource => (1, random.next() as u32),
        Kind::DeadIndexes => (4, random.next() as u32),
        Kind::LiveIndex(index) => (4, index),
    };
    if let Some(header) = message.first_chunk_mut::<8>() {
        let [i0, i1, i2, i3] = index.to_le_bytes();
        *header = [tag, 0, 0, 0, i0, i1, i2, i3];
    }
    if matches!(kind, Kind::ValidMac | Kind::ValidMacOneSource) {
        let mac = key.mac(&message);
        if let Some(place) = message.get_mut(116..132) {
            place.copy_from_slice(&mac);
        }
        // No cookie.
        message.get_mut(132..).unwrap_or_default().fill(0);
    }
    message
}

/// An IPv4 packet with a UDP datagram, whose checksum is left out.
fn packet(to: SocketAddrV4, payload: &[u8]) -> Vec<u8> {
    let source = Ipv4Addr::new(70, 1, 2, 3);
    let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 17, 0, 0];
    packet.extend(source.octets());
    packet.extend(to.ip().octets());
    packet.extend(40_000u16.to_be_bytes());
    packet.extend(to.port().to_be_bytes());
    packet.extend((payload.len() as u16 + 8).to_be_bytes());
    packet.extend([0, 0]);
    packet.extend(payload);
    packet
}

/// Marsaglia's xorshift: enough to be different.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 16
    }
}
