//! What a consumer is told about a packet that does not leave: the answer, and the packet that
//! carries it.

use std::net::{Ipv4Addr, Ipv6Addr};

mod icmp;
mod original;
mod tcp;
#[cfg(test)]
mod tests;

use original::{Addresses, Original};

/// The answer to a refused packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// TCP: a reset (RFC 9293, section 3.5.2).
    Reset,
    /// ICMP: communication administratively prohibited (RFC 1812, section 5.2.7.1; RFC 4443,
    /// section 3.1).
    Prohibited,
    /// ICMP: no room for another flow: host unreachable (RFC 5508, REQ-8) or address unreachable.
    Unreachable,
    /// ICMP: time exceeded in transit (RFC 792; RFC 4443, section 3.3).
    TimeExceeded,
    /// ICMP: the packet is larger than this, in bytes, and may not be fragmented (RFC 1191; RFC 8201).
    TooBig(u16),
}

/// The node's addresses inside the tunnel. ICMP errors come from them. A reset comes from the
/// address that the segment was sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gateways {
    /// IPv4.
    pub v4: Ipv4Addr,
    /// IPv6.
    pub v6: Ipv6Addr,
}

/// The length of the longest answer, in bytes: the least MTU of IPv6 (RFC 4443, section 2.4 (c)).
pub const MAX_ANSWER_LEN: usize = 1280;

/// The hop limit of an answer.
const HOP_LIMIT: u8 = 64;

/// Writes the IP packet that tells a consumer what became of its packet, and returns the length.
/// `refused` is the packet as the consumer sent it, not translated. [`MAX_ANSWER_LEN`] bytes of
/// `out` suffice for any answer.
///
/// `None` if nobody may be told:
///
/// - about a packet from or to an address that is not one host's: multicast, broadcast, unspecified,
///   loopback (RFC 1812, section 4.3.2.7; RFC 4443, section 2.4 (e); RFC 9293, MUST-57). A too large
///   packet to an IPv6 multicast address is the exception that RFC 4443 makes.
/// - about an ICMP error, or an ICMP message that may be one;
/// - about a fragment, except that ICMP tells about the first one;
/// - by a reset, about a reset, a segment with a wrong checksum, or another protocol;
/// - about what is not a whole IP packet.
///
/// `None` also if `out` is too short. Rate limits and the source address are up to the caller.
#[must_use]
pub fn write(answer: Answer, refused: &[u8], gateways: &Gateways, out: &mut [u8]) -> Option<usize> {
    let original = Original::parse(refused)?;
    match answer {
        Answer::Reset => tcp::reset(&original, out),
        _ => icmp::error(answer, &original, gateways, out),
    }
}

/// Writes an IP header without options for a payload of `payload_len` bytes. Returns the rest of `out`, cut
/// to that length, and the length of the whole packet.
fn write_ip_header<'o>(
    addresses: &Addresses,
    protocol: u8,
    traffic_class: u8,
    payload_len: usize,
    out: &'o mut [u8],
) -> Option<(&'o mut [u8], usize)> {
    use weir_packet::headers::{V4_HEADER, V6_HEADER, set_v4_checksum, write as put};
    let header_len = if addresses.is_v4() { V4_HEADER } else { V6_HEADER };
    let len = header_len + payload_len;
    let (header, payload) = out.get_mut(..len)?.split_at_mut_checked(header_len)?;
    header.fill(0);
    match addresses {
        Addresses::V4 { source, destination } => {
            /// Do not fragment: then the identification may be 0 (RFC 6864, section 4.1).
            const DF: u16 = 1 << 14;
            put(header, 0, [0x45, traffic_class]);
            put(header, 2, u16::try_from(len).ok()?.to_be_bytes());
            put(header, 6, DF.to_be_bytes());
            put(header, 8, [HOP_LIMIT, protocol]);
            put(header, 12, source.octets());
            put(header, 16, destination.octets());
            set_v4_checksum(header);
        }
        Addresses::V6 { source, destination } => {
            put(header, 0, (6 << 28 | u32::from(traffic_class) << 20).to_be_bytes());
            put(header, 4, u16::try_from(payload_len).ok()?.to_be_bytes());
            put(header, 6, [protocol, HOP_LIMIT]);
            put(header, 8, source.octets());
            put(header, 24, destination.octets());
        }
    }
    Some((payload, len))
}
