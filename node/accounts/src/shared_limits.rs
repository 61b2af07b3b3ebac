//! Limits that are the same for every session. The control plane sets them and the workers read
//! them.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// Limits on the flows that a session opens. 0 means no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowLimits {
    /// New flows per second. A burst may have five times as many.
    pub new_flows: u32,
    /// Different destinations in ten seconds.
    pub destinations: u32,
}

impl FlowLimits {
    /// Whether there is no limit at all.
    #[must_use]
    #[inline(always)]
    pub const fn is_off(self) -> bool {
        self.new_flows == 0 && self.destinations == 0
    }
}

/// The fair share of the node's rate (max-min fairness), and the flow limits. The control plane is
/// the one writer. Each worker reads them once in an iteration.
#[derive(Debug, Default)]
pub struct SharedLimits {
    share_up: AtomicU64,
    share_down: AtomicU64,
    new_flows: AtomicU32,
    destinations: AtomicU32,
}

impl SharedLimits {
    /// Sets the rate beyond which no session gets any of the node's rate, in bytes of inner packets
    /// per second. 0 means no limit.
    pub fn set_fair_share(&self, up: u64, down: u64) {
        self.share_up.store(up, Relaxed);
        self.share_down.store(down, Relaxed);
    }

    /// The fair share up and down, in bytes of inner packets per second. 0 means no limit.
    #[must_use]
    #[inline]
    pub fn fair_share(&self) -> [u64; 2] {
        [self.share_up.load(Relaxed), self.share_down.load(Relaxed)]
    }

    /// Sets the flow limits of every session.
    pub fn set_flow_limits(&self, limits: FlowLimits) {
        self.new_flows.store(limits.new_flows, Relaxed);
        self.destinations.store(limits.destinations, Relaxed);
    }

    /// The flow limits of every session.
    #[must_use]
    #[inline]
    pub fn flow_limits(&self) -> FlowLimits {
        FlowLimits {
            new_flows: self.new_flows.load(Relaxed),
            destinations: self.destinations.load(Relaxed),
        }
    }
}
