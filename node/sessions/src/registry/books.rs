//! How the books stand: what whoever watches the node wants to know of the ledger. Nothing here
//! waits for the disk, so that it can be asked while the disk does not answer.

use std::time::{Duration, Instant};

use alloy_primitives::U256;

use super::*;

pub(super) struct Books(Mutex<State>);

struct State {
    /// When all counters were last in the ledger.
    saved: Instant,
    /// What all channels have promised, in wei.
    earned: U256,
    /// Why the ledger cannot be written, while it cannot.
    trouble: Option<String>,
    /// What is not as weir wrote it.
    damage: Option<String>,
}

impl Books {
    pub(super) fn new(earned: U256) -> Self {
        Self(Mutex::new(State { saved: Instant::now(), earned, trouble: None, damage: None }))
    }

    /// All counters are in the ledger.
    pub(super) fn saved(&self) {
        self.state().saved = Instant::now();
    }

    /// A channel has promised more than before.
    pub(super) fn earned(&self, more: U256) {
        let mut state = self.state();
        state.earned = state.earned.saturating_add(more);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sessions {
    /// How long ago all counters were in the ledger.
    #[must_use]
    pub fn ledger_age(&self) -> Duration {
        self.books.state().saved.elapsed()
    }

    /// Why nothing can be sold: the ledger cannot be written, or is damaged. `None` while it can.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        let state = self.books.state();
        state.damage.clone().or_else(|| state.trouble.clone())
    }

    /// The ledger was found to be damaged: from now on nothing is sold on it. Traffic within the
    /// credit that there is goes on, and is counted.
    pub fn set_damage(&self, what: &str) {
        if let Err(error) = self.store().set_damage(what) {
            tracing::warn!(%error, "cannot record for the next start that the ledger is damaged");
        }
        self.books.state().damage = Some(StoreError::Unsound(what.to_owned()).to_string());
    }

    /// Says whether the ledger can be written, and gives what was said before.
    pub fn set_trouble(&self, trouble: Option<String>) -> Option<String> {
        std::mem::replace(&mut self.books.state().trouble, trouble)
    }

    /// What consumers have promised in all, in wei.
    #[must_use]
    pub fn earned(&self) -> U256 {
        self.books.state().earned
    }

    /// Billed bytes of sessions that pay as they go, which their payments do not cover yet.
    #[must_use]
    pub fn unpaid_bytes(&self) -> u64 {
        let live = self.read();
        let unpaid = live.by_id.values().filter_map(|entry| {
            let paid = entry.agreement.as_ref()?.paid_bytes(entry.clock.seconds());
            let covered = paid.saturating_add(entry.credit.bytes.unwrap_or(0));
            Some(billed(&self.counters(entry)).saturating_sub(covered))
        });
        unpaid.fold(0, u64::saturating_add)
    }
}
