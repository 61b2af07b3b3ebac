//! How consumers' packets leave, as the operator chooses it and sees it.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use weir_ledger::{BlockEvent, Ledger, Ports, SessionId};
use weir_tests::{
    Lab, Node, Settings,
    steps::{connected, everything_passes, fifty_streams_pass},
    until,
};

fn settings(egress: &str) -> Settings {
    Settings::default().with("node", "egress", &format!("{egress:?}"))
}

#[test]
fn through_the_kernel_everything_passes_and_the_operator_is_told_why() -> Result<()> {
    let lab = Lab::new()?;
    let (node, _added, client) = connected(&lab, settings("kernel"))?;
    everything_passes(&lab, &client)?;
    let status = node.status()?;
    ensure!(status.egress.mode == "kernel", "{:?}", status.egress);
    ensure!(status.egress.reason == "node.egress is \"kernel\"", "{:?}", status.egress);
    ensure!(status.nat.is_none(), "{:?}", status.nat);
    let flows = node.weir(&["flows"])?;
    ensure!(flows.starts_with("egress  kernel: node.egress is"), "{flows}");
    ensure!(flows.contains("conntrack -C"), "{flows}");
    let metrics = node.metrics()?;
    ensure!(metrics.contains("weir_egress{mode=\"kernel\"} 1\n"), "{metrics}");
    ensure!(!metrics.contains("weir_nat_"), "{metrics}");
    Ok(())
}

#[test]
fn who_held_a_port_is_known_while_the_node_runs_and_while_it_is_stopped() -> Result<()> {
    let lab = Lab::new()?;
    let mut node = Node::start(&lab.node, Settings::default())?;
    let session: SessionId = node.session_add("alice")?.session.id.parse()?;
    node.stop()?;
    let ports = Ports { address: [45, 80, 2, 2].into(), first: 4704, length: 32 };
    let mut ledger = Ledger::open(&node.ledger_path())?;
    ledger.live()?;
    ledger.write_blocks(&[BlockEvent::Taken { session, ports, at: 1_700_000_000 }])?;
    drop(ledger);
    let file = node.ledger_path().to_string_lossy().into_owned();
    let question = ["flows", "owner", "45.80.2.2:4711", "1700000030", "--file", &file];
    let ask = |node: &Node| node.weir(&question);
    let expected = format!("session {session} held ports 4704-4735 from 2023-11-14 22:13:20 UTC");
    let stopped = ask(&node)?;
    ensure!(stopped == format!("{expected} to now\n"), "{stopped}");
    node.restart()?;
    ensure!(ask(&node)? == stopped, "{}", ask(&node)?);
    // The session ends, and with it what it holds.
    node.weir(&["session", "remove", "alice"])?;
    let ended = ask(&node)?;
    ensure!(ended.starts_with(&expected) && !ended.contains("to now"), "{ended}");
    Ok(())
}

#[test]
fn past_the_kernel_everything_passes_and_the_node_has_the_flows() -> Result<()> {
    let lab = Lab::new()?;
    let (node, added, client) = connected(&lab, settings("bypass"))?;
    // Nothing of the kernel's forwarding is needed.
    lab.node.run("sysctl -q -w net.ipv4.ip_forward=0")?;
    lab.node.run("sysctl -q -w net.ipv6.conf.all.forwarding=0")?;
    everything_passes(&lab, &client)?;
    let status = node.status()?;
    ensure!(status.egress.mode == "bypass", "{:?}", status.egress);
    ensure!(status.egress.reason.contains("45.80.2.2"), "{:?}", status.egress);
    let flows = until("the flows are counted", Duration::from_secs(30), || {
        let flows = node.weir(&["flows"])?;
        ensure!(flows.contains(&added.session.id), "{flows}");
        Ok(flows)
    })?;
    ensure!(flows.starts_with("egress  bypass: "), "{flows}");
    let metrics = node.metrics()?;
    ensure!(metrics.contains("weir_egress{mode=\"bypass\"} 1\n"), "{metrics}");
    Ok(())
}

#[test]
fn past_the_kernel_fifty_streams_pass_at_once_each_way() -> Result<()> {
    let lab = Lab::new()?;
    let (_node, _added, _client) = connected(&lab, settings("bypass"))?;
    fifty_streams_pass(&lab)
}

#[test]
fn a_bypass_that_cannot_be_is_refused_and_nothing_stays_changed() -> Result<()> {
    let lab = Lab::new()?;
    let looks =
        || Ok::<_, anyhow::Error>((lab.node.run("nft list ruleset")?, lab.node.ip("link")?));
    let before = looks()?;
    let through_sockets = settings("bypass").with("node", "receive", "\"sockets\"");
    let refused = Node::start(&lab.node, through_sockets).err().context("it started")?;
    let refused = format!("{refused:#}");
    ensure!(refused.contains("node.egress is \"bypass\""), "{refused}");
    ensure!(refused.contains("node.receive is \"sockets\""), "{refused}");
    let after = looks()?;
    ensure!(before == after, "{before:?}\n{after:?}");
    Ok(())
}

#[test]
fn past_the_kernel_other_programs_firewalls_make_no_difference() -> Result<()> {
    let lab = Lab::new()?;
    let (node, _added, client) = connected(&lab, settings("bypass"))?;
    // As firewalld has it, and as Docker has it.
    let forward = |table: &str, priority: i32, verdict: &str| -> Result<()> {
        let chain = "{ type filter hook forward priority";
        lab.node.run(&format!("nft add table {table}"))?;
        lab.node.run(&format!("nft add chain {table} forward {chain} {priority} ; }}"))?;
        lab.node.run(&format!("nft add rule {table} forward {verdict}"))?;
        Ok(())
    };
    forward("inet firewalld", 10, "reject with icmpx type admin-prohibited")?;
    forward("ip docker", 0, "drop")?;
    lab.node.run("nft add table ip nat")?;
    lab.node
        .run("nft add chain ip nat postrouting { type nat hook postrouting priority 100 ; }")?;
    lab.node.run("nft add rule ip nat postrouting masquerade")?;
    everything_passes(&lab, &client)?;
    let host = node.status()?.host;
    ensure!(host.iter().all(|it| it.part != "firewall"), "{host:?}");
    lab.node.run("nft flush ruleset")?;
    everything_passes(&lab, &client)?;
    let egress = node.status()?.egress;
    ensure!(egress.mode == "bypass", "{egress:?}");
    Ok(())
}
