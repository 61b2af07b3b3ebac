//! A disk that is really full: nothing new is sold, everything is counted.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use weir_tests::{Client, Lab, Node, Settings, lab::SERVERS, until};

const TIMEOUT: Duration = Duration::from_secs(30);

fn writable(node: &Node<'_>) -> Result<bool> {
    let page = node.metrics()?;
    let line = page.lines().find(|line| line.starts_with("weir_ledger_writable "));
    Ok(line.context("no such metric")?.ends_with(" 1"))
}

#[test]
fn with_a_full_disk_nothing_new_is_sold_and_no_byte_is_lost_or_doubled() -> Result<()> {
    let lab = Lab::new()?;
    let settings = Settings::default().with("ledger", "record_seconds", "2");
    let mut node = Node::prepare(&lab.node, settings)?;
    node.put_state_on_disk(8)?;
    node.restart()?;
    let added = node.session_add("consumer")?;
    let id = added.session.id;
    node.weir(&["session", "credit", &id, "--bytes", "100000000", "--reference", "first"])?;
    let client = Client::connect(&lab.consumer, &added.config)?;
    client.wait_connected(SERVERS[0])?;
    client.ping(SERVERS[0], 20)?;
    ensure!(node.status()?.ledger_error.is_none() && writable(&node)?);

    node.disk()?.fill()?;
    until("the node says that the disk is full", TIMEOUT, || {
        client.ping(SERVERS[0], 5)?;
        let error = node.status()?.ledger_error.context("all is well")?;
        ensure!(error.contains("disk") && error.contains("full"), "{error}");
        Ok(())
    })?;
    ensure!(!writable(&node)?, "the metric says that the ledger can be written");
    ensure!(node.log().contains("cannot write the ledger"), "{}", node.log());
    let refused = node.session_add("too much").err().context("there is no room")?.to_string();
    ensure!(refused.contains("full") && refused.contains("Free some space"), "{refused}");
    let credit = ["session", "credit", &id, "--bytes", "1000", "--reference", "second"];
    let refused = node.weir(&credit).expect_err("there is no room").to_string();
    ensure!(refused.contains("full"), "{refused}");
    ensure!(node.session_list()?.len() == 1, "a refused session is there");

    let before = node.session_show(&id)?;
    client.ping(SERVERS[0], 50)?;
    let after = node.session_show(&id)?;
    ensure!(after.packets_up >= before.packets_up + 50, "{before:?} {after:?}");
    ensure!(node.is_running()?, "the node ended:\n{}", node.log());

    node.disk()?.clear()?;
    until("the node goes on by itself", TIMEOUT, || {
        let error = node.status()?.ledger_error;
        ensure!(error.is_none(), "{error:?}");
        Ok(())
    })?;
    ensure!(writable(&node)?, "the metric says that the ledger cannot be written");
    ensure!(node.log().contains("the ledger is writable again"), "{}", node.log());
    node.session_add("welcome")?;
    // The request that was refused before is made once now, also when it is repeated.
    for _ in 0..2 {
        node.weir(&credit)?;
    }
    client.ping(SERVERS[0], 20)?;
    until("both ends agree", TIMEOUT, || {
        let (theirs, ours) = (client.transfer()?, node.session_show(&id)?);
        ensure!(theirs.sent == ours.bytes_up + ours.handshake_bytes_up, "{theirs:?} {ours:?}");
        let down = ours.bytes_down + ours.handshake_bytes_down;
        ensure!(theirs.received == down, "{theirs:?} {ours:?}");
        Ok(())
    })?;
    let ours = node.session_show(&id)?;
    node.stop()?;
    let records = node.records()?;
    let last = records.iter().rfind(|record| record.session == id).context("no record")?;
    ensure!(last.bytes_up == ours.bytes_up && last.bytes_down == ours.bytes_down, "{last:?}");
    let sequences: Vec<u64> =
        records.iter().filter(|record| record.session == id).map(|one| one.sequence).collect();
    ensure!(sequences.iter().zip(1..).all(|(found, wanted)| *found == wanted), "{sequences:?}");
    Ok(())
}
