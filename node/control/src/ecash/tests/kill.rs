//! A node that is killed at any moment loses no unit and counts none twice. The node is this test program, started
//! again by itself; its mint writes down what it has done before it answers.

use std::{io::Write as _, path::PathBuf};

use super::*;

/// Where the folder of the test is, for the program that is killed.
const FOLDER: &str = "WEIR_TEST_ECASH_FOLDER";
/// How often it is killed.
const KILLS: u64 = 200;
/// The tokens that are given, over and over.
const TOKENS: u64 = 120;

/// A mint that remembers by replaying what it was asked.
struct Remembering(Mutex<(FakeMint, fs::File)>);

impl Remembering {
    fn open(folder: &Path) -> Self {
        let path = folder.join("mint");
        let mut mint = FakeMint::new(URL, 7, 100);
        for line in fs::read_to_string(&path).unwrap_or_default().split_inclusive('\n') {
            // An incomplete last line was not answered: nothing was done.
            if let Some(request) = line.strip_suffix('\n') {
                mint.swap(request.as_bytes()).expect("it was carried out before");
            }
        }
        let file = OpenOptions::new().append(true).create(true).open(&path).expect("opened");
        let text = fs::read(&path).expect("read");
        let end = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |place| place + 1);
        if end < text.len() {
            file.set_len(end as u64).expect("cut");
        }
        Self(Mutex::new((mint, file)))
    }
}

impl Mint for Remembering {
    fn ask<'a>(
        &'a self,
        path: &'a str,
        json: Vec<u8>,
    ) -> Pin<Box<dyn Future<Output = Answer> + Send + 'a>> {
        Box::pin(async move {
            let (mint, file) = &mut *self.0.lock().expect("not poisoned");
            let answer = answer(mint, path, &json);
            if path == "/v1/swap" && answer.0.is_success() {
                file.write_all(&[&json[..], b"\n"].concat()).expect("written");
            }
            Ok(answer)
        })
    }
}

fn tokens(folder: &Path) -> Vec<String> {
    let text = fs::read_to_string(folder.join("tokens")).expect("read");
    text.lines().map(str::to_owned).collect()
}

/// Gives every token and exchanges now and then, from wherever it was killed.
async fn work(folder: &Path) {
    let rig = start(folder);
    let mint = Remembering::open(folder);
    let mints: Vec<(String, Box<dyn Mint>)> = vec![(URL.into(), Box::new(mint))];
    // So low that tokens are credited at once, and exchanged first, in turns.
    let service = Cashu::with_mints(&settings(200), &rig.sessions, key(5), mints).expect("made");
    let service = Arc::new(service);
    let session = rig.sessions.list().first().expect("there").session.id;
    for (number, token) in tokens(folder).iter().enumerate() {
        service.accept(session, token).await.expect("taken");
        if number % 16 == 15 {
            round(&service).await.expect("exchanged");
        }
    }
    round(&service).await.expect("exchanged");
}

#[tokio::test]
async fn killed_200_times_between_any_two_steps_no_unit_is_lost_or_counted_twice() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        return work(&PathBuf::from(folder)).await;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let rig = start(folder.path());
    let session = prepaid(&rig);
    drop(rig);
    let mint = FakeMint::new(URL, 7, 100);
    let amount = |number: u64| 3 + number % 60;
    let texts: Vec<_> =
        (0..TOKENS).map(|number| mint.token(amount(number), &key(5).public())).collect();
    fs::write(folder.path().join("tokens"), texts.join("\n")).expect("written");
    let name = "ecash::tests::kill::\
                killed_200_times_between_any_two_steps_no_unit_is_lost_or_counted_twice";
    let kills = weir_testkit::kill::repeatedly(name, FOLDER, folder.path(), KILLS);
    let kills = kills.expect("started and killed");
    assert!(kills > KILLS / 2, "only {kills} were killed before they were done");
    work(folder.path()).await;

    let rig = start(folder.path());
    let paid: u64 = (0..TOKENS).map(amount).sum();
    // Each token bears its own fee, rounded up.
    let worth = |number| {
        let value: u64 = amount(number);
        value - (u64::from(value.count_ones()) * 100).div_ceil(1000)
    };
    let credited: u64 = (0..TOKENS).map(|number| worth(number) * BYTES).sum();
    assert_eq!(credit(&rig, session), credited);
    let now = totals(&rig);
    assert_eq!((now.received, now.unredeemed, now.lost), (paid, 0, 0));
    assert_eq!(now.redeemed + now.fees, paid);
    let issued = Remembering::open(folder.path()).0.into_inner().expect("it").0.issued();
    assert_eq!(now.redeemed, issued, "the node has what the mint gave");
    drop(rig);
    let scrubbed = weir_ledger::scrub::scrub(&folder.path().join("ledger.db"), || true);
    assert_eq!(scrubbed.expect("read"), weir_ledger::scrub::Scrubbed::Sound);
}
