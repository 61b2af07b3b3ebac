use proptest::prelude::*;

use super::*;
use crate::testing::{FakeMint, key, locked};

const MONTH: u64 = 30 * 86_400;
const NOW: u64 = 1_800_000_000;

fn mint() -> FakeMint {
    FakeMint::new("http://127.0.0.1:3338", 7, 0)
}

fn judge(mint: &FakeMint, text: &str) -> Result<Verified, Refusal> {
    let (lock, known) = (key(5), mint.known());
    let rules = Rules { lock: &lock, locked_until: NOW + MONTH };
    verify(text, |url| (url == mint.url).then_some(&known), &rules)
}

/// The word of the refusal of a token whose secret has these tags and is locked to `lock`.
fn refused(lock: &str, tags: &str) -> &'static str {
    let mint = mint();
    let proofs = mint.proofs(&[(4, locked(lock, tags))]);
    judge(&mint, &mint.token_of(proofs).to_string()).expect_err("refused").word()
}

#[test]
fn a_token_that_is_locked_to_the_node_is_worth_its_amount() {
    let mint = mint();
    let token = mint.token(1234, &key(5).public());
    let verified = judge(&mint, &token).expect("good");
    assert_eq!((verified.worth, verified.proofs.len()), (1234, 5));
    assert_eq!(verified.mint, mint.url);
    // The same token in the older format, and with the proofs in another order.
    let read: Token = token.parse().expect("a token");
    let older = judge(&mint, &read.to_v3_string()).expect("good");
    assert_eq!(older.hash, verified.hash);
    let mut proofs = read.proofs(&mint.known().infos()).expect("proofs");
    proofs.reverse();
    let other = judge(&mint, &mint.token_of(proofs).to_string()).expect("good");
    assert_eq!((other.hash, other.worth), (verified.hash, 1234));
}

#[test]
fn the_mints_fee_is_the_payers() {
    let mint = FakeMint::new("https://mint.example", 7, 100);
    let lock = key(5).public();
    assert_eq!(judge(&mint, &mint.token(1023, &lock)).expect("good").worth, 1022);
    assert_eq!(judge(&mint, &mint.token(1, &lock)).expect_err("refused"), Refusal::TooSmall);
}

#[test]
fn each_fault_of_a_lock_is_named() {
    let ours = key(5).public();
    assert_eq!(refused(&key(6).public(), "[]"), "wrong_lock");
    let other = key(6).public();
    assert_eq!(refused(&ours, &format!(r#"[["pubkeys","{other}"]]"#)), "wrong_lock");
    assert_eq!(refused(&ours, r#"[["n_sigs","2"]]"#), "bad_condition");
    assert_eq!(refused(&ours, r#"[["sigflag","SIG_ALL"]]"#), "bad_condition");
    assert_eq!(refused(&ours, r#"[["anything","1"]]"#), "bad_condition");
    assert_eq!(refused(&ours, r#"[[]]"#), "bad_condition");
    let twice = format!(r#"[["locktime","{}"],["locktime","1"]]"#, NOW + 2 * MONTH);
    assert_eq!(refused(&ours, &twice), "bad_condition");
    assert_eq!(refused("02", "[]"), "bad_condition");
    // Taken back soon, or by anybody.
    let soon = NOW + MONTH - 1;
    let refund = format!(r#"[["locktime","{soon}"],["refund","{other}"]]"#);
    assert_eq!(refused(&ours, &refund), "refund_too_early");
    assert_eq!(refused(&ours, &format!(r#"[["locktime","{soon}"]]"#)), "refund_too_early");
    let mint = mint();
    let word = |secret: &str| {
        let proofs = mint.proofs(&[(4, secret.to_owned())]);
        judge(&mint, &mint.token_of(proofs).to_string()).expect_err("refused").word()
    };
    assert_eq!(word("0123456789abcdef"), "not_locked");
    let htlc = locked(&ours, "[]").replace("P2PK", "HTLC");
    assert_eq!(word(&htlc), "bad_condition");
    let double = locked(&other, "[]").replace("\"tags\"", &format!("\"data\":\"{ours}\",\"tags\""));
    assert_eq!(word(&double), "bad_condition", "one reader takes the first, another the last");
    // What wallets do write.
    let late = format!(
        r#"[["sigflag","SIG_INPUTS"],["n_sigs","1"],["locktime","{}"],["refund","{other}"]]"#,
        NOW + MONTH
    );
    for secret in [locked(&ours, &late), locked(&ours, "[]").replace(",\"tags\":[]", "")] {
        let proofs = mint.proofs(&[(4, secret)]);
        assert_eq!(judge(&mint, &mint.token_of(proofs).to_string()).expect("good").worth, 4);
    }
}

#[test]
fn each_fault_of_a_proof_is_named() {
    let (mint, lock) = (mint(), key(5).public());
    let fresh = || mint.proofs(&[(4, locked(&lock, "[]")), (8, locked(&lock, "[]"))]);
    let word = |proofs: Vec<Proof>| {
        judge(&mint, &mint.token_of(proofs).to_string()).expect_err("refused").word()
    };
    let mut proofs = fresh();
    proofs[1].dleq = None;
    assert_eq!(word(proofs), "no_dleq");
    let mut proofs = fresh();
    proofs[1].dleq = proofs[0].dleq.clone();
    assert_eq!(word(proofs), "bad_dleq");
    let mut proofs = fresh();
    proofs[0].amount = cashu::Amount::from(8);
    assert_eq!(word(proofs), "bad_dleq", "a value that another key signs");
    let mut proofs = fresh();
    proofs[0].amount = cashu::Amount::from(3);
    assert_eq!(word(proofs), "wrong_amount");
    let mut proofs = fresh();
    proofs[0].secret = cashu::secret::Secret::new(locked(&lock, "[]"));
    assert_eq!(word(proofs), "bad_dleq");
    let proofs = fresh();
    assert_eq!(word(vec![proofs[0].clone(), proofs[0].clone()]), "duplicate_proof");
    assert_eq!(
        word(mint.proofs(&vec![(1, locked(&lock, "[]")); MAX_PROOFS + 1])),
        "token_too_long"
    );

    // Another mint's keys under this mint's name, and another name.
    let mut forger = FakeMint::new("http://other", 9, 0);
    forger.url.clone_from(&mint.url);
    let forged = judge(&mint, &forger.token(4, &lock)).expect_err("refused");
    assert_eq!(forged, Refusal::UnknownKeyset);
    let other = FakeMint::new("http://other", 9, 0);
    assert_eq!(judge(&mint, &other.token(4, &lock)).expect_err("refused"), Refusal::WrongMint);
}

#[test]
fn a_keyset_that_was_retired_is_refused_and_its_name_is_checked() {
    let (mut mint, lock) = (mint(), key(5));
    let token = mint.token(4, &lock.public());
    let mut known = mint.known();
    let rules = Rules { lock: &lock, locked_until: NOW };
    // The mint has another keyset now.
    let next = FakeMint::new(&mint.url, 8, 0);
    known.update(&next.keysets()).expect("good");
    let retired = verify(&token, |_| Some(&known), &rules).expect_err("refused");
    assert_eq!(retired, Refusal::InactiveKeyset);
    let id = |mint: &FakeMint| mint.known().stored().expect("JSON")[0].0.clone();
    let other = FakeMint::new(&next.url, 9, 0);
    let keys = String::from_utf8(other.keys()).expect("text");
    let renamed = keys.replace(&id(&other), &id(&next));
    assert_ne!(renamed, keys);
    let wrong = known.add_keys(renamed.as_bytes()).expect_err("refused");
    assert!(matches!(wrong, crate::KeysetsError::WrongId(_)), "{wrong}");
    let stored: Vec<_> = mint.known().stored().expect("JSON");
    let restored = Keysets::restore("sat", stored.iter().map(|(_, json)| json.as_str()));
    assert!(restored.is_ready() && restored == mint.known(), "as it was stored");
    mint.active = false;
    let none = known.update(&mint.keysets()).expect_err("refused");
    assert!(matches!(none, crate::KeysetsError::NoneActive(_)), "{none}");
}

#[test]
fn rubbish_is_refused() {
    let mint = mint();
    for text in ["", "cashu", "cashuA", "cashuB", "cashuC00", "cashuBo2F0gaJ", "voucher"] {
        assert_eq!(judge(&mint, text).expect_err("refused"), Refusal::Unreadable, "{text}");
    }
    let long = format!("cashuB{}", "a".repeat(MAX_TOKEN));
    assert_eq!(judge(&mint, &long).expect_err("refused"), Refusal::TooLong);
    let lock = key(5).public();
    let euro = Token::new(
        cashu::MintUrl::from_str(&mint.url).expect("it"),
        mint.proofs(&[(4, locked(&lock, "[]"))]),
        None,
        cashu::CurrencyUnit::Eur,
    );
    assert_eq!(judge(&mint, &euro.to_string()).expect_err("refused").word(), "wrong_unit");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_altered_token_is_taken_for_more(place in 0usize..4000, bit in 0u8..6) {
        let mint = FakeMint::new("http://m", 7, 0);
        let token = mint.token(21, &key(5).public());
        let good = judge(&mint, &token).expect("good");
        let mut altered = token.into_bytes();
        let place = place % altered.len();
        altered[place] ^= 1 << bit;
        if let Ok(text) = String::from_utf8(altered) && let Ok(taken) = judge(&mint, &text) {
            // A memo or an unused bit at the end: the same proofs.
            prop_assert_eq!((taken.hash, taken.worth), (good.hash, good.worth));
        }
    }

    #[test]
    fn no_text_makes_it_panic(text in "cashu[AB][A-Za-z0-9_-]{0,200}") {
        prop_assert!(judge(&mint(), &text).is_err());
    }
}
