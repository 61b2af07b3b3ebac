//! The XSK fast path: data messages that go from the guard straight to the worker that owns their
//! session, over an `AF_XDP` socket, and not through the kernel's network stack.
//!
//! Only frames that the stack would have nothing to say about may go there; it judges all others.

use crate::{
    ip::{ETHERNET_HEADER, UDP_HEADER, V4_HEADER, V6_HEADER},
    packet::Frame,
};

/// How many receive queues of the uplink can have a socket for the XSK fast path: each takes some MiB
/// of locked memory.
pub const XSK_QUEUES: u32 = 16;
/// Bytes of the memory that one frame gets.
pub const XSK_CHUNK: usize = 2048;
/// The largest frame that fits: the kernel keeps `XDP_PACKET_HEADROOM` before it.
pub const XSK_MAX_LEN: usize = XSK_CHUNK - 256;

/// Where the UDP payload is behind IPv4 without options, and behind IPv6 without extensions.
const AT_V4: usize = ETHERNET_HEADER + V4_HEADER + UDP_HEADER;
const AT_V6: usize = ETHERNET_HEADER + V6_HEADER + UDP_HEADER;

/// The addresses of a frame that may go by the XSK fast path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addresses {
    /// IPv4: source and destination.
    V4([u8; 4], [u8; 4]),
    /// IPv6: source and destination.
    V6([u8; 16], [u8; 16]),
}

impl Addresses {
    /// Bytes of both in an IP header.
    const fn len(&self) -> usize {
        match self {
            Self::V4(..) => 8,
            Self::V6(..) => 32,
        }
    }
}

/// A frame that may go by the XSK fast path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XskDatagram<'a> {
    /// From where and to which of our addresses.
    pub addresses: Addresses,
    /// Both addresses as they lie in the IP header.
    pub ip_addresses: &'a [u8],
    /// The port of the source; never 0, which nobody can answer to.
    pub source_port: u16,
    /// The IPv4 TOS byte or IPv6 traffic class: DSCP and ECN (RFC 3168, section 23.1).
    pub traffic_class: u8,
    /// The UDP header and payload, whose checksum has not been verified.
    pub udp: &'a [u8],
    /// The UDP payload.
    pub payload: &'a [u8],
}

/// Whether a frame that the guard lets pass, with its UDP payload at `at`, may go by the XSK fast path:
/// it is small enough, to one receiver, has plain headers, and a source that may be answered. The
/// stack would drop loopback, multicast and unspecified sources, and needs to know the interface of
/// link-local ones.
#[must_use]
#[inline(always)]
pub fn may_go<F: Frame + ?Sized>(frame: &F, at: usize) -> bool {
    // Never one byte alone: the kernel's verifier does not follow how a compiler compares for that.
    let is_unicast = |link: Option<[u8; 6]>| link.is_some_and(|[first, ..]| first & 1 == 0);
    if frame.len() > XSK_MAX_LEN || !is_unicast(frame.bytes(0)) {
        return false;
    }
    let Some([version, _]) = frame.bytes(ETHERNET_HEADER) else { return false };
    if at == AT_V4 && version == 0x45 {
        let Some([source, _, _, _, destination]) = frame.bytes(ETHERNET_HEADER + 12) else {
            return false;
        };
        is_host_v4(source) && is_host_v4(destination)
    } else if at == AT_V6 && version >> 4 == 6 {
        let source = frame.bytes(ETHERNET_HEADER + 8);
        let destination = frame.bytes(ETHERNET_HEADER + 24);
        let (Some([source, _]), Some([destination, _])) = (source, destination) else {
            return false;
        };
        is_host_v6(source) && is_host_v6(destination)
    } else {
        false
    }
}

/// By the first byte: neither "this network" nor loopback, multicast or reserved.
#[inline(always)]
const fn is_host_v4(first: u8) -> bool {
    first != 0 && first != 127 && first < 224
}

/// By the first byte: neither unspecified, loopback or IPv4-mapped, nor link-local or multicast.
#[inline(always)]
const fn is_host_v6(first: u8) -> bool {
    first != 0 && first < 0xfe
}

impl<'a> XskDatagram<'a> {
    /// Reads a frame that the guard sent by the XSK fast path. `None` for one that it would not have
    /// sent, whose IPv4 header has a wrong checksum (RFC 791; IPv6 has none), or whose source port
    /// is 0. The UDP checksum is not verified: the payload is authenticated by WireGuard. It alone
    /// vouches for the source port and the IPv6 addresses, so that whoever answers to them must
    /// verify it before.
    #[must_use]
    #[inline]
    pub fn of(frame: &'a [u8]) -> Option<Self> {
        let [first, second] = *frame.get(ETHERNET_HEADER..)?.first_chunk()?;
        let (at, addresses, traffic_class) = if first >> 4 == 4 {
            let header = frame.get(ETHERNET_HEADER..ETHERNET_HEADER + 20)?.first_chunk::<20>()?;
            if !has_right_checksum(header) {
                return None;
            }
            let source = *header.get(12..)?.first_chunk()?;
            (AT_V4, Addresses::V4(source, *header.last_chunk()?), second)
        } else {
            let source = *frame.get(ETHERNET_HEADER + 8..)?.first_chunk()?;
            let addresses =
                Addresses::V6(source, *frame.get(ETHERNET_HEADER + 24..)?.first_chunk()?);
            (AT_V6, addresses, first << 4 | second >> 4)
        };
        if !may_go(frame, at) {
            return None;
        }
        let [p0, p1, _, _, l0, l1, _, _] = *frame.get(at - UDP_HEADER..)?.first_chunk()?;
        let len = usize::from(u16::from_be_bytes([l0, l1]));
        let udp = frame.get(at - UDP_HEADER..at - UDP_HEADER + len)?;
        let payload = udp.get(UDP_HEADER..)?;
        let source_port = u16::from_be_bytes([p0, p1]);
        // The addresses are the last of the header.
        let ip_addresses = frame.get(at - UDP_HEADER - addresses.len()..at - UDP_HEADER)?;
        (source_port != 0).then_some(Self {
            addresses,
            ip_addresses,
            source_port,
            traffic_class,
            udp,
            payload,
        })
    }
}

fn has_right_checksum(header: &[u8; 20]) -> bool {
    let (words, _) = header.as_chunks::<2>();
    let sum: u32 = words.iter().map(|word| u32::from(u16::from_be_bytes(*word))).sum();
    // Ten words: their carries fit in one more addition.
    (sum & 0xffff) + (sum >> 16) == 0xffff
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::{vec, vec::Vec};

    use super::*;

    fn v4(payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
        let mut header = [0; 20];
        header[0] = 0x45;
        header[2..4].copy_from_slice(&(28 + payload.len() as u16).to_be_bytes());
        (header[8], header[9]) = (64, 17);
        header[12..16].copy_from_slice(&[198, 51, 7, 9]);
        header[16..].copy_from_slice(&[203, 0, 114, 1]);
        let sum: u32 =
            header.chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
        let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        frame.extend(header);
        push_udp(&mut frame, payload);
        frame
    }

    fn v6(payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x86, 0xdd];
        frame.extend([0x60, 0, 0, 0, 0, 8 + payload.len() as u8, 17, 64]);
        frame.extend([0x2a; 16]);
        frame.extend([0x2b; 16]);
        push_udp(&mut frame, payload);
        frame
    }

    fn push_udp(frame: &mut Vec<u8>, payload: &[u8]) {
        frame.extend(7777u16.to_be_bytes());
        frame.extend(51820u16.to_be_bytes());
        frame.extend((8 + payload.len() as u16).to_be_bytes());
        frame.extend([0, 0]);
        frame.extend(payload);
    }

    #[test]
    fn plain_frames_are_read_as_they_are() {
        let payload = [4; 32];
        let frame = v4(&payload);
        let datagram = XskDatagram::of(&frame).expect("a plain frame");
        assert_eq!(datagram.addresses, Addresses::V4([198, 51, 7, 9], [203, 0, 114, 1]));
        assert_eq!((datagram.source_port, datagram.payload), (7777, &payload[..]));
        assert_eq!((datagram.udp, datagram.ip_addresses), (&frame[34..], &frame[26..34]));
        let frame = v6(&payload);
        let datagram = XskDatagram::of(&frame).expect("a plain frame");
        assert_eq!(datagram.addresses, Addresses::V6([0x2a; 16], [0x2b; 16]));
        assert_eq!((datagram.source_port, datagram.payload), (7777, &payload[..]));
    }

    #[test]
    fn the_traffic_class_is_read_and_source_port_zero_is_refused() {
        let mut frame = v4(&[4; 32]);
        frame[15] = 0xb9;
        // The header's checksum, one's complement: what is added there is taken off here.
        let sum = u16::from_be_bytes([frame[24], frame[25]]) - 0xb9;
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
        assert_eq!(XskDatagram::of(&frame).map(|datagram| datagram.traffic_class), Some(0xb9));
        let mut frame = v6(&[4; 32]);
        (frame[14], frame[15]) = (0x6b, 0x95);
        assert_eq!(XskDatagram::of(&frame).map(|datagram| datagram.traffic_class), Some(0xb9));
        for mut frame in [v4(&[4; 32]), v6(&[4; 32])] {
            let at = frame.len() - 40;
            frame[at..at + 2].fill(0);
            assert_eq!(XskDatagram::of(&frame), None);
            frame[at + 1] = 1;
            assert!(XskDatagram::of(&frame).is_some());
        }
    }

    #[test]
    fn what_follows_the_datagram_is_no_part_of_it() {
        let mut frame = v4(&[4; 32]);
        frame.extend([9; 6]);
        assert_eq!(XskDatagram::of(&frame).map(|datagram| datagram.payload.len()), Some(32));
    }

    /// Each with the frame on the other side of its edge.
    #[test]
    fn unusual_frames_are_left_to_the_stack() {
        let change = |at: usize, value: u8| {
            let mut frame = v4(&[4; 32]);
            frame[at] = value;
            may_go(&frame[..], AT_V4)
        };
        // Multicast and broadcast at the link.
        assert!(change(0, 0x02) && !change(0, 0x03) && !change(0, 0xff));
        // Options.
        assert!(change(14, 0x45) && !change(14, 0x46));
        for at in [26, 30] {
            assert!(change(at, 1) && !change(at, 0), "this network, at {at}");
            assert!(change(at, 126) && !change(at, 127) && change(at, 128), "loopback, at {at}");
            assert!(change(at, 223) && !change(at, 224) && !change(at, 255), "multicast, at {at}");
        }
        let change = |at: usize, value: u8| {
            let mut frame = v6(&[4; 32]);
            frame[at] = value;
            may_go(&frame[..], AT_V6)
        };
        for at in [22, 38] {
            assert!(change(at, 1) && !change(at, 0), "loopback, at {at}");
            assert!(change(at, 0xfd) && !change(at, 0xfe) && !change(at, 0xff), "local, at {at}");
        }
        // Extensions, or a VLAN tag, move the payload.
        assert!(!may_go(&v6(&[4; 32])[..], AT_V6 + 8));
        assert!(!may_go(&v4(&[4; 32])[..], AT_V4 + 4));
        assert!(may_go(&v4(&vec![4; XSK_MAX_LEN - AT_V4])[..], AT_V4));
        assert!(!may_go(&v4(&vec![4; XSK_MAX_LEN - AT_V4 + 1])[..], AT_V4));
    }

    #[test]
    fn damaged_frames_are_refused_without_a_panic() {
        let whole = v4(&[4; 32]);
        for len in 0..whole.len() {
            assert_eq!(XskDatagram::of(&whole[..len]), None, "{len} bytes");
        }
        for at in 14..34 {
            let mut frame = whole.clone();
            frame[at] ^= 0x10;
            assert_eq!(XskDatagram::of(&frame), None, "byte {at}");
        }
        let mut short = whole;
        short[38..40].copy_from_slice(&7u16.to_be_bytes());
        assert_eq!(XskDatagram::of(&short), None, "a length below the header's");
    }
}
