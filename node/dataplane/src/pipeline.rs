//! The packet path without I/O and without a clock: datagrams in, TUN packets out; TUN packets in,
//! datagrams out.
//!
//! An iteration begins with [`Pipeline::begin`]. Then come any number of
//! [`Pipeline::handle_udp_batch`], [`Pipeline::handle_tun_packet`] and the other inputs, and
//! [`Pipeline::finish`]. Then a backend writes [`Pipeline::packets`], sends
//! [`Pipeline::gso_batches`], and reports each result. Both point into buffers of the pipeline, which
//! do not change before the next `begin`.

mod active;
mod cipher;
mod cut;
pub(crate) mod decapsulate;
pub(crate) mod encapsulate;
pub(crate) mod gso_batch;
mod handshake;
mod held;
mod offloads;
mod opening;
pub(crate) mod outlet;
pub(crate) mod parcel;
mod sealing;
mod small;
pub(crate) mod timers;

pub(crate) use encapsulate::{Handled, TAILROOM};

use std::{
    net::IpAddr,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use bytes::{Bytes, BytesMut};
use weir_common::{
    AddressPlan, DropReason, PeerIndex, Slot, SlotPermutation, account::add_single_writer,
};

pub use self::cipher::Cipher;
pub(crate) use self::cipher::GROUP;
use self::{
    active::ActivePeers,
    cut::Cut,
    gso_batch::{BatchKind, GsoBatch, GsoBatches, UdpSegmentation},
    outlet::{Device, Outlet},
    parcel::Outgoing,
    sealing::Sealings,
};
use crate::{
    exit::{Exit, ExitEvents, ExitPlan},
    limit::flow_key::FlowSecret,
    now::Now,
    outer::Outer,
    peer::Peer,
    stats::WorkerStats,
};
use weir_accounts::{Accounts, Endpoint, FlowLimits, SharedLimits};
use weir_packet::{
    arena::{Arena, Chunk},
    ecn::Ecn,
    gro::{Coalescer, TunPacket},
    headers,
};

/// The size of the arena for opened packets: what all receive buffers of an iteration can hold.
const PLAIN_CAPACITY: usize = 2 << 20;
/// The size of the arena for sealed datagrams.
const SEALED_CAPACITY: usize = 2 << 20;
/// A TUN packet that needs more room than this when sealed is dropped. No sane kernel makes one.
const MAX_SEALED_LEN: usize = SEALED_CAPACITY / 2;

/// What all workers of a node share.
#[derive(Clone)]
pub struct Shared {
    /// The accounts of all slots.
    pub accounts: Arc<Accounts>,
    /// The secret permutation of slots to peer indexes.
    pub permutation: SlotPermutation,
    /// The inner addresses of the slots.
    pub addresses: AddressPlan,
    /// The number of workers.
    pub workers: u32,
    /// The MTU inside the tunnel, in bytes.
    pub mtu: usize,
    /// Whether the TUN device takes UDP super-packets (`TUN_F_USO4`, `TUN_F_USO6`).
    pub uso: bool,
    /// Whether datagrams to one consumer are sent in GSO batches.
    pub udp_segmentation: UdpSegmentation,
    /// The fair share and the flow limits.
    pub limits: Arc<SharedLimits>,
    /// The key of the flow hashes.
    pub flow_secret: FlowSecret,
    /// The cipher, and who helps with it.
    pub cipher: Cipher,
}

impl Shared {
    /// Whether a packet goes to the gateway.
    fn is_to_gateway(&self, packet: &[u8]) -> bool {
        headers::destination(packet).is_some_and(|address| self.is_gateway(address))
    }

    /// Whether a packet comes from the gateway.
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

/// A packet that arrived at this thread and belongs to another one, now and then. Those that come
/// often go in a [`parcel`].
#[derive(Debug)]
pub enum Misdirected {
    /// A datagram, and its outer headers.
    Datagram(Bytes, Outer<'static>),
    /// A TUN packet, virtio header included, with [`TAILROOM`] bytes behind it.
    TunPacket(BytesMut),
}

/// The thread that a misdirected packet belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The worker with this number.
    Worker(u32),
    /// The handshake thread.
    Handshakes,
}

/// What stays the same during an iteration.
#[derive(Clone, Copy, Debug, Default)]
struct Iteration {
    number: u64,
    now: Now,
    /// The fair share up and down, in bytes per second. 0 means no limit.
    fair_share: [u64; 2],
    flow_limits: FlowLimits,
}

/// One worker's sessions and buffers.
pub struct Pipeline {
    shared: Shared,
    worker: u32,
    /// By slot divided by the number of workers.
    peers: Vec<Option<Box<Peer>>>,
    active: ActivePeers,
    /// Indexes of the peers with which a handshake is initiated after a restart.
    resumptions: Vec<u32>,
    plain: Arena,
    sealed: Arena,
    sealings: Sealings,
    tun: Outlet,
    batches: GsoBatches,
    misdirected: Vec<(Owner, Misdirected)>,
    outgoing: Outgoing,
    stats: Arc<WorkerStats>,
    iteration: Iteration,
    /// The way past the kernel. `None` if all packets go to the TUN device.
    exit: Option<Box<Exit>>,
    cut: Cut,
}

impl Pipeline {
    /// Creates the pipeline of worker number `worker`, without peers.
    #[must_use]
    pub fn new(shared: Shared, worker: u32, stats: Arc<WorkerStats>) -> Self {
        let cipher = shared.cipher.clone();
        let slots = shared.accounts.len().div_ceil(shared.workers.max(1)) as usize;
        let mut peers = Vec::new();
        peers.resize_with(slots, || None);
        Self {
            tun: Outlet::new(Coalescer::new(shared.uso), shared.uso, DropReason::TunWrite),
            batches: GsoBatches::new(shared.udp_segmentation),
            shared,
            worker,
            peers,
            active: ActivePeers::new(slots),
            resumptions: Vec::new(),
            plain: Arena::new(PLAIN_CAPACITY),
            sealed: Arena::new(SEALED_CAPACITY),
            misdirected: Vec::with_capacity(64),
            outgoing: Outgoing::default(),
            stats,
            iteration: Iteration::default(),
            sealings: Sealings::new(cipher),
            exit: None,
            cut: Cut::default(),
        }
    }

    /// Sends consumers' packets past the kernel from now on, but those to the gateway.
    pub(crate) fn exit_by(&mut self, plan: ExitPlan, events: Arc<ExitEvents>) {
        self.exit = Some(Box::new(Exit::new(plan, &self.shared, events)));
    }

    /// Sends small frames and batches by [`Pipeline::send_small`] from now on.
    pub(crate) fn divide_small(&mut self) {
        if let Some(exit) = &mut self.exit {
            exit.sends_small = true;
        }
    }

    /// The number of datagrams to hand over together.
    pub(crate) fn group(&self) -> usize {
        self.shared.cipher.group()
    }

    /// The way past the kernel.
    pub(crate) fn exit(&mut self) -> Option<&mut Exit> {
        self.exit.as_deref_mut()
    }

    /// Begins an iteration at `now`. The TUN packets and GSO batches of the last one are void.
    pub fn begin(&mut self, now: Now) {
        self.iteration = Iteration {
            number: self.iteration.number + 1,
            now,
            fair_share: self.shared.limits.fair_share(),
            flow_limits: self.shared.limits.flow_limits(),
        };
        self.plain.reset();
        self.sealed.reset();
        if let Some(coalescing) = self.tun.begin(now.nanos) {
            let without = &self.stats.without;
            without.tun_tcp.store(!coalescing.tcp, Relaxed);
            without.tun_udp.store(self.shared.uso && !coalescing.udp, Relaxed);
        }
        if let Some(exit) = &mut self.exit {
            exit.uplink.begin(now.nanos);
        }
        self.batches.begin();
        add_single_writer(&self.stats.iterations, 1);
    }

    /// Completes the TUN packets and GSO batches of the iteration.
    pub fn finish(&mut self) {
        self.seal();
        self.tun.coalescer.finish(&mut self.plain);
        if let Some(exit) = &mut self.exit {
            if exit.sends_small {
                exit.uplink.coalescer.set_min_super_packet(self.cut.min());
            }
            exit.uplink.coalescer.finish(&mut self.plain);
        }
        self.mark_small();
    }

    /// Seals the packets that are kept for it.
    #[inline]
    fn seal(&mut self) {
        let peers = &self.peers;
        self.sealings.seal(&mut self.sealed, |index, sealing| {
            peers.get(index).and_then(Option::as_deref)?.tunnel.send_key(sealing)
        });
    }

    /// The packets to write to a device, in this order.
    #[must_use]
    pub fn packets(&self, device: Device) -> &[TunPacket] {
        self.outlet(device).map_or(&[], Outlet::packets)
    }

    /// The bytes of a packet for a device: the virtio header, for the uplink the Ethernet header, and
    /// the packet.
    pub fn packet_bytes(&self, device: Device, packet: &TunPacket) -> impl Iterator<Item = &[u8]> {
        let chunks = self.outlet(device).map(|outlet| outlet.chunks(packet));
        chunks.into_iter().flatten().map(|chunk| self.plain.get(chunk))
    }

    /// Reports whether the kernel took a packet for a device.
    #[inline]
    pub fn write_done(&self, device: Device, packet: &TunPacket, taken: bool) {
        if let Some(outlet) = self.outlet(device) {
            outlet.write_done(&self.stats, packet, taken);
        }
    }

    /// Writes the packets of super-packet `index`, which the device refused, one by one. `write`
    /// returns whether the device took a packet. If the device goes on refusing them, packets of
    /// this kind are not coalesced for some time.
    pub fn write_segments(
        &mut self,
        device: Device,
        index: usize,
        write: impl FnMut(&[u8]) -> bool,
    ) {
        let outlet = match device {
            Device::Tun => Some(&self.tun),
            Device::Uplink => self.exit.as_ref().map(|exit| &exit.uplink),
        };
        let now = self.iteration.now.nanos;
        if let Some(outlet) = outlet {
            outlet.write_segments(index, now, &mut self.plain, &self.stats, write);
        }
    }

    #[inline]
    fn outlet(&self, device: Device) -> Option<&Outlet> {
        match device {
            Device::Tun => Some(&self.tun),
            Device::Uplink => self.exit.as_ref().map(|exit| &exit.uplink),
        }
    }

    /// The GSO batches to send. Those to one consumer must keep this order.
    #[must_use]
    pub fn gso_batches(&self) -> &[GsoBatch] {
        self.batches.all()
    }

    /// The bytes of a GSO batch.
    pub fn gso_batch_bytes(&self, batch: &GsoBatch) -> impl Iterator<Item = &[u8]> {
        self.batches.chunks(batch).map(|chunk| self.sealed.get(chunk))
    }

    /// Removes and returns the packets that belong to other threads.
    pub fn take_misdirected(&mut self) -> std::vec::Drain<'_, (Owner, Misdirected)> {
        self.misdirected.drain(..)
    }

    /// The worker's number.
    #[must_use]
    pub fn worker(&self) -> u32 {
        self.worker
    }

    /// The counters.
    #[must_use]
    pub fn stats(&self) -> &Arc<WorkerStats> {
        &self.stats
    }

    /// Reports that the kernel took the first `datagrams` of a GSO batch, which are `bytes` long.
    /// Only these are billed.
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

    /// The endpoint of a session of this worker.
    #[cfg(test)]
    pub(crate) fn endpoint(&self, slot: Slot) -> Option<Endpoint> {
        let index = self.index_of(slot).ok()?;
        self.peers.get(index)?.as_ref()?.endpoint
    }

    /// The index of a slot's peer, or the worker that has it.
    #[inline(always)]
    fn index_of(&self, slot: Slot) -> Result<usize, Owner> {
        let owner = slot.worker(self.shared.workers);
        if owner == self.worker {
            Ok((slot.0 / self.shared.workers) as usize)
        } else {
            Err(Owner::Worker(owner))
        }
    }

    /// The slot of a receiver index, if the node has that slot.
    #[inline(always)]
    fn slot_of(&self, receiver_index: u32) -> Option<Slot> {
        let index = PeerIndex::of_receiver_index(receiver_index);
        let slot = self.shared.permutation.slot_of(index);
        (slot.0 < self.shared.accounts.len()).then_some(slot)
    }

    /// The slot of an inner address, if the node has that slot.
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

/// The kind of batch for a data message without a packet (a keepalive) of `len` bytes.
fn data_kind(peer: &mut Peer, iteration: u64, len: usize) -> BatchKind {
    let kind = peer.admission(iteration, len).kind();
    if kind == BatchKind::Metered {
        peer.will_send(iteration, len);
    }
    kind
}

/// Appends a datagram that carries no packet to the peer's latest batch of this iteration.
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

/// Appends a datagram to the peer's latest batch of this iteration.
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
