//! The largest segment that a connection agrees on (RFC 9293, section 3.7.1).

use weir_packet::headers::{TCP, TCP_HEADER, checksum_offset, half, l4_header_len, write};

use crate::{parse::Ip, rewrite::Change};

/// Lowers the maximum segment size that a SYN of TCP offers to `max`, in bytes, and updates the
/// checksum. Returns whether the packet has changed. Packets that are no SYN stay as they are. So
/// does a SYN without the option: its sender takes 536 or 1220 bytes.
pub(crate) fn clamp_mss(packet: &mut [u8], ip: &Ip, max: u16) -> bool {
    let is_later = ip.fragment.is_some_and(|fragment| !fragment.is_first());
    if ip.protocol != TCP || is_later {
        return false;
    }
    packet.get_mut(ip.l4..).and_then(|segment| clamp(segment, max)).unwrap_or_default()
}

fn clamp(segment: &mut [u8], max: u16) -> Option<bool> {
    const SYN: u8 = 1 << 1;
    const RST: u8 = 1 << 2;
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
            // At an odd offset, the bytes of the field are in the other halves of two words: the sum
            // of swapped words is the swapped sum (RFC 1071, section 2).
            let change = if at.is_multiple_of(2) {
                Change::default().word(old, max)
            } else {
                Change::default().word(old.swap_bytes(), max.swap_bytes())
            };
            change.apply_at(segment, checksum_offset(TCP));
            is_changed = true;
        }
        at += len;
    }
    Some(is_changed)
}

/// The kind and the length of the first option. `None` at the end of the options, and if the length
/// is impossible.
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

#[cfg(test)]
mod tests;
