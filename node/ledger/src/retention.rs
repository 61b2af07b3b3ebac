//! Which usage records go.

use rusqlite::{OptionalExtension as _, params};

use crate::{Ledger, LedgerError, records::MAX_RECORDS, row::to_sql, sql, unix_now};

/// For how long usage records are kept. The last one of each session says all that the earlier
/// ones did, and goes with its session: see [`Ledger::sweep`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// In seconds, for those that every receiver has.
    pub delivered: u64,
    /// In seconds, for those that a receiver has not yet; `None` for ever.
    pub undelivered: Option<u64>,
}

/// What one sweep did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Records, or sessions, that went.
    pub gone: usize,
    /// Whether there may be more whose time is over.
    pub goes_on: bool,
}

impl Ledger {
    /// Looks at the oldest [`MAX_RECORDS`] records that it has not swept yet, and deletes those whose time
    /// is over. `receivers` are those who must have them.
    ///
    /// What was swept and stays is the last record of its session: it goes with the next one, or
    /// with the session.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be written; nothing has changed then.
    pub fn forget(&mut self, kept: Retention, receivers: &[&str]) -> Result<Swept, LedgerError> {
        self.forget_at(kept, receivers, unix_now())
    }

    pub(crate) fn forget_at(
        &mut self,
        kept: Retention,
        receivers: &[&str],
        now: u64,
    ) -> Result<Swept, LedgerError> {
        let mut delivered = u64::MAX;
        for receiver in receivers {
            delivered = delivered.min(self.delivered(receiver)?);
        }
        let is_over = |made: u64, kept: u64| made < now.saturating_sub(kept);
        let change = self.db.transaction()?;
        let mut swept: i64 = change.query_row(sql::SWEPT, [], |row| row.get(0))?;
        let oldest: Vec<(i64, u64, bool)> = change
            .prepare_cached(sql::OLDEST_RECORDS)?
            .query_map(params![swept, MAX_RECORDS], |row| {
                Ok((row.get(0)?, row.get::<_, i64>(1)?.unsigned_abs(), row.get(2)?))
            })?
            .collect::<Result<_, _>>()?;
        let mut done = Swept::default();
        // What a clock wrote that was ahead is as old as what came next.
        let mut next_made = None;
        let seen = oldest.len();
        for (nth, (cursor, made, is_last)) in oldest.into_iter().enumerate() {
            let made = match made <= now {
                true => made,
                false => {
                    if next_made.is_none_or(|(at, _)| at < cursor) {
                        let (at, made) = change
                            .prepare_cached(sql::NEXT_MADE_BEFORE)?
                            .query_row(params![cursor, to_sql(now)], |row| {
                                Ok((row.get(0)?, row.get::<_, i64>(1)?.unsigned_abs()))
                            })
                            .optional()?
                            .unwrap_or((i64::MAX, now));
                        next_made = Some((at, made));
                    }
                    next_made.map_or(now, |(_, made)| made)
                }
            };
            let is_delivered = cursor.unsigned_abs() <= delivered;
            let goes = is_delivered && is_over(made, kept.delivered)
                || kept.undelivered.is_some_and(|kept| is_over(made, kept));
            if !goes {
                break;
            }
            swept = cursor;
            if !is_last {
                done.gone += change.prepare_cached(sql::DROP_RECORD)?.execute([cursor])?;
            }
            done.goes_on = nth + 1 == seen && seen == MAX_RECORDS as usize;
        }
        change.execute(sql::SET_SWEPT, [swept])?;
        change.commit()?;
        Ok(done)
    }
}
