//! Credit: how much a session may use, and what happens at the end of it.

use std::time::{Duration, Instant};

use weir_common::account::SessionState;
pub use weir_ledger::credit::Extension;
use weir_ledger::{Ledger, Pause, SessionId, Usage, billed, credit::Extended};
use weir_promise::{Agreement, Use};

use super::{MAX_REFERENCE, SessionError, Sessions, table::Entry};
use crate::Snapshot;

/// Sessions that one call closes: each waits for its worker and for the disk, and whoever pays
/// meanwhile waits with it.
pub(super) const MAX_CLOSED_AT_ONCE: usize = 100;

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
        let mut ledger = self.ledger.lock();
        let (id, used) = {
            let live = self.read();
            let entry = live.find(which)?;
            let used = self.used(entry, 0);
            // What was used under an agreement is the agreement's to pay: credit adds to that.
            let used = if entry.agreement.is_some() { Usage::default() } else { used };
            (entry.session.id, used)
        };
        match ledger.extend(id, extension, &used)? {
            Extended::Added(credit) => {
                if let Some(entry) = self.write().by_id.get_mut(&id) {
                    entry.credit = credit;
                }
                self.apply_credit(id);
                self.settle(&mut ledger, id)?;
            }
            Extended::Before(_) => {}
            Extended::Contradicts => {
                return Err(SessionError::Contradicts(extension.reference.clone()));
            }
        }
        drop(ledger);
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
        let mut ledger = self.ledger.lock();
        let (id, pause) = {
            let live = self.read();
            let entry = live.find(which)?;
            let used_up = self.judge(entry).is_used_up.then_some(Pause::Credit);
            (entry.session.id, pause.or(used_up))
        };
        ledger.set_pauses(&[(id, pause)])?;
        if let Some(entry) = self.write().by_id.get_mut(&id) {
            entry.pause = pause;
        }
        self.apply_credit(id);
        drop(ledger);
        self.get(&id.to_string())
    }

    /// Pauses what has used up its credit, and closes what has been paused for that longer than
    /// `grace`, at most `MAX_CLOSED_AT_ONCE` in one call. To be called about once a second; `now`
    /// never goes back.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be written. What has no credit is paused all the same.
    pub fn enforce(&self, grace: Duration, now: Instant) -> Result<Enforced, SessionError> {
        let (paused, due, failure) = self.pause_spent(grace, now);
        let mut enforced = Enforced { paused, closed: 0 };
        let mut failure = failure.err();
        for id in due.into_iter().take(MAX_CLOSED_AT_ONCE) {
            match self.close_spent(id, grace, now) {
                Ok(is_closed) => enforced.closed += usize::from(is_closed),
                Err(error) => failure = Some(error),
            }
        }
        // Once for all of them.
        self.forget_left();
        failure.map_or(Ok(enforced), Err)
    }

    /// Pauses all that has used up its credit, and writes that in one transaction. Says how many
    /// these were, and which sessions seem to be due to be closed.
    pub(super) fn pause_spent(
        &self,
        grace: Duration,
        now: Instant,
    ) -> (usize, Vec<SessionId>, Result<(), SessionError>) {
        // No credit comes until it is written who is paused.
        let mut ledger = self.ledger.lock();
        let (mut spent, mut others) = (Vec::new(), Vec::new());
        // The others' accounts stay untouched.
        for entry in self.read().by_id.values().filter(|entry| entry.is_limited()) {
            let judged = self.judge(entry);
            match (judged.is_used_up, entry.spent_since) {
                (true, _) => spent.push((entry.session.id, entry.pause.is_none())),
                (false, Some(_)) => others.push(entry.session.id),
                (false, None) => {}
            }
            if entry.agreement.is_some() {
                self.write_limit(entry, &judged);
            }
        }
        let mut live = self.write();
        for id in others {
            live.by_id.entry(id).and_modify(|entry| entry.spent_since = None);
        }
        let (mut new, mut due) = (Vec::new(), Vec::new());
        for (id, is_new) in spent {
            let Some(entry) = live.by_id.get_mut(&id) else { continue };
            entry.spent_since.get_or_insert(now);
            if is_new {
                new.push(id);
            } else if entry.is_over(grace, now) {
                due.push(id);
            }
        }
        drop(live);
        new.iter().for_each(|id| self.apply_credit(*id));
        let pauses = self.pauses(&new);
        let written = if pauses.is_empty() { Ok(()) } else { ledger.set_pauses(&pauses) };
        (new.len(), due, written.map_err(Into::into))
    }

    /// Closes a session if it still has no credit: it may have paid since it was found due.
    pub(super) fn close_spent(
        &self,
        id: SessionId,
        grace: Duration,
        now: Instant,
    ) -> Result<bool, SessionError> {
        let mut ledger = self.ledger.lock();
        let session = {
            let live = self.read();
            let entry = live.by_id.get(&id);
            let due = entry.filter(|e| self.judge(e).is_used_up && e.is_over(grace, now));
            due.map(|entry| entry.session.clone())
        };
        let Some(session) = session else { return Ok(false) };
        self.end_locked(&mut ledger, &session, "credit").map(|_| true)
    }

    /// Makes the account say what the session's credit and pause say. This is the one place
    /// from which credit reaches the packet path.
    pub(super) fn apply_credit(&self, id: SessionId) {
        let mut live = self.write();
        let Some(entry) = live.by_id.get(&id) else { return };
        let slot = entry.session.slot;
        let judged = self.judge(entry);
        let pause = match entry.pause {
            Some(Pause::Operator) => Some(Pause::Operator),
            _ => judged.is_used_up.then_some(Pause::Credit),
        };
        let state = match (pause, live.common.held) {
            (None, None) => SessionState::Open,
            _ => SessionState::Paused,
        };
        let Some(entry) = live.by_id.get_mut(&id) else { return };
        entry.pause = pause;
        entry.session.state = state;
        entry.clock.run(state == SessionState::Open);
        if !judged.is_used_up {
            entry.spent_since = None;
        }
        self.write_limit(entry, &judged);
        if let Some(account) = self.accounts.get(slot) {
            account.set_state(state);
        }
    }

    /// Has the worker stop at the limit by itself, between two of our looks at it.
    fn write_limit(&self, entry: &Entry, judged: &Judged) {
        // What the worker found used up stays written until there is more.
        if !judged.is_spent
            && let Some(account) = self.accounts.get(entry.session.slot)
        {
            account.set_limit((judged.limit != u64::MAX).then_some(judged.limit));
        }
    }

    /// Writes a session's pause, as it is, to the ledger.
    pub(super) fn settle(&self, ledger: &mut Ledger, id: SessionId) -> Result<(), SessionError> {
        ledger.set_pauses(&self.pauses(&[id]))?;
        Ok(())
    }

    fn pauses(&self, ids: &[SessionId]) -> Vec<(SessionId, Option<Pause>)> {
        let live = self.read();
        let of = |id: &SessionId| live.by_id.get(id).map(|entry| (*id, entry.pause));
        ids.iter().filter_map(of).collect()
    }

    /// Whether a session's credit is used up. The limit is the one that the worker stops at, and
    /// where the worker has stopped, there it is used up: the two never judge by different limits.
    fn judge(&self, entry: &Entry) -> Judged {
        let seconds = entry.clock.seconds();
        let limit = byte_limit(entry, seconds);
        let account = self.accounts.get(entry.session.slot);
        let is_spent = account.is_some_and(|account| {
            account.limit().is_some_and(|written| account.is_spent(written) && limit <= written)
        });
        let bytes = billed(&self.counters(entry));
        let is_time_over = entry.agreement.is_some_and(|agreement| {
            let covered = entry.credit.bytes.unwrap_or(0);
            agreement.is_time_over(Use { bytes: bytes.saturating_sub(covered), seconds })
        });
        let is_used_up = limit != u64::MAX && (bytes >= limit || is_spent)
            || is_time_over
            || entry.credit.seconds.is_some_and(|most| seconds >= most);
        Judged { limit, is_spent, is_used_up }
    }
}

/// How far a session's credit goes.
struct Judged {
    /// The billed bytes at which it must stop; `u64::MAX` for no limit.
    limit: u64,
    /// Whether the worker has met a datagram that does not fit within the limit, as it is written
    /// in the account.
    is_spent: bool,
    /// Whether the session must stop, for its bytes or its time.
    is_used_up: bool,
}

/// The billed bytes, up and down together since the session was made, at which it must stop after
/// so many seconds; `u64::MAX` for no limit. What is left is this less what its account has.
///
/// An agreement pays for what comes after the credit, so that its consumer never pays twice.
pub(super) fn byte_limit(entry: &Entry, seconds: u64) -> u64 {
    match &entry.agreement {
        Some(agreement) => {
            agreement.byte_limit(seconds).saturating_add(entry.credit.bytes.unwrap_or(0))
        }
        None => entry.credit.bytes.unwrap_or(u64::MAX),
    }
}

/// The seconds served at which it must stop, or pay again; `None` for no limit.
pub(super) fn second_limit(entry: &Entry) -> Option<u64> {
    let agreed = entry.agreement.as_ref().and_then(Agreement::second_limit);
    agreed.into_iter().chain(entry.credit.seconds).min()
}
