use alloy_primitives::{Address, U256};

use super::payer::Consumer;
use super::{
    pay::{Offered, PayError},
    rig::Rig,
    *,
};
use weir_ledger::check::Reader;
use weir_promise::{Price, Refusal, Terms, Use};

/// A wei a byte.
const PRICE: Price = Price { per_gib: 1 << 30, per_hour: 0 };

/// An hour costs 3600 KiB.
const BY_BOTH: Price = Price { per_gib: 1 << 30, per_hour: 3600 << 10 };

const UNPAID: Use = Use { bytes: 99, seconds: 300 };

fn terms() -> Terms {
    Terms {
        chain_id: 137,
        provider: Address::repeat_byte(1),
        hermes: Address::repeat_byte(2),
        registry: Address::repeat_byte(3),
        channel_implementation: Address::repeat_byte(4),
    }
}

fn state(rig: &Rig, slot: Slot) -> SessionState {
    rig.accounts.get(slot).expect("a slot").state()
}

fn enforce(rig: &Rig) {
    let grace = std::time::Duration::from_secs(3600);
    rig.sessions.enforce(grace, std::time::Instant::now()).expect("enforced");
}

#[test]
fn a_consumer_pays_its_way_also_over_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut rig = Rig::start(folder.path(), 4);
    let slot = rig.add(Some("alice")).session.slot;
    let mut alice = Consumer::new();
    let offered = Offered { consumer: alice.address(), price: PRICE };
    let free = Offered { price: Price::default(), ..offered };
    assert!(matches!(
        rig.sessions.agree("alice", &free, PRICE, UNPAID),
        Err(PayError::TooCheap(_))
    ));
    assert!(matches!(rig.sessions.invoice("alice", &terms()), Err(PayError::NoAgreement)));
    rig.sessions.agree("alice", &offered, PRICE, UNPAID).expect("agreed");
    assert_eq!(state(&rig, slot), SessionState::Paused, "nothing was paid yet");

    for round in 0..6u64 {
        let invoice = rig.sessions.invoice("alice", &terms()).expect("made").expect("due");
        assert_eq!(invoice.agreement_total, U256::from((round * 100).max(1)));
        let message = alice.answer_by(&terms(), &invoice);
        rig.sessions.pay("alice", &terms(), &message).expect("paid");
        assert_eq!(state(&rig, slot), SessionState::Open);
        assert!(rig.sessions.invoice("alice", &terms()).expect("asked").is_none(), "all is paid");
        let again = rig.sessions.pay("alice", &terms(), &message);
        assert!(matches!(again, Err(PayError::Refused(Refusal::Replayed { .. }))));
        let limit = u64::try_from(alice.paid).expect("small") + 99;
        rig.traffic(slot, (round + 1) * 100 - round * 100);
        enforce(&rig);
        let used = billed(&rig.sessions.get("alice").expect("there").counters);
        let expected = if used >= limit { SessionState::Paused } else { SessionState::Open };
        assert_eq!(state(&rig, slot), expected);
        if round == 2 {
            let accounts = rig.accounts.clone();
            drop(rig);
            rig = Rig::with_accounts(folder.path(), accounts);
            assert_eq!(state(&rig, slot), expected);
        }
        assert_eq!(rig.ledger.earned(), alice.promised, "also what an earlier run was promised");
        let paid = u64::try_from(alice.paid).expect("small");
        assert_eq!(rig.sessions.unpaid_bytes(), used - paid);
    }
    let reader = Reader::open(&folder.path().join("ledger.db")).expect("opened");
    let settlements = reader.settlements().expect("read");
    assert_eq!(settlements.len(), 1);
    assert_eq!(settlements[0].amount, alice.promised);
    let message: serde_json::Value = serde_json::from_str(&settlements[0].message).expect("JSON");
    let lock = alloy_primitives::hex::encode(settlements[0].preimage.hashlock());
    assert_eq!(message["promise"]["hashlock"], lock, "the preimage opens the promise");
}

#[test]
fn bad_payments_credit_nothing_and_a_full_disk_takes_none() {
    let folder = tempfile::tempdir().expect("a folder");
    let rig = Rig::start(folder.path(), 4);
    let slot = rig.add(Some("alice")).session.slot;
    let mut alice = Consumer::new();
    let offered = Offered { consumer: alice.address(), price: PRICE };
    rig.sessions.agree("alice", &offered, PRICE, UNPAID).expect("agreed");
    assert!(matches!(rig.sessions.agree("alice", &offered, PRICE, UNPAID), Err(PayError::Agreed)));
    rig.ledger.lock().refuse_changes(true);
    assert!(rig.sessions.invoice("alice", &terms()).is_err(), "no preimage, no invoice");
    rig.ledger.lock().refuse_changes(false);
    let invoice = rig.sessions.invoice("alice", &terms()).expect("made").expect("due");
    let good = alice.answer_by(&terms(), &invoice);
    let mut altered = [good; 3];
    altered[0].promise.hashlock.0[0] ^= 1;
    altered[1].agreement_total = U256::ZERO;
    altered[2].signature[5] ^= 1;
    for bad in &altered {
        let refused = rig.sessions.pay("alice", &terms(), bad);
        assert!(matches!(refused, Err(PayError::Refused(_))), "{refused:?}");
        assert_eq!(state(&rig, slot), SessionState::Paused);
    }
    rig.ledger.lock().refuse_changes(true);
    assert!(matches!(rig.sessions.pay("alice", &terms(), &good), Err(PayError::Session(_))));
    assert_eq!(state(&rig, slot), SessionState::Paused);
    rig.ledger.lock().refuse_changes(false);
    rig.sessions.pay("alice", &terms(), &good).expect("paid");
    assert_eq!(state(&rig, slot), SessionState::Open);
}

#[test]
fn a_channels_promise_in_the_ledger_only_rises() {
    let folder = tempfile::tempdir().expect("a folder");
    let rig = Rig::start(folder.path(), 4);
    let id = rig.add(Some("alice")).session.id;
    let mut alice = Consumer::new();
    let offered = Offered { consumer: alice.address(), price: PRICE };
    rig.sessions.agree("alice", &offered, PRICE, UNPAID).expect("agreed");
    let invoice = rig.sessions.invoice("alice", &terms()).expect("made").expect("due");
    let message = alice.answer_by(&terms(), &invoice);
    let paid = rig.sessions.pay("alice", &terms(), &message).expect("paid");
    let mut ledger = rig.ledger.lock();
    for amount in [U256::from(501), U256::from(99), U256::ZERO] {
        let mut lower = message;
        lower.promise.amount = amount;
        assert!(ledger.accept(id, &lower, &paid, Use::default()).is_err(), "{amount}");
    }
    let channel = message.promise.channel_id;
    assert_eq!(ledger.promised(&channel).expect("read"), U256::from(501));
}

/// Alice, who has agreed at a price and paid the first wei.
fn paying(rig: &Rig, price: Price, unpaid: Use) -> (Consumer, Session) {
    let session = rig.add(Some("alice")).session;
    let mut alice = Consumer::new();
    let offered = Offered { consumer: alice.address(), price };
    rig.sessions.agree("alice", &offered, PRICE, unpaid).expect("agreed");
    pay(rig, &mut alice);
    (alice, session)
}

/// Pays what is due, which is something.
fn pay(rig: &Rig, consumer: &mut Consumer) {
    let invoice = rig.sessions.invoice("alice", &terms()).expect("made").expect("due");
    rig.sessions.pay("alice", &terms(), &consumer.answer_by(&terms(), &invoice)).expect("paid");
}

fn limit(rig: &Rig, slot: Slot) -> Option<u64> {
    rig.accounts.get(slot).expect("a slot").limit()
}

#[test]
fn one_wei_at_an_absurd_price_buys_no_more_than_may_be_unpaid() {
    let unpaid = Use { bytes: 64 << 20, seconds: 300 };
    for per_hour in [0, 1 << 30, 1 << 57, 1 << 100, u128::MAX] {
        let folder = tempfile::tempdir().expect("a folder");
        let rig = Rig::start(folder.path(), 4);
        let price = Price { per_hour, ..PRICE };
        let (_, session) = paying(&rig, price, unpaid);
        assert_eq!(limit(&rig, session.slot), Some(unpaid.bytes + 1), "{per_hour}");
        rig.pass(session.id, 299);
        enforce(&rig);
        assert_eq!(limit(&rig, session.slot).max(Some(unpaid.bytes + 1)), Some(unpaid.bytes + 1));
        assert_eq!(state(&rig, session.slot), SessionState::Open, "{per_hour}: 299 s");
        rig.pass(session.id, 1);
        enforce(&rig);
        let expected = if per_hour == 0 { SessionState::Open } else { SessionState::Paused };
        assert_eq!(state(&rig, session.slot), expected, "{per_hour}: 300 s");
    }
}

#[test]
fn time_that_is_not_used_buys_no_bytes_and_bytes_no_time() {
    let folder = tempfile::tempdir().expect("a folder");
    let rig = Rig::start(folder.path(), 4);
    let (mut alice, session) = paying(&rig, BY_BOTH, UNPAID);
    for round in 1..5u64 {
        // 250 s are worth 256,000 bytes.
        rig.pass(session.id, 250);
        rig.traffic(session.slot, 50);
        pay(&rig, &mut alice);
        assert_eq!(limit(&rig, session.slot), Some(50 * round + UNPAID.bytes), "{round}");
    }
    rig.pass(session.id, UNPAID.seconds - 1);
    enforce(&rig);
    assert_eq!(state(&rig, session.slot), SessionState::Open);
    rig.pass(session.id, 1);
    enforce(&rig);
    assert_eq!(state(&rig, session.slot), SessionState::Paused, "its time is over");
    assert_eq!(rig.sessions.get("alice").expect("there").paused_for, Some("credit"));
    pay(&rig, &mut alice);
    assert_eq!(state(&rig, session.slot), SessionState::Open);
    rig.traffic(session.slot, UNPAID.bytes);
    enforce(&rig);
    assert_eq!(state(&rig, session.slot), SessionState::Paused, "its bytes are over");
}

#[test]
fn what_is_paid_for_survives_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let rig = Rig::start(folder.path(), 4);
    let (mut alice, session) = paying(&rig, BY_BOTH, UNPAID);
    rig.pass(session.id, 250);
    rig.traffic(session.slot, 50);
    pay(&rig, &mut alice);
    rig.sessions.record().expect("written");
    drop(rig);
    let rig = Rig::start(folder.path(), 4);
    assert_eq!(limit(&rig, session.slot), Some(50 + UNPAID.bytes));
    rig.pass(session.id, 299);
    enforce(&rig);
    assert_eq!(state(&rig, session.slot), SessionState::Open);
    rig.pass(session.id, 1);
    enforce(&rig);
    assert_eq!(state(&rig, session.slot), SessionState::Paused);
}

#[test]
fn who_is_stopped_by_the_worker_is_paused_whatever_the_time_costs() {
    for per_hour in [0, 1, 3600 << 10, 1 << 60] {
        let folder = tempfile::tempdir().expect("a folder");
        let rig = Rig::start(folder.path(), 4);
        let price = Price { per_hour, ..PRICE };
        let (mut alice, session) = paying(&rig, price, UNPAID);
        rig.traffic(session.slot, 60);
        rig.meets_the_limit(session.slot);
        rig.pass(session.id, 2);
        enforce(&rig);
        assert_eq!(state(&rig, session.slot), SessionState::Paused, "{per_hour}");
        let seconds = rig.sessions.get("alice").expect("there").seconds;
        enforce(&rig);
        assert_eq!(state(&rig, session.slot), SessionState::Paused, "{per_hour}: it stays so");
        assert_eq!(rig.sessions.get("alice").expect("there").seconds, seconds, "no time counts");
        pay(&rig, &mut alice);
        assert_eq!(state(&rig, session.slot), SessionState::Open, "{per_hour}: it has paid");
        assert_ne!(limit(&rig, session.slot), Some(100), "there is more");
    }
}

#[test]
fn a_second_session_of_a_channel_owes_and_pays_for_itself() {
    let folder = tempfile::tempdir().expect("a folder");
    let rig = Rig::start(folder.path(), 4);
    let (mut alice, first) = paying(&rig, BY_BOTH, UNPAID);
    rig.pass(first.id, 100);
    rig.traffic(first.slot, 40);
    pay(&rig, &mut alice);
    rig.sessions.remove("alice").expect("removed");
    alice.paid = U256::ZERO;
    let second = rig.add(Some("alice")).session;
    let offered = Offered { consumer: alice.address(), price: BY_BOTH };
    rig.sessions.agree("alice", &offered, PRICE, UNPAID).expect("agreed");
    assert_eq!(state(&rig, second.slot), SessionState::Paused, "what the first paid is its own");
    pay(&rig, &mut alice);
    assert_eq!(limit(&rig, second.slot), Some(UNPAID.bytes + 1));
    assert_eq!(rig.ledger.earned(), alice.promised);
    drop(rig);
    let rig = Rig::start(folder.path(), 4);
    assert_eq!(rig.ledger.earned(), alice.promised);
    let ledger = rig.ledger.lock();
    assert_eq!(ledger.count("invoices"), 1, "the one that the channel names");
}

#[test]
fn invoices_have_an_end() {
    use weir_ledger::agreements::MAX_OPEN_INVOICES;
    let folder = tempfile::tempdir().expect("a folder");
    let rig = Rig::start(folder.path(), 4);
    let (mut alice, session) = paying(&rig, PRICE, UNPAID);
    rig.ledger.lock().in_no_hurry();
    let kept = || rig.ledger.lock().count("invoices");
    assert_eq!(kept(), 1);
    rig.traffic(session.slot, 1);
    let mut invoices = Vec::new();
    for _ in 0..MAX_OPEN_INVOICES + 30 {
        rig.traffic(session.slot, 1);
        invoices.push(rig.sessions.invoice("alice", &terms()).expect("made").expect("due"));
    }
    assert_eq!(kept(), MAX_OPEN_INVOICES as usize + 1, "and the one that was paid");
    let before = (alice.promised, alice.paid);
    let old = rig.sessions.pay("alice", &terms(), &alice.answer_by(&terms(), &invoices[0]));
    assert!(matches!(old, Err(PayError::Refused(Refusal::Hashlock))), "{old:?}");
    (alice.promised, alice.paid) = before;
    let one = invoices[invoices.len() - 10];
    rig.sessions.pay("alice", &terms(), &alice.answer_by(&terms(), &one)).expect("paid");
    assert_eq!(kept(), 10, "the one that was paid, and nine above it");
    rig.sessions.remove("alice").expect("removed");
    assert_eq!(kept(), 0, "the channel has what settles it");
    let reader = Reader::open(&folder.path().join("ledger.db")).expect("opened");
    assert_eq!(reader.settlements().expect("read").len(), 1);
    assert_eq!(reader.check().expect("read").problems, Vec::<String>::new());
}

#[test]
fn no_promise_is_taken_twice_once_the_rows_of_its_session_are_gone() {
    let folder = tempfile::tempdir().expect("a folder");
    let rig = Rig::start(folder.path(), 4);
    let (mut alice, first) = paying(&rig, PRICE, UNPAID);
    rig.traffic(first.slot, 40);
    let invoice = rig.sessions.invoice("alice", &terms()).expect("made").expect("due");
    let message = alice.answer_by(&terms(), &invoice);
    rig.sessions.pay("alice", &terms(), &message).expect("paid");
    rig.sessions.remove("alice").expect("removed");
    assert_eq!(rig.ledger.lock().sweep_all_ended(), 1);
    drop(rig);
    let rig = Rig::start(folder.path(), 4);
    let gone = rig.sessions.get(&first.id.to_string());
    assert!(matches!(gone, Err(SessionError::NotFound(_))), "{gone:?}");
    let late = rig.sessions.pay("alice", &terms(), &message);
    assert!(matches!(late, Err(PayError::Session(SessionError::NotFound(_)))), "{late:?}");

    rig.add(Some("alice"));
    let offered = Offered { consumer: alice.address(), price: PRICE };
    rig.sessions.agree("alice", &offered, PRICE, UNPAID).expect("agreed");
    let unasked = rig.sessions.pay("alice", &terms(), &message);
    assert!(matches!(unasked, Err(PayError::NoInvoice)), "{unasked:?}");
    let invoice = rig.sessions.invoice("alice", &terms()).expect("made").expect("due");
    let again = rig.sessions.pay("alice", &terms(), &message);
    assert!(matches!(again, Err(PayError::Refused(Refusal::Agreement { .. }))), "{again:?}");
    // A new promise that is no higher than what the channel promised before is worth nothing.
    let promised = alice.promised;
    (alice.promised, alice.paid) = (promised - U256::from(1), U256::ZERO);
    let worthless = rig.sessions.pay("alice", &terms(), &alice.answer_by(&terms(), &invoice));
    assert!(matches!(worthless, Err(PayError::Refused(Refusal::Amount { .. }))), "{worthless:?}");
    assert_eq!(rig.ledger.earned(), promised);

    let reader = Reader::open(&folder.path().join("ledger.db")).expect("opened");
    let settlements = reader.settlements().expect("read");
    assert_eq!((settlements.len(), settlements[0].amount), (1, promised));
    let lock = settlements[0].preimage.hashlock();
    assert_eq!(lock, message.promise.hashlock, "what was promised can be settled still");
    assert_eq!(reader.check().expect("read").problems, Vec::<String>::new());
}
