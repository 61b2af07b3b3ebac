//! The way from the frame's start to the UDP header.

use super::Frame;

/// Where the UDP header is.
pub(super) enum Located {
    /// There is none.
    Other,
    /// There is none in this fragment, or its payload is not whole.
    Fragment,
    /// Here, if the frame is long enough for it.
    Udp {
        /// Offset of the UDP header.
        at: usize,
        /// How many bytes the IP header leaves for header and payload; none if the IP header
        /// contradicts itself or the frame's length.
        space: u32,
        /// See [`super::Source::address`].
        address: [u64; 2],
    },
}

mod ether_type {
    pub(super) const VLAN: u16 = 0x8100;
    pub(super) const SERVICE_VLAN: u16 = 0x88a8;
    pub(super) const IPV4: u16 = 0x0800;
    pub(super) const IPV6: u16 = 0x86dd;
}

mod protocol {
    pub(super) const HOP_BY_HOP: u8 = 0;
    pub(super) const UDP: u8 = 17;
    pub(super) const ROUTING: u8 = 43;
    pub(super) const FRAGMENT: u8 = 44;
    pub(super) const DESTINATION: u8 = 60;
}

const ETHERNET_HEADER: usize = 14;
const VLAN_TAG: usize = 4;
/// Two: 802.1ad around 802.1Q.
const MAX_VLAN_TAGS: usize = 2;
const IPV6_HEADER: usize = 40;
/// The low half of `::ffff:0.0.0.0` (RFC 4291, section 2.5.5.2). Such addresses are on no wire.
const IPV4_MAPPED: u64 = 0x0000_ffff_0000_0000;
/// RFC 8200 has each at most once, the destination options twice, and a fragment header.
const MAX_EXTENSIONS: usize = 5;

/// Finds the UDP header of a frame. Protocols that carry other packets are not looked into.
#[inline(always)]
pub(super) fn locate<F: Frame + ?Sized>(frame: &F) -> Located {
    let mut at = ETHERNET_HEADER;
    let Some(bytes) = frame.bytes(at - 2) else { return Located::Other };
    let mut ether_type = u16::from_be_bytes(bytes);
    for _ in 0..MAX_VLAN_TAGS {
        if ether_type != ether_type::VLAN && ether_type != ether_type::SERVICE_VLAN {
            break;
        }
        let Some([_, _, t0, t1]) = frame.bytes(at) else { return Located::Other };
        ether_type = u16::from_be_bytes([t0, t1]);
        at += VLAN_TAG;
    }
    let located = match ether_type {
        ether_type::IPV4 => locate_v4(frame, at),
        ether_type::IPV6 => locate_v6(frame, at),
        _ => None,
    };
    located.unwrap_or(Located::Other)
}

#[inline(always)]
fn locate_v4<F: Frame + ?Sized>(frame: &F, at: usize) -> Option<Located> {
    let [version_ihl, _, l0, l1, _, _, f0, f1, _, next, _, _, s0, s1, s2, s3] = frame.bytes(at)?;
    let header = usize::from(version_ihl & 0x0f) * 4;
    if version_ihl >> 4 != 4 || header < 20 || next != protocol::UDP {
        return None;
    }
    // More fragments, or an offset.
    if u16::from_be_bytes([f0, f1]) & 0x3fff != 0 {
        return Some(Located::Fragment);
    }
    let total = usize::from(u16::from_be_bytes([l0, l1]));
    let mapped = IPV4_MAPPED | u64::from(u32::from_be_bytes([s0, s1, s2, s3]));
    Some(udp(frame, at + header, at + total, [0, mapped]))
}

#[inline(always)]
fn locate_v6<F: Frame + ?Sized>(frame: &F, at: usize) -> Option<Located> {
    let [version, _, _, _, l0, l1, mut next, _] = frame.bytes(at)?;
    let (high, low) = (frame.bytes(at + 8)?, frame.bytes(at + 16)?);
    if version >> 4 != 6 {
        return None;
    }
    let end = at + IPV6_HEADER + usize::from(u16::from_be_bytes([l0, l1]));
    let mut header = at + IPV6_HEADER;
    for _ in 0..MAX_EXTENSIONS {
        match next {
            protocol::HOP_BY_HOP | protocol::ROUTING | protocol::DESTINATION => {
                let [following, len] = frame.bytes(header)?;
                header += (usize::from(len) + 1) * 8;
                next = following;
            }
            protocol::FRAGMENT => {
                let [following, _, f0, f1] = frame.bytes(header)?;
                // An offset, or more fragments; otherwise it is an atomic fragment, a whole one.
                if u16::from_be_bytes([f0, f1]) & 0xfff9 != 0 {
                    return (following == protocol::UDP).then_some(Located::Fragment);
                }
                header += 8;
                next = following;
            }
            _ => break,
        }
    }
    let address = [u64::from_be_bytes(high), u64::from_be_bytes(low)];
    (next == protocol::UDP).then(|| udp(frame, header, end, address))
}

/// The UDP header at `at`, of an IP packet that ends at `end`.
#[inline(always)]
fn udp<F: Frame + ?Sized>(frame: &F, at: usize, end: usize, address: [u64; 2]) -> Located {
    let consistent = end >= at && end <= frame.len();
    Located::Udp { at, space: if consistent { (end - at) as u32 } else { 0 }, address }
}
