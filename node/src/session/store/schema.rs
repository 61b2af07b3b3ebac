//! The ledger's tables, and how an older ledger becomes a current one.

use std::path::Path;

use rusqlite::Connection;

use super::{StoreError, damaged};

/// Each entry takes the ledger from the schema of its index to the next. Entries are added, never
/// altered: ledgers that they made are out there.
const MIGRATIONS: [&str; 1] = [
    // Who, and what was used, are apart: the second is rewritten each second, the first never.
    "CREATE TABLE sessions (
         number     INTEGER PRIMARY KEY AUTOINCREMENT,
         id         TEXT NOT NULL UNIQUE,
         slot       INTEGER NOT NULL CHECK (slot BETWEEN 0 AND 16777215),
         name       TEXT,
         public_key TEXT NOT NULL,
         created    INTEGER NOT NULL,
         state      TEXT NOT NULL CHECK (state IN ('open', 'paused', 'closed')),
         ended      INTEGER,
         end_reason TEXT,
         CHECK ((ended IS NULL) = (end_reason IS NULL))
     ) STRICT;
     CREATE INDEX sessions_by_slot ON sessions (slot, ended);
     CREATE UNIQUE INDEX live_slot ON sessions (slot) WHERE ended IS NULL;
     CREATE UNIQUE INDEX live_public_key ON sessions (public_key) WHERE ended IS NULL;
     CREATE UNIQUE INDEX live_name ON sessions (name) WHERE ended IS NULL AND name IS NOT NULL;

     CREATE TABLE counters (
         session              INTEGER PRIMARY KEY REFERENCES sessions (number),
         updated              INTEGER NOT NULL,
         bytes_up             INTEGER NOT NULL DEFAULT 0,
         packets_up           INTEGER NOT NULL DEFAULT 0,
         bytes_down           INTEGER NOT NULL DEFAULT 0,
         packets_down         INTEGER NOT NULL DEFAULT 0,
         handshake_bytes_up   INTEGER NOT NULL DEFAULT 0,
         handshake_bytes_down INTEGER NOT NULL DEFAULT 0,
         last_handshake       INTEGER NOT NULL DEFAULT 0,
         seen_datagrams       INTEGER NOT NULL DEFAULT 0,
         seen_bytes           INTEGER NOT NULL DEFAULT 0,
         dropped_datagrams    INTEGER NOT NULL DEFAULT 0,
         dropped_bytes        INTEGER NOT NULL DEFAULT 0
     ) STRICT;

     CREATE TABLE ended_totals (
         one                  INTEGER PRIMARY KEY CHECK (one = 1),
         bytes_up             INTEGER NOT NULL DEFAULT 0,
         packets_up           INTEGER NOT NULL DEFAULT 0,
         bytes_down           INTEGER NOT NULL DEFAULT 0,
         packets_down         INTEGER NOT NULL DEFAULT 0,
         handshake_bytes_up   INTEGER NOT NULL DEFAULT 0,
         handshake_bytes_down INTEGER NOT NULL DEFAULT 0,
         last_handshake       INTEGER NOT NULL DEFAULT 0,
         seen_datagrams       INTEGER NOT NULL DEFAULT 0,
         seen_bytes           INTEGER NOT NULL DEFAULT 0,
         dropped_datagrams    INTEGER NOT NULL DEFAULT 0,
         dropped_bytes        INTEGER NOT NULL DEFAULT 0
     ) STRICT;
     INSERT INTO ended_totals (one) VALUES (1);

     CREATE VIEW usage AS
         SELECT id, name, slot, state, bytes_up, bytes_down, packets_up, packets_down,
                datetime(created, 'unixepoch') AS created_utc,
                datetime(nullif(last_handshake, 0), 'unixepoch') AS last_handshake_utc,
                datetime(updated, 'unixepoch') AS updated_utc,
                datetime(ended, 'unixepoch') AS ended_utc,
                end_reason
         FROM sessions JOIN counters ON session = number;",
];

/// The schema that this weir writes.
pub(super) const CURRENT: i64 = MIGRATIONS.len() as i64;

/// Brings the ledger to the current schema, one transaction a step.
pub(super) fn migrate(db: &mut Connection, path: &Path) -> Result<(), StoreError> {
    let found: i64 =
        db.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(|e| damaged(path, e))?;
    let known = usize::try_from(found).ok().filter(|found| *found <= MIGRATIONS.len());
    let Some(done) = known else {
        return Err(StoreError::Newer { path: path.to_owned(), found, known: CURRENT });
    };
    for (version, step) in MIGRATIONS.iter().enumerate().skip(done) {
        let change = db.transaction()?;
        change.execute_batch(step)?;
        change.pragma_update(None, "user_version", version as i64 + 1)?;
        change.commit()?;
    }
    Ok(())
}
