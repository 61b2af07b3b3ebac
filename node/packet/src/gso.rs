//! Segments super-packets from the TUN device in place, as the kernel's GSO would
//! (net/core/gso.c and `skb_segment` in net/core/skbuff.c; net/ipv4/tcp_offload.c and
//! udp_offload.c).
//!
//! The headers of each packet are written directly before its payload, over the end of the packet
//! before it, which has been consumed by then. No payload is moved.

use crate::{
    checksum::{Sum, pseudo_header},
    headers::{
        TCP, UDP, UDP_HEADER, V4_HEADER, V6_HEADER, Version, checksum_offset, half, l4_header_len,
        nonzero_for_udp, set_v4_checksum, v4_checksum_is_right, whole, word, write,
    },
    virtio::{Gso, NetHeader},
};

/// The maximum length of a packet's headers, in bytes.
const MAX_HEADERS: usize = 128;
/// The offset of the flags in a TCP header.
const TCP_FLAGS: usize = 13;
/// The TCP flags that only the last segment keeps: FIN and PSH.
const LAST_ONLY: u8 = 0x09;
/// The TCP flag that only the first segment keeps: CWR.
const FIRST_ONLY: u8 = 0x80;

/// The packet contradicts its virtio header, or itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadPacket;

/// Segments one super-packet.
#[derive(Clone, Copy, Debug)]
pub struct Segmenter {
    version: Version,
    protocol: u8,
    ip_len: usize,
    header_len: usize,
    segment: usize,
    payload: usize,
}

impl Segmenter {
    /// Reads the headers of `packet`.
    ///
    /// # Errors
    ///
    /// Refuses a packet that contradicts its virtio header. A packet is refused too if it is
    /// truncated, if its IPv4 header has a wrong checksum, or if its transport checksum is not left
    /// to us to complete: the segments get new checksums, which would hide that.
    #[inline]
    pub fn plan(header: &NetHeader, packet: &[u8]) -> Result<Self, BadPacket> {
        let (version, protocol) = match header.gso {
            Gso::TcpV4 => (Version::V4, TCP),
            Gso::TcpV6 => (Version::V6, TCP),
            Gso::Udp if packet.first().is_some_and(|first| first >> 4 == 4) => (Version::V4, UDP),
            Gso::Udp => (Version::V6, UDP),
            Gso::None => return Err(BadPacket),
        };
        let first = *packet.first().ok_or(BadPacket)?;
        if whole(packet).is_none_or(|whole| whole.len() != packet.len()) {
            return Err(BadPacket);
        }
        let (start, offset) = header.checksum.ok_or(BadPacket)?;
        let ip_len = match version {
            Version::V4 if first >> 4 == 4 => usize::from(first & 0xf) * 4,
            // There may be extension headers. The virtio header says where they end.
            Version::V6 if first >> 4 == 6 => usize::from(start),
            _ => return Err(BadPacket),
        };
        if usize::from(start) != ip_len || usize::from(offset) != checksum_offset(protocol) {
            return Err(BadPacket);
        }
        if version == Version::V4 && !packet.get(..ip_len).is_some_and(v4_checksum_is_right) {
            return Err(BadPacket);
        }
        let least = if version == Version::V4 { V4_HEADER } else { V6_HEADER };
        let l4 = packet.get(ip_len..).ok_or(BadPacket)?;
        // The length field of a UDP super-packet says nothing: its sender may write anything there.
        let l4_len =
            if protocol == TCP { l4_header_len(TCP, l4).ok_or(BadPacket)? } else { UDP_HEADER };
        let header_len = ip_len + l4_len;
        let segment = usize::from(header.gso_size);
        if ip_len < least || header_len > MAX_HEADERS || packet.len() <= header_len || segment == 0
        {
            return Err(BadPacket);
        }
        let payload = packet.len() - header_len;
        Ok(Self { version, protocol, ip_len, header_len, segment, payload })
    }

    /// The number of packets that the super-packet stands for.
    #[must_use]
    #[inline]
    pub fn packets(&self) -> usize {
        self.payload.div_ceil(self.segment)
    }

    /// The length of the longest packet in bytes.
    #[must_use]
    #[inline]
    pub fn longest(&self) -> usize {
        self.header_len + self.segment.min(self.payload)
    }

    /// Segments `buffer`, which begins with the super-packet and may be longer. Calls `consume` for
    /// each packet in order, with the buffer, the packet's offset and its length. `consume` must
    /// restore the bytes behind the packet if it changes them.
    #[inline]
    pub fn for_each(&self, buffer: &mut [u8], mut consume: impl FnMut(&mut [u8], usize, usize)) {
        let mut headers = [0u8; MAX_HEADERS];
        let (Some(headers), Some(original)) =
            (headers.get_mut(..self.header_len), buffer.get(..self.header_len))
        else {
            return;
        };
        headers.copy_from_slice(original);
        let headers = &*headers;
        let count = self.packets();
        for index in 0..count {
            let offset = index * self.segment;
            let payload = self.segment.min(self.payload - offset);
            let (start, len) = (offset, self.header_len + payload);
            let Some(packet) = buffer.get_mut(start..start + len) else { return };
            let Some(own) = packet.get_mut(..self.header_len) else { return };
            own.copy_from_slice(headers);
            self.patch(packet, index, index + 1 == count);
            consume(buffer, start, len);
        }
    }

    /// Changes the headers, which were copied from the super-packet, to those of packet `index`.
    #[inline]
    fn patch(&self, packet: &mut [u8], index: usize, last: bool) {
        let total = packet.len();
        let Some((ip, l4)) = packet.split_at_mut_checked(self.ip_len) else { return };
        match self.version {
            Version::V4 => {
                write(ip, 2, (total as u16).to_be_bytes());
                // As the kernel does: the identification counts up from packet to packet.
                let id = half(ip, 4).wrapping_add(index as u16);
                write(ip, 4, id.to_be_bytes());
                set_v4_checksum(ip);
            }
            Version::V6 => write(ip, 4, ((total - V6_HEADER) as u16).to_be_bytes()),
        }
        if self.protocol == TCP {
            let sequence = word(l4, 4).wrapping_add((index * self.segment) as u32);
            write(l4, 4, sequence.to_be_bytes());
            if let Some(flags) = l4.get_mut(TCP_FLAGS) {
                if !last {
                    *flags &= !LAST_ONLY;
                }
                if index > 0 {
                    *flags &= !FIRST_ONLY;
                }
            }
        } else {
            let len = l4.len() as u16;
            write(l4, 4, len.to_be_bytes());
        }
        let checksum_at = checksum_offset(self.protocol);
        write(l4, checksum_at, [0; 2]);
        let addresses = match self.version {
            Version::V4 => ip.get(12..20),
            Version::V6 => ip.get(8..V6_HEADER),
        };
        let addresses = addresses.unwrap_or_default();
        let sum = pseudo_header(addresses, self.protocol, l4.len()).bytes(l4);
        let checksum = nonzero_for_udp(self.protocol, sum.checksum());
        write(l4, checksum_at, checksum.to_be_bytes());
    }
}

/// Completes the checksum of a single packet whose checksum field holds only the sum of the
/// pseudo-header (`VIRTIO_NET_HDR_F_NEEDS_CSUM`, `CHECKSUM_PARTIAL` in the kernel). `start` is the
/// offset of the transport header, and `offset` that of the checksum in it.
///
/// # Errors
///
/// Fails if the checksum field is not within the packet.
#[inline]
pub fn complete_checksum(packet: &mut [u8], start: u16, offset: u16) -> Result<(), BadPacket> {
    let l4 = packet.get_mut(usize::from(start)..).ok_or(BadPacket)?;
    let at = usize::from(offset);
    let checksum = Sum::default().bytes(l4).checksum();
    let protocol = if at == checksum_offset(UDP) { UDP } else { TCP };
    let field = l4.get_mut(at..at + 2).ok_or(BadPacket)?;
    field.copy_from_slice(&nonzero_for_udp(protocol, checksum).to_be_bytes());
    Ok(())
}
