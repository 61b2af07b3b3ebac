//! `weir connect` verifies the node's usage receipts, keeps the last one, and leaves a node whose
//! receipts are wrong.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use weir_receipt::Receipt;
use weir_tests::{
    Lab, Node, Settings,
    connect::{ForeignExit, Machine, Receipts},
    lab::SERVER_V4,
    node::Added,
    traffic::tcp::{self, Direction},
    until,
};

const LIMIT: Duration = Duration::from_secs(90);

/// A node that takes vouchers, so that it has a gateway, and signs a record each second.
fn settings() -> Settings {
    Settings::default().with("voucher", "enabled", "true").with("ledger", "record_seconds", "1")
}

fn added(node: &Node<'_>) -> Result<Added> {
    node.session_add("consumer")
}

/// The receipt that the connection shows, if it is at least the one of this number.
fn shown(machine: &Machine<'_>, number: u64) -> Result<(Receipt, Value)> {
    let status = machine.status()?;
    let receipt = &status["receipt"]["receipt"];
    ensure!(receipt["sequence"].as_u64() >= Some(number), "{status}\n{}", machine.log());
    Ok((serde_json::from_value(receipt.clone())?, status))
}

#[test]
fn a_consumer_verifies_its_receipts_and_the_last_one_outlives_the_connection() -> Result<()> {
    let lab = Lab::new()?;
    let node = Node::start(&lab.node, settings())?;
    let added = added(&node)?;
    ensure!(added.config.contains(&format!("\n# Receipts = {}\n", added.signer)), "no key");
    let mut machine = Machine::new(&lab)?;
    let path = machine.conf("exit.conf", &added.config)?;
    machine.connect(&["--conf", &path])?;
    let server = tcp::Server::start(&lab.internet)?;
    tcp::parallel(&lab.consumer, server.at(SERVER_V4.into()), Direction::Down, 1, 4_000_000)?;
    let (receipt, status) = until("a receipt of what was carried", LIMIT, || {
        let (receipt, status) = shown(&machine, 1)?;
        ensure!(receipt.billed() > 4_000_000, "{receipt:?}");
        Ok((receipt, status))
    })?;
    receipt.verify(&added.signer).context("it is not the node's")?;
    assert_eq!(status["receipt"]["pinned"]["origin"], "configuration");
    ensure!(status["billed_bytes"].as_u64() >= Some(receipt.billed()), "{status}");
    // The node's own records have it, to the byte.
    let records = node.records()?;
    ensure!(records.iter().any(|record| record.receipt == receipt), "{receipt:?}");
    let text = machine.weir(&["connect", "--status"])?;
    ensure!(text.contains("receipt    number "), "{text}");
    ensure!(text.contains("the configuration names its key"), "{text}");

    // It is kept, and what comes next must not be less.
    machine.disconnect()?;
    assert_eq!(machine.status()?["state"], "off");
    let (kept, _) = shown(&machine, receipt.sequence)?;
    kept.verify(&added.signer).context("what was kept is another one's")?;
    machine.connect(&["--conf", &path])?;
    until("a receipt of the second connection", LIMIT, || shown(&machine, kept.sequence + 1))?;
    ensure!(!machine.log().contains("its usage receipt is wrong"), "{}", machine.log());
    Ok(())
}

/// Connects to a foreign exit that gives receipts, and then to an honest node beside it.
fn leaves_for(cheats: Receipts, expected: &[&str]) -> Result<()> {
    let lab = Lab::new()?;
    let other = lab.another_node(4)?;
    let cheat = ForeignExit::start(&lab)?;
    cheat.receipts(Receipts::HONEST);
    let honest = Node::start(&other, Settings::default())?;
    let mut machine = Machine::new(&lab)?;
    let one = machine.conf("cheat.conf", cheat.conf())?;
    let two = machine.conf("honest.conf", &added(&honest)?.config)?;
    machine.connect(&["--conf", &one, "--conf", &two])?;
    // As long as the receipts are right, it stays.
    until("a right receipt", LIMIT, || {
        let (receipt, status) = shown(&machine, 1)?;
        assert_eq!(status["receipt"]["pinned"]["origin"], "first_use");
        Ok(receipt.verify(cheat.signer())?)
    })?;
    assert_eq!(machine.status()?["node"], "cheat.conf", "{}", machine.log());
    cheat.receipts(cheats);
    machine.wait_connected("honest.conf")?;
    let why = machine.status()?["last_change"].to_string();
    ensure!(why.contains("cheat.conf: its usage receipt is wrong"), "{why}");
    ensure!(expected.iter().any(|text| why.contains(text)), "{why}");
    // The evidence that was right stays.
    let files: Vec<_> = fs::read_dir(machine.kept().join("receipts"))?.collect::<Result<_, _>>()?;
    ensure!(files.len() == 1, "{files:?}");
    Ok(())
}

#[test]
fn an_exit_whose_receipt_was_changed_after_it_was_signed_is_left() -> Result<()> {
    let changed = |receipt: &mut Receipt| receipt.bytes_up -= 1;
    leaves_for(Receipts { after: changed, ..Receipts::HONEST }, &["it has a wrong signature"])
}

#[test]
fn an_exit_that_signs_more_than_it_bills_is_left() -> Result<()> {
    let more = |receipt: &mut Receipt| receipt.bytes_up += 1_000_000;
    leaves_for(Receipts { before: more, ..Receipts::HONEST }, &["and the bill"])
}

#[test]
fn an_exit_whose_receipts_go_back_is_left() -> Result<()> {
    let less = |receipt: &mut Receipt| receipt.bytes_up = 1;
    // It is below the receipt before, and below the bill of then: either may be noticed first.
    leaves_for(Receipts { before: less, ..Receipts::HONEST }, &["bytes_up was", "an earlier bill"])
}
