//! Coalesces packets of a flow into a super-packet, so that the kernel routes, filters and translates
//! dozens of packets at once.
//!
//! The rules are those of the kernel's GRO: `inet_gro_receive` (net/ipv4/af_inet.c),
//! `tcp_gro_receive` (net/ipv4/tcp_offload.c), `udp_gro_receive_segment` (net/ipv4/udp_offload.c),
//! and what tools/testing/selftests/net/gro.c expects of them. Two packets coalesce if their headers
//! are equal but for lengths and sequence, the second continues the first, neither has IPv4 options,
//! and the checksums of both are right. The super-packet gets new checksums, so a corrupt packet
//! must not become part of one.
//!
//! A packet is appended only to the latest super-packet of its flow, so no flow is reordered. If the
//! flow of a packet is unknown, as with a fragment, nothing between the same addresses overtakes it.
//!
//! [`Coalescer::split`] undoes it, for a device that refuses a super-packet.

use crate::{
    arena::{Arena, Chunk},
    headers::{Split, TCP, Transport, UDP, V4_HEADER, V6_HEADER, Version},
    iov::{IovArena, IovList},
    virtio::{Gso, HEADER_LEN, NetHeader},
};

mod finish;
mod join;

use finish::{finish_headers, restore_head};
use join::{checksums_are_right, continues, is_push, next_sequence, verify};

/// The protocols whose packets are coalesced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Coalescing {
    /// Whether TCP segments are.
    pub tcp: bool,
    /// Whether UDP datagrams are.
    pub udp: bool,
}

/// The size of the flow table. Flows that share an entry are coalesced less.
const BUCKETS: usize = 256;
/// The maximum number of packets in a super-packet.
const MAX_SEGMENTS: u16 = 64;
/// The maximum length of a super-packet in bytes: that of an IPv4 packet.
const MAX_SUPER_PACKET: usize = 65_535;

/// The offset of the flags in a TCP header.
const TCP_FLAGS: usize = 13;
const ACK: u8 = 0x10;
const PSH: u8 = 0x08;

/// What one write to the TUN device carries: a virtio header, and a packet or super-packet.
#[derive(Clone, Copy, Debug)]
pub struct TunPacket {
    /// Its bytes. The first chunk begins with the virtio header.
    pub iov: IovList,
    /// The length in bytes, virtio header included.
    pub len: u32,
    /// The number of packets in it.
    pub packets: u16,
    /// The kind of super-packet.
    pub gso: Gso,
    /// Whether its packets are few: they are left as they came, for [`Coalescer::frames`].
    pub is_small: bool,
}

/// A super-packet that may grow, or a single packet.
#[derive(Clone, Copy, Debug)]
struct Item {
    out: TunPacket,
    /// The first packet, without the virtio header.
    head: Chunk,
    transport: Option<Transport>,
    /// The payload of each packet but the last, in bytes.
    segment: u16,
    /// The payload of all packets, in bytes.
    payload: u32,
    next_sequence: u32,
    /// Whether the checksums of the head were verified.
    verified: bool,
    /// Whether the last packet has PSH.
    push: bool,
    /// Whether it may grow.
    open: bool,
    /// The hash of its flow.
    flow: u32,
}

/// A number for each hash of a flow or a pair of addresses. Hashes may share one.
#[derive(Debug)]
struct Table(Box<[u32; BUCKETS]>);

impl Table {
    fn new() -> Self {
        Self(Box::new([0; BUCKETS]))
    }

    #[inline(always)]
    fn get(&self, hash: u32) -> u32 {
        self.0.get(Self::index(hash)).copied().unwrap_or_default()
    }

    #[inline(always)]
    fn set(&mut self, hash: u32, value: u32) {
        if let Some(entry) = self.0.get_mut(Self::index(hash)) {
            *entry = value;
        }
    }

    #[inline(always)]
    fn index(hash: u32) -> usize {
        (hash ^ hash >> 16) as usize % BUCKETS
    }
}

/// The flow table and the packets of one iteration.
#[derive(Debug)]
pub struct Coalescer {
    items: Vec<Item>,
    iovs: IovArena,
    /// By flow: the index into `items` of its latest super-packet, plus one. 0 for none.
    latest: Table,
    /// By addresses: the number of `items` that may not grow any more.
    closed: Table,
    packets: Vec<TunPacket>,
    coalescing: Coalescing,
    /// See [`Coalescer::set_min_super_packet`].
    min_super_packet: u16,
    /// The room before each packet in bytes: the virtio header, and a link header if the device has
    /// one.
    headroom: u32,
}

impl Coalescer {
    /// Creates a coalescer for TCP, and for UDP if the TUN device takes UDP super-packets (USO).
    #[must_use]
    pub fn new(uso: bool) -> Self {
        Self::behind_link_header(uso, 0)
    }

    /// Creates a coalescer for a device whose packets have a link header of `link_len` bytes between
    /// the virtio header and the IP header. The caller writes the link header before it pushes
    /// a packet.
    #[must_use]
    pub fn behind_link_header(uso: bool, link_len: usize) -> Self {
        Self {
            min_super_packet: 0,
            headroom: (HEADER_LEN + link_len) as u32,
            items: Vec::with_capacity(1024),
            iovs: IovArena::default(),
            latest: Table::new(),
            closed: Table::new(),
            packets: Vec::with_capacity(1024),
            coalescing: Coalescing { tcp: true, udp: uso },
        }
    }

    /// Begins an iteration: removes all packets, and coalesces only the protocols of `coalescing`.
    pub fn begin(&mut self, coalescing: Coalescing) {
        self.items.clear();
        self.iovs.clear();
        self.packets.clear();
        self.latest.0.fill(0);
        self.closed.0.fill(0);
        self.coalescing = coalescing;
    }

    /// Adds a packet. `chunk` is the packet with [`HEADER_LEN`] bytes of room before it, and the link
    /// header behind that room if the device has one. The packet must be exactly as long as its IP
    /// header says.
    #[inline]
    pub fn push(&mut self, arena: &Arena, chunk: Chunk) {
        let head = Chunk { start: chunk.start + self.headroom, len: chunk.len - self.headroom };
        let packet = arena.get(head);
        let parsed = Transport::parse(packet);
        let Some((transport, split)) =
            parsed.and_then(|transport| Some((transport, transport.split(packet)?)))
        else {
            self.push_single(chunk, head, packet);
            return;
        };
        let pair = hash(u32::from(transport.protocol), transport.addresses(packet));
        let ports: &[u8; 4] = split.l4.first_chunk().unwrap_or(&[0; 4]);
        let flow = hash(pair, ports);
        let can_coalesce = self.can_coalesce(&transport, &split);
        let payload = split.payload.len();
        let push = is_push(&transport, &split);
        let latest = self.latest.get(flow);
        if can_coalesce
            && latest > self.closed.get(pair)
            && let Some(item) = self.items.get_mut(latest as usize - 1)
            && continues(item, arena, &transport, &split)
            && verify(item, arena)
            && checksums_are_right(&transport, &split, packet)
        {
            item.payload += payload as u32;
            item.next_sequence = next_sequence(&transport, &split);
            item.push = push;
            item.out.len += payload as u32;
            item.out.packets += 1;
            item.open = payload == usize::from(item.segment)
                && !item.push
                && item.out.packets < MAX_SEGMENTS;
            let tail =
                Chunk { start: head.start + transport.header_len as u32, len: payload as u32 };
            self.iovs.append(&mut item.out.iov, tail);
            return;
        }
        let out = self.tun_packet(chunk);
        let item = Item {
            out,
            head,
            transport: Some(transport),
            segment: payload as u16,
            payload: payload as u32,
            next_sequence: next_sequence(&transport, &split),
            verified: false,
            push,
            open: can_coalesce && !push,
            flow,
        };
        self.items.push(item);
        // Even if nothing can be appended to it: nothing may be appended to what came before it.
        self.latest.set(flow, self.items.len() as u32);
    }

    /// Adds a packet of which at most the addresses are known.
    fn push_single(&mut self, chunk: Chunk, head: Chunk, packet: &[u8]) {
        let (protocol, addresses) = match packet.first().map(|first| first >> 4) {
            Some(4) => (packet.get(9), packet.get(12..V4_HEADER)),
            _ => (None, packet.get(8..V6_HEADER)),
        };
        // The protocol behind IPv6 extension headers may be either.
        let protocols = protocol.map_or([TCP, UDP], |protocol| [*protocol; 2]);
        let flow = hash(0, addresses.unwrap_or_default());
        for protocol in protocols {
            let pair = hash(u32::from(protocol), addresses.unwrap_or_default());
            self.closed.set(pair, self.items.len() as u32);
        }
        let out = self.tun_packet(chunk);
        self.items.push(Item {
            out,
            head,
            transport: None,
            segment: 0,
            payload: 0,
            next_sequence: 0,
            verified: false,
            push: false,
            open: false,
            flow,
        });
    }

    fn tun_packet(&mut self, chunk: Chunk) -> TunPacket {
        TunPacket {
            iov: self.iovs.list(chunk),
            len: chunk.len,
            packets: 1,
            gso: Gso::None,
            is_small: false,
        }
    }

    #[inline]
    fn can_coalesce(&self, transport: &Transport, split: &Split<'_>) -> bool {
        if split.payload.is_empty()
            || (transport.version == Version::V4 && transport.ip_len > V4_HEADER)
        {
            return false;
        }
        match transport.protocol {
            // Only ACK, or ACK and PSH: others end a super-packet in the kernel too.
            TCP => {
                self.coalescing.tcp
                    && split.l4.get(TCP_FLAGS).is_some_and(|flags| flags & !PSH == ACK)
            }
            UDP => self.coalescing.udp,
            _ => false,
        }
    }

    /// Ends an iteration: completes the headers of all packets, which can then be written in order.
    pub fn finish(&mut self, arena: &mut Arena) {
        if self.min_super_packet > 1 {
            // The table is not needed any more: it notes the flows with a large super-packet now, all
            // of whose packets go the same way, in order.
            self.latest.0.fill(0);
            for item in self.items.iter().filter(|it| it.out.packets >= self.min_super_packet) {
                self.latest.set(item.flow, 1);
            }
        }
        for item in &self.items {
            let is_small = self.min_super_packet > 1 && self.latest.get(item.flow) == 0;
            let header = match item.transport {
                Some(transport) if item.out.packets > 1 && !is_small => {
                    let link_len = self.headroom as u16 - HEADER_LEN as u16;
                    finish_headers(item, &transport, arena).behind(link_len)
                }
                _ => NetHeader::PLAIN,
            };
            let room = Chunk { start: item.head.start - self.headroom, len: HEADER_LEN as u32 };
            arena.get_mut(room).copy_from_slice(&header.to_bytes());
            self.packets.push(TunPacket { gso: header.gso, is_small, ..item.out });
        }
    }

    /// Calls `each` with the packets of finished super-packet `index`, one by one and as they came,
    /// each behind its own virtio header. For a device that refused the super-packet, which is void
    /// afterwards.
    pub fn split(&self, index: usize, arena: &mut Arena, mut each: impl FnMut(&[u8])) {
        let Some(item) = self.items.get(index) else { return };
        let Some(transport) = item.transport else { return };
        restore_head(item, &transport, arena);
        let header_len = transport.header_len as u32;
        for (number, chunk) in self.iovs.chunks(item.out.iov).enumerate() {
            // Each payload still has its own headers before it, and room before those.
            let start = match number {
                0 => item.head.start,
                _ => chunk.start - header_len,
            };
            let packet =
                Chunk { start: start - self.headroom, len: chunk.end() - start + self.headroom };
            let bytes = arena.get_mut(packet);
            if let Some(header) = bytes.first_chunk_mut() {
                *header = NetHeader::PLAIN.to_bytes();
            }
            each(bytes);
        }
    }

    /// Leaves super-packets of fewer packets than this as they came, once finished.
    pub fn set_min_super_packet(&mut self, packets: u16) {
        self.min_super_packet = packets;
    }

    /// The frames of a small packet, link header included and virtio header not, as they came.
    pub fn frames<'a>(
        &'a self,
        packet: &TunPacket,
        arena: &'a Arena,
    ) -> impl Iterator<Item = &'a [u8]> {
        let link_len = self.headroom - HEADER_LEN as u32;
        let mut header_len = 0;
        self.iovs.chunks(packet.iov).enumerate().map(move |(number, chunk)| {
            // Each payload still has its own headers before it.
            let start = if number == 0 {
                let head =
                    Chunk { start: chunk.start + self.headroom, len: chunk.len - self.headroom };
                let transport = Transport::parse(arena.get(head));
                header_len = transport.map_or(0, |transport| transport.header_len as u32);
                chunk.start + HEADER_LEN as u32
            } else {
                chunk.start - header_len - link_len
            };
            arena.get(Chunk { start, len: chunk.end() - start })
        })
    }

    /// The packets and super-packets, once finished.
    #[must_use]
    #[inline]
    pub fn tun_packets(&self) -> &[TunPacket] {
        &self.packets
    }

    /// The chunks of a packet, in the arena that it was pushed from.
    #[inline]
    pub fn chunks(&self, packet: &TunPacket) -> impl Iterator<Item = Chunk> + '_ {
        self.iovs.chunks(packet.iov)
    }
}

/// Mixes 32-bit words into a hash.
#[inline]
fn hash(start: u32, words: &[u8]) -> u32 {
    let (words, _) = words.as_chunks::<4>();
    words.iter().fold(start, |hash, word| {
        (hash ^ u32::from_ne_bytes(*word)).wrapping_mul(0x9e37_79b1).rotate_left(13)
    })
}
