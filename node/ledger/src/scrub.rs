//! The check of all of a ledger, beside the node that writes it: a start looks at little of it.

use std::{
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::{LedgerError, error::damaged, integrity, schema};

/// Between two looks at whether to go on, in instructions of SQLite's machine.
const OPERATIONS: i32 = 20_000;
/// The longest rest at once.
const MAX_REST: Duration = Duration::from_millis(50);

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scrubbed {
    /// All is as weir wrote it.
    Sound,
    /// Something is not, in words.
    Damaged(String),
    /// It was told to stop.
    Stopped,
}

/// The file beside a ledger that says that damage was found in it: the next start looks at all.
#[must_use]
pub fn marker(ledger: &Path) -> PathBuf {
    let mut name = ledger.as_os_str().to_owned();
    name.push(".damaged");
    name.into()
}

/// Reads all of the ledger at `path`, as it is at one moment, and rests for as long as it works so
/// that it takes no more than half a core. Goes on while `go_on` says so.
///
/// # Errors
///
/// When the ledger cannot be read for another reason than damage.
pub fn scrub(
    path: &Path,
    mut go_on: impl FnMut() -> bool + Send + 'static,
) -> Result<Scrubbed, LedgerError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let looked = Connection::open_with_flags(path, flags).and_then(|mut db| {
        db.execute_batch("PRAGMA busy_timeout = 2000")?;
        let mut since = Instant::now();
        let rest = move || {
            sleep(since.elapsed().min(MAX_REST));
            since = Instant::now();
            !go_on()
        };
        db.progress_handler(OPERATIONS, Some(rest))?;
        Ok(db)
    });
    match looked.map_err(LedgerError::from).and_then(|db| look(&db)) {
        Ok(None) => Ok(Scrubbed::Sound),
        Ok(Some(what)) => Ok(Scrubbed::Damaged(what)),
        Err(LedgerError::Sql(error)) => match error.sqlite_error_code() {
            Some(ErrorCode::OperationInterrupted) => Ok(Scrubbed::Stopped),
            _ => match damaged(path, error) {
                LedgerError::Damaged { what, .. } => Ok(Scrubbed::Damaged(what)),
                error => Err(error),
            },
        },
        Err(error) => Err(error),
    }
}

fn look(db: &Connection) -> Result<Option<String>, LedgerError> {
    // One view of it all, while the node goes on writing.
    let view = db.unchecked_transaction()?;
    if let Some(what) = schema::check_pages(&view)? {
        return Ok(Some(what));
    }
    let differences = integrity::differences(&view, schema::CURRENT)?.unwrap_or_default();
    Ok((!differences.is_empty()).then(|| differences.join(", ")))
}
