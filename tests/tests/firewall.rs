//! The machine's own firewall and the node.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use weir_tests::{
    Client, Lab, Node, Settings,
    lab::SERVERS,
    node::binary,
    steps::{everything_passes, outside},
    until,
};

/// Has `nft` carry out a text on the node's machine.
fn install(lab: &Lab, text: &str) -> Result<()> {
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), text)?;
    lab.node.run(&format!("nft -f {}", file.path().display()))?;
    Ok(())
}

#[test]
fn consumers_are_served_behind_a_firewall_that_asks_for_states_both_ways() -> Result<()> {
    for receive in ["\"auto\"", "\"sockets\""] {
        let lab = Lab::new()?;
        install(
            &lab,
            "table inet theirs {
                 chain in { type filter hook input priority 0; policy drop
                     iifname lo accept
                     ct state vmap { established : accept, related : accept, invalid : drop }
                     icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-advert } accept
                     udp dport 51820 ct state new accept
                 }
                 chain out { type filter hook output priority 0; policy drop
                     oifname lo accept
                     ct state established,related accept
                     icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
                 }
             }",
        )?;
        let node = Node::start(&lab.node, Settings::default().with("node", "receive", receive))?;
        ensure!(!node.log().contains("theirs"), "{}", node.log());
        for like in SERVERS {
            let name = if like.is_ipv4() { "v4" } else { "v6" };
            let added = node.session_add(name)?;
            let client = Client::connect_with(&lab.consumer, &outside(&added.config, like)?)?;
            everything_passes(&lab, &client).with_context(|| format!("{receive} {name}"))?;
        }
    }
    Ok(())
}

#[test]
fn the_start_the_status_and_doctor_name_a_chain_that_refuses_and_what_to_type() -> Result<()> {
    let lab = Lab::new()?;
    install(
        &lab,
        "table inet theirs {
             chain forwards { type filter hook forward priority 10; policy accept
                 ct state established,related accept
                 iifname lo accept
                 ct state invalid drop
                 reject with icmpx admin-prohibited
             }
         }",
    )?;
    let by_kernel = Settings::default().with("node", "egress", "\"kernel\"");
    let node = Node::start(&lab.node, by_kernel)?;
    let fix = "nft insert rule inet theirs forwards iifname weir0 accept";
    let mut doctor = lab.node.command(&binary()?.to_string_lossy());
    let doctor = doctor.args(["doctor", "--json", "--config"]).arg(node.config_path()).output()?;
    let report: Value = serde_json::from_slice(&doctor.stdout)?;
    let findings = report["findings"].as_array().context("no findings")?;
    let finding = findings.iter().find(|it| it["check"] == "firewall").context("no check")?;
    ensure!(finding["fix"] == fix, "{finding}");
    for (who, said) in [("the start", node.log()), ("the status", node.weir(&["status"])?)] {
        // The screen breaks lines.
        let words = said.split_whitespace().collect::<Vec<_>>().join(" ");
        ensure!(words.contains("chain inet theirs forwards refuses"), "{who} says:\n{said}");
        ensure!(words.contains(fix), "{who} says:\n{said}");
    }
    let about_it = |said: &str| said.matches("inet theirs forwards refuses").count();
    ensure!(about_it(&node.log()) == 1, "said once:\n{}", node.log());
    let status = node.weir(&["status", "--json"])?;
    // What consumers send, in the one condition of the chain.
    ensure!(about_it(&status) == 1, "said once:\n{status}");
    // What it says helps, and nothing is said of it any more.
    lab.node.run(fix)?;
    until("the condition goes", Duration::from_secs(30), || {
        let status = node.weir(&["status", "--json"])?;
        ensure!(about_it(&status) == 0, "{status}");
        Ok(())
    })?;
    let added = node.session_add("consumer")?;
    let client = Client::connect(&lab.consumer, &added.config)?;
    client.wait_connected(SERVERS[0])
}
