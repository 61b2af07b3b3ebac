//! Where the headers of a packet lie, with options, extension headers and fragments.

use weir_common::{
    DropReason,
    ip::{ICMP, ICMP_HEADER, ICMPV6},
};
use weir_packet::{
    extension::{Extension, MAX_EXTENSIONS, Place, Step},
    headers::{TCP, TCP_HEADER, UDP, UDP_HEADER, V4_HEADER, V6_HEADER, Version, half},
};

use crate::refusal::Refusal;

/// Loose and strict source route (RFC 791, section 3.1).
const SOURCE_ROUTES: [u8; 2] = [131, 137];

/// Why a packet is not translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unfit {
    /// Its headers contradict each other or its length.
    Malformed,
    /// It has a header that is not forwarded, such as a source route.
    Refused,
}

impl Unfit {
    /// For a packet from the internet.
    pub(crate) fn down(self) -> DropReason {
        match self {
            Self::Malformed => DropReason::DownMalformed,
            Self::Refused => DropReason::DownNoFlow,
        }
    }
}

impl From<Unfit> for Refusal {
    fn from(unfit: Unfit) -> Self {
        match unfit {
            Unfit::Malformed => DropReason::UpMalformed.into(),
            Unfit::Refused => DropReason::Protocol.into(),
        }
    }
}

/// An address of either version: IPv4 as `::ffff:a.b.c.d`.
pub(crate) type Address = [u8; 16];

/// An IPv4 address in the form of both versions.
#[inline]
pub(crate) fn mapped(v4: [u8; 4]) -> Address {
    let [a, b, c, d] = v4;
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
}

/// The last four bytes of an address: the IPv4 address.
#[inline]
pub(crate) fn v4_of(address: Address) -> [u8; 4] {
    let [.., a, b, c, d] = address;
    [a, b, c, d]
}

/// What a fragment says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fragment {
    pub(crate) place: Place,
    /// The identification.
    pub(crate) id: u32,
    /// Where the identification lies in the packet.
    pub(crate) id_at: usize,
    /// The length of its payload in bytes.
    pub(crate) len: usize,
}

impl Fragment {
    /// Whether it is the first one, which has the transport header.
    pub(crate) fn is_first(&self) -> bool {
        self.place.offset == 0
    }
}

/// The IP headers of a packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ip {
    pub(crate) version: Version,
    pub(crate) source: Address,
    pub(crate) destination: Address,
    pub(crate) hop_limit: u8,
    /// The transport protocol. Of a later fragment: the protocol that its header names.
    pub(crate) protocol: u8,
    /// Where the transport header begins, or the payload of a later fragment.
    pub(crate) l4: usize,
    /// Of a real fragment. A fragment header around a whole packet does not count (RFC 6946).
    pub(crate) fragment: Option<Fragment>,
}

impl Ip {
    /// Parses a packet that must have the length that its header says.
    #[inline]
    pub(crate) fn parse(packet: &[u8]) -> Result<Self, Unfit> {
        Self::parse_len(packet, true)
    }

    /// Parses a packet of which an ICMP error quotes the beginning.
    pub(crate) fn parse_quoted(packet: &[u8]) -> Result<Self, Unfit> {
        Self::parse_len(packet, false)
    }

    #[inline(always)]
    fn parse_len(packet: &[u8], whole: bool) -> Result<Self, Unfit> {
        match packet.first().ok_or(Unfit::Malformed)? >> 4 {
            4 => Self::parse_v4(packet, whole),
            6 => Self::parse_v6(packet, whole),
            _ => Err(Unfit::Malformed),
        }
    }

    #[inline(always)]
    fn parse_v4(packet: &[u8], whole: bool) -> Result<Self, Unfit> {
        let header: &[u8; V4_HEADER] = packet.first_chunk().ok_or(Unfit::Malformed)?;
        let len = usize::from(header[0] & 0xf) * 4;
        let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
        let fits = if whole { total == packet.len() } else { total >= len };
        if len < V4_HEADER || len > packet.len() || !fits {
            return Err(Unfit::Malformed);
        }
        if len > V4_HEADER {
            check_options(packet.get(V4_HEADER..len).unwrap_or_default())?;
        }
        let place = Place::v4(u16::from_be_bytes([header[6], header[7]]));
        let fragment = (!place.is_whole()).then(|| Fragment {
            place,
            id: u32::from(u16::from_be_bytes([header[4], header[5]])),
            id_at: 4,
            len: total.saturating_sub(len),
        });
        Ok(Self {
            version: Version::V4,
            source: mapped([header[12], header[13], header[14], header[15]]),
            destination: mapped([header[16], header[17], header[18], header[19]]),
            hop_limit: header[8],
            protocol: header[9],
            l4: len,
            fragment,
        })
    }

    #[inline(always)]
    fn parse_v6(packet: &[u8], whole: bool) -> Result<Self, Unfit> {
        let header: &[u8; V6_HEADER] = packet.first_chunk().ok_or(Unfit::Malformed)?;
        let total = V6_HEADER + usize::from(u16::from_be_bytes([header[4], header[5]]));
        if whole && total != packet.len() {
            return Err(Unfit::Malformed);
        }
        let [_, _, _, _, _, _, next, hop_limit, addresses @ ..] = header;
        let (source, destination) = addresses.split_at(16);
        let mut ip = Self {
            version: Version::V6,
            source: source.try_into().unwrap_or_default(),
            destination: destination.try_into().unwrap_or_default(),
            hop_limit: *hop_limit,
            protocol: *next,
            l4: V6_HEADER,
            fragment: None,
        };
        let mut rest = packet.get(V6_HEADER..).unwrap_or_default();
        for _ in 0..=MAX_EXTENSIONS {
            match Step::at(ip.protocol, rest) {
                // What follows an authentication header cannot be translated.
                Step::UpperLayer | Step::Extension { extension: Extension::Authentication, .. } => {
                    return Ok(ip);
                }
                Step::Truncated => return Err(Unfit::Malformed),
                Step::Extension { extension, next, rest: after } => {
                    let at = ip.l4;
                    (ip.protocol, ip.l4, rest) = (next, packet.len() - after.len(), after);
                    ip.pass_extension(extension, at, total)?;
                    if ip.fragment.is_some_and(|fragment| !fragment.is_first()) {
                        return Ok(ip);
                    }
                }
            }
        }
        Err(Unfit::Refused)
    }

    /// Takes note of an extension header that began at `at` and ends where [`Self::l4`] is now.
    #[cold]
    fn pass_extension(
        &mut self,
        extension: Extension,
        at: usize,
        total: usize,
    ) -> Result<(), Unfit> {
        match extension {
            // Only directly behind the IPv6 header.
            Extension::HopByHop if at != V6_HEADER => return Err(Unfit::Malformed),
            // Type 0 is deprecated (RFC 5095). One that is not used up goes elsewhere than the policy
            // was asked for.
            Extension::Routing { kind, segments_left } if kind == 0 || segments_left != 0 => {
                return Err(Unfit::Refused);
            }
            Extension::Fragment(_) if self.fragment.is_some() => return Err(Unfit::Malformed),
            Extension::Fragment(header) if !header.place.is_whole() => {
                self.fragment = Some(Fragment {
                    place: header.place,
                    id: header.id,
                    id_at: at + 4,
                    len: total.saturating_sub(self.l4),
                });
            }
            _ => {}
        }
        Ok(())
    }
}

/// Refuses source routes and options that overrun the header.
#[cold]
fn check_options(mut options: &[u8]) -> Result<(), Unfit> {
    while let [kind, rest @ ..] = options {
        options = match (kind, rest) {
            (0, _) => return Ok(()),
            (1, _) => rest,
            (kind, _) if SOURCE_ROUTES.contains(kind) => return Err(Unfit::Refused),
            (_, [len, ..]) if *len >= 2 => {
                options.get(usize::from(*len)..).ok_or(Unfit::Malformed)?
            }
            _ => return Err(Unfit::Malformed),
        };
    }
    Ok(())
}

/// The flags of a TCP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TcpFlags(pub(crate) u8);

impl TcpFlags {
    pub(crate) fn fin(self) -> bool {
        self.0 & 0x01 != 0
    }

    pub(crate) fn syn(self) -> bool {
        self.0 & 0x02 != 0
    }

    pub(crate) fn rst(self) -> bool {
        self.0 & 0x04 != 0
    }

    pub(crate) fn ack(self) -> bool {
        self.0 & 0x10 != 0
    }

    /// Whether the segment begins a connection.
    pub(crate) fn begins(self) -> bool {
        self.0 & 0x17 == 0x02
    }
}

/// The transport header, as far as it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Tcp {
        source: u16,
        destination: u16,
        flags: TcpFlags,
    },
    Udp {
        source: u16,
        destination: u16,
        has_checksum: bool,
    },
    EchoRequest {
        id: u16,
    },
    EchoReply {
        id: u16,
    },
    /// An ICMP error, which quotes a packet.
    Error,
    Other,
}

impl Transport {
    /// Parses the transport header of a packet that is no later fragment.
    #[inline]
    pub(crate) fn parse(packet: &[u8], ip: &Ip) -> Result<Self, Unfit> {
        let l4 = packet.get(ip.l4..).unwrap_or_default();
        match (ip.protocol, ip.version) {
            (TCP, _) => {
                let header: &[u8; TCP_HEADER] = l4.first_chunk().ok_or(Unfit::Malformed)?;
                if header[12] >> 4 < 5 {
                    return Err(Unfit::Malformed);
                }
                let [source, destination] = ports(l4);
                Ok(Self::Tcp { source, destination, flags: TcpFlags(header[13]) })
            }
            (UDP, _) => {
                let header: &[u8; UDP_HEADER] = l4.first_chunk().ok_or(Unfit::Malformed)?;
                let len = usize::from(u16::from_be_bytes([header[4], header[5]]));
                if len < UDP_HEADER || ip.fragment.is_none() && len > l4.len() {
                    return Err(Unfit::Malformed);
                }
                let [source, destination] = ports(l4);
                let has_checksum = header[6] != 0 || header[7] != 0;
                // RFC 8200, section 8.1.
                if !has_checksum && ip.version == Version::V6 {
                    return Err(Unfit::Malformed);
                }
                Ok(Self::Udp { source, destination, has_checksum })
            }
            (ICMP, Version::V4) | (ICMPV6, Version::V6) => {
                let header: &[u8; ICMP_HEADER] = l4.first_chunk().ok_or(Unfit::Malformed)?;
                Ok(Self::icmp(ip.version, header))
            }
            _ => Ok(Self::Other),
        }
    }

    /// Parses the first 8 bytes of the transport header of a quoted packet. Its flags are unknown.
    pub(crate) fn parse_quoted(packet: &[u8], ip: &Ip) -> Result<Self, Unfit> {
        let l4 = packet.get(ip.l4..).unwrap_or_default();
        let header: &[u8; ICMP_HEADER] = l4.first_chunk().ok_or(Unfit::Malformed)?;
        let [source, destination] = ports(l4);
        match (ip.protocol, ip.version) {
            (TCP, _) => Ok(Self::Tcp { source, destination, flags: TcpFlags(0) }),
            (UDP, _) => {
                let has_checksum = header[6] != 0 || header[7] != 0;
                Ok(Self::Udp { source, destination, has_checksum })
            }
            (ICMP, Version::V4) | (ICMPV6, Version::V6) => Ok(Self::icmp(ip.version, header)),
            _ => Ok(Self::Other),
        }
    }

    fn icmp(version: Version, header: &[u8; ICMP_HEADER]) -> Self {
        let id = u16::from_be_bytes([header[4], header[5]]);
        match (version, header[0], header[1]) {
            (Version::V4, 8, 0) | (Version::V6, 128, 0) => Self::EchoRequest { id },
            (Version::V4, 0, 0) | (Version::V6, 129, 0) => Self::EchoReply { id },
            (Version::V4, 3 | 11 | 12, _) | (Version::V6, 1..=4, _) => Self::Error,
            _ => Self::Other,
        }
    }
}

/// The first two 16-bit fields of a transport header.
#[inline]
fn ports(l4: &[u8]) -> [u16; 2] {
    [half(l4, 0), half(l4, 2)]
}
