//! The header before each packet on a TUN device with `IFF_VNET_HDR`: `struct virtio_net_hdr` in
//! include/uapi/linux/virtio_net.h (virtio specification, section 5.1.6), in the host's byte order.

/// The length of the header in bytes.
pub const HEADER_LEN: usize = 10;

/// The room that a read from the device must offer, in bytes: the header and the largest IP packet,
/// rounded up.
pub const MAX_TUN_PACKET_LEN: usize =
    (HEADER_LEN + crate::headers::MAX_PACKET).next_multiple_of(64);

/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`.
const NEEDS_CSUM: u8 = 1;
/// `VIRTIO_NET_HDR_GSO_NONE`.
const GSO_NONE: u8 = 0;
/// `VIRTIO_NET_HDR_GSO_TCPV4`.
const GSO_TCPV4: u8 = 1;
/// `VIRTIO_NET_HDR_GSO_TCPV6`.
const GSO_TCPV6: u8 = 4;
/// `VIRTIO_NET_HDR_GSO_UDP_L4`.
const GSO_UDP_L4: u8 = 5;
/// `VIRTIO_NET_HDR_GSO_ECN`: the TCP flow uses ECN. A flag beside the type.
const GSO_ECN: u8 = 0x80;

/// The kind of super-packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gso {
    /// None: it is one packet.
    None,
    /// TCP segments over IPv4.
    TcpV4,
    /// TCP segments over IPv6.
    TcpV6,
    /// UDP datagrams over either (USO).
    Udp,
}

/// The header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetHeader {
    /// The kind of super-packet.
    pub gso: Gso,
    /// The payload of each packet but the last in bytes, if it is a super-packet.
    pub gso_size: u16,
    /// The length of all headers of a super-packet in bytes.
    pub header_len: u16,
    /// If the checksum is only the sum of the pseudo-header: the offset of the transport header, and
    /// that of the checksum in it.
    pub checksum: Option<(u16, u16)>,
}

impl NetHeader {
    /// The header of one packet whose checksum is complete.
    pub const PLAIN: Self = Self { gso: Gso::None, gso_size: 0, header_len: 0, checksum: None };

    /// Parses the header. `None` for a type of super-packet that we did not enable.
    #[must_use]
    #[inline]
    pub fn parse(bytes: &[u8; HEADER_LEN]) -> Option<Self> {
        let [flags, kind, h0, h1, g0, g1, s0, s1, o0, o1] = *bytes;
        let gso = match kind & !GSO_ECN {
            GSO_NONE => Gso::None,
            GSO_TCPV4 => Gso::TcpV4,
            GSO_TCPV6 => Gso::TcpV6,
            GSO_UDP_L4 => Gso::Udp,
            _ => return None,
        };
        let start = u16::from_ne_bytes([s0, s1]);
        let offset = u16::from_ne_bytes([o0, o1]);
        Some(Self {
            gso,
            gso_size: u16::from_ne_bytes([g0, g1]),
            header_len: u16::from_ne_bytes([h0, h1]),
            checksum: (flags & NEEDS_CSUM != 0).then_some((start, offset)),
        })
    }

    /// The header of the same packet behind a link header of `link_len` bytes: all offsets count
    /// from the first byte behind the virtio header.
    #[must_use]
    #[inline]
    pub fn behind(self, link_len: u16) -> Self {
        let checksum = self.checksum.map(|(start, offset)| (start + link_len, offset));
        Self { header_len: self.header_len + link_len, checksum, ..self }
    }

    /// The header as bytes.
    #[must_use]
    #[inline]
    pub fn to_bytes(self) -> [u8; HEADER_LEN] {
        let kind = match self.gso {
            Gso::None => GSO_NONE,
            Gso::TcpV4 => GSO_TCPV4,
            Gso::TcpV6 => GSO_TCPV6,
            Gso::Udp => GSO_UDP_L4,
        };
        let (flags, (start, offset)) = match self.checksum {
            Some(place) => (NEEDS_CSUM, place),
            None => (0, (0, 0)),
        };
        let ([h0, h1], [g0, g1]) = (self.header_len.to_ne_bytes(), self.gso_size.to_ne_bytes());
        let ([s0, s1], [o0, o1]) = (start.to_ne_bytes(), offset.to_ne_bytes());
        [flags, kind, h0, h1, g0, g1, s0, s1, o0, o1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_survives_its_bytes() {
        for gso in [Gso::None, Gso::TcpV4, Gso::TcpV6, Gso::Udp] {
            for checksum in [None, Some((20, 16)), Some((40, 6))] {
                let header = NetHeader { gso, gso_size: 1380, header_len: 60, checksum };
                assert_eq!(NetHeader::parse(&header.to_bytes()), Some(header));
            }
        }
    }

    #[test]
    fn the_ecn_mark_does_not_hide_the_type() {
        let mut bytes = NetHeader { gso: Gso::TcpV4, ..NetHeader::PLAIN }.to_bytes();
        bytes[1] |= GSO_ECN;
        assert_eq!(NetHeader::parse(&bytes).map(|h| h.gso), Some(Gso::TcpV4));
    }

    #[test]
    fn types_that_nobody_asked_for_are_refused() {
        let mut bytes = NetHeader::PLAIN.to_bytes();
        bytes[1] = 3;
        assert_eq!(NetHeader::parse(&bytes), None);
    }
}
