use std::{fs, os::unix::fs::PermissionsExt as _};

use weir_promise::{
    Invoice, Terms,
    account::TermsView,
    invoice::Preimage,
    verify::{Before, Paid},
};

use super::*;

/// A wei a byte and two a second.
const PRICE: Price = Price { per_gib: 1 << 30, per_hour: 7200 };
const AGREEMENT: u64 = 77;

fn terms() -> Terms {
    Terms {
        chain_id: 137,
        provider: Address::repeat_byte(1),
        hermes: Address::repeat_byte(2),
        registry: Address::repeat_byte(3),
        channel_implementation: Address::repeat_byte(4),
    }
}

struct Rig {
    directory: tempfile::TempDir,
    promises: Promises,
}

impl Rig {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("identity.key");
        fs::write(&path, format!("{}\n", "09".repeat(32))).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("set");
        let promises = Promises::open(&path).expect("a key");
        Self { directory, promises }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    fn again(self) -> Self {
        let Self { directory, promises } = self;
        drop(promises);
        let promises = Promises::open(&directory.path().join("identity.key")).expect("a key");
        Self { directory, promises }
    }

    /// The account of a session that has used this much, and its invoice.
    fn account(&self, bytes: u64, seconds: u64, paid: u64) -> (AccountView, Invoice) {
        let terms = terms();
        let total = PRICE.due(Use { bytes, seconds }).max(U256::from(1));
        let id = U256::from(AGREEMENT);
        let preimage = Preimage::random();
        let invoice = Invoice {
            agreement_id: id,
            agreement_total: total,
            fee: U256::ZERO,
            hashlock: preimage.hashlock(),
            provider: terms.provider,
            chain_id: terms.chain_id,
        };
        let account = AccountView {
            session: "1".into(),
            state: "open".into(),
            must_pay: true,
            bytes,
            covered_bytes: 0,
            seconds,
            terms: TermsView::new(&terms, &PRICE),
            agreement: Some(AgreementView {
                agreement_id: id.to_string(),
                consumer: self.promises.identity().to_string(),
                channel_id: terms.channel_of(self.promises.identity()).to_string(),
                per_gib: PRICE.per_gib.to_string(),
                per_hour: PRICE.per_hour.to_string(),
                unpaid_bytes: 1,
                unpaid_seconds: 1,
                leeway: "1".into(),
                due: total.to_string(),
                paid: paid.to_string(),
                promised: paid.to_string(),
            }),
            invoice: Some(InvoiceText::from(&invoice)),
        };
        (account, invoice)
    }

    /// Answers an invoice as [`Promises::pay`] does, without a node.
    fn answer(&mut self, account: &AccountView, at_most: u64) -> anyhow::Result<Option<Due>> {
        let due = self.promises.due(account, at_most)?;
        if let Some(Due { channel, agreed, .. }) = &due {
            self.promises.record.promised(*channel, agreed.clone())?;
        }
        Ok(due)
    }

    fn refusal(&mut self, account: &AccountView, at_most: u64) -> String {
        let answer = self.answer(account, at_most).map(|due| due.map(|due| due.cost));
        format!("{:#}", answer.expect_err("it is not paid"))
    }
}

fn agreement(account: &mut AccountView) -> &mut AgreementView {
    account.agreement.as_mut().expect("there is one")
}

#[test]
fn a_node_takes_each_promise_and_each_is_for_what_came_since() {
    let mut rig = Rig::new();
    let mut before =
        Before { consumer: rig.promises.identity(), amount: U256::ZERO, paid: U256::ZERO };
    for (bytes, seconds, cost) in [(0, 0, 1), (500, 10, 519), (2000, 60, 1600)] {
        let paid = u64::try_from(before.paid).expect("little");
        let (account, invoice) = rig.account(bytes, seconds, paid);
        let due = rig.answer(&account, 5000).expect("paid").expect("something is due");
        let taken = terms().verify(&due.message, &invoice, &before).expect("the node takes it");
        let gained = U256::from(cost);
        assert_eq!((due.cost, taken), (cost, Paid { total: before.paid + gained, gained }));
        before.amount = due.message.promise.amount;
        before.paid = taken.total;
        let (account, _) = rig.account(bytes, seconds, paid + cost);
        assert!(rig.answer(&account, 5000).expect("no error").is_none(), "it is paid");
        // What was promised outlives the process.
        rig = rig.again();
    }
}

#[test]
fn a_payment_that_the_node_says_it_has_not_had_is_promised_once() {
    let mut rig = Rig::new();
    let (account, _) = rig.account(500, 0, 0);
    assert_eq!(rig.answer(&account, 1000).expect("paid").expect("due").cost, 500);
    assert!(rig.answer(&account, 1000).expect("no error").is_none());
    let (account, invoice) = rig.account(700, 0, 0);
    let due = rig.answer(&account, 1000).expect("paid").expect("due");
    assert_eq!(due.cost, 200);
    let before = Before { consumer: rig.promises.identity(), amount: U256::ZERO, paid: U256::ZERO };
    terms().verify(&due.message, &invoice, &before).expect("it makes up for the lost one");
}

#[test]
fn the_budget_holds_whatever_the_node_says_that_the_channel_has_promised() {
    let mut rig = Rig::new();
    let (mut account, _) = rig.account(500, 0, 0);
    assert!(rig.refusal(&account, 499).contains("500 wei more, and 499 are left"));
    agreement(&mut account).promised = "400".into();
    assert!(rig.refusal(&account, 899).contains("900 wei more"));
    agreement(&mut account).promised = U256::MAX.to_string();
    assert!(rig.refusal(&account, u64::MAX).contains("too large"));
    agreement(&mut account).promised = "400".into();
    // A record that was lost: the channel goes on above what the node has.
    assert_eq!(rig.answer(&account, 900).expect("paid").expect("due").cost, 900);
}

#[test]
fn an_invoice_above_the_bill_or_at_another_price_is_not_paid() {
    let mut rig = Rig::new();
    let (mut account, _) = rig.account(500, 0, 0);
    account.bytes = 499;
    assert!(rig.refusal(&account, 1000).contains("asks for 500 wei"));
    (account.bytes, account.covered_bytes) = (600, 101);
    assert!(rig.refusal(&account, 1000).contains("asks for 500 wei"));
    account.covered_bytes = 100;
    rig.answer(&account, 1000).expect("paid").expect("due");
    let (mut account, _) = rig.account(900, 0, 500);
    agreement(&mut account).per_gib = (2u64 << 30).to_string();
    assert!(rig.refusal(&account, 1000).contains("another price"));
}

#[test]
fn an_invoice_of_another_agreement_node_or_identity_is_not_paid() {
    let mut rig = Rig::new();
    let (account, _) = rig.account(500, 0, 0);
    let mut other = account.clone();
    agreement(&mut other).consumer = Address::repeat_byte(9).to_string();
    assert!(rig.refusal(&other, 1000).contains("Fix: use the key of that identity"));
    for change in [
        |it: &mut InvoiceText| it.agreement_id = "78".into(),
        |it: &mut InvoiceText| it.chain_id = 1,
        |it: &mut InvoiceText| it.provider = Address::repeat_byte(8).to_string(),
    ] {
        let mut other = account.clone();
        change(other.invoice.as_mut().expect("there is one"));
        assert!(rig.refusal(&other, 1000).contains("not one of this session's agreement"));
    }
    let mut none = account;
    none.invoice = None;
    assert!(rig.answer(&none, 1000).expect("no error").is_none());
}

#[test]
fn a_key_is_used_by_one_process_and_its_record_is_never_guessed() {
    let rig = Rig::new();
    let key = rig.path("identity.key");
    let failure = |key: &Path| format!("{:#}", Promises::open(key).expect_err("refused"));
    assert!(failure(&key).contains("another weir pays with the key"));
    let Rig { directory, promises } = rig;
    drop(promises);
    let record = directory.path().join("identity.key.promised");
    fs::write(&record, "{").expect("written");
    assert!(failure(&key).contains("restore it from a copy"));
    fs::write(&record, r#"{"channels": {"137/0x01": "-5"}, "agreements": []}"#).expect("written");
    assert!(failure(&key).contains("is damaged"));
    fs::remove_file(&record).expect("removed");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).expect("set");
    assert!(failure(&key).contains("Fix: chmod 600"));
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("set");
    fs::write(&key, "rubbish").expect("written");
    assert!(failure(&key).contains("holds no key"));
}
