//! The largest segment that a connection agrees on (RFC 9293, section 3.7.1).

use weir_packet::{
    checksum::Sum,
    headers::{TCP, TCP_HEADER, V4_HEADER, V6_HEADER, half, l4_header_len, write},
};

/// Lowers the maximum segment size that a SYN of TCP offers to `max`, in bytes, and updates the
/// checksum. Whether the packet has been changed. Packets that are not a whole SYN, and those whose
/// IPv6 header has extensions, stay as they are. So does a SYN without the option: its sender takes
/// 536 or 1220 bytes.
pub fn clamp_mss(packet: &mut [u8], max: u16) -> bool {
    segment(packet).is_some_and(|segment| clamp(segment, max).unwrap_or_default())
}

/// The TCP segment of a packet that is not a later fragment.
fn segment(packet: &mut [u8]) -> Option<&mut [u8]> {
    const OFFSET: u16 = (1 << 13) - 1;
    let (protocol, start, end) = match packet.first()? >> 4 {
        4 => {
            let start = usize::from(packet.first()? & 0xf) * 4;
            if start < V4_HEADER || half(packet, 6) & OFFSET != 0 {
                return None;
            }
            (*packet.get(9)?, start, usize::from(half(packet, 2)))
        }
        6 => (*packet.get(6)?, V6_HEADER, V6_HEADER + usize::from(half(packet, 4))),
        _ => return None,
    };
    if protocol == TCP { packet.get_mut(start..end) } else { None }
}

fn clamp(segment: &mut [u8], max: u16) -> Option<bool> {
    const SYN: u8 = 1 << 1;
    const RST: u8 = 1 << 2;
    const CHECKSUM: usize = 16;
    const MAX_SEGMENT_SIZE: u8 = 2;
    let end = l4_header_len(TCP, segment)?;
    if segment.get(13)? & (SYN | RST) != SYN {
        return None;
    }
    let mut at = TCP_HEADER;
    let mut is_changed = false;
    while let Some((kind, len)) = option(segment.get(at..end)?) {
        if kind == MAX_SEGMENT_SIZE && len == 4 && half(segment, at + 2) > max {
            let old = half(segment, at + 2);
            write(segment, at + 2, max.to_be_bytes());
            let checksum = updated(half(segment, CHECKSUM), old, max, !at.is_multiple_of(2));
            write(segment, CHECKSUM, checksum.to_be_bytes());
            is_changed = true;
        }
        at += len;
    }
    Some(is_changed)
}

/// The kind and the length of the first of so many bytes of options. `None` at their end, and where
/// a length is none.
fn option(options: &[u8]) -> Option<(u8, usize)> {
    const END_OF_OPTIONS: u8 = 0;
    const NO_OPERATION: u8 = 1;
    match *options.first()? {
        END_OF_OPTIONS => None,
        NO_OPERATION => Some((NO_OPERATION, 1)),
        kind => {
            let len = usize::from(*options.get(1)?);
            (2..=options.len()).contains(&len).then_some((kind, len))
        }
    }
}

/// The checksum after a 16-bit field has changed (RFC 1624, equation 3). At an odd offset, the bytes
/// of the field are in the other halves of two words: the sum of swapped words is the swapped sum.
fn updated(checksum: u16, old: u16, new: u16, is_odd: bool) -> u16 {
    let [old, new] = if is_odd { [old.swap_bytes(), new.swap_bytes()] } else { [old, new] };
    Sum::default().word(!checksum).word(!old).word(new).checksum()
}

#[cfg(test)]
mod tests;
