//! The ledger's tables, and how an older ledger becomes a current one.

use std::path::Path;

use rusqlite::Connection;

mod migrations;

use self::migrations::MIGRATIONS;
use crate::{LedgerError, agreements, error::damaged, integrity, sql, sweep};

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
    use weir_promise::Use;

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
