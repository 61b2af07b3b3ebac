//! A wallet that is killed at any moment loses no unit. The wallet is this test program, started again by itself; its
//! mint writes down what it has done before it answers.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
};

use super::*;

/// Where the folder of the test is, for the program that is killed.
const FOLDER: &str = "WEIR_TEST_WALLET_FOLDER";
/// How often it is killed.
const KILLS: u64 = 100;
/// The tokens that are received.
const TOKENS: u64 = 40;

/// A mint that remembers by replaying what it was asked.
struct Remembering(Mutex<(FakeMint, fs::File, u64)>);

impl Remembering {
    fn open(folder: &Path) -> Self {
        let path = folder.join("mint");
        let text = fs::read_to_string(&path).unwrap_or_default();
        // An incomplete last line was not answered: nothing was done.
        let end = text.rfind('\n').map_or(0, |place| place + 1);
        let (mut mint, mut fees) = (FakeMint::new(URL, 7, 100), 0);
        for line in text[..end].lines() {
            mint.swap(line.as_bytes()).expect("it was carried out before");
            fees += fee(line.as_bytes());
        }
        let file = OpenOptions::new().append(true).create(true).open(&path).expect("opened");
        file.set_len(end as u64).expect("cut");
        Self(Mutex::new((mint, file, fees)))
    }

    fn fees(&self) -> u64 {
        self.0.lock().expect("not poisoned").2
    }
}

impl Mints for Remembering {
    fn ask<'a>(&'a self, _: &'a str, path: &'a str, json: Vec<u8>) -> Asked<'a> {
        Box::pin(async move {
            let (mint, file, fees) = &mut *self.0.lock().expect("not poisoned");
            let (status, body, fee) = answer(mint, path, &json);
            if path == "/v1/swap" && status.is_success() {
                file.write_all(&[&json[..], b"\n"].concat()).expect("written");
                *fees += fee;
            }
            Ok(Answer { status, headers: HeaderMap::new(), body: body.into() })
        })
    }
}

fn tokens(folder: &Path) -> Vec<String> {
    let text = fs::read_to_string(folder.join("tokens")).expect("read");
    text.lines().map(str::to_owned).collect()
}

/// Receives every token, and pays and takes back in between, from wherever it was killed.
async fn work(folder: &Path) -> Wallet {
    let mint = Arc::new(Remembering::open(folder));
    let wallet = Wallet::with_mints(folder, mint).expect("opened");
    let lock = key(5).public();
    for (number, token) in tokens(folder).iter().enumerate() {
        let before = wallet.receive(token, Trust::New).await.expect("received").before;
        if before {
            continue;
        }
        if number % 2 == 0 {
            let sent = wallet.send(&plain(3)).await.expect("sent");
            wallet.reclaim(sent.number).await.expect("taken back");
        } else {
            let payment = Payment { lock: Some((&lock, Refund::usual())), ..plain(2) };
            wallet.send(&payment).await.expect("paid");
        }
    }
    let left = wallet.recover().await.expect("recovered");
    assert!(left.is_empty(), "{left:?}");
    wallet
}

#[tokio::test]
async fn killed_100_times_between_any_two_steps_no_unit_is_lost() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        work(Path::new(&folder)).await;
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let amount = |number: u64| 5 + number % 60;
    let mint = FakeMint::new(URL, 7, 100);
    let texts: Vec<_> = (0..TOKENS).map(|number| mint.open_token(amount(number))).collect();
    fs::write(folder.path().join("tokens"), texts.join("\n")).expect("written");
    let name = "wallet::tests::kill::killed_100_times_between_any_two_steps_no_unit_is_lost";
    let kills = weir_testkit::kill::repeatedly(name, FOLDER, folder.path(), KILLS);
    let kills = kills.expect("started and killed");
    assert!(kills > KILLS / 4, "only {kills} were killed before they were done");
    let wallet = work(folder.path()).await;
    let received: u64 = (0..TOKENS).map(amount).sum();
    let (balance, unfinished, unclaimed) = sums(&wallet);
    let mint = Remembering::open(folder.path());
    assert_eq!((balance + unclaimed + mint.fees(), unfinished), (received, 0));
    let check = TestMint::new(100);
    *check.mint.lock().expect("not poisoned") = mint.0.into_inner().expect("it").0;
    assert_unspent(&wallet, &check);
}
