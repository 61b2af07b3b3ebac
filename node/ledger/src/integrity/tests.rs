use rand_core::{OsRng, RngCore as _};

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::*;
use crate::{credit::Extra, ledger::RECOMPUTE_THRESHOLD, *};
use weir_common::{
    Slot,
    account::{Counters, SessionState},
};
use weir_wireguard::keys::PrivateKey;

/// A ledger with something in every table that sessions fill, and its rows.
fn filled(folder: &Path) -> (PathBuf, Vec<String>) {
    let path = folder.join("ledger.db");
    let mut ledger = Ledger::open(&path).expect("opened");
    ledger.in_one_go(|ledger| {
        for slot in 0..60 {
            let session = Session {
                id: SessionId::random(),
                slot: Slot(slot),
                name: Some(format!("consumer {slot}")),
                public_key: PrivateKey::random().public(),
                created: 1_700_000_000,
                state: SessionState::Open,
            };
            ledger.insert(&session, &Extra::default()).expect("inserted");
            let counters = Counters::from_array([u64::from(slot) * 1000; Counters::COUNT]);
            let used = Usage { counters, ..Usage::default() };
            let more =
                credit::Extension { reference: format!("p{slot}"), bytes: 1 << 40, seconds: 0 };
            ledger.extend(session.id, &more, &used).expect("extended");
            ledger.record(&[(session.id, used)]).expect("written");
            ledger.checkpoint(&[(session.id, counters)]).expect("written");
            if slot % 7 == 0 {
                ledger.end(session.id, &used, "removed").expect("ended");
            }
        }
        ledger.set_delivered("webhook", 17).expect("written");
    });
    drop(ledger);
    let rows = rows(&path).expect("read");
    (path, rows)
}

/// Every row of every table, as text.
fn rows(path: &Path) -> Result<Vec<String>, LedgerError> {
    let db = Connection::open(path)?;
    let mut all = Vec::new();
    for table in tables(&db)? {
        let mut statement = db.prepare(&format!("SELECT * FROM {table}"))?;
        let width = statement.column_count();
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let values: Result<Vec<_>, _> = (0..width).map(|i| row.get_ref(i)).collect();
            all.push(format!("{table} {:?}", values?));
        }
    }
    all.sort();
    Ok(all)
}

#[test]
fn a_flipped_bit_anywhere_is_refused_or_found_beside_the_node_or_was_in_no_row() {
    let folder = tempfile::tempdir().expect("a folder");
    let (path, expected) = filled(folder.path());
    let whole = fs::read(&path).expect("read");
    let (mut refused, mut found, mut harmless) = (0, 0, 0);
    for _ in 0..800 {
        let (random, mut flipped) = (OsRng.next_u64(), whole.clone());
        let place = (random >> 3) as usize % flipped.len();
        flipped[place] ^= 1 << (random & 7);
        fs::write(&path, &flipped).expect("written");
        for side in ["-wal", "-shm"] {
            fs::remove_file(folder.path().join(format!("ledger.db{side}"))).ok();
        }
        match Ledger::open(&path) {
            Err(error) => {
                refused += 1;
                let text = error.to_string();
                assert!(text.contains("ledger"), "byte {place}: {text}");
            }
            Ok(ledger) => {
                drop(ledger);
                let scrubbed = scrub::scrub(&path, || true).expect("read");
                if let scrub::Scrubbed::Damaged(_) = scrubbed {
                    found += 1;
                    continue;
                }
                harmless += 1;
                assert_eq!(
                    rows(&path).expect("read"),
                    expected,
                    "bit {} of byte {place}",
                    random & 7
                );
            }
        }
    }
    // A quarter of the file's bytes or more are in rows or lead to them: of the 800, some 200.
    assert!(refused > 50, "{refused} refused, {found} found, {harmless} without harm");
    assert!(found > 20, "{refused} refused, {found} found, {harmless} without harm");
}

#[test]
fn each_table_is_checked_by_the_start_or_known_to_be_too_big_for_that() {
    let folder = tempfile::tempdir().expect("a folder");
    let ledger = Ledger::open(&folder.path().join("ledger.db")).expect("opened");
    let mut there = tables(&ledger.db).expect("read");
    let of_sessions = OF_SESSIONS.iter().map(|(table, _)| *table);
    let mut known: Vec<_> = of_sessions.chain(SMALL).chain(BIG).map(str::to_owned).collect();
    there.sort_unstable();
    known.sort_unstable();
    assert_eq!(there, known);
}

#[test]
fn damage_in_what_a_start_does_not_read_is_found_beside_the_node() {
    let folder = tempfile::tempdir().expect("a folder");
    let (path, _) = filled(folder.path());
    for (table, sql) in [
        ("records", "DELETE FROM records WHERE cursor = 12"),
        ("sessions (ended)", "UPDATE sessions SET slot = 999 WHERE number = 1"),
        ("counters (ended)", "UPDATE counters SET bytes_up = 1 WHERE session = 8"),
    ] {
        let whole = fs::read(&path).expect("read");
        let db = Connection::open(&path).expect("opened");
        db.execute_batch(sql).expect("altered");
        drop(db);
        let mut ledger = Ledger::open(&path).expect("it has nothing to do with live sessions");
        let scrub::Scrubbed::Damaged(what) = scrub::scrub(&path, || true).expect("read") else {
            panic!("{sql} was not found")
        };
        assert!(what.contains(table), "{what}");
        // From then on nothing is sold, and the next start does look at it.
        ledger.set_damage(&what).expect("written");
        let session = ledger.live().expect("read")[0].0.clone();
        let more = credit::Extension { reference: "p".into(), bytes: 1, seconds: 0 };
        let sold = ledger.extend(session.id, &more, &Usage::default());
        assert!(matches!(sold, Err(LedgerError::Unsound(_))), "{sold:?}");
        ledger.checkpoint(&at(&[session.id], 1 << 40)).expect("counting goes on");
        drop(ledger);
        let again = Ledger::open(&path).expect_err("refused");
        assert!(matches!(again, LedgerError::Damaged { .. }), "{again}");
        fs::write(&path, whole).expect("restored");
        drop(Ledger::open(&path).expect("it is whole again"));
        assert!(!scrub::marker(&path).exists(), "the start has looked at all of it");
    }
}

#[test]
fn a_check_that_is_told_to_stop_does() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("ledger.db");
    testing::crowd(&path, 10, 500);
    assert_eq!(scrub::scrub(&path, || false).expect("read"), scrub::Scrubbed::Stopped);
    assert_eq!(scrub::scrub(&path, || true).expect("read"), scrub::Scrubbed::Sound);
}

#[test]
fn a_flipped_number_is_named_by_the_start_and_by_the_check() {
    let folder = tempfile::tempdir().expect("a folder");
    let (path, _) = filled(folder.path());
    for (table, sql) in [
        ("counters", "UPDATE counters SET bytes_up = bytes_up + 4096 WHERE session = 5"),
        ("credit", "UPDATE credit SET bytes = bytes + 1 WHERE session = 9"),
        ("sessions", "UPDATE sessions SET slot = 999 WHERE number = 3"),
        ("payments", "DELETE FROM payments WHERE session = 4"),
    ] {
        let whole = fs::read(&path).expect("read");
        let db = Connection::open(&path).expect("opened");
        db.execute_batch(sql).expect("altered");
        drop(db);
        let error = Ledger::open(&path).expect_err("refused").to_string();
        assert!(error.contains(table) && error.contains(".recover"), "{error}");
        let report = check::Reader::open(&path).expect("opened").check().expect("read");
        assert!(report.problems.iter().any(|problem| problem.contains(table)), "{report:?}");
        fs::write(&path, whole).expect("written");
    }
    Ledger::open(&path).expect("as it was");
}

#[test]
fn a_truncated_ledger_is_refused_at_any_length() {
    let folder = tempfile::tempdir().expect("a folder");
    let (path, _) = filled(folder.path());
    let whole = fs::read(&path).expect("read");
    for length in [0, 1, 100, 4096, 8192, whole.len() / 2, whole.len() - 4096, whole.len() - 1] {
        fs::write(&path, &whole[..length]).expect("written");
        let Err(error) = Ledger::open(&path) else { panic!("{length} of {} taken", whole.len()) };
        assert!(matches!(error, LedgerError::Damaged { .. }), "{length}: {error}");
        assert_eq!(fs::read(&path).expect("read"), whole[..length], "it is left as it was");
    }
}

#[test]
fn an_altered_record_is_not_exported() {
    let folder = tempfile::tempdir().expect("a folder");
    let (path, _) = filled(folder.path());
    let db = Connection::open(&path).expect("opened");
    db.execute_batch(
        "DROP TRIGGER records_stay_as_they_are; UPDATE records SET bytes_up = 1 WHERE cursor = 30",
    )
    .expect("altered");
    drop(db);
    let mut exported = 0;
    let reader = check::Reader::open(&path).expect("opened");
    let outcome = reader.export(0, |_| {
        exported += 1;
        Ok::<_, LedgerError>(())
    });
    assert!(matches!(outcome, Err(LedgerError::Unsigned(30))), "{outcome:?}");
    assert_eq!(exported, 29);
}

#[test]
fn a_repaired_ledger_is_taken_once_its_sums_are_removed() {
    let folder = tempfile::tempdir().expect("a folder");
    let (path, _) = filled(folder.path());
    let db = Connection::open(&path).expect("opened");
    db.execute_batch("UPDATE counters SET bytes_up = bytes_up + 1; DELETE FROM sums").expect("ok");
    drop(db);
    drop(Ledger::open(&path).expect("taken as it is"));
    let db = Connection::open(&path).expect("opened");
    db.execute_batch("UPDATE counters SET bytes_up = bytes_up + 1").expect("altered");
    drop(db);
    assert!(Ledger::open(&path).is_err(), "the sums are kept again");
}

#[test]
fn a_refused_change_leaves_the_sums_as_they_were() {
    let folder = tempfile::tempdir().expect("a folder");
    let (path, _) = filled(folder.path());
    let mut ledger = Ledger::open(&path).expect("opened");
    let live = ledger.live().expect("read");
    let change = ledger.db.transaction().expect("begun");
    change.execute("DELETE FROM credit", []).expect("deleted");
    drop(change);
    let twin = Session { id: SessionId::random(), ..live[0].0.clone() };
    assert!(ledger.insert(&twin, &Extra::default()).is_err(), "its slot is taken");
    drop(ledger);
    Ledger::open(&path).expect("nothing has changed");
}

/// A ledger with `count` sessions.
fn crowd(path: &Path, count: u32) -> (Ledger, Vec<SessionId>) {
    let mut ledger = Ledger::open(path).expect("opened");
    let mut ids = Vec::new();
    ledger.in_one_go(|ledger| {
        for slot in 0..count {
            let session = Session {
                id: SessionId::random(),
                slot: Slot(slot),
                name: None,
                public_key: PrivateKey::random().public(),
                created: 1_700_000_000,
                state: SessionState::Open,
            };
            ledger.insert(&session, &Extra::default()).expect("inserted");
            ids.push(session.id);
        }
    });
    (ledger, ids)
}

fn at(ids: &[SessionId], bytes: u64) -> Vec<(SessionId, Counters)> {
    let counters = Counters::from_array([bytes; Counters::COUNT]);
    ids.iter().map(|id| (*id, counters)).collect()
}

#[test]
fn the_sum_is_right_after_checkpoints_of_many_and_of_few() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("ledger.db");
    let (mut ledger, ids) = crowd(&path, RECOMPUTE_THRESHOLD as u32 + 10);
    for (bytes, changed) in [(1000, &ids[..]), (2000, &ids[..3]), (3000, &ids[..]), (4000, &[])] {
        ledger.checkpoint(&at(changed, bytes)).expect("written");
    }
    drop(ledger);
    let db = Connection::open(&path).expect("opened");
    assert_eq!(differences(&db, schema::CURRENT).expect("read"), Some(Vec::new()));
    Ledger::open(&path).expect("it is as weir wrote it");
}

#[test]
fn what_was_damaged_before_a_checkpoint_of_many_is_found_after_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("ledger.db");
    let (mut ledger, ids) = crowd(&path, RECOMPUTE_THRESHOLD as u32 + 10);
    ledger.checkpoint(&at(&ids, 1000)).expect("written");
    // Without weir's triggers: as a flipped bit.
    let other = Connection::open(&path).expect("opened");
    let flipped = "UPDATE counters SET bytes_up = bytes_up + 1 WHERE session = 5";
    assert_eq!(other.execute(flipped, []).expect("written"), 1);
    drop(other);
    ledger.checkpoint(&at(&ids[..RECOMPUTE_THRESHOLD], 2000)).expect("written");
    drop(ledger);
    let db = Connection::open(&path).expect("opened");
    let found = differences(&db, schema::CURRENT).expect("read").expect("there are sums");
    assert!(found.iter().any(|it| it.contains("counters")), "{found:?}");
}
