//! Super-packets from the TUN device become packets again, in place: each packet's headers are
//! written directly before its payload, over the end of the packet before it, which has been
//! consumed by then. Nothing is moved.

use crate::{
    checksum::{Sum, pseudo_header},
    headers::{
        TCP, UDP, UDP_HEADER, V6_HEADER, Version, checksum_offset, l4_header_len, nonzero_for_udp,
        set_v4_checksum, v4_checksum_is_right, whole,
    },
    virtio::{Gso, NetHeader},
};

/// Room that a packet's headers may take.
const MAX_HEADERS: usize = 128;
/// TCP flags that belong to the last packet only: FIN and PSH.
const LAST_ONLY: u8 = 0x09;
/// TCP flag that belongs to the first packet only: CWR.
const FIRST_ONLY: u8 = 0x80;

/// A frame that contradicts itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadFrame;

/// How a super-packet is cut, from its own headers.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    version: Version,
    protocol: u8,
    ip_len: usize,
    header_len: usize,
    segment: usize,
    payload: usize,
}

impl Cut {
    /// Reads how to cut `packet`.
    ///
    /// # Errors
    ///
    /// Refuses what contradicts itself: it cannot come from a sane kernel. Nor is anything cut
    /// whose end is missing, whose IPv4 header has a wrong checksum, or whose transport checksum
    /// is not ours to complete: each packet gets new ones, which would hide that.
    pub fn plan(header: &NetHeader, packet: &[u8]) -> Result<Self, BadFrame> {
        let (version, protocol) = match header.gso {
            Gso::TcpV4 => (Version::V4, TCP),
            Gso::TcpV6 => (Version::V6, TCP),
            Gso::Udp if packet.first().is_some_and(|first| first >> 4 == 4) => (Version::V4, UDP),
            Gso::Udp => (Version::V6, UDP),
            Gso::None => return Err(BadFrame),
        };
        let first = *packet.first().ok_or(BadFrame)?;
        if whole(packet).is_none_or(|whole| whole.len() != packet.len()) {
            return Err(BadFrame);
        }
        let (start, offset) = header.checksum.ok_or(BadFrame)?;
        let ip_len = match version {
            Version::V4 if first >> 4 == 4 => usize::from(first & 0xf) * 4,
            // Extension headers stand between the two: the virtio header says where they end.
            Version::V6 if first >> 4 == 6 => usize::from(start),
            _ => return Err(BadFrame),
        };
        if usize::from(start) != ip_len || usize::from(offset) != checksum_offset(protocol) {
            return Err(BadFrame);
        }
        if version == Version::V4 && !packet.get(..ip_len).is_some_and(v4_checksum_is_right) {
            return Err(BadFrame);
        }
        let least = if version == Version::V4 { 20 } else { V6_HEADER };
        let l4 = packet.get(ip_len..).ok_or(BadFrame)?;
        // The length of a UDP super-packet is whatever its maker wrote there.
        let l4_len =
            if protocol == TCP { l4_header_len(TCP, l4).ok_or(BadFrame)? } else { UDP_HEADER };
        let header_len = ip_len + l4_len;
        let segment = usize::from(header.gso_size);
        if ip_len < least || header_len > MAX_HEADERS || packet.len() <= header_len || segment == 0
        {
            return Err(BadFrame);
        }
        let payload = packet.len() - header_len;
        Ok(Self { version, protocol, ip_len, header_len, segment, payload })
    }

    /// How many packets it makes.
    #[must_use]
    pub fn packets(&self) -> usize {
        self.payload.div_ceil(self.segment)
    }

    /// Length of the longest packet.
    #[must_use]
    pub fn longest(&self) -> usize {
        self.header_len + self.segment.min(self.payload)
    }

    /// Cuts `buffer`, which begins with the super-packet and may be longer. Hands each packet to
    /// `consume` in order, as the buffer and the packet's place in it; what `consume` does to the
    /// bytes behind the packet it must undo.
    pub fn each(&self, buffer: &mut [u8], mut consume: impl FnMut(&mut [u8], usize, usize)) {
        let mut headers = [0u8; MAX_HEADERS];
        let Some(original) = buffer.get(..self.header_len) else { return };
        headers[..self.header_len].copy_from_slice(original);
        let headers = &headers[..self.header_len];
        let count = self.packets();
        for index in 0..count {
            let offset = index * self.segment;
            let payload = self.segment.min(self.payload - offset);
            let (start, len) = (offset, self.header_len + payload);
            let Some(packet) = buffer.get_mut(start..start + len) else { return };
            packet[..self.header_len].copy_from_slice(headers);
            self.patch(packet, index, index + 1 == count);
            consume(buffer, start, len);
        }
    }

    /// Makes copied headers those of packet `index`.
    #[inline]
    fn patch(&self, packet: &mut [u8], index: usize, last: bool) {
        let total = packet.len();
        match self.version {
            Version::V4 => {
                packet[2..4].copy_from_slice(&(total as u16).to_be_bytes());
                let id = u16::from_be_bytes([packet[4], packet[5]]).wrapping_add(index as u16);
                packet[4..6].copy_from_slice(&id.to_be_bytes());
                set_v4_checksum(&mut packet[..self.ip_len]);
            }
            Version::V6 => {
                let payload = (total - V6_HEADER) as u16;
                packet[4..6].copy_from_slice(&payload.to_be_bytes());
            }
        }
        let (ip, l4) = packet.split_at_mut(self.ip_len);
        let checksum_at = checksum_offset(self.protocol);
        if self.protocol == TCP {
            let bytes = [l4[4], l4[5], l4[6], l4[7]];
            let sequence = u32::from_be_bytes(bytes).wrapping_add((index * self.segment) as u32);
            l4[4..8].copy_from_slice(&sequence.to_be_bytes());
            if !last {
                l4[13] &= !LAST_ONLY;
            }
            if index > 0 {
                l4[13] &= !FIRST_ONLY;
            }
        } else {
            let len = l4.len() as u16;
            l4[4..6].copy_from_slice(&len.to_be_bytes());
        }
        l4[checksum_at..checksum_at + 2].fill(0);
        let addresses = match self.version {
            Version::V4 => &ip[12..20],
            Version::V6 => &ip[8..40],
        };
        let sum = pseudo_header(addresses, self.protocol, l4.len()).bytes(l4);
        let checksum = nonzero_for_udp(self.protocol, sum.checksum());
        l4[checksum_at..checksum_at + 2].copy_from_slice(&checksum.to_be_bytes());
    }
}

/// Completes the checksum of a single packet of which the kernel has only summed the
/// pseudo-header.
///
/// # Errors
///
/// Refuses a place that is not within the packet.
pub fn complete_checksum(packet: &mut [u8], start: u16, offset: u16) -> Result<(), BadFrame> {
    let l4 = packet.get_mut(usize::from(start)..).ok_or(BadFrame)?;
    let at = usize::from(offset);
    let checksum = Sum::default().bytes(l4).checksum();
    // Only UDP has its checksum there.
    let protocol = if at == 6 { UDP } else { TCP };
    let field = l4.get_mut(at..at + 2).ok_or(BadFrame)?;
    field.copy_from_slice(&nonzero_for_udp(protocol, checksum).to_be_bytes());
    Ok(())
}
