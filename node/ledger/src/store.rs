//! The ledger on disk: the sessions, and what each has used, until the time of the ended ones is over.
//!
//! One SQLite file, `ledger.db`, that any operator can read with `sqlite3` (the view `usage` is
//! made for that). One node writes it, which a lock file beside it makes sure of.

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use rusqlite::{Connection, Row, params, params_from_iter};
use rustix::fs::{FlockOperation, flock};
use weir_common::{
    Slot,
    account::{Counters, SessionState},
};

use crate::{Session, SessionId, Usage, counters, state_name, unix_now};
use weir_wireguard::keys;

pub mod book;
pub mod check;
pub mod credit;
mod deliveries;
mod rates;
pub mod receipt;
pub mod retention;
mod schema;
pub mod scrub;
mod sql;
mod sums;
pub mod sweep;
pub mod usage;

use credit::Extra;
use receipt::ReceiptKey;

/// Why the ledger could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system said no.
    #[error("cannot open the ledger {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Another node writes it.
    #[error(
        "the ledger {path} is in use by another weir: stop that one, or set another \
         node.state_dir for this one"
    )]
    InUse {
        /// The ledger.
        path: PathBuf,
    },
    /// A later weir wrote it.
    #[error(
        "the ledger {path} has schema {found}, but this weir supports up to {known}: run a newer \
         weir"
    )]
    Newer {
        /// The ledger.
        path: PathBuf,
        /// Its schema.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// An earlier weir wrote it, and this command does not write.
    #[error("the ledger {path} has the older schema {found}: start the node once to upgrade it")]
    Older {
        /// The ledger.
        path: PathBuf,
        /// Its schema.
        found: i64,
    },
    /// The file is damaged.
    #[error(
        "the ledger {path} is damaged ({what}): keep a copy of it for `sqlite3 {path} .recover`, \
         and restore it from a backup or move it away"
    )]
    Damaged {
        /// The ledger.
        path: PathBuf,
        /// What SQLite says.
        what: String,
    },
    /// A record that contradicts itself.
    #[error("the ledger's record of session {id:?} is damaged: {what}")]
    Record {
        /// The identifier as it stands there.
        id: String,
        /// What is wrong.
        what: String,
    },
    /// A usage record is not as the node signed it.
    #[error(
        "usage record {0} of the ledger has an invalid signature, so it was altered after weir \
         wrote it: run `weir ledger check`"
    )]
    Unsigned(u64),
    /// The key that signs usage records.
    #[error(transparent)]
    Key(#[from] keys::KeyFileError),
    /// There is no room for what was to be written.
    #[error(
        "the disk with the ledger is full: nothing was changed. Free some space; weir then \
         continues by itself"
    )]
    Full,
    /// The check beside the running node has found damage.
    #[error(
        "the ledger is damaged ({0}): new sessions and credit are refused. Stop the node, keep a \
         copy of the ledger, and restore it from a backup; `weir ledger check` shows details"
    )]
    Unsound(String),
    /// SQLite failed.
    #[error("the ledger: {0}")]
    Sql(rusqlite::Error),
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DiskFull) => Self::Full,
            _ => Self::Sql(error),
        }
    }
}

/// Sessions changed in one checkpoint, from which on their sum is kept at once.
const MANY: usize = 500;

/// The ledger, opened for writing.
#[derive(Debug)]
pub struct Store {
    db: Connection,
    /// Row numbers of the live sessions: rows are found and written in the order of the file.
    numbers: HashMap<SessionId, i64>,
    receipts: ReceiptKey,
    path: PathBuf,
    /// What the check beside the running node has found.
    damage: Option<String>,
    /// Held for as long as the ledger is open.
    _lock: File,
}

impl Store {
    /// Opens the ledger, making it and its folder where there is none yet. Looks at what is of live
    /// sessions; at all of it only when a check found damage before, or an earlier weir wrote it.
    ///
    /// # Errors
    ///
    /// When the file cannot be had, is another node's, is damaged or not as weir wrote it, or is of
    /// a newer weir.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Self::open_watched(path, |_| Ok(()))
    }

    fn open_watched(
        path: &Path,
        watch: impl FnOnce(&mut Connection) -> rusqlite::Result<()>,
    ) -> Result<Self, StoreError> {
        let io = |source| StoreError::Io { path: path.to_owned(), source };
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            fs::DirBuilder::new().recursive(true).mode(0o750).create(folder).map_err(io)?;
        }
        let lock = lock(path)?;
        // To SQLite an empty file is a new one; with a key for its records it is not.
        if fs::metadata(path).is_ok_and(|file| file.len() < 512) && ReceiptKey::is_beside(path) {
            let what = "it is empty".to_owned();
            return Err(StoreError::Damaged { path: path.to_owned(), what });
        }
        if is_cut(path) {
            let what = "its last page is incomplete".to_owned();
            return Err(StoreError::Damaged { path: path.to_owned(), what });
        }
        // SQLite gives its side files the mode of the main one.
        OpenOptions::new().append(true).create(true).mode(0o640).open(path).map_err(io)?;
        let mut db = Connection::open(path).map_err(|e| damaged(path, e))?;
        db.execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;
             PRAGMA busy_timeout = 2000; PRAGMA temp_store = MEMORY; PRAGMA cell_size_check = ON;
             PRAGMA journal_size_limit = 67108864; PRAGMA secure_delete = ON;",
        )
        .map_err(|e| damaged(path, e))?;
        watch(&mut db)?;
        let found_damage = scrub::marker(path);
        let look = match found_damage.exists() {
            true => schema::Look::AtAll,
            false => schema::Look::AtLive,
        };
        schema::migrate(&mut db, path, look)?;
        if look == schema::Look::AtAll {
            fs::remove_file(&found_damage).map_err(io)?;
        }
        sums::keep(&db)?;
        let receipts = ReceiptKey::beside(path)?;
        let numbers = HashMap::new();
        Ok(Self { db, numbers, receipts, path: path.to_owned(), damage: None, _lock: lock })
    }

    /// From now on nothing is sold on this ledger, and the next start looks at all of it.
    ///
    /// # Errors
    ///
    /// When the next start cannot be told.
    pub fn set_damage(&mut self, what: &str) -> io::Result<()> {
        self.damage = Some(what.to_owned());
        fs::write(scrub::marker(&self.path), format!("{what}\n"))
    }

    fn is_sound(&self) -> Result<(), StoreError> {
        self.damage.clone().map_or(Ok(()), |what| Err(StoreError::Unsound(what)))
    }

    /// The live sessions, the oldest first, with what they have used.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be read, or a record contradicts itself.
    pub fn live(&mut self) -> Result<Vec<(Session, Counters)>, StoreError> {
        let mut statement = self.db.prepare(sql::LIVE)?;
        let mut rows = statement.query([])?;
        let mut live = Vec::new();
        while let Some(row) = rows.next()? {
            let session = read_session(row)?;
            self.numbers.insert(session.id, row.get(0)?);
            live.push((session, read_counters(row, 7)?));
        }
        Ok(live)
    }

    /// The slots that only ended sessions had, the longest free first.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be read.
    pub fn freed_slots(&self) -> Result<Vec<Slot>, StoreError> {
        let mut statement = self.db.prepare(sql::FREED_SLOTS)?;
        let slots = statement.query_map([], |row| Ok(Slot(row.get(0)?)))?;
        Ok(slots.collect::<Result<_, _>>()?)
    }

    /// What all ended sessions have used together.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be read.
    pub fn ended(&self) -> Result<Counters, StoreError> {
        Ok(self.db.query_row(sql::ENDED_TOTALS, [], |row| read_counters(row, 0))?)
    }

    /// Writes down a new session, and its limit if it has one. Returns its first counters: zero,
    /// but for the newest initiation that an earlier session with its key has taken.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be written; nothing has changed then.
    pub fn insert(&mut self, session: &Session, extra: &Extra) -> Result<Counters, StoreError> {
        self.is_sound()?;
        let change = self.db.transaction()?;
        let public_key = keys::print_public(&session.public_key);
        let newest = sweep::newest_initiation(&change, &public_key)?;
        change.execute(
            sql::ADD_SESSION,
            params![
                session.id.to_string(),
                session.slot.0,
                session.name,
                public_key,
                to_sql(session.created),
                state_name(session.state),
                extra.pause.map(crate::Pause::as_str),
            ],
        )?;
        let number = change.last_insert_rowid();
        change.execute(sql::ADD_COUNTERS, params![number, to_sql(session.created), newest])?;
        if extra.credit != crate::Credit::default() {
            let (bytes, seconds) = (extra.credit.bytes, extra.credit.seconds);
            change.execute(
                sql::ADD_CREDIT,
                params![number, bytes.map(to_sql), seconds.map(to_sql)],
            )?;
        }
        change.commit()?;
        self.numbers.insert(session.id, number);
        Ok(Counters { newest_initiation: newest.unsigned_abs(), ..Counters::default() })
    }

    /// Raises the counters of live sessions to the given ones, all or none. Counters never fall:
    /// of each the higher stays. Sessions that are not live are left alone.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be written; nothing has changed then.
    pub fn checkpoint(&mut self, changed: &[(SessionId, Counters)]) -> Result<(), StoreError> {
        let mut rows: Vec<_> = changed
            .iter()
            .filter_map(|(id, counters)| Some((*self.numbers.get(id)?, counters)))
            .collect();
        rows.sort_unstable_by_key(|(number, _)| *number);
        let now = unix_now();
        let change = self.db.transaction()?;
        let raise_all = || -> Result<(), StoreError> {
            let mut raise = change.prepare_cached(sql::RAISE)?;
            for (number, counters) in &rows {
                raise.execute(params_from_iter(raise_values(*number, now, counters)))?;
            }
            Ok(())
        };
        let all: i64 = change.query_row(sql::COUNTERS_ROWS, [], |row| row.get(0))?;
        // A look at every row is cheaper than a sum that follows each change, if most change.
        if rows.len() >= MANY && rows.len() as i64 * 2 >= all {
            sums::through(&change, "counters", raise_all)?;
        } else {
            raise_all()?;
        }
        change.commit()?;
        Ok(())
    }

    /// Ends a session with its final counters, and writes its last usage record. Its rows stay until
    /// [`Store::sweep`] finds that their time is over.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be written; nothing has changed then.
    pub fn end(&mut self, id: SessionId, last: &Usage, reason: &str) -> Result<(), StoreError> {
        let Some(number) = self.numbers.get(&id).copied() else {
            return Ok(());
        };
        let now = unix_now();
        let change = self.db.transaction()?;
        change.execute(sql::RAISE, params_from_iter(raise_values(number, now, &last.counters)))?;
        change.execute(sql::END_SESSION, params![number, to_sql(now), reason])?;
        usage::write(&change, &self.receipts, number, last, Some(reason))?;
        let last = change.query_row(sql::COUNTERS, [number], |row| read_counters(row, 0))?;
        let total = change.query_row(sql::ENDED_TOTALS, [], |row| read_counters(row, 0))?;
        let newest = last.newest_initiation;
        let total = counters::sum(&total, &last).to_array().map(to_sql);
        change.execute(sql::SET_ENDED_TOTALS, params_from_iter(total))?;
        change.execute(sql::DROP_INVOICES, [number])?;
        change.execute(sql::ADD_ENDED, [number])?;
        let public_key: String = change.query_row(sql::PUBLIC_KEY, [number], |row| row.get(0))?;
        sweep::keep_initiation(&change, &public_key, to_sql(newest), to_sql(now))?;
        sums::seal(&change, number)?;
        change.commit()?;
        self.numbers.remove(&id);
        Ok(())
    }
}

/// Whether the file ends within a page. A crash may leave it so, but then the page is in the
/// write-ahead log.
fn is_cut(path: &Path) -> bool {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    let len = |path: &Path| fs::metadata(path).map_or(0, |file| file.len());
    // The smallest page that there is.
    len(path) % 512 != 0 && len(Path::new(&log)) == 0
}

fn raise_values(number: i64, now: u64, last: &Counters) -> impl Iterator<Item = i64> {
    [number, to_sql(now)].into_iter().chain(last.to_array().map(to_sql))
}

/// SQLite's integers have a sign; eight exabytes are a safe place to stop at.
fn to_sql(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn lock(path: &Path) -> Result<File, StoreError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let io = |source| StoreError::Io { path: path.to_owned(), source };
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(name)
        .map_err(io)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(StoreError::InUse { path: path.to_owned() }),
        Err(error) => Err(io(error.into())),
    }
}

fn damaged(path: &Path, error: rusqlite::Error) -> StoreError {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    match error.sqlite_error_code() {
        Some(DatabaseCorrupt | NotADatabase) => {
            StoreError::Damaged { path: path.to_owned(), what: error.to_string() }
        }
        _ => error.into(),
    }
}

fn read_session(row: &Row<'_>) -> Result<Session, StoreError> {
    let id: String = row.get(1)?;
    let wrong = |what: String| StoreError::Record { id: id.clone(), what };
    let key: String = row.get(4)?;
    let state: String = row.get(6)?;
    Ok(Session {
        id: id.parse().map_err(|e: crate::NotAnId| wrong(e.to_string()))?,
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

fn read_counters(row: &Row<'_>, first: usize) -> rusqlite::Result<Counters> {
    let mut array = [0; Counters::COUNT];
    for (i, counter) in array.iter_mut().enumerate() {
        *counter = u64::try_from(row.get::<_, i64>(first + i)?).unwrap_or(0);
    }
    Ok(Counters::from_array(array))
}

#[cfg(any(test, feature = "test-util"))]
#[doc(hidden)]
pub mod testing;
#[cfg(test)]
mod tests;
