//! What the control plane reads of the workers' exits: blocks of ports, and counts of flows.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crossbeam::queue::ArrayQueue;
use weir_nat::{BlockEvent, FlowCounts};

/// The number of block events that wait for the control plane.
const EVENTS: usize = 1 << 16;

/// A block of ports that a session has taken or given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnedBlock {
    /// The number of the session that has the slot, as its account has it.
    pub session: u64,
    /// What happened.
    pub event: BlockEvent,
    /// When, in seconds since 1970.
    pub at: u64,
}

/// The open flows of a worker, about once a second.
#[derive(Debug, Default)]
pub(crate) struct OpenFlows {
    tcp: AtomicU32,
    udp: AtomicU32,
    icmp: AtomicU32,
}

impl OpenFlows {
    pub(crate) fn read(&self) -> FlowCounts {
        let [tcp, udp, icmp] = [&self.tcp, &self.udp, &self.icmp].map(|count| count.load(Relaxed));
        FlowCounts { tcp, udp, icmp }
    }

    pub(super) fn write(&self, counts: FlowCounts) {
        self.tcp.store(counts.tcp, Relaxed);
        self.udp.store(counts.udp, Relaxed);
        self.icmp.store(counts.icmp, Relaxed);
    }
}

/// What the control plane reads from all workers' exits.
#[derive(Debug)]
pub(crate) struct ExitEvents {
    /// The blocks of ports that sessions have taken and given back, in order.
    pub blocks: ArrayQueue<OwnedBlock>,
    /// The open flows of each worker.
    pub open: Box<[OpenFlows]>,
    /// How many flows there can be.
    pub capacity: u32,
}

impl ExitEvents {
    pub(crate) fn new(workers: usize, capacity: u32) -> Self {
        let open = (0..workers).map(|_| OpenFlows::default()).collect();
        Self { blocks: ArrayQueue::new(EVENTS), open, capacity }
    }
}
