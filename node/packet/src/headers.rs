//! The headers of the packets inside the tunnel, as far as the data plane needs them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::checksum::{Sum, pseudo_header};

/// IP protocol numbers.
pub const TCP: u8 = 6;
/// IP protocol numbers.
pub const UDP: u8 = 17;

/// Length of an IPv6 header.
pub const V6_HEADER: usize = 40;
/// The least length of an IPv4 header.
pub const V4_HEADER: usize = 20;
/// Length of a UDP header, and the least of a TCP one.
pub const UDP_HEADER: usize = 8;
const TCP_HEADER: usize = 20;

/// The most bytes that an IP packet can have: an IPv6 header and what its 16-bit payload length can
/// say (RFC 8200; an IPv4 packet has 40 less).
pub const MAX_PACKET: usize = V6_HEADER + 65_535;

/// The bytes of an IP packet that its own length field speaks of. `None` when there are fewer: its
/// end was cut off. What follows is no part of it.
#[must_use]
#[inline]
pub fn whole(packet: &[u8]) -> Option<&[u8]> {
    let (len, least) = match packet.first()? >> 4 {
        4 => {
            let header: &[u8; V4_HEADER] = packet.first_chunk()?;
            (usize::from(u16::from_be_bytes([header[2], header[3]])), V4_HEADER)
        }
        6 => {
            let header: &[u8; V6_HEADER] = packet.first_chunk()?;
            let payload = usize::from(u16::from_be_bytes([header[4], header[5]]));
            (V6_HEADER + payload, V6_HEADER)
        }
        _ => return None,
    };
    packet.get(..len).filter(|whole| whole.len() >= least)
}

/// IP version of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// The version and the destination of an IP packet whose fixed header is whole.
#[must_use]
#[inline]
pub fn destination(packet: &[u8]) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 => {
            let header: &[u8; V4_HEADER] = packet.first_chunk()?;
            let [.., a, b, c, d] = *header;
            Some(IpAddr::V4(Ipv4Addr::new(a, b, c, d)))
        }
        6 => {
            let header: &[u8; V6_HEADER] = packet.first_chunk()?;
            let octets: [u8; 16] = *header.last_chunk()?;
            Some(IpAddr::V6(Ipv6Addr::from(octets)))
        }
        _ => None,
    }
}

/// The source of an IP packet whose fixed header is whole.
#[must_use]
pub fn source(packet: &[u8]) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 => {
            let header: &[u8; V4_HEADER] = packet.first_chunk()?;
            let [.., a, b, c, d, _, _, _, _] = *header;
            Some(IpAddr::V4(Ipv4Addr::new(a, b, c, d)))
        }
        6 => {
            let header: &[u8; V6_HEADER] = packet.first_chunk()?;
            let octets: [u8; 16] = *header.get(8..)?.first_chunk()?;
            Some(IpAddr::V6(Ipv6Addr::from(octets)))
        }
        _ => None,
    }
}

/// A whole TCP segment or UDP datagram directly behind its IP header: what can be coalesced, and
/// what can be cut.
#[derive(Clone, Copy, Debug)]
pub struct Transport {
    /// IP version.
    pub version: Version,
    /// [`TCP`] or [`UDP`].
    pub protocol: u8,
    /// Length of the IP header: where the transport header begins.
    pub ip_len: usize,
    /// Length of both headers: where the payload begins.
    pub header_len: usize,
}

impl Transport {
    /// Finds the headers of `packet`, which must be exactly as long as its IP header says.
    /// `None` for anything but an unfragmented TCP or UDP packet without IPv6 extension headers.
    #[must_use]
    #[inline]
    pub fn parse(packet: &[u8]) -> Option<Self> {
        let (version, protocol, ip_len) = match packet.first()? {
            first if first >> 4 == 4 => {
                let header: &[u8; V4_HEADER] = packet.first_chunk()?;
                let ip_len = usize::from(first & 0xf) * 4;
                let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
                let fragment = u16::from_be_bytes([header[6], header[7]]) & 0x3fff;
                if ip_len < V4_HEADER || total != packet.len() || fragment != 0 {
                    return None;
                }
                (Version::V4, header[9], ip_len)
            }
            first if first >> 4 == 6 => {
                let header: &[u8; V6_HEADER] = packet.first_chunk()?;
                let payload = usize::from(u16::from_be_bytes([header[4], header[5]]));
                if payload + V6_HEADER != packet.len() {
                    return None;
                }
                (Version::V6, header[6], V6_HEADER)
            }
            _ => return None,
        };
        let header_len = ip_len + l4_header_len(protocol, packet.get(ip_len..)?)?;
        (header_len <= packet.len()).then_some(Self { version, protocol, ip_len, header_len })
    }

    /// The source and destination addresses of `packet`, as they lie in its header.
    #[must_use]
    #[inline]
    pub fn addresses<'a>(&self, packet: &'a [u8]) -> &'a [u8] {
        match self.version {
            Version::V4 => packet.get(12..20).unwrap_or_default(),
            Version::V6 => packet.get(8..40).unwrap_or_default(),
        }
    }

    /// Where the checksum lies within the transport header.
    #[must_use]
    #[inline]
    pub fn checksum_offset(&self) -> usize {
        checksum_offset(self.protocol)
    }

    /// Whether the transport checksum of `packet` is right. A UDP datagram without a checksum
    /// counts as wrong: nothing vouches for it.
    #[must_use]
    #[inline]
    pub fn checksum_is_right(&self, packet: &[u8]) -> bool {
        let Some(l4) = packet.get(self.ip_len..) else { return false };
        if self.protocol == UDP && l4.get(6..8) == Some(&[0, 0]) {
            return false;
        }
        pseudo_header(self.addresses(packet), self.protocol, l4.len()).bytes(l4).folded() == 0xffff
    }
}

/// Where the checksum lies within a TCP or UDP header.
#[must_use]
#[inline]
pub const fn checksum_offset(protocol: u8) -> usize {
    if protocol == TCP { 16 } else { 6 }
}

/// Length of the TCP or UDP header at the start of `l4`.
#[must_use]
#[inline]
pub fn l4_header_len(protocol: u8, l4: &[u8]) -> Option<usize> {
    match protocol {
        TCP => {
            let header: &[u8; TCP_HEADER] = l4.first_chunk()?;
            let len = usize::from(header[12] >> 4) * 4;
            (len >= TCP_HEADER && len <= l4.len()).then_some(len)
        }
        UDP => (l4.len() >= UDP_HEADER
            && usize::from(u16::from_be_bytes([l4[4], l4[5]])) == l4.len())
        .then_some(UDP_HEADER),
        _ => None,
    }
}

/// Whether the checksum of an IPv4 header is right.
#[must_use]
#[inline]
pub fn v4_checksum_is_right(header: &[u8]) -> bool {
    Sum::default().bytes(header).folded() == 0xffff
}

/// Writes the header checksum of an IPv4 header, whose old one was verified.
#[inline]
pub fn set_v4_checksum(header: &mut [u8]) {
    if let Some(field) = header.get_mut(10..12) {
        field.fill(0);
        let checksum = Sum::default().bytes(header).checksum();
        header[10..12].copy_from_slice(&checksum.to_be_bytes());
    }
}

/// In UDP a checksum of zero means that there is none (RFC 768): all ones mean zero.
#[must_use]
#[inline]
pub fn nonzero_for_udp(protocol: u8, checksum: u16) -> u16 {
    if protocol == UDP && checksum == 0 { 0xffff } else { checksum }
}
