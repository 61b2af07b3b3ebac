//! `weir connect --country`: an exit is found in a registry and paid with ecash.

use std::{
    net::{IpAddr, TcpListener, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use weir_tests::{
    Lab, Node, Settings,
    connect::Machine,
    lab::{NODE_V4, SERVER_V4, SERVERS},
    nutshell::Nutshell,
    registry::Registry,
    until,
    wallet::Wallet,
};

const PORT: u16 = 8443;
/// What the purchase costs, and what all may cost.
const AMOUNT: u64 = 40;
const BUDGET: u64 = 100;
/// What the mint may keep of all exchanges.
const MAX_FEES: u64 = 20;

fn settings(mint: &str, registry: &str) -> Settings {
    Settings::default()
        .with("cashu", "mints", &format!("[\"{mint}\"]"))
        .with("cashu", "gib_price", "1024")
        .with("purchase", "listen", &format!("\"{NODE_V4}:{PORT}\""))
        .with("purchase", "server_names", "[\"exit.example.net\"]")
        .with("purchase", "min_mib", "4")
        .with("market", "enabled", "true")
        .with("market", "country", "\"DE\"")
        .with("market", "purchase_url", &format!("\"http://{NODE_V4}:{PORT}/purchase\""))
        .with("market", "registries", &format!("[\"{registry}\"]"))
}

#[test]
fn an_exit_in_a_country_is_found_and_paid_within_the_budget() -> Result<()> {
    let lab = Lab::new()?;
    let mint = Nutshell::start(&lab.internet, SERVERS[0])?;
    mint.mint(1000)?;
    let mut registry = Registry::prepare_in(&lab.internet, SERVER_V4)?;
    registry.configure(&[])?;
    registry.run()?;
    let at = format!("ws://{SERVER_V4}:7447");
    let directory = tempfile::tempdir()?;
    let path = |name: &str| format!("\"{}\"", directory.path().join(name).display());
    let settings = settings(&mint.url(), &at).with("cashu", "key_file", &path("cashu.key")).with(
        "market",
        "key_file",
        &path("market.key"),
    );
    let node = Node::start(&lab.node, settings)?;
    until("the registry has the listing", Duration::from_secs(60), || {
        let exits = registry.get("/v1/exits?country=DE")?;
        ensure!(format!("{exits:?}").contains("/purchase"), "{exits:?}");
        Ok(())
    })?;

    let wallet = Wallet::new(&lab.consumer)?;
    wallet.run(&["receive", "--trust-mint", &mint.send(900, &[])?])?;
    let purse = wallet.path().to_string_lossy().into_owned();
    let (amount, budget) = (AMOUNT.to_string(), BUDGET.to_string());
    let bought = ["--registry", &at, "--wallet", &purse, "--amount", &amount, "--budget", &budget];
    let mut machine = Machine::new(&lab)?;
    let nowhere = machine.weir(&[&["connect", "--country", "FR"], &bought[..]].concat());
    let nowhere = format!("{:#}", nowhere.expect_err("there is no exit in FR"));
    ensure!(nowhere.contains("no exit"), "{nowhere}");
    let poor = ["connect", "--country", "DE", "--registry", &at, "--wallet", &purse];
    let poor = machine.weir(&[&poor[..], &["--amount", "40", "--budget", "39"]].concat());
    ensure!(format!("{:#}", poor.expect_err("beyond the budget")).contains("--budget"));
    machine.connect(&[&["--country", "DE"], &bought[..]].concat())?;

    // It leaves by the node's address.
    let listener = lab.internet.enter(|| Ok(TcpListener::bind((SERVER_V4, 0))?))?;
    let to = listener.local_addr()?;
    let _open = lab
        .consumer
        .enter(|| Ok(TcpStream::connect_timeout(&to, Duration::from_secs(20))?))
        .with_context(|| machine.log())?;
    ensure!(listener.accept()?.1.ip() == IpAddr::from(NODE_V4));

    machine.disconnect()?;
    let [balance, ..] = wallet.sums()?;
    ensure!(balance >= 900 - BUDGET - MAX_FEES, "{balance} are left:\n{}", machine.log());
    ensure!(balance <= 900 - AMOUNT, "{balance} are left:\n{}", machine.log());
    drop(node);
    Ok(())
}
