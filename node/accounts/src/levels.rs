//! Limits that are the same for every session, from the control plane to the workers.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// What each session may reach. 0 is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ContactLimits {
    /// New flows per second; five times as many at once.
    pub new_flows: u32,
    /// Different destinations in ten seconds.
    pub destinations: u32,
}

impl ContactLimits {
    /// Whether there is no limit at all.
    #[must_use]
    #[inline(always)]
    pub const fn is_off(self) -> bool {
        self.new_flows == 0 && self.destinations == 0
    }
}

/// What is the same for every session: the most that it gets of the node's rate, each way, in bytes
/// of inner packets per second, and what it may reach; 0 is no limit. One writer (`limits`), read by
/// each worker once a turn.
#[derive(Debug, Default)]
pub struct Levels {
    up: AtomicU64,
    down: AtomicU64,
    new_flows: AtomicU32,
    destinations: AtomicU32,
}

impl Levels {
    /// Says what each session may have at most; 0 for no limit.
    pub fn set(&self, up: u64, down: u64) {
        self.up.store(up, Relaxed);
        self.down.store(down, Relaxed);
    }

    /// What each session may have at most: up and down.
    #[must_use]
    pub fn get(&self) -> [u64; 2] {
        [self.up.load(Relaxed), self.down.load(Relaxed)]
    }

    /// Says what each session may reach.
    pub fn set_contacts(&self, limits: ContactLimits) {
        self.new_flows.store(limits.new_flows, Relaxed);
        self.destinations.store(limits.destinations, Relaxed);
    }

    /// What each session may reach.
    #[must_use]
    pub fn contacts(&self) -> ContactLimits {
        ContactLimits {
            new_flows: self.new_flows.load(Relaxed),
            destinations: self.destinations.load(Relaxed),
        }
    }
}
