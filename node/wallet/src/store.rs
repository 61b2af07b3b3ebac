//! The wallet's file.
//!
//! It is an SQLite database, because what an exchange takes away and what it adds must change together, and several
//! commands may run at once. WAL with `synchronous = FULL`: a transaction that was committed survives a power cut.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

use rusqlite::Connection;
use serde::Serialize;

use crate::WalletError;

mod proofs;
mod sent;
mod swaps;

pub use proofs::Balance;
pub use sent::{Sent, SentState};
pub(crate) use sent::{SentProofs, Spendable};
pub(crate) use swaps::{Finished, OpenSwap, Purpose};

/// The steps of the schema. One that exists never changes.
const MIGRATIONS: [&str; 1] = ["
    CREATE TABLE mints (url TEXT PRIMARY KEY) STRICT;
    CREATE TABLE keysets (
        url TEXT NOT NULL, unit TEXT NOT NULL, id TEXT NOT NULL, json TEXT NOT NULL,
        PRIMARY KEY (url, unit, id)
    ) STRICT;
    CREATE TABLE asked (
        url TEXT NOT NULL, unit TEXT NOT NULL, at INTEGER NOT NULL, PRIMARY KEY (url, unit)
    ) STRICT;
    -- What can be spent.
    CREATE TABLE proofs (
        y TEXT PRIMARY KEY, url TEXT NOT NULL, unit TEXT NOT NULL, amount INTEGER NOT NULL,
        keyset TEXT NOT NULL, json TEXT NOT NULL
    ) STRICT;
    -- Exchanges that the mint may have seen.
    CREATE TABLE swaps (
        number INTEGER PRIMARY KEY AUTOINCREMENT, url TEXT NOT NULL, unit TEXT NOT NULL,
        purpose TEXT NOT NULL, inputs TEXT NOT NULL, outputs TEXT NOT NULL
    ) STRICT;
    CREATE TABLE received (
        hash TEXT PRIMARY KEY, amount INTEGER NOT NULL, at INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE sent (
        number INTEGER PRIMARY KEY AUTOINCREMENT, url TEXT NOT NULL, unit TEXT NOT NULL,
        amount INTEGER NOT NULL, note TEXT NOT NULL, at INTEGER NOT NULL, state TEXT NOT NULL,
        -- NULL when it can no longer be spent.
        proofs TEXT,
        lock TEXT, refund_after INTEGER, refund_key TEXT
    ) STRICT;
    CREATE INDEX proofs_of_mint ON proofs (url, unit);
    CREATE INDEX sent_of_state ON sent (state);
"];

/// The open file.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) db: Connection,
}

/// A mint, and one of its units.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct Place {
    pub(crate) url: String,
    pub(crate) unit: String,
}

impl Store {
    /// Opens the file, or makes it for its owner alone.
    pub(crate) fn open(path: &Path) -> Result<Self, WalletError> {
        let failed = |doing| move |source| WalletError::File { doing, path: path.into(), source };
        if let Some(directory) = path.parent() {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
            made.map_err(failed("make the directory of"))?;
        }
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(failed("make")(error));
            }
            _ => {}
        }
        let mode = fs::metadata(path).map_err(failed("read"))?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(WalletError::Exposed(path.into()));
        }
        let mut db = Connection::open(path)?;
        db.execute_batch(
            "PRAGMA busy_timeout = 10000; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
             PRAGMA secure_delete = ON; PRAGMA temp_store = MEMORY;",
        )?;
        let change = db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        let version: usize = change.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        if version > MIGRATIONS.len() {
            return Err(WalletError::Newer(path.into()));
        }
        for step in MIGRATIONS.iter().skip(version) {
            change.execute_batch(step)?;
        }
        change.pragma_update(None, "user_version", MIGRATIONS.len())?;
        change.commit()?;
        Ok(Self { db })
    }

    pub(crate) fn mints(&self) -> Result<Vec<String>, WalletError> {
        let mut read = self.db.prepare("SELECT url FROM mints ORDER BY url")?;
        let rows = read.query_map([], |row| row.get(0))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    pub(crate) fn knows(&self, url: &str) -> Result<bool, WalletError> {
        let sql = "SELECT EXISTS (SELECT 1 FROM mints WHERE url = ?1)";
        Ok(self.db.query_row(sql, [url], |row| row.get(0))?)
    }

    pub(crate) fn add_mint(&self, url: &str) -> Result<bool, WalletError> {
        Ok(self.db.execute("INSERT OR IGNORE INTO mints VALUES (?1)", [url])? > 0)
    }

    pub(crate) fn remove_mint(&mut self, url: &str) -> Result<bool, WalletError> {
        let change = self.db.transaction()?;
        change.execute("DELETE FROM keysets WHERE url = ?1", [url])?;
        change.execute("DELETE FROM asked WHERE url = ?1", [url])?;
        let removed = change.execute("DELETE FROM mints WHERE url = ?1", [url])?;
        change.commit()?;
        Ok(removed > 0)
    }

    /// The stored keysets, and when the mint was asked for them last.
    pub(crate) fn keysets(&self, at: &Place) -> Result<(Vec<String>, Option<u64>), WalletError> {
        let mut read = self.db.prepare("SELECT json FROM keysets WHERE url = ?1 AND unit = ?2")?;
        let rows = read.query_map([&at.url, &at.unit], |row| row.get(0))?;
        let stored = rows.collect::<Result<_, _>>()?;
        let mut read = self.db.prepare("SELECT at FROM asked WHERE url = ?1 AND unit = ?2")?;
        let mut asked = read.query_map([&at.url, &at.unit], |row| row.get(0))?;
        Ok((stored, asked.next().transpose()?))
    }

    pub(crate) fn set_keysets(
        &mut self,
        at: &Place,
        stored: &[(String, String)],
        now: u64,
    ) -> Result<(), WalletError> {
        let change = self.db.transaction()?;
        for (id, json) in stored {
            let sql = "INSERT OR REPLACE INTO keysets VALUES (?1, ?2, ?3, ?4)";
            change.execute(sql, [&at.url, &at.unit, id, json])?;
        }
        let sql = "INSERT OR REPLACE INTO asked VALUES (?1, ?2, ?3)";
        change.execute(sql, rusqlite::params![at.url, at.unit, now])?;
        change.commit()?;
        Ok(())
    }
}
