use std::{fs, path::Path};

use proptest::prelude::*;
use weir_common::{
    Slot,
    account::{Counters, SessionState},
};

use super::*;
use crate::{
    Retention, Session, SessionId, Usage,
    check::Reader,
    credit::{Extension, Extra},
    scrub::{Scrubbed, scrub},
};
use weir_wireguard::keys::PrivateKey;

const DAY: u64 = 86_400;

/// Ten days, for sessions.
const KEPT: Option<u64> = Some(10 * DAY);

/// One day, for records that were delivered; those that were not are kept for ever.
const RECORDS_KEPT: Retention = Retention { delivered: DAY, undelivered: None };

fn session(slot: u32) -> Session {
    Session {
        id: SessionId::random(),
        slot: Slot(slot),
        name: Some(format!("consumer-{slot}")),
        public_key: PrivateKey::random().public(),
        created: 1_700_000_000,
        state: SessionState::Open,
    }
}

fn usage(bytes: u64) -> Usage {
    let counters = Counters::from_array([bytes; Counters::COUNT]);
    Usage { counters, ..Usage::default() }
}

fn open(folder: &Path) -> Ledger {
    let mut ledger = Ledger::open(&folder.join("ledger.db")).expect("opened");
    ledger.in_no_hurry();
    ledger.live().expect("read");
    ledger
}

/// Makes a session that has used so much, and ends it.
fn ended(ledger: &mut Ledger, slot: u32, bytes: u64) -> Session {
    let session = session(slot);
    ledger.insert(&session, &Extra::default()).expect("inserted");
    ledger.record(&[(session.id, usage(bytes / 2))]).expect("written");
    ledger.end(session.id, &usage(bytes), "removed").expect("ended");
    session
}

fn pay(ledger: &mut Ledger, id: SessionId, reference: String) {
    let more = Extension { reference, bytes: 1 << 40, seconds: 0 };
    ledger.extend(id, &more, &Usage::default()).expect("extended");
}

/// Lets every record go whose session has another, a day and more from now.
fn release(ledger: &mut Ledger, days: u64) {
    ledger.forget_at(RECORDS_KEPT, &[], unix_now() + days * DAY).expect("done");
}

fn in_days(days: u64) -> u64 {
    unix_now() + days * DAY
}

fn sweep_all(ledger: &mut Ledger, max_rows: u64, now: u64) -> usize {
    let mut gone = 0;
    loop {
        let swept = ledger.sweep_at(KEPT, max_rows, now).expect("swept");
        gone += swept.gone;
        if !swept.goes_on {
            return gone;
        }
    }
}

/// What `weir ledger check` says, and the check beside the running node.
fn problems(folder: &Path) -> Vec<String> {
    let path = folder.join("ledger.db");
    let mut problems = Reader::open(&path).expect("opened").check().expect("read").problems;
    match scrub(&path, || true).expect("read") {
        Scrubbed::Sound => {}
        other => problems.push(format!("{other:?}")),
    }
    problems
}

fn ended_ids(ledger: &Ledger) -> Vec<String> {
    let sql = "SELECT id FROM sessions JOIN ended_sessions ON session = number ORDER BY place";
    let mut statement = ledger.db.prepare(sql).expect("prepared");
    let ids = statement.query_map([], |row| row.get(0)).expect("read");
    ids.collect::<Result<_, _>>().expect("read")
}

const TABLES: [&str; 9] = [
    "sessions",
    "counters",
    "credit",
    "payments",
    "rates",
    "agreements",
    "invoices",
    "records",
    "ended_sessions",
];

#[test]
fn no_row_of_a_session_is_left_once_its_time_is_over_and_the_totals_are_still_proven() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut ledger = open(folder.path());
    let one = session(0);
    ledger.insert(&one, &Extra::default()).expect("inserted");
    pay(&mut ledger, one.id, "p1".into());
    let rates = crate::OwnRates { up: Some(1), down: None };
    ledger.set_rates(one.id, rates).expect("written");
    ledger.record(&[(one.id, usage(5))]).expect("written");
    ledger.end(one.id, &usage(9), "removed").expect("ended");
    release(&mut ledger, 2);
    assert_eq!(sweep_all(&mut ledger, MAX_ROWS, in_days(9)), 0, "its time is not over");
    assert_eq!(ledger.sweep_at(None, MAX_ROWS, in_days(9999)).expect("swept").gone, 0, "for ever");
    assert_eq!(sweep_all(&mut ledger, MAX_ROWS, in_days(11)), 1);
    for table in TABLES {
        assert_eq!(ledger.count(table), 0, "{table}");
    }
    assert_eq!(ledger.ended().expect("read"), usage(9).counters);
    assert_eq!(ledger.last_cursor().expect("read"), 2, "cursors never fall");
    assert_eq!(problems(folder.path()), Vec::<String>::new());
    drop(ledger);
    let mut ledger = open(folder.path());
    assert_eq!(ledger.last_cursor().expect("read"), 2);
    let next = ended(&mut ledger, 0, 4);
    assert_eq!(ledger.usage_after(2, 9).expect("read").len(), 2, "they come after what is gone");
    assert_eq!(ended_ids(&ledger), [next.id.to_string()]);
    assert_eq!(problems(folder.path()), Vec::<String>::new());
}

#[test]
fn a_session_stays_until_each_receiver_has_its_last_record_and_that_record_could_go() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut ledger = open(folder.path());
    let one = ended(&mut ledger, 0, 10);
    let forget = |ledger: &mut Ledger, kept, days| {
        ledger.forget_at(kept, &["webhook", "file"], in_days(days)).expect("done");
        sweep_all(ledger, MAX_ROWS, in_days(days))
    };
    assert_eq!(forget(&mut ledger, RECORDS_KEPT, 1000), 0, "nobody has its records");
    ledger.set_delivered("webhook", 2).expect("written");
    ledger.set_delivered("file", 1).expect("written");
    assert_eq!(forget(&mut ledger, RECORDS_KEPT, 1000), 0, "the file has not got the last");
    ledger.set_delivered("file", 2).expect("written");
    let longer = Retention { delivered: 100 * DAY, undelivered: None };
    assert_eq!(forget(&mut ledger, longer, 99), 0, "records are kept for longer than sessions");
    assert_eq!(ended_ids(&ledger), [one.id.to_string()]);
    assert_eq!(forget(&mut ledger, longer, 101), 1);
}

#[test]
fn a_session_with_thousands_of_payments_goes_a_few_rows_at_a_time_over_restarts() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut ledger = open(folder.path());
    let one = session(0);
    ledger.insert(&one, &Extra::default()).expect("inserted");
    for nth in 0..3 * MAX_ROWS {
        pay(&mut ledger, one.id, format!("p{nth}"));
    }
    ledger.end(one.id, &usage(9), "removed").expect("ended");
    release(&mut ledger, 2);
    let mut before = ledger.count("payments");
    let mut transactions = 1;
    while ledger.sweep_at(KEPT, MAX_ROWS, in_days(11)).expect("swept").goes_on {
        transactions += 1;
        let now = ledger.count("payments");
        assert!(before - now <= MAX_ROWS as usize, "{before} {now}");
        before = now;
        assert_eq!(problems(folder.path()), Vec::<String>::new());
        drop(ledger);
        ledger = open(folder.path());
    }
    assert!(transactions >= 3, "{transactions}");
    assert_eq!((ledger.count("payments"), ledger.count("sessions")), (0, 0));
    assert_eq!(problems(folder.path()), Vec::<String>::new());
}

#[test]
fn a_sweep_that_fails_half_way_or_is_killed_there_has_done_nothing() {
    let (folder, copy) =
        (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("one"));
    let mut ledger = open(folder.path());
    for slot in 0..20 {
        ended(&mut ledger, slot, 10);
    }
    release(&mut ledger, 2);
    // In the middle, copies the files as a kill leaves them, and then fails as a full disk does.
    let (from, to) = (folder.path().to_owned(), copy.path().to_owned());
    let kill = move |_: &rusqlite::functions::Context<'_>| {
        for file in ["ledger.db", "ledger.db-wal", "receipt.key"] {
            fs::copy(from.join(file), to.join(file)).expect("copied");
        }
        Ok(0)
    };
    let flags = rusqlite::functions::FunctionFlags::SQLITE_UTF8;
    ledger.db.create_scalar_function("kill", 0, flags, kill).expect("made");
    let trigger = "CREATE TEMP TRIGGER half_way BEFORE DELETE ON counters WHEN OLD.session = 10
         BEGIN SELECT kill(); SELECT RAISE(ABORT, 'half way'); END";
    ledger.db.execute_batch(trigger).expect("made");
    let error = ledger.sweep_at(KEPT, MAX_ROWS, in_days(11)).expect_err("half way").to_string();
    assert!(error.contains("half way"), "{error}");
    ledger.db.execute_batch("DROP TRIGGER temp.half_way").expect("dropped");
    ledger.refuse_changes(true);
    ledger.sweep_at(KEPT, MAX_ROWS, in_days(11)).expect_err("nothing can be written");
    ledger.refuse_changes(false);
    let all = ended_ids(&ledger);
    assert_eq!(all.len(), 20);
    for folder in [folder.path(), copy.path()] {
        assert_eq!(problems(folder), Vec::<String>::new());
    }
    let mut killed = open(copy.path());
    assert_eq!(ended_ids(&killed), all);
    for ledger in [&mut ledger, &mut killed] {
        assert_eq!(sweep_all(ledger, MAX_ROWS, in_days(11)), 20);
    }
    for folder in [folder.path(), copy.path()] {
        assert_eq!(problems(folder), Vec::<String>::new());
    }
}

#[test]
fn what_a_session_took_of_initiations_outlives_its_rows_for_a_year_and_no_longer() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut ledger = open(folder.path());
    let one = ended(&mut ledger, 0, 77);
    release(&mut ledger, 2);
    assert_eq!(sweep_all(&mut ledger, MAX_ROWS, in_days(365)), 1);
    drop(ledger);
    let mut ledger = open(folder.path());
    let again = Session { id: SessionId::random(), ..one.clone() };
    let counters = ledger.insert(&again, &Extra::default()).expect("inserted");
    assert_eq!(counters, Counters { newest_initiation: 77, ..Counters::default() });
    // It has had no handshake: what is known stays known.
    let taken = Usage { counters, ..Usage::default() };
    ledger.end(again.id, &taken, "removed").expect("ended");
    let again = Session { id: SessionId::random(), ..one.clone() };
    assert_eq!(ledger.insert(&again, &Extra::default()).expect("inserted"), counters);
    ledger.end(again.id, &taken, "removed").expect("ended");
    assert_eq!(ledger.count("initiations"), 1, "one for a key");
    sweep_all(&mut ledger, MAX_ROWS, in_days(365));
    assert_eq!(ledger.count("initiations"), 1);
    sweep_all(&mut ledger, MAX_ROWS, in_days(367));
    assert_eq!(ledger.count("initiations"), 0);
    let again = Session { id: SessionId::random(), ..one };
    let counters = ledger.insert(&again, &Extra::default()).expect("inserted");
    assert_eq!(counters, Counters::default());
    assert_eq!(problems(folder.path()), Vec::<String>::new());
}

#[test]
fn of_too_many_keys_those_go_whose_session_ended_first() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut ledger = open(folder.path());
    let sessions: Vec<_> = (0..5).map(|slot| ended(&mut ledger, slot, 7)).collect();
    // As many more have ended since as there is room for, but for two.
    let later = "INSERT INTO initiations (place, key, newest, ended) VALUES (?1 + 3, x'00', 1, ?2)";
    ledger.db.execute(later, params![MAX_INITIATIONS, to_sql(unix_now())]).expect("inserted");
    sweep_all(&mut ledger, MAX_ROWS, unix_now());
    let known = |session: &Session| {
        let key = weir_wireguard::keys::print_public(&session.public_key);
        newest_initiation(&ledger.db, &key).expect("read") != 0
    };
    assert_eq!(sessions.iter().map(known).collect::<Vec<_>>(), [false, false, false, true, true]);
}

#[test]
fn what_a_clock_stamped_that_was_ahead_goes_a_retention_after_it_was_put_right() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut ledger = open(folder.path());
    for slot in 0..5 {
        ended(&mut ledger, slot, 7);
    }
    release(&mut ledger, 2);
    ledger
        .db
        .execute_batch(
            "UPDATE ended_sessions SET ended = 4102444800 WHERE place IN (2, 3);
             UPDATE initiations SET ended = 4102444800 WHERE place IN (2, 3)",
        )
        .expect("stamped");
    assert_eq!(sweep_all(&mut ledger, MAX_ROWS, in_days(11)), 1);
    assert_eq!(sweep_all(&mut ledger, MAX_ROWS, in_days(20)), 0);
    assert_eq!(sweep_all(&mut ledger, MAX_ROWS, in_days(22)), 4);
    assert_eq!(ledger.count("initiations"), 5);
    sweep_all(&mut ledger, MAX_ROWS, in_days(370));
    assert_eq!(ledger.count("initiations"), 2);
    sweep_all(&mut ledger, MAX_ROWS, in_days(380));
    assert_eq!(ledger.count("initiations"), 0);
}

#[test]
fn what_was_swept_is_not_in_the_file_any_more() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut ledger = open(folder.path());
    let one = ended(&mut ledger, 0, 7);
    let key = weir_wireguard::keys::print_public(&one.public_key);
    let secrets = [one.id.to_string(), key, "consumer-0".to_owned()];
    let is_there = |ledger: Ledger| {
        // What is in the write-ahead log comes into the file.
        drop(ledger);
        let file = fs::read(folder.path().join("ledger.db")).expect("read");
        secrets.clone().map(|secret| file.windows(secret.len()).any(|it| it == secret.as_bytes()))
    };
    assert_eq!(is_there(ledger), [true; 3]);
    let mut ledger = open(folder.path());
    release(&mut ledger, 2);
    assert_eq!(sweep_all(&mut ledger, MAX_ROWS, in_days(11)), 1);
    assert_eq!(is_there(ledger), [false; 3]);
}

#[test]
fn nothing_is_swept_from_a_ledger_that_is_damaged() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut ledger = open(folder.path());
    ended(&mut ledger, 0, 7);
    release(&mut ledger, 2);
    ledger.set_damage("a test").expect("written");
    assert_eq!(sweep_all(&mut ledger, MAX_ROWS, in_days(11)), 0);
    assert_eq!(ended_ids(&ledger).len(), 1);
}

/// The steps of SQLite's machine that one transaction of a sweep takes, in a ledger in which so
/// many sessions have ended.
fn steps_of_a_sweep(folder: &Path, ended: u32) -> u64 {
    use std::sync::{Arc, atomic::AtomicU64, atomic::Ordering::Relaxed};
    let path = folder.join(format!("{ended}/ledger.db"));
    crate::testing::crowd(&path, 20, ended);
    let mut ledger = open(path.parent().expect("a folder"));
    let always = Retention { delivered: 0, undelivered: None };
    while ledger.forget_at(always, &[], in_days(1)).expect("done").goes_on {}
    let steps = Arc::<AtomicU64>::default();
    let counted = Arc::clone(&steps);
    let count = move || {
        counted.fetch_add(1, Relaxed);
        false
    };
    ledger.db.progress_handler(1, Some(count)).expect("set");
    let swept = ledger.sweep_at(KEPT, MAX_ROWS, in_days(11)).expect("swept");
    assert!(swept.goes_on && swept.gone > 20, "{swept:?}");
    steps.load(Relaxed)
}

#[test]
fn a_sweep_does_as_much_at_once_however_many_sessions_have_ended() {
    let folder = tempfile::tempdir().expect("a folder");
    let few = steps_of_a_sweep(folder.path(), 150);
    let many = steps_of_a_sweep(folder.path(), 1500);
    assert!(few > 1000, "{few} steps: nothing was done");
    assert!(many < few + few / 10, "{few} steps of 150, {many} of 1500");
}

mod model;
