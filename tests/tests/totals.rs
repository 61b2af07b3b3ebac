//! The ledger's total, the sum of the records and what the consumers of a hundred sessions counted are
//! one number, over new keys, new addresses and restarts.

use std::{thread, time::Duration};

use anyhow::{Context as _, Result, anyhow, ensure};
use weir_common::wire::INITIATION_LEN;
use weir_tests::{
    Client, Lab, Node, Settings,
    lab::{SERVER_V4, SERVERS},
    node::Added,
    until,
    wgquick::WgQuick,
};

const SESSIONS: usize = 100;
/// Those of them that are used. Each wireguard-go takes one of 128 inotify instances of the machine.
const USED: usize = 40;
const AT_ONCE: usize = 4;
const TIMEOUT: Duration = Duration::from_secs(60);

type Consumer<'a> = (Added, Client<'a>);

/// Does something for each, a few at once.
fn each<T: Sync, R: Send>(all: &[T], work: impl Fn(&T) -> Result<R> + Sync) -> Result<Vec<R>> {
    thread::scope(|scope| {
        let parts = all.chunks(all.len().div_ceil(AT_ONCE).max(1));
        let work = &work;
        let parts: Vec<_> = parts
            .map(|part| scope.spawn(move || part.iter().map(work).collect::<Result<Vec<_>>>()))
            .collect();
        let mut results = Vec::new();
        for part in parts {
            results.extend(part.join().map_err(|_| anyhow!("a thread panicked"))??);
        }
        Ok(results)
    })
}

fn everybody_pings(consumers: &[Consumer<'_>], bytes: u32) -> Result<()> {
    each(consumers, |(_, client)| {
        let interface = client.interface();
        client
            .namespace()
            .run(&format!("ping -n -q -I {interface} -c 5 -i 0.02 -W 5 -s {bytes} {SERVER_V4}"))
    })
    .map(drop)
}

/// Waits until the node has initiated a handshake with every consumer, as it does after a crash.
fn resumed(node: &Node<'_>) -> Result<()> {
    until("every session is resumed", TIMEOUT, || {
        let handshakes = node.status()?.handshakes;
        ensure!(handshakes >= USED as u64, "{handshakes} handshakes");
        Ok(())
    })
}

#[test]
fn the_ledger_the_records_and_the_consumers_of_a_hundred_sessions_agree_to_the_byte() -> Result<()>
{
    let lab = Lab::new()?;
    // Nobody but the pings speaks, also while the node is down.
    lab.consumer.sysctl("net.ipv6.conf.default.router_solicitations", "0")?;
    let settings = Settings::default()
        .with("node", "handshakes_per_source", "1000")
        .with("node", "handshakes_per_source_burst", "1000")
        .with("ledger", "record_seconds", "1");
    let mut node = Node::start(&lab.node, settings)?;
    let numbers: Vec<usize> = (0..SESSIONS).collect();
    let sessions = each(&numbers, |number| node.session_add(&format!("consumer-{number}")))?;
    let consumers = each(&sessions[SESSIONS - USED..], |added| {
        let client = Client::start(&lab.consumer, &WgQuick::parse(&added.config)?)?;
        client.wait_connected(SERVERS[0])?;
        Ok((added.clone(), client))
    })?;
    everybody_pings(&consumers, 1200)?;

    let shook = |node: &Node<'_>| -> Result<u64> { Ok(node.status()?.handshakes) };
    let (before, some) = (shook(&node)?, &consumers[..USED / 4]);
    each(some, |(added, client)| client.forget_keys(&added.config))?;
    everybody_pings(&consumers, 300)?;
    let after = shook(&node)?;
    ensure!(after >= before + some.len() as u64, "new keys: {before} handshakes, then {after}");

    for (number, (_, client)) in consumers.iter().enumerate().step_by(3) {
        client.set(&format!("listen-port {}", 20_000 + number))?;
    }
    everybody_pings(&consumers, 64)?;
    lab.move_consumer(SERVERS[0])?;
    everybody_pings(&consumers, 700)?;

    // After a clean stop the consumers come by themselves, once they miss the node.
    node.stop()?;
    node.restart()?;
    each(&consumers, |(added, client)| client.forget_keys(&added.config))?;
    everybody_pings(&consumers, 100)?;
    node.kill()?;
    node.restart()?;
    resumed(&node)?;
    everybody_pings(&consumers, 900)?;

    let total = until("both ends agree", TIMEOUT, || {
        let all = node.session_list()?;
        let mut total = (0, 0);
        for (added, client) in &consumers {
            let ours = all.iter().find(|one| one.id == added.session.id).context("no session")?;
            let theirs = client.transfer()?;
            // An initiation that was sent while the node was dead reached nobody.
            let lost = theirs.sent.checked_sub(ours.bytes_up + ours.handshake_bytes_up);
            let lost = lost.with_context(|| format!("{theirs:?} {ours:?}"))?;
            ensure!(lost.is_multiple_of(INITIATION_LEN as u64), "{theirs:?} {ours:?}");
            let down = ours.bytes_down + ours.handshake_bytes_down;
            ensure!(theirs.received == down, "{theirs:?} {ours:?}");
            total = (total.0 + ours.bytes_up, total.1 + ours.bytes_down);
        }
        Ok(total)
    })?;
    ensure!(total.0 > USED as u64 * 10_000, "{total:?} is not the traffic");
    let page = node.metrics()?;
    for (direction, bytes) in [("up", total.0), ("down", total.1)] {
        let line = format!("weir_tunnel_bytes_total{{direction=\"{direction}\"}} {bytes}");
        ensure!(page.lines().any(|found| found == line), "no {line}");
    }
    node.stop()?;
    let records = node.records()?;
    let last = consumers.iter().map(|(added, _)| {
        let mut of_it = records.iter().rev();
        of_it.find(|record| record.session == added.session.id).context("no record")
    });
    let last = last.collect::<Result<Vec<_>>>()?;
    let sum = last.iter().fold((0, 0), |sum, one| (sum.0 + one.bytes_up, sum.1 + one.bytes_down));
    ensure!(sum == total, "the records say {sum:?}, the sessions {total:?}");
    Ok(())
}
