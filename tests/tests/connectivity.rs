//! A consumer reaches the internet, whatever the families inside and outside the tunnel.

use anyhow::Result;
use weir_tests::{
    Client, Lab, Node, Settings,
    lab::SERVERS,
    steps::{connected, everything_passes, fifty_streams_pass, outside},
    traffic::udp,
};

#[test]
fn both_families_pass_inside_both_families() -> Result<()> {
    let lab = Lab::new()?;
    let node = Node::start(&lab.node, Settings::default())?;
    for outer in SERVERS {
        let added = node.session_add(if outer.is_ipv4() { "by-v4" } else { "by-v6" })?;
        let client = Client::connect_with(&lab.consumer, &outside(&added.config, outer)?)?;
        everything_passes(&lab, &client)?;
    }
    Ok(())
}

#[test]
fn fifty_tcp_streams_pass_at_once() -> Result<()> {
    let lab = Lab::new()?;
    let (_node, _added, _client) = connected(&lab, Settings::default())?;
    fifty_streams_pass(&lab)
}

#[test]
fn fifty_udp_flows_pass_at_once() -> Result<()> {
    let lab = Lab::new()?;
    let (_node, _added, _client) = connected(&lab, Settings::default())?;
    for address in SERVERS {
        let echo = udp::Echo::start(&lab.internet, address)?;
        udp::parallel(&lab.consumer, echo.at(address), 50, &[40, 700, 1352], 10)?;
    }
    Ok(())
}
