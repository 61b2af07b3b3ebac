//! After kill -9 the node goes on where it was.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use weir_tests::{
    Lab, Settings,
    lab::SERVERS,
    node::Session,
    steps::connected,
    traffic::tcp::{self, Direction},
    until,
};

const LENGTH: u64 = 400_000_000;

#[test]
fn a_killed_node_goes_on_with_its_sessions_counts_and_traffic() -> Result<()> {
    let lab = Lab::new()?;
    let (mut node, added, _client) = connected(&lab, Settings::default())?;
    let server = tcp::Server::start(&lab.internet)?;
    let rules = node.nft_table()?;
    let mode = node.status()?.xdp_mode;
    let progress = AtomicU64::new(0);
    let at = server.at(SERVERS[0]);
    let transfer = || tcp::transfer(&lab.consumer, at, Direction::Up, LENGTH, &progress);
    let before = thread::scope(|scope| -> Result<Session> {
        let transfer = scope.spawn(transfer);
        until("the transfer runs", Duration::from_secs(20), || {
            ensure!(progress.load(Ordering::Relaxed) > LENGTH / 20, "it has just begun");
            Ok(())
        })?;
        let before = node.session_show(&added.session.id)?;
        // By the node's own NAT, a connection goes on after a kill if the ledger says whose port it has.
        if node.status()?.egress.mode == "bypass" {
            let external = lab.internet.run(&format!("ss -Htn sport = :{}", at.port()))?;
            let external = external.split_whitespace().last().context("no connection")?;
            let external: SocketAddr = external.parse()?;
            let external =
                SocketAddr::new(external.ip().to_canonical(), external.port()).to_string();
            let ledger = node.ledger_path().to_string_lossy().into_owned();
            until("the ledger knows whose port it is", Duration::from_secs(5), || {
                let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
                let now = now.to_string();
                let said = node.weir(&["flows", "owner", &external, &now, "--file", &ledger])?;
                ensure!(said.contains("held ports"), "{external}: {said}");
                Ok(())
            })?;
        }
        node.kill()?;
        ensure!(!transfer.is_finished(), "the transfer was too short for this test");
        node.restart()?;
        let after = node.session_show(&added.session.id)?;
        ensure!(after.public_key == before.public_key && after.slot == before.slot, "{after:?}");
        ensure!(after.bytes_up >= before.bytes_up, "{before:?} {after:?}");
        ensure!(after.bytes_down >= before.bytes_down, "{before:?} {after:?}");
        transfer.join().map_err(|_| anyhow!("the transfer panicked"))??;
        Ok(before)
    })?;
    let after = node.session_show(&added.session.id)?;
    ensure!(after.bytes_up >= LENGTH, "{before:?} {after:?}");
    ensure!(node.nft_table()? == rules, "the rules are others than before the kill");
    ensure!(node.status()?.xdp_mode == mode, "the guard is not as before");
    Ok(())
}

#[test]
fn a_killed_node_serves_again_after_each_of_several_kills() -> Result<()> {
    let lab = Lab::new()?;
    let (mut node, added, client) = connected(&lab, Settings::default())?;
    let mut bytes = 0;
    for _ in 0..3 {
        node.kill()?;
        node.restart()?;
        client.wait_connected(SERVERS[0])?;
        let session = node.session_show(&added.session.id)?;
        ensure!(session.bytes_up > bytes, "{} after {bytes}", session.bytes_up);
        bytes = session.bytes_up;
    }
    Ok(())
}
