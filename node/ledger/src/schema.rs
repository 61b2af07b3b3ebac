//! The ledger's tables, and how an older ledger becomes a current one.

use std::path::Path;

use rusqlite::Connection;

use crate::{LedgerError, agreements, error::damaged, integrity, sql, sweep};

/// Each entry takes the ledger from the schema of its index to the next. Entries are added, never
/// altered: ledgers that they made are out there.
const MIGRATIONS: &[&str] = &[
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
    // Amounts of money are decimal text: they have up to 256 bits. The longer one is the higher.
    "ALTER TABLE sessions ADD COLUMN pause_reason TEXT
         CHECK (pause_reason IN ('operator', 'credit'));
     ALTER TABLE counters ADD COLUMN seconds INTEGER NOT NULL DEFAULT 0;
     ALTER TABLE counters ADD COLUMN sequence INTEGER NOT NULL DEFAULT 0;
     ALTER TABLE counters ADD COLUMN last_activity INTEGER NOT NULL DEFAULT 0;

     CREATE TABLE credit (
         session INTEGER PRIMARY KEY REFERENCES sessions (number),
         bytes   INTEGER CHECK (bytes >= 0),
         seconds INTEGER CHECK (seconds >= 0)
     ) STRICT;
     CREATE TABLE payments (
         session   INTEGER NOT NULL REFERENCES sessions (number),
         reference TEXT NOT NULL,
         bytes     INTEGER NOT NULL,
         seconds   INTEGER NOT NULL,
         made      INTEGER NOT NULL,
         PRIMARY KEY (session, reference)
     ) STRICT, WITHOUT ROWID;

     CREATE TABLE records (
         cursor        INTEGER PRIMARY KEY AUTOINCREMENT,
         session       INTEGER NOT NULL REFERENCES sessions (number),
         sequence      INTEGER NOT NULL,
         bytes_up      INTEGER NOT NULL,
         packets_up    INTEGER NOT NULL,
         bytes_down    INTEGER NOT NULL,
         packets_down  INTEGER NOT NULL,
         seconds       INTEGER NOT NULL,
         last_activity INTEGER NOT NULL,
         end_reason    TEXT,
         signer        TEXT NOT NULL,
         signature     TEXT NOT NULL,
         UNIQUE (session, sequence)
     ) STRICT;
     CREATE TRIGGER records_stay_as_they_are BEFORE UPDATE ON records
         BEGIN SELECT RAISE(ABORT, 'usage records are never altered'); END;
     CREATE TABLE deliveries (
         sink   TEXT PRIMARY KEY,
         cursor INTEGER NOT NULL
     ) STRICT, WITHOUT ROWID;

     CREATE TABLE agreements (
         session   INTEGER PRIMARY KEY REFERENCES sessions (number),
         agreement TEXT NOT NULL UNIQUE,
         consumer  TEXT NOT NULL,
         per_gib   TEXT NOT NULL,
         per_hour  TEXT NOT NULL,
         leeway    TEXT NOT NULL,
         paid      TEXT NOT NULL DEFAULT '0'
     ) STRICT;
     CREATE TABLE invoices (
         hashlock TEXT PRIMARY KEY,
         session  INTEGER NOT NULL REFERENCES agreements (session),
         total    TEXT NOT NULL,
         preimage TEXT NOT NULL,
         made     INTEGER NOT NULL,
         paid     INTEGER
     ) STRICT, WITHOUT ROWID;
     CREATE INDEX open_invoices ON invoices (session) WHERE paid IS NULL;
     CREATE TABLE channels (
         channel  TEXT PRIMARY KEY,
         amount   TEXT NOT NULL,
         hashlock TEXT NOT NULL REFERENCES invoices (hashlock),
         message  TEXT NOT NULL,
         updated  INTEGER NOT NULL
     ) STRICT, WITHOUT ROWID;
     CREATE TRIGGER promises_only_rise BEFORE UPDATE ON channels
         WHEN length(new.amount) < length(old.amount)
             OR length(new.amount) = length(old.amount) AND new.amount <= old.amount
         BEGIN SELECT RAISE(ABORT, 'a promise is only replaced by a higher one'); END;",
    // When a record was written, and the sums over each table.
    "ALTER TABLE records ADD COLUMN made INTEGER NOT NULL DEFAULT 0;
     CREATE TABLE sums (name TEXT PRIMARY KEY, sum INTEGER NOT NULL) STRICT, WITHOUT ROWID;",
    // Bits per second; NULL is the node's default, 0 is no limit. A quota's count is the total of
    // all sessions less what that was when the period began.
    "CREATE TABLE rates (
         session INTEGER PRIMARY KEY REFERENCES sessions (number),
         up      INTEGER CHECK (up >= 0),
         down    INTEGER CHECK (down >= 0)
     ) STRICT;
     CREATE TABLE quotas (
         period  TEXT PRIMARY KEY CHECK (period IN ('day', 'month')),
         started INTEGER NOT NULL,
         total   INTEGER NOT NULL
     ) STRICT, WITHOUT ROWID;",
    // What may be unpaid is in bytes and in seconds. Invoices end: those that nothing is settled
    // with go, so that one has an index for each way in which it is looked up.
    "CREATE INDEX channels_by_hashlock ON channels (hashlock);
     DELETE FROM invoices WHERE hashlock NOT IN (SELECT hashlock FROM channels);
     DROP INDEX open_invoices;
     CREATE INDEX invoices_by_session ON invoices (session);
     ALTER TABLE invoices ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0;
     ALTER TABLE invoices ADD COLUMN seconds INTEGER NOT NULL DEFAULT 0;
     ALTER TABLE agreements DROP COLUMN leeway;
     ALTER TABLE agreements ADD COLUMN unpaid_bytes INTEGER NOT NULL DEFAULT 67108864;
     ALTER TABLE agreements ADD COLUMN unpaid_seconds INTEGER NOT NULL DEFAULT 300;
     ALTER TABLE agreements ADD COLUMN paid_bytes INTEGER;
     ALTER TABLE agreements ADD COLUMN paid_seconds INTEGER;

     CREATE TABLE income (
         one      INTEGER PRIMARY KEY CHECK (one = 1),
         promised TEXT NOT NULL
     ) STRICT;
     CREATE TABLE retention (
         one   INTEGER PRIMARY KEY CHECK (one = 1),
         swept INTEGER NOT NULL
     ) STRICT;
     INSERT INTO retention (one, swept) VALUES (1, 0);
     ALTER TABLE quotas ADD COLUMN other_started INTEGER;
     ALTER TABLE quotas ADD COLUMN other_total INTEGER;",
    // The newest initiation of each session, which one with the same key goes on from.
    "ALTER TABLE counters ADD COLUMN newest_initiation INTEGER NOT NULL DEFAULT 0;
     ALTER TABLE ended_totals ADD COLUMN newest_initiation INTEGER NOT NULL DEFAULT 0;
     CREATE INDEX sessions_by_public_key ON sessions (public_key);",
    // Ended sessions go, in the order in which they ended. What must outlive them has its own
    // place: what they have used together, the newest initiation of each key (by a hash of the
    // key), and the preimage of what each channel has promised.
    "CREATE TABLE ended_sessions (
         place   INTEGER PRIMARY KEY AUTOINCREMENT,
         session INTEGER NOT NULL UNIQUE REFERENCES sessions (number),
         ended   INTEGER NOT NULL
     ) STRICT;
     CREATE INDEX ended_sessions_by_end ON ended_sessions (ended);
     INSERT INTO ended_sessions (session, ended)
         SELECT number, ended FROM sessions WHERE ended IS NOT NULL ORDER BY ended, number;
     CREATE TABLE swept_totals (
         one                  INTEGER PRIMARY KEY CHECK (one = 1),
         sessions             INTEGER NOT NULL DEFAULT 0,
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
         dropped_bytes        INTEGER NOT NULL DEFAULT 0,
         newest_initiation    INTEGER NOT NULL DEFAULT 0
     ) STRICT;
     INSERT INTO swept_totals (one) VALUES (1);
     CREATE TABLE initiations (
         place  INTEGER PRIMARY KEY AUTOINCREMENT,
         key    BLOB NOT NULL UNIQUE,
         newest INTEGER NOT NULL,
         ended  INTEGER NOT NULL
     ) STRICT;
     CREATE INDEX initiations_by_end ON initiations (ended);
     DROP INDEX sessions_by_public_key;

     CREATE TABLE promises (
         channel  TEXT PRIMARY KEY,
         amount   TEXT NOT NULL,
         hashlock TEXT NOT NULL,
         message  TEXT NOT NULL,
         updated  INTEGER NOT NULL,
         preimage TEXT NOT NULL
     ) STRICT, WITHOUT ROWID;
     INSERT INTO promises (channel, amount, hashlock, message, updated, preimage)
         SELECT channel, amount, hashlock, message, updated, preimage
         FROM channels JOIN invoices USING (hashlock);
     DROP TABLE channels;
     ALTER TABLE promises RENAME TO channels;
     CREATE INDEX channels_by_hashlock ON channels (hashlock);
     CREATE TRIGGER promises_only_rise BEFORE UPDATE ON channels
         WHEN length(new.amount) < length(old.amount)
             OR length(new.amount) = length(old.amount) AND new.amount <= old.amount
         BEGIN SELECT RAISE(ABORT, 'a promise is only replaced by a higher one'); END;
     DELETE FROM invoices
         WHERE session IN (SELECT number FROM sessions WHERE ended IS NOT NULL);",
    // Which session had which block of external ports. It outlives the session's own rows, or they
    // it. How long a row is kept counts from `released`, which is `until` unless a clock was ahead.
    "CREATE TABLE port_blocks (
         place    INTEGER PRIMARY KEY AUTOINCREMENT,
         session  TEXT NOT NULL,
         address  TEXT NOT NULL,
         first    INTEGER NOT NULL CHECK (first BETWEEN 0 AND 65535),
         length   INTEGER NOT NULL CHECK (length BETWEEN 1 AND 65536),
         since    INTEGER NOT NULL,
         until    INTEGER CHECK (until >= since),
         released INTEGER,
         CHECK ((until IS NULL) = (released IS NULL))
     ) STRICT;
     CREATE UNIQUE INDEX held_port_blocks ON port_blocks (address, first) WHERE until IS NULL;
     CREATE INDEX port_blocks_by_holder ON port_blocks (session) WHERE until IS NULL;
     CREATE INDEX port_blocks_by_port ON port_blocks (address, first, since);
     CREATE INDEX port_blocks_by_release ON port_blocks (released) WHERE released IS NOT NULL;",
];

/// The first schema whose sums tell what ended sessions have of each table.
pub(crate) const ENDED_APART: i64 = 5;

/// The first schema that has the newest initiations of keys apart from their sessions.
const INITIATIONS_APART: i64 = 7;

/// The schema that this weir writes.
pub(crate) const CURRENT: i64 = MIGRATIONS.len() as i64;

/// How much of the ledger a start looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// What is of live sessions: so much however long there was a ledger.
    AtLive,
    /// All of it.
    AtAll,
}

/// Brings the ledger to the current schema, one transaction a step, once its content is found to be
/// what weir wrote. Before a step that is asked of all of it.
pub(crate) fn migrate(db: &mut Connection, path: &Path, look: Look) -> Result<(), LedgerError> {
    let found: i64 =
        db.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(|e| damaged(path, e))?;
    let known = usize::try_from(found).ok().filter(|found| *found <= MIGRATIONS.len());
    let Some(done) = known else {
        return Err(LedgerError::Newer { path: path.to_owned(), found, known: CURRENT });
    };
    let bad = |what| LedgerError::Damaged { path: path.to_owned(), what };
    let at_all = look == Look::AtAll || found != CURRENT;
    if at_all {
        check_pages(db).map_err(|e| damaged(path, e))?.map_or(Ok(()), |what| Err(bad(what)))?;
    }
    if integrity::are_kept(db).map_err(|e| named(path, e))? {
        let differences = match at_all {
            true => integrity::differences(db, found),
            false => integrity::differences_of_live(db),
        };
        match differences.map_err(|e| named(path, e))? {
            Some(differences) if !differences.is_empty() => {
                return Err(bad(differences.join(", ")));
            }
            Some(_) => {}
            None => {
                tracing::warn!(
                    ledger = %path.display(),
                    "the ledger's checksums were removed: its content is accepted as it is"
                );
                let change = db.transaction()?;
                integrity::rewrite(&change, found)?;
                change.commit()?;
            }
        }
    }
    for (version, step) in MIGRATIONS.iter().enumerate().skip(done) {
        let change = db.transaction()?;
        // A step that does not go is one that was made already: the schema's number is wrong.
        change.execute_batch(step).map_err(|error| match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::Unknown) => bad(error.to_string()),
            _ => damaged(path, error),
        })?;
        let version = version as i64 + 1;
        change.pragma_update(None, "user_version", version)?;
        if version == ENDED_APART {
            let promised = agreements::sum_promises(&change)?;
            change.execute(sql::SET_INCOME, [promised.to_string()])?;
        }
        if version == INITIATIONS_APART {
            keep_all_initiations(&change)?;
        }
        if integrity::are_kept(&change)? {
            integrity::rewrite(&change, version)?;
        }
        change.commit()?;
    }
    Ok(())
}

/// Keeps the newest initiation of each key that ended sessions have, in a ledger of an earlier weir.
fn keep_all_initiations(db: &Connection) -> Result<(), LedgerError> {
    let mut statement = db.prepare(
        "SELECT public_key, max(newest_initiation), max(ended)
         FROM sessions JOIN counters ON session = number
         WHERE ended IS NOT NULL GROUP BY public_key ORDER BY max(ended), max(number)",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let public_key: String = row.get(0)?;
        sweep::save_initiation(db, &public_key, row.get(1)?, row.get(2)?)?;
    }
    Ok(())
}

/// What is wrong with the structure of the file, if anything is: a look at all of it.
pub(crate) fn check_pages(db: &Connection) -> rusqlite::Result<Option<String>> {
    let verdict: String = db.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    Ok((verdict != "ok").then_some(verdict))
}

/// Damage that SQLite meets on its way is said to be damage.
fn named(path: &Path, error: LedgerError) -> LedgerError {
    match error {
        LedgerError::Sql(error) => damaged(path, error),
        error => error,
    }
}

#[cfg(test)]
mod tests {
    use alloy_primitives::U256;

    use super::*;
    use crate::Ledger;
    use crate::payment::Use;

    /// A ledger as the weir of schema 4 wrote it: a live session that has paid 70 wei of a wei a
    /// byte, after 20 seconds at a wei each, and one that has ended.
    const OF_SCHEMA_4: &str = "
        INSERT INTO sessions (id, slot, public_key, created, state)
            VALUES ('00000000000000a1', 0, 'hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=', 5, 'open'),
                   ('00000000000000a2', 1, 'hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmp=', 5, 'open');
        UPDATE sessions SET ended = 9, end_reason = 'removed', state = 'closed' WHERE number = 2;
        INSERT INTO counters (session, updated, bytes_up, seconds) VALUES (1, 6, 60, 20), (2, 6, 9, 1);
        UPDATE ended_totals SET bytes_up = 9;
        INSERT INTO agreements (session, agreement, consumer, per_gib, per_hour, leeway, paid)
            VALUES (1, '7', '0x0707070707070707070707070707070707070707', '1073741824', '3600', '99', '70'),
                   (2, '8', '0x0707070707070707070707070707070707070707', '1073741824', '3600', '99', '5');
        INSERT INTO invoices (hashlock, session, total, preimage, made, paid)
            VALUES ('l1', 1, '50', 'x', 5, 6), ('l2', 1, '70', 'x', 5, 6), ('l3', 1, '90', 'x', 5, NULL),
                   ('l4', 2, '5', 'x', 5, 6), ('l5', 2, '6', 'x', 5, NULL);
        INSERT INTO channels (channel, amount, hashlock, message, updated)
            VALUES ('c1', '570', 'l2', '{}', 6), ('c2', '30', 'l4', '{}', 6);
        INSERT INTO quotas (period, started, total) VALUES ('day', 86400, 7);";

    #[test]
    fn a_ledger_of_schema_4_goes_on_with_budgets_and_without_old_invoices() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ledger.db");
        let db = Connection::open(&path).expect("opened");
        for step in &MIGRATIONS[..4] {
            db.execute_batch(step).expect("made");
        }
        db.execute_batch(OF_SCHEMA_4).expect("filled");
        db.pragma_update(None, "user_version", 4).expect("set");
        integrity::rewrite(&db, 4).expect("summed");
        drop(db);
        let ledger = Ledger::open(&path).expect("brought up to date");
        let agreements = ledger.agreements().expect("read");
        let agreement = agreements.values().next().expect("the live one");
        assert_eq!(agreements.len(), 1);
        assert_eq!(agreement.unpaid, Use { bytes: 64 << 20, seconds: 300 });
        assert_eq!(agreement.paid_for, Use { bytes: 50, seconds: 20 });
        assert_eq!(ledger.earned().expect("read"), U256::from(600));
        assert_eq!(ledger.count("invoices"), 1, "the live one's that its channel names");
        assert_eq!(ledger.count("channels"), 2);
        let marks = ledger.quota("day").expect("read").expect("there");
        assert_eq!((marks.now.started, marks.now.total, marks.other), (86_400, 7, None));
        drop(ledger);
        Ledger::open(&path).expect("its sums are right");
        let scrubbed = crate::scrub::scrub(&path, || true).expect("read");
        assert_eq!(scrubbed, crate::scrub::Scrubbed::Sound);
    }

    /// A ledger as the weir of schema 6 wrote it: a live session, and three that have ended, two of
    /// them with one key, and one with a promise that is not settled.
    const OF_SCHEMA_6: &str = "
        INSERT INTO sessions (id, slot, public_key, created, state) VALUES
            ('00000000000000a1', 0, 'hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=', 5, 'open'),
            ('00000000000000a2', 1, 'one', 5, 'open'), ('00000000000000a3', 2, 'two', 5, 'open');
        UPDATE sessions SET ended = unixepoch() - number, end_reason = 'removed',
            state = 'closed' WHERE number > 1;
        INSERT INTO sessions (id, slot, public_key, created, state, ended, end_reason)
            VALUES ('00000000000000a4', 1, 'one', 5, 'closed', unixepoch() - 1, 'removed');
        INSERT INTO counters (session, updated, bytes_up, newest_initiation)
            VALUES (1, 6, 60, 5), (2, 6, 9, 700), (3, 6, 4, 0), (4, 6, 1, 600);
        UPDATE ended_totals SET bytes_up = 14, newest_initiation = 700;
        INSERT INTO agreements (session, agreement, consumer, per_gib, per_hour, paid)
            VALUES (1, '7', '0x0707070707070707070707070707070707070707', '1', '3600', '70'),
                   (2, '8', '0x0707070707070707070707070707070707070707', '1', '3600', '5');
        INSERT INTO invoices (hashlock, session, total, preimage, made, paid) VALUES
            ('l1', 1, '70', '0101010101010101010101010101010101010101010101010101010101010101', 5, 6),
            ('l2', 2, '5', '0202020202020202020202020202020202020202020202020202020202020202', 5, 6);
        INSERT INTO channels (channel, amount, hashlock, message, updated)
            VALUES ('c1', '570', 'l1', '{}', 6), ('c2', '30', 'l2', '{}', 6);
        INSERT INTO income (one, promised) VALUES (1, '600');";

    #[test]
    fn a_ledger_of_schema_6_keeps_what_outlives_its_ended_sessions_and_lets_them_go() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ledger.db");
        let db = Connection::open(&path).expect("opened");
        for step in &MIGRATIONS[..6] {
            db.execute_batch(step).expect("made");
        }
        db.execute_batch(OF_SCHEMA_6).expect("filled");
        db.pragma_update(None, "user_version", 6).expect("set");
        integrity::rewrite(&db, 6).expect("summed");
        drop(db);
        let mut ledger = Ledger::open(&path).expect("brought up to date");
        assert_eq!(ledger.live().expect("read").len(), 1);
        let newest =
            |ledger: &Ledger, key| sweep::newest_initiation(&ledger.db, key).expect("read");
        let check = |ledger: &Ledger| {
            assert_eq!([newest(ledger, "one"), newest(ledger, "two")], [700, 0]);
            let reader = crate::check::Reader::open(&path).expect("opened");
            assert_eq!(reader.check().expect("read").problems, Vec::<String>::new());
            let settlements = reader.settlements().expect("read");
            let settled: Vec<_> =
                settlements.iter().map(|s| (s.amount, s.preimage.expose()[0])).collect();
            assert_eq!(settled, [(U256::from(570), 1), (U256::from(30), 2)]);
            assert_eq!((ledger.count("invoices"), ledger.ended().expect("read").bytes_up), (1, 14));
        };
        check(&ledger);
        assert_eq!(ledger.sweep_all_ended(), 3);
        assert_eq!((ledger.count("sessions"), ledger.count("agreements")), (1, 1));
        check(&ledger);
        drop(ledger);
        check(&Ledger::open(&path).expect("its sums are right"));
    }

    /// A ledger as the weir of schema 7 wrote it: a live session, and one that has ended.
    const OF_SCHEMA_7: &str = "
        INSERT INTO sessions (id, slot, public_key, created, state, ended, end_reason) VALUES
            ('00000000000000a1', 0, 'hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=', 5, 'open',
                NULL, NULL),
            ('00000000000000a2', 1, 'one', 5, 'closed', 9, 'removed');
        INSERT INTO ended_sessions (session, ended) VALUES (2, 9);
        INSERT INTO counters (session, updated, bytes_up) VALUES (1, 6, 60), (2, 6, 9);
        UPDATE ended_totals SET bytes_up = 9;";

    #[test]
    fn a_ledger_of_schema_7_gets_a_place_for_blocks_of_ports() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ledger.db");
        let db = Connection::open(&path).expect("opened");
        for step in &MIGRATIONS[..7] {
            db.execute_batch(step).expect("made");
        }
        db.execute_batch(OF_SCHEMA_7).expect("filled");
        db.pragma_update(None, "user_version", 7).expect("set");
        integrity::rewrite(&db, 7).expect("summed");
        drop(db);
        let mut ledger = Ledger::open(&path).expect("brought up to date");
        let live = ledger.live().expect("read");
        let ports = crate::Ports { address: [192, 0, 2, 7].into(), first: 4096, length: 32 };
        let taken = crate::BlockEvent::Taken { session: live[0].0.id, ports, at: 7 };
        ledger.write_blocks(&[taken]).expect("written");
        drop(ledger);
        let ledger = Ledger::open(&path).expect("its sums are right");
        assert_eq!(ledger.open_blocks().expect("read").len(), 1);
        let reader = crate::check::Reader::open(&path).expect("opened");
        assert_eq!(reader.check().expect("read").problems, Vec::<String>::new());
    }

    #[test]
    fn an_older_ledger_that_was_altered_is_not_brought_up_to_date() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("ledger.db");
        let db = Connection::open(&path).expect("opened");
        for step in &MIGRATIONS[..4] {
            db.execute_batch(step).expect("made");
        }
        db.execute_batch(OF_SCHEMA_4).expect("filled");
        db.pragma_update(None, "user_version", 4).expect("set");
        integrity::rewrite(&db, 4).expect("summed");
        db.execute_batch("UPDATE counters SET bytes_up = 8 WHERE session = 2").expect("altered");
        drop(db);
        let error = Ledger::open(&path).expect_err("refused").to_string();
        assert!(error.contains("counters"), "{error}");
    }
}
