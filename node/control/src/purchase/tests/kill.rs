//! A node that is killed at any moment has sold each order once or not at all. The node is this test
//! program, started again by itself.

use std::{fs, path::PathBuf};

use weir_common::PublicKey;
use weir_ecash::testing::FakeMint;
use weir_wireguard::keys;

use super::*;

/// Where the folder of the test is, for the program that is killed.
const FOLDER: &str = "WEIR_TEST_PURCHASE_FOLDER";
/// How often it is killed.
const KILLS: u64 = 60;
/// The orders that are sent, over and over.
const ORDERS: u8 = 60;
/// What each pays, in sat.
const PAID: u64 = 16;

fn orders(folder: &Path) -> Vec<Order> {
    let text = fs::read_to_string(folder.join("orders")).expect("read");
    let read = |line: &str| {
        let (key, token) = line.split_once(' ').expect("an order");
        let client_key = keys::parse_public(key).expect("a key");
        Order { client_key, payment: Payment::Token(token.to_owned()) }
    };
    text.lines().map(read).collect()
}

/// An exit with all slots that it takes.
async fn open(folder: &Path) -> Exit {
    let rig = Rig::start(folder, ORDERS.into());
    rig.ledger.lock().in_no_hurry();
    let mint = TestMint::new(0);
    let cashu = cashu(&rig, &mint, 1_000_000);
    round(&cashu).await.expect("the keys are fetched");
    Exit::with(rig, mint, cashu)
}

async fn sell_all(exit: &Exit, folder: &Path) -> Vec<(PublicKey, Sold)> {
    let mut all = Vec::new();
    for order in orders(folder) {
        let key = order.client_key;
        let source = shop::Source::Network(std::net::IpAddr::from([192, 0, 2, 1]).into());
        all.push((key, exit.shop.sell(Way::Http, source, order).await.expect("sold")));
    }
    all
}

#[tokio::test]
async fn killed_at_any_moment_each_order_is_sold_once() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        let folder = PathBuf::from(folder);
        sell_all(&open(&folder).await, &folder).await;
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    drop(Rig::start(folder.path(), ORDERS.into()));
    let mint = FakeMint::new(crate::ecash::tests::URL, 7, 0);
    let lines: Vec<_> = (0..ORDERS)
        .map(|_| {
            let client = keys::print_public(&PrivateKey::random().public());
            format!("{client} {}", mint.token(PAID, &key(5).public()))
        })
        .collect();
    fs::write(folder.path().join("orders"), lines.join("\n")).expect("written");
    let name = "purchase::tests::kill::killed_at_any_moment_each_order_is_sold_once";
    let kills = weir_testkit::kill::repeatedly(name, FOLDER, folder.path(), KILLS);
    let kills = kills.expect("started and killed");
    assert!(kills > KILLS / 2, "only {kills} were killed before they were done");
    let exit = open(folder.path()).await;
    let all = sell_all(&exit, folder.path()).await;
    let again = sell_all(&exit, folder.path()).await;
    assert_eq!(all, again, "the same order has the same answer");
    assert_eq!(exit.rig.sessions.len(), usize::from(ORDERS));
    for snapshot in exit.rig.sessions.list() {
        assert_eq!(snapshot.credit.bytes, Some(PAID * crate::ecash::tests::BYTES));
        let (_, sold) =
            all.iter().find(|(key, _)| *key == snapshot.session.public_key).expect("an order");
        assert!(sold.config.contains(&snapshot.session.id.to_string()));
    }
    assert_eq!(crate::ecash::tests::totals(&exit.rig).received, PAID * u64::from(ORDERS));
    drop(exit);
    let scrubbed = weir_ledger::scrub::scrub(&folder.path().join("ledger.db"), || true);
    assert_eq!(scrubbed.expect("read"), weir_ledger::scrub::Scrubbed::Sound);
}
