use proptest::prelude::*;

use super::*;
use crate::{
    Lock, LockKey, Outputs, Rules,
    testing::{FakeMint, key},
    verify, wallet_token,
};

const URL: &str = "http://127.0.0.1:3338";

/// The proofs of a purse with these values, one each of its powers of two.
fn purse(mint: &FakeMint, amounts: &[u64]) -> Vec<Held> {
    let of = |amount: &u64| WalletToken::parse(&mint.open_token(*amount)).expect("a token");
    let proofs = amounts.iter().flat_map(|it| of(it).proofs(&mint.known()).expect("proofs"));
    proofs.collect()
}

fn texts<'a>(proofs: &'a [Held], chosen: &[usize]) -> Vec<&'a str> {
    chosen.iter().map(|place| proofs[*place].json.as_str()).collect()
}

fn sum(proofs: &[(u64, String)]) -> u64 {
    proofs.iter().map(|(value, _)| value).sum()
}

#[test]
fn a_token_is_read_and_its_proofs_are_exchanged_for_an_exact_locked_amount_and_change() {
    for (fee_ppk, fee) in [(0, 0), (100, 1), (1000, 6)] {
        let mut mint = FakeMint::new(URL, 7, fee_ppk);
        let (known, node) = (mint.known(), key(5));
        let token = WalletToken::parse(&mint.open_token(1000)).expect("a token");
        assert_eq!((token.amount, token.unit.as_str()), (1000, "sat"));
        let proofs = token.proofs(&known).expect("proofs");
        assert_eq!(proofs.len(), 6);
        let all: Vec<_> = (0..6).collect();
        let payer = LockKey::random();
        let lock = payer.lock_with_refund(&node.public(), 4_000_000_000);
        let outputs =
            Outputs::exact(&known, texts(&proofs, &all), 300, Some(&lock)).expect("prepared");
        let outputs = Outputs::from_json(&outputs.to_json().expect("JSON")).expect("the same");
        let request = outputs.open_swap_request(texts(&proofs, &all)).expect("a request");
        assert!(!String::from_utf8_lossy(&request).contains("dleq"), "it would link swaps");
        let answer = mint.swap(&request).expect("exchanged");
        let made = outputs.open(&known, &answer).expect("opened");
        let (paid, change): (Vec<_>, Vec<_>) =
            made.into_iter().zip(outputs.are_paid()).partition(|(_, paid)| *paid);
        let strip = |all: Vec<((u64, String), bool)>| all.into_iter().map(|it| it.0).collect();
        let (paid, change): (Vec<_>, Vec<_>) = (strip(paid), strip(change));
        assert_eq!((sum(&paid), sum(&change)), (300, 700 - fee));

        let text = wallet_token(URL, "sat", paid.iter().map(|it| it.1.as_str())).expect("a token");
        let rules = Rules { lock: &node, locked_until: 3_999_999_999 };
        let taken = verify(&text, |_| Some(&known), &rules).expect("the node takes it");
        assert_eq!(taken.proofs.iter().map(|proof| proof.amount).sum::<u64>(), 300);
        assert_eq!(WalletToken::parse(&text).expect_err("locked"), TokenError::Locked);
        let outsider = Rules { lock: &key(6), locked_until: 0 };
        assert!(verify(&text, |_| Some(&known), &outsider).is_err(), "only that node");
    }
}

#[test]
fn what_the_proofs_do_not_cover_and_a_key_that_is_none_are_refused() {
    let mint = FakeMint::new(URL, 7, 1000);
    let (known, proofs) = (mint.known(), purse(&mint, &[7]));
    let exact = |amount, lock: Option<&Lock>| {
        Outputs::exact(&known, texts(&proofs, &[0, 1, 2]), amount, lock)
    };
    assert!(exact(4, None).is_ok());
    assert!(matches!(exact(5, None), Err(SwapError::NotEnough(3))));
    let lock = Lock { key: "abc".into(), refund: None };
    assert!(matches!(exact(2, Some(&lock)), Err(SwapError::NotAKey(_))));
    assert_eq!(choose(&known, &proofs, 5), None);
}

#[test]
fn the_amount_covers_the_fee_for_its_redemption() {
    for (fee_ppk, worth, amount) in [(0, 100, 100), (100, 100, 101), (1000, 100, 104)] {
        let known = FakeMint::new(URL, 7, fee_ppk).known();
        assert_eq!(known.amount_worth(worth).expect("known"), amount, "{fee_ppk}");
    }
    assert!(Keysets::new("sat").amount_worth(1).is_err());
}

#[test]
fn rubbish_and_several_proofs_of_one_secret_are_refused() {
    for text in ["", "cashu", "cashuA", "cashuBo2F0gaJ", "voucher"] {
        assert_eq!(WalletToken::parse(text).expect_err("refused"), TokenError::Unreadable);
    }
    let long = format!("cashuB{}", "a".repeat(MAX_TOKEN));
    assert_eq!(WalletToken::parse(&long).expect_err("refused"), TokenError::TooLong);
    let mint = FakeMint::new(URL, 7, 0);
    let token = WalletToken::parse(&mint.open_token(5)).expect("a token");
    let other = FakeMint::new(URL, 8, 0).known();
    assert_eq!(token.proofs(&other).expect_err("refused"), TokenError::UnknownKeyset);
    let again = WalletToken::parse(&format!(" cashu:{}\n", token.token)).expect("a link");
    assert_eq!((again.hash(), again.hash().len()), (token.hash(), 64));
    let mut twice = token.token.proofs(&mint.known().infos()).expect("proofs");
    twice.push(twice[0].clone());
    let twice = mint.token_of(twice).to_string();
    let refused = WalletToken::parse(&twice).and_then(|token| token.proofs(&mint.known()));
    assert_eq!(refused.expect_err("refused"), TokenError::Duplicate);
}

#[test]
fn a_full_purse_sheds_small_proofs_with_a_payment() {
    let mint = FakeMint::new(URL, 7, 100);
    let proofs = purse(&mint, &[1; 60]);
    let chosen = choose(&mint.known(), &proofs, 3).expect("enough");
    assert_eq!(chosen.len(), 4 + MAX_SMALL);
    let dear = FakeMint::new(URL, 7, 1000);
    assert_eq!(choose(&dear.known(), &purse(&dear, &[1; 60]), 1), None, "each costs itself");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_chosen_covers_amount_and_fee_and_nothing_of_it_is_superfluous(
        amounts in prop::collection::vec(1u64..500, 1..8),
        share in 1u64..100,
        fee_ppk in 0u64..400,
    ) {
        let mint = FakeMint::new(URL, 7, fee_ppk);
        let (known, proofs) = (mint.known(), purse(&mint, &amounts));
        let total: u64 = amounts.iter().sum();
        let amount = (total * share / 100).max(1);
        let fee = |chosen: &[usize]| (chosen.len() as u64 * fee_ppk).div_ceil(1000);
        let value = |chosen: &[usize]| chosen.iter().map(|it| proofs[*it].amount).sum::<u64>();
        match choose(&known, &proofs, amount) {
            None => prop_assert!(total < amount + (proofs.len() as u64 * fee_ppk).div_ceil(1000)),
            Some(chosen) => {
                prop_assert!(value(&chosen) >= amount + fee(&chosen));
                let made = Outputs::exact(&known, texts(&proofs, &chosen), amount, None);
                prop_assert!(made.is_ok());
            }
        }
    }

    #[test]
    fn no_text_makes_it_panic(text in "cashu[AB:][A-Za-z0-9_-]{0,200}") {
        prop_assert!(WalletToken::parse(&text).is_err());
    }
}
