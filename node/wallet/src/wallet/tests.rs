use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use ::http::{HeaderMap, StatusCode};
use serde_json::Value;
use weir_ecash::{
    Rules, WalletToken,
    testing::{FakeMint, key},
    verify,
};

use super::*;
use crate::{Asked, SentState};

mod kill;

const URL: &str = "http://mint.example";

/// What happens to a request on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// It does not arrive.
    Unplugged,
    /// It arrives, and its answer does not.
    Deaf,
    /// It is carried out, and answered with an error of the server.
    Failing,
    /// It is refused for a moment: too many requests.
    Busy,
}

/// A mint behind a network.
struct TestMint {
    mint: Mutex<FakeMint>,
    /// The fault, and the number of the request from which on so many have it.
    fault: Mutex<Option<(Fault, usize, usize)>>,
    asked: AtomicUsize,
    fees: Mutex<u64>,
}

/// What a mint answers, and the fee that it kept.
fn answer(mint: &mut FakeMint, path: &str, json: &[u8]) -> (StatusCode, Vec<u8>, u64) {
    match path {
        "/v1/keysets" => (StatusCode::OK, mint.keysets(), 0),
        "/v1/restore" => (StatusCode::OK, mint.restore(json), 0),
        "/v1/checkstate" => (StatusCode::OK, mint.check(json), 0),
        "/v1/swap" => match mint.swap(json) {
            Ok(answer) => (StatusCode::OK, answer, fee(json)),
            Err(refused) => (StatusCode::BAD_REQUEST, refused.0.into_bytes(), 0),
        },
        _ => (StatusCode::OK, mint.keys(), 0),
    }
}

/// What the inputs of a swap are worth more than its outputs.
fn fee(swap: &[u8]) -> u64 {
    let swap: Value = serde_json::from_slice(swap).expect("JSON");
    let sum = |of: &str| {
        let all = swap[of].as_array().expect("a list").iter();
        all.map(|it| it["amount"].as_u64().expect("a number")).sum::<u64>()
    };
    sum("inputs") - sum("outputs")
}

impl TestMint {
    fn new(fee_ppk: u64) -> Arc<Self> {
        let mint = Mutex::new(FakeMint::new(URL, 7, fee_ppk));
        let (fault, asked, fees) = Default::default();
        Arc::new(Self { mint, fault, asked, fees })
    }

    fn fault(&self, fault: Fault, from: usize, count: usize) {
        self.asked.store(0, Relaxed);
        *self.fault.lock().expect("not poisoned") = Some((fault, from, count));
    }

    fn repair(&self) {
        *self.fault.lock().expect("not poisoned") = None;
    }

    fn token(&self, amount: u64) -> String {
        self.mint.lock().expect("not poisoned").open_token(amount)
    }

    fn fees(&self) -> u64 {
        *self.fees.lock().expect("not poisoned")
    }
}

impl Mints for TestMint {
    fn ask<'a>(&'a self, mint: &'a str, path: &'a str, json: Vec<u8>) -> Asked<'a> {
        Box::pin(async move {
            assert_eq!(mint, URL);
            let number = self.asked.fetch_add(1, Relaxed);
            let fault = *self.fault.lock().expect("not poisoned");
            let fault = fault.filter(|(_, from, count)| (*from..from + count).contains(&number));
            let fault = fault.map(|(fault, ..)| fault);
            let plain = |status, body: Vec<u8>| Answer {
                status,
                headers: HeaderMap::new(),
                body: body.into(),
            };
            match fault {
                Some(Fault::Unplugged) => return Err(NoAnswer::NotSent("unplugged".into())),
                Some(Fault::Busy) => {
                    return Ok(plain(StatusCode::TOO_MANY_REQUESTS, Vec::new()));
                }
                _ => {}
            }
            let mint = &mut *self.mint.lock().expect("not poisoned");
            let (status, body, fee) = answer(mint, path, &json);
            *self.fees.lock().expect("not poisoned") += fee;
            match fault {
                Some(Fault::Deaf) => Err(NoAnswer::Lost("cut".into())),
                Some(Fault::Failing) => Ok(plain(StatusCode::BAD_GATEWAY, Vec::new())),
                _ => Ok(plain(status, body)),
            }
        })
    }
}

/// A new wallet, and the mint.
fn wallet(fee_ppk: u64) -> (tempfile::TempDir, Arc<TestMint>, Wallet) {
    let directory = tempfile::tempdir().expect("a directory");
    let mint = TestMint::new(fee_ppk);
    let wallet = open(&directory, &mint);
    (directory, mint, wallet)
}

fn open(directory: &tempfile::TempDir, mint: &Arc<TestMint>) -> Wallet {
    let mints: Arc<dyn Mints> = Arc::clone(mint) as _;
    Wallet::with_mints(&directory.path().join("state"), mints).expect("opened")
}

/// Spendable, unfinished, unclaimed.
fn sums(wallet: &Wallet) -> (u64, u64, u64) {
    let all = wallet.balances().expect("read");
    assert!(all.len() <= 1, "{all:?}");
    all.first().map_or((0, 0, 0), |it| (it.balance, it.unfinished, it.unclaimed))
}

fn plain(amount: u64) -> Payment<'static> {
    let amount = Amount::Exactly(amount);
    Payment { mint: None, unit: "sat", amount, lock: None, note: "" }
}

#[tokio::test]
async fn a_token_is_received_once_and_only_of_a_mint_that_is_trusted() {
    let (_directory, mint, wallet) = wallet(100);
    let token = mint.token(1000);
    let refused = wallet.receive(&token, Trust::Known).await.expect_err("refused");
    assert!(matches!(refused, WalletError::UnknownMint(_)), "{refused}");
    assert!(refused.to_string().contains("weir wallet mints add http://mint.example"));
    let first = wallet.receive(&token, Trust::New).await.expect("received");
    assert_eq!((first.amount, first.fee, first.before), (999, 1, false));
    let again = wallet.receive(&token, Trust::Known).await.expect("received");
    assert_eq!((again.amount, again.before), (999, true));
    assert_eq!(sums(&wallet), (999, 0, 0));
    let (_directory, _, other) = self::wallet(0);
    let other = Wallet { mints: Arc::clone(&mint) as _, ..other };
    let spent = other.receive(&token, Trust::New).await.expect_err("refused");
    assert!(matches!(spent, WalletError::Spent), "{spent}");
    assert_eq!(sums(&other), (0, 0, 0));
    let rubbish = wallet.receive("cashuBrubbish", Trust::New).await.expect_err("refused");
    assert!(matches!(rubbish, WalletError::Token(_)), "{rubbish}");
}

#[tokio::test]
async fn a_payment_is_exact_locked_to_its_payee_and_verified_by_it_offline() {
    for fee_ppk in [0, 100, 1000] {
        let (_directory, mint, wallet) = wallet(fee_ppk);
        wallet.receive(&mint.token(1000), Trust::New).await.expect("received");
        let (before, fees) = (sums(&wallet).0, mint.fees());
        let node = key(5);
        let lock = node.public();
        let paid = wallet.pay(URL, "sat", Amount::Worth(100), &lock, "an exit").await;
        let paid = paid.expect("paid");
        let known = mint.mint.lock().expect("not poisoned").known();
        let month = unix_now() + 30 * 86_400;
        let rules = Rules { lock: &node, locked_until: month };
        let token = paid.token.expect("a token");
        let taken = verify(&token, |_| Some(&known), &rules).expect("taken");
        // With a fee of 1 for each proof, no amount is worth 100: 103 is five proofs, and 104 is three.
        let worth = if fee_ppk == 1000 { 101 } else { 100 };
        assert_eq!(taken.worth, worth, "after the fee of its redemption");
        let fee = mint.fees() - fees;
        assert_eq!(sums(&wallet), (before - paid.amount - fee, 0, paid.amount), "{fee_ppk}");
        let early = wallet.reclaim(paid.number).await.expect_err("too early");
        assert!(matches!(early, WalletError::RefundLater(..)), "{early}");
        // Each payment has another key for its refund.
        let other = wallet.pay(URL, "sat", Amount::Exactly(100), &lock, "an exit").await;
        let other = other.expect("paid").token.expect("a token");
        let refund = |token: &str| {
            let taken = verify(token, |_| Some(&known), &rules).expect("taken");
            let json = &taken.proofs[0].json;
            json.split("refund").nth(1).expect("a refund").get(..80).expect("a key").to_owned()
        };
        assert_ne!(refund(&token), refund(&other));
    }
}

#[tokio::test]
async fn a_locked_token_that_nobody_claimed_comes_back_when_its_time_is_over() {
    let (_directory, mint, wallet) = wallet(0);
    wallet.receive(&mint.token(100), Trust::New).await.expect("received");
    let lock = key(5).public();
    let payment = |refund| Payment { lock: Some((&lock, refund)), ..plain(30) };
    let never = wallet.send(&payment(Refund::Never)).await.expect("sent");
    let error = wallet.reclaim(never.number).await.expect_err("never");
    assert!(matches!(error, WalletError::NoRefund(_)), "{error}");
    let over = wallet.send(&payment(Refund::After(Duration::ZERO))).await.expect("sent");
    // The mint compares with its clock in whole seconds.
    let end = std::time::Instant::now() + Duration::from_secs(30);
    let taken = loop {
        match wallet.reclaim(over.number).await {
            Ok(taken) => break taken,
            Err(error) => assert!(std::time::Instant::now() < end, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(taken.amount, 30);
    assert_eq!(sums(&wallet), (70, 0, 30));
}

#[tokio::test]
async fn a_sent_token_is_listed_until_it_is_claimed_and_can_be_taken_back_until_then() {
    let (_directory, mint, wallet) = wallet(0);
    wallet.receive(&mint.token(100), Trust::New).await.expect("received");
    let first = wallet.send(&plain(40)).await.expect("sent");
    let second = wallet.send(&plain(5)).await.expect("sent");
    assert_eq!(sums(&wallet), (55, 0, 45));
    let token = first.token.expect("a token");
    let parsed = WalletToken::parse(&token).expect("a token");
    assert_eq!((parsed.amount, parsed.mint.as_str()), (40, URL));
    let (_directory2, _, other) = self::wallet(0);
    let other = Wallet { mints: Arc::clone(&mint) as _, ..other };
    other.receive(&token, Trust::New).await.expect("received");
    assert!(wallet.check_sent().await.expect("checked").is_empty());
    let sent = wallet.sent().expect("read");
    let states: Vec<_> = sent.iter().map(|it| (it.number, it.state, it.token.is_some())).collect();
    let expected =
        [(first.number, SentState::Claimed, false), (second.number, SentState::Unclaimed, true)];
    assert_eq!(states, expected);
    assert_eq!(sums(&wallet), (55, 0, 5));
    let error = wallet.reclaim(first.number).await.expect_err("claimed");
    assert!(matches!(error, WalletError::Claimed(_)), "{error}");
    assert_eq!(wallet.reclaim(second.number).await.expect("taken back").amount, 5);
    assert_eq!(sums(&wallet), (60, 0, 0));
    let error = wallet.reclaim(99).await.expect_err("none");
    assert!(matches!(error, WalletError::NoSuchToken(99)), "{error}");
}

#[tokio::test]
async fn what_was_claimed_meanwhile_is_not_taken_back_and_is_listed_as_claimed() {
    let (_directory, mint, wallet) = wallet(0);
    wallet.receive(&mint.token(64), Trust::New).await.expect("received");
    let sent = wallet.send(&plain(64)).await.expect("sent");
    let (_directory2, _, other) = self::wallet(0);
    let other = Wallet { mints: Arc::clone(&mint) as _, ..other };
    let token = sent.token.expect("a token");
    assert_eq!(other.receive(&token, Trust::New).await.expect("received").amount, 64);
    let error = wallet.reclaim(sent.number).await.expect_err("claimed");
    assert!(matches!(error, WalletError::Claimed(_)), "{error}");
    assert_eq!(wallet.sent().expect("read")[0].state, SentState::Claimed);
    assert_eq!(sums(&wallet), (0, 0, 0));
}

#[tokio::test]
async fn a_sum_that_is_there_is_sent_without_the_mint() {
    let (_directory, mint, wallet) = wallet(100);
    wallet.receive(&mint.token(103), Trust::New).await.expect("received");
    mint.fault(Fault::Unplugged, 0, usize::MAX / 2);
    // 102 is 64, 32, 4 and 2.
    assert_eq!(wallet.send(&plain(36)).await.expect("sent").amount, 36);
    let error = wallet.send(&plain(3)).await.expect_err("unplugged");
    assert!(matches!(error, WalletError::Unreachable { .. }), "{error}");
    assert_eq!(sums(&wallet), (66, 0, 36));
    mint.repair();
    assert_eq!(wallet.send(&plain(3)).await.expect("sent").amount, 3);
    let error = wallet.send(&plain(1000)).await.expect_err("too much");
    assert!(matches!(error, WalletError::NotEnough { have: 62, need: 1000, .. }), "{error}");
}

#[tokio::test]
async fn a_copy_of_the_wallet_that_was_spent_is_found_out() {
    let (directory, mint, wallet) = wallet(0);
    wallet.receive(&mint.token(64), Trust::New).await.expect("received");
    wallet.store().db.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").expect("written");
    let copy = tempfile::tempdir().expect("a directory");
    std::fs::create_dir(copy.path().join("state")).expect("made");
    let file = "state/wallet.db";
    std::fs::copy(directory.path().join(file), copy.path().join(file)).expect("copied");
    let copied = open(&copy, &mint);
    copied.send(&plain(10)).await.expect("sent");
    let error = wallet.send(&plain(10)).await.expect_err("spent");
    assert!(matches!(error, WalletError::SpentElsewhere(64)), "{error}");
    assert_eq!(sums(&wallet), (0, 0, 0));
}

#[tokio::test]
async fn no_unit_is_lost_whatever_request_is_not_answered() {
    let mut unfinished = 0;
    for fault in [Fault::Unplugged, Fault::Deaf, Fault::Failing, Fault::Busy] {
        for from in 0..12 {
            for count in [1, 2, 5] {
                let (directory, mint, wallet) = wallet(100);
                let token = mint.token(1000);
                mint.fault(fault, from, count);
                let lock = key(5).public();
                // Each step, again and again until it is done.
                while wallet.receive(&token, Trust::New).await.is_err() {
                    unfinished += sums(&wallet).1;
                }
                let payment = Payment { lock: Some((&lock, Refund::usual())), ..plain(100) };
                while wallet.send(&payment).await.is_err() {}
                let sent = wallet.send(&plain(150)).await.or(wallet.send(&plain(150)).await);
                let open = sent.map_or(1, |sent| sent.number);
                wallet.reclaim(open).await.ok();
                wallet.check_sent().await.expect("checked");
                mint.repair();
                // As after a crash.
                drop(wallet);
                let wallet = open_again(&directory, &mint);
                let left = wallet.recover().await.expect("recovered");
                assert!(left.is_empty(), "{left:?}");
                let (balance, unfinished, unclaimed) = sums(&wallet);
                let all = balance + unclaimed + mint.fees();
                assert_eq!((all, unfinished), (1000, 0), "{fault:?} {from} {count}");
                assert_unspent(&wallet, &mint);
            }
        }
    }
    assert!(unfinished > 0, "no exchange was ever left open");
}

fn open_again(directory: &tempfile::TempDir, mint: &Arc<TestMint>) -> Wallet {
    open(directory, mint)
}

/// Whether all that the wallet counts can be spent.
fn assert_unspent(wallet: &Wallet, mint: &TestMint) {
    let at = Place { url: URL.into(), unit: "sat".into() };
    let mut all = wallet.store().proofs(&at).expect("read");
    all.extend(wallet.store().unclaimed().expect("read").into_iter().flat_map(|it| it.proofs));
    let points: Vec<_> = all.iter().map(|proof| proof.point().expect("a point")).collect();
    let request = weir_ecash::check_request(&points).expect("a request");
    let answer = mint.mint.lock().expect("not poisoned").check(&request);
    let states = weir_ecash::check_response(&points, &answer).expect("an answer");
    assert!(states.iter().all(|state| *state == weir_ecash::SpentState::Unspent), "{states:?}");
}

#[tokio::test]
async fn mints_are_added_listed_and_removed_when_nothing_of_them_is_left() {
    let (_directory, mint, wallet) = wallet(0);
    assert!(wallet.add_mint(URL).expect("added") && !wallet.add_mint(URL).expect("known"));
    assert!(matches!(wallet.add_mint("mint.example"), Err(WalletError::NotAMint(_))));
    wallet.receive(&mint.token(8), Trust::Known).await.expect("received");
    assert_eq!(wallet.mints().expect("read")[0].balances[0].balance, 8);
    assert!(matches!(wallet.remove_mint(URL), Err(WalletError::MintInUse(_, 8))));
    wallet.add_mint("https://other.example/").expect("added");
    assert!(wallet.remove_mint("https://other.example").expect("removed"));
    let error = wallet.pay("https://other.example", "sat", Amount::Exactly(1), "02", "").await;
    assert!(matches!(error, Err(WalletError::UnknownMint(_))));
}

#[tokio::test]
async fn two_wallets_on_one_file_do_not_pay_with_the_same_ecash() {
    let (directory, mint, first) = wallet(0);
    first.receive(&mint.token(100), Trust::New).await.expect("received");
    let second = open(&directory, &mint);
    let (one, other) = (plain(33), plain(21));
    let (a, b) = tokio::join!(first.send(&one), second.send(&other));
    assert_eq!((a.expect("sent").amount, b.expect("sent").amount), (33, 21));
    assert_eq!(sums(&first), (46, 0, 54));
}

#[test]
fn the_files_are_for_their_owner_alone_and_others_are_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().expect("a directory");
    let state = directory.path().join("state");
    drop(Wallet::open(&state).expect("made"));
    let mode = |path: &Path| std::fs::metadata(path).expect("there").permissions().mode() & 0o777;
    let file = state.join("wallet.db");
    assert_eq!((mode(&state), mode(&file)), (0o700, 0o600));
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).expect("set");
    assert!(matches!(Wallet::open(&state), Err(WalletError::Exposed(_))));
}
