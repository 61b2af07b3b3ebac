//! Between SQLite's rows and the types of sessions and counters.

use rusqlite::Row;
use weir_common::{
    Slot,
    account::{Counters, SessionState},
};
use weir_wireguard::keys;

use crate::{LedgerError, NotAnId, Session, state_name};

pub(crate) fn raise_values(number: i64, now: u64, last: &Counters) -> impl Iterator<Item = i64> {
    [number, to_sql(now)].into_iter().chain(last.to_array().map(to_sql))
}

/// SQLite's integers have a sign; eight exabytes are a safe place to stop at.
pub(crate) fn to_sql(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(crate) fn read_session(row: &Row<'_>) -> Result<Session, LedgerError> {
    let id: String = row.get(1)?;
    let wrong = |what: String| LedgerError::Record { id: id.clone(), what };
    let key: String = row.get(4)?;
    let state: String = row.get(6)?;
    Ok(Session {
        id: id.parse().map_err(|e: NotAnId| wrong(e.to_string()))?,
        slot: Slot(row.get(2)?),
        name: row.get(3)?,
        public_key: keys::read_public(&key).map_err(|e| wrong(e.to_string()))?,
        created: row.get::<_, i64>(5)?.unsigned_abs(),
        state: [SessionState::Open, SessionState::Paused, SessionState::Closed]
            .into_iter()
            .find(|known| state_name(*known) == state)
            .ok_or_else(|| wrong(format!("its state is {state:?}")))?,
    })
}

pub(crate) fn read_counters(row: &Row<'_>, first: usize) -> rusqlite::Result<Counters> {
    let mut array = [0; Counters::COUNT];
    for (i, counter) in array.iter_mut().enumerate() {
        *counter = u64::try_from(row.get::<_, i64>(first + i)?).unwrap_or(0);
    }
    Ok(Counters::from_array(array))
}
