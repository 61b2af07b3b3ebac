use std::collections::BTreeSet;

use serde_json::Value;

use super::{view::*, *};
use crate::{
    payment::{Price, wire::InvoiceText},
    session::registry::{NewSession, rig::Rig},
};

fn service(rig: &Rig) -> Pay {
    let address = alloy_primitives::Address::repeat_byte(7);
    let config = Payment { enabled: true, provider: Some(address), ..Payment::default() };
    Pay::new(&config, &rig.sessions).expect("it is on")
}

fn prepaid(rig: &Rig, free_bytes: u64) -> SessionId {
    let new = NewSession { prepaid: true, free_bytes, ..NewSession::default() };
    rig.sessions.add(new).expect("added").snapshot.session.id
}

fn offered(service: &Pay) -> Offered {
    let consumer = alloy_primitives::Address::repeat_byte(9);
    Offered { consumer, price: service.0.config.price() }
}

#[test]
fn without_the_configurations_word_there_is_no_service() {
    let folder = tempfile::tempdir().expect("a folder");
    let rig = Rig::start(folder.path(), 4);
    assert!(Pay::new(&Payment::default(), &rig.sessions).is_none());
}

#[test]
fn free_bytes_come_first_and_cost_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let rig = Rig::start(folder.path(), 4);
    let (service, id) = (service(&rig), prepaid(&rig, 1000));
    let slot = rig.sessions.get(&id.to_string()).expect("there").session.slot;
    assert_eq!(service.0.account(id).expect("there").state, "open");
    rig.traffic(slot, 900);
    service.0.agree(id, &offered(&service)).expect("agreed");
    let account = service.0.account(id).expect("there");
    assert_eq!((account.state.as_str(), account.covered_bytes), ("open", 900));
    assert_eq!(account.agreement.expect("agreed").due, "0");
    assert_eq!(account.invoice.expect("the first").agreement_total, "1");
    rig.traffic(slot, 100 + (1 << 30));
    rig.sessions.enforce(Duration::MAX, Instant::now()).expect("enforced");
    let account = service.0.account(id).expect("there");
    assert_eq!((account.state.as_str(), account.covered_bytes), ("paused", 1000));
    let price = service.0.config.price().per_gib;
    assert_eq!(account.agreement.expect("agreed").due, price.to_string());
}

#[test]
fn asking_again_makes_no_new_invoice_within_a_second() {
    let folder = tempfile::tempdir().expect("a folder");
    let rig = Rig::start(folder.path(), 4);
    let (service, id) = (service(&rig), prepaid(&rig, 0));
    service.0.agree(id, &offered(&service)).expect("agreed");
    let asked = || service.0.account(id).expect("there").invoice.expect("due");
    let first = asked();
    assert_eq!(asked(), first);
    let slot = rig.sessions.get(&id.to_string()).expect("there").session.slot;
    rig.traffic(slot, 1 << 30);
    assert_eq!(asked(), first, "more is due, but not for long");
    std::thread::sleep(INVOICE_AGE);
    let second = asked();
    assert!(second.agreement_total.len() > first.agreement_total.len(), "{second:?}");
    std::thread::sleep(INVOICE_AGE);
    assert_eq!(asked(), second, "no more is due");
}

#[test]
fn an_agreement_is_made_once_and_never_below_the_floor() {
    let folder = tempfile::tempdir().expect("a folder");
    let rig = Rig::start(folder.path(), 4);
    let (service, id) = (service(&rig), prepaid(&rig, 0));
    let good = offered(&service);
    let free = Offered { price: Price::default(), ..good };
    assert!(matches!(service.0.agree(id, &free), Err(PayError::TooCheap(_))));
    service.0.agree(id, &good).expect("agreed");
    service.0.agree(id, &good).expect("the same again");
    let other = Offered { consumer: alloy_primitives::Address::repeat_byte(8), ..good };
    assert!(matches!(service.0.agree(id, &other), Err(PayError::Agreed)));
}

#[test]
fn the_described_fields_are_those_of_the_answers() {
    let folder = tempfile::tempdir().expect("a folder");
    let rig = Rig::start(folder.path(), 4);
    let (service, id) = (service(&rig), prepaid(&rig, 0));
    service.0.agree(id, &offered(&service)).expect("agreed");
    let account = service.0.account(id).expect("there");
    let document: Value =
        serde_json::from_str(include_str!("../../../../docs/openapi-gateway.json")).expect("JSON");
    let described = |name: &str| -> BTreeSet<String> {
        let schema = &document["components"]["schemas"][name]["properties"];
        schema.as_object().unwrap_or_else(|| panic!("{name}")).keys().cloned().collect()
    };
    let keys = |value: Value| -> BTreeSet<String> {
        value.as_object().expect("an object").keys().cloned().collect()
    };
    let value = serde_json::to_value(&account).expect("JSON");
    assert_eq!(described("Terms"), keys(value["terms"].clone()));
    assert_eq!(described("Agreement"), keys(value["agreement"].clone()));
    assert_eq!(described("Invoice"), keys(value["invoice"].clone()));
    assert_eq!(described("Account"), keys(value));
    let request = AgreementRequest {
        consumer: String::new(),
        per_gib: Some(String::new()),
        per_hour: Some(String::new()),
    };
    assert_eq!(described("AgreementRequest"), keys(serde_json::to_value(request).expect("JSON")));
    let invoice: InvoiceText = account.invoice.expect("due");
    assert_eq!(invoice.agreement_total, "1");
    // The words of the refusals are in the code, and nowhere else.
    let source = include_str!("refusal.rs");
    let codes = document["components"]["schemas"]["Error"].to_string();
    for line in source.lines().filter(|line| line.trim_start().starts_with("Refusal::")) {
        let code = line.split('"').nth(1).expect("a word");
        assert!(codes.contains(&format!("`{code}`")), "{code} is not described");
    }
}
