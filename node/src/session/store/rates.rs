//! Sessions' own rates, and what the node's quotas began with, in the ledger.

use std::collections::HashMap;

use rusqlite::{OptionalExtension as _, params};

use super::{
    super::{OwnRates, SessionId},
    Store, StoreError, to_sql,
};

impl Store {
    /// The rates of the live sessions that have some of their own.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be read.
    pub fn rates(&self) -> Result<HashMap<SessionId, OwnRates>, StoreError> {
        let mut statement = self.db.prepare(
            "SELECT id, up, down FROM rates JOIN sessions ON session = number WHERE ended IS NULL",
        )?;
        let mut rows = statement.query([])?;
        let mut rates = HashMap::new();
        while let Some(row) = rows.next()? {
            let id: String = row.get(0)?;
            let rate = |column| -> rusqlite::Result<Option<u64>> {
                Ok(row.get::<_, Option<i64>>(column)?.map(i64::unsigned_abs))
            };
            if let Ok(id) = id.parse() {
                rates.insert(id, OwnRates { up: rate(1)?, down: rate(2)? });
            }
        }
        Ok(rates)
    }

    /// Writes down a session's own rates.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be written; nothing has changed then.
    pub fn set_rates(&mut self, id: SessionId, rates: OwnRates) -> Result<(), StoreError> {
        self.db.execute(
            "INSERT OR REPLACE INTO rates (session, up, down) VALUES (?1, ?2, ?3)",
            params![self.numbers.get(&id), rates.up.map(to_sql), rates.down.map(to_sql)],
        )?;
        Ok(())
    }

    /// When a quota's period (`day` or `month`) began, in seconds since 1970, and the billed bytes
    /// of all sessions then.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be read.
    pub fn quota(&self, period: &str) -> Result<Option<(u64, u64)>, StoreError> {
        let found: Option<(i64, i64)> = self
            .db
            .query_row("SELECT started, total FROM quotas WHERE period = ?1", [period], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .optional()?;
        Ok(found.map(|(started, total)| (started.unsigned_abs(), total.unsigned_abs())))
    }

    /// Writes down that a quota's period has begun.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be written; nothing has changed then.
    pub fn set_quota(&mut self, period: &str, started: u64, total: u64) -> Result<(), StoreError> {
        self.db.execute(
            "INSERT OR REPLACE INTO quotas (period, started, total) VALUES (?1, ?2, ?3)",
            params![period, to_sql(started), to_sql(total)],
        )?;
        Ok(())
    }
}
