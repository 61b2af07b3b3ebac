use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::atomic::Ordering::Relaxed,
    time::Instant,
};

use proptest::prelude::*;

use super::{
    rig::{Call, Rig, node_key},
    *,
};
use crate::slots::Slots;
use weir_ledger::Ledger;
use weir_wireguard::keys;

#[test]
fn a_session_is_served_from_its_adding_to_its_removal() {
    let folder = tempfile::tempdir().expect("a folder");
    let rig = Rig::start(folder.path(), 8);
    let one = rig.add(Some("one"));
    let (slot, key) = (one.session.slot, one.session.public_key);
    assert_eq!(rig.peers.take(), [Call::Add(slot, key)]);
    let account = rig.accounts.get(slot).expect("a slot");
    assert!(counters::names(account, one.session.id));
    assert_eq!(account.state(), SessionState::Open);

    rig.traffic(slot, 100);
    let last = rig.sessions.remove("one").expect("removed");
    assert_eq!(rig.peers.take(), [Call::Remove(slot)]);
    assert_eq!((last.counters.bytes_up, last.session.state), (100, SessionState::Closed));
    assert!(counters::is_vacant(account));
    assert_eq!(account.counters(), Counters::default());
    assert!(rig.sessions.is_empty());
    assert_eq!(rig.sessions.totals().bytes_up, 100);
}

#[test]
fn a_session_is_found_by_name_key_identifier_and_its_first_digits() {
    let folder = tempfile::tempdir().expect("a folder");
    let rig = Rig::start(folder.path(), 8);
    let one = rig.add(Some("one"));
    rig.add(None);
    let id = one.session.id.to_string();
    let key = keys::print_public(&one.session.public_key);
    for which in [&id, &id[..8], &id.to_uppercase(), "one", &key] {
        assert_eq!(rig.sessions.get(which).expect(which).session.id, one.session.id);
    }
    for which in ["", &id[..3], "two", "0000", &format!("{id}0"), "%", "A=", "\0"] {
        let error = rig.sessions.get(which).expect_err(which);
        assert!(matches!(error, SessionError::NotFound(_)), "{which}: {error}");
    }
}

#[test]
fn an_ambiguous_prefix_names_no_session() {
    let slots = Slots::new(4, &BTreeSet::new(), Vec::new());
    let (by_id, by_key, by_name) = (BTreeMap::new(), HashMap::new(), HashMap::new());
    let mut live = SessionTable {
        by_id,
        by_key,
        by_name,
        slots,
        ended: Counters::default(),
        common: limits::Common::default(),
    };
    for id in [0xabcd_0000_0000_0001, 0xabcd_1000_0000_0002] {
        let key = PrivateKey::random().public();
        let mut session = live.reserve(None, key, 4).expect("room");
        session.id = SessionId::new(id).expect("not zero");
        live.insert(Entry::new(session, Counters::default(), Extra::default()));
    }
    assert!(matches!(live.find("abcd"), Err(SessionError::Ambiguous(_))));
    assert!(live.find("abcd0").is_ok());
    assert!(live.find("abcd100000000002").is_ok());
    assert!(matches!(live.find("abcd2"), Err(SessionError::NotFound(_))));
}

#[test]
fn taken_keys_and_names_the_nodes_own_key_and_a_full_node_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let rig = Rig::start(folder.path(), 2);
    let one = rig.add(Some("one"));
    let add = |name: Option<&str>, public_key| {
        rig.sessions.add(NewSession {
            name: name.map(str::to_owned),
            public_key,
            ..NewSession::default()
        })
    };
    let key = Some(one.session.public_key);
    assert!(matches!(add(None, key), Err(SessionError::KeyTaken(id)) if id == one.session.id));
    assert!(matches!(add(Some("one"), None), Err(SessionError::NameTaken(_))));
    assert!(matches!(add(None, Some(node_key())), Err(SessionError::Key(KeyError::OwnKey))));
    assert!(matches!(add(Some("a\nb"), None), Err(SessionError::Name(_))));
    rig.add(None);
    let error = add(None, None).expect_err("full");
    assert!(error.to_string().starts_with("all 2 session slots are in use"), "{error}");
    rig.sessions.remove("one").expect("removed");
    add(Some("one"), key).expect("the name, the key and the slot are free again");
}

#[test]
fn a_restart_keeps_sessions_and_counters() {
    let folder = tempfile::tempdir().expect("a folder");
    let rig = Rig::start(folder.path(), 8);
    let (one, two) = (rig.add(Some("one")), rig.add(None));
    rig.traffic(two.session.slot, 70);
    assert_eq!(rig.sessions.checkpoint().expect("written"), 1);
    assert_eq!(rig.sessions.checkpoint().expect("written"), 0, "nothing has changed since");
    let before = rig.sessions.list();
    drop(rig);
    let rig = Rig::start(folder.path(), 8);
    assert_eq!(rig.sessions.list(), before);
    let mut calls = rig.peers.take();
    calls.sort_by_key(|call| matches!(call, Call::Add(slot, _) if *slot == two.session.slot));
    let added = |s: &Session| Call::Add(s.slot, s.public_key);
    assert_eq!(calls, [added(&one.session), added(&two.session)]);
    assert_eq!(rig.accounts.get(two.session.slot).expect("a slot").counters().bytes_up, 70);
}

#[test]
fn after_a_crash_the_higher_of_account_and_ledger_counts_and_the_last_endpoint_stays() {
    let folder = tempfile::tempdir().expect("a folder");
    let rig = Rig::start(folder.path(), 8);
    let (one, two) = (rig.add(None).session, rig.add(None).session);
    rig.traffic(one.slot, 100);
    rig.traffic(two.slot, 100);
    rig.sessions.checkpoint().expect("written");
    rig.traffic(one.slot, 11);
    let account = rig.accounts.get(one.slot).expect("a slot");
    account.worker.port.store(4242, Relaxed);
    // As if the account's page were of an earlier moment than the ledger.
    rig.accounts.get(two.slot).expect("a slot").metered.bytes_up.store(3, Relaxed);
    let accounts = rig.accounts.clone();
    drop(rig);
    let rig = Rig::with_accounts(folder.path(), accounts);
    assert_eq!(rig.counters(one.id).bytes_up, 111);
    assert_eq!(rig.counters(two.id).bytes_up, 100);
    let account = rig.accounts.get(one.slot).expect("a slot");
    assert_eq!(account.worker.port.load(Relaxed), 4242);
    assert_eq!(rig.accounts.get(two.slot).expect("a slot").counters().bytes_up, 100);
}

#[test]
fn accounts_of_sessions_that_are_no_more_are_taken_for_nobodys() {
    let folder = tempfile::tempdir().expect("a folder");
    let rig = Rig::start(folder.path(), 4);
    let one = rig.add(None).session;
    let accounts = Arc::new(Accounts::private(4).expect("memory"));
    let foreign = Counters { bytes_up: 999, ..Counters::default() };
    for slot in 0..4 {
        let account = accounts.get(Slot(slot)).expect("a slot");
        account.assign(77, &foreign);
        account.set_state(SessionState::Open);
    }
    drop(rig);
    let rig = Rig::with_accounts(folder.path(), accounts);
    assert_eq!(rig.counters(one.id), Counters::default());
    for slot in 1..4 {
        assert!(counters::is_vacant(rig.accounts.get(Slot(slot)).expect("a slot")));
    }
}

#[test]
fn a_ledger_with_more_than_the_node_has_room_for_says_what_to_raise() {
    let folder = tempfile::tempdir().expect("a folder");
    let rig = Rig::start(folder.path(), 3);
    (0..3).for_each(|_| drop(rig.add(None)));
    drop(rig);
    let accounts = Arc::new(Accounts::private(2).expect("memory"));
    let error = Rig::try_start(folder.path(), accounts).err().expect("refused");
    assert!(error.to_string().contains("max_sessions"), "{error}");
}

#[test]
fn ten_thousand_sessions_are_listed_and_checkpointed_quickly() {
    const COUNT: u32 = 10_000;
    let folder = tempfile::tempdir().expect("a folder");
    let mut ledger = Ledger::open(&folder.path().join("ledger.db")).expect("opened");
    ledger.in_one_go(|ledger| {
        for slot in 0..COUNT - 1 {
            let public_key = PrivateKey::random().public();
            let (id, slot) = (SessionId::random(), Slot(slot));
            let (name, state) = (Some(format!("consumer {}", slot.0)), SessionState::Open);
            ledger
                .insert(
                    &Session { id, slot, name, public_key, created: 1, state },
                    &Extra::default(),
                )
                .expect("inserted");
        }
    });
    drop(ledger);
    let start = Instant::now();
    let rig = Rig::start(folder.path(), COUNT);
    let opened = start.elapsed();
    let start = Instant::now();
    rig.add(None);
    let added = start.elapsed();
    let start = Instant::now();
    assert_eq!(rig.sessions.list().len(), COUNT as usize);
    let listed = start.elapsed();
    let mut checkpoints = Vec::new();
    for round in 1..=5 {
        (0..COUNT).for_each(|slot| rig.traffic(Slot(slot), 1000));
        let start = Instant::now();
        assert_eq!(rig.sessions.checkpoint().expect("written"), COUNT as usize);
        checkpoints.push(start.elapsed());
        assert_eq!(rig.sessions.totals().bytes_up, round * 1000 * u64::from(COUNT));
    }
    checkpoints.sort();
    let report =
        format!("start {opened:?}, add {added:?}, list {listed:?}, checkpoints {checkpoints:?}");
    let mut err = std::io::stderr().lock();
    std::io::Write::write_all(&mut err, format!("{COUNT} sessions: {report}\n").as_bytes())
        .expect("written");
    // Far above what is seen, so that a busy machine does not fail it, and far below a defect.
    assert!(checkpoints[2].as_millis() < 500, "{report}");
}

#[test]
fn a_ledger_that_cannot_be_written_changes_nothing_and_loses_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let rig = Rig::start(folder.path(), 2);
    let one = rig.add(Some("one")).session;
    rig.peers.take();
    rig.traffic(one.slot, 10);
    rig.ledger.lock().refuse_changes(true);

    assert!(matches!(rig.sessions.add(NewSession::default()), Err(SessionError::Ledger(_))));
    assert_eq!((rig.sessions.len(), rig.peers.take()), (1, Vec::new()));
    assert!(rig.sessions.checkpoint().is_err());
    assert!(matches!(rig.sessions.remove("one"), Err(SessionError::Ledger(_))));
    let served_again = [Call::Remove(one.slot), Call::Add(one.slot, one.public_key)];
    assert_eq!(rig.peers.take(), served_again);
    let account = rig.accounts.get(one.slot).expect("a slot");
    assert_eq!((account.state(), rig.counters(one.id).bytes_up), (SessionState::Open, 10));

    rig.ledger.lock().refuse_changes(false);
    assert_eq!(rig.sessions.checkpoint().expect("written"), 1);
    assert_eq!(rig.add(None).session.slot, Slot(1), "the slot of the failed one is free");
    assert_eq!(rig.sessions.remove("one").expect("removed").counters.bytes_up, 10);
}

#[test]
fn totals_never_fall_while_sessions_come_and_go() {
    let folder = tempfile::tempdir().expect("a folder");
    let rig = Rig::start(folder.path(), 16);
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let changers: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    for _ in 0..40 {
                        let session = rig.add(None).session;
                        rig.traffic(session.slot, 100);
                        rig.sessions.checkpoint().expect("written");
                        rig.sessions.remove(&session.id.to_string()).expect("removed");
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            let mut before = 0;
            while !done.load(Relaxed) {
                let now = rig.sessions.totals().bytes_up;
                assert!(now >= before, "{now} after {before}");
                before = now;
            }
        });
        changers.into_iter().for_each(|changer| changer.join().expect("no panic"));
        done.store(true, Relaxed);
    });
    assert_eq!(rig.sessions.totals().bytes_up, 3 * 40 * 100);
}

/// What may happen to a node, in the model's terms.
#[derive(Clone, Debug)]
enum Step {
    Add,
    Remove(prop::sample::Index),
    Traffic(prop::sample::Index, u64),
    Checkpoint,
    /// The process is killed; the accounts stay.
    Crash,
    /// The accounts are gone too; what was checkpointed stays.
    PowerCut,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => Just(Step::Add),
        3 => any::<prop::sample::Index>().prop_map(Step::Remove),
        6 => (any::<prop::sample::Index>(), 1..1000u64).prop_map(|(i, n)| Step::Traffic(i, n)),
        2 => Just(Step::Checkpoint),
        1 => Just(Step::Crash),
        1 => Just(Step::PowerCut),
    ];
    prop::collection::vec(step, 1..60)
}

#[derive(Default)]
struct Model {
    /// Identifier, slot, bytes counted, bytes in the ledger.
    live: Vec<(SessionId, Slot, u64, u64)>,
    ended: u64,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn no_slot_inherits_and_no_counter_falls(steps in steps()) {
        const MAX: u32 = 5;
        let folder = tempfile::tempdir().expect("a folder");
        let mut rig = Rig::start(folder.path(), MAX);
        let mut model = Model::default();
        for step in steps {
            match step {
                Step::Add => match rig.sessions.add(NewSession::default()) {
                    Ok(added) => {
                        let session = added.snapshot.session;
                        prop_assert!(model.live.iter().all(|(_, slot, ..)| *slot != session.slot));
                        model.live.push((session.id, session.slot, 0, 0));
                    }
                    Err(error) => {
                        prop_assert!(matches!(error, SessionError::Full(MAX)), "{}", error);
                        prop_assert_eq!(model.live.len(), MAX as usize);
                    }
                },
                Step::Remove(index) if !model.live.is_empty() => {
                    let (id, _, bytes, _) = model.live.remove(index.index(model.live.len()));
                    let last = rig.sessions.remove(&id.to_string()).expect("there");
                    prop_assert_eq!(last.counters.bytes_up, bytes);
                    model.ended += bytes;
                }
                Step::Traffic(index, bytes) if !model.live.is_empty() => {
                    let index = index.index(model.live.len());
                    rig.traffic(model.live[index].1, bytes);
                    model.live[index].2 += bytes;
                }
                Step::Remove(_) | Step::Traffic(..) => {}
                Step::Checkpoint => {
                    rig.sessions.checkpoint().expect("written");
                    model.live.iter_mut().for_each(|session| session.3 = session.2);
                }
                Step::Crash => {
                    let accounts = rig.accounts.clone();
                    drop(rig);
                    rig = Rig::with_accounts(folder.path(), accounts);
                }
                Step::PowerCut => {
                    drop(rig);
                    rig = Rig::start(folder.path(), MAX);
                    model.live.iter_mut().for_each(|session| session.2 = session.3);
                }
            }
            let mut is: Vec<_> = rig.sessions.list().iter()
                .map(|s| (s.session.id, s.session.slot, s.counters.bytes_up)).collect();
            let mut ought: Vec<_> = model.live.iter()
                .map(|(id, slot, bytes, _)| (*id, *slot, *bytes)).collect();
            is.sort();
            ought.sort();
            prop_assert_eq!(is, ought);
            let total = model.ended + model.live.iter().map(|session| session.2).sum::<u64>();
            prop_assert_eq!(rig.sessions.totals().bytes_up, total);
        }
    }
}
