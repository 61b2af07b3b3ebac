//! Nothing that arrives at the port harms the node.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, ensure};
use weir_tests::{
    Lab, Settings,
    lab::{NODE_V4, NODE_V6, SERVERS},
    steps::connected,
    traffic::junk,
};

fn survives_junk(settings: Settings, stage: &str) -> Result<()> {
    let lab = Lab::new()?;
    let (mut node, _added, client) = connected(&lab, settings)?;
    let mut sent = 0;
    for address in [IpAddr::from(NODE_V4), NODE_V6.into()] {
        // The first datagram to a neighbour waits for its address; a flood would not.
        lab.consumer.run(&format!("ping -n -q -c 1 -w 10 {address}"))?;
        sent += junk::send(&lab.consumer, SocketAddr::new(address, 51820), 200)?;
    }
    client.ping(SERVERS[0], 5)?;
    ensure!(node.is_running()?, "the node ended:\n{}", node.log());
    let drops = node.status()?.drops;
    let at_stage = drops.iter().filter(|drop| drop.stage == stage);
    let counted: u64 = at_stage.map(|drop| drop.packets).sum();
    ensure!(counted > sent / 4 * 3, "{counted} of {sent} counted at {stage}: {drops:?}");
    Ok(())
}

#[test]
fn datagrams_of_every_length_and_type_are_dropped_and_counted_by_the_guard() -> Result<()> {
    survives_junk(Settings::default(), "xdp")
}

#[test]
fn without_the_guard_the_worker_drops_and_counts_them() -> Result<()> {
    survives_junk(Settings::default().with("node", "xdp", "\"off\""), "udp")
}
