//! A consumer that moves stays connected.

use anyhow::{Context as _, Result, ensure};
use weir_tests::{Client, Lab, Node, Settings, lab::SERVERS, steps::outside};

#[test]
fn a_consumer_with_a_new_port_or_address_stays_connected_without_a_handshake() -> Result<()> {
    let lab = Lab::new()?;
    let node = Node::start(&lab.node, Settings::default())?;
    for outer in SERVERS {
        let added = node.session_add(if outer.is_ipv4() { "by-v4" } else { "by-v6" })?;
        let client = Client::connect_with(&lab.consumer, &outside(&added.config, outer)?)?;
        client.wait_connected(SERVERS[0])?;
        let handshake = client.last_handshake()?;
        client.set("listen-port 40404")?;
        client.wait_connected(SERVERS[0]).context("with a new port")?;
        lab.move_consumer(outer)?;
        client.wait_connected(SERVERS[0]).context("with a new address")?;
        client.wait_connected(SERVERS[1])?;
        ensure!(client.last_handshake()? == handshake, "it shook hands again");
    }
    Ok(())
}
