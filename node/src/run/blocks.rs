//! Brings to the ledger which session takes and gives back which block of external ports.

use std::sync::{Mutex, PoisonError};

use tracing::warn;

use weir_control::flows::SharedFlowView;
use weir_ledger::{BlockEvent, LedgerError, SharedLedger};

/// Events that wait while the ledger cannot be written, at most: some 64 MB. Beyond that the oldest
/// are lost, and abuse notices about them cannot be answered.
const MAX_PENDING: usize = 1 << 20;

/// The way of the events from the packet path to the ledger.
pub(super) struct BlockJournal {
    flows: SharedFlowView,
    ledger: SharedLedger,
    /// What was not written yet, in order.
    pending: Mutex<Vec<BlockEvent>>,
}

impl BlockJournal {
    pub(super) fn new(flows: SharedFlowView, ledger: SharedLedger) -> Self {
        Self { flows, ledger, pending: Mutex::default() }
    }

    /// Whether something has happened that is not written.
    pub(super) fn has_news(&self) -> bool {
        self.flows.has_block_events()
    }

    /// Writes what has happened since the last time, and what could not be written then.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be written. The next call tries again.
    pub(super) fn write(&self) -> Result<(), LedgerError> {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        pending.extend(self.flows.take_block_events());
        if pending.is_empty() {
            return Ok(());
        }
        let written = self.ledger.lock().write_blocks(&pending);
        match written {
            Ok(()) => pending.clear(),
            Err(_) => drop_oldest(&mut pending, MAX_PENDING),
        }
        written
    }
}

fn drop_oldest(pending: &mut Vec<BlockEvent>, max: usize) {
    let lost = pending.len().saturating_sub(max);
    if lost > 0 {
        pending.drain(..lost);
        warn!(lost, "blocks of ports were not recorded: the ledger could not be written for long");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use weir_control::flows::{Egress, FlowView, NatTotals, SessionFlows};
    use weir_ledger::{Ports, SessionId};
    use weir_sessions::registry::rig::Rig;

    const FIRST: Ports = Ports {
        address: std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
        first: 64,
        length: 32,
    };

    /// A packet path that says what it was given to say.
    #[derive(Default)]
    struct Path(Mutex<Vec<BlockEvent>>);

    impl FlowView for Path {
        fn egress(&self) -> Egress {
            Egress::default()
        }

        fn totals(&self) -> Option<NatTotals> {
            None
        }

        fn sessions(&self) -> Vec<SessionFlows> {
            Vec::new()
        }

        fn take_block_events(&self) -> Vec<BlockEvent> {
            std::mem::take(&mut self.0.lock().expect("not poisoned"))
        }
    }

    fn taken(session: SessionId, at: u64) -> BlockEvent {
        BlockEvent::Taken { session, ports: FIRST, at }
    }

    #[test]
    fn what_cannot_be_written_waits_and_is_written_in_its_order() {
        let folder = tempfile::tempdir().expect("a folder");
        let rig = Rig::start(folder.path(), 4);
        let [one, two] = [(), ()].map(|()| rig.add(None).session.id);
        let path = Arc::new(Path::default());
        let journal = BlockJournal::new(path.clone(), rig.ledger.clone());
        journal.write().expect("nothing to write");
        rig.ledger.lock().refuse_changes(true);
        path.0.lock().expect("not poisoned").push(taken(one, 100));
        assert!(journal.write().is_err());
        path.0.lock().expect("not poisoned").push(taken(two, 200));
        assert!(journal.write().is_err());
        rig.ledger.lock().refuse_changes(false);
        journal.write().expect("written");
        let who = |at| {
            let found = rig.ledger.port_log().owners(FIRST.address, 70, at).expect("read");
            found.iter().map(|span| span.session).collect::<Vec<_>>()
        };
        assert_eq!((who(150), who(250)), (vec![one], vec![two]));
        journal.write().expect("nothing to write");
        assert_eq!(rig.ledger.lock().count("port_blocks"), 2, "each was written once");
    }

    #[test]
    fn of_too_many_that_wait_the_newest_stay() {
        let session = SessionId::new(7).expect("not zero");
        let mut pending: Vec<_> = (0..5).map(|at| taken(session, at)).collect();
        drop_oldest(&mut pending, 5);
        assert_eq!(pending.len(), 5);
        drop_oldest(&mut pending, 2);
        assert_eq!(pending, [taken(session, 3), taken(session, 4)]);
    }
}
