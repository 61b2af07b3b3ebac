use std::{
    path::Path,
    pin::Pin,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use http::StatusCode;
use hyper::body::Bytes;
use weir_ecash::testing::{FakeMint, key};
use weir_sessions::registry::{NewSession, rig::Rig};

use super::{mint::Answer, *};
use crate::delivery::post::NoAnswer;

mod kill;

pub(crate) const URL: &str = "http://mint.example";
/// The number of bytes that one sat buys.
pub(crate) const BYTES: u64 = (1 << 30) / 128;

/// What happens to requests on their way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Network {
    Up,
    /// Nothing arrives.
    Down,
    /// Requests arrive, answers do not.
    Deaf,
}

/// A mint behind a network.
pub(crate) struct TestMint {
    mint: Mutex<FakeMint>,
    network: Mutex<Network>,
    asked: AtomicUsize,
}

impl TestMint {
    pub(crate) fn new(fee_ppk: u64) -> Arc<Self> {
        let mint = Mutex::new(FakeMint::new(URL, 7, fee_ppk));
        Arc::new(Self { mint, network: Mutex::new(Network::Up), asked: AtomicUsize::new(0) })
    }

    pub(crate) fn set(&self, network: Network) {
        *self.network.lock().expect("not poisoned") = network;
    }

    pub(crate) fn token(&self, amount: u64) -> String {
        self.mint.lock().expect("not poisoned").token(amount, &key(5).public())
    }
}

impl Mint for Arc<TestMint> {
    fn ask<'a>(
        &'a self,
        path: &'a str,
        json: Vec<u8>,
    ) -> Pin<Box<dyn Future<Output = Answer> + Send + 'a>> {
        Box::pin(async move {
            self.asked.fetch_add(1, Relaxed);
            let network = *self.network.lock().expect("not poisoned");
            if network == Network::Down {
                return Err(NoAnswer::NotSent(anyhow::anyhow!("unplugged")));
            }
            let answer = answer(&mut self.mint.lock().expect("not poisoned"), path, &json);
            match network {
                Network::Deaf => Err(NoAnswer::Lost(anyhow::anyhow!("no answer"))),
                _ => Ok(answer),
            }
        })
    }
}

/// What the mint answers.
pub(super) fn answer(mint: &mut FakeMint, path: &str, json: &[u8]) -> (StatusCode, Bytes) {
    let body = match path {
        "/v1/keysets" => mint.keysets(),
        "/v1/swap" => match mint.swap(json) {
            Ok(body) => body,
            Err(refused) => return (StatusCode::BAD_REQUEST, refused.0.into()),
        },
        "/v1/restore" => mint.restore(json),
        "/v1/checkstate" => mint.check(json),
        keys if keys.starts_with("/v1/keys/") => mint.keys(),
        _ => return (StatusCode::NOT_FOUND, Bytes::new()),
    };
    (StatusCode::OK, body.into())
}

pub(super) fn settings(max_unredeemed: u32) -> weir_config::Cashu {
    weir_config::Cashu {
        mints: vec![URL.into()],
        gib_price: 128,
        max_unredeemed,
        lock_days: 1,
        ..weir_config::Cashu::default()
    }
}

pub(crate) fn cashu(rig: &Rig, mint: &Arc<TestMint>, max_unredeemed: u32) -> Arc<Cashu> {
    let mints: Vec<(String, Box<dyn Mint>)> = vec![(URL.into(), Box::new(Arc::clone(mint)))];
    let made = Cashu::with_mints(&settings(max_unredeemed), &rig.sessions, key(5), mints);
    Arc::new(made.expect("made"))
}

pub(super) fn prepaid(rig: &Rig) -> SessionId {
    let new = NewSession { prepaid: true, ..NewSession::default() };
    rig.sessions.add(new).expect("added").snapshot.session.id
}

fn credit(rig: &Rig, id: SessionId) -> u64 {
    rig.sessions.get(&id.to_string()).expect("there").credit.bytes.expect("limited")
}

pub(crate) fn totals(rig: &Rig) -> weir_ledger::ecash::MintTotals {
    rig.ledger.lock().mint_totals().expect("read").pop().expect("a mint")
}

pub(crate) async fn round(cashu: &Cashu) -> anyhow::Result<()> {
    cashu.round(&cashu.mints[0]).await
}

pub(crate) fn start(folder: &Path) -> Rig {
    let rig = Rig::start(folder, 8);
    rig.ledger.lock().in_no_hurry();
    rig
}

#[tokio::test]
async fn a_token_is_taken_without_the_mint_and_exchanged_later_to_the_unit() {
    let folder = tempfile::tempdir().expect("a folder");
    let rig = start(folder.path());
    let (mint, id) = (TestMint::new(0), prepaid(&rig));
    let service = cashu(&rig, &mint, 1000);
    round(&service).await.expect("the keys are fetched");
    mint.set(Network::Down);
    let before = mint.asked.load(Relaxed);
    let token = mint.token(600);
    let taken = service.accept(id, &token).await.expect("taken");
    assert_eq!(taken, (Accepted::Credited, 600 * BYTES));
    assert_eq!(credit(&rig, id), 600 * BYTES);
    assert_eq!(mint.asked.load(Relaxed), before, "nobody was asked");
    assert_eq!(service.accept(id, &token).await.expect("taken").0, Accepted::Before);
    let other = prepaid(&rig);
    assert!(matches!(service.accept(other, &token).await, Err(NotAccepted::Spent)));
    assert!(round(&service).await.is_err(), "it is unplugged");
    assert_eq!((totals(&rig).unredeemed, totals(&rig).redeemed), (600, 0));

    // Beyond the limit it would have to be exchanged first: it stays its owner's.
    let more = mint.token(500);
    let refused = service.accept(other, &more).await;
    assert!(matches!(refused, Err(NotAccepted::MintUnreachable)), "{refused:?}");
    assert_eq!((credit(&rig, other), totals(&rig).received), (0, 600));
    // A restarted node knows the keys from its ledger.
    let again = cashu(&rig, &mint, 1000);
    assert_eq!(again.accept(other, &mint.token(8)).await.expect("taken").0, Accepted::Credited);

    mint.set(Network::Up);
    round(&again).await.expect("exchanged");
    let after = totals(&rig);
    assert_eq!((after.received, after.unredeemed, after.redeemed, after.lost), (608, 0, 608, 0));
    assert_eq!(mint.mint.lock().expect("it").issued(), 608);
    assert_eq!(again.accept(other, &more).await.expect("taken").0, Accepted::Credited);
}

#[tokio::test]
async fn beyond_the_limit_a_token_is_exchanged_first() {
    let folder = tempfile::tempdir().expect("a folder");
    let rig = start(folder.path());
    let (mint, id) = (TestMint::new(100), prepaid(&rig));
    let service = cashu(&rig, &mint, 0);
    let taken = service.accept(id, &mint.token(1000)).await.expect("taken");
    assert_eq!(taken, (Accepted::Credited, 999 * BYTES), "less the mint's fee");
    let now = totals(&rig);
    assert_eq!((now.unredeemed, now.redeemed, now.fees), (0, 999, 1));

    // The answer is lost: it may have been exchanged, so it is neither returned nor forgotten.
    mint.set(Network::Deaf);
    let token = mint.token(64);
    assert_eq!(service.accept(id, &token).await.expect("taken").0, Accepted::Pending);
    assert_eq!(service.accept(id, &token).await.expect("taken").0, Accepted::Pending);
    assert_eq!(credit(&rig, id), 999 * BYTES);
    assert!(round(&service).await.is_err());
    mint.set(Network::Up);
    round(&service).await.expect("restored");
    assert_eq!(credit(&rig, id), (999 + 63) * BYTES);
    assert_eq!(service.accept(id, &token).await.expect("taken").0, Accepted::Before);
    let now = totals(&rig);
    assert_eq!((now.unredeemed, now.redeemed, now.fees), (0, 999 + 63, 2));
}

#[tokio::test]
async fn what_was_spent_elsewhere_is_lost_and_the_rest_is_exchanged() {
    let folder = tempfile::tempdir().expect("a folder");
    let rig = start(folder.path());
    let (mint, id) = (TestMint::new(0), prepaid(&rig));
    let service = cashu(&rig, &mint, 1000);
    round(&service).await.expect("fetched");
    for amount in [3, 4, 16] {
        service.accept(id, &mint.token(amount)).await.expect("taken");
    }
    let stolen = rig.ledger.lock().held_proofs(URL, 64).expect("read");
    let stolen = stolen.iter().find(|proof| proof.amount == 4).expect("there").y;
    mint.mint.lock().expect("it").spend(stolen);
    round(&service).await.expect("the others are exchanged");
    let now = totals(&rig);
    assert_eq!((now.unredeemed, now.redeemed, now.lost), (0, 19, 4));
    assert_eq!(credit(&rig, id), 23 * BYTES, "what was credited stays");
}

#[tokio::test]
async fn a_token_of_a_new_keyset_is_taken_after_one_question() {
    let folder = tempfile::tempdir().expect("a folder");
    let rig = start(folder.path());
    let (mint, id) = (TestMint::new(0), prepaid(&rig));
    let service = cashu(&rig, &mint, 1000);
    assert_eq!(service.accept(id, &mint.token(4)).await.expect("taken").0, Accepted::Credited);
    let asked = mint.asked.load(Relaxed);
    // The mint is not asked again for each token that nobody knows.
    let forged = FakeMint::new(URL, 9, 0);
    for _ in 0..5 {
        let refused = service.accept(id, &forged.token(4, &key(5).public())).await;
        let Err(NotAccepted::Refused(refusal)) = refused else { panic!("{refused:?}") };
        assert_eq!(refusal.word(), "unknown_keyset");
    }
    assert_eq!(mint.asked.load(Relaxed), asked);
}

#[test]
fn the_key_is_made_once_and_for_its_owner_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("cashu.key");
    let made = load_or_create(&path).expect("made");
    assert_eq!(load_or_create(&path).expect("read").public(), made.public());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("set");
    assert!(load_or_create(&path).expect_err("refused").to_string().contains("chmod 600"));
}
