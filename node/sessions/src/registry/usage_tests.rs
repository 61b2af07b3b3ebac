use std::collections::HashMap;

use proptest::prelude::*;

use super::{rig::Rig, *};
use weir_ledger::{Usage, check::Reader};

#[test]
fn records_are_signed_and_any_altered_field_shows() {
    let folder = tempfile::tempdir().expect("a folder");
    let rig = Rig::start(folder.path(), 4);
    let slot = rig.add(Some("alice")).session.slot;
    rig.traffic(slot, 148);
    assert_eq!(rig.sessions.record().expect("written"), 1);
    assert_eq!(rig.sessions.record().expect("written"), 0, "nothing is new");
    let record = rig.usage.after(0, 10).expect("read").pop().expect("a record");
    let signer = rig.usage.signer();
    assert!(record.is_signed_by(&signer));
    let json = serde_json::to_value(&record).expect("JSON");
    for (name, value) in json.as_object().expect("an object") {
        let other = match value {
            serde_json::Value::Number(n) => serde_json::json!(n.as_u64().expect("u64") + 1),
            serde_json::Value::Null => serde_json::json!("x"),
            _ => serde_json::json!("AAAA"),
        };
        let mut altered = json.clone();
        altered[name] = other;
        let altered: weir_ledger::UsageRecord = serde_json::from_value(altered).expect("a record");
        assert_eq!(altered.is_signed_by(&signer), name == "cursor", "{name}");
    }
}

#[test]
fn a_consumer_gets_its_last_record_and_the_ledger_is_read_once_for_each() {
    let folder = tempfile::tempdir().expect("a folder");
    let rig = Rig::start(folder.path(), 4);
    let (own, other) = (rig.add(Some("alice")).session, rig.add(Some("bob")).session);
    assert_eq!(rig.sessions.known_receipt(own.id), None, "nobody has asked");
    assert_eq!(rig.sessions.receipt(own.id).expect("read"), None);
    assert_eq!(rig.sessions.known_receipt(own.id), Some(None));
    for bytes in [148, 300] {
        rig.traffic(own.slot, bytes);
        rig.traffic(other.slot, 1);
        rig.sessions.record().expect("written");
        assert_eq!(rig.sessions.known_receipt(own.id), None, "there is a newer one");
        let receipt = rig.sessions.receipt(own.id).expect("read").expect("a receipt");
        assert_eq!(rig.sessions.known_receipt(own.id), Some(Some(receipt.clone())));
        let counters = rig.counters(own.id);
        assert_eq!(
            (receipt.bytes_up, receipt.packets_up),
            (counters.bytes_up, counters.packets_up)
        );
        assert_eq!(receipt.verify(rig.sessions.signer()), Ok(()));
        assert_eq!(receipt.session, own.id.to_string());
    }
    let record = rig.usage.after(0, 10).expect("read").into_iter().filter(|it| it.sequence == 2);
    let record = record.map(|it| it.receipt).find(|it| it.session == own.id.to_string());
    assert_eq!(rig.sessions.receipt(own.id).expect("read").as_deref(), record.as_ref());
    rig.sessions.end("alice", "closed").expect("ended");
    assert!(rig.sessions.receipt(own.id).is_err());
}

#[test]
fn the_key_for_records_stays_over_restarts_and_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().expect("a folder");
    let signer = Rig::start(folder.path(), 4).usage.signer();
    assert_eq!(Rig::start(folder.path(), 4).usage.signer(), signer);
    let key = std::fs::metadata(folder.path().join("receipt.key")).expect("there");
    assert_eq!(key.permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_session_ends_with_a_record_of_its_final_account() {
    let folder = tempfile::tempdir().expect("a folder");
    let rig = Rig::start(folder.path(), 4);
    let slot = rig.add(Some("alice")).session.slot;
    rig.traffic(slot, 10);
    rig.sessions.record().expect("written");
    rig.traffic(slot, 5);
    rig.sessions.end("alice", "closed").expect("ended");
    let records = rig.usage.after(0, 10).expect("read");
    let said: Vec<_> =
        records.iter().map(|r| (r.sequence, r.bytes_up, r.end_reason.as_deref())).collect();
    assert_eq!(said, [(1, 10, None), (2, 15, Some("closed"))]);
    assert_eq!(rig.usage.after(records[0].cursor, 10).expect("read"), records[1..]);
}

#[test]
fn the_time_of_a_silent_session_survives_a_crash() {
    let folder = tempfile::tempdir().expect("a folder");
    let rig = Rig::start(folder.path(), 4);
    let id = rig.add(Some("alice")).session.id;
    if let Some(entry) = rig.sessions.write().by_id.get_mut(&id) {
        entry.clock = clock::Clock::new(500, true);
    }
    assert_eq!(rig.sessions.record().expect("written"), 0, "it is silent");
    drop(rig);
    let rig = Rig::start(folder.path(), 4);
    assert!(rig.sessions.get("alice").expect("there").seconds >= 500);
}

#[test]
fn a_clock_that_steps_back_makes_no_record_say_less() {
    let folder = tempfile::tempdir().expect("a folder");
    let rig = Rig::start(folder.path(), 4);
    let session = rig.add(None).session;
    rig.traffic(session.slot, 10);
    rig.sessions.record().expect("written");
    let before = rig.usage.after(0, 1).expect("read").remove(0);
    // What a run with an earlier clock, and less of everything, would write.
    let earlier = Usage { last_activity: 5, ..Usage::default() };
    rig.ledger.lock().record(&[(session.id, earlier)]).expect("written");
    let after = rig.usage.after(before.cursor, 1).expect("read").remove(0);
    assert_eq!(after.sequence, 2);
    assert_eq!((after.bytes_up, after.last_activity), (before.bytes_up, before.last_activity));
}

fn problems(folder: &std::path::Path) -> Vec<String> {
    Reader::open(&folder.join("ledger.db")).expect("opened").check().expect("read").problems
}

#[test]
fn the_check_finds_what_the_node_would_not_write() {
    let folder = tempfile::tempdir().expect("a folder");
    let rig = Rig::start(folder.path(), 4);
    let slot = rig.add(None).session.slot;
    rig.traffic(slot, 10);
    rig.sessions.record().expect("written");
    rig.add(Some("bob"));
    rig.sessions.remove("bob").expect("removed");
    assert_eq!(problems(folder.path()), Vec::<String>::new());
    drop(rig);
    let alter = |sql: &str| {
        let db = rusqlite::Connection::open(folder.path().join("ledger.db")).expect("opened");
        db.execute_batch(sql).expect("altered");
    };
    alter("DROP TRIGGER records_stay_as_they_are; UPDATE records SET bytes_up = 9");
    let found = problems(folder.path()).join("\n");
    assert!(found.contains("invalid signature") && found.contains("final counters"), "{found}");
    alter("UPDATE counters SET bytes_up = 8");
    let found = problems(folder.path()).join("\n");
    assert!(found.contains("exceed their counters") && found.contains("totals"), "{found}");
}

#[test]
fn a_recorded_initiation_is_known_to_be_old_once_the_rows_of_its_session_are_gone() {
    use std::sync::atomic::Ordering::Relaxed;
    let folder = tempfile::tempdir().expect("a folder");
    let rig = Rig::start(folder.path(), 4);
    let key = PrivateKey::random().public();
    let add = |rig: &Rig| {
        let new = NewSession { public_key: Some(key), ..NewSession::default() };
        rig.sessions.add(new).expect("added").snapshot.session
    };
    let newest = |rig: &Rig, slot| {
        let account = rig.accounts.get(slot).expect("a slot");
        account.worker.newest_initiation.load(Relaxed)
    };
    let first = add(&rig);
    let account = rig.accounts.get(first.slot).expect("a slot");
    account.worker.newest_initiation.store(7_000, Relaxed);
    rig.sessions.remove(&first.id.to_string()).expect("removed");
    assert_eq!(rig.ledger.lock().sweep_all_ended(), 1);
    let second = add(&rig);
    assert_eq!(newest(&rig, second.slot), 7_000);
    rig.sessions.remove(&second.id.to_string()).expect("removed");
    assert_eq!(rig.ledger.lock().sweep_all_ended(), 1);
    drop(rig);
    let rig = Rig::start(folder.path(), 4);
    let third = add(&rig);
    assert_eq!(newest(&rig, third.slot), 7_000, "also over a restart");
    assert_eq!(problems(folder.path()), Vec::<String>::new());
}

#[test]
fn slots_whose_former_sessions_rows_are_gone_are_given_again_from_zero() {
    let folder = tempfile::tempdir().expect("a folder");
    let rig = Rig::start(folder.path(), 3);
    let used = |rig: &Rig, bytes| {
        let session = rig.add(None).session;
        rig.traffic(session.slot, bytes);
        session
    };
    let sessions = [used(&rig, 1), used(&rig, 2), used(&rig, 4)];
    for nth in [2, 0] {
        rig.sessions.remove(&sessions[nth].id.to_string()).expect("removed");
    }
    assert_eq!(rig.ledger.lock().sweep_all_ended(), 2);
    let accounts = rig.accounts.clone();
    drop(rig);
    let rig = Rig::with_accounts(folder.path(), accounts);
    assert_eq!(rig.sessions.totals().bytes_up, 7);
    let mut slots: Vec<_> = (0..2)
        .map(|_| {
            let session = rig.add(None).session;
            assert_eq!(rig.counters(session.id), Counters::default());
            session.slot
        })
        .collect();
    slots.sort();
    assert_eq!(slots, [Slot(0), Slot(2)]);
    assert!(matches!(rig.sessions.add(NewSession::default()), Err(SessionError::Full(3))));
    assert_eq!(rig.sessions.totals().bytes_up, 7);
}

#[test]
fn the_check_finds_totals_that_do_not_fit_what_was_swept() {
    let folder = tempfile::tempdir().expect("a folder");
    let rig = Rig::start(folder.path(), 4);
    let session = rig.add(None).session;
    rig.traffic(session.slot, 10);
    rig.sessions.remove(&session.id.to_string()).expect("removed");
    assert_eq!(rig.ledger.lock().sweep_all_ended(), 1);
    assert_eq!(problems(folder.path()), Vec::<String>::new());
    drop(rig);
    let db = rusqlite::Connection::open(folder.path().join("ledger.db")).expect("opened");
    db.execute_batch("UPDATE swept_totals SET bytes_up = 9").expect("altered");
    drop(db);
    let found = problems(folder.path()).join("\n");
    assert!(
        found.contains("totals of ended sessions") && found.contains("bytes_up is 10"),
        "{found}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever happens in whatever order, the records' totals are the traffic, and the ledger
    /// passes its own check.
    #[test]
    fn the_last_records_add_up_to_the_traffic(
        steps in proptest::collection::vec((0u8..6, 0u32..3, 0u64..1000), 1..30),
    ) {
        let folder = tempfile::tempdir().expect("a folder");
        let mut rig = Rig::start(folder.path(), 3);
        let mut sent = 0;
        for (step, which, bytes) in steps {
            let live: Vec<_> = rig.sessions.list();
            let chosen = live.get(which as usize).map(|s| (s.session.id.to_string(), s.session.slot));
            match (step, chosen) {
                (0, _) if live.len() < 3 => { rig.add(None); }
                (1 | 2, Some((_, slot))) => { rig.traffic(slot, bytes); sent += bytes; }
                (3, Some((id, _))) => { rig.sessions.remove(&id).expect("removed"); }
                (4, _) => { rig.sessions.record().expect("written"); }
                (5, _) => {
                    let accounts = rig.accounts.clone();
                    drop(rig);
                    rig = Rig::with_accounts(folder.path(), accounts);
                }
                _ => {}
            }
        }
        rig.sessions.record().expect("written");
        let records = rig.usage.after(0, 1000).expect("read");
        let last: HashMap<_, _> = records.iter().map(|r| (&r.session, r.bytes_up)).collect();
        prop_assert_eq!(last.values().sum::<u64>(), sent);
        prop_assert_eq!(problems(folder.path()), Vec::<String>::new());
    }
}
