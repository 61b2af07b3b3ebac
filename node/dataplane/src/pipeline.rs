//! The packet path without I/O: datagrams in, TUN frames out; TUN frames in, datagrams out.
//!
//! A worker's turn is: [`Pipeline::begin`], any number of [`Pipeline::receive`],
//! [`Pipeline::transmit`] and what else happened, [`Pipeline::finish`]; then whoever does the I/O
//! writes [`Pipeline::frames`], sends [`Pipeline::runs`] and reports how that went. Frames and runs
//! point into buffers of the pipeline, which stay as they are until the next `begin`.

pub(crate) mod decapsulate;
pub(crate) mod encapsulate;
pub(crate) mod gso_batch;
pub(crate) mod timers;
mod tun_offloads;

pub(crate) use encapsulate::{FRAME_SLACK, Transmitted};

use std::{
    net::IpAddr,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use bytes::{Bytes, BytesMut};
use weir_common::{
    AddressPlan, DropReason, PeerIndex, Slot, SlotPermutation, account::add_single_writer,
};

use crate::{
    limit::flow_key::FlowKeys,
    now::Now,
    outer::Outer,
    peer::Peer,
    pipeline::gso_batch::{Run, RunKind, Runs, UdpSegmentation},
    pipeline::tun_offloads::TunOffloads,
    stats::WorkerStats,
};
use weir_accounts::Accounts;
use weir_accounts::{ContactLimits, Endpoint, Levels};
use weir_packet::{
    arena::{Arena, Span},
    ecn::Ecn,
    gro::{Coalescer, Frame, Joining},
    headers,
    virtio::Gso,
};

/// Opened packets of one turn. Holds what all receive buffers of a turn can hold.
const PLAIN_CAPACITY: usize = 2 << 20;
/// Sealed datagrams of one turn.
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
    pub levels: Arc<Levels>,
    /// By which flows are known again.
    pub flow_keys: FlowKeys,
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
pub enum Stray {
    /// A datagram of another worker's session, and its outer headers.
    Datagram(Bytes, Outer<'static>),
    /// A TUN frame, virtio header included, for another worker's session, with [`FRAME_SLACK`]
    /// bytes behind.
    Frame(BytesMut),
}

/// To whom a stray belongs.
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
    /// Peers whose timers run, as indexes into `peers`.
    active: Vec<u32>,
    tick_at: usize,
    greetings: Vec<u32>,
    plain: Arena,
    sealed: Arena,
    coalescer: Coalescer,
    runs: Runs,
    strays: Vec<(Owner, Stray)>,
    stats: Arc<WorkerStats>,
    turn: u64,
    /// What [`Levels`] said at the beginning of the turn.
    levels: [u64; 2],
    contact_limits: ContactLimits,
    now: Now,
    tun_offloads: TunOffloads,
    joining: Joining,
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
            runs: Runs::new(shared.udp_segmentation),
            shared,
            worker,
            peers,
            active: Vec::with_capacity(slots),
            tick_at: 0,
            greetings: Vec::new(),
            plain: Arena::new(PLAIN_CAPACITY),
            sealed: Arena::new(SEALED_CAPACITY),
            strays: Vec::with_capacity(64),
            stats,
            turn: 0,
            levels: [0; 2],
            contact_limits: ContactLimits::default(),
            now: Now::default(),
            tun_offloads: TunOffloads::default(),
            joining: Joining::default(),
        }
    }

    /// Begins a turn at `now`: the frames and runs of the last one are void.
    pub fn begin(&mut self, now: Now) {
        self.turn += 1;
        self.now = now;
        self.plain.reset();
        self.sealed.reset();
        let joining = self.tun_offloads.joining(self.shared.uso, now.nanos);
        if joining != self.joining {
            self.joining = joining;
            let without = &self.stats.without;
            without.tun_tcp.store(!joining.tcp, Relaxed);
            without.tun_udp.store(self.shared.uso && !joining.udp, Relaxed);
        }
        self.coalescer.begin(joining);
        self.runs.begin();
        self.levels = self.shared.levels.get();
        self.contact_limits = self.shared.levels.contacts();
        add_single_writer(&self.stats.turns, 1);
    }

    /// Ends a turn: its frames and runs are complete.
    pub fn finish(&mut self) {
        self.coalescer.finish(&mut self.plain);
    }

    /// The frames to be written to the TUN device, in this order.
    #[must_use]
    pub fn frames(&self) -> &[Frame] {
        self.coalescer.frames()
    }

    /// The bytes of a frame.
    pub fn frame_bytes(&self, frame: &Frame) -> impl Iterator<Item = &[u8]> {
        self.coalescer.spans(frame).map(|span| self.plain.get(span))
    }

    /// The datagrams to be sent; runs to one consumer in this order.
    #[must_use]
    pub fn runs(&self) -> &[Run] {
        self.runs.all()
    }

    /// The bytes of a run.
    pub fn run_bytes(&self, run: &Run) -> impl Iterator<Item = &[u8]> {
        self.runs.spans(run).map(|span| self.sealed.get(span))
    }

    /// What arrived here and belongs elsewhere.
    pub fn take_strays(&mut self) -> std::vec::Drain<'_, (Owner, Stray)> {
        self.strays.drain(..)
    }

    /// The counters.
    #[must_use]
    pub fn stats(&self) -> &Arc<WorkerStats> {
        &self.stats
    }

    /// Reports that the kernel took a frame, or did not.
    #[inline]
    pub fn wrote(&self, frame: &Frame, taken: bool) {
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
    pub fn write_apart(&mut self, index: usize, mut write: impl FnMut(&[u8]) -> bool) {
        let Some(frame) = self.coalescer.frames().get(index) else { return };
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

    /// Reports that the kernel took the first `bytes` and `datagrams` of a run; only these are
    /// billed.
    #[inline]
    pub fn sent(&self, run: &Run, datagrams: u16, bytes: u32) {
        if datagrams > 0 {
            self.stats.udp_send.add(u64::from(datagrams));
        }
        if datagrams < run.datagrams {
            let lost = u64::from(run.datagrams - datagrams);
            self.stats.refuse_many(DropReason::UdpSend, lost);
        }
        let Some(account) = self.shared.accounts.get(run.slot) else { return };
        let metered = &account.metered;
        match run.kind {
            RunKind::Data => {
                add_single_writer(&metered.bytes_down, u64::from(bytes));
                add_single_writer(&metered.packets_down, u64::from(datagrams));
            }
            RunKind::Unbilled => {
                add_single_writer(&metered.unbilled_bytes, u64::from(bytes));
            }
            RunKind::Handshake => {
                add_single_writer(&metered.handshake_bytes_down, u64::from(bytes));
            }
        }
    }

    /// Where a session of this worker was last heard.
    #[cfg(test)]
    pub(crate) fn endpoint(&self, slot: Slot) -> Option<Endpoint> {
        let place = self.place(slot).ok()?;
        self.peers.get(place)?.as_ref()?.endpoint
    }

    /// The place of a slot among this worker's peers, or whose it is.
    #[inline(always)]
    fn place(&self, slot: Slot) -> Result<usize, Owner> {
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

    fn push_stray(&mut self, owner: Owner, stray: Stray) {
        self.strays.push((owner, stray));
    }
}

/// How a data message without a packet (a keepalive) of `len` bytes is sent to the peer.
fn data_kind(peer: &mut Peer, turn: u64, len: usize) -> RunKind {
    let kind = peer.fare(turn, len).kind();
    if kind == RunKind::Data {
        peer.will_send(turn, len);
    }
    kind
}

/// Adds a datagram that carries no packet to the peer's latest run of this turn.
fn push_run(runs: &mut Runs, turn: u64, peer: &mut Peer, to: Endpoint, kind: RunKind, span: Span) {
    push_marked(runs, turn, peer, to, kind, Ecn::NotEct, span);
}

/// Adds a datagram to the peer's latest run of this turn.
#[inline]
fn push_marked(
    runs: &mut Runs,
    turn: u64,
    peer: &mut Peer,
    to: Endpoint,
    kind: RunKind,
    ecn: Ecn,
    span: Span,
) {
    let last = match peer.last_run {
        (at, run) if at == turn => run,
        _ => None,
    };
    peer.last_run = (turn, Some(runs.push(last, to, peer.slot, kind, ecn, span)));
}

#[cfg(test)]
mod tests;
