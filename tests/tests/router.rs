//! The host forwards only while consumers' packets leave through its kernel.

use std::time::Duration;

use anyhow::{Result, ensure};
use weir_tests::{
    Lab, Node, Settings,
    lab::UPLINK,
    steps::{connected, everything_passes},
    until,
};

/// The IPv4 forwarding of the uplink, which the kernel way turns on.
const FORWARDING: &str = "net.ipv4.conf.up0.forwarding";

fn by(egress: &str) -> Settings {
    Settings::default().with("node", "egress", &format!("{egress:?}"))
}

/// A node that finds only at its start that it cannot exit past the kernel.
fn falling_back() -> Settings {
    by("auto").with("node", "xdp", "\"generic\"")
}

/// What makes a router of the host, without the node's own device. Every node turns GRO on.
fn router(lab: &Lab) -> Result<Vec<String>> {
    let sysctls = lab.node.run("sysctl -a --ignore --pattern ^net.*(forward|accept_ra)")?;
    let offloads = lab.node.run(&format!("ethtool -k {UPLINK}"))?;
    let kept =
        |line: &&str| !line.contains("weir0") && !line.starts_with("generic-receive-offload: ");
    Ok(sysctls.lines().chain(offloads.lines()).filter(kept).map(str::to_owned).collect())
}

fn is_on(lab: &Lab, key: &str) -> Result<bool> {
    Ok(lab.node.run(&format!("sysctl -n -e {key}"))?.trim() == "1")
}

fn is_router(lab: &Lab, before: &[String]) -> Result<()> {
    let now = router(lab)?;
    ensure!(now != before && is_on(lab, FORWARDING)?, "no router: {now:#?}");
    ensure!(is_on(lab, "net.ipv4.conf.weir0.forwarding")?, "weir0 does not forward");
    let features = lab.node.run(&format!("ethtool -k {UPLINK}"))?;
    ensure!(features.contains("rx-udp-gro-forwarding: on"), "{features}");
    Ok(())
}

fn is_no_router(lab: &Lab, before: &[String]) -> Result<()> {
    let now = router(lab)?;
    let changed: Vec<_> = now.iter().filter(|line| !before.contains(line)).collect();
    ensure!(now == before, "changed: {changed:#?}");
    for key in ["net.ipv4.conf.weir0.forwarding", "net.ipv6.conf.weir0.force_forwarding"] {
        ensure!(!is_on(lab, key)?, "{key} is on");
    }
    Ok(())
}

#[test]
fn past_the_kernel_the_host_does_not_become_a_router() -> Result<()> {
    let lab = Lab::new()?;
    let before = router(&lab)?;
    let (mut node, _added, client) = connected(&lab, by("bypass"))?;
    is_no_router(&lab, &before)?;
    everything_passes(&lab, &client)?;
    is_no_router(&lab, &before)?;
    // The host may forward for its own purposes: the node does not interfere.
    let table = node.nft_table()?;
    ensure!(!table.contains("goto transit"), "{table}");
    let switches = ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"];
    for value in ["1", "0", "1"] {
        for key in switches {
            lab.node.sysctl(key, value)?;
        }
        let looks = |node: &Node<'_>| -> Result<String> {
            let metrics = node.metrics()?;
            let line = metrics.lines().find(|line| line.starts_with("weir_host_looks_total "));
            Ok(line.unwrap_or_default().to_owned())
        };
        let first = looks(&node)?;
        until("the watch looks", Duration::from_secs(30), || {
            ensure!(looks(&node)? != first, "{first}");
            Ok(())
        })?;
        for key in switches {
            ensure!(is_on(&lab, key)? == (value == "1"), "{key} is no longer {value}");
        }
    }
    let restored = node.status()?.restored;
    ensure!(restored.iter().all(|it| it.times == 0), "{restored:?}");
    everything_passes(&lab, &client)?;
    node.stop()?;
    for key in switches {
        ensure!(is_on(&lab, key)?, "the stopped node turned {key} off");
    }
    Ok(())
}

#[test]
fn a_node_that_falls_back_to_the_kernel_has_it_forward_for_consumers_alone() -> Result<()> {
    let lab = Lab::new()?;
    let before = router(&lab)?;
    let (mut node, _added, client) = connected(&lab, falling_back())?;
    let status = node.status()?;
    ensure!(status.egress.mode == "kernel", "{:?}", status.egress);
    ensure!(status.offloads.iter().any(|it| it.contains("forwarded UDP GRO on")), "{status:?}");
    everything_passes(&lab, &client)?;
    is_router(&lab, &before)?;
    let table = node.nft_table()?;
    ensure!(table.contains("goto transit"), "{table}");
    // The next start does not take what the killed node turned on for the host's own.
    node.kill()?;
    node.restart()?;
    everything_passes(&lab, &client)?;
    is_router(&lab, &before)?;
    ensure!(node.nft_table()? == table, "other rules:\n{table}\n{}", node.nft_table()?);
    drop(client);
    node.stop()?;
    is_no_router(&lab, &before)?;
    // Nor what others have turned on since for its own.
    node.restart()?;
    node.kill()?;
    lab.node.sysctl("net.ipv4.ip_forward", "1")?;
    node.restart()?;
    node.stop()?;
    ensure!(is_on(&lab, FORWARDING)?, "the stopped node turned the host's forwarding off");
    Ok(())
}

#[test]
fn what_a_killed_node_turned_on_is_off_when_the_next_one_exits_past_the_kernel() -> Result<()> {
    // The first node exits through the kernel as configured, or because of a routing rule.
    for (kernel, has_rule) in [(by("kernel"), false), (by("auto"), true)] {
        let lab = Lab::new()?;
        let rule = |action: &str| -> Result<()> {
            if has_rule {
                lab.node.ip(&format!("rule {action} from 192.0.2.9 table 99"))?;
            }
            Ok(())
        };
        let before = router(&lab)?;
        rule("add")?;
        let (mut node, _added, client) = connected(&lab, kernel.clone())?;
        is_router(&lab, &before)?;
        node.kill()?;
        ensure!(is_on(&lab, FORWARDING)?, "the killed node left nothing on");
        rule("del")?;
        node.configure(by("bypass"))?;
        node.restart()?;
        is_no_router(&lab, &before)?;
        everything_passes(&lab, &client)?;
        // And the other way round.
        node.kill()?;
        rule("add")?;
        node.configure(kernel)?;
        node.restart()?;
        everything_passes(&lab, &client)?;
        is_router(&lab, &before)?;
        drop(client);
        node.stop()?;
        is_no_router(&lab, &before)?;
    }
    Ok(())
}
