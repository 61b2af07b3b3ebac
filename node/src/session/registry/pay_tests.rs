use alloy_primitives::{Address, U256};
use k256::ecdsa::SigningKey;

use super::{
    pay::{Offered, PayError},
    rig::Rig,
    *,
};
use crate::payment::{ExchangeMessage, Invoice, Price, Promise, Refusal, Terms, signature};
use crate::session::store::check::Reader;

/// A wei a byte.
const PRICE: Price = Price { per_gib: 1 << 30, per_hour: 0 };

fn terms() -> Terms {
    Terms {
        chain_id: 137,
        provider: Address::repeat_byte(1),
        hermes: Address::repeat_byte(2),
        registry: Address::repeat_byte(3),
        channel_implementation: Address::repeat_byte(4),
    }
}

/// A consumer who pays what it is asked.
struct Consumer {
    key: SigningKey,
    promised: U256,
    paid: U256,
}

impl Consumer {
    fn new() -> Self {
        let key = SigningKey::from_slice(&[9; 32]).expect("a key");
        Self { key, promised: U256::from(500), paid: U256::ZERO }
    }

    fn address(&self) -> Address {
        signature::address_of(self.key.verifying_key())
    }

    fn answer(&mut self, invoice: &Invoice) -> ExchangeMessage {
        self.promised += invoice.agreement_total - self.paid;
        self.paid = invoice.agreement_total;
        let promise = Promise {
            chain_id: 137,
            channel_id: terms().channel_of(self.address()).into_word(),
            amount: self.promised,
            fee: invoice.fee,
            hashlock: invoice.hashlock,
            signature: [0; 65],
        };
        let message = ExchangeMessage {
            promise: promise.signed(&self.key).expect("signed"),
            agreement_id: invoice.agreement_id,
            agreement_total: invoice.agreement_total,
            provider: invoice.provider,
            hermes: Some(terms().hermes),
            chain_id: 137,
            signature: [0; 65],
        };
        message.signed(&self.key).expect("signed")
    }
}

fn state(rig: &Rig, slot: Slot) -> SessionState {
    rig.accounts.get(slot).expect("a slot").state()
}

fn enforce(rig: &Rig) {
    let grace = std::time::Duration::from_secs(3600);
    rig.sessions.enforce(grace, &mut HashMap::new()).expect("enforced");
}

#[test]
fn a_consumer_pays_its_way_also_over_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut rig = Rig::start(folder.path(), 4);
    let slot = rig.add(Some("alice")).session.slot;
    let mut alice = Consumer::new();
    let offered = Offered { consumer: alice.address(), price: PRICE };
    let free = Offered { price: Price::default(), ..offered };
    assert!(matches!(rig.sessions.agree("alice", &free, PRICE, 99), Err(PayError::TooCheap(_))));
    assert!(matches!(rig.sessions.invoice("alice", &terms()), Err(PayError::NoAgreement)));
    rig.sessions.agree("alice", &offered, PRICE, 99).expect("agreed");
    assert_eq!(state(&rig, slot), SessionState::Paused, "nothing was paid yet");

    for turn in 0..6u64 {
        let invoice = rig.sessions.invoice("alice", &terms()).expect("made").expect("due");
        assert_eq!(invoice.agreement_total, U256::from((turn * 100).max(1)));
        let message = alice.answer(&invoice);
        rig.sessions.pay("alice", &terms(), &message).expect("paid");
        assert_eq!(state(&rig, slot), SessionState::Open);
        assert!(rig.sessions.invoice("alice", &terms()).expect("asked").is_none(), "all is paid");
        let again = rig.sessions.pay("alice", &terms(), &message);
        assert!(matches!(again, Err(PayError::Refused(Refusal::Replayed { .. }))));
        let limit = u64::try_from(alice.paid).expect("small") + 99;
        rig.traffic(slot, (turn + 1) * 100 - turn * 100);
        enforce(&rig);
        let used = billed(&rig.sessions.get("alice").expect("there").counters);
        let expected = if used >= limit { SessionState::Paused } else { SessionState::Open };
        assert_eq!(state(&rig, slot), expected);
        if turn == 2 {
            let accounts = rig.accounts.clone();
            drop(rig);
            rig = Rig::with_accounts(folder.path(), accounts);
            assert_eq!(state(&rig, slot), expected);
        }
        assert_eq!(rig.sessions.earned(), alice.promised, "also what an earlier run was promised");
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
    rig.sessions.agree("alice", &offered, PRICE, 99).expect("agreed");
    assert!(matches!(rig.sessions.agree("alice", &offered, PRICE, 99), Err(PayError::Agreed)));
    rig.sessions.store().refuse_changes(true);
    assert!(rig.sessions.invoice("alice", &terms()).is_err(), "no preimage, no invoice");
    rig.sessions.store().refuse_changes(false);
    let invoice = rig.sessions.invoice("alice", &terms()).expect("made").expect("due");
    let good = alice.answer(&invoice);
    let mut altered = [good; 3];
    altered[0].promise.hashlock.0[0] ^= 1;
    altered[1].agreement_total = U256::ZERO;
    altered[2].signature[5] ^= 1;
    for bad in &altered {
        let refused = rig.sessions.pay("alice", &terms(), bad);
        assert!(matches!(refused, Err(PayError::Refused(_))), "{refused:?}");
        assert_eq!(state(&rig, slot), SessionState::Paused);
    }
    rig.sessions.store().refuse_changes(true);
    assert!(matches!(rig.sessions.pay("alice", &terms(), &good), Err(PayError::Session(_))));
    assert_eq!(state(&rig, slot), SessionState::Paused);
    rig.sessions.store().refuse_changes(false);
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
    rig.sessions.agree("alice", &offered, PRICE, 99).expect("agreed");
    let invoice = rig.sessions.invoice("alice", &terms()).expect("made").expect("due");
    let message = alice.answer(&invoice);
    let paid = rig.sessions.pay("alice", &terms(), &message).expect("paid");
    let mut store = rig.sessions.store();
    for amount in [U256::from(501), U256::from(99), U256::ZERO] {
        let mut lower = message;
        lower.promise.amount = amount;
        assert!(store.accept(id, &lower, &paid).is_err(), "{amount}");
    }
    let channel = message.promise.channel_id;
    assert_eq!(store.promised(&channel).expect("read"), U256::from(501));
}
