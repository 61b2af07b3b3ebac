//! Whether a packet may join a super-packet: the comparisons of the kernel's GRO.

use super::{Item, MAX_SUPER_PACKET, PSH, TCP_FLAGS};
use crate::{
    arena::Arena,
    headers::{
        Split, TCP, TCP_HEADER, Transport, V4_HEADER, V6_HEADER, Version, v4_checksum_is_right,
        word,
    },
};

/// Whether a packet continues the item's super-packet.
#[inline]
pub(super) fn continues(
    item: &Item,
    arena: &Arena,
    transport: &Transport,
    next: &Split<'_>,
) -> bool {
    let Some(own) = item.transport else { return false };
    let Some(head) = own.split(arena.get(item.head)) else { return false };
    let payload = next.payload.len();
    item.open
        && own.version == transport.version
        && own.protocol == transport.protocol
        && own.ip_len == transport.ip_len
        && own.header_len == transport.header_len
        && payload <= usize::from(item.segment)
        && transport.header_len + item.payload as usize + payload <= MAX_SUPER_PACKET
        && sequence(transport, next) == item.next_sequence
        && same_ip_header(transport.version, item.out.packets, head.ip, next.ip)
        && same_l4_header(transport, head.l4, next.l4)
}

/// Compares two IP headers without options or extension headers.
#[inline]
fn same_ip_header(version: Version, packets: u16, head: &[u8], next: &[u8]) -> bool {
    match version {
        // All but the total length, the identification and the checksum.
        Version::V4 => {
            let (Some(head), Some(next)) =
                (head.first_chunk::<V4_HEADER>(), next.first_chunk::<V4_HEADER>())
            else {
                return false;
            };
            let dont_fragment = head[6] & 0x40 != 0;
            let id = |header: &[u8; V4_HEADER]| u16::from_be_bytes([header[4], header[5]]);
            head[..2] == next[..2]
                && head[6..10] == next[6..10]
                && head[12..] == next[12..]
                && (dont_fragment || id(next) == id(head).wrapping_add(packets))
        }
        // All but the payload length.
        Version::V6 => {
            let (Some(head), Some(next)) =
                (head.first_chunk::<V6_HEADER>(), next.first_chunk::<V6_HEADER>())
            else {
                return false;
            };
            head[..4] == next[..4] && head[6..] == next[6..]
        }
    }
}

#[inline]
fn same_l4_header(transport: &Transport, head: &[u8], next: &[u8]) -> bool {
    if transport.protocol != TCP {
        return head.get(..4) == next.get(..4);
    }
    let (Some((head, head_options)), Some((next, next_options))) =
        (head.split_first_chunk::<TCP_HEADER>(), next.split_first_chunk::<TCP_HEADER>())
    else {
        return false;
    };
    // All but the sequence number, PSH and the checksum.
    head[..4] == next[..4]
        && head[8..TCP_FLAGS] == next[8..TCP_FLAGS]
        && (head[TCP_FLAGS] | PSH) == (next[TCP_FLAGS] | PSH)
        && head[14..16] == next[14..16]
        && head[18..] == next[18..]
        && head_options == next_options
}

#[inline]
pub(super) fn verify(item: &mut Item, arena: &Arena) -> bool {
    if !item.verified {
        let head = arena.get(item.head);
        let Some(transport) = item.transport else { return false };
        let Some(split) = transport.split(head) else { return false };
        item.verified = checksums_are_right(&transport, &split, head);
        // A corrupt packet is passed on by itself, so that its receiver rejects it.
        item.open = item.verified;
    }
    item.verified
}

/// Whether the checksums that coalescing replaces are right: the IPv4 header's, and TCP's or UDP's.
#[inline]
pub(super) fn checksums_are_right(transport: &Transport, split: &Split<'_>, packet: &[u8]) -> bool {
    (transport.version == Version::V6 || v4_checksum_is_right(split.ip))
        && transport.checksum_is_right(packet)
}

/// The TCP sequence number. 0 for UDP, whose datagrams follow each other in order of arrival.
#[inline]
fn sequence(transport: &Transport, split: &Split<'_>) -> u32 {
    if transport.protocol == TCP { word(split.l4, 4) } else { 0 }
}

/// The sequence number of the packet that continues this one. 0 for UDP.
#[inline]
pub(super) fn next_sequence(transport: &Transport, split: &Split<'_>) -> u32 {
    if transport.protocol == TCP {
        sequence(transport, split).wrapping_add(split.payload.len() as u32)
    } else {
        0
    }
}

#[inline]
pub(super) fn is_push(transport: &Transport, split: &Split<'_>) -> bool {
    transport.protocol == TCP && split.l4.get(TCP_FLAGS).is_some_and(|flags| flags & PSH != 0)
}
