//! `weir connect` and `weir exec` with the kernel's WireGuard, in the machine's namespace of a
//! consumer.

use anyhow::{Result, ensure};
use serde_json::Value;
use weir_tests::{
    lab::{SERVER_V4, SERVERS},
    node::Added,
};

use crate::{guest::Guest, network::CONSUMER};

const CONF: &str = "/run/connect.conf";

pub(crate) fn connect(guest: &Guest, added: &Added) -> Result<()> {
    guest.write(CONF, &added.config)?;
    let inside = |line: &str| guest.run(&format!("nsenter --net=/run/netns/{CONSUMER} {line}"));
    let before = changes(&inside)?;
    inside(&format!("weir connect --conf {CONF} --wireguard kernel --background </dev/null"))?;
    let status: Value = serde_json::from_str(&inside("weir connect --status --json")?)?;
    ensure!(status["engine"] == "the kernel's WireGuard", "{status}");
    for server in SERVERS {
        inside(&format!("ping -n -q -c 2 -W 10 {server}"))?;
    }
    let beside = inside(&format!("ping -n -q -c 1 -W 2 -I wan0 {SERVER_V4}"));
    ensure!(beside.is_err(), "a ping left beside the tunnel");
    inside("weir disconnect")?;
    let after = changes(&inside)?;
    ensure!(after == before, "{before}\nbecame\n{after}");
    let ping = format!("ping -n -q -c 2 -W 10 {SERVER_V4}");
    inside(&format!("weir exec --conf {CONF} --wireguard kernel -- {ping}"))?;
    guest.run(&format!("rm -r {CONF} /run/weir-connect"))?;
    Ok(())
}

/// What a connection changes.
fn changes(inside: &impl Fn(&str) -> Result<String>) -> Result<String> {
    let lines = ["ip rule", "ip -6 rule", "ip route show table 30565", "nft list tables"];
    lines.into_iter().map(|line| inside(line).or_else(|_| Ok(String::new()))).collect()
}
