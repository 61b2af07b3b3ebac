use std::{collections::HashMap, path::Path};

use proptest::prelude::*;

use super::*;
use crate::{Credit, Ledger, SessionId, Usage};
use crate::{credit::Extra, testing::like};

const MINT: &str = "http://mint.example";

fn token(number: u8, amounts: &[u64]) -> NewToken {
    let proof = |(place, amount): (usize, &u64)| NewProof {
        y: [number.wrapping_mul(16).wrapping_add(place as u8); 33],
        amount: *amount,
        proof: format!("{number}/{place}"),
    };
    NewToken {
        hash: [number; 32],
        mint: MINT.into(),
        unit: "sat".into(),
        bytes: amounts.iter().sum::<u64>() * 1000,
        proofs: amounts.iter().enumerate().map(proof).collect(),
    }
}

fn ledger(folder: &Path, sessions: u32) -> (Ledger, Vec<SessionId>) {
    let mut ledger = Ledger::open(&folder.join("ledger.db")).expect("opened");
    ledger.in_no_hurry();
    let credit = Credit { bytes: Some(0), seconds: None };
    let mut ids = Vec::new();
    for slot in 0..sessions {
        let session = like(slot);
        ledger.insert(&session, &Extra { credit, ..Extra::default() }).expect("inserted");
        ids.push(session.id);
    }
    (ledger, ids)
}

fn take(ledger: &mut Ledger, id: SessionId, token: &NewToken, accept: Accept) -> Taken {
    ledger.take_token(id, token, &Usage::default(), accept).expect("asked")
}

fn credit_of(ledger: &Ledger, id: SessionId) -> u64 {
    ledger.extras().expect("read")[&id].credit.bytes.expect("limited")
}

fn points(proofs: &[HeldProof]) -> Vec<[u8; 33]> {
    proofs.iter().map(|proof| proof.y).collect()
}

fn totals(ledger: &Ledger) -> MintTotals {
    ledger.mint_totals().expect("read").pop().unwrap_or_default()
}

/// What holds at every moment, whatever was done and wherever it stopped.
fn check(ledger: &Ledger) {
    let sum = |sql: &str| -> u64 {
        let sum: i64 = ledger.db.query_row(sql, [], |row| row.get(0)).expect("summed");
        sum.unsigned_abs()
    };
    let mint = totals(ledger);
    let parts = mint.unredeemed + mint.redeemed + mint.fees + mint.lost;
    assert_eq!(mint.received, parts, "no unit more or less than came: {mint:?}");
    let held = "SELECT coalesce(sum(amount), 0) FROM ecash_proofs WHERE proof IS NOT NULL";
    assert_eq!(mint.unredeemed, sum(held));
    let purse = sum("SELECT coalesce(sum(amount), 0) FROM ecash_purse");
    assert_eq!(mint.redeemed, purse + mint.withdrawn);
    let credited = "SELECT coalesce(sum(bytes), 0) FROM ecash_tokens WHERE credited IS NOT NULL";
    let paid = "SELECT coalesce(sum(bytes), 0) FROM payments WHERE reference LIKE 'cashu:%'";
    assert_eq!(sum(credited), sum(paid), "each token is credited once");
    let without = "SELECT count(*) FROM ecash_proofs WHERE swap IS NOT NULL
         AND swap NOT IN (SELECT number FROM ecash_swaps)";
    assert_eq!(sum(without), 0);
}

#[test]
fn a_token_is_credited_once_whoever_gives_it_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut ledger, ids) = ledger(folder.path(), 2);
    let one = token(1, &[1, 4]);
    assert!(matches!(take(&mut ledger, ids[0], &one, Accept::UpTo(10)), Taken::Credited(_)));
    assert_eq!(take(&mut ledger, ids[0], &one, Accept::UpTo(10)), Taken::Before);
    assert_eq!(take(&mut ledger, ids[1], &one, Accept::UpTo(10)), Taken::Spent);
    // A proof of it in another token, even beside one that is good.
    let mut mixed = token(2, &[2]);
    mixed.proofs.push(one.proofs[1].clone());
    assert_eq!(take(&mut ledger, ids[0], &mixed, Accept::UpTo(10)), Taken::Spent);
    assert_eq!(take(&mut ledger, ids[1], &token(3, &[8]), Accept::UpTo(10)), Taken::OverLimit);
    assert_eq!(take(&mut ledger, ids[1], &token(3, &[4]), Accept::UpTo(9)), {
        Taken::Credited(Credit { bytes: Some(4000), seconds: None })
    });
    assert_eq!((credit_of(&ledger, ids[0]), totals(&ledger).unredeemed), (5000, 9));
    check(&ledger);
    // Who paid with it is forgotten with the session; that it was spent is not.
    ledger.end(ids[0], &Usage::default(), "removed").expect("ended");
    assert_eq!(take(&mut ledger, ids[1], &one, Accept::UpTo(99)), Taken::Spent);
    assert_eq!(take(&mut ledger, ids[0], &one, Accept::UpTo(99)), Taken::NoSession);
    drop(ledger);
    let scrubbed = crate::scrub::scrub(&folder.path().join("ledger.db"), || true).expect("read");
    assert_eq!(scrubbed, crate::scrub::Scrubbed::Sound);
}

#[test]
fn a_swap_moves_the_value_into_the_purse_and_a_withdrawal_stays_until_it_is_confirmed() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut ledger, ids) = ledger(folder.path(), 1);
    take(&mut ledger, ids[0], &token(1, &[1, 4]), Accept::UpTo(100));
    take(&mut ledger, ids[0], &token(2, &[16]), Accept::UpTo(100));
    let held = ledger.held_proofs(MINT, 64).expect("read");
    assert_eq!(held.iter().map(|proof| proof.amount).sum::<u64>(), 21);
    let swap = ledger.begin_swap(MINT, &points(&held), "outputs").expect("written").expect("free");
    assert_eq!(ledger.begin_swap(MINT, &points(&held), "x").expect("asked"), None, "in one swap");
    assert!(ledger.held_proofs(MINT, 64).expect("read").is_empty());
    let open = ledger.open_swaps(MINT, 8).expect("read");
    assert_eq!((open.len(), open[0].number, open[0].inputs.len()), (1, swap, 3));
    assert_eq!(totals(&ledger).unredeemed, 21);
    let outputs = [(16, "a".to_owned()), (4, "b".to_owned())];
    assert!(ledger.finish_swap(swap, &outputs).expect("written"));
    assert!(!ledger.finish_swap(swap, &outputs).expect("asked"), "once");
    check(&ledger);
    let mint = totals(&ledger);
    assert_eq!((mint.unredeemed, mint.redeemed, mint.fees), (0, 20, 1));
    assert_eq!(ledger.count("ecash_swaps"), 0);

    let purse = ledger.purse(MINT, 10).expect("read");
    let numbers: Vec<_> = purse.iter().map(|(number, ..)| *number).collect();
    let out = ledger.withdraw(MINT, &numbers, 20, "cashuB").expect("written");
    check(&ledger);
    assert_eq!(ledger.withdrawals().expect("read"), std::slice::from_ref(&out));
    assert!(ledger.confirm_withdrawal(out.number).expect("written"));
    assert!(!ledger.confirm_withdrawal(out.number).expect("asked"));
    assert!(ledger.withdrawals().expect("read").is_empty());
}

#[test]
fn what_the_mint_refuses_is_tried_again_alone_and_what_was_spent_elsewhere_is_lost() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut ledger, ids) = ledger(folder.path(), 1);
    take(&mut ledger, ids[0], &token(1, &[1, 4]), Accept::UpTo(100));
    take(&mut ledger, ids[0], &token(2, &[16]), Accept::UpTo(100));
    let held = points(&ledger.held_proofs(MINT, 64).expect("read"));
    let swap = ledger.begin_swap(MINT, &held, "outputs").expect("written").expect("free");
    assert_eq!(ledger.abandon_swap(swap, &[held[1]]).expect("written"), 4);
    check(&ledger);
    let left = ledger.held_proofs(MINT, 64).expect("read");
    assert_eq!((left.len(), left.iter().all(|proof| proof.alone)), (2, true));
    let mint = totals(&ledger);
    assert_eq!((mint.unredeemed, mint.lost), (17, 4));
    assert_eq!(ledger.abandon_swap(swap, &[held[0]]).expect("asked"), 0, "it is over");
}

#[test]
fn a_token_that_is_exchanged_first_is_credited_after_that_and_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut ledger, ids) = ledger(folder.path(), 2);
    let one = token(1, &[8]);
    let Taken::Held(number) = take(&mut ledger, ids[0], &one, Accept::AfterSwap) else {
        panic!("it is held")
    };
    assert_eq!(take(&mut ledger, ids[0], &one, Accept::AfterSwap), Taken::HeldBefore);
    assert_eq!(take(&mut ledger, ids[1], &one, Accept::UpTo(100)), Taken::Spent);
    assert!(ledger.uncredited(MINT).expect("read").is_empty(), "not yet exchanged");
    let held = points(&ledger.held_proofs_of(number).expect("read"));
    let swap = ledger.begin_swap(MINT, &held, "outputs").expect("written").expect("free");
    assert!(ledger.finish_swap(swap, &[(8, "a".into())]).expect("written"));
    let due = ledger.uncredited(MINT).expect("read");
    assert_eq!(due, [Uncredited { token: number, session: Some(ids[0]) }]);
    let credit = |ledger: &mut Ledger| {
        ledger.credit_token(number, Some(ids[0]), &Usage::default()).expect("written")
    };
    assert!(credit(&mut ledger).is_some() && credit(&mut ledger).is_none());
    assert_eq!(credit_of(&ledger, ids[0]), 8000);
    check(&ledger);

    // The mint was not reached: the token is the session's again, and can be given again.
    let two = token(2, &[4]);
    let Taken::Held(number) = take(&mut ledger, ids[1], &two, Accept::AfterSwap) else {
        panic!("it is held")
    };
    let held = points(&ledger.held_proofs_of(number).expect("read"));
    let swap = ledger.begin_swap(MINT, &held, "outputs").expect("written").expect("free");
    ledger.return_token(number, swap).expect("written");
    check(&ledger);
    assert!(matches!(take(&mut ledger, ids[0], &two, Accept::UpTo(100)), Taken::Credited(_)));
    check(&ledger);
    // The number of tokens that wait for the mint is limited.
    let all = (3..=255u8).map(|number| {
        let one = NewToken {
            proofs: vec![NewProof { y: [0; 33], ..token(3, &[1]).proofs.remove(0) }],
            ..token(number, &[1])
        };
        let y = [[2, number], [1, 1]].concat();
        let mut one = one;
        one.proofs[0].y[..4].copy_from_slice(&y);
        take(&mut ledger, ids[1], &one, Accept::AfterSwap)
    });
    let held = all.filter(|taken| matches!(taken, Taken::Held(_))).count();
    assert_eq!(held as u64, MAX_HELD);
}

/// What is done to a ledger, in any order.
#[derive(Clone, Debug)]
enum Step {
    Take { session: usize, token: u8, first: bool },
    Begin { count: usize },
    Finish,
    Abandon { spent: bool },
    Credit,
    Withdraw,
    End { session: usize },
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..3usize, 1..14u8, any::<bool>())
            .prop_map(|(session, token, first)| Step::Take { session, token, first }),
        2 => (1..5usize).prop_map(|count| Step::Begin { count }),
        2 => Just(Step::Finish),
        1 => any::<bool>().prop_map(|spent| Step::Abandon { spent }),
        1 => Just(Step::Credit),
        1 => Just(Step::Withdraw),
        1 => (0..3usize).prop_map(|session| Step::End { session }),
        1 => Just(Step::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_order_of_steps_loses_a_unit_or_counts_it_twice(steps in proptest::collection::vec(step(), 1..60)) {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut ledger, ids) = ledger(folder.path(), 3);
        let mut taken: HashMap<u8, usize> = HashMap::new();
        for step in steps {
            match step {
                Step::Take { session, token: number, first } => {
                    let accept = if first { Accept::AfterSwap } else { Accept::UpTo(60) };
                    let one = token(number, &[1 << (number % 5), 3]);
                    let outcome = take(&mut ledger, ids[session], &one, accept);
                    if matches!(outcome, Taken::Credited(_) | Taken::Held(_)) {
                        prop_assert_eq!(taken.insert(number, session), None, "taken twice");
                    }
                }
                Step::Begin { count } => {
                    let held = ledger.held_proofs(MINT, count as u32).expect("read");
                    if !held.is_empty() {
                        ledger.begin_swap(MINT, &points(&held), "o").expect("written").expect("free");
                    }
                }
                Step::Finish => {
                    if let Some(swap) = ledger.open_swaps(MINT, 1).expect("read").pop() {
                        let sum = swap.inputs.iter().map(|input| input.amount).sum();
                        ledger.finish_swap(swap.number, &[(sum, "p".into())]).expect("written");
                    }
                }
                Step::Abandon { spent } => {
                    if let Some(swap) = ledger.open_swaps(MINT, 1).expect("read").pop() {
                        let lost = if spent { vec![swap.inputs[0].y] } else { Vec::new() };
                        ledger.abandon_swap(swap.number, &lost).expect("written");
                    }
                }
                Step::Credit => {
                    for due in ledger.uncredited(MINT).expect("read") {
                        ledger.credit_token(due.token, due.session, &Usage::default()).expect("written");
                    }
                }
                Step::Withdraw => {
                    let purse = ledger.purse(MINT, 2).expect("read");
                    let numbers: Vec<_> = purse.iter().map(|(number, ..)| *number).collect();
                    let sum = purse.iter().map(|(_, amount, _)| amount).sum();
                    if sum > 0 {
                        ledger.withdraw(MINT, &numbers, sum, "t").expect("written");
                    }
                }
                Step::End { session } => {
                    ledger.end(ids[session], &Usage::default(), "removed").expect("ended");
                }
                Step::Restart => {
                    drop(ledger);
                    ledger = Ledger::open(&folder.path().join("ledger.db")).expect("opened");
                    ledger.live().expect("read");
                    ledger.in_no_hurry();
                }
            }
            if ids.iter().all(|id| ledger.numbers.contains_key(id)) {
                check(&ledger);
            }
        }
        drop(ledger);
        let scrubbed = crate::scrub::scrub(&folder.path().join("ledger.db"), || true).expect("read");
        prop_assert_eq!(scrubbed, crate::scrub::Scrubbed::Sound);
    }
}
