//! `weir connect --promise-key`: a session of a file is paid as it goes, with promises.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use weir_tests::{
    Lab, Node,
    connect::Machine,
    lab::{SERVER_V4, SERVERS},
    node::Added,
    payer::paid,
    traffic::tcp::{self, Direction},
    until,
};

/// What may be unpaid, in bytes. A byte costs a wei.
const UNPAID: u64 = 2 << 20;
/// The most to promise, in wei.
const BUDGET: u64 = 12_000_000;
const LIMIT: Duration = Duration::from_secs(60);

/// What the node would settle, and with that what it has been promised.
fn promised_to(node: &Node<'_>) -> Result<u64> {
    let config = node.config_path();
    let text =
        node.weir(&["--config", config.to_str().context("a path")?, "ledger", "settlements"])?;
    let [line] = text.lines().collect::<Vec<_>>()[..] else { anyhow::bail!("one channel: {text}") };
    let best: Value = serde_json::from_str(line)?;
    Ok(best["amount"].as_str().context("an amount")?.parse()?)
}

/// What the node has billed, in bytes.
fn billed(node: &Node<'_>) -> Result<u64> {
    let session = node.session_show("c")?;
    Ok(session.bytes_up + session.bytes_down)
}

/// What the consumer remembers that its channel has promised.
fn remembered(key: &Path) -> Result<u64> {
    let text = fs::read_to_string(key.with_extension("key.promised"))?;
    let record: Value = serde_json::from_str(&text)?;
    let channels = record["channels"].as_object().context("channels")?;
    let [amount] = channels.values().collect::<Vec<_>>()[..] else { anyhow::bail!("{text}") };
    Ok(amount.as_str().context("an amount")?.parse()?)
}

#[test]
fn a_session_is_paid_as_it_goes_and_never_beyond_the_budget() -> Result<()> {
    let lab = Lab::new()?;
    let unpaid_mib = (UNPAID >> 20).to_string();
    let node = Node::start(&lab.node, paid().with("payment", "unpaid_mib", &unpaid_mib))?;
    let added = node.weir(&["session", "add", "--prepaid", "--name", "c", "--json"])?;
    let added: Added = serde_json::from_str(&added)?;
    let mut machine = Machine::new(&lab)?;
    let conf = machine.conf("exit.conf", &added.config)?;
    let key = machine.conf("id.key", &"07".repeat(32))?;
    let budget = BUDGET.to_string();
    let words = ["--conf", &conf, "--promise-key", &key, "--budget", &budget];
    let open = machine.weir(&[&["connect"], &words[..]].concat());
    ensure!(format!("{:#}", open.expect_err("others can read it")).contains("chmod 600"));
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600))?;
    machine.connect(&words)?;
    // It begins paused, and the first promise opens it.
    machine.reaches(SERVER_V4.into())?;
    let server = tcp::Server::start(&lab.internet)?;
    let mut moved = 0;
    while moved < 6 << 20 {
        tcp::parallel(&lab.consumer, server.at(SERVERS[0]), Direction::Down, 1, 1 << 20)
            .with_context(|| machine.log())?;
        moved += 1 << 20;
    }
    until("what is used is paid", LIMIT, || {
        let (promised, billed) = (promised_to(&node)?, billed(&node)?);
        ensure!(billed - promised < UNPAID, "{promised} of {billed}:\n{}", machine.log());
        ensure!(promised == remembered(Path::new(&key))?, "{}", machine.log());
        Ok(())
    })?;
    ensure!(machine.log().matches("Paid ").count() > 2, "{}", machine.log());

    // The connection ends when the node asks for more than is left.
    until("the budget is spent", LIMIT, || {
        lab.consumer.run(&format!("ping -n -q -c 100 -i 0.005 -s 1300 -W 1 {SERVER_V4}")).ok();
        ensure!(machine.log().contains("its session is used up"), "{}", machine.log());
        Ok(())
    })?;
    let promised = promised_to(&node)?;
    ensure!(promised <= BUDGET && promised + UNPAID + 100_000 > BUDGET, "{promised} of {BUDGET}");
    assert_eq!(promised, remembered(Path::new(&key))?);
    let said = machine.log();
    let sum: u64 = said
        .lines()
        .filter_map(|line| line.strip_prefix("Paid ")?.split(' ').next()?.parse::<u64>().ok())
        .sum();
    assert_eq!(sum, promised, "{said}");
    Ok(())
}
