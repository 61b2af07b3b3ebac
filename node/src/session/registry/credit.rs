//! Credit: how much a session may use, and what happens at the end of it.

use std::time::{Duration, Instant};

use super::*;
pub use crate::session::store::credit::Extension;

/// What came of enforcing the limits once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Enforced {
    /// Sessions that were paused.
    pub paused: usize,
    /// Sessions that were closed: paused for longer than the grace time.
    pub closed: usize,
}

impl Sessions {
    /// Extends a session's credit. The same reference again changes nothing. A session without a
    /// limit has one from now on: what it has used, and this.
    ///
    /// # Errors
    ///
    /// When there is no such session, the extension is of nothing or has no reference, the
    /// reference stands for another extension, or the ledger cannot be written: without a record
    /// of it there is no credit.
    pub fn extend(&self, which: &str, extension: &Extension) -> Result<Snapshot, SessionError> {
        if !(1..=MAX_REFERENCE).contains(&extension.reference.len()) {
            return Err(SessionError::Reference);
        }
        if extension.bytes == 0 && extension.seconds == 0 {
            return Err(SessionError::NoCredit);
        }
        let mut store = self.store();
        let (id, used) = {
            let live = self.read();
            let entry = live.find(which)?;
            let used = self.used(entry, 0);
            // What was used under an agreement is the agreement's to pay: credit adds to that.
            let used = if entry.agreement.is_some() { Usage::default() } else { used };
            (entry.session.id, used)
        };
        match store.extend(id, extension, &used)? {
            Extended::Added(credit) => {
                if let Some(entry) = self.write().by_id.get_mut(&id) {
                    entry.credit = credit;
                }
                self.apply_credit(id);
                self.settle(&mut store, id)?;
            }
            Extended::Before(_) => {}
            Extended::Contradicts => {
                return Err(SessionError::Contradicts(extension.reference.clone()));
            }
        }
        drop(store);
        self.get(&id.to_string())
    }

    /// Pauses a session until it is resumed.
    ///
    /// # Errors
    ///
    /// When there is no such session, or the ledger cannot be written; nothing has changed then.
    pub fn pause(&self, which: &str) -> Result<Snapshot, SessionError> {
        self.say(which, Some(Pause::Operator))
    }

    /// Ends an operator's pause. A session without credit stays paused for that.
    ///
    /// # Errors
    ///
    /// When there is no such session, or the ledger cannot be written; nothing has changed then.
    pub fn resume(&self, which: &str) -> Result<Snapshot, SessionError> {
        self.say(which, None)
    }

    fn say(&self, which: &str, pause: Option<Pause>) -> Result<Snapshot, SessionError> {
        let mut store = self.store();
        let (id, pause) = {
            let live = self.read();
            let entry = live.find(which)?;
            let used_up = self.is_used_up(entry).then_some(Pause::Credit);
            (entry.session.id, pause.or(used_up))
        };
        store.set_pause(id, pause)?;
        if let Some(entry) = self.write().by_id.get_mut(&id) {
            entry.pause = pause;
        }
        self.apply_credit(id);
        drop(store);
        self.get(&id.to_string())
    }

    /// Pauses what has used up its credit, and closes what has been paused for that longer than
    /// `grace`. `since` remembers when each pause began; it belongs to the caller.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be written. What has no credit is paused all the same.
    pub fn enforce(
        &self,
        grace: Duration,
        since: &mut HashMap<SessionId, Instant>,
    ) -> Result<Enforced, SessionError> {
        let mut enforced = Enforced::default();
        let spent: Vec<(SessionId, bool)> = {
            let live = self.read();
            let spent = live.by_id.values().filter(|entry| self.is_used_up(entry));
            spent.map(|e| (e.session.id, e.pause.is_none())).collect()
        };
        since.retain(|id, _| spent.iter().any(|(spent, ..)| spent == id));
        let mut failure = None;
        for (id, is_new) in spent {
            if is_new {
                self.apply_credit(id);
                enforced.paused += 1;
                failure = self.settle(&mut self.store(), id).err().or(failure);
            }
            let paused = since.entry(id).or_insert_with(Instant::now);
            if paused.elapsed() >= grace && !is_new {
                match self.end(&id.to_string(), "credit") {
                    Ok(_) => enforced.closed += 1,
                    Err(error) => failure = Some(error),
                }
            }
        }
        failure.map_or(Ok(enforced), Err)
    }

    /// Makes the account say what the session's credit and pause say. This is the one place
    /// from which credit reaches the packet path.
    pub(super) fn apply_credit(&self, id: SessionId) {
        let mut live = self.write();
        let Some(entry) = live.by_id.get(&id) else { return };
        let slot = entry.session.slot;
        let used_up = self.is_used_up(entry);
        let pause = match entry.pause {
            Some(Pause::Operator) => Some(Pause::Operator),
            _ => used_up.then_some(Pause::Credit),
        };
        let state = match (pause, live.common.held) {
            (None, None) => SessionState::Open,
            _ => SessionState::Paused,
        };
        if let Some(entry) = live.by_id.get_mut(&id) {
            entry.pause = pause;
            entry.session.state = state;
            entry.clock.run(state == SessionState::Open);
        }
        if let (Some(account), Some(entry)) = (self.accounts.get(slot), live.by_id.get(&id)) {
            // The worker stops at the limit by itself, between two of our looks at it.
            let limit = byte_limit(entry, entry.clock.seconds());
            account.set_limit((limit != u64::MAX).then_some(limit));
            account.set_state(state);
        }
    }

    /// Writes a session's pause, as it is, to the ledger.
    pub(super) fn settle(&self, store: &mut Store, id: SessionId) -> Result<(), SessionError> {
        let pause = self.read().by_id.get(&id).map(|entry| entry.pause);
        if let Some(pause) = pause {
            store.set_pause(id, pause)?;
        }
        Ok(())
    }

    fn is_used_up(&self, entry: &Entry) -> bool {
        let is_limited = entry.credit.bytes.is_some() || entry.credit.seconds.is_some();
        if !is_limited && entry.agreement.is_none() {
            return false;
        }
        let seconds = entry.clock.seconds();
        let limit = byte_limit(entry, seconds);
        // Usually a little is left, in which no datagram fits: then the worker says so.
        let spent = |account: &Account| account.is_spent(limit);
        billed(&self.counters(entry)) >= limit
            || self.accounts.get(entry.session.slot).is_some_and(spent)
            || entry.credit.seconds.is_some_and(|most| seconds >= most)
    }
}

/// The billed bytes, up and down together since the session was made, at which it must stop after
/// so many seconds; `u64::MAX` for no limit. What is left is this less what its account has.
///
/// An agreement pays for what comes after the credit, so that its consumer never pays twice.
fn byte_limit(entry: &Entry, seconds: u64) -> u64 {
    match &entry.agreement {
        Some(agreement) => {
            agreement.budget(seconds).saturating_add(entry.credit.bytes.unwrap_or(0))
        }
        None => entry.credit.bytes.unwrap_or(u64::MAX),
    }
}
