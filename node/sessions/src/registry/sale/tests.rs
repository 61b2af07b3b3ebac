use weir_ledger::{ecash::NewProof, vouchers::VoucherTerms};
use weir_wireguard::keys::PrivateKey;

use super::*;
use crate::registry::rig::{Rig, node_key};

const DAY: u64 = 86_400;

fn key() -> PublicKey {
    PrivateKey::random().public()
}

fn token(number: u8) -> NewToken {
    NewToken {
        hash: [number; 32],
        mint: "http://mint.example".into(),
        unit: "sat".into(),
        bytes: 5000,
        proofs: vec![NewProof { y: [number; 33], amount: 8, proof: "{}".into() }],
    }
}

fn sell(rig: &Rig, key: PublicKey, number: u8) -> Sale<Taken> {
    let sold = rig.sessions.sell_for_token(key, Some(DAY), &token(number), Accept::UpTo(100));
    sold.expect("asked")
}

#[test]
fn a_token_makes_an_open_session_once_and_the_same_order_again_finds_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let rig = Rig::start(folder.path(), 4);
    let (alice, bob) = (key(), key());
    let Sale::Sold(sold) = sell(&rig, alice, 1) else { panic!("not sold") };
    assert_eq!(sold.session.state, SessionState::Open);
    assert_eq!((sold.credit.bytes, sold.credit.seconds), (Some(5000), Some(DAY)));
    assert_eq!(rig.peers.take().len(), 1, "the packet path serves it");
    assert_eq!(sell(&rig, alice, 1), Sale::Before(sold.clone()));
    assert_eq!(sell(&rig, bob, 1), Sale::Spent);
    assert_eq!(rig.sessions.len(), 1);

    // A restarted node gives the same answer.
    drop(rig);
    let rig = Rig::start(folder.path(), 4);
    let Sale::Before(before) = sell(&rig, alice, 1) else { panic!("not found") };
    assert_eq!((before.session.id, before.credit), (sold.session.id, sold.credit));
    rig.traffic(before.session.slot, 5000);
    rig.sessions.enforce(std::time::Duration::MAX, std::time::Instant::now()).expect("done");
    let now = rig.sessions.get(&before.session.id.to_string()).expect("there");
    assert_eq!(now.session.state, SessionState::Paused, "it has used what it bought");
    rig.sessions.remove(&sold.session.id.to_string()).expect("removed");
    assert_eq!(sell(&rig, alice, 1), Sale::Spent);
}

#[test]
fn nothing_is_taken_where_there_is_no_session_for_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let rig = Rig::start(folder.path(), 1);
    let alice = key();
    assert!(matches!(sell(&rig, alice, 1), Sale::Sold(_)));
    let sell =
        |key, number: u8| rig.sessions.sell_for_token(key, None, &token(number), Accept::UpTo(100));
    assert!(matches!(sell(alice, 2), Err(SessionError::KeyTaken(_))));
    assert!(matches!(sell(key(), 2), Err(SessionError::Full(1))));
    assert!(matches!(sell(node_key(), 2), Err(SessionError::Key(_))));
    assert_eq!(rig.ledger.lock().token_giver([2; 32]).expect("read"), None);
    rig.sessions.remove(&rig.sessions.list()[0].session.id.to_string()).expect("removed");
    // Over the limit of its mint, and with a proof of the first one.
    let limited = rig.sessions.sell_for_token(key(), None, &token(2), Accept::UpTo(8));
    assert_eq!(limited.expect("asked"), Sale::Refused(Taken::OverLimit));
    let forged = NewToken { hash: [9; 32], ..token(1) };
    let spent = rig.sessions.sell_for_token(key(), None, &forged, Accept::UpTo(100));
    assert_eq!(spent.expect("asked"), Sale::Refused(Taken::Spent));
    rig.ledger.lock().refuse_changes(true);
    assert!(matches!(sell(key(), 3), Err(SessionError::Ledger(_))));
    rig.ledger.lock().refuse_changes(false);
    assert_eq!(rig.sessions.len(), 0);
    assert!(matches!(sell(key(), 3), Ok(Sale::Sold(_))), "the slot is free again");
}

#[test]
fn a_token_that_is_exchanged_first_opens_its_session_then() {
    let folder = tempfile::tempdir().expect("a folder");
    let rig = Rig::start(folder.path(), 4);
    let alice = key();
    let sell = || rig.sessions.sell_for_token(alice, Some(DAY), &token(1), Accept::AfterSwap);
    let Sale::Held(held, number) = sell().expect("asked") else { panic!("not held") };
    assert_eq!(held.session.state, SessionState::Paused);
    assert_eq!(held.credit.bytes, Some(0));
    assert_eq!(sell().expect("asked"), Sale::HeldBefore);
    rig.sessions.credit_token(number, Some(held.session.id)).expect("credited");
    let Sale::Before(open) = sell().expect("asked") else { panic!("not found") };
    assert_eq!(open.session.state, SessionState::Open);
    assert_eq!((open.credit.bytes, open.credit.seconds), (Some(5000), Some(DAY)));
}

#[test]
fn a_voucher_makes_a_session_with_its_own_terms() {
    let folder = tempfile::tempdir().expect("a folder");
    let rig = Rig::start(folder.path(), 4);
    for (number, bytes, seconds, expected) in [
        (1, 5000, 0, (Some(5000), Some(DAY))),
        (2, 0, 60, (None, Some(60))),
        (3, 5000, 60, (Some(5000), Some(60))),
    ] {
        let code = Code::new([number; 16]);
        let terms = VoucherTerms { batch: number.to_string(), bytes, seconds, expires: None };
        rig.ledger.lock().add_vouchers(&terms, &[code.hash()], 1).expect("added");
        let alice = key();
        let sell = |key| rig.sessions.sell_for_voucher(key, Some(DAY), &code).expect("asked");
        let Sale::Sold(sold) = sell(alice) else { panic!("not sold") };
        assert_eq!((sold.credit.bytes, sold.credit.seconds), expected);
        assert_eq!(sold.session.state, SessionState::Open);
        assert_eq!(sell(alice), Sale::Before(sold));
        assert_eq!(sell(key()), Sale::Spent);
    }
    let unknown = rig.sessions.sell_for_voucher(key(), None, &Code::new([9; 16]));
    assert_eq!(unknown.expect("asked"), Sale::Refused(VoucherUse::Unknown));
    assert_eq!(rig.sessions.len(), 3);
}
