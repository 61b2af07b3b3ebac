//! Frames from the internet to consumers, as the guard sends them beside those to the node's port.

use std::ops::Range;

use weir_packet::{
    ethernet::{ETHERNET_HEADER, IPV4_TYPE, IPV6_TYPE},
    headers::{self, UDP, V4_HEADER, V6_HEADER, half, v4_checksum_is_right},
};

/// Whether a frame has a UDP datagram to this port in it, in one piece. Then it is a message of
/// WireGuard.
pub(super) fn is_to_port(frame: &[u8], port: u16) -> bool {
    let Some(packet) = frame.get(ETHERNET_HEADER..) else { return false };
    let l4 = match packet.first().map(|first| first >> 4) {
        Some(4) if half(packet, 6) & 0x3fff == 0 && packet.get(9) == Some(&UDP) => {
            packet.get(usize::from(packet.first().copied().unwrap_or_default() & 0xf) * 4..)
        }
        Some(6) if packet.get(6) == Some(&UDP) => packet.get(V6_HEADER..),
        _ => None,
    };
    l4.is_some_and(|l4| l4.len() >= 4 && half(l4, 2) == port)
}

/// Where the IP packet of a frame is. `None` if the frame has none, or if its IPv4 header has a
/// wrong checksum (RFC 1812, section 5.2.2: such a packet must be discarded).
pub(super) fn packet_of(frame: &[u8]) -> Option<Range<usize>> {
    let (link, rest) = frame.split_first_chunk::<ETHERNET_HEADER>()?;
    let packet = headers::whole(rest)?;
    let kind: [u8; 2] = *link.last_chunk()?;
    let is_right = match packet.first()? >> 4 {
        4 => {
            let len = usize::from(packet.first()? & 0xf) * 4;
            let header = packet.get(..len).filter(|header| header.len() >= V4_HEADER)?;
            kind == IPV4_TYPE && v4_checksum_is_right(header)
        }
        _ => kind == IPV6_TYPE,
    };
    is_right.then_some(ETHERNET_HEADER..ETHERNET_HEADER + packet.len())
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::*;

    const PORT: u16 = 51820;

    fn frame(port: u16) -> Vec<u8> {
        let mut frame = Vec::new();
        PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
            .ipv4([198, 51, 100, 7], [45, 80, 2, 2], 60)
            .udp(53, port)
            .write(&mut frame, &[7; 10])
            .expect("a frame");
        frame
    }

    #[test]
    fn a_packet_is_as_long_as_it_says() {
        let mut padded = frame(5000);
        padded.extend([0; 8]);
        assert_eq!(packet_of(&padded), Some(14..14 + 38));
        for len in 0..52 {
            assert_eq!(packet_of(&padded[..len]), None, "{len}");
        }
    }

    #[test]
    fn a_wrong_header_checksum_or_type_is_refused() {
        let mut corrupt = frame(5000);
        corrupt[22] ^= 1;
        assert_eq!(packet_of(&corrupt), None);
        let mut other = frame(5000);
        other[12] = 0x86;
        assert_eq!(packet_of(&other), None);
    }

    #[test]
    fn the_nodes_own_port_is_told_apart() {
        assert!(is_to_port(&frame(PORT), PORT));
        assert!(!is_to_port(&frame(5000), PORT));
        let mut fragment = frame(PORT);
        fragment[20] |= 0x20;
        assert!(!is_to_port(&fragment, PORT), "a fragment");
        let mut tcp = frame(PORT);
        tcp[23] = 6;
        assert!(!is_to_port(&tcp, PORT));
        assert!(!is_to_port(&frame(PORT)[..30], PORT));
    }
}
