use super::*;
use crate::testing::{crowd, used};
use weir_common::account::SessionState;
use weir_wireguard::keys::PrivateKey;

fn session(slot: u32) -> Session {
    Session {
        id: SessionId::random(),
        slot: Slot(slot),
        name: Some(format!("consumer {slot}")),
        public_key: PrivateKey::random().public(),
        created: 1_700_000_000,
        state: SessionState::Open,
    }
}

#[test]
fn sessions_and_counters_read_back_after_reopening() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("state/ledger.db");
    let (one, two) = (session(0), session(7));
    let mut ledger = Ledger::open(&path).expect("opened");
    ledger.insert(&one, &Extra::default()).expect("inserted");
    ledger.insert(&two, &Extra::default()).expect("inserted");
    ledger.checkpoint(&[(two.id, used(9))]).expect("written");
    drop(ledger);
    let mut ledger = Ledger::open(&path).expect("opened again");
    assert_eq!(ledger.live().expect("read"), [(one, used(0)), (two, used(9))]);
}

#[test]
fn a_preshared_key_is_there_until_its_session_ends() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("ledger.db");
    let (one, two) = (session(0), session(7));
    let key = PresharedKey::random();
    let mut ledger = Ledger::open(&path).expect("opened");
    ledger.insert_with_key(&one, &Extra::default(), Some(&key)).expect("inserted");
    ledger.insert(&two, &Extra::default()).expect("inserted");
    drop(ledger);
    let mut ledger = Ledger::open(&path).expect("opened again");
    ledger.live().expect("read");
    let keys = ledger.preshared_keys().expect("read");
    assert_eq!(keys.into_iter().collect::<Vec<_>>(), [(one.id, key.clone())]);
    ledger.end(one.id, &Usage::default(), "removed").expect("ended");
    assert!(ledger.preshared_keys().expect("read").is_empty());
    drop(ledger);
    let ledger = Ledger::open(&path).expect("opened again");
    assert!(ledger.preshared_keys().expect("read").is_empty());
    let rows = ledger.db.query_row("SELECT count(*) FROM preshared_keys", [], |row| row.get(0));
    assert_eq!(rows, Ok(0));
}

#[test]
fn counters_never_fall_and_stop_at_the_largest_number() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut ledger = Ledger::open(&folder.path().join("ledger.db")).expect("opened");
    let one = session(0);
    ledger.insert(&one, &Extra::default()).expect("inserted");
    let mixed = Counters { bytes_up: 5, ..used(100) };
    ledger.checkpoint(&[(one.id, used(50))]).expect("written");
    ledger.checkpoint(&[(one.id, mixed)]).expect("written");
    let read = ledger.live().expect("read")[0].1;
    assert_eq!(read, Counters { bytes_up: 50, ..used(100) });
    for _ in 0..2 {
        ledger.checkpoint(&[(one.id, used(u64::MAX))]).expect("written");
    }
    assert_eq!(ledger.live().expect("read")[0].1, used(i64::MAX as u64));
    ledger
        .end(one.id, &Usage { counters: used(u64::MAX), ..Usage::default() }, "removed")
        .expect("ended");
    let two = session(1);
    ledger.insert(&two, &Extra::default()).expect("inserted");
    ledger
        .end(two.id, &Usage { counters: used(u64::MAX), ..Usage::default() }, "removed")
        .expect("ended");
    assert_eq!(ledger.ended().expect("read"), used(i64::MAX as u64));
}

#[test]
fn an_ended_session_leaves_its_record_and_frees_its_slot_and_key() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("ledger.db");
    let mut ledger = Ledger::open(&path).expect("opened");
    let one = session(3);
    ledger.insert(&one, &Extra::default()).expect("inserted");
    ledger.end(one.id, &Usage { counters: used(8), ..Usage::default() }, "removed").expect("ended");
    assert_eq!(ledger.live().expect("read"), []);
    assert_eq!(ledger.ended().expect("read"), used(8));
    assert_eq!(ledger.freed_slots().expect("read"), [Slot(3)]);
    let again = Session { id: SessionId::random(), ..one.clone() };
    ledger
        .insert(&again, &Extra::default())
        .expect("the slot, the key and the name are free again");
    assert_eq!(ledger.freed_slots().expect("read"), []);
    let kept: (String, i64) = ledger
        .db
        .query_row("SELECT id, bytes_up FROM usage WHERE end_reason = 'removed'", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .expect("the record is kept");
    assert_eq!(kept, (one.id.to_string(), 8));
}

#[test]
fn a_ledger_has_one_writer() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("ledger.db");
    let first = Ledger::open(&path).expect("opened");
    assert!(matches!(Ledger::open(&path), Err(LedgerError::InUse { .. })));
    // As a program that is being started has it.
    let copy = first._lock.0.try_clone().expect("a copy of the file");
    drop(first);
    Ledger::open(&path).expect("free again");
    drop(copy);
}

#[test]
fn damaged_and_newer_ledgers_are_refused_with_what_to_do() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("ledger.db");
    fs::write(&path, vec![0x5a; 8192]).expect("written");
    let error = Ledger::open(&path).expect_err("refused");
    assert!(matches!(error, LedgerError::Damaged { .. }), "{error}");
    fs::remove_file(&path).expect("removed");
    let ledger = Ledger::open(&path).expect("opened");
    ledger.db.pragma_update(None, "user_version", 999).expect("set");
    drop(ledger);
    let error = Ledger::open(&path).expect_err("refused");
    assert!(matches!(error, LedgerError::Newer { found: 999, .. }), "{error}");
}

#[test]
fn a_flipped_page_is_found_at_the_start_or_beside_the_node() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("ledger.db");
    crowd(&path, 200, 20);
    let whole = fs::read(&path).expect("read");
    let pages = whole.len() / 4096;
    let mut at_the_start = 0;
    for page in 0..pages {
        let mut bytes = whole.clone();
        bytes[page * 4096..page * 4096 + 64].fill(0xff);
        fs::write(&path, bytes).expect("written");
        match Ledger::open(&path) {
            Err(LedgerError::Damaged { .. }) => at_the_start += 1,
            Err(error) => panic!("page {page}: {error}"),
            Ok(ledger) => {
                drop(ledger);
                let scrubbed = scrub::scrub(&path, || true).expect("read");
                let found = matches!(scrubbed, scrub::Scrubbed::Damaged(_));
                assert!(found, "page {page} of {pages}");
            }
        }
        for side in ["-wal", "-shm"] {
            fs::remove_file(folder.path().join(format!("ledger.db{side}"))).ok();
        }
    }
    assert!(at_the_start > pages / 4, "{at_the_start} of {pages}");
}

#[test]
fn records_of_a_clock_that_was_years_ahead_go_with_what_came_next() {
    use crate::{Retention, Swept};
    let folder = tempfile::tempdir().expect("a folder");
    let mut ledger = Ledger::open(&folder.path().join("ledger.db")).expect("opened");
    let one = session(0);
    ledger.insert(&one, &Extra::default()).expect("inserted");
    for bytes in 1..=6 {
        ledger
            .record(&[(one.id, Usage { counters: used(bytes), ..Usage::default() })])
            .expect("written");
    }
    // Two old ones, two by a clock that was ahead, another old one, and one of now.
    ledger
        .db
        .execute_batch(
            "DROP TRIGGER records_stay_as_they_are;
             UPDATE records SET made = 7 WHERE cursor IN (1, 2, 5);
             UPDATE records SET made = 2147483647 WHERE cursor IN (3, 4)",
        )
        .expect("aged");
    let day = Retention { delivered: 86_400, undelivered: None };
    assert_eq!(ledger.forget(day, &[]).expect("done"), Swept { gone: 5, goes_on: false });
    // While nothing has come next, they are of today.
    ledger.db.execute("UPDATE records SET made = 2147483647", []).expect("aged");
    ledger.record(&[(one.id, Usage { counters: used(7), ..Usage::default() })]).expect("written");
    assert_eq!(ledger.forget(day, &[]).expect("done").gone, 0);
}

#[test]
fn records_go_when_their_time_is_over_and_their_receivers_have_them() {
    use crate::Retention;
    let folder = tempfile::tempdir().expect("a folder");
    let mut ledger = Ledger::open(&folder.path().join("ledger.db")).expect("opened");
    let (one, two) = (session(0), session(1));
    for session in [&one, &two] {
        ledger.insert(session, &Extra::default()).expect("inserted");
    }
    let write = |ledger: &mut Ledger, bytes: u64| {
        for id in [one.id, two.id] {
            let usage = Usage { counters: used(bytes), ..Usage::default() };
            ledger.record(&[(id, usage)]).expect("written");
        }
    };
    write(&mut ledger, 1);
    write(&mut ledger, 2);
    let cursors = |ledger: &Ledger| -> Vec<u64> {
        ledger.usage_after(0, 100).expect("read").iter().map(|record| record.cursor).collect()
    };
    let gone = |ledger: &mut Ledger, kept: Retention, receivers: &[&str]| {
        ledger.forget(kept, receivers).expect("done").gone
    };
    let day = Retention { delivered: 86_400, undelivered: None };
    assert_eq!(gone(&mut ledger, day, &[]), 0, "they are of today");
    ledger
        .db
        .execute_batch("DROP TRIGGER records_stay_as_they_are; UPDATE records SET made = 7")
        .expect("aged");
    write(&mut ledger, 3);
    assert_eq!(gone(&mut ledger, day, &["webhook"]), 0, "it has none of them");
    ledger.set_delivered("webhook", 3).expect("written");
    ledger.set_delivered("file", 1).expect("written");
    assert_eq!(gone(&mut ledger, day, &["webhook", "file"]), 1);
    assert_eq!(gone(&mut ledger, day, &["webhook"]), 2);
    assert_eq!(cursors(&ledger), [4, 5, 6]);
    let limited = Retention { undelivered: Some(2 * 86_400), ..day };
    assert_eq!(gone(&mut ledger, limited, &["webhook"]), 1, "nobody came for it");
    let always = Retention { delivered: 0, undelivered: Some(0) };
    std::thread::sleep(std::time::Duration::from_millis(1100));
    assert_eq!(gone(&mut ledger, always, &[]), 0, "the last ones stay");
    assert_eq!(cursors(&ledger), [5, 6]);
    assert_eq!(ledger.last_cursor().expect("read"), 6);
}

/// The steps of SQLite's machine that a start takes, from the file to the sessions.
fn steps_of_a_start(path: &Path) -> u64 {
    use std::sync::{Arc, atomic::AtomicU64, atomic::Ordering::Relaxed};
    let steps = Arc::<AtomicU64>::default();
    let counted = Arc::clone(&steps);
    let watch = move |db: &mut Connection| {
        let count = move || {
            counted.fetch_add(1, Relaxed);
            false
        };
        db.progress_handler(1, Some(count))
    };
    let mut ledger = Ledger::open_watched(path, watch).expect("opened");
    ledger.live().expect("read");
    ledger.extras().expect("read");
    ledger.agreements().expect("read");
    ledger.rates().expect("read");
    ledger.freed_slots().expect("read");
    ledger.ended().expect("read");
    ledger.earned().expect("read");
    ledger.last_cursor().expect("read");
    ledger.quota("day").expect("read");
    steps.load(Relaxed)
}

#[test]
fn a_start_does_as_much_after_a_thousand_sessions_and_their_records_as_after_thirty() {
    let folder = tempfile::tempdir().expect("a folder");
    let (young, old) = (folder.path().join("a/ledger.db"), folder.path().join("b/ledger.db"));
    crowd(&young, 20, 32);
    crowd(&old, 20, 1600);
    let (young, old) = (steps_of_a_start(&young), steps_of_a_start(&old));
    assert!(young > 1000, "{young} steps: nothing was looked at");
    assert!(old < young + young / 10, "{young} steps with 32 ended sessions, {old} with 1600");
}
