//! Ends sessions.

use weir_common::account::SessionState;
use weir_ledger::{Ledger, Session, counters, unix_now};

use super::{SessionError, Sessions};
use crate::Snapshot;

impl Sessions {
    /// Ends a session: the packet path stops serving it, its final counters go to the ledger, its
    /// flows are removed from the kernel, and its slot becomes free. Waits for the worker that owns
    /// the session. If the kernel keeps the flows, the slot stays unused until they are gone.
    ///
    /// # Errors
    ///
    /// When there is no such session, or the ledger cannot be written; the session goes on then.
    pub fn remove(&self, which: &str) -> Result<Snapshot, SessionError> {
        self.end(which, "removed")
    }

    /// As [`Sessions::remove`], for a reason that the ledger and the last usage record have.
    ///
    /// # Errors
    ///
    /// As [`Sessions::remove`].
    pub fn end(&self, which: &str, reason: &str) -> Result<Snapshot, SessionError> {
        let mut ledger = self.ledger.lock();
        let session = self.read().find(which)?.session.clone();
        let ended = self.end_locked(&mut ledger, &session, reason);
        // Others need not wait for the kernel.
        drop(ledger);
        self.forget_left();
        ended
    }

    pub(super) fn end_locked(
        &self,
        ledger: &mut Ledger,
        session: &Session,
        reason: &str,
    ) -> Result<Snapshot, SessionError> {
        let account = self.accounts.get(session.slot);
        if let Some(account) = account {
            account.set_state(SessionState::Closed);
        }
        self.peers.remove(session.slot);
        let live = self.read();
        let snapshot = live
            .by_id
            .get(&session.id)
            .map(|entry| (self.snapshot(&live, entry), self.used(entry, unix_now())));
        drop(live);
        let Some((snapshot, last)) = snapshot else {
            return Err(SessionError::NotFound(session.id.to_string()));
        };
        if let Err(error) = ledger.end(session.id, &last, reason) {
            if let Some(account) = account {
                account.set_state(session.state);
            }
            if let Some(entry) = self.read().by_id.get(&session.id) {
                self.serve(entry);
            }
            return Err(error.into());
        }
        let mut live = self.write();
        live.remove(session);
        live.ended = counters::sum(&live.ended, &last.counters);
        if let Some(account) = account {
            account.vacate();
        }
        live.slots.leave(session.slot);
        drop(live);
        self.ledger.announce(ledger);
        let session = Session { state: SessionState::Closed, ..session.clone() };
        Ok(Snapshot { session, ..snapshot })
    }
}
