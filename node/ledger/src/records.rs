//! Usage records in the ledger: written once, never altered, read in the order of their cursors.

use rusqlite::{Connection, OptionalExtension as _, Row, params, params_from_iter};
use weir_receipt::{Receipt, VERSION};

use crate::{
    Ledger, LedgerError, SessionId, Usage,
    row::{raise_values, to_sql},
    sql, unix_now,
    usage_record::{RecordKey, UsageRecord},
};

/// The maximum number of records in one answer or batch.
pub const MAX_RECORDS: u32 = 1000;

impl Ledger {
    /// Writes a usage record for each of these sessions, and raises their counters to it, all or
    /// none. Sessions that are not live are left alone.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be written; nothing has changed then.
    pub fn record(&mut self, used: &[(SessionId, Usage)]) -> Result<(), LedgerError> {
        let now = unix_now();
        let change = self.db.transaction()?;
        for (id, usage) in used {
            if let Some(number) = self.numbers.get(id).copied() {
                let values = raise_values(number, now, &usage.counters);
                change.prepare_cached(sql::RAISE)?.execute(params_from_iter(values))?;
                write(&change, &self.record_key, number, usage, None)?;
            }
        }
        change.commit()?;
        Ok(())
    }

    /// Writes down how long sessions were open, without a record.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be written; nothing has changed then.
    pub fn save_seconds(&mut self, open: &[(SessionId, u64)]) -> Result<(), LedgerError> {
        let change = self.db.transaction()?;
        let mut keep = change.prepare_cached(sql::SAVE_SECONDS)?;
        for (id, seconds) in open {
            if let Some(number) = self.numbers.get(id) {
                keep.execute(params![number, to_sql(*seconds)])?;
            }
        }
        drop(keep);
        change.commit()?;
        Ok(())
    }

    /// The records after a cursor, at most `limit` and [`MAX_RECORDS`], in order.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be read.
    pub fn usage_after(&self, cursor: u64, limit: u32) -> Result<Vec<UsageRecord>, LedgerError> {
        read_after(&self.db, cursor, limit.min(MAX_RECORDS))
    }

    /// The last record of a live session; `None` before the first one.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be read.
    pub fn last_record(&self, id: SessionId) -> Result<Option<UsageRecord>, LedgerError> {
        let Some(number) = self.numbers.get(&id) else { return Ok(None) };
        let mut statement = self.db.prepare_cached(sql::LAST_RECORD)?;
        Ok(statement.query_row([number], read).optional()?)
    }

    /// The highest cursor that a record has or had; 0 before the first record.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be read.
    pub fn last_cursor(&self) -> Result<u64, LedgerError> {
        let last: i64 = self.db.query_row(sql::LAST_CURSOR, [], |row| row.get(0))?;
        Ok(last.unsigned_abs())
    }

    /// The public half of the key that signs the records, in base64.
    #[must_use]
    pub fn signer(&self) -> &str {
        self.record_key.public()
    }
}

/// Reads records from any connection to a ledger.
pub(crate) fn read_after(
    db: &Connection,
    cursor: u64,
    limit: u32,
) -> Result<Vec<UsageRecord>, LedgerError> {
    let mut statement = db.prepare_cached(sql::RECORDS_AFTER)?;
    let records = statement.query_map(params![to_sql(cursor), limit], read)?;
    Ok(records.collect::<Result<_, _>>()?)
}

/// Writes the next record of a session whose counters have been raised already. What the ledger
/// has stays where it is higher, so that no record says less than the one before.
pub(crate) fn write(
    db: &Connection,
    key: &RecordKey,
    number: i64,
    usage: &Usage,
    end_reason: Option<&str>,
) -> Result<(), LedgerError> {
    db.prepare_cached(sql::NEXT_SEQUENCE)?.execute(params![
        number,
        to_sql(usage.seconds),
        to_sql(usage.last_activity)
    ])?;
    let record = db
        .prepare_cached(sql::RECORD_OF)?
        .query_row(params![number, end_reason], read)
        .optional()?;
    let Some(record) = record.map(|record| key.sign(record)) else { return Ok(()) };
    db.prepare_cached(sql::ADD_RECORD)?.execute(params![
        number,
        to_sql(record.sequence),
        to_sql(record.bytes_up),
        to_sql(record.packets_up),
        to_sql(record.bytes_down),
        to_sql(record.packets_down),
        to_sql(record.seconds),
        to_sql(record.last_activity),
        record.end_reason,
        record.signer,
        record.signature,
        to_sql(unix_now()),
    ])?;
    let former = to_sql(record.sequence.saturating_sub(1));
    db.prepare_cached(sql::DROP_FORMER_LAST)?.execute(params![number, former])?;
    Ok(())
}

fn read(row: &Row<'_>) -> rusqlite::Result<UsageRecord> {
    let number = |column| row.get::<_, i64>(column).map(|n| u64::try_from(n).unwrap_or(0));
    let receipt = Receipt {
        version: VERSION,
        session: row.get(1)?,
        consumer: row.get(2)?,
        public_key: row.get(3)?,
        sequence: number(4)?,
        bytes_up: number(5)?,
        packets_up: number(6)?,
        bytes_down: number(7)?,
        packets_down: number(8)?,
        seconds: number(9)?,
        start: number(10)?,
        last_activity: number(11)?,
        end_reason: row.get(12)?,
        signer: row.get(13)?,
        signature: row.get(14)?,
    };
    Ok(UsageRecord { cursor: number(0)?, receipt })
}
