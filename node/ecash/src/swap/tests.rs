use super::*;
use crate::{
    Rules,
    testing::{FakeMint, key},
    verify,
};

/// A mint, what is known of it, and the proofs of a token for us as JSON.
fn paid(amount: u64, fee_ppk: u64) -> (FakeMint, Keysets, Vec<String>, Vec<[u8; 33]>) {
    let mint = FakeMint::new("http://127.0.0.1:3338", 7, fee_ppk);
    let (known, lock) = (mint.known(), key(5));
    let rules = Rules { lock: &lock, locked_until: 0 };
    let token = mint.token(amount, &lock.public());
    let verified = verify(&token, |_| Some(&known), &rules).expect("good");
    let points = verified.proofs.iter().map(|proof| proof.y).collect();
    let proofs = verified.proofs.into_iter().map(|proof| proof.json).collect();
    (mint, known, proofs, points)
}

fn texts(proofs: &[String]) -> impl Iterator<Item = &str> {
    proofs.iter().map(String::as_str)
}

#[test]
fn proofs_are_exchanged_for_as_much_less_the_fee() {
    for (amount, fee_ppk, gets) in [(1000, 0, 1000), (1000, 100, 999), (7, 1000, 4)] {
        let (mut mint, known, proofs, points) = paid(amount, fee_ppk);
        let outputs = Outputs::new(&known, texts(&proofs)).expect("prepared");
        let stored = outputs.to_json().expect("JSON");
        let request = outputs.swap_request(texts(&proofs), &key(5)).expect("a request");
        let answer = mint.swap(&request).expect("exchanged");
        let got = outputs.open(&known, &answer).expect("opened");
        assert_eq!(got.iter().map(|(value, _)| value).sum::<u64>(), gets);
        let check = check_request(&points).expect("a request");
        let states = check_response(&points, &mint.check(&check)).expect("an answer");
        assert!(states.iter().all(|state| *state == SpentState::Spent), "{states:?}");
        assert!(mint.swap(&request).is_err(), "once");

        // The answer was lost: what was stored before is enough to ask for it again.
        let again = Outputs::from_json(&stored).expect("read");
        let restored = mint.restore(&again.restore_request().expect("a request"));
        let restored = again.open_restored(&known, &restored).expect("opened");
        let same =
            |proofs: &[(u64, String)]| proofs.iter().map(|it| it.1.clone()).collect::<Vec<_>>();
        assert_eq!(restored.map(|it| same(&it)), Some(same(&got)));
        let token = wallet_token(&mint.url, "sat", got.iter().map(|(_, json)| json.as_str()));
        let token: Token = token.expect("a token").parse().expect("a token");
        assert_eq!(token.value().expect("a sum").to_u64(), gets);
    }
}

#[test]
fn nothing_is_restored_of_a_swap_that_never_was() {
    let (mint, known, proofs, _) = paid(5, 0);
    let outputs = Outputs::new(&known, texts(&proofs)).expect("prepared");
    let answer = mint.restore(&outputs.restore_request().expect("a request"));
    assert_eq!(outputs.open_restored(&known, &answer).expect("opened"), None);
}

#[test]
fn another_keys_signature_does_not_spend_and_a_mint_cannot_sign_with_another_key() {
    let (mut mint, known, proofs, _) = paid(5, 0);
    let outputs = Outputs::new(&known, texts(&proofs)).expect("prepared");
    let wrong = outputs.swap_request(texts(&proofs), &key(6)).expect("a request");
    assert!(mint.swap(&wrong).is_err());
    let request = outputs.swap_request(texts(&proofs), &key(5)).expect("a request");
    let answer = String::from_utf8(mint.swap(&request).expect("exchanged")).expect("text");
    let other = Outputs::new(&known, texts(&proofs)).expect("prepared");
    assert!(matches!(other.open(&known, answer.as_bytes()), Err(SwapError::WrongSignatures(_))));
    for wrong in ["", "{}", "[]", r#"{"signatures":[]}"#] {
        assert!(outputs.open(&known, wrong.as_bytes()).is_err(), "{wrong}");
    }
}
