//! The packet that is answered, as far as the answer depends on it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use weir_packet::{
    checksum::{Sum, pseudo_header},
    extension::{Extension, MAX_EXTENSIONS, Place, Step},
    headers::{V4_HEADER, V6_HEADER, destination, half, source, whole},
};

/// Source and destination of a packet.
#[derive(Clone, Copy, Debug)]
pub(super) enum Addresses {
    V4 { source: Ipv4Addr, destination: Ipv4Addr },
    V6 { source: Ipv6Addr, destination: Ipv6Addr },
}

impl Addresses {
    fn of(packet: &[u8]) -> Option<Self> {
        match (source(packet)?, destination(packet)?) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => Some(Self::V4 { source, destination }),
            (IpAddr::V6(source), IpAddr::V6(destination)) => Some(Self::V6 { source, destination }),
            _ => None,
        }
    }

    pub(super) fn is_v4(&self) -> bool {
        matches!(self, Self::V4 { .. })
    }

    /// Those of an answer to it.
    pub(super) fn reversed(&self) -> Self {
        match *self {
            Self::V4 { source, destination } => {
                Self::V4 { source: destination, destination: source }
            }
            Self::V6 { source, destination } => {
                Self::V6 { source: destination, destination: source }
            }
        }
    }

    /// The sum of the pseudo-header for `len` bytes of a protocol.
    pub(super) fn pseudo_header(&self, protocol: u8, len: usize) -> Sum {
        match self {
            Self::V4 { source, destination } => {
                pseudo_header([source.octets(), destination.octets()].as_flattened(), protocol, len)
            }
            Self::V6 { source, destination } => {
                pseudo_header([source.octets(), destination.octets()].as_flattened(), protocol, len)
            }
        }
    }

    /// Whether the source is one host, which can be answered.
    pub(super) fn has_unicast_source(&self) -> bool {
        match self {
            Self::V4 { source, .. } => is_unicast(*source),
            Self::V6 { source, .. } => is_unicast_v6(*source),
        }
    }

    /// Whether the destination is one host.
    pub(super) fn has_unicast_destination(&self) -> bool {
        match self {
            Self::V4 { destination, .. } => is_unicast(*destination),
            Self::V6 { destination, .. } => is_unicast_v6(*destination),
        }
    }

    /// Whether the destination is a group of IPv6 hosts.
    pub(super) fn is_v6_multicast(&self) -> bool {
        matches!(self, Self::V6 { destination, .. } if destination.is_multicast())
    }
}

/// RFC 1812, section 4.3.2.7: not broadcast or multicast, of class E, of network 0, or loopback.
/// Broadcasts of a network cannot be told from here.
fn is_unicast(address: Ipv4Addr) -> bool {
    !matches!(address.octets(), [0 | 127 | 224..=255, ..])
}

fn is_unicast_v6(address: Ipv6Addr) -> bool {
    !address.is_unspecified() && !address.is_loopback() && !address.is_multicast()
}

/// Which part of a packet it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// All of it.
    Whole,
    /// The first fragment, which has the transport header.
    First,
}

/// A packet that is not a later fragment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Original<'p> {
    pub(super) addresses: Addresses,
    pub(super) part: Part,
    /// The protocol behind the IP header and its extensions.
    pub(super) protocol: u8,
    /// What follows them.
    pub(super) payload: &'p [u8],
    /// All of the packet.
    pub(super) packet: &'p [u8],
}

impl<'p> Original<'p> {
    /// `None` for a later fragment, and for what is not a whole IP packet.
    pub(super) fn parse(packet: &'p [u8]) -> Option<Self> {
        let packet = whole(packet)?;
        let addresses = Addresses::of(packet)?;
        let (part, protocol, payload) =
            if addresses.is_v4() { parse_v4(packet)? } else { parse_v6(packet)? };
        Some(Self { addresses, part, protocol, payload, packet })
    }
}

fn parse_v4(packet: &[u8]) -> Option<(Part, u8, &[u8])> {
    let header_len = usize::from(packet.first()? & 0xf) * 4;
    let place = Place::v4(half(packet, 6));
    if header_len < V4_HEADER || place.offset != 0 {
        return None;
    }
    let part = if place.more { Part::First } else { Part::Whole };
    Some((part, *packet.get(9)?, packet.get(header_len..)?))
}

fn parse_v6(packet: &[u8]) -> Option<(Part, u8, &[u8])> {
    let mut part = Part::Whole;
    let mut protocol = *packet.get(6)?;
    let mut payload = packet.get(V6_HEADER..)?;
    for _ in 0..=MAX_EXTENSIONS {
        match Step::at(protocol, payload) {
            Step::UpperLayer => return Some((part, protocol, payload)),
            Step::Truncated => return None,
            Step::Extension { extension, next, rest } => {
                if let Extension::Fragment(header) = extension {
                    if header.place.offset != 0 {
                        return None;
                    }
                    if header.place.more {
                        part = Part::First;
                    }
                }
                (protocol, payload) = (next, rest);
            }
        }
    }
    None
}
