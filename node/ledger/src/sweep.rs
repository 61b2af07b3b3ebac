//! The end of ended sessions' rows, and what outlives them.
//!
//! A session that has ended keeps its rows for the operator's time, and until its last usage record
//! could go: that record was delivered, or its own time is over. Then they go, a few in each
//! transaction, the session that ended first first. Three things stay:
//!
//! - What it has used, in `swept_totals`, in the transaction that deletes its counters. So what all
//!   ended sessions have used together is provable at any moment.
//! - The newest handshake initiation of its key, in `initiations`: see [`INITIATIONS_SECONDS`].
//! - What a channel has promised, in `channels`. Without it a consumer could pay with a promise that
//!   is no higher than one before, which is worth nothing. An invoice needs no such place: its
//!   hashlock is random and it is looked up within its session, so once its row is gone it is unknown.

use ring::digest;
use rusqlite::{Connection, OptionalExtension as _, params, params_from_iter};

use crate::{
    Ledger, LedgerError, counters, integrity,
    retention::Swept,
    row::{read_counters, to_sql},
    sql, unix_now,
};

/// For how long the newest initiation of a key is kept after the last session with that key has
/// ended, in seconds.
///
/// A recorded initiation is of use only while a session has its key: without one it is refused like
/// any unknown key's. Once the row is gone and a new session with the same key is made, somebody who
/// recorded initiations more than a year ago can replay them until the consumer's first own
/// initiation, which is newer. Each replay makes the node work out one handshake (within the limits
/// for initiations) and tells the sender that the key has a session again. It gives no keys, moves no
/// endpoint, as only data does, and is billed to nobody. A consumer that makes a new key for a new
/// session is not concerned at all.
pub(crate) const INITIATIONS_SECONDS: u64 = 366 * 86_400;

/// Keys whose newest initiation is kept, at most: some 100 MB. Beyond that, those whose session
/// ended first go, and for them holds what is said of [`INITIATIONS_SECONDS`]. Only the operator or
/// the payment layer makes sessions, so no stranger can push others' keys out.
pub(crate) const MAX_INITIATIONS: i64 = 1 << 20;

/// Rows that one transaction deletes, about: it takes some milliseconds.
const MAX_ROWS: u64 = 400;

impl Ledger {
    /// Deletes rows of sessions that ended more than `kept` seconds ago (`None` for never) and whose
    /// last usage record [`Ledger::forget`] has let go: a few, so that nobody waits for long.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be written; nothing has changed then.
    pub fn sweep(&mut self, kept: Option<u64>) -> Result<Swept, LedgerError> {
        self.sweep_at(kept, MAX_ROWS, unix_now())
    }

    pub(crate) fn sweep_at(
        &mut self,
        kept: Option<u64>,
        max_rows: u64,
        now: u64,
    ) -> Result<Swept, LedgerError> {
        // In a ledger that is damaged, whatever is there may be needed to repair it.
        if self.is_sound().is_err() {
            return Ok(Swept::default());
        }
        let change = self.db.transaction()?;
        let limit = to_sql(max_rows);
        let mut done = Swept::default();
        let dropped = drop_initiations(&change, now, limit)?;
        done.goes_on = dropped >= max_rows;
        if let Some(kept) = kept {
            change.execute(sql::RESTAMP_ENDED, params![to_sql(now), limit])?;
            let before = to_sql(now.saturating_sub(kept));
            sweep_sessions(&change, before, max_rows, &mut done)?;
        }
        change.commit()?;
        Ok(done)
    }
}

fn sweep_sessions(
    db: &Connection,
    before: i64,
    max_rows: u64,
    done: &mut Swept,
) -> Result<(), LedgerError> {
    let released: i64 = db.query_row(sql::SWEPT, [], |row| row.get(0))?;
    let oldest: Vec<(i64, i64, i64, Option<i64>)> = db
        .prepare_cached(sql::OLDEST_ENDED)?
        .query_map([to_sql(max_rows)], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
        })?
        .collect::<Result<_, _>>()?;
    let mut total = db.query_row(sql::SWEPT_TOTALS, [], |row| read_counters(row, 0))?;
    let mut left = max_rows;
    for (position, session, ended, last_record) in oldest {
        // They ended in this order, and so were their last records written.
        if ended >= before || last_record.is_some_and(|cursor| cursor > released) {
            break;
        }
        // How many of these there are, the consumer's payments say.
        let payments =
            integrity::sweep(db, "payments", sql::SWEEP_PAYMENTS, params![session, to_sql(left)])?;
        left = left.saturating_sub(payments);
        let records =
            db.prepare_cached(sql::SWEEP_RECORDS)?.execute(params![session, to_sql(left)])?;
        left = left.saturating_sub(records as u64);
        if left == 0 {
            done.goes_on = true;
            break;
        }
        db.prepare_cached(sql::DROP_INVOICES)?.execute([session])?;
        let used = db
            .prepare_cached(sql::COUNTERS)?
            .query_row([session], |row| read_counters(row, 0))
            .optional()?;
        total = counters::sum(&total, &used.unwrap_or_default());
        let mut rows = 1;
        db.prepare_cached(sql::SWEEP_ENDED)?.execute([position])?;
        for (table, delete) in [
            ("credit", sql::SWEEP_CREDIT),
            ("rates", sql::SWEEP_RATES),
            ("agreements", sql::SWEEP_AGREEMENT),
            ("counters", sql::SWEEP_COUNTERS),
            ("sessions", sql::SWEEP_SESSION),
        ] {
            rows += integrity::sweep(db, table, delete, [session])?;
        }
        done.gone += 1;
        left = left.saturating_sub(rows);
        if left == 0 {
            done.goes_on = true;
            break;
        }
    }
    let total = total.to_array().map(to_sql);
    let gone = i64::try_from(done.gone).unwrap_or(i64::MAX);
    db.prepare_cached(sql::SET_SWEPT_TOTALS)?
        .execute(params_from_iter(total.into_iter().chain([gone])))?;
    Ok(())
}

/// Deletes newest initiations whose time is over, or that are too many: `limit` of each at most.
fn drop_initiations(db: &Connection, now: u64, limit: i64) -> Result<u64, LedgerError> {
    db.prepare_cached(sql::RESTAMP_INITIATIONS)?.execute(params![to_sql(now), limit])?;
    let before = to_sql(now.saturating_sub(INITIATIONS_SECONDS));
    let old = db.prepare_cached(sql::DROP_OLD_INITIATIONS)?.execute(params![before, limit])?;
    let beyond = db
        .prepare_cached(sql::DROP_INITIATIONS_BEYOND)?
        .execute(params![MAX_INITIATIONS, limit])?;
    Ok(old.max(beyond) as u64)
}

/// The newest initiation that ended sessions with this key have taken; 0 for none.
pub(crate) fn newest_initiation(db: &Connection, public_key: &str) -> Result<i64, LedgerError> {
    let mut statement = db.prepare_cached(sql::NEWEST_INITIATION)?;
    let newest = statement.query_row([key_hash(public_key)], |row| row.get(0)).optional()?;
    Ok(newest.unwrap_or(0))
}

/// Keeps the newest initiation that a session has taken which ends now.
pub(crate) fn save_initiation(
    db: &Connection,
    public_key: &str,
    newest: i64,
    now: i64,
) -> Result<(), LedgerError> {
    // A session begins with what those before it have taken, so this is never less than that.
    if newest > 0 {
        let values = params![key_hash(public_key), newest, now];
        db.prepare_cached(sql::SAVE_INITIATION)?.execute(values)?;
    }
    Ok(())
}

/// What stands for a public key in `initiations`: enough to find it again, too little to list the
/// keys of former consumers.
fn key_hash(public_key: &str) -> [u8; 16] {
    let hash = digest::digest(&digest::SHA256, public_key.as_bytes());
    let mut short = [0; 16];
    short.copy_from_slice(&hash.as_ref()[..16]);
    short
}

#[cfg(test)]
mod tests;
