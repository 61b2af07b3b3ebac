//! Fields that change, and checksums that change with them (RFC 1624): never computed anew, so that a
//! wrong checksum stays wrong.

use weir_common::ip::{ICMP, ICMPV6};
use weir_packet::headers::{UDP, Version, checksum_offset, half, write};

use crate::parse::{Address, Ip, v4_of};

/// The change of a ones' complement sum: the sum of the new words and of the complements of the old
/// ones (RFC 1624, equation 3).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Change(u64);

impl Change {
    /// A 16-bit word becomes another.
    #[inline(always)]
    pub(crate) fn word(self, old: u16, new: u16) -> Self {
        Self(self.0 + u64::from(!old) + u64::from(new))
    }

    /// An address becomes another. Equal words change nothing, so the zeros of IPv4 do not count.
    #[inline(always)]
    pub(crate) fn address(mut self, version: Version, old: Address, new: Address) -> Self {
        let from = if version == Version::V4 { 6 } else { 0 };
        let words = old.as_chunks::<2>().0.iter().zip(new.as_chunks::<2>().0);
        for (old, new) in words.skip(from) {
            self = self.word(u16::from_be_bytes(*old), u16::from_be_bytes(*new));
        }
        self
    }

    /// All changes of both.
    #[inline(always)]
    pub(crate) fn and(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    /// The checksum after the change.
    #[inline(always)]
    pub(crate) fn apply(self, checksum: u16) -> u16 {
        let mut sum = u64::from(!checksum) + self.0;
        sum = (sum & 0xffff) + (sum >> 16);
        sum = (sum & 0xffff) + (sum >> 16);
        sum = (sum & 0xffff) + (sum >> 16);
        !(sum as u16)
    }

    /// Changes the checksum at an offset.
    #[inline(always)]
    pub(crate) fn apply_at(self, packet: &mut [u8], offset: usize) {
        let checksum = self.apply(half(packet, offset));
        write(packet, offset, checksum.to_be_bytes());
    }
}

/// Which of a packet's addresses and ports changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Source,
    Destination,
}

impl Side {
    /// Of a quoted packet, which went the other way.
    pub(crate) fn other(self) -> Self {
        match self {
            Self::Source => Self::Destination,
            Self::Destination => Self::Source,
        }
    }

    fn address_of(self, ip: &Ip) -> Address {
        match self {
            Self::Source => ip.source,
            Self::Destination => ip.destination,
        }
    }
}

/// What changes in the IP header.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IpEdit {
    pub(crate) side: Side,
    pub(crate) address: Address,
    /// Another identification, if any.
    pub(crate) id: Option<u32>,
    /// Whether the hop limit is decremented.
    pub(crate) forwarded: bool,
}

/// Changes the IP header at the beginning of `packet`. Returns what changed in the pseudo-header.
#[inline(always)]
pub(crate) fn edit_ip(packet: &mut [u8], ip: &Ip, edit: IpEdit) -> Change {
    let old = edit.side.address_of(ip);
    let pseudo = Change::default().address(ip.version, old, edit.address);
    let hop_limit = ip.hop_limit.saturating_sub(u8::from(edit.forwarded));
    match ip.version {
        Version::V4 => {
            let mut change = pseudo;
            if edit.forwarded {
                let time = half(packet, 8);
                let new = u16::from_be_bytes([hop_limit, ip.protocol]);
                change = change.word(time, new);
                write(packet, 8, new.to_be_bytes());
            }
            if let Some(id) = edit.id {
                change = change.word(half(packet, 4), id as u16);
                write(packet, 4, (id as u16).to_be_bytes());
            }
            let at = if edit.side == Side::Source { 12 } else { 16 };
            write(packet, at, v4_of(edit.address));
            change.apply_at(packet, 10);
        }
        Version::V6 => {
            write(packet, 7, [hop_limit]);
            if let (Some(id), Some(fragment)) = (edit.id, ip.fragment) {
                write(packet, fragment.id_at, id.to_be_bytes());
            }
            write(packet, if edit.side == Side::Source { 8 } else { 24 }, edit.address);
        }
    }
    pseudo
}

/// Changes the port, or the identifier of an echo, of the transport header at `l4`, and the checksum
/// for this and for `pseudo`. Returns what the whole transport header's sum changes by, its checksum
/// included.
///
/// A checksum that is not there any more, because a quoted packet was cut, is not written.
#[inline(always)]
pub(crate) fn edit_transport(
    packet: &mut [u8],
    ip: &Ip,
    side: Side,
    port: u16,
    pseudo: Change,
) -> Change {
    let l4 = packet.get_mut(ip.l4..).unwrap_or_default();
    let (port_at, checksum_at) = match ip.protocol {
        ICMP | ICMPV6 => (4, 2),
        protocol => (if side == Side::Source { 0 } else { 2 }, checksum_offset(protocol)),
    };
    let old = half(l4, port_at);
    let ports = Change::default().word(old, port);
    write(l4, port_at, port.to_be_bytes());
    if l4.len() < checksum_at + 2 {
        return ports;
    }
    // ICMP has no pseudo-header, ICMPv6 has (RFC 4443, section 2.3).
    let change = if ip.protocol == ICMP { ports } else { ports.and(pseudo) };
    let before = half(l4, checksum_at);
    if ip.protocol == UDP && before == 0 {
        return ports;
    }
    let mut after = change.apply(before);
    if ip.protocol == UDP && after == 0 {
        after = 0xffff;
    }
    write(l4, checksum_at, after.to_be_bytes());
    ports.word(before, after)
}
