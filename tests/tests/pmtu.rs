//! Packets that are too large: the consumer hears of it, and so does the operator.

use std::time::Duration;

use anyhow::{Result, ensure};
use weir_tests::{Client, Lab, Node, Settings, lab::SERVERS, suite::connected, until};

/// A network behind the internet's router with a smaller MTU.
fn narrow_network(lab: &Lab) -> Result<()> {
    lab.internet.ip("link add narrow mtu 1300 type veth peer name beyond")?;
    lab.internet.ip("addr add 45.80.4.1/24 dev narrow")?;
    lab.internet.ip("addr add 2a0c:b641:4::1/64 dev narrow nodad")?;
    lab.internet.ip("link set narrow up")?;
    lab.internet.ip("link set beyond up")?;
    Ok(())
}

#[test]
fn a_narrow_network_beyond_the_node_is_reported_to_the_consumer() -> Result<()> {
    let lab = Lab::new()?;
    narrow_network(&lab)?;
    let (_node, _added, client) = connected(&lab, Settings::default())?;
    client.wait_connected(SERVERS[1])?;
    for (network, host, length) in
        [("45.80.4.0/24", "45.80.4.9", 1392), ("2a0c:b641:4::/64", "2a0c:b641:4::9", 1372)]
    {
        client.route(network)?;
        until("the consumer knows the path's MTU", Duration::from_secs(20), || {
            // Nobody is there: what matters is the router's message on the way.
            lab.consumer.run(&format!("ping -n -c 1 -W 1 -M do -s {length} {host}")).ok();
            let route = lab.consumer.ip(&format!("route get {host}"))?;
            ensure!(route.contains("mtu 1300"), "{route}");
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn a_tunnel_mtu_that_does_not_fit_is_refused_with_the_largest_that_does() -> Result<()> {
    let lab = Lab::new()?;
    let settings = Settings::default().with("tunnel", "mtu", "1421");
    let node = Node::prepare(&lab.node, settings.clone())?;
    let file = node.config_path();
    let check = node.weir(&["config", "check", &file.to_string_lossy()]);
    let said = format!("{:#}", check.expect_err("1421 + 80 > 1500"));
    ensure!(said.contains("mtu = 1420"), "{said}");
    let start = Node::start(&lab.node, settings);
    let said = format!("{:#}", start.expect_err("1421 + 80 > 1500"));
    ensure!(said.contains("mtu = 1420"), "{said}");
    Ok(())
}

#[test]
fn the_largest_packets_that_fit_pass_unfragmented() -> Result<()> {
    let lab = Lab::new()?;
    let (_node, _added, client): (Node<'_>, _, Client<'_>) = connected(&lab, Settings::default())?;
    for (server, length) in SERVERS.into_iter().zip([1392, 1372]) {
        client.wait_connected(server)?;
        lab.consumer.run(&format!("ping -n -c 3 -i 0.02 -W 2 -M do -s {length} {server}"))?;
    }
    Ok(())
}
