//! New flows: who is asked, where there is room, and which port they get.

use weir_common::{DropReason, Slot};

use crate::{
    answer::Answer,
    config::{FlowGate, V6},
    flow::{DownKey, EXTERNAL_PREFIX, EXTERNAL_V6, Flow, State, UpKey, new_flow},
    mapping::MappingKey,
    nat::Nat,
    policy::{Policy, Protocol},
    refusal::Refusal,
};

/// How many entries are looked at to find one that may end.
const PROBES: u32 = 64;

/// How many ports of a block are tried for a connection before another block is taken: each try is a
/// look-up in the whole table.
const PORT_PROBES: u32 = 4;

/// Where a flow leaves.
#[derive(Clone, Copy, Debug)]
struct Place {
    external: u8,
    port: u16,
    mapping: u32,
}

pub(crate) fn refuse(reason: DropReason, answer: Answer) -> Refusal {
    Refusal { reason, answer: Some(answer) }
}

impl Nat {
    /// Begins a flow.
    #[cold]
    pub(crate) fn open(
        &mut self,
        key: &UpKey,
        state: State,
        now: u64,
        policy: &dyn Policy,
        limits: &mut dyn FlowGate,
    ) -> Result<u32, Refusal> {
        let new = new_flow(key.remote, key.v6, key.remote_port, key.protocol);
        if self.is_own(key) || !policy.allows(&new) {
            return Err(refuse(DropReason::Policy, Answer::Prohibited));
        }
        limits.admit(&new, now)?;
        let slot = Slot(key.slot);
        if !self.make_room(slot) {
            return Err(refuse(DropReason::FlowTable, Answer::Unreachable));
        }
        let has_v6 = self.v6 != V6::None;
        if key.v6 && !has_v6 || !key.v6 && !self.pool.has_v4() {
            return Err(refuse(DropReason::NextHop, Answer::Unreachable));
        }
        let mut place = self.place(key, state);
        if place.is_none() && state != State::PickedUp && self.evict(slot) {
            place = self.place(key, state);
        }
        let Some(place) = place else {
            return Err(refuse(DropReason::Ports, Answer::Unreachable));
        };
        let flow = Flow {
            remote: key.remote,
            slot: key.slot,
            expires: self.now.wrapping_add(state.timeout(key.protocol)),
            generation: self.generation,
            mapping: place.mapping,
            port: key.port,
            external_port: place.port,
            remote_port: key.remote_port,
            external: place.external,
            protocol: key.protocol,
            state,
            v6: key.v6,
            ..Flow::default()
        };
        let index = self.table.insert(flow);
        let session = self.session_index(slot).and_then(|index| self.sessions.get_mut(index));
        let Some(session) = session else { return Err(DropReason::FlowTable.into()) };
        *session.counts.of_mut(key.protocol) += 1;
        *self.counts.of_mut(key.protocol) += 1;
        self.table.link(&mut session.newest, index);
        if place.mapping != 0 {
            self.mappings.at_mut(place.mapping).flows += 1;
        }
        if key.protocol == Protocol::Tcp && place.external != EXTERNAL_PREFIX {
            self.pool.begin_use(place.external, Protocol::Tcp, place.port);
        }
        Ok(index)
    }

    /// Whether the flow goes to the node itself: consumers do not reach each other (RFC 4787, REQ-9
    /// is for those who should).
    fn is_own(&self, key: &UpKey) -> bool {
        let [a, b] = key.remote.map(u64::to_ne_bytes);
        let mut address = [0; 16];
        for (to, from) in address.iter_mut().zip(a.iter().chain(&b)) {
            *to = *from;
        }
        self.pool.find(address, key.v6).is_some()
            || key.v6 && self.slot_of_prefix(address).is_some()
    }

    /// Makes room for one more flow of a session: of what has expired, or else of what the session
    /// itself has.
    fn make_room(&mut self, slot: Slot) -> bool {
        if self.table.is_full() {
            self.sweep(PROBES);
        }
        if self.session_flows(slot).total() < self.session_flows && !self.table.is_full() {
            return true;
        }
        self.evict(slot)
    }

    /// Ends a flow of a session that has expired or is over, or else one that nobody has answered.
    fn evict(&mut self, slot: Slot) -> bool {
        let newest = self.session_mut(slot).map_or(0, |session| session.newest);
        if newest == 0 {
            return false;
        }
        let mut index = self.table.at(newest).newer;
        let mut unanswered = 0;
        for _ in 0..PROBES {
            let flow = *self.table.at(index);
            if flow.is_expired(self.now) || flow.state.is_over() {
                self.end_flow(index);
                return true;
            }
            if unanswered == 0 && flow.state.is_unanswered() {
                unanswered = index;
            }
            if index == newest {
                break;
            }
            index = flow.newer;
        }
        // The next call looks at others.
        let seen = self.table.at(index).older;
        if let Some(session) = self.session_mut(slot).filter(|_| index != newest) {
            session.newest = seen;
        }
        self.end_flow(unanswered);
        unanswered != 0
    }

    /// Finds where a flow leaves, and takes another block for it if it must.
    fn place(&mut self, key: &UpKey, state: State) -> Option<Place> {
        if key.v6 && matches!(self.v6, V6::Prefix(..)) {
            self.prefix_address(Slot(key.slot))?;
            return Some(Place { external: EXTERNAL_PREFIX, port: key.port, mapping: 0 });
        }
        if key.protocol == Protocol::Tcp {
            return self.place_connection(key, state != State::PickedUp);
        }
        let UpKey { slot, port, protocol, v6, .. } = *key;
        let mapping_key = MappingKey { slot, port, protocol, v6 };
        let found = self.mappings.find(&mapping_key);
        if found != 0 {
            let mapping = self.mappings.at(found);
            let (external, port) = (mapping.external, mapping.external_port);
            return Some(Place { external, port, mapping: found });
        }
        let find = |nat: &Self| {
            let held = nat.sessions.get(nat.session_index(Slot(slot))?)?.held(v6);
            Some((held.external, nat.pool.find_unused(held, port, protocol)?))
        };
        let (external, port) = match find(self) {
            Some(found) => found,
            None => {
                self.take_block(key)?;
                find(self)?
            }
        };
        let mapping = self.mappings.insert(&mapping_key, external, port);
        self.pool.begin_use(external, protocol, port);
        Some(Place { external, port, mapping })
    }

    /// A port for a TCP connection: one that no other connection to the same endpoint has.
    fn place_connection(&mut self, key: &UpKey, may_take: bool) -> Option<Place> {
        let find = |nat: &Self, probes| {
            let held = nat.sessions.get(nat.session_index(Slot(key.slot))?)?.held(key.v6);
            let down_key = |port| DownKey {
                remote: key.remote,
                slot: 0,
                port,
                remote_port: key.remote_port,
                protocol: Protocol::Tcp,
                external: held.external,
            };
            let is_free = |port| {
                let index = nat.table.find_down(&down_key(port));
                index == 0 || nat.table.at(index).is_expired(nat.now)
            };
            let port = nat.pool.find_port(held, key.port, probes, is_free)?;
            Some((held.external, port, nat.table.find_down(&down_key(port))))
        };
        let mut found = find(self, PORT_PROBES);
        if found.is_none() && may_take && self.take_block(key).is_some() {
            found = find(self, PORT_PROBES);
        }
        // Without another block, every port that the session has is tried.
        let (external, port, expired) = match found {
            Some(found) => found,
            None => find(self, u32::MAX)?,
        };
        if expired != 0 {
            // It may have been the last one of its block, which is then given back.
            self.pool.begin_use(external, Protocol::Tcp, port);
            self.end_flow(expired);
            self.pool.drop_use(external, port);
        }
        Some(Place { external, port, mapping: 0 })
    }

    /// Takes another block for the session of a flow.
    fn take_block(&mut self, key: &UpKey) -> Option<()> {
        if !self.has_room_for_events(2) {
            return None;
        }
        let slot = Slot(key.slot);
        let index = self.session_index(slot)?;
        let session = self.sessions.get_mut(index)?;
        let held = session.held_mut(key.v6);
        if held.count >= self.session_blocks {
            return None;
        }
        if held.count == 0 {
            let external = self.pool.choose_address(key.slot, key.v6, self.now)?;
            if held.external != external {
                held.forget();
                held.external = external;
            }
        }
        debug_assert_eq!(key.v6, held.external == EXTERNAL_V6);
        let moved = self.pool.take(key.slot, held, self.now)?;
        self.note(slot, Some(moved), true);
        Some(())
    }
}
