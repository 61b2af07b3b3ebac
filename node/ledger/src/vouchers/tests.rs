use proptest::prelude::*;

use super::*;
use crate::{credit::Extra, testing::like};

const GIB: u64 = 1 << 30;

fn terms(batch: &str) -> VoucherTerms {
    VoucherTerms { batch: batch.into(), bytes: GIB, seconds: 0, expires: Some(1000) }
}

fn ledger(folder: &std::path::Path, sessions: u32) -> (Ledger, Vec<SessionId>) {
    let mut ledger = Ledger::open(&folder.join("ledger.db")).expect("opened");
    let credit = Credit { bytes: Some(0), seconds: None };
    let ids = (0..sessions).map(|slot| {
        let session = like(slot);
        ledger.insert(&session, &Extra { credit, ..Extra::default() }).expect("inserted");
        session.id
    });
    let ids = ids.collect();
    (ledger, ids)
}

fn credit(ledger: &Ledger, id: SessionId) -> Option<u64> {
    ledger.extras().expect("read")[&id].credit.bytes
}

#[test]
fn a_voucher_is_used_once_and_its_session_may_repeat_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut ledger, ids) = ledger(folder.path(), 2);
    let codes = [Code::new([1; 16]), Code::new([2; 16])];
    assert!(ledger.add_vouchers(&terms("shop"), &codes.map(|code| code.hash()), 5).expect("added"));
    let mut give = |who: usize, code: &Code, now| {
        ledger.use_voucher(ids[who], code, &Usage::default(), now).expect("asked")
    };
    let credited = give(0, &codes[0], 10);
    assert!(matches!(credited, VoucherUse::Credited { bytes: GIB, .. }), "{credited:?}");
    assert_eq!(give(0, &codes[0], 10), VoucherUse::Before);
    assert_eq!(give(1, &codes[0], 10), VoucherUse::Used);
    assert_eq!(give(1, &Code::new([3; 16]), 10), VoucherUse::Unknown);
    assert_eq!(give(1, &codes[1], 1001), VoucherUse::Expired);
    assert_eq!([credit(&ledger, ids[0]), credit(&ledger, ids[1])], [Some(GIB), Some(0)]);
    let [batch] = &ledger.voucher_batches(0, 10).expect("read")[..] else { panic!("one batch") };
    assert_eq!((batch.vouchers, batch.used, batch.revoked), (2, 1, None));

    // Once its session has ended, nothing tells who used it, and nobody can use it again.
    ledger.end(ids[0], &Usage::default(), "removed").expect("ended");
    let used = ledger.use_voucher(ids[1], &codes[0], &Usage::default(), 10).expect("asked");
    assert_eq!(used, VoucherUse::Used);
    drop(ledger);
    let scrubbed = crate::scrub::scrub(&folder.path().join("ledger.db"), || true).expect("read");
    assert_eq!(scrubbed, crate::scrub::Scrubbed::Sound);
}

#[test]
fn what_is_revoked_is_not_taken_and_a_batch_keeps_its_terms() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut ledger, ids) = ledger(folder.path(), 1);
    let codes: Vec<_> = (0..3).map(|bits| Code::new([bits; 16])).collect();
    let hashes: Vec<_> = codes.iter().map(Code::hash).collect();
    assert!(ledger.add_vouchers(&terms("a"), &hashes[..2], 5).expect("added"));
    assert!(ledger.add_vouchers(&terms("a"), &hashes[2..], 6).expect("added"), "more of it");
    let other = VoucherTerms { bytes: 1, ..terms("a") };
    assert!(!ledger.add_vouchers(&other, &[[9; 32]], 6).expect("asked"));
    assert!(ledger.revoke_voucher(&codes[0], 7).expect("revoked"));
    assert!(!ledger.revoke_voucher(&codes[0], 8).expect("asked"), "once");
    let give = |ledger: &mut Ledger, code| ledger.use_voucher(ids[0], code, &Usage::default(), 9);
    assert_eq!(give(&mut ledger, &codes[0]).expect("asked"), VoucherUse::Revoked);
    assert!(matches!(give(&mut ledger, &codes[1]), Ok(VoucherUse::Credited { .. })));
    assert!(ledger.revoke_voucher_batch("a", 9).expect("revoked"));
    assert!(!ledger.revoke_voucher_batch("b", 9).expect("asked"), "there is none");
    assert_eq!(give(&mut ledger, &codes[2]).expect("asked"), VoucherUse::Revoked);
    assert!(!ledger.add_vouchers(&terms("a"), &[[9; 32]], 6).expect("asked"), "it is over");
    assert_eq!(credit(&ledger, ids[0]), Some(GIB));
}

#[test]
fn a_code_is_read_as_people_type_it() {
    let code = Code::new(*b"0123456789abcdef");
    let text = code.to_string();
    assert_eq!(text.len(), LENGTH + 4, "{text}");
    for typed in
        [text.to_uppercase(), text.replace('-', " "), text.replace('-', ""), format!(" {text}\n")]
    {
        assert_eq!(Code::parse(&typed), Some(code), "{typed:?}");
    }
    assert_eq!(Code::parse(&text.replace('0', "O").replace('1', "l")), Some(code));
    for wrong in
        ["", "-", &text[1..], &format!("{text}0"), &"z".repeat(26), &"7".repeat(65), "cashuB"]
    {
        assert_eq!(Code::parse(wrong), None, "{wrong:?}");
    }
}

proptest! {
    #[test]
    fn every_code_is_printed_and_read(bits: [u8; 16]) {
        let code = Code::new(bits);
        prop_assert_eq!(Code::parse(&code.to_string()), Some(code));
    }

    #[test]
    fn no_text_is_too_strange(text in "\\PC*") {
        let read = Code::parse(&text);
        prop_assert!(read.is_none_or(|code| Code::parse(&code.to_string()) == Some(code)));
    }
}
