//! How the ledger is, for those who watch the node. Nothing here waits for the disk, so that it can
//! be asked while the disk does not answer.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use alloy_primitives::U256;

use crate::{LedgerError, SharedLedger, ecash::MintTotals};

#[derive(Debug)]
pub(crate) struct Status(Mutex<State>);

#[derive(Debug)]
struct State {
    /// When all counters were last in the ledger.
    saved: Instant,
    /// What all channels have promised, in wei.
    earned: U256,
    /// What came of each mint's ecash.
    mints: Vec<MintTotals>,
    /// Why the ledger cannot be written, while it cannot.
    last_error: Option<String>,
    /// What is not as weir wrote it.
    damage: Option<String>,
}

impl Status {
    pub(crate) fn new(earned: U256) -> Self {
        let (mints, last_error, damage) = Default::default();
        Self(Mutex::new(State { saved: Instant::now(), earned, mints, last_error, damage }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SharedLedger {
    /// The time since all counters were last in the ledger.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.status().state().saved.elapsed()
    }

    /// Notes that all counters are in the ledger now.
    pub fn set_saved(&self) {
        self.status().state().saved = Instant::now();
    }

    /// What consumers have promised in all, in wei.
    #[must_use]
    pub fn earned(&self) -> U256 {
        self.status().state().earned
    }

    /// Notes that a channel has promised `more` wei than before.
    pub fn add_earned(&self, more: U256) {
        let mut state = self.status().state();
        state.earned = state.earned.saturating_add(more);
    }

    /// What came of each mint's ecash, when it was last noted.
    #[must_use]
    pub fn mints(&self) -> Vec<MintTotals> {
        self.status().state().mints.clone()
    }

    /// Notes what came of each mint's ecash.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be read.
    pub fn note_mints(&self) -> Result<(), LedgerError> {
        let mints = self.lock().mint_totals()?;
        self.status().state().mints = mints;
        Ok(())
    }

    /// Why new sessions and credit are refused: the ledger is damaged, or cannot be written. `None`
    /// while it is sound and writable.
    #[must_use]
    pub fn last_error(&self) -> Option<String> {
        let state = self.status().state();
        state.damage.clone().or_else(|| state.last_error.clone())
    }

    /// Sets why the ledger cannot be written, or `None` if it can. Returns what was set before.
    pub fn set_last_error(&self, error: Option<String>) -> Option<String> {
        std::mem::replace(&mut self.status().state().last_error, error)
    }

    /// Refuses new sessions and credit from now on, because the ledger was found to be damaged.
    /// Traffic within existing credit continues, and is counted.
    pub fn set_damage(&self, what: &str) {
        if let Err(error) = self.lock().set_damage(what) {
            tracing::warn!(%error, "cannot record for the next start that the ledger is damaged");
        }
        self.status().state().damage = Some(LedgerError::Unsound(what.to_owned()).to_string());
    }
}
