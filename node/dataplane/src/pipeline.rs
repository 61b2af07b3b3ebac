//! The packet path without I/O: datagrams in, TUN frames out; TUN frames in, datagrams out.
//!
//! A worker's iteration is: [`Pipeline::begin`], any number of [`Pipeline::handle_udp_batch`],
//! [`Pipeline::handle_tun_packet`] and what else happened, [`Pipeline::finish`]; then whoever does the I/O
//! writes [`Pipeline::frames`], sends [`Pipeline::batches`] and reports how that went. Frames and batches
//! point into buffers of the pipeline, which stay as they are until the next `begin`.

pub(crate) mod decapsulate;
pub(crate) mod encapsulate;
pub(crate) mod gso_batch;
pub(crate) mod timers;
mod tun_offloads;

pub(crate) use encapsulate::{Handled, TAILROOM};

use std::{
    net::IpAddr,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use bytes::{Bytes, BytesMut};
use weir_common::{
    AddressPlan, DropReason, PeerIndex, Slot, SlotPermutation, account::add_single_writer,
};

use crate::{
    limit::flow_key::FlowSecret,
    now::Now,
    outer::Outer,
    peer::Peer,
    pipeline::gso_batch::{BatchKind, GsoBatch, GsoBatches, UdpSegmentation},
    pipeline::tun_offloads::TunOffloads,
    stats::WorkerStats,
};
use weir_accounts::Accounts;
use weir_accounts::{Endpoint, FlowLimits, SharedLimits};
use weir_packet::{
    arena::{Arena, Chunk},
    ecn::Ecn,
    gro::{Coalescer, Coalescing, TunPacket},
    headers,
    virtio::Gso,
};

/// Opened packets of one iteration. Holds what all receive buffers of a iteration can hold.
const PLAIN_CAPACITY: usize = 2 << 20;
/// Sealed datagrams of one iteration.
const SEALED_CAPACITY: usize = 2 << 20;
/// A frame that needs more than this when sealed is dropped: no sane kernel makes one.
const MAX_SEALED_FRAME: usize = SEALED_CAPACITY / 2;

/// What all workers of a node have in common.
#[derive(Clone)]
pub struct Shared {
    /// The accounts of all slots.
    pub accounts: Arc<Accounts>,
    /// How peer indexes hide slots.
    pub permutation: SlotPermutation,
    /// Which inner addresses belong to which slots.
    pub addresses: AddressPlan,
    /// How many workers there are.
    pub workers: u32,
    /// MTU inside the tunnel.
    pub mtu: usize,
    /// Whether the TUN device takes UDP super-packets.
    pub uso: bool,
    /// Whether several datagrams to one consumer are sent as one, which the kernel cuts.
    pub udp_segmentation: UdpSegmentation,
    /// What each session may have of the node's rate, and what it may reach.
    pub limits: Arc<SharedLimits>,
    /// By which flows are known again.
    pub flow_secret: FlowSecret,
}

impl Shared {
    /// Whether a packet goes to the node's own addresses.
    fn is_to_gateway(&self, packet: &[u8]) -> bool {
        headers::destination(packet).is_some_and(|address| self.is_gateway(address))
    }

    /// Whether a packet comes from the node's own addresses.
    fn is_from_gateway(&self, packet: &[u8]) -> bool {
        headers::source(packet).is_some_and(|address| self.is_gateway(address))
    }

    fn is_gateway(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(v4) => v4 == self.addresses.gateway_v4(),
            IpAddr::V6(v6) => v6 == self.addresses.gateway_v6(),
        }
    }
}

/// Something that arrived at this worker and belongs elsewhere.
#[derive(Debug)]
pub enum Misdirected {
    /// A datagram of another worker's session, and its outer headers.
    Datagram(Bytes, Outer<'static>),
    /// A TUN frame, virtio header included, for another worker's session, with [`TAILROOM`]
    /// bytes behind.
    TunPacket(BytesMut),
}

/// To whom a misdirected belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// This worker.
    Worker(u32),
    /// The handshake thread.
    Handshakes,
}

/// One worker's sessions and buffers.
pub struct Pipeline {
    shared: Shared,
    worker: u32,
    /// By slot / workers.
    peers: Vec<Option<Box<Peer>>>,
    /// Peers whose timers batch, as indexes into `peers`.
    active: Vec<u32>,
    tick_at: usize,
    resumptions: Vec<u32>,
    plain: Arena,
    sealed: Arena,
    coalescer: Coalescer,
    batches: GsoBatches,
    misdirected: Vec<(Owner, Misdirected)>,
    stats: Arc<WorkerStats>,
    iteration: u64,
    /// What [`SharedLimits`] said at the beginning of the iteration.
    fair_share: [u64; 2],
    flow_limits: FlowLimits,
    now: Now,
    tun_offloads: TunOffloads,
    coalescing: Coalescing,
}

impl Pipeline {
    /// The pipeline of worker number `worker`, without peers.
    #[must_use]
    pub fn new(shared: Shared, worker: u32, stats: Arc<WorkerStats>) -> Self {
        let slots = shared.accounts.len().div_ceil(shared.workers.max(1)) as usize;
        let mut peers = Vec::new();
        peers.resize_with(slots, || None);
        Self {
            coalescer: Coalescer::new(shared.uso),
            batches: GsoBatches::new(shared.udp_segmentation),
            shared,
            worker,
            peers,
            active: Vec::with_capacity(slots),
            tick_at: 0,
            resumptions: Vec::new(),
            plain: Arena::new(PLAIN_CAPACITY),
            sealed: Arena::new(SEALED_CAPACITY),
            misdirected: Vec::with_capacity(64),
            stats,
            iteration: 0,
            fair_share: [0; 2],
            flow_limits: FlowLimits::default(),
            now: Now::default(),
            tun_offloads: TunOffloads::default(),
            coalescing: Coalescing::default(),
        }
    }

    /// Begins a iteration at `now`: the frames and batches of the last one are void.
    pub fn begin(&mut self, now: Now) {
        self.iteration += 1;
        self.now = now;
        self.plain.reset();
        self.sealed.reset();
        let coalescing = self.tun_offloads.coalescing(self.shared.uso, now.nanos);
        if coalescing != self.coalescing {
            self.coalescing = coalescing;
            let without = &self.stats.without;
            without.tun_tcp.store(!coalescing.tcp, Relaxed);
            without.tun_udp.store(self.shared.uso && !coalescing.udp, Relaxed);
        }
        self.coalescer.begin(coalescing);
        self.batches.begin();
        self.fair_share = self.shared.limits.fair_share();
        self.flow_limits = self.shared.limits.flow_limits();
        add_single_writer(&self.stats.iterations, 1);
    }

    /// Ends a iteration: its frames and batches are complete.
    pub fn finish(&mut self) {
        self.coalescer.finish(&mut self.plain);
    }

    /// The frames to be written to the TUN device, in this order.
    #[must_use]
    pub fn tun_packets(&self) -> &[TunPacket] {
        self.coalescer.tun_packets()
    }

    /// The bytes of a frame.
    pub fn tun_packet_bytes(&self, frame: &TunPacket) -> impl Iterator<Item = &[u8]> {
        self.coalescer.chunks(frame).map(|chunk| self.plain.get(chunk))
    }

    /// The datagrams to be sent; batches to one consumer in this order.
    #[must_use]
    pub fn gso_batches(&self) -> &[GsoBatch] {
        self.batches.all()
    }

    /// The bytes of a batch.
    pub fn gso_batch_bytes(&self, batch: &GsoBatch) -> impl Iterator<Item = &[u8]> {
        self.batches.chunks(batch).map(|chunk| self.sealed.get(chunk))
    }

    /// What arrived here and belongs elsewhere.
    pub fn take_misdirected(&mut self) -> std::vec::Drain<'_, (Owner, Misdirected)> {
        self.misdirected.drain(..)
    }

    /// The counters.
    #[must_use]
    pub fn stats(&self) -> &Arc<WorkerStats> {
        &self.stats
    }

    /// Reports that the kernel took a frame, or did not.
    #[inline]
    pub fn tun_write_done(&self, frame: &TunPacket, taken: bool) {
        let packets = u64::from(frame.packets);
        if taken {
            self.stats.tun_write.add(packets);
            if frame.gso != Gso::None {
                self.tun_offloads.taken(frame.gso);
            }
        } else {
            self.stats.refuse_many(DropReason::TunWrite, packets);
        }
    }

    /// Writes the packets of frame number `index`, which the device refused as a super-packet, one
    /// by one; `write` says whether the device took one. In the end packets of its kind are not
    /// joined for some time.
    pub fn write_segments(&mut self, index: usize, mut write: impl FnMut(&[u8]) -> bool) {
        let Some(frame) = self.coalescer.tun_packets().get(index) else { return };
        self.tun_offloads.refused(frame.gso, self.now.nanos);
        let stats = &self.stats;
        self.coalescer.split(index, &mut self.plain, |packet| {
            if write(packet) {
                stats.tun_write.add(1);
            } else {
                stats.refuse(DropReason::TunWrite);
            }
        });
    }

    /// Reports that the kernel took the first `bytes` and `datagrams` of a batch; only these are
    /// billed.
    #[inline]
    pub fn udp_send_done(&self, batch: &GsoBatch, datagrams: u16, bytes: u32) {
        if datagrams > 0 {
            self.stats.udp_send.add(u64::from(datagrams));
        }
        if datagrams < batch.datagrams {
            let lost = u64::from(batch.datagrams - datagrams);
            self.stats.refuse_many(DropReason::UdpSend, lost);
        }
        let Some(account) = self.shared.accounts.get(batch.slot) else { return };
        let metered = &account.metered;
        match batch.kind {
            BatchKind::Metered => {
                add_single_writer(&metered.bytes_down, u64::from(bytes));
                add_single_writer(&metered.packets_down, u64::from(datagrams));
            }
            BatchKind::Free => {
                add_single_writer(&metered.unbilled_bytes, u64::from(bytes));
            }
            BatchKind::Handshake => {
                add_single_writer(&metered.handshake_bytes_down, u64::from(bytes));
            }
        }
    }

    /// Where a session of this worker was last heard.
    #[cfg(test)]
    pub(crate) fn endpoint(&self, slot: Slot) -> Option<Endpoint> {
        let index = self.index_of(slot).ok()?;
        self.peers.get(index)?.as_ref()?.endpoint
    }

    /// The index of a slot among this worker's peers, or whose it is.
    #[inline(always)]
    fn index_of(&self, slot: Slot) -> Result<usize, Owner> {
        let owner = slot.worker(self.shared.workers);
        if owner == self.worker {
            Ok((slot.0 / self.shared.workers) as usize)
        } else {
            Err(Owner::Worker(owner))
        }
    }

    /// The slot of a receiver index, if it is within the node's slots.
    #[inline(always)]
    fn slot_of(&self, receiver_index: u32) -> Option<Slot> {
        let index = PeerIndex::of_receiver_index(receiver_index);
        let slot = self.shared.permutation.slot_of(index);
        (slot.0 < self.shared.accounts.len()).then_some(slot)
    }

    /// The slot of an inner address.
    #[inline(always)]
    fn slot_of_address(&self, address: IpAddr) -> Option<Slot> {
        let slot = match address {
            IpAddr::V4(v4) => self.shared.addresses.slot_of_v4(v4.octets()),
            IpAddr::V6(v6) => self.shared.addresses.slot_of_v6(v6.octets()),
        }?;
        (slot.0 < self.shared.accounts.len()).then_some(slot)
    }

    fn push_misdirected(&mut self, owner: Owner, misdirected: Misdirected) {
        self.misdirected.push((owner, misdirected));
    }
}

/// How a data message without a packet (a keepalive) of `len` bytes is sent to the peer.
fn data_kind(peer: &mut Peer, iteration: u64, len: usize) -> BatchKind {
    let kind = peer.admission(iteration, len).kind();
    if kind == BatchKind::Metered {
        peer.will_send(iteration, len);
    }
    kind
}

/// Adds a datagram that carries no packet to the peer's latest batch of this iteration.
fn push_datagram(
    batches: &mut GsoBatches,
    iteration: u64,
    peer: &mut Peer,
    to: Endpoint,
    kind: BatchKind,
    chunk: Chunk,
) {
    push_datagram_with_ecn(batches, iteration, peer, to, kind, Ecn::NotEct, chunk);
}

/// Adds a datagram to the peer's latest batch of this iteration.
#[inline]
fn push_datagram_with_ecn(
    batches: &mut GsoBatches,
    iteration: u64,
    peer: &mut Peer,
    to: Endpoint,
    kind: BatchKind,
    ecn: Ecn,
    chunk: Chunk,
) {
    let last = match peer.last_batch {
        (at, batch) if at == iteration => batch,
        _ => None,
    };
    peer.last_batch = (iteration, Some(batches.push(last, to, peer.slot, kind, ecn, chunk)));
}

#[cfg(test)]
mod tests;
