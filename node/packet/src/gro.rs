//! Packets of one flow become one super-packet, so that the kernel routes, filters and translates
//! once for dozens of them.
//!
//! Only packets are joined that the kernel's own GRO would join: equal headers but for lengths and
//! sequence, no IPv4 options, payload that continues, and checksums of both headers that were
//! verified (new ones are written, which must not launder a corrupt packet). A packet joins only its
//! flow's latest super-packet, so that no flow is reordered; one whose flow cannot be told, such as
//! a fragment, is overtaken by nothing between the same addresses.
//!
//! A device that refuses super-packets gets the same packets one by one: [`Coalescer::split`].

use crate::{
    arena::{Arena, Span},
    checksum::pseudo_header,
    headers::{
        TCP, Transport, UDP, V4_HEADER, Version, nonzero_for_udp, set_v4_checksum,
        v4_checksum_is_right,
    },
    iov::{List, Pieces},
    virtio::{Gso, HEADER_LEN, NetHeader},
};

/// Of which protocols packets are joined for the TUN device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Joining {
    /// TCP segments.
    pub tcp: bool,
    /// UDP datagrams.
    pub udp: bool,
}

/// Flows that can be open at once. More flows than this share a place and are joined less.
const BUCKETS: usize = 256;
/// The most packets that the kernel cuts a super-packet into.
const MAX_SEGMENTS: u16 = 64;
/// The most bytes of a super-packet: those that an IPv4 packet can have.
const MAX_SUPER_PACKET: usize = 65_535;

const ACK: u8 = 0x10;
const PSH: u8 = 0x08;

/// A frame for the TUN device: the virtio header and one packet or super-packet.
#[derive(Clone, Copy, Debug)]
pub struct Frame {
    /// Where its bytes are. The first span begins with the virtio header.
    pub pieces: List,
    /// Length of the frame in bytes.
    pub len: u32,
    /// Packets within.
    pub packets: u16,
    /// What kind of super-packet it is.
    pub gso: Gso,
}

/// A super-packet that grows, or a single packet that is done.
#[derive(Clone, Copy, Debug)]
struct Item {
    frame: Frame,
    /// The first packet, without the virtio header.
    head: Span,
    transport: Option<Transport>,
    /// Payload bytes of each packet but the last.
    segment: u16,
    payload: u32,
    next_sequence: u32,
    /// Whether the checksum of the head was found right.
    verified: bool,
    /// Whether the last packet had PSH.
    push: bool,
    open: bool,
}

/// The flow table and the frames of one turn.
#[derive(Debug)]
pub struct Coalescer {
    items: Vec<Item>,
    pieces: Pieces,
    /// By flow: index into `items` plus one; 0 for none.
    buckets: Box<[u32; BUCKETS]>,
    /// By addresses: how many of `items` may not grow any more.
    closed: Box<[u32; BUCKETS]>,
    frames: Vec<Frame>,
    joining: Joining,
}

impl Coalescer {
    /// A coalescer that joins TCP, and UDP if the TUN device takes UDP super-packets (USO).
    #[must_use]
    pub fn new(uso: bool) -> Self {
        Self {
            items: Vec::with_capacity(1024),
            pieces: Pieces::default(),
            buckets: Box::new([0; BUCKETS]),
            closed: Box::new([0; BUCKETS]),
            frames: Vec::with_capacity(1024),
            joining: Joining { tcp: true, udp: uso },
        }
    }

    /// Forgets the last turn's frames. From now on only what `joining` names is joined.
    pub fn begin(&mut self, joining: Joining) {
        self.items.clear();
        self.pieces.clear();
        self.frames.clear();
        self.buckets.fill(0);
        self.closed.fill(0);
        self.joining = joining;
    }

    /// Takes the next packet. `span` is the packet with [`HEADER_LEN`] bytes of room before it; the
    /// packet is exactly as long as its IP header says.
    #[inline]
    pub fn push(&mut self, arena: &Arena, span: Span) {
        let head =
            Span { start: span.start + HEADER_LEN as u32, len: span.len - HEADER_LEN as u32 };
        let packet = arena.get(head);
        let Some(transport) = Transport::parse(packet) else {
            self.single(span, head, packet);
            return;
        };
        let pair = hash(u32::from(transport.protocol), transport.addresses(packet));
        let bucket = bucket_of(pair, &packet[transport.ip_len..transport.ip_len + 4]);
        let joinable = self.is_joinable(&transport, packet);
        let open = self.buckets[bucket];
        if joinable && open > self.closed[place(pair)] {
            let index = open as usize - 1;
            if let Some(item) = self.items.get_mut(index)
                && fits(item, arena, &transport, packet)
                && verify(item, arena)
                && checksums_are_right(&transport, packet)
            {
                let payload = packet.len() - transport.header_len;
                item.payload += payload as u32;
                item.next_sequence = next_sequence(&transport, packet, payload);
                item.push = is_push(&transport, packet);
                item.frame.len += payload as u32;
                item.frame.packets += 1;
                item.open = payload == usize::from(item.segment)
                    && !item.push
                    && item.frame.packets < MAX_SEGMENTS;
                let tail =
                    Span { start: head.start + transport.header_len as u32, len: payload as u32 };
                self.pieces.append(&mut item.frame.pieces, tail);
                return;
            }
        }
        let payload = packet.len() - transport.header_len;
        let frame = self.frame(span);
        let item = Item {
            frame,
            head,
            transport: Some(transport),
            segment: payload as u16,
            payload: payload as u32,
            next_sequence: next_sequence(&transport, packet, payload),
            verified: false,
            push: is_push(&transport, packet),
            open: joinable && !is_push(&transport, packet),
        };
        self.items.push(item);
        // Also when nothing can join it: nothing may join what came before it, either.
        self.buckets[bucket] = self.items.len() as u32;
    }

    /// A packet of which only the addresses are known, if these are.
    fn single(&mut self, span: Span, head: Span, packet: &[u8]) {
        let (protocol, addresses) = match packet.first().map(|first| first >> 4) {
            Some(4) => (packet.get(9), packet.get(12..20)),
            _ => (None, packet.get(8..40)),
        };
        // A protocol behind extension headers is not looked for: either may be meant.
        let protocols = protocol.map_or([TCP, UDP], |protocol| [*protocol; 2]);
        for protocol in protocols {
            let pair = hash(u32::from(protocol), addresses.unwrap_or_default());
            self.closed[place(pair)] = self.items.len() as u32;
        }
        let frame = self.frame(span);
        self.items.push(Item {
            frame,
            head,
            transport: None,
            segment: 0,
            payload: 0,
            next_sequence: 0,
            verified: false,
            push: false,
            open: false,
        });
    }

    fn frame(&mut self, span: Span) -> Frame {
        Frame { pieces: self.pieces.list(span), len: span.len, packets: 1, gso: Gso::None }
    }

    fn is_joinable(&self, transport: &Transport, packet: &[u8]) -> bool {
        let payload = packet.len() - transport.header_len;
        if payload == 0 || (transport.version == Version::V4 && transport.ip_len > V4_HEADER) {
            return false;
        }
        match transport.protocol {
            TCP => self.joining.tcp && packet[transport.ip_len + 13] & !PSH == ACK,
            UDP => self.joining.udp,
            _ => false,
        }
    }

    /// Finishes the headers of all frames: they can be written, in this order.
    pub fn finish(&mut self, arena: &mut Arena) {
        for item in &self.items {
            let header = match item.transport {
                Some(transport) if item.frame.packets > 1 => {
                    finish_headers(item, &transport, arena)
                }
                _ => NetHeader::PLAIN,
            };
            let place = Span { start: item.head.start - HEADER_LEN as u32, len: HEADER_LEN as u32 };
            arena.get_mut(place).copy_from_slice(&header.to_bytes());
            self.frames.push(Frame { gso: header.gso, ..item.frame });
        }
    }

    /// Hands the packets of finished frame number `index` to `each` one by one, every one behind a
    /// virtio header of its own, as they came. For a device that has refused the frame; its
    /// super-packet is void afterwards.
    pub fn split(&self, index: usize, arena: &mut Arena, mut each: impl FnMut(&[u8])) {
        let Some(item) = self.items.get(index) else { return };
        let Some(transport) = item.transport else { return };
        restore_head(item, &transport, arena);
        let header_len = transport.header_len as u32;
        for (number, piece) in self.pieces.spans(item.frame.pieces).enumerate() {
            // Each tail still has its own headers before it, and room before those.
            let start = match number {
                0 => item.head.start,
                _ => piece.start - header_len,
            };
            let frame = Span {
                start: start - HEADER_LEN as u32,
                len: piece.end() - start + HEADER_LEN as u32,
            };
            let bytes = arena.get_mut(frame);
            if let Some(header) = bytes.first_chunk_mut() {
                *header = NetHeader::PLAIN.to_bytes();
            }
            each(bytes);
        }
    }

    /// The frames, once finished.
    #[must_use]
    pub fn frames(&self) -> &[Frame] {
        &self.frames
    }

    /// The spans of a frame, in the arena that the packets lie in.
    pub fn spans(&self, frame: &Frame) -> impl Iterator<Item = Span> + '_ {
        self.pieces.spans(frame.pieces)
    }
}

/// Whether `packet` continues the item's super-packet.
#[inline]
fn fits(item: &Item, arena: &Arena, transport: &Transport, packet: &[u8]) -> bool {
    let Some(own) = item.transport else { return false };
    let head = arena.get(item.head);
    let (ip_len, header_len) = (transport.ip_len, transport.header_len);
    let payload = packet.len() - header_len;
    item.open
        && own.version == transport.version
        && own.protocol == transport.protocol
        && own.ip_len == ip_len
        && own.header_len == header_len
        && payload <= usize::from(item.segment)
        && header_len + item.payload as usize + payload <= MAX_SUPER_PACKET
        && sequence(transport, packet) == item.next_sequence
        && same_ip_header(transport.version, item.frame.packets, &head[..ip_len], &packet[..ip_len])
        && same_l4_header(transport, &head[ip_len..header_len], &packet[ip_len..header_len])
}

#[inline]
fn same_ip_header(version: Version, packets: u16, head: &[u8], next: &[u8]) -> bool {
    match version {
        // But for the total length, the identification and the checksum.
        Version::V4 => {
            let dont_fragment = head[6] & 0x40 != 0;
            let id = |header: &[u8]| u16::from_be_bytes([header[4], header[5]]);
            head[..2] == next[..2]
                && head[6..10] == next[6..10]
                && head[12..] == next[12..]
                && (dont_fragment || id(next) == id(head).wrapping_add(packets))
        }
        // But for the payload length.
        Version::V6 => head[..4] == next[..4] && head[6..] == next[6..],
    }
}

#[inline]
fn same_l4_header(transport: &Transport, head: &[u8], next: &[u8]) -> bool {
    if transport.protocol == TCP {
        // But for the sequence number, PSH and the checksum.
        head[..4] == next[..4]
            && head[8..13] == next[8..13]
            && (head[13] | PSH) == (next[13] | PSH)
            && head[14..16] == next[14..16]
            && head[18..] == next[18..]
    } else {
        head[..4] == next[..4]
    }
}

fn verify(item: &mut Item, arena: &Arena) -> bool {
    if !item.verified {
        let Some(transport) = item.transport else { return false };
        item.verified = checksums_are_right(&transport, arena.get(item.head));
        // A corrupt head is passed on alone, for its receiver to reject.
        item.open = item.verified;
    }
    item.verified
}

/// Whether the checksums that joining writes anew are right: of the IPv4 header, and of TCP or UDP.
#[inline]
fn checksums_are_right(transport: &Transport, packet: &[u8]) -> bool {
    (transport.version == Version::V6 || v4_checksum_is_right(&packet[..transport.ip_len]))
        && transport.checksum_is_right(packet)
}

/// The TCP sequence number; 0 for UDP, whose datagrams follow each other by arrival.
#[inline]
fn sequence(transport: &Transport, packet: &[u8]) -> u32 {
    if transport.protocol != TCP {
        return 0;
    }
    let at = transport.ip_len + 4;
    packet.get(at..at + 4).and_then(<[u8]>::first_chunk).map_or(0, |s| u32::from_be_bytes(*s))
}

/// The sequence number that continues `packet`; 0 for UDP.
#[inline]
fn next_sequence(transport: &Transport, packet: &[u8], payload: usize) -> u32 {
    if transport.protocol == TCP {
        sequence(transport, packet).wrapping_add(payload as u32)
    } else {
        0
    }
}

#[inline]
fn is_push(transport: &Transport, packet: &[u8]) -> bool {
    transport.protocol == TCP && packet[transport.ip_len + 13] & PSH != 0
}

/// Mixes 32-bit words into a hash.
#[inline]
fn hash(start: u32, words: &[u8]) -> u32 {
    words.chunks_exact(4).fold(start, |hash, word| {
        let word = word.first_chunk().map_or(0, |w| u32::from_ne_bytes(*w));
        (hash ^ word).wrapping_mul(0x9e37_79b1).rotate_left(13)
    })
}

/// The place of a flow, from the hash of its addresses and its ports.
#[inline]
fn bucket_of(pair: u32, ports: &[u8]) -> usize {
    place(hash(pair, ports))
}

#[inline]
fn place(hash: u32) -> usize {
    (hash ^ hash >> 16) as usize % BUCKETS
}

/// Writes the lengths of a packet with `l4_len` bytes behind its IP header, and the IPv4 checksum.
fn set_lengths(transport: &Transport, packet: &mut [u8], l4_len: usize) {
    let ip_len = transport.ip_len;
    match transport.version {
        Version::V4 => {
            let total = (ip_len + l4_len) as u16;
            packet[2..4].copy_from_slice(&total.to_be_bytes());
            set_v4_checksum(&mut packet[..ip_len]);
        }
        Version::V6 => packet[4..6].copy_from_slice(&(l4_len as u16).to_be_bytes()),
    }
    if transport.protocol == UDP {
        packet[ip_len + 4..ip_len + 6].copy_from_slice(&(l4_len as u16).to_be_bytes());
    }
}

/// Makes the first packet of a super-packet what it was before [`finish_headers`].
fn restore_head(item: &Item, transport: &Transport, arena: &mut Arena) {
    let ip_len = transport.ip_len;
    let packet = arena.get_mut(item.head);
    let l4_len = packet.len() - ip_len;
    set_lengths(transport, packet, l4_len);
    if transport.protocol == TCP {
        // It had none, or nothing would have been joined to it.
        packet[ip_len + 13] &= !PSH;
    }
    let at = ip_len + transport.checksum_offset();
    packet[at..at + 2].fill(0);
    let sum = pseudo_header(transport.addresses(packet), transport.protocol, l4_len);
    let checksum = nonzero_for_udp(transport.protocol, sum.bytes(&packet[ip_len..]).checksum());
    packet[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
}

fn finish_headers(item: &Item, transport: &Transport, arena: &mut Arena) -> NetHeader {
    let (ip_len, header_len) = (transport.ip_len, transport.header_len);
    let l4_len = header_len - ip_len + item.payload as usize;
    let packet = arena.get_mut(item.head);
    set_lengths(transport, packet, l4_len);
    let partial = pseudo_header(transport.addresses(packet), transport.protocol, l4_len).folded();
    let l4 = &mut packet[ip_len..];
    let offset = transport.checksum_offset();
    l4[offset..offset + 2].copy_from_slice(&partial.to_be_bytes());
    let gso = match (transport.protocol, transport.version) {
        (TCP, version) => {
            if item.push {
                l4[13] |= PSH;
            }
            match version {
                Version::V4 => Gso::TcpV4,
                Version::V6 => Gso::TcpV6,
            }
        }
        _ => Gso::Udp,
    };
    NetHeader {
        gso,
        gso_size: item.segment,
        header_len: header_len as u16,
        checksum: Some((ip_len as u16, offset as u16)),
    }
}
