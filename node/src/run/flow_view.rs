//! The flows and the blocks of ports of a node that translates itself, for the control plane and the
//! ledger.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use weir_common::Slot;
use weir_control::flows::{Egress, FlowView, NatTotals, SessionFlows};
use weir_dataplane::{Exits, OwnedBlock};
use weir_ledger::{BlockEvent, LedgerError, Ports, SessionId, SharedLedger};
use weir_sessions::Sessions;

use super::{addresses::AddressFollower, egress::EgressPath};

/// Consumers' flows, whichever way they leave.
pub(super) struct Flows {
    /// As chosen at the start.
    pub(super) path: EgressPath,
    /// By which addresses consumers leave past the kernel.
    pub(super) addresses: Option<Arc<AddressFollower>>,
    /// `None` if the kernel translates.
    pub(super) exits: Option<Exits>,
    pub(super) sessions: Arc<Sessions>,
    pub(super) blocks: Arc<Blocks>,
}

/// The blocks of ports that sessions hold.
#[derive(Debug)]
pub(super) struct Blocks {
    held: Mutex<HashMap<SessionId, u64>>,
    /// The ports in a block.
    pub(super) block_ports: u16,
    /// The ports that there are, of all addresses together.
    pub(super) ports: u64,
}

impl Blocks {
    pub(super) fn new(ports: u64, block_ports: u16) -> Self {
        Self { held: Mutex::default(), block_ports, ports }
    }

    fn note(&self, events: &[BlockEvent]) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        for event in events {
            match event {
                BlockEvent::Taken { session, .. } => *held.entry(*session).or_default() += 1,
                BlockEvent::Released { session, .. } => {
                    if let Some(count) = held.get_mut(session) {
                        *count = count.saturating_sub(1);
                    }
                    held.retain(|_, count| *count > 0);
                }
            }
        }
    }

    fn of(&self, session: SessionId) -> u64 {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.get(&session).copied().unwrap_or_default()
    }

    fn all(&self) -> u64 {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).values().sum()
    }
}

impl FlowView for Flows {
    fn egress(&self) -> Egress {
        let addresses = self.addresses.as_ref().map(|addresses| addresses.describe());
        let reason = addresses.unwrap_or_else(|| self.path.note.clone());
        Egress { mode: self.path.word.to_owned(), reason }
    }

    fn totals(&self) -> Option<NatTotals> {
        let exits = self.exits.as_ref()?;
        let open = exits.open_flows();
        Some(NatTotals {
            tcp: open.tcp.into(),
            udp: open.udp.into(),
            icmp: open.icmp.into(),
            flow_capacity: exits.capacity().into(),
            ports_used: self.blocks.all() * u64::from(self.blocks.block_ports),
            ports: self.blocks.ports,
        })
    }

    fn sessions(&self) -> Vec<SessionFlows> {
        let Some(exits) = &self.exits else { return Vec::new() };
        let all = self.sessions.list();
        let slots: Vec<Slot> = all.iter().map(|snapshot| snapshot.session.slot).collect();
        let counts = exits.session_flows(&slots);
        let each = all.iter().zip(counts).map(|(snapshot, open)| SessionFlows {
            session: snapshot.session.id.to_string(),
            tcp: open.tcp.into(),
            udp: open.udp.into(),
            icmp: open.icmp.into(),
            blocks: self.blocks.of(snapshot.session.id),
        });
        each.filter(|session| session.flows() > 0 || session.blocks > 0).collect()
    }

    fn has_block_events(&self) -> bool {
        self.exits.as_ref().is_some_and(Exits::has_block_events)
    }

    fn take_block_events(&self) -> Vec<BlockEvent> {
        let Some(exits) = &self.exits else { return Vec::new() };
        let blocks = std::iter::from_fn(|| exits.next_block_event());
        let events: Vec<BlockEvent> = blocks.filter_map(|block| self.event(&block)).collect();
        self.blocks.note(&events);
        events
    }
}

impl Flows {
    fn event(&self, block: &OwnedBlock) -> Option<BlockEvent> {
        let session = SessionId::new(block.session)?;
        let length = u32::from(self.blocks.block_ports);
        let ports = Ports { address: block.event.address, first: block.event.block.first, length };
        let at = block.at;
        Some(if block.event.taken {
            BlockEvent::Taken { session, ports, at }
        } else {
            BlockEvent::Released { session, ports, at }
        })
    }
}

/// Gives sessions the blocks back that they had before a restart.
///
/// # Errors
///
/// Fails if the ledger cannot be read.
pub(super) fn restore(
    exits: &Exits,
    sessions: &Sessions,
    ledger: &SharedLedger,
    blocks: &Blocks,
) -> Result<(), LedgerError> {
    let slots: HashMap<SessionId, Slot> = sessions
        .list()
        .into_iter()
        .map(|snapshot| (snapshot.session.id, snapshot.session.slot))
        .collect();
    for span in ledger.lock().open_blocks()? {
        let Some(slot) = slots.get(&span.session) else { continue };
        exits.restore_block(*slot, span.ports.address, span.ports.first);
        let (session, ports, at) = (span.session, span.ports, span.since);
        let event = BlockEvent::Taken { session, ports, at };
        blocks.note(&[event]);
    }
    Ok(())
}
