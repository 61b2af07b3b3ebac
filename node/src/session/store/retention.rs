//! Which usage records go.

use rusqlite::{OptionalExtension as _, params};

use super::{Store, StoreError, to_sql, unix_now, usage::MOST};

/// For how long usage records are kept. The last one of each session says all that the earlier
/// ones did, and is kept for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// In seconds, for those that every receiver has.
    pub delivered: u64,
    /// In seconds, for those that a receiver has not yet; `None` for ever.
    pub undelivered: Option<u64>,
}

impl Store {
    /// Deletes at most [`MOST`] records whose time is over. `receivers` are those who must have
    /// them. Says how many went: with fewer than the most, there are no more for now.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be written; nothing has changed then.
    pub fn forget(&mut self, kept: Retention, receivers: &[&str]) -> Result<usize, StoreError> {
        let mut delivered = u64::MAX;
        for receiver in receivers {
            delivered = delivered.min(self.delivered(receiver)?);
        }
        let now = unix_now();
        // The first cursor that stays. A clock that was ahead for a while keeps records longer.
        let stays = |kept: u64| -> Result<u64, StoreError> {
            let sql = "SELECT cursor FROM records WHERE made >= ?1 ORDER BY cursor LIMIT 1";
            let since = to_sql(now.saturating_sub(kept));
            let first: Option<i64> =
                self.db.query_row(sql, [since], |row| row.get(0)).optional()?;
            Ok(first.map_or(u64::MAX, i64::unsigned_abs))
        };
        let mut before = stays(kept.delivered)?.min(delivered.saturating_add(1));
        if let Some(undelivered) = kept.undelivered {
            before = before.max(stays(undelivered)?);
        }
        let gone = self.db.execute(
            "DELETE FROM records WHERE cursor IN (
                 SELECT cursor FROM records JOIN counters USING (session)
                 WHERE cursor < ?1 AND records.sequence < counters.sequence
                 ORDER BY cursor LIMIT ?2)",
            params![to_sql(before), MOST],
        )?;
        Ok(gone)
    }
}
