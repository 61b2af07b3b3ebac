//! Limits that come from the node: rates, how many sessions, and times at which none has traffic.

use super::{SessionError, Sessions};
use crate::{Hold, Snapshot};
use weir_ledger::{OwnRates, SessionId};

/// What holds for all sessions.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Common {
    /// The rates of sessions without their own, up and down, in bits per second; 0 is no limit.
    rates: [u64; 2],
    /// The most sessions at once; 0 for as many as there are slots.
    at_most: u32,
    /// Why no session has traffic.
    pub(super) held: Option<Hold>,
}

impl Sessions {
    /// Gives a session rates of its own, in place of those that it had.
    ///
    /// # Errors
    ///
    /// When there is no such session, or the ledger cannot be written; nothing has changed then.
    pub fn set_rates(&self, which: &str, rates: OwnRates) -> Result<Snapshot, SessionError> {
        let mut ledger = self.ledger.lock();
        let id = self.read().find(which)?.session.id;
        ledger.set_rates(id, rates)?;
        if let Some(entry) = self.write().by_id.get_mut(&id) {
            entry.rates = rates;
        }
        self.apply_rates(id);
        drop(ledger);
        self.get(&id.to_string())
    }

    /// Sets the rates of all sessions that have none of their own, in bits per second; 0 for no
    /// limit. Takes effect with the next packet.
    pub fn set_default_rates(&self, up: u64, down: u64) {
        self.write().common.rates = [up, down];
        self.ids().into_iter().for_each(|id| self.apply_rates(id));
    }

    /// Sets the most sessions at once; 0 for as many as there are slots. Those that there are stay.
    pub fn set_at_most(&self, sessions: u32) {
        self.write().common.at_most = sessions;
    }

    /// The most sessions that there can be now.
    #[must_use]
    pub fn at_most(&self) -> u32 {
        match self.read().common.at_most {
            0 => self.max,
            at_most => at_most.min(self.max),
        }
    }

    /// Pauses all sessions for this reason, or ends that. Their own states come back then. The
    /// ledger knows nothing of it.
    pub fn hold(&self, held: Option<Hold>) {
        let mut live = self.write();
        if live.common.held == held {
            return;
        }
        live.common.held = held;
        drop(live);
        self.ids().into_iter().for_each(|id| self.apply_credit(id));
    }

    /// Why no session has traffic, if so.
    #[must_use]
    pub fn held(&self) -> Option<Hold> {
        self.read().common.held
    }

    /// Whether another session may be made.
    pub(super) fn check_room(&self) -> Result<(), SessionError> {
        let at_most = self.at_most();
        let live = self.read();
        if live.common.held == Some(Hold::Quota) {
            return Err(SessionError::Quota);
        }
        if at_most < self.max && live.by_id.len() >= at_most as usize {
            return Err(SessionError::AtMost(at_most));
        }
        Ok(())
    }

    /// Makes the account say what the session's rates are. This is the one place from which rates
    /// reach the packet path.
    pub(super) fn apply_rates(&self, id: SessionId) {
        let live = self.read();
        let Some(entry) = live.by_id.get(&id) else { return };
        let [up, down] = live.common.rates_of(entry.rates);
        if let Some(account) = self.accounts.get(entry.session.slot) {
            account.set_rates(up.div_ceil(8), down.div_ceil(8));
        }
    }

    pub(super) fn ids(&self) -> Vec<SessionId> {
        self.read().by_id.keys().copied().collect()
    }
}

impl Common {
    /// What a session with these rates of its own has, up and down, in bits per second.
    pub(super) fn rates_of(&self, own: OwnRates) -> [u64; 2] {
        [own.up.unwrap_or(self.rates[0]), own.down.unwrap_or(self.rates[1])]
    }
}
