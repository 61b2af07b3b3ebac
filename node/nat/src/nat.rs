//! A worker's flow table.

use std::net::Ipv4Addr;

use weir_common::{DropReason, Slot};

use crate::{
    config::{BlockEvent, FlowCounts, FlowGate, NatConfig, V6},
    policy::Policy,
    refusal::Refusal,
};

/// The flow table and the translation of one worker. `now` is the time of a monotonic clock in
/// nanoseconds.
#[derive(Debug)]
pub struct Nat {
    config: NatConfig,
    events: Vec<BlockEvent>,
    generation: u32,
}

impl Nat {
    /// A table without flows. All memory that it ever has is allocated here, and touched when flows
    /// need it.
    #[must_use]
    pub fn new(config: NatConfig) -> Self {
        Self { config, events: Vec::new(), generation: 0 }
    }

    /// Translates a packet of a session to the internet in place: its source address and port, its
    /// checksums, its hop limit and the maximum segment size of a SYN.
    ///
    /// # Errors
    ///
    /// Why the packet does not leave. Its bytes are then unchanged.
    pub fn up(
        &mut self,
        _packet: &mut [u8],
        _slot: Slot,
        _now: u64,
        _policy: &dyn Policy,
        _limits: &mut dyn FlowGate,
    ) -> Result<(), Refusal> {
        Err(DropReason::Protocol.into())
    }

    /// Translates a packet from the internet in place, and returns the session that it goes to. The
    /// packet is an IP packet without what may follow it in its frame.
    ///
    /// # Errors
    ///
    /// Why the packet goes to no session. Its bytes are then unchanged.
    pub fn down(
        &mut self,
        _packet: &mut [u8],
        _now: u64,
        _policy: &dyn Policy,
    ) -> Result<Slot, DropReason> {
        Err(DropReason::DownNoFlow)
    }

    /// Ends everything of a session at once: flows, mappings, blocks, fragments.
    pub fn remove_session(&mut self, _slot: Slot) {}

    /// Ends some of what has expired. Call it often: its work is bounded.
    pub fn tick(&mut self, _now: u64) {}

    /// The policy is another: each flow is judged again at its next packet, in either direction. One
    /// that is no longer allowed ends.
    pub fn policy_changed(&mut self) {
        self.generation = self.generation.wrapping_add(1);
    }

    /// The external addresses are others. Flows of addresses that are gone end.
    pub fn set_addresses(&mut self, v4: Vec<Ipv4Addr>, v6: V6) {
        self.config.addresses_v4 = v4;
        self.config.v6 = v6;
    }

    /// How many flows a session has.
    #[must_use]
    pub fn session_flows(&self, _slot: Slot) -> FlowCounts {
        FlowCounts::default()
    }

    /// How many flows there are.
    #[must_use]
    pub fn flows(&self) -> u32 {
        0
    }

    /// How many flows there is room for.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        self.config.max_flows
    }

    /// The blocks that were taken and given back since the last call, in order. There is room for a
    /// bounded number: until they are fetched, no session gets another block.
    pub fn take_events(&mut self) -> std::vec::Drain<'_, BlockEvent> {
        self.events.drain(..)
    }

    /// After a restart: the block that begins at a port is still the session's. Call it for each
    /// block in the order in which they were taken, before the first packet. False if the block is
    /// not this worker's, or another session's.
    pub fn restore_block(&mut self, _slot: Slot, _address: Ipv4Addr, _first: u16) -> bool {
        false
    }
}
