#![expect(clippy::print_stdout, reason = "the seed of a failed run is needed to repeat it")]

mod receiver;

use std::{collections::HashSet, io::Write as _, time::SystemTime};

use self::receiver::{Chance, Mood, Receiver as Layer, SECRET, TIMEOUT, certificate};
use super::*;
use weir_sessions::registry::rig::Rig;

/// Records that go to the unreliable receiver.
const RECORDS: u64 = 10_000;

/// Another row of numbers each time, or that of `WEIR_SEED`.
fn chance() -> Chance {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    let set = std::env::var("WEIR_SEED").ok().and_then(|text| text.parse().ok());
    let seed = set.unwrap_or(u64::from(now.subsec_nanos()));
    println!("WEIR_SEED={seed}");
    Chance(seed)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unreliable_receivers_totals_equal_the_ledgers() {
    totals_equal(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unreliable_receivers_totals_equal_the_ledgers_over_tls() {
    totals_equal(true).await;
}

/// Ten thousand records to a receiver that seldom works, from a node that is killed now and then.
/// What happens when is by chance.
async fn totals_equal(is_secure: bool) {
    let mut chance = chance();
    let folder = tempfile::tempdir().expect("a folder");
    let rig = Rig::start(folder.path(), 100);
    let slots: Vec<_> = (0..100).map(|_| rig.add(None).session.slot).collect();
    let (pem, tls) = is_secure.then(certificate).unzip();
    let ca_file = folder.path().join("ca.pem");
    std::fs::write(&ca_file, pem.unwrap_or_default()).expect("written");
    let layer = Layer::start(tls, Mood::ALL.to_vec(), Chance(chance.next(1 << 30)));
    let scheme = if is_secure { "https" } else { "http" };
    let url = format!("{scheme}://{}/usage", layer.address);
    let start = || {
        let hook = Webhook::new(&url, SECRET).expect("a webhook").with_timeout(TIMEOUT);
        let hook = hook.with_roots(Some(&ca_file)).expect("roots");
        let waits = (Duration::from_millis(1), Duration::from_millis(20));
        tokio::spawn(run_with(rig.usage.clone(), hook, waits))
    };
    let mut delivery = start();
    for _ in 0..RECORDS / 100 {
        for slot in &slots {
            rig.traffic(*slot, 1 + chance.next(1000));
        }
        rig.sessions.record().expect("written");
        if chance.next(10) == 0 {
            // The node goes and comes back: the cursor is in the ledger.
            delivery.abort();
            delivery = start();
        }
        sleep(Duration::from_millis(chance.next(20))).await;
    }
    for _ in 0..1200 {
        if rig.usage.delivered("webhook").expect("read") == RECORDS {
            break;
        }
        sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(rig.usage.delivered("webhook").expect("read"), RECORDS);
    delivery.abort();
    let received = layer.stop();
    let ledger = rig.sessions.totals();
    assert_eq!(received.total(), ledger.bytes_up + ledger.bytes_down);
    let mut written = HashSet::new();
    let mut cursor = 0;
    while cursor < RECORDS {
        let records = rig.usage.after(cursor, MAX_RECORDS).expect("read");
        cursor = records.last().expect("more of them").cursor;
        written.extend(records.into_iter().map(|it| (it.receipt.session, it.receipt.sequence)));
    }
    assert_eq!(written.len() as u64, RECORDS);
    assert!(received.seen == written, "{} records came, of {RECORDS}", received.seen.len());
    // Not by a receiver that worked.
    assert_eq!(received.moods.len(), Mood::ALL.len(), "{:?}", received.moods);
    assert!(received.again > 0, "none came twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_whom_nobody_vouches_for_gets_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let rig = Rig::start(folder.path(), 1);
    let slot = rig.add(None).session.slot;
    rig.traffic(slot, 1);
    rig.sessions.record().expect("written");
    let ((_, server), (other, _)) = (certificate(), certificate());
    // It would take everything, if there were anything to take.
    let layer = Layer::start(Some(server), vec![Mood::Works], Chance(0));
    let url = format!("https://{}/usage", layer.address);
    let ca_file = folder.path().join("ca.pem");
    let hook = || Webhook::new(&url, SECRET).expect("a webhook");
    for (pem, expected) in [
        ("nothing", "has no PEM certificates that can be read"),
        (&other, "the TLS handshake with 127.0.0.1 failed"),
    ] {
        std::fs::write(&ca_file, pem).expect("written");
        let records = rig.usage.after(0, 10).expect("read");
        let refused = match hook().with_roots(Some(&ca_file)) {
            Ok(mut hook) => hook.take(&records).await.expect_err("refused"),
            Err(error) => error,
        };
        assert!(format!("{refused:#}").contains(expected), "{refused:#}");
    }
    assert_eq!(layer.stop().total(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_file_has_each_record_once_over_crashes_and_rotation() {
    let folder = tempfile::tempdir().expect("a folder");
    let rig = Rig::start(folder.path(), 10);
    let slots: Vec<_> = (0..10).map(|_| rig.add(None).session.slot).collect();
    let path = folder.path().join("usage.ndjson");
    for round in 0..8 {
        for slot in &slots {
            rig.traffic(*slot, 1);
        }
        rig.sessions.record().expect("written");
        // Each round is a new run, whose cursor was not written by the one before: the file says
        // what it has. Some runs died in the middle of a line.
        let records = rig.usage.after(0, MAX_RECORDS).expect("read");
        let mut file = UsageFile::new(path.clone(), 20_000);
        let behind = records.len().saturating_sub(15);
        file.take(&records[behind..]).await.expect("written");
        if round % 2 == 0 && path.metadata().expect("there").len() > 0 {
            let mut raw = std::fs::OpenOptions::new().append(true).open(&path).expect("opened");
            raw.write_all(b"{\"cursor\": 99").expect("written");
        }
    }
    let mut files: Vec<_> = std::fs::read_dir(folder.path())
        .expect("readable")
        .flatten()
        .filter(|file| file.file_name().to_string_lossy().starts_with("usage.ndjson"))
        .map(|file| std::fs::read_to_string(file.path()).expect("text"))
        .collect();
    assert!(files.len() > 1, "it was rotated");
    files.sort_by_key(|text| text.len());
    let mut cursors: Vec<u64> = files
        .iter()
        .flat_map(|text| text.lines())
        .filter_map(|line| serde_json::from_str::<UsageRecord>(line).ok())
        .map(|record| record.cursor)
        .collect();
    cursors.sort_unstable();
    let before = cursors.len();
    cursors.dedup();
    assert_eq!(cursors, (1..=80).collect::<Vec<_>>());
    assert_eq!(before, 80, "none twice");
}

#[test]
fn a_webhook_that_cannot_work_is_refused() {
    for url in ["ftp://example.net/", "ftp://example.net/", "/usage", "http://", ""] {
        assert!(Webhook::new(url, SECRET).is_err(), "{url}");
    }
    assert!(Webhook::new("http://127.0.0.1:9/", b"").is_err());
}
