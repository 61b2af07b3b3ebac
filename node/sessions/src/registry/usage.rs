//! Usage records of the live sessions.

use tokio::sync::watch;

use super::*;
use weir_ledger::store::{
    receipt::Record,
    retention::{Retention, Swept},
};

/// Sessions in one transaction: signing them takes a few milliseconds, during which no other
/// change of the ledger waits longer.
const BATCH: usize = 500;

/// A silent session has a record this often all the same: its time may be paid for.
const SILENT_SECONDS: u64 = 900;

impl Sessions {
    /// Writes a usage record for each session that has used something since its last one. Returns
    /// how many.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be written; the next call writes what is missing.
    pub fn record(&self) -> Result<usize, StoreError> {
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
        self.store().keep_seconds(&silent)?;
        for batch in used.chunks(BATCH) {
            let mut store = self.store();
            store.record(batch)?;
            let mut live = self.write();
            for (id, usage) in batch {
                if let Some(entry) = live.by_id.get_mut(id) {
                    entry.recorded = Some(*usage);
                    entry.saved = counters::highest(&entry.saved, &usage.counters);
                    entry.last_activity = entry.last_activity.max(usage.last_activity);
                }
            }
            drop(live);
            self.announce(&store);
        }
        Ok(used.len())
    }

    /// The usage records after a cursor, in order, at most
    /// [`MOST`](weir_ledger::store::usage::MOST).
    ///
    /// # Errors
    ///
    /// When the ledger cannot be read.
    pub fn usage_after(&self, cursor: u64, limit: u32) -> Result<Vec<Record>, StoreError> {
        self.store().usage_after(cursor, limit)
    }

    /// Tells whenever there are new usage records: the cursor of the last one.
    #[must_use]
    pub fn watch_usage(&self) -> watch::Receiver<u64> {
        self.written.subscribe()
    }

    /// The node's key for usage records, in base64.
    #[must_use]
    pub fn signer(&self) -> String {
        self.store().signer().to_owned()
    }

    /// How far a receiver of usage records has come.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be read.
    pub fn delivered(&self, sink: &str) -> Result<u64, StoreError> {
        self.store().delivered(sink)
    }

    /// A receiver has everything up to a cursor.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be written.
    pub fn set_delivered(&self, sink: &str, cursor: u64) -> Result<(), StoreError> {
        self.store().set_delivered(sink, cursor)
    }

    /// Deletes the usage records whose time is over, a few at a time so that nobody waits for long.
    /// Returns how many.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be written; the next call goes on.
    pub fn forget(&self, kept: Retention, receivers: &[&str]) -> Result<usize, StoreError> {
        let mut gone = 0;
        loop {
            let swept = self.store().forget(kept, receivers)?;
            gone += swept.gone;
            if !swept.goes_on {
                return Ok(gone);
            }
        }
    }

    /// Deletes some of the rows of sessions that ended more than `kept` seconds ago, or never with
    /// `None`. Who finds that it goes on calls again after a while, so that others get the ledger in
    /// between.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be written; the next call goes on.
    pub fn sweep(&self, kept: Option<u64>) -> Result<Swept, StoreError> {
        self.store().sweep(kept)
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

    /// Tells those who wait of the last record.
    pub(super) fn announce(&self, store: &Store) {
        if let Ok(cursor) = store.last_cursor() {
            self.written.send_replace(cursor);
        }
    }
}

/// Whether a new record would say more than the last. After a start, the last one of before is
/// not known, and one too many does no harm.
fn is_news(used: &Usage, entry: &Entry) -> bool {
    let Some(recorded) = entry.recorded else {
        return billed(&used.counters) > 0 || used.seconds >= SILENT_SECONDS;
    };
    billed(&used.counters) > billed(&recorded.counters)
        || used.seconds >= recorded.seconds.saturating_add(SILENT_SECONDS)
}
