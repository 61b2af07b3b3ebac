//! The way from the frame's start to the UDP header.

use super::Frame;
use crate::ip;

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

/// Two: 802.1ad around 802.1Q.
const MAX_VLAN_TAGS: usize = 2;
/// The low half of `::ffff:0.0.0.0` (RFC 4291, section 2.5.5.2). Such addresses are on no wire.
const IPV4_MAPPED: u64 = 0x0000_ffff_0000_0000;
/// RFC 8200 has each at most once, the destination options twice, and a fragment header.
const MAX_EXTENSIONS: usize = 5;

/// Finds the UDP header of a frame. Protocols that carry other packets are not looked into.
#[inline(always)]
pub(super) fn locate<F: Frame + ?Sized>(frame: &F) -> Located {
    let mut at = ip::ETHERNET_HEADER;
    let Some(bytes) = frame.bytes(at - 2) else { return Located::Other };
    let mut ether_type = u16::from_be_bytes(bytes);
    for _ in 0..MAX_VLAN_TAGS {
        if ether_type != ip::ETHER_TYPE_VLAN && ether_type != ip::ETHER_TYPE_SERVICE_VLAN {
            break;
        }
        let Some([_, _, t0, t1]) = frame.bytes(at) else { return Located::Other };
        ether_type = u16::from_be_bytes([t0, t1]);
        at += ip::VLAN_TAG;
    }
    let located = match ether_type {
        ip::ETHER_TYPE_IPV4 => locate_v4(frame, at),
        ip::ETHER_TYPE_IPV6 => locate_v6(frame, at),
        _ => None,
    };
    located.unwrap_or(Located::Other)
}

#[inline(always)]
fn locate_v4<F: Frame + ?Sized>(frame: &F, at: usize) -> Option<Located> {
    let [version_ihl, _, l0, l1, _, _, f0, f1, _, next, _, _, s0, s1, s2, s3] = frame.bytes(at)?;
    let header = usize::from(version_ihl & 0x0f) * 4;
    if version_ihl >> 4 != 4 || header < 20 || next != ip::UDP {
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
    // In one piece: the verifier follows each look at the frame on two ways.
    let [version, _, _, _, l0, l1, mut next, _, address @ ..] = frame.bytes::<24>(at)?;
    if version >> 4 != 6 {
        return None;
    }
    let end = at + ip::V6_HEADER + usize::from(u16::from_be_bytes([l0, l1]));
    let mut header = at + ip::V6_HEADER;
    for _ in 0..MAX_EXTENSIONS {
        match next {
            ip::HOP_BY_HOP | ip::ROUTING | ip::DESTINATION_OPTIONS => {
                let [following, len] = frame.bytes(header)?;
                header += (usize::from(len) + 1) * 8;
                next = following;
            }
            ip::FRAGMENT => {
                let [following, _, f0, f1] = frame.bytes(header)?;
                // An offset, or more fragments; otherwise it is an atomic fragment, a whole one.
                if u16::from_be_bytes([f0, f1]) & 0xfff9 != 0 {
                    return (following == ip::UDP).then_some(Located::Fragment);
                }
                header += 8;
                next = following;
            }
            _ => break,
        }
    }
    let address = u128::from_be_bytes(address);
    let address = [(address >> 64) as u64, address as u64];
    (next == ip::UDP).then(|| udp(frame, header, end, address))
}

/// The UDP header at `at`, of an IP packet that ends at `end`.
#[inline(always)]
fn udp<F: Frame + ?Sized>(frame: &F, at: usize, end: usize, address: [u64; 2]) -> Located {
    let consistent = end >= at && end <= frame.len();
    Located::Udp { at, space: if consistent { (end - at) as u32 } else { 0 }, address }
}
