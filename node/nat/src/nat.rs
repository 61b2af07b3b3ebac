//! A worker's flow table.

use std::{
    collections::VecDeque,
    net::{IpAddr, Ipv4Addr},
};

use weir_common::{AddressPlan, Slot};

use crate::{
    blocks::{Moved, Pool},
    config::{BlockEvent, FlowCounts, MAX_ADDRESSES, NatConfig, V6},
    flow::{EXTERNAL_PREFIX, EXTERNAL_V6, State, Ticks, seconds, ticks},
    fragments::{Ended, Fragments},
    hash::Keys,
    mapping::Mappings,
    owner::Owners,
    parse::mapped,
    policy::{Policy, Protocol},
    ports::PortBlock,
    session::Session,
    table::Table,
};

/// How long the whole table takes to be swept, in nanoseconds.
const SWEEP_PERIOD: u64 = 30_000_000_000;
/// The most entries that one call sweeps.
const MAX_SWEEP: u64 = 4096;
/// How often an eighth of the fragments is swept.
const FRAGMENTS_INTERVAL: Ticks = seconds(1);
/// How long a restored block waits for its first flow.
const RESTORED_TIMEOUT: Ticks = seconds(300);

/// The flow table and the translation of one worker. `now` is the time of a monotonic clock in
/// nanoseconds.
#[derive(Debug)]
pub struct Nat {
    pub(crate) table: Table,
    pub(crate) mappings: Mappings,
    pub(crate) pool: Pool,
    pub(crate) sessions: Box<[Session]>,
    /// The flows of all sessions.
    pub(crate) counts: FlowCounts,
    pub(crate) fragments: Fragments,
    pub(crate) owners: Owners,
    pub(crate) plan: AddressPlan,
    pub(crate) v6: V6,
    pub(crate) worker: u32,
    pub(crate) workers: u32,
    pub(crate) session_flows: u32,
    pub(crate) session_blocks: u16,
    pub(crate) pick_up: bool,
    pub(crate) mss: Option<[u16; 2]>,
    pub(crate) generation: u32,
    /// The time of the last call.
    pub(crate) now: Ticks,
    /// The last identification that was given out.
    id: u32,
    events: Vec<BlockEvent>,
    max_events: usize,
    pins: VecDeque<Pin>,
    /// Where the next sweep begins.
    pub(crate) hand: u32,
    swept_at: u64,
    fragments_swept_at: Ticks,
}

/// A restored block that waits for its first flow.
#[derive(Clone, Copy, Debug)]
struct Pin {
    slot: Slot,
    external: u8,
    first: u16,
    /// Until when. `None` before the first tick.
    until: Option<Ticks>,
}

impl Nat {
    /// A table without flows. All memory that it ever has is allocated here, and touched when flows
    /// need it.
    #[must_use]
    pub fn new(config: NatConfig) -> Self {
        let keys = Keys::new(config.hash_keys);
        let workers = config.workers.max(1);
        let [k0, k1] = config.hash_keys;
        let pool = Pool::new(config.ports, config.worker, workers, k0 ^ k1.rotate_left(32));
        let blocks = pool.blocks_of_an_address() as usize * (MAX_ADDRESSES + 1);
        let max_events = 2 * blocks.min(config.max_flows as usize * 2 + 64);
        let sessions = config.plan.capacity().div_ceil(workers) as usize;
        let mut nat = Self {
            table: Table::new(config.max_flows, keys),
            mappings: Mappings::new(config.max_flows, keys),
            pool,
            sessions: vec![Session::default(); sessions].into_boxed_slice(),
            counts: FlowCounts::default(),
            fragments: Fragments::new(keys),
            owners: Owners::default(),
            plan: config.plan,
            v6: V6::None,
            worker: config.worker,
            workers,
            session_flows: config.session_flows,
            session_blocks: config.session_blocks,
            pick_up: config.pick_up,
            mss: config.mss,
            generation: 0,
            now: 0,
            id: 0,
            events: Vec::with_capacity(max_events),
            max_events,
            pins: VecDeque::new(),
            hand: 0,
            swept_at: 0,
            fragments_swept_at: 0,
        };
        nat.set_addresses(config.addresses_v4, config.v6);
        nat
    }

    /// Ends everything of a session at once: flows, mappings, blocks, fragments.
    pub fn remove_session(&mut self, slot: Slot) {
        while let Some(session) = self.session_mut(slot) {
            let newest = session.newest;
            if newest == 0 {
                break;
            }
            self.end_flow(newest);
        }
        self.unpin(|pin| pin.slot == slot);
        if self.session_mut(slot).is_some_and(|session| session.fragments != 0) {
            self.end_fragments(|of| of == slot.0, |_| false);
        }
        if let Some(session) = self.session_mut(slot) {
            session.held_mut(false).forget();
            session.held_mut(true).forget();
        }
    }

    /// Ends some of what has expired. Call it often: its work is bounded.
    pub fn tick(&mut self, now: u64) {
        self.now = ticks(now);
        let elapsed = now.saturating_sub(self.swept_at).min(SWEEP_PERIOD);
        let end = u64::from(self.table.end());
        // Not for a few entries only: a call should cost nothing most of the time.
        let due = end * elapsed / SWEEP_PERIOD;
        if due >= end.min(64) {
            self.swept_at = now;
            self.sweep(due.min(MAX_SWEEP) as u32);
        }
        if self.now.wrapping_sub(self.fragments_swept_at) >= FRAGMENTS_INTERVAL {
            self.fragments_swept_at = self.now;
            let Self { fragments, sessions, workers, .. } = self;
            fragments.sweep(self.now, |ended| end_fragment(sessions, *workers, ended));
        }
        let until = self.now.wrapping_add(RESTORED_TIMEOUT);
        while let Some(pin) = self.pins.front().copied() {
            match pin.until {
                None => {
                    for pin in &mut self.pins {
                        pin.until.get_or_insert(until);
                    }
                    break;
                }
                Some(until) if until > self.now => break,
                Some(_) => {
                    self.pins.pop_front();
                    self.unpin_one(pin);
                }
            }
        }
    }

    /// The policy is another: each flow is judged again at its next packet, in either direction. One
    /// that is no longer allowed ends.
    pub fn policy_changed(&mut self) {
        self.generation = self.generation.wrapping_add(1);
    }

    /// The external addresses are others. Flows of addresses that are gone end. Those of addresses
    /// that stay go on, in whichever order they are.
    pub fn set_addresses(&mut self, v4: Vec<Ipv4Addr>, v6: V6) {
        for external in 0..=EXTERNAL_V6 {
            let stays = match self.pool.address(external) {
                None => continue,
                Some(IpAddr::V4(address)) => v4.iter().take(MAX_ADDRESSES).any(|v4| *v4 == address),
                Some(IpAddr::V6(address)) => v6 == V6::Address(address),
            };
            if !stays {
                self.end_external(external);
                self.pool.forget(external);
            }
        }
        if self.v6 != v6 && matches!(self.v6, V6::Prefix(..)) {
            self.end_external(EXTERNAL_PREFIX);
        }
        self.v6 = v6;
        for address in v4.into_iter().take(MAX_ADDRESSES) {
            self.pool.add(address.into());
        }
        if let V6::Address(address) = v6 {
            self.pool.add(address.into());
        }
    }

    /// Sets how many flows a session can have from now on. Flows that are open stay open.
    pub fn set_session_flows(&mut self, limit: u32) {
        self.session_flows = limit;
    }

    /// How many flows a session has.
    #[must_use]
    pub fn session_flows(&self, slot: Slot) -> FlowCounts {
        let session = self.session_index(slot).and_then(|index| self.sessions.get(index));
        session.map_or_else(FlowCounts::default, |session| session.counts)
    }

    /// How many flows all sessions have.
    #[must_use]
    pub fn all_flows(&self) -> FlowCounts {
        self.counts
    }

    /// How many flows there are. Some of them may have expired.
    #[must_use]
    pub fn flows(&self) -> u32 {
        self.table.len()
    }

    /// How many flows there is room for.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        self.table.capacity()
    }

    /// The blocks that were taken and given back since the last call, in order. There is room for a
    /// bounded number: until they are fetched, no session gets another block.
    pub fn take_events(&mut self) -> std::vec::Drain<'_, BlockEvent> {
        self.events.drain(..)
    }

    /// After a restart: the block that begins at a port is still the session's. Call it for each
    /// block in the order in which they were taken, before the first packet. Without a flow, the
    /// session keeps it for five minutes. False if the block is not this worker's, if it is another
    /// session's, or if the session has blocks of another address.
    pub fn restore_block(&mut self, slot: Slot, address: IpAddr, first: u16) -> bool {
        let (bytes, v6) = match address {
            IpAddr::V4(address) => (mapped(address.octets()), false),
            IpAddr::V6(address) => (address.octets(), true),
        };
        let Some(external) = self.pool.find(bytes, v6) else { return false };
        let has_room = self.has_room_for_events(1);
        let Some(index) = self.session_index(slot) else { return false };
        let Some(session) = self.sessions.get_mut(index) else { return false };
        let held = session.held_mut(v6);
        if held.count != 0 && held.external != external || held.count >= self.session_blocks {
            return false;
        }
        if held.external != external {
            held.forget();
            held.external = external;
        }
        if !has_room || !self.pool.restore(slot.0, held, first) {
            return false;
        }
        self.pins.push_back(Pin { slot, external, first, until: None });
        true
    }

    /// An identification that no other packet of the node has for a while (RFC 6864, section 5.3).
    /// Those of a flow's packets that come together follow each other, so that they can be coalesced.
    pub(crate) fn next_id(&mut self, v6: bool) -> u32 {
        self.id = self.id.wrapping_add(1);
        let bits = if v6 { 32 } else { 16 };
        let share = (1u64 << bits) / u64::from(self.workers).min(1 << bits);
        (u64::from(self.worker) * share + u64::from(self.id) % share) as u32
    }

    /// The flow, if it has not expired. Else it ends.
    #[inline(always)]
    pub(crate) fn live(&mut self, index: u32) -> u32 {
        if index != 0 && self.table.at(index).is_expired(self.now) {
            self.end_flow(index);
            return 0;
        }
        index
    }

    /// Whether the policy still allows a flow. Else it ends.
    #[inline(always)]
    pub(crate) fn judge(&mut self, index: u32, policy: &dyn Policy) -> bool {
        self.table.at(index).generation == self.generation || self.judge_again(index, policy)
    }

    #[cold]
    fn judge_again(&mut self, index: u32, policy: &dyn Policy) -> bool {
        let is_allowed = policy.allows(&self.table.at(index).as_new());
        if is_allowed {
            self.table.at_mut(index).generation = self.generation;
        } else {
            self.end_flow(index);
        }
        is_allowed
    }

    /// A flow has had a packet.
    #[inline(always)]
    pub(crate) fn touch(&mut self, index: u32, state: State) {
        let now = self.now;
        let flow = self.table.at_mut(index);
        flow.state = state;
        flow.expires = now.wrapping_add(state.timeout(flow.protocol));
    }

    /// The consumer has sent a reset, which keeps nothing alive (RFC 7857, section 7.1).
    #[cold]
    pub(crate) fn reset(&mut self, index: u32) {
        let until = self.now.wrapping_add(State::Reset.timeout(Protocol::Tcp));
        let flow = self.table.at_mut(index);
        flow.state = State::Reset;
        flow.expires = flow.expires.min(until);
    }

    /// Ends a flow, and what it was the last one of.
    pub(crate) fn end_flow(&mut self, index: u32) {
        let flow = *self.table.at(index);
        let slot = Slot(flow.slot);
        let Some(session) = self.session_index(slot) else { return };
        let Some(session) = self.sessions.get_mut(session) else { return };
        if index == 0 || flow.state == State::Free {
            return;
        }
        self.table.unlink(&mut session.newest, index);
        self.table.remove(index);
        for counts in [&mut session.counts, &mut self.counts] {
            let count = counts.of_mut(flow.protocol);
            *count = count.saturating_sub(1);
        }
        if flow.external == EXTERNAL_PREFIX {
            return;
        }
        if flow.protocol != Protocol::Tcp {
            let mapping = self.mappings.at_mut(flow.mapping);
            mapping.flows = mapping.flows.saturating_sub(1);
            if mapping.flows != 0 {
                return;
            }
            self.mappings.remove(flow.mapping);
        }
        let held = session.held_mut(flow.v6);
        let (external, port) = (flow.external, flow.external_port);
        let moved = self.pool.end_use(held, external, flow.protocol, port, self.now);
        self.note(slot, moved, false);
    }

    /// Ends the expired flows among the next `count` entries.
    pub(crate) fn sweep(&mut self, count: u32) {
        for _ in 0..count {
            self.hand += 1;
            if self.hand >= self.table.end() {
                self.hand = 0;
            }
            self.live(self.hand);
        }
    }

    /// Whether `more` events fit, beside one for each block that is still to be given back.
    pub(crate) fn has_room_for_events(&self, more: usize) -> bool {
        self.events.len() + self.pool.held() as usize + more < self.max_events
    }

    pub(crate) fn note(&mut self, slot: Slot, moved: Option<Moved>, taken: bool) {
        if let Some(Moved { external, first, address }) = moved {
            let block = PortBlock { address: external, first };
            self.events.push(BlockEvent { slot, block, address, taken });
        }
    }

    /// Ends everything of an external address.
    fn end_external(&mut self, external: u8) {
        for index in 1..self.table.end() {
            let flow = self.table.at(index);
            if flow.state != State::Free && flow.external == external {
                self.end_flow(index);
            }
        }
        self.unpin(|pin| pin.external == external);
        self.end_fragments(|_| false, |of| of == external);
    }

    fn end_fragments(&mut self, slot: impl Fn(u32) -> bool, external: impl Fn(u8) -> bool) {
        let Self { fragments, sessions, workers, .. } = self;
        fragments.end(
            |followed| slot(followed.slot) || external(followed.external),
            |ended| end_fragment(sessions, *workers, ended),
        );
    }

    fn unpin(&mut self, which: impl Fn(&Pin) -> bool) {
        for _ in 0..self.pins.len() {
            if let Some(pin) = self.pins.pop_front() {
                if which(&pin) {
                    self.unpin_one(pin);
                } else {
                    self.pins.push_back(pin);
                }
            }
        }
    }

    fn unpin_one(&mut self, pin: Pin) {
        let Some(index) = self.session_index(pin.slot) else { return };
        let Some(session) = self.sessions.get_mut(index) else { return };
        let held = session.held_mut(pin.external == EXTERNAL_V6);
        let moved = self.pool.unpin(pin.slot.0, held, pin.external, pin.first, self.now);
        self.note(pin.slot, moved, false);
    }

    /// A packet's fragments are no longer followed.
    pub(crate) fn fragments_ended(&mut self, ended: Option<Ended>) {
        if let Some(ended) = ended {
            end_fragment(&mut self.sessions, self.workers, ended);
        }
    }
}

fn end_fragment(sessions: &mut [Session], workers: u32, Ended(slot): Ended) {
    if let Some(session) = sessions.get_mut((slot / workers) as usize) {
        session.fragments = session.fragments.saturating_sub(1);
    }
}
