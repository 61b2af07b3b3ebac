use std::time::{Duration, Instant};

use super::{rig::Rig, *};
use weir_ledger::Credit;
use weir_ledger::unix_now;

fn extension(reference: &str, bytes: u64) -> Extension {
    Extension { reference: reference.to_owned(), bytes, seconds: 0 }
}

fn state(rig: &Rig, slot: Slot) -> SessionState {
    rig.accounts.get(slot).expect("a slot").state()
}

fn enforce(rig: &Rig, grace: u64) -> Enforced {
    rig.sessions.enforce(Duration::from_secs(grace), Instant::now()).expect("enforced")
}

#[test]
fn the_same_payment_is_credited_once_also_after_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let rig = Rig::start(folder.path(), 4);
    rig.add(Some("alice"));
    let extend = |rig: &Rig, reference: &str, bytes| {
        let extended = rig.sessions.extend("alice", &extension(reference, bytes));
        extended.map(|snapshot| snapshot.credit.bytes)
    };
    assert_eq!(extend(&rig, "p1", 100).expect("added"), Some(100));
    assert_eq!(extend(&rig, "p1", 100).expect("known"), Some(100));
    assert!(matches!(extend(&rig, "p1", 99), Err(SessionError::Contradicts(_))));
    drop(rig);
    let rig = Rig::start(folder.path(), 4);
    assert_eq!(extend(&rig, "p1", 100).expect("known"), Some(100));
    assert_eq!(extend(&rig, "p2", 50).expect("added"), Some(150));
    assert!(matches!(extend(&rig, "", 5), Err(SessionError::Reference)));
    assert!(matches!(extend(&rig, &"x".repeat(129), 5), Err(SessionError::Reference)));
    assert!(matches!(extend(&rig, "p3", 0), Err(SessionError::NoCredit)));
    assert_eq!(extend(&rig, "huge", u64::MAX).expect("added"), Some(i64::MAX as u64));
}

#[test]
fn a_first_limit_begins_at_what_was_used() {
    let folder = tempfile::tempdir().expect("a folder");
    let rig = Rig::start(folder.path(), 4);
    let slot = rig.add(Some("alice")).session.slot;
    rig.traffic(slot, 1000);
    let extended = rig.sessions.extend("alice", &extension("p1", 10)).expect("added");
    assert_eq!(extended.credit, Credit { bytes: Some(1010), seconds: None });
}

#[test]
fn without_credit_a_session_is_paused_then_closed_and_credit_reopens_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let rig = Rig::start(folder.path(), 4);
    let new = NewSession { prepaid: true, name: Some("bob".to_owned()), ..NewSession::default() };
    let slot = rig.sessions.add(new).expect("added").snapshot.session.slot;
    assert_eq!(state(&rig, slot), SessionState::Paused);
    rig.sessions.extend("bob", &extension("p1", 100)).expect("added");
    assert_eq!(state(&rig, slot), SessionState::Open);

    rig.traffic(slot, 99);
    assert_eq!(enforce(&rig, 0), Enforced::default());
    rig.traffic(slot, 1);
    assert_eq!(enforce(&rig, 0), Enforced { paused: 1, closed: 0 });
    assert_eq!(state(&rig, slot), SessionState::Paused);
    assert_eq!(enforce(&rig, 3600), Enforced::default(), "within the grace time");
    rig.sessions.extend("bob", &extension("p2", 1)).expect("added");
    assert_eq!(state(&rig, slot), SessionState::Open);
    rig.traffic(slot, 1);
    assert_eq!(enforce(&rig, 0), Enforced { paused: 1, closed: 0 });
    assert_eq!(enforce(&rig, 0), Enforced { paused: 0, closed: 1 });
    assert_eq!(state(&rig, slot), SessionState::Vacant);
    let last = rig.usage.after(0, 10).expect("read").pop().expect("a record");
    assert_eq!((last.end_reason.as_deref(), last.bytes_up), (Some("credit"), 101));
}

#[test]
fn an_operators_pause_outlasts_credit_and_restarts() {
    let folder = tempfile::tempdir().expect("a folder");
    let rig = Rig::start(folder.path(), 4);
    let slot = rig.add(Some("alice")).session.slot;
    rig.sessions.pause("alice").expect("paused");
    rig.sessions.extend("alice", &extension("p1", 10)).expect("added");
    assert_eq!(state(&rig, slot), SessionState::Paused);
    drop(rig);
    let rig = Rig::start(folder.path(), 4);
    assert_eq!(state(&rig, slot), SessionState::Paused);
    rig.sessions.extend("alice", &extension("p2", 10)).expect("added");
    assert_eq!(state(&rig, slot), SessionState::Paused);
    rig.sessions.resume("alice").expect("resumed");
    assert_eq!(state(&rig, slot), SessionState::Open);
}

#[test]
fn with_a_full_disk_there_is_no_new_credit_counting_goes_on_and_pauses_hold() {
    let folder = tempfile::tempdir().expect("a folder");
    let rig = Rig::start(folder.path(), 4);
    let added = rig.add(Some("alice")).session;
    rig.sessions.extend("alice", &extension("p1", 100)).expect("added");
    rig.ledger.lock().refuse_changes(true);
    let refused = rig.sessions.extend("alice", &extension("p2", 100));
    assert!(matches!(refused, Err(SessionError::Ledger(_))));
    assert_eq!(rig.sessions.get("alice").expect("there").credit.bytes, Some(100));
    rig.traffic(added.slot, 120);
    assert!(rig.sessions.enforce(Duration::ZERO, Instant::now()).is_err(), "it says so");
    assert_eq!(state(&rig, added.slot), SessionState::Paused);
    assert!(rig.sessions.checkpoint().is_err() && rig.sessions.record().is_err());

    rig.ledger.lock().refuse_changes(false);
    rig.sessions.extend("alice", &extension("p2", 100)).expect("added");
    assert_eq!(state(&rig, added.slot), SessionState::Open);
    assert_eq!(rig.sessions.record().expect("written"), 1);
    let records = rig.usage.after(0, 10).expect("read");
    assert_eq!((records.len(), records[0].bytes_up, records[0].sequence), (1, 120, 1));
    assert!(records[0].last_activity <= unix_now());
}

/// Sessions that are all paused for want of credit, by identifier.
fn without_credit(rig: &Rig, count: usize) -> Vec<SessionId> {
    let new = || NewSession { prepaid: true, ..NewSession::default() };
    let made = (0..count).map(|_| rig.sessions.add(new()).expect("added").snapshot.session.id);
    let mut ids: Vec<_> = made.collect();
    ids.sort_unstable();
    ids
}

#[test]
fn what_was_found_due_and_has_paid_since_is_not_closed() {
    let folder = tempfile::tempdir().expect("a folder");
    let rig = Rig::start(folder.path(), 4);
    let ids = without_credit(&rig, 2);
    let began = Instant::now();
    let (grace, later) = (Duration::from_secs(60), began + Duration::from_secs(61));
    assert_eq!(rig.sessions.pause_spent(grace, began).1, []);
    let (_, due, _) = rig.sessions.pause_spent(grace, later);
    assert_eq!(due, ids, "both are due");
    rig.sessions.extend(&ids[1].to_string(), &extension("p1", 100)).expect("added");
    let close = |id| rig.sessions.close_spent(id, grace, later).expect("written");
    assert_eq!([close(ids[0]), close(ids[1])], [true, false]);
    let paid = rig.sessions.get(&ids[1].to_string()).expect("it goes on");
    assert_eq!(state(&rig, paid.session.slot), SessionState::Open);
}

#[test]
fn who_pays_while_others_are_closed_stays_or_is_not_told_that_it_has_paid() {
    let folder = tempfile::tempdir().expect("a folder");
    let rig = Rig::start(folder.path(), 64);
    rig.ledger.lock().in_no_hurry();
    for round in 0..20 {
        let ids = without_credit(&rig, 12);
        let (last, began) = (ids[11].to_string(), Instant::now());
        rig.sessions.enforce(Duration::from_secs(60), began).expect("enforced");
        let paid = std::thread::scope(|scope| {
            let payer = scope.spawn(|| {
                // Not before the others are being closed.
                while rig.sessions.get(&ids[0].to_string()).is_ok() {
                    std::hint::spin_loop();
                }
                rig.sessions.extend(&last, &extension("p1", 100)).is_ok()
            });
            let later = began + Duration::from_secs(61);
            rig.sessions.enforce(Duration::from_secs(60), later).expect("enforced");
            payer.join().expect("no panic")
        });
        assert_eq!(rig.sessions.get(&last).is_ok(), paid, "round {round}");
        if paid {
            rig.sessions.remove(&last).expect("removed");
        }
    }
}

#[test]
fn fifty_thousand_sessions_are_paused_in_one_transaction_and_closed_a_few_at_a_time() {
    const COUNT: u32 = 50_000;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("ledger.db");
    weir_ledger::testing::crowd(&path, COUNT, 0);
    let rig = Rig::start(folder.path(), COUNT);
    assert_eq!(rig.sessions.len(), COUNT as usize);
    // All are due in the same second, as after a restart.
    for id in rig.sessions.ids() {
        if let Some(entry) = rig.sessions.write().by_id.get_mut(&id) {
            entry.pause = None;
        }
    }
    let commits = rig.ledger.lock().count_commits();
    let (grace, began) = (Duration::from_secs(60), Instant::now());
    let first = rig.sessions.enforce(grace, began).expect("enforced");
    assert_eq!(first, Enforced { paused: COUNT as usize, closed: 0 });
    assert_eq!(commits.load(std::sync::atomic::Ordering::Relaxed), 1);
    let then = rig.sessions.enforce(grace, began + grace).expect("enforced");
    assert_eq!(then, Enforced { paused: 0, closed: credit::MAX_CLOSED_AT_ONCE });
    assert_eq!(commits.load(std::sync::atomic::Ordering::Relaxed), 1 + then.closed);
}
