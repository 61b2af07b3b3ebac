//! Return traffic, read in user space.

use super::{
    ETHER_TYPE_IPV4, ETHER_TYPE_IPV6, ETHERNET_HEADER, ExitConfig, UDP, V6_HEADER, header_v4,
};

/// The IP packet in a frame of return traffic, without what follows it in the frame. `None` where
/// the IP header contradicts itself or the frame, or its IPv4 checksum is wrong (RFC 791). Nothing
/// else is verified.
#[must_use]
#[inline]
pub fn return_packet(frame: &[u8]) -> Option<&[u8]> {
    let ([.., t0, t1], packet) = frame.split_first_chunk::<ETHERNET_HEADER>()?;
    match u16::from_be_bytes([*t0, *t1]) {
        ETHER_TYPE_IPV4 => {
            let [version_ihl, _, l0, l1] = *packet.first_chunk()?;
            let header = packet.get(..header_v4(version_ihl)?)?;
            let packet = packet.get(..usize::from(u16::from_be_bytes([l0, l1])))?;
            (packet.len() >= header.len() && has_right_checksum(header)).then_some(packet)
        }
        ETHER_TYPE_IPV6 => {
            let [version, _, _, _, l0, l1] = *packet.first_chunk()?;
            let packet = packet.get(..V6_HEADER + usize::from(u16::from_be_bytes([l0, l1])))?;
            (version >> 4 == 6).then_some(packet)
        }
        _ => None,
    }
}

/// Whether a frame that the guard sent to a worker is a datagram to this port, in the only form in
/// which it sends messages for the node: with plain headers. It says nothing about addresses; see
/// [`ExitConfig::is_message`].
#[must_use]
#[inline]
pub fn is_for_port(frame: &[u8], port: u16) -> bool {
    let Some(([.., t0, t1], packet)) = frame.split_first_chunk::<ETHERNET_HEADER>() else {
        return false;
    };
    let destination_port = match u16::from_be_bytes([*t0, *t1]) {
        ETHER_TYPE_IPV4 => {
            let Some([0x45, _, _, _, _, _, f0, f1, _, UDP]) = packet.first_chunk() else {
                return false;
            };
            // More fragments, or an offset.
            if u16::from_be_bytes([*f0, *f1]) & 0x3fff != 0 {
                return false;
            }
            packet.get(22..)
        }
        ETHER_TYPE_IPV6 if packet.get(6) == Some(&UDP) => packet.get(V6_HEADER + 2..),
        _ => return false,
    };
    destination_port.and_then(<[u8]>::first_chunk) == Some(&port.to_be_bytes())
}

impl ExitConfig {
    /// Whether a frame that the guard sent to a worker is a message for the node itself, which has
    /// this UDP port, and not return traffic. In a routed prefix any port may be a consumer's.
    #[must_use]
    #[inline]
    pub fn is_message(&self, frame: &[u8], port: u16) -> bool {
        is_for_port(frame, port) && !self.is_routed(frame)
    }
}

fn has_right_checksum(header: &[u8]) -> bool {
    let (words, _) = header.as_chunks::<2>();
    let sum: u32 = words.iter().map(|word| u32::from(u16::from_be_bytes(*word))).sum();
    // At most 30 words: their carries fit in one more addition.
    (sum & 0xffff) + (sum >> 16) == 0xffff
}
