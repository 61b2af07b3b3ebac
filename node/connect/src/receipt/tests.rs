use weir_receipt::{Signer, VERSION};

use super::*;

const OWN: &str = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=";

fn signer() -> Signer {
    Signer::from_seed(&[1; 32])
}

/// The receipt with this sequence number, and this number of bytes in each direction.
fn receipt(sequence: u64, bytes: u64) -> Receipt {
    Receipt {
        version: VERSION,
        session: "5f0c1d2e3a4b5c6d".into(),
        consumer: None,
        public_key: OWN.into(),
        sequence,
        bytes_up: bytes,
        packets_up: bytes / 100,
        bytes_down: bytes,
        packets_down: bytes / 100,
        seconds: sequence * 60,
        start: 1,
        last_activity: sequence * 60,
        end_reason: None,
        signer: String::new(),
        signature: String::new(),
    }
}

fn answer(receipt: Receipt) -> Answer {
    Answer { signer: signer().public().into(), receipt: Some(signer().sign(receipt)) }
}

fn receipts() -> Receipts {
    Receipts::new(OWN, Some(signer().public()), None)
}

fn after_one() -> Receipts {
    let mut receipts = receipts();
    let first = receipts.take(answer(receipt(1, 500)), 1000).expect("it is right");
    assert_eq!(first.map(|it| it.billed()), Some(1000));
    receipts
}

#[test]
fn receipts_that_rise_with_the_bill_are_right_and_each_is_new_once() {
    let mut receipts = after_one();
    assert_eq!(receipts.take(answer(receipt(1, 500)), 1700), Ok(None), "the same again");
    for sequence in 2..20 {
        let new = receipts.take(answer(receipt(sequence, sequence * 500)), sequence * 1000 + 1);
        assert_eq!(new.map(|it| it.map(|it| it.sequence)), Ok(Some(sequence)));
    }
}

#[test]
fn before_the_first_receipt_the_key_is_pinned() {
    let mut receipts = Receipts::new(OWN, None, None);
    let none = Answer { signer: signer().public().into(), receipt: None };
    assert_eq!(receipts.take(none, 5), Ok(None));
    let pinned = receipts.pinned().expect("a key");
    assert_eq!((pinned.signer.as_str(), pinned.origin), (signer().public(), Origin::FirstUse));
    let other = Signer::from_seed(&[2; 32]);
    let signed = Some(other.sign(receipt(1, 1)));
    let changed = Answer { signer: other.public().into(), receipt: signed.clone() };
    assert_eq!(receipts.take(changed, 5), Err(Fault::Signer));
    let mixed = Answer { signer: signer().public().into(), receipt: signed };
    assert_eq!(receipts.take(mixed, 5), Err(Fault::NotSigned(NotSigned::Signer)));
}

#[test]
fn the_configurations_key_outweighs_the_stored_one_and_nonsense_is_no_key() {
    let stored = Verified {
        node: "exit.conf".into(),
        pinned: Pinned { signer: "old".into(), origin: Origin::FirstUse },
        receipt: receipt(1, 1),
        at: 0,
    };
    let receipts = Receipts::new(OWN, Some(signer().public()), Some(stored.clone()));
    assert_eq!(receipts.pinned().map(|it| it.origin), Some(Origin::Configuration));
    let receipts = Receipts::new(OWN, Some("nonsense"), Some(stored));
    assert_eq!(receipts.pinned().map(|it| it.signer.as_str()), Some("old"));
}

#[test]
fn anothers_receipt_and_one_that_was_changed_are_refused() {
    let other = Receipt { public_key: signer().public().into(), ..receipt(2, 600) };
    assert_eq!(after_one().take(answer(other), 2000), Err(Fault::Key));
    let mut changed = answer(receipt(2, 600));
    if let Some(receipt) = &mut changed.receipt {
        receipt.bytes_up -= 1;
    }
    let refused = Err(Fault::NotSigned(NotSigned::Signature));
    assert_eq!(after_one().take(changed, 2000), refused);
}

#[test]
fn nothing_ever_falls_and_no_number_is_used_twice() {
    let fell = |what, before, now| Err(Fault::Fell { what, before, now });
    assert_eq!(after_one().take(answer(receipt(0, 600)), 2000), fell("sequence", 1, 0));
    assert_eq!(after_one().take(answer(receipt(2, 400)), 2000), fell("bytes_up", 500, 400));
    let twice = Receipt { seconds: 70, ..receipt(1, 500) };
    assert_eq!(after_one().take(answer(twice), 2000), Err(Fault::Rewritten(1)));
}

#[test]
fn the_sum_is_at_most_the_bill_and_at_least_what_was_billed_before() {
    let above = Err(Fault::AboveBill { receipt: 1200, billed: 1199 });
    assert_eq!(after_one().take(answer(receipt(2, 600)), 1199), above);
    assert!(after_one().take(answer(receipt(2, 600)), 1200).is_ok());
    // It takes its time, but it does not forget what was billed long before.
    let mut receipts = after_one();
    for billed in [4000, 5000, 6000] {
        assert_eq!(receipts.take(answer(receipt(1, 500)), billed), Ok(None));
    }
    let below = Err(Fault::BelowBill { receipt: 3998, billed: 4000 });
    assert_eq!(receipts.clone().take(answer(receipt(2, 1999)), 7000), below);
    assert!(receipts.take(answer(receipt(2, 2000)), 7000).is_ok());
}

#[test]
fn a_new_session_is_possible_between_connections_and_not_within_one() {
    let next = Receipt { session: "00".into(), ..receipt(1, 10) };
    let fault = after_one().take(answer(next.clone()), 2000).expect_err("the session changed");
    assert!(matches!(fault, Fault::Session { .. }), "{fault}");
    let before = |receipt| {
        let pinned = Pinned { signer: signer().public().into(), origin: Origin::FirstUse };
        Some(Verified { node: String::new(), pinned, receipt, at: 0 })
    };
    let mut receipts = Receipts::new(OWN, None, before(receipt(9, 9000)));
    assert!(receipts.clone().take(answer(next), 2000).is_ok());
    let fell = receipts.take(answer(receipt(8, 8000)), 90_000).expect_err("the same session");
    assert!(matches!(fell, Fault::Fell { .. }), "{fell}");
}
