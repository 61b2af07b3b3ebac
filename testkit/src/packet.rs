//! The inner packets of the load: valid TCP or UDP, whose content tells its own place.

use std::{net::Ipv4Addr, sync::LazyLock};

use weir_packet::checksum::{Sum, pseudo_header};

/// A server on the internet.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(45, 1, 2, 3);

/// The transport of the inner packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP data segments without options, in sequence.
    Tcp,
    /// UDP datagrams.
    Udp,
}

impl Transport {
    /// The protocol's number.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }

    /// Bytes of the IPv4 and the transport header.
    #[must_use]
    pub fn headers(self) -> usize {
        match self {
            Self::Tcp => 40,
            Self::Udp => 28,
        }
    }

    /// Where the checksum is in the transport header.
    #[must_use]
    pub fn checksum_at(self) -> usize {
        match self {
            Self::Tcp => 16,
            Self::Udp => 6,
        }
    }
}

/// Addresses and ports of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// TCP or UDP.
    pub transport: Transport,
    /// Source address and port.
    pub from: (Ipv4Addr, u16),
    /// Destination address and port.
    pub to: (Ipv4Addr, u16),
}

/// The flags of the first segment of a TCP connection, and of the answer to it.
pub const SYN: u8 = 0x02;
/// See [`SYN`].
pub const SYN_ACK: u8 = 0x12;

/// A prime, so that no power of two in the path hides a shift.
const PERIOD: usize = 65_521;

static PATTERN: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 56) as u8
    };
    let mut bytes: Vec<u8> = (0..PERIOD).map(|_| next()).collect();
    bytes.extend_from_within(..);
    bytes
});

/// The content of a flow at byte `offset`, `len` bytes of it (at most 65,521).
#[must_use]
pub fn content(offset: u32, len: usize) -> &'static [u8] {
    let at = offset as usize % PERIOD;
    PATTERN.get(at..at + len).unwrap_or_default()
}

/// The IPv4 and transport headers of a packet with `payload` bytes at byte `offset` of its flow,
/// 40 or 28 bytes of the result; for a super-packet too. The transport checksum is only begun: the
/// pseudo-header's sum.
#[must_use]
pub fn headers(flow: &Flow, offset: u32, payload: usize) -> [u8; 40] {
    let mut bytes = [0; 40];
    let l4_len = flow.transport.headers() - 20 + payload;
    bytes[..2].copy_from_slice(&[0x45, 0]);
    bytes[2..4].copy_from_slice(&((20 + l4_len) as u16).to_be_bytes());
    bytes[6..10].copy_from_slice(&[0x40, 0, 64, flow.transport.number()]);
    bytes[12..16].copy_from_slice(&flow.from.0.octets());
    bytes[16..20].copy_from_slice(&flow.to.0.octets());
    let checksum = Sum::default().bytes(&bytes[..20]).checksum();
    bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
    let pseudo = pseudo_header(&bytes[12..20], flow.transport.number(), l4_len).folded();
    let l4 = &mut bytes[20..];
    l4[..2].copy_from_slice(&flow.from.1.to_be_bytes());
    l4[2..4].copy_from_slice(&flow.to.1.to_be_bytes());
    match flow.transport {
        Transport::Tcp => {
            l4[4..8].copy_from_slice(&offset.to_be_bytes());
            l4[8..12].copy_from_slice(&1u32.to_be_bytes());
            l4[12..16].copy_from_slice(&[0x50, 0x10, 0xff, 0xff]);
        }
        Transport::Udp => l4[4..6].copy_from_slice(&(l4_len as u16).to_be_bytes()),
    }
    let at = flow.transport.checksum_at();
    l4[at..at + 2].copy_from_slice(&pseudo.to_be_bytes());
    bytes
}

/// Fills `packet` with a packet of the flow that has the content at byte `offset`. UDP carries the
/// offset itself in its first four bytes of content.
pub fn build(packet: &mut [u8], flow: &Flow, offset: u32) {
    let at = flow.transport.headers();
    let needed = if flow.transport == Transport::Udp { 4 } else { 0 };
    let Some(payload) = packet.len().checked_sub(at).filter(|len| *len >= needed) else { return };
    packet[..at].copy_from_slice(&headers(flow, offset, payload)[..at]);
    packet[at..].copy_from_slice(content(offset, payload));
    if flow.transport == Transport::Udp {
        packet[at..at + 4].copy_from_slice(&offset.to_be_bytes());
    }
    let checksum = Sum::default().bytes(&packet[20..]).checksum();
    let place = 20 + flow.transport.checksum_at();
    packet[place..place + 2].copy_from_slice(&checksum.to_be_bytes());
}

/// Makes a TCP segment the first of its connection (SYN), whose content goes with it. A translator
/// that knows the states of TCP refuses a connection that begins otherwise. UDP stays as it is.
pub fn begin(packet: &mut [u8]) {
    if packet.get(9) != Some(&Transport::Tcp.number()) || packet.len() < 40 {
        return;
    }
    let headers = Transport::Tcp.checksum_at() + 20;
    packet[33] = SYN;
    packet[headers..headers + 2].fill(0);
    let l4_len = packet.len() - 20;
    let pseudo = pseudo_header(&packet[12..20], Transport::Tcp.number(), l4_len);
    let checksum = pseudo.bytes(&packet[20..]).checksum();
    packet[headers..headers + 2].copy_from_slice(&checksum.to_be_bytes());
}

/// A TCP segment to port 443, `len` bytes in all (at least its 40 bytes of headers).
#[must_use]
pub fn tcp(from: Ipv4Addr, to: Ipv4Addr, port: u16, sequence: u32, len: usize) -> Vec<u8> {
    let mut packet = vec![0; len];
    let flow = Flow { transport: Transport::Tcp, from: (from, port), to: (to, 443) };
    build(&mut packet, &flow, sequence);
    packet
}

/// Whether the content of an IPv4 packet, or of a super-packet with `segment` bytes of content per
/// packet, is what belongs at its place.
#[must_use]
pub fn is_right(packet: &[u8], segment: usize) -> bool {
    let place = |bytes: &[u8]| bytes.first_chunk().map(|offset| u32::from_be_bytes(*offset));
    match packet.get(9) {
        Some(6) => {
            let (Some(offset), Some(payload)) =
                (packet.get(24..).and_then(place), packet.get(40..))
            else {
                return false;
            };
            !payload.is_empty() && payload == content(offset, payload.len())
        }
        Some(17) => packet.get(28..).is_some_and(|payload| {
            let mut parts = payload.chunks(segment.max(4));
            parts.all(|part| {
                place(part).is_some_and(|offset| part[4..] == content(offset, part.len())[4..])
            })
        }),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(transport: Transport) -> Flow {
        let from = (Ipv4Addr::new(10, 66, 0, 2), 1024);
        Flow { transport, from, to: (Ipv4Addr::new(45, 80, 3, 7), 9) }
    }

    #[test]
    fn packets_have_valid_checksums_and_the_right_content() {
        for transport in [Transport::Tcp, Transport::Udp] {
            for size in [40, 128, 576, 1420] {
                let mut packet = vec![0; size];
                build(&mut packet, &flow(transport), 70_001);
                assert_eq!(Sum::default().bytes(&packet[..20]).checksum(), 0, "IPv4 header");
                let l4 = &packet[20..];
                let sum = pseudo_header(&packet[12..20], transport.number(), l4.len()).bytes(l4);
                assert_eq!(sum.checksum(), 0, "{transport:?}");
                assert_eq!(is_right(&packet, size), size > transport.headers(), "no content");
            }
        }
    }

    #[test]
    fn changed_content_is_noticed() {
        for transport in [Transport::Tcp, Transport::Udp] {
            let mut packet = vec![0; 576];
            build(&mut packet, &flow(transport), 9);
            packet[300] ^= 1;
            assert!(!is_right(&packet, 576), "{transport:?}");
        }
        assert!(!is_right(&[], 1) && !is_right(&[0x45; 21], 1));
    }
}
