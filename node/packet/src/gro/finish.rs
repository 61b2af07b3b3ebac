//! The headers of a finished super-packet, and how they are undone.

use super::{Item, PSH, TCP_FLAGS};
use crate::{
    arena::Arena,
    checksum::pseudo_header,
    headers::{TCP, Transport, UDP, Version, nonzero_for_udp, set_v4_checksum, write},
    virtio::{Gso, NetHeader},
};

/// Writes the lengths of a packet with `l4_len` bytes behind its IP header, and the checksum of the
/// IPv4 header.
fn set_lengths(transport: &Transport, packet: &mut [u8], l4_len: usize) {
    let ip_len = transport.ip_len;
    match transport.version {
        Version::V4 => {
            write(packet, 2, ((ip_len + l4_len) as u16).to_be_bytes());
            set_v4_checksum(packet.get_mut(..ip_len).unwrap_or_default());
        }
        Version::V6 => write(packet, 4, (l4_len as u16).to_be_bytes()),
    }
    if transport.protocol == UDP {
        write(packet, ip_len + 4, (l4_len as u16).to_be_bytes());
    }
}

/// Undoes [`finish_headers`].
pub(super) fn restore_head(item: &Item, transport: &Transport, arena: &mut Arena) {
    let packet = arena.get_mut(item.head);
    let l4_len = packet.len() - transport.ip_len;
    set_lengths(transport, packet, l4_len);
    let addresses = pseudo_header(transport.addresses(packet), transport.protocol, l4_len);
    let l4 = packet.get_mut(transport.ip_len..).unwrap_or_default();
    if transport.protocol == TCP
        && let Some(flags) = l4.get_mut(TCP_FLAGS)
    {
        // The head had no PSH, or nothing would have been appended to it.
        *flags &= !PSH;
    }
    let offset = transport.checksum_offset();
    write(l4, offset, [0; 2]);
    let checksum = nonzero_for_udp(transport.protocol, addresses.bytes(l4).checksum());
    write(l4, offset, checksum.to_be_bytes());
}

/// Makes the head's headers those of the super-packet. The transport checksum becomes the sum of the
/// pseudo-header, which the kernel completes for each segment (`CHECKSUM_PARTIAL`).
pub(super) fn finish_headers(item: &Item, transport: &Transport, arena: &mut Arena) -> NetHeader {
    let (ip_len, header_len) = (transport.ip_len, transport.header_len);
    let l4_len = header_len - ip_len + item.payload as usize;
    let packet = arena.get_mut(item.head);
    set_lengths(transport, packet, l4_len);
    let partial = pseudo_header(transport.addresses(packet), transport.protocol, l4_len).folded();
    let l4 = packet.get_mut(ip_len..).unwrap_or_default();
    let offset = transport.checksum_offset();
    write(l4, offset, partial.to_be_bytes());
    if item.push
        && let Some(flags) = l4.get_mut(TCP_FLAGS)
    {
        *flags |= PSH;
    }
    let gso = match (transport.protocol, transport.version) {
        (TCP, Version::V4) => Gso::TcpV4,
        (TCP, Version::V6) => Gso::TcpV6,
        _ => Gso::Udp,
    };
    NetHeader {
        gso,
        gso_size: item.segment,
        header_len: header_len as u16,
        checksum: Some((ip_len as u16, offset as u16)),
    }
}
