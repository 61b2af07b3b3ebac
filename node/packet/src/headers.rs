//! The headers of the packets inside the tunnel: IPv4 (RFC 791), IPv6 (RFC 8200), TCP (RFC 9293)
//! and UDP (RFC 768), as far as the packet path reads them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::checksum::{Sum, pseudo_header};

pub use weir_common::ip::{TCP, TCP_HEADER, UDP, UDP_HEADER, V4_HEADER, V6_HEADER};

/// The length of the largest IP packet, in bytes: an IPv6 header and a payload whose length has 16
/// bits (RFC 8200, section 3). The largest IPv4 packet is 40 bytes shorter.
pub const MAX_PACKET: usize = V6_HEADER + 65_535;

/// The bytes of an IP packet, as many as its length field says, without what follows them. `None` if
/// the packet is truncated.
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

/// The IP version of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// The destination address of an IP packet. `None` if its fixed header is truncated.
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

/// The source address of an IP packet. `None` if its fixed header is truncated.
#[must_use]
#[inline]
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

/// Where the headers of a complete TCP segment or UDP datagram end. Such a packet can be coalesced
/// and segmented.
#[derive(Clone, Copy, Debug)]
pub struct Transport {
    /// The IP version.
    pub version: Version,
    /// [`TCP`] or [`UDP`].
    pub protocol: u8,
    /// The length of the IP header in bytes.
    pub ip_len: usize,
    /// The length of the IP header and the transport header in bytes.
    pub header_len: usize,
}

impl Transport {
    /// Finds the headers of `packet`, whose length must be the one in its IP header. `None` for
    /// anything but an unfragmented TCP or UDP packet without IPv6 extension headers.
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

    /// Splits `packet` into its headers and its payload. `None` only if it is not the packet that
    /// was parsed.
    #[must_use]
    #[inline(always)]
    pub fn split<'a>(&self, packet: &'a [u8]) -> Option<Split<'a>> {
        let (headers, payload) = packet.split_at_checked(self.header_len)?;
        let (ip, l4) = headers.split_at_checked(self.ip_len)?;
        Some(Split { ip, l4, payload })
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

    /// The offset of the checksum in the transport header.
    #[must_use]
    #[inline]
    pub fn checksum_offset(&self) -> usize {
        checksum_offset(self.protocol)
    }

    /// Whether the transport checksum of `packet` is right. A UDP datagram without a checksum counts
    /// as wrong, because nothing proves that it is intact.
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

/// Completes the transport checksum of a packet whose checksum is only the sum of its pseudo-header.
/// Frames that have not left their machine are so, on a veth or from a bridge: the kernel leaves the
/// rest to a card (`CHECKSUM_PARTIAL`), and a frame does not say so. Any other packet stays as it is.
#[inline]
pub fn complete_partial_checksum(packet: &mut [u8]) {
    let Some(transport) = Transport::parse(packet) else { return };
    let l4_len = packet.len() - transport.ip_len;
    let pseudo = pseudo_header(transport.addresses(packet), transport.protocol, l4_len);
    let l4 = packet.get_mut(transport.ip_len..).unwrap_or_default();
    let offset = transport.checksum_offset();
    if half(l4, offset) == pseudo.folded() {
        complete(transport, pseudo, l4);
    }
}

/// Kept apart, because a card has done it for what comes from a wire.
#[cold]
fn complete(transport: Transport, pseudo: Sum, l4: &mut [u8]) {
    if pseudo.bytes(l4).folded() == 0xffff {
        // By chance it is the right sum of all.
        return;
    }
    let offset = transport.checksum_offset();
    write(l4, offset, [0; 2]);
    let checksum = nonzero_for_udp(transport.protocol, pseudo.bytes(l4).checksum());
    write(l4, offset, checksum.to_be_bytes());
}

/// A packet's headers and payload: see [`Transport::split`].
#[derive(Clone, Copy, Debug)]
pub struct Split<'a> {
    /// The IP header.
    pub ip: &'a [u8],
    /// The TCP or UDP header.
    pub l4: &'a [u8],
    /// The payload.
    pub payload: &'a [u8],
}

/// The offset of the checksum in a TCP or UDP header.
#[must_use]
#[inline]
pub const fn checksum_offset(protocol: u8) -> usize {
    if protocol == TCP { 16 } else { 6 }
}

/// The length of the TCP or UDP header at the start of `l4`, in bytes. `None` if it is truncated, or
/// if a UDP header gives another length than that of `l4`.
#[must_use]
#[inline]
pub fn l4_header_len(protocol: u8, l4: &[u8]) -> Option<usize> {
    match protocol {
        TCP => {
            let header: &[u8; TCP_HEADER] = l4.first_chunk()?;
            let len = usize::from(header[12] >> 4) * 4;
            (len >= TCP_HEADER && len <= l4.len()).then_some(len)
        }
        UDP => {
            let header: &[u8; UDP_HEADER] = l4.first_chunk()?;
            let len = usize::from(u16::from_be_bytes([header[4], header[5]]));
            (len == l4.len()).then_some(UDP_HEADER)
        }
        _ => None,
    }
}

/// Whether the checksum of an IPv4 header is right.
#[must_use]
#[inline]
pub fn v4_checksum_is_right(header: &[u8]) -> bool {
    Sum::default().bytes(header).folded() == 0xffff
}

/// Writes the checksum of an IPv4 header. The old checksum must have been verified, or the new one
/// hides a corrupt header.
#[inline]
pub fn set_v4_checksum(header: &mut [u8]) {
    write(header, 10, [0; 2]);
    let checksum = Sum::default().bytes(header).checksum();
    write(header, 10, checksum.to_be_bytes());
}

/// Writes `field` at an offset of `header`, if it fits there.
#[inline(always)]
pub fn write<const LEN: usize>(header: &mut [u8], offset: usize, field: [u8; LEN]) {
    if let Some(bytes) = header.get_mut(offset..offset + LEN) {
        bytes.copy_from_slice(&field);
    }
}

/// Reads the 16-bit field at an offset of `header`. 0 if the header is truncated.
#[inline(always)]
#[must_use]
pub fn half(header: &[u8], offset: usize) -> u16 {
    let bytes = header.get(offset..).and_then(<[u8]>::first_chunk);
    bytes.map_or(0, |bytes| u16::from_be_bytes(*bytes))
}

/// Reads the 32-bit field at an offset of `header`. 0 if the header is truncated.
#[inline(always)]
#[must_use]
pub fn word(header: &[u8], offset: usize) -> u32 {
    let bytes = header.get(offset..).and_then(<[u8]>::first_chunk);
    bytes.map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

/// Replaces a UDP checksum of 0 by its other representation, all ones: 0 means that there is no
/// checksum (RFC 768).
#[must_use]
#[inline]
pub fn nonzero_for_udp(protocol: u8, checksum: u16) -> u16 {
    if protocol == UDP && checksum == 0 { 0xffff } else { checksum }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{SERVER_V4, SERVER_V6, tcp, udp};

    #[test]
    fn only_a_partial_checksum_is_completed() {
        for (from, to) in [
            (IpAddr::from([10, 66, 0, 2]), SERVER_V4),
            ("fd66::2".parse().expect("an address"), SERVER_V6),
        ] {
            for whole in [udp(from, to, 4000, b"payload"), tcp(from, to, 7, b"payload", |_| ())] {
                let transport = Transport::parse(&whole).expect("TCP or UDP");
                let at = transport.ip_len + transport.checksum_offset();
                let mut packet = whole.clone();
                complete_partial_checksum(&mut packet);
                assert_eq!(packet, whole, "a right one stays");
                let l4_len = whole.len() - transport.ip_len;
                let pseudo = pseudo_header(transport.addresses(&whole), transport.protocol, l4_len);
                write(&mut packet, at, pseudo.folded().to_be_bytes());
                complete_partial_checksum(&mut packet);
                assert_eq!(packet, whole, "a partial one is completed");
                packet[at] ^= 0x55;
                let wrong = packet.clone();
                complete_partial_checksum(&mut packet);
                assert_eq!(packet, wrong, "a wrong one stays wrong");
            }
        }
    }
}
