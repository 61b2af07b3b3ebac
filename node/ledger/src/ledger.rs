//! The ledger on disk: live sessions and what each has used, and ended sessions until their time is
//! over.
//!
//! It is one SQLite file, `ledger.db`. Operators can read it with `sqlite3`, for which there is the
//! view `usage`. A lock file beside it ensures that only one node writes it.

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use rusqlite::{Connection, params, params_from_iter};
use rustix::fs::{FlockOperation, flock};
use weir_common::{Slot, account::Counters};
use weir_wireguard::keys::{self, PresharedKey};
use zeroize::Zeroizing;

use crate::{
    Credit, LedgerError, NotAnId, Pause, Session, SessionId, Usage, counters,
    credit::Extra,
    error::damaged,
    integrity, records,
    row::{raise_values, read_counters, read_session, to_sql},
    schema, scrub, sql, state_name, sweep, unix_now,
    usage_record::RecordKey,
};

/// A checkpoint of at least this many sessions, if they are most of them, computes the checksum of
/// the table once instead of row by row.
pub(crate) const RECOMPUTE_THRESHOLD: usize = 500;

/// The ledger, opened for writing.
#[derive(Debug)]
pub struct Ledger {
    pub(crate) db: Connection,
    /// Row numbers of the live sessions: rows are found and written in the order of the file.
    pub(crate) numbers: HashMap<SessionId, i64>,
    pub(crate) record_key: RecordKey,
    path: PathBuf,
    /// What the check beside the running node has found.
    damage: Option<String>,
    /// Held until the database is closed: fields are dropped in their order.
    _lock: Lock,
}

impl Ledger {
    /// Opens the ledger, and creates it and its folder if there is none. Verifies the rows of live
    /// sessions, or everything if a check found damage before or an earlier weir wrote the file.
    ///
    /// # Errors
    ///
    /// When the file cannot be opened, another node uses it, it is damaged or another program changed
    /// it, or a newer weir wrote it.
    pub fn open(path: &Path) -> Result<Self, LedgerError> {
        Self::open_watched(path, |_| Ok(()))
    }

    pub(crate) fn open_watched(
        path: &Path,
        watch: impl FnOnce(&mut Connection) -> rusqlite::Result<()>,
    ) -> Result<Self, LedgerError> {
        let io = |source| LedgerError::Io { path: path.to_owned(), source };
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            fs::DirBuilder::new().recursive(true).mode(0o750).create(folder).map_err(io)?;
        }
        let lock = lock(path)?;
        // To SQLite an empty file is a new one; with a key for its records it is not.
        if fs::metadata(path).is_ok_and(|file| file.len() < 512) && RecordKey::is_beside(path) {
            let what = "it is empty".to_owned();
            return Err(LedgerError::Damaged { path: path.to_owned(), what });
        }
        if is_cut(path) {
            let what = "its last page is incomplete".to_owned();
            return Err(LedgerError::Damaged { path: path.to_owned(), what });
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
        integrity::install_triggers(&db)?;
        let record_key = RecordKey::beside(path)?;
        let numbers = HashMap::new();
        Ok(Self { db, numbers, record_key, path: path.to_owned(), damage: None, _lock: lock })
    }

    /// Refuses new sessions and credit from now on, and has the next start verify everything.
    ///
    /// # Errors
    ///
    /// When the marker for the next start cannot be written.
    pub fn set_damage(&mut self, what: &str) -> io::Result<()> {
        self.damage = Some(what.to_owned());
        fs::write(scrub::marker(&self.path), format!("{what}\n"))
    }

    pub(crate) fn is_sound(&self) -> Result<(), LedgerError> {
        self.damage.clone().map_or(Ok(()), |what| Err(LedgerError::Unsound(what)))
    }

    /// The live sessions, the oldest first, with what they have used.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be read, or a record contradicts itself.
    pub fn live(&mut self) -> Result<Vec<(Session, Counters)>, LedgerError> {
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
    pub fn freed_slots(&self) -> Result<Vec<Slot>, LedgerError> {
        let mut statement = self.db.prepare(sql::FREED_SLOTS)?;
        let slots = statement.query_map([], |row| Ok(Slot(row.get(0)?)))?;
        Ok(slots.collect::<Result<_, _>>()?)
    }

    /// What all ended sessions have used together.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be read.
    pub fn ended(&self) -> Result<Counters, LedgerError> {
        Ok(self.db.query_row(sql::ENDED_TOTALS, [], |row| read_counters(row, 0))?)
    }

    /// Adds a session, and its limit if it has one. Returns its first counters. They are zero, except
    /// for the newest initiation that an earlier session with its key has accepted.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be written; nothing has changed then.
    pub fn insert(&mut self, session: &Session, extra: &Extra) -> Result<Counters, LedgerError> {
        self.insert_with_key(session, extra, None)
    }

    /// As [`Ledger::insert`], for a session that may have a pre-shared key. It is deleted when the
    /// session ends.
    ///
    /// # Errors
    ///
    /// As [`Ledger::insert`].
    pub fn insert_with_key(
        &mut self,
        session: &Session,
        extra: &Extra,
        preshared: Option<&PresharedKey>,
    ) -> Result<Counters, LedgerError> {
        self.is_sound()?;
        let change = self.db.transaction()?;
        let (number, counters) = add_session(&change, session, extra, preshared)?;
        change.commit()?;
        self.numbers.insert(session.id, number);
        Ok(counters)
    }

    /// The pre-shared keys of the live sessions that have one.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be read, or holds a key that is none.
    pub fn preshared_keys(&self) -> Result<HashMap<SessionId, PresharedKey>, LedgerError> {
        let mut statement = self.db.prepare(sql::PRESHARED_KEYS)?;
        let mut rows = statement.query([])?;
        let mut found = HashMap::new();
        while let Some(row) = rows.next()? {
            let (id, key) = (row.get::<_, String>(0)?, Zeroizing::new(row.get::<_, String>(1)?));
            let wrong = |what: String| LedgerError::Record { id: id.clone(), what };
            let key = PresharedKey::parse(&key).map_err(|error| wrong(error.to_string()))?;
            let id = id.parse().map_err(|error: NotAnId| wrong(error.to_string()))?;
            found.insert(id, key);
        }
        Ok(found)
    }

    /// Raises the counters of live sessions to the given ones, all or none. A counter never falls.
    /// Sessions that are not live are ignored.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be written; nothing has changed then.
    pub fn checkpoint(&mut self, changed: &[(SessionId, Counters)]) -> Result<(), LedgerError> {
        let mut rows: Vec<_> = changed
            .iter()
            .filter_map(|(id, counters)| Some((*self.numbers.get(id)?, counters)))
            .collect();
        rows.sort_unstable_by_key(|(number, _)| *number);
        let now = unix_now();
        let change = self.db.transaction()?;
        let raise_all = || -> Result<(), LedgerError> {
            let mut raise = change.prepare_cached(sql::RAISE)?;
            for (number, counters) in &rows {
                raise.execute(params_from_iter(raise_values(*number, now, counters)))?;
            }
            Ok(())
        };
        let all: i64 = change.query_row(sql::COUNTERS_ROWS, [], |row| row.get(0))?;
        // A look at every row is cheaper than a sum that follows each change, if most change.
        if rows.len() >= RECOMPUTE_THRESHOLD && rows.len() as i64 * 2 >= all {
            integrity::through(&change, "counters", raise_all)?;
        } else {
            raise_all()?;
        }
        change.commit()?;
        Ok(())
    }

    /// Ends a session with its final counters, and writes its last usage record. Its rows stay until
    /// [`Ledger::sweep`] finds that their time is over.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be written; nothing has changed then.
    pub fn end(&mut self, id: SessionId, last: &Usage, reason: &str) -> Result<(), LedgerError> {
        let Some(number) = self.numbers.get(&id).copied() else {
            return Ok(());
        };
        let now = unix_now();
        let change = self.db.transaction()?;
        change.execute(sql::RAISE, params_from_iter(raise_values(number, now, &last.counters)))?;
        change.execute(sql::END_SESSION, params![number, to_sql(now), reason])?;
        records::write(&change, &self.record_key, number, last, Some(reason))?;
        let last = change.query_row(sql::COUNTERS, [number], |row| read_counters(row, 0))?;
        let total = change.query_row(sql::ENDED_TOTALS, [], |row| read_counters(row, 0))?;
        let newest = last.newest_initiation;
        let total = counters::sum(&total, &last).to_array().map(to_sql);
        change.execute(sql::SET_ENDED_TOTALS, params_from_iter(total))?;
        change.execute(sql::DROP_INVOICES, [number])?;
        change.execute(sql::DROP_PRESHARED_KEY, [number])?;
        change.execute(sql::ADD_ENDED, [number])?;
        change.execute(sql::RELEASE_BLOCKS_OF, params![number, to_sql(now)])?;
        change.execute(sql::FORGET_VOUCHERS_OF, [number])?;
        change.execute(sql::FORGET_TOKENS_OF, [number])?;
        let public_key: String = change.query_row(sql::PUBLIC_KEY, [number], |row| row.get(0))?;
        sweep::save_initiation(&change, &public_key, to_sql(newest), to_sql(now))?;
        integrity::seal(&change, number)?;
        change.commit()?;
        self.numbers.remove(&id);
        Ok(())
    }
}

/// Adds a session within a transaction: see [`Ledger::insert`]. Returns its row and its first counters.
pub(crate) fn add_session(
    change: &Connection,
    session: &Session,
    extra: &Extra,
    preshared: Option<&PresharedKey>,
) -> Result<(i64, Counters), LedgerError> {
    let public_key = keys::print_public(&session.public_key);
    let newest = sweep::newest_initiation(change, &public_key)?;
    change.execute(
        sql::ADD_SESSION,
        params![
            session.id.to_string(),
            session.slot.0,
            session.name,
            public_key,
            to_sql(session.created),
            state_name(session.state),
            extra.pause.map(Pause::as_str),
        ],
    )?;
    let number = change.last_insert_rowid();
    change.execute(sql::ADD_COUNTERS, params![number, to_sql(session.created), newest])?;
    if extra.credit != Credit::default() {
        let (bytes, seconds) = (extra.credit.bytes, extra.credit.seconds);
        change.execute(sql::ADD_CREDIT, params![number, bytes.map(to_sql), seconds.map(to_sql)])?;
    }
    if let Some(key) = preshared {
        change.execute(sql::ADD_PRESHARED_KEY, params![number, key.print().as_str()])?;
    }
    let newest_initiation = newest.unsigned_abs();
    Ok((number, Counters { newest_initiation, ..Counters::default() }))
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

/// The lock of a ledger. It is given back explicitly: a program that this process is starting has a
/// copy of the file until it runs, which would keep it.
#[derive(Debug)]
struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Otherwise the last copy to be closed gives it back.
        flock(&self.0, FlockOperation::Unlock).ok();
    }
}

fn lock(path: &Path) -> Result<Lock, LedgerError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let io = |source| LedgerError::Io { path: path.to_owned(), source };
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(name)
        .map_err(io)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Lock(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(LedgerError::InUse { path: path.to_owned() }),
        Err(error) => Err(io(error.into())),
    }
}

#[cfg(test)]
mod tests;
