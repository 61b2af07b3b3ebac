//! The internet's end: counts what leaves the node, and compares a sample of it.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use socket2::Socket;

use super::{
    consumer::receive,
    counts::{Counts, PROBE_PORT},
    namespace::Namespace,
    packet,
    socket::{self, ETHERNET, NET_HEADER},
};

/// One received super-packet in this many is compared, with all of its packets. The others are
/// counted by their headers: comparing all would make the sink what is measured.
pub const SAMPLE: u64 = 64;

/// Where the IPv4 header begins.
const IP: usize = NET_HEADER + ETHERNET;
/// Enough for the headers and a probe's number.
const HEADERS: usize = IP + 48;

/// What arrives at an interface for the servers' address.
pub struct Sink {
    socket: Socket,
    buffer: Vec<u8>,
    /// What has arrived since the last reset.
    pub(super) counts: Counts,
    seen: u64,
}

impl Sink {
    /// Listens at `interface` in `namespace` for IPv4 to `address`. What it sees goes on to the kernel,
    /// which should have a blackhole route for it.
    ///
    /// # Errors
    ///
    /// Fails without root, or without such an interface.
    pub fn new(namespace: &Namespace, interface: &str, address: Ipv4Addr) -> anyhow::Result<Self> {
        let socket = namespace.enter(|| socket::frames(interface, address))?;
        Ok(Self { socket, buffer: vec![0; 1 << 17], counts: Counts::default(), seen: 0 })
    }

    pub(super) fn reset(&mut self) {
        while receive(&self.socket, &mut self.buffer[..1]).is_ok() {}
        self.counts = Counts::default();
    }

    /// Takes what is waiting; probes' numbers go to `probe`.
    pub(super) fn drain(&mut self, mut probe: impl FnMut(u32)) {
        for _ in 0..64 {
            let is_sample = (self.seen + 1).is_multiple_of(SAMPLE);
            let len = if is_sample { self.buffer.len() } else { HEADERS };
            let Ok((len, whole)) = receive(&self.socket, &mut self.buffer[..len]) else { break };
            // Of those that came: tries in vain could take every sample's turn.
            self.seen += 1;
            let frame = &self.buffer[..len];
            let Some(packet) = frame.get(IP..).filter(|packet| packet.len() >= 28) else {
                continue;
            };
            let headers = if packet[9] == 17 { 28 } else { 40 };
            if packet[22..24] == PROBE_PORT.to_be_bytes() {
                let number = packet.get(28..32).and_then(|bytes| bytes.first_chunk());
                if let Some(bytes) = number {
                    probe(u32::from_be_bytes(*bytes));
                }
                continue;
            }
            let Some(payload) = (whole - IP).checked_sub(headers) else { continue };
            let segment = match frame[1] {
                0 => payload,
                _ => usize::from(u16::from_ne_bytes([frame[4], frame[5]])),
            };
            let packets = payload.div_ceil(segment.max(1)).max(1) as u64;
            self.counts.super_packets += 1;
            self.counts.packets += packets;
            self.counts.bytes += payload as u64 + packets * headers as u64;
            if is_sample {
                self.counts.checked += packets;
                if !packet::is_right(packet, segment) {
                    self.counts.wrong += packets;
                }
            }
        }
    }

    /// Takes what still comes until nothing has come for a while.
    pub(super) fn drain_rest(&mut self) {
        let mut before = self.counts.packets;
        let mut since = Instant::now();
        while since.elapsed() < Duration::from_millis(30) {
            self.drain(|_| ());
            if self.counts.packets != before {
                (before, since) = (self.counts.packets, Instant::now());
            }
        }
    }

    /// The next whole frame, waited for: `virtio_net_hdr`, Ethernet, IPv4.
    pub(super) fn next_frame(&mut self, timeout: Duration) -> Option<&[u8]> {
        let end = Instant::now() + timeout;
        while Instant::now() < end {
            if let Ok((len, _)) = receive(&self.socket, &mut self.buffer) {
                return self.buffer.get(..len);
            }
            std::thread::sleep(Duration::from_micros(20));
        }
        None
    }

    /// Sends a frame: `virtio_net_hdr`, Ethernet, IPv4.
    pub(super) fn send(&self, frame: &[u8], payload: &[u8]) -> bool {
        let parts = [std::io::IoSlice::new(frame), std::io::IoSlice::new(payload)];
        rustix::io::writev(&self.socket, &parts).is_ok()
    }
}
