//! Credit and pauses in the ledger.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension as _, params};
use weir_common::account::SessionState;

use crate::{
    Credit, Ledger, LedgerError, Pause, SessionId, Usage, billed, row::to_sql, sql, state_name,
    unix_now,
};

/// What the ledger knows of a live session besides who it is and its counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extra {
    /// How much it may use.
    pub credit: Credit,
    /// Why it is paused, if it is.
    pub pause: Option<Pause>,
    /// Seconds served.
    pub seconds: u64,
    /// When traffic was last counted.
    pub last_activity: u64,
}

/// One extension of a session's credit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extension {
    /// What the payment layer calls it: with the same one again, nothing is added.
    pub reference: String,
    /// Bytes to add.
    pub bytes: u64,
    /// Seconds to add.
    pub seconds: u64,
}

/// What became of an extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extended {
    /// It was added.
    Added(Credit),
    /// It had been added before: nothing has changed.
    Before(Credit),
    /// The reference stands for another extension: nothing has changed.
    Contradicts,
}

impl Ledger {
    /// The rest of what is known of the live sessions.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be read.
    pub fn extras(&self) -> Result<HashMap<SessionId, Extra>, LedgerError> {
        let mut statement = self.db.prepare(sql::EXTRAS)?;
        let mut rows = statement.query([])?;
        let mut extras = HashMap::new();
        while let Some(row) = rows.next()? {
            let unsigned = |column| -> rusqlite::Result<Option<u64>> {
                Ok(row.get::<_, Option<i64>>(column)?.map(i64::unsigned_abs))
            };
            let pause: Option<String> = row.get(3)?;
            let pause = [Pause::Operator, Pause::Credit]
                .into_iter()
                .find(|reason| pause.as_deref() == Some(reason.as_str()));
            let id: String = row.get(0)?;
            if let Ok(id) = id.parse() {
                extras.insert(
                    id,
                    Extra {
                        credit: Credit { bytes: unsigned(1)?, seconds: unsigned(2)? },
                        pause,
                        seconds: unsigned(4)?.unwrap_or(0),
                        last_activity: unsigned(5)?.unwrap_or(0),
                    },
                );
            }
        }
        Ok(extras)
    }

    /// Extends a session's credit, once for each reference. A limit that there was not yet begins
    /// at what the session has used.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be written; nothing has changed then.
    pub fn extend(
        &mut self,
        id: SessionId,
        extension: &Extension,
        used: &Usage,
    ) -> Result<Extended, LedgerError> {
        let Some(number) = self.numbers.get(&id).copied() else {
            return Ok(Extended::Contradicts);
        };
        self.is_sound()?;
        let change = self.db.transaction()?;
        let extended = add(&change, number, extension, used)?;
        change.commit()?;
        Ok(extended)
    }

    /// Writes down which sessions are open, and why the others are paused, all or none.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be written; nothing has changed then.
    pub fn set_pauses(&mut self, pauses: &[(SessionId, Option<Pause>)]) -> Result<(), LedgerError> {
        let change = self.db.transaction()?;
        for (id, pause) in pauses {
            let state = pause.map_or(SessionState::Open, |_| SessionState::Paused);
            change.prepare_cached(sql::SET_PAUSE)?.execute(params![
                self.numbers.get(id),
                state_name(state),
                pause.map(Pause::as_str)
            ])?;
        }
        change.commit()?;
        Ok(())
    }
}

/// Extends a session's credit within a transaction: see [`Ledger::extend`].
pub(crate) fn add(
    db: &Connection,
    number: i64,
    extension: &Extension,
    used: &Usage,
) -> Result<Extended, LedgerError> {
    let (bytes, seconds) = (to_sql(extension.bytes), to_sql(extension.seconds));
    let before: Option<(i64, i64)> = db
        .query_row(sql::PAYMENT, params![number, extension.reference], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .optional()?;
    let credit: Option<(Option<i64>, Option<i64>)> =
        db.query_row(sql::CREDIT, [number], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    let (had_bytes, had_seconds) = credit.unwrap_or_default();
    match before {
        Some(same) if same == (bytes, seconds) => {
            return Ok(Extended::Before(credit_of(had_bytes, had_seconds)));
        }
        Some(_) => return Ok(Extended::Contradicts),
        None => {}
    }
    let raised = |had: Option<i64>, used: u64, more: i64| match (had, more) {
        (None, 0) => None,
        (had, more) => Some(had.unwrap_or(to_sql(used)).saturating_add(more)),
    };
    let now_bytes = raised(had_bytes, billed(&used.counters), bytes);
    let now_seconds = raised(had_seconds, used.seconds, seconds);
    db.execute(
        sql::ADD_PAYMENT,
        params![number, extension.reference, bytes, seconds, to_sql(unix_now())],
    )?;
    db.execute(sql::SET_CREDIT, params![number, now_bytes, now_seconds])?;
    Ok(Extended::Added(credit_of(now_bytes, now_seconds)))
}

fn credit_of(bytes: Option<i64>, seconds: Option<i64>) -> Credit {
    Credit { bytes: bytes.map(i64::unsigned_abs), seconds: seconds.map(i64::unsigned_abs) }
}
