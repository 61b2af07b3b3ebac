//! Usage records of the live sessions.

use std::sync::Arc;

use super::{
    SessionError, Sessions,
    table::{Asked, Entry},
};
use weir_ledger::{LedgerError, Receipt, SessionId, Usage, billed, counters, unix_now};

/// Sessions in one transaction: signing them takes a few milliseconds, during which no other
/// change of the ledger waits longer.
const BATCH: usize = 500;

/// The interval of records of a session without traffic, in seconds. Its time may be paid for.
const IDLE_RECORD_SECONDS: u64 = 900;

impl Sessions {
    /// Writes a usage record for each session that has used something since its last one. Returns
    /// how many.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be written; the next call writes what is missing.
    pub fn record(&self) -> Result<usize, LedgerError> {
        let now = unix_now();
        let (mut used, mut silent) = (Vec::new(), Vec::new());
        for (id, entry) in &self.read().by_id {
            let usage = self.used(entry, now);
            if is_news(&usage, entry) {
                used.push((*id, usage));
            } else {
                silent.push((*id, usage.seconds));
            }
        }
        // A crash must not give back the time for which silent sessions were open.
        self.ledger.lock().save_seconds(&silent)?;
        for batch in used.chunks(BATCH) {
            let mut ledger = self.ledger.lock();
            ledger.record(batch)?;
            let mut live = self.write();
            for (id, usage) in batch {
                if let Some(entry) = live.by_id.get_mut(id) {
                    entry.recorded = Some(*usage);
                    entry.receipt = Asked::Unknown;
                    entry.saved = counters::highest(&entry.saved, &usage.counters);
                    entry.last_activity = entry.last_activity.max(usage.last_activity);
                }
            }
            drop(live);
            self.ledger.announce(&ledger);
        }
        Ok(used.len())
    }

    /// The last usage record of a session, if that is known without a look into the ledger. The inner
    /// `None` says that there is no record yet.
    #[must_use]
    pub fn known_receipt(&self, id: SessionId) -> Option<Option<Arc<Receipt>>> {
        match &self.read().by_id.get(&id)?.receipt {
            Asked::Unknown => None,
            Asked::Known(receipt) => Some(receipt.clone()),
        }
    }

    /// The last usage record of a session; `None` before the first one. It is read once for each
    /// record, however often its consumer asks.
    ///
    /// # Errors
    ///
    /// When there is no such session, or the ledger cannot be read.
    pub fn receipt(&self, id: SessionId) -> Result<Option<Arc<Receipt>>, SessionError> {
        if let Some(known) = self.known_receipt(id) {
            return Ok(known);
        }
        // Locked while it is kept: a newer record is written under the same lock.
        let ledger = self.ledger.lock();
        let receipt = ledger.last_record(id)?.map(|record| Arc::new(record.receipt));
        let mut live = self.write();
        let entry = live.by_id.get_mut(&id);
        let entry = entry.ok_or_else(|| SessionError::NotFound(id.to_string()))?;
        entry.receipt = Asked::Known(receipt.clone());
        Ok(receipt)
    }

    /// The node's public key for usage records, in base64.
    #[must_use]
    pub fn signer(&self) -> &str {
        &self.signer
    }

    /// What a session has used until now. With a `now` of 0, activity is as of the last time.
    pub(super) fn used(&self, entry: &Entry, now: u64) -> Usage {
        let counters = self.counters(entry);
        let is_active = billed(&counters) > billed(&entry.saved);
        let last_activity = match is_active {
            true => entry.last_activity.max(now),
            false => entry.last_activity,
        };
        Usage { counters, seconds: entry.clock.seconds(), last_activity }
    }
}

/// Whether a new record would say more than the last. After a start, the last one of before is
/// not known, and one too many does no harm.
fn is_news(used: &Usage, entry: &Entry) -> bool {
    let Some(recorded) = entry.recorded else {
        return billed(&used.counters) > 0 || used.seconds >= IDLE_RECORD_SECONDS;
    };
    billed(&used.counters) > billed(&recorded.counters)
        || used.seconds >= recorded.seconds.saturating_add(IDLE_RECORD_SECONDS)
}
