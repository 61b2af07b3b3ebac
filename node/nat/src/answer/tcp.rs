//! Resets.

use weir_packet::headers::{TCP, TCP_HEADER, half, l4_header_len, word, write};

use super::{
    original::{Addresses, Original, Part},
    write_ip_header,
};

const FIN: u8 = 1 << 0;
const SYN: u8 = 1 << 1;
const RST: u8 = 1 << 2;
const ACK: u8 = 1 << 4;

/// The reset that a host sends which has no such connection (RFC 9293, section 3.10.7.1).
pub(super) fn reset(original: &Original<'_>, out: &mut [u8]) -> Option<usize> {
    let Original { addresses, part, protocol, payload: segment, .. } = *original;
    let is_answered = part == Part::Whole
        && protocol == TCP
        && addresses.has_unicast_source()
        && addresses.has_unicast_destination();
    if !is_answered {
        return None;
    }
    let header_len = l4_header_len(TCP, segment)?;
    let flags = *segment.get(13)?;
    if flags & RST != 0 || checksum(&addresses, segment) != 0 {
        return None;
    }
    let data_len = u32::try_from(segment.len() - header_len).ok()?;
    let segment_len = data_len + u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0);
    let (sequence, acknowledgment, reset_flags) = if flags & ACK != 0 {
        (word(segment, 8), 0, RST)
    } else {
        (0, word(segment, 4).wrapping_add(segment_len), RST | ACK)
    };
    let back = addresses.reversed();
    let (reset, len) = write_ip_header(&back, TCP, 0, TCP_HEADER, out)?;
    reset.fill(0);
    write(reset, 0, half(segment, 2).to_be_bytes());
    write(reset, 2, half(segment, 0).to_be_bytes());
    write(reset, 4, sequence.to_be_bytes());
    write(reset, 8, acknowledgment.to_be_bytes());
    write(reset, 12, [(TCP_HEADER as u8 / 4) << 4, reset_flags]);
    write(reset, 16, checksum(&back, reset).to_be_bytes());
    Some(len)
}

/// The checksum of a segment whose checksum field is 0, or 0 if the one in the field is right.
fn checksum(addresses: &Addresses, segment: &[u8]) -> u16 {
    addresses.pseudo_header(TCP, segment.len()).bytes(segment).checksum()
}
