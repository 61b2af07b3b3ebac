//! How far each receiver of usage records has come.

use rusqlite::{OptionalExtension as _, params};

use crate::{Ledger, LedgerError, row::to_sql, sql};

impl Ledger {
    /// The cursor up to which a receiver has everything; 0 for a new one.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be read.
    pub fn delivered(&self, sink: &str) -> Result<u64, LedgerError> {
        let cursor: Option<i64> =
            self.db.query_row(sql::DELIVERED, [sink], |row| row.get(0)).optional()?;
        Ok(cursor.map_or(0, i64::unsigned_abs))
    }

    /// A receiver has everything up to `cursor`. Never falls.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be written; the receiver then gets some of it again.
    pub fn set_delivered(&mut self, sink: &str, cursor: u64) -> Result<(), LedgerError> {
        self.db.execute(sql::SET_DELIVERED, params![sink, to_sql(cursor)])?;
        Ok(())
    }
}
