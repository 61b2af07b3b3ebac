//! Sessions' own rates, and what the node's quotas began with, in the ledger.

use std::collections::HashMap;

use rusqlite::{OptionalExtension as _, params};

use crate::{Ledger, LedgerError, Mark, Marks, OwnRates, SessionId, row::to_sql, sql};

impl Ledger {
    /// The rates of the live sessions that have some of their own.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be read.
    pub fn rates(&self) -> Result<HashMap<SessionId, OwnRates>, LedgerError> {
        let mut statement = self.db.prepare(sql::RATES)?;
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
    pub fn set_rates(&mut self, id: SessionId, rates: OwnRates) -> Result<(), LedgerError> {
        self.db.execute(
            sql::SET_RATES,
            params![self.numbers.get(&id), rates.up.map(to_sql), rates.down.map(to_sql)],
        )?;
        Ok(())
    }

    /// The marks of a quota's period (`day` or `month`): the one in force, and another.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be read.
    pub fn quota(&self, period: &str) -> Result<Option<Marks>, LedgerError> {
        let found = self.db.query_row(sql::QUOTA, [period], |row| {
            let number =
                |column| row.get::<_, Option<i64>>(column).map(|n| n.map(i64::unsigned_abs));
            let mark = |first| -> rusqlite::Result<Option<Mark>> {
                let (started, total) = (number(first)?, number(first + 1)?);
                Ok(started.zip(total).map(|(started, total)| Mark { started, total }))
            };
            Ok(Marks { now: mark(0)?.unwrap_or_default(), other: mark(2)? })
        });
        Ok(found.optional()?)
    }

    /// Writes down the marks of a quota's period.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be written; nothing has changed then.
    pub fn set_quota(&mut self, period: &str, marks: Marks) -> Result<(), LedgerError> {
        let Marks { now, other } = marks;
        self.db.execute(
            sql::SET_QUOTA,
            params![
                period,
                to_sql(now.started),
                to_sql(now.total),
                other.map(|other| to_sql(other.started)),
                other.map(|other| to_sql(other.total)),
            ],
        )?;
        Ok(())
    }
}
