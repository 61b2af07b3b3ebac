//! The exit past the kernel: consumers' packets are translated here and go straight to the uplink's
//! link, and what comes back from there goes straight to the consumer.
//!
//! [`Exit`] is the part of a worker that does so: its share of the flow table (`weir_nat`), the next
//! hops, and the packets to transmit. It does no I/O: `io::uplink` has the socket.

mod events;
mod exits;
mod gate;
mod held;
mod outer_header;

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, atomic::Ordering::Relaxed},
};

use weir_common::{
    DropReason, Slot,
    exit::ExitConfig,
    gcra::{Gcra, Rate},
};
use weir_nat::{
    Answer, FlowCounts, FlowGate, Gateways, Nat, NatConfig, Policy, Refusal, V6,
    answer::{self, MAX_ANSWER_LEN},
};
use weir_packet::{
    ethernet::{ETHERNET_HEADER, IPV4_TYPE, IPV6_TYPE, MacAddress, NextHops, NoNextHop},
    gro::Coalescer,
    headers::{self, TCP, Transport},
    virtio::HEADER_LEN,
};

pub(crate) use self::events::ExitEvents;
pub use self::events::OwnedBlock;
pub use self::exits::Exits;
pub(crate) use self::gate::Gate;
use self::held::HeldFrames;
pub(crate) use self::outer_header::OuterHeader;
use weir_accounts::Accounts;

use crate::now::Now;
use crate::pipeline::{Shared, gso_batch::GsoBatch, outlet::Outlet};

/// The room before a packet that may leave by the uplink, in bytes: the virtio header and the
/// Ethernet header.
pub(crate) const HEADROOM: usize = HEADER_LEN + ETHERNET_HEADER;

/// The number of ticks, of a quarter of a second, for which the flow table is looked after when it is
/// empty: until all blocks of ports are given back.
const MAX_IDLE_TICKS: u32 = 4 * 300;

/// The neighbours that are asked for: 100 a second, so that a scan of the uplink's network costs
/// little.
const RESOLUTIONS: Rate = Rate { interval: 10_000_000, window: 100_000_000 };

/// The number of ticks between two counts of the open flows.
const TICKS_PER_COUNT: u32 = 4;

/// What a worker exits with.
pub struct ExitPlan {
    /// Its share of the flow table, and its ports.
    pub nat: NatConfig,
    /// The exit policy.
    pub policy: Arc<dyn Policy>,
    /// The next hops.
    pub hops: Arc<NextHops>,
    /// The addresses that the guard sends return traffic of.
    pub guard: ExitConfig,
    /// The node's UDP port.
    pub listen_port: u16,
    /// Has the kernel look for a neighbour whose link address is not known. It must not wait.
    pub resolve: Arc<dyn Fn(IpAddr) + Send + Sync>,
    /// A random number: the identification of the first IPv4 datagram (RFC 6864, section 5.1).
    pub first_id: u16,
}

/// When a packet leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leaves {
    /// In this iteration.
    Now,
    /// When its next hop's link address is known.
    Later,
}

/// A worker's exit.
pub(crate) struct Exit {
    nat: Nat,
    policy: Arc<dyn Policy>,
    hops: Arc<NextHops>,
    events: Arc<ExitEvents>,
    worker: u32,
    accounts: Arc<Accounts>,
    /// The packets of this iteration to the uplink.
    pub(crate) uplink: Outlet,
    /// What the sender of the latest refused packet is told.
    answer: Option<Answer>,
    /// The inner addresses of the node, from which answers come.
    gateways: Gateways,
    /// The addresses from which routers on the internet are answered.
    external: Gateways,
    guard: ExitConfig,
    listen_port: u16,
    resolve: Arc<dyn Fn(IpAddr) + Send + Sync>,
    /// How often it is called.
    resolutions: Gcra,
    held: HeldFrames,
    /// Whether held frames may leave now, or be given up.
    may_release: bool,
    /// The frames that made room for others, and are not counted yet.
    given_up: u64,
    /// Whether small frames and batches are sent by [`Pipeline::send_small`](crate::pipeline::Pipeline).
    pub(crate) sends_small: bool,
    /// The outer headers of this iteration's small batches, in their order.
    pub(crate) headers: Vec<OuterHeader>,
    /// The identification of the latest IPv4 datagram.
    pub(crate) next_id: u16,
    /// The number of ticks without a flow.
    idle_ticks: u32,
    ticks: u32,
    /// The room for an answer.
    pub(crate) scratch: Vec<u8>,
}

impl Exit {
    pub(crate) fn new(plan: ExitPlan, shared: &Shared, events: Arc<ExitEvents>) -> Self {
        let (addresses, accounts) = (&shared.addresses, Arc::clone(&shared.accounts));
        let coalescer = Coalescer::behind_link_header(shared.uso, ETHERNET_HEADER);
        let uplink = Outlet::new(coalescer, shared.uso, DropReason::UplinkSend);
        let gateways = Gateways { v4: addresses.gateway_v4(), v6: addresses.gateway_v6() };
        let external = external(&plan.nat.addresses_v4, plan.nat.v6, gateways);
        Self {
            worker: plan.nat.worker,
            accounts,
            nat: Nat::new(plan.nat),
            policy: plan.policy,
            hops: plan.hops,
            events,
            uplink,
            answer: None,
            gateways,
            external,
            guard: plan.guard,
            listen_port: plan.listen_port,
            resolve: plan.resolve,
            resolutions: Gcra::default(),
            held: HeldFrames::default(),
            may_release: false,
            given_up: 0,
            sends_small: false,
            headers: Vec::with_capacity(1024),
            next_id: plan.first_id,
            idle_ticks: MAX_IDLE_TICKS,
            ticks: 0,
            scratch: vec![0; MAX_ANSWER_LEN + crate::pipeline::TAILROOM],
        }
    }

    /// Whether a frame that the guard has sent is a message for the node itself, and no packet from
    /// the internet.
    #[inline]
    pub(crate) fn is_message(&self, frame: &[u8]) -> bool {
        self.guard.is_message(frame, self.listen_port)
    }

    /// Translates a session's packet in `frame`, which begins with room for the Ethernet header, and
    /// writes that header. On an error the packet is as it was. What waits for its next hop's link
    /// address leaves by [`Exit::release`].
    ///
    /// # Errors
    ///
    /// Returns why it does not leave. [`Exit::take_answer`] has what its sender is told.
    #[inline]
    pub(crate) fn forward(
        &mut self,
        frame: &mut [u8],
        slot: Slot,
        now: u64,
        gate: &mut dyn FlowGate,
    ) -> Result<Leaves, DropReason> {
        self.answer = None;
        self.try_forward(frame, slot, now, gate).map_err(|refusal| {
            self.answer = refusal.answer;
            refusal.reason
        })
    }

    #[inline]
    fn try_forward(
        &mut self,
        frame: &mut [u8],
        slot: Slot,
        now: u64,
        gate: &mut dyn FlowGate,
    ) -> Result<Leaves, Refusal> {
        let (link, packet) =
            frame.split_first_chunk_mut::<ETHERNET_HEADER>().ok_or(DropReason::UpMalformed)?;
        let destination = headers::destination(packet).ok_or(DropReason::UpMalformed)?;
        let next = self.hops.find(destination);
        if next == Err(NoNextHop::NoRoute) {
            return Err(DropReason::NextHop.into());
        }
        if packet.len() > self.hops.mtu as usize {
            let answer = Some(Answer::TooBig(self.hops.mtu.min(u32::from(u16::MAX)) as u16));
            return Err(Refusal { reason: DropReason::TooBig, answer });
        }
        self.idle_ticks = 0;
        self.nat.up(packet, slot, now, self.policy.as_ref(), gate)?;
        match next {
            Ok(next) => {
                *link = ethernet_header(next, self.hops.source, destination.is_ipv6());
                Ok(Leaves::Now)
            }
            Err(NoNextHop::Unresolved(neighbour)) => {
                self.hold(slot, neighbour, frame, now);
                Ok(Leaves::Later)
            }
            Err(NoNextHop::NoRoute) => Err(DropReason::NextHop.into()),
        }
    }

    #[cold]
    fn hold(&mut self, slot: Slot, neighbour: IpAddr, frame: &[u8], now: u64) {
        self.given_up += self.held.hold(slot, neighbour, frame, now);
        if self.resolutions.take(RESOLUTIONS, now) {
            (self.resolve)(neighbour);
        }
    }

    /// Whether [`Exit::release`] has something to do.
    #[inline]
    pub(crate) fn may_release(&self) -> bool {
        self.may_release && !self.held.is_empty()
    }

    /// Calls `send` with the held frames whose next hop is known now; it returns whether there was
    /// room. Returns the number of frames given up.
    pub(crate) fn release(&mut self, now: u64, mut send: impl FnMut(&[u8]) -> bool) -> u64 {
        self.may_release = false;
        let hops = &self.hops;
        let given_up = self.held.release(now, |_, frame| {
            let Some((link, packet)) = frame.split_first_chunk_mut::<ETHERNET_HEADER>() else {
                return false;
            };
            let Some(destination) = headers::destination(packet) else { return false };
            let Ok(next) = hops.find(destination) else { return false };
            *link = ethernet_header(next, hops.source, destination.is_ipv6());
            send(frame)
        });
        given_up + std::mem::take(&mut self.given_up)
    }

    /// Translates a packet from the internet. Returns the session that it goes to.
    ///
    /// # Errors
    ///
    /// Returns why it goes to none.
    #[inline]
    pub(crate) fn accept(&mut self, packet: &mut [u8], now: u64) -> Result<Slot, DropReason> {
        self.nat.down(packet, now, self.policy.as_ref())
    }

    /// The worker that has the flow of a packet from the internet.
    #[inline]
    pub(crate) fn worker_of(&mut self, packet: &[u8]) -> Option<u32> {
        self.nat.worker_of(packet)
    }

    /// Whether the sender of the latest refused packet is told something.
    #[inline]
    pub(crate) fn has_answer(&self) -> bool {
        self.answer.is_some()
    }

    /// Composes what the sender of the latest refused packet is told, into the scratch buffer.
    /// Returns its length.
    pub(crate) fn take_answer(&mut self, refused: &[u8]) -> Option<usize> {
        let answer = match self.answer.take()? {
            // As a firewall does: a program learns at once that its connection is refused.
            Answer::Prohibited
                if Transport::parse(refused).is_some_and(|it| it.protocol == TCP) =>
            {
                Answer::Reset
            }
            answer => answer,
        };
        let room = self.scratch.get_mut(..MAX_ANSWER_LEN)?;
        answer::write(answer, refused, &self.gateways, room)
    }

    /// Composes the answer to a packet from the internet that does not fit into the tunnel.
    pub(crate) fn write_too_big(&mut self, packet: &[u8], mtu: u16) -> Option<usize> {
        let room = self.scratch.get_mut(..MAX_ANSWER_LEN)?;
        answer::write(Answer::TooBig(mtu), packet, &self.external, room)
    }

    /// Writes the Ethernet header of a packet of the node itself.
    pub(crate) fn address(&self, frame: &mut [u8]) -> Option<()> {
        let (link, packet) = frame.split_first_chunk_mut::<ETHERNET_HEADER>()?;
        let destination = headers::destination(packet)?;
        let next = self.hops.find(destination).ok()?;
        *link = ethernet_header(next, self.hops.source, destination.is_ipv6());
        Some(())
    }

    /// The MTU of the uplink in bytes.
    pub(crate) fn mtu(&self) -> usize {
        self.hops.mtu as usize
    }

    /// The headers of a batch's datagrams. `None` if the kernel's stack must send them.
    pub(crate) fn outer_header(&self, batch: &GsoBatch) -> Option<OuterHeader> {
        OuterHeader::new(&self.hops, &batch.to, self.listen_port, batch.ecn)
    }

    /// Ends everything of a session.
    pub(crate) fn remove(&mut self, slot: Slot, now: Now) {
        self.held.remove(slot);
        self.nat.remove_session(slot);
        self.report(now);
    }

    /// Expires flows, and tells the control plane which blocks were taken and given back.
    pub(crate) fn tick(&mut self, now: Now) {
        self.nat.tick(now.nanos);
        self.may_release = true;
        self.ticks = self.ticks.wrapping_add(1);
        if self.ticks.is_multiple_of(TICKS_PER_COUNT)
            && let Some(open) = self.events.open.get(self.worker as usize)
        {
            open.write(self.nat.all_flows());
        }
        self.idle_ticks = if self.nat.flows() > 0 { 0 } else { self.idle_ticks + 1 };
        self.report(now);
    }

    /// The slot still has the session that the events are about: it is removed here before another
    /// one gets its slot.
    fn report(&mut self, now: Now) {
        for event in self.nat.take_events() {
            let account = self.accounts.get(event.slot);
            let session = account.map_or(0, |account| account.control.session.load(Relaxed));
            // The control plane empties the queue every second, and a worker has fewer blocks.
            self.events.blocks.force_push(OwnedBlock { session, event, at: now.unix });
        }
    }

    /// Whether any flow was open lately. Blocks of ports outlive their flows.
    pub(crate) fn wants_ticks(&self) -> bool {
        self.idle_ticks < MAX_IDLE_TICKS
    }

    pub(crate) fn set_policy(&mut self, policy: Arc<dyn Policy>) {
        self.policy = policy;
        self.nat.policy_changed();
    }

    pub(crate) fn set_hops(&mut self, hops: Arc<NextHops>) {
        self.hops = hops;
        self.may_release = true;
    }

    pub(crate) fn set_addresses(&mut self, v4: Vec<Ipv4Addr>, v6: V6, guard: ExitConfig) {
        self.external = external(&v4, v6, self.gateways);
        self.guard = guard;
        self.nat.set_addresses(v4, v6);
    }

    pub(crate) fn restore_block(&mut self, slot: Slot, address: IpAddr, first: u16) {
        self.nat.restore_block(slot, address, first);
    }

    pub(crate) fn set_session_flows(&mut self, limit: u32) {
        self.nat.set_session_flows(limit);
    }

    /// The open flows of a session.
    pub(crate) fn session_flows(&self, slot: Slot) -> FlowCounts {
        self.nat.session_flows(slot)
    }
}

fn external(v4: &[Ipv4Addr], v6: V6, inner: Gateways) -> Gateways {
    let v6 = match v6 {
        V6::None => inner.v6,
        V6::Address(address) | V6::Prefix(address, _) => address,
    };
    Gateways { v4: v4.first().copied().unwrap_or(inner.v4), v6 }
}

fn ethernet_header(
    MacAddress(destination): MacAddress,
    MacAddress(source): MacAddress,
    is_v6: bool,
) -> [u8; ETHERNET_HEADER] {
    let mut header = [0; ETHERNET_HEADER];
    let [to, from, kind] =
        [&destination[..], &source[..], if is_v6 { &IPV6_TYPE } else { &IPV4_TYPE }];
    for (place, byte) in header.iter_mut().zip(to.iter().chain(from).chain(kind)) {
        *place = *byte;
    }
    header
}
