//! Packets that are too large: the consumer hears of it, and so does the operator.

use std::{
    net::{IpAddr, SocketAddrV4},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use etherparse::PacketBuilder;
use socket2::{Domain, Protocol, Socket, Type};
use weir_tests::{
    Client, Lab, Node, Settings,
    lab::{CONSUMER_LINK, CONSUMER_V4, CONSUMER_V6, NODE_V4, SERVERS},
    steps::{connected, outside},
    traffic::{
        tcp::{self, Direction},
        udp,
    },
    until,
};

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

/// What the downloads of these tests are long.
const LENGTH: u64 = 10_000_000;

/// The consumer's own line takes smaller packets than the node's.
fn narrow_line(lab: &Lab) -> Result<()> {
    // The servers' own search for a smaller size would hide what the node does.
    lab.internet.sysctl("net.ipv4.tcp_mtu_probing", "0")?;
    lab.internet.ip("link set to-consumer mtu 1300")?;
    lab.consumer.ip(&format!("link set {CONSUMER_LINK} mtu 1300"))?;
    Ok(())
}

/// Its router says nothing of that.
fn silent_router(lab: &Lab) -> Result<()> {
    for line in [
        "nft add table inet silent",
        "nft add chain inet silent out { type filter hook output priority 0; }",
        "nft add rule inet silent out icmp type destination-unreachable drop",
        "nft add rule inet silent out icmpv6 type packet-too-big drop",
    ] {
        lab.internet.run(line)?;
    }
    Ok(())
}

/// What many firewalls begin with.
fn strict_firewall(lab: &Lab) -> Result<()> {
    for line in [
        "nft add table inet firewall",
        "nft add chain inet firewall in { type filter hook input priority 0; }",
        "nft add rule inet firewall in ct state invalid drop",
    ] {
        lab.node.run(line)?;
    }
    Ok(())
}

/// Downloads through a tunnel over the family of `outer`.
fn downloads(lab: &Lab, receive: &str, io: &str, outer: IpAddr) -> Result<()> {
    let settings = Settings::default().with("node", "receive", &format!("{receive:?}")).with(
        "node",
        "io",
        &format!("{io:?}"),
    );
    let node = Node::start(&lab.node, settings)?;
    let added = node.session_add("consumer")?;
    let client = Client::connect_with(&lab.consumer, &outside(&added.config, outer)?)?;
    client.wait_connected(SERVERS[0])?;
    let server = tcp::Server::start(&lab.internet)?;
    for address in SERVERS {
        client.wait_connected(address)?;
        // One large datagram at a time, which leaves alone: the kernel sends runs without DF anyway.
        let echo = udp::Echo::start(&lab.internet, address)?;
        udp::converse(&lab.consumer, echo.at(address), &[1300, 1371], 5)
            .with_context(|| format!("{receive}, {io}, {outer}, {address}"))?;
        tcp::parallel(&lab.consumer, server.at(address), Direction::Down, 2, LENGTH / 2)
            .with_context(|| format!("{receive}, {io}, {outer}, {address}"))?;
    }
    Ok(())
}

#[test]
fn downloads_arrive_over_a_narrow_line_behind_a_firewall_that_drops_what_is_invalid() -> Result<()>
{
    for receive in ["af_xdp", "sockets"] {
        let lab = Lab::new()?;
        narrow_line(&lab)?;
        strict_firewall(&lab)?;
        downloads(&lab, receive, "uring", SERVERS[0])?;
    }
    Ok(())
}

#[test]
fn downloads_arrive_over_a_narrow_line_whose_router_sends_no_icmp() -> Result<()> {
    for receive in ["af_xdp", "sockets"] {
        let lab = Lab::new()?;
        narrow_line(&lab)?;
        silent_router(&lab)?;
        downloads(&lab, receive, "uring", SERVERS[0])?;
    }
    Ok(())
}

/// By IPv6 only the sender cuts packets, once the router has told it. Then the kernel refuses whole
/// runs (EMSGSIZE), and they leave datagram by datagram.
#[test]
fn downloads_arrive_over_a_narrow_line_by_ipv6_whose_router_tells() -> Result<()> {
    for (receive, io) in [("af_xdp", "uring"), ("sockets", "syscall")] {
        let lab = Lab::new()?;
        narrow_line(&lab)?;
        downloads(&lab, receive, io, SERVERS[1])?;
        let route = lab.node.ip(&format!("route get {}", CONSUMER_V6))?;
        ensure!(route.contains("mtu 1300"), "the path's MTU was learned: {route}");
    }
    Ok(())
}

/// An ICMP message "fragmentation needed" for what the node sends to the consumer, as anybody can
/// make it who knows both addresses and ports.
fn forge_too_big(lab: &Lab, consumer_port: u16) -> Result<()> {
    let mut outer = Vec::new();
    PacketBuilder::ipv4(NODE_V4.octets(), CONSUMER_V4.octets(), 64)
        .udp(51820, consumer_port)
        .write(&mut outer, &[4; 1452])?;
    let mut message = vec![3, 4, 0, 0, 0, 0];
    message.extend(552u16.to_be_bytes());
    message.extend(outer.iter().take(28));
    let sum: u32 = message
        .chunks(2)
        .map(|word| u32::from(u16::from_be_bytes([word[0], word.get(1).copied().unwrap_or(0)])))
        .sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let socket =
        lab.consumer.enter(|| Ok(Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))?))?;
    socket.send_to(&message, &SocketAddrV4::new(NODE_V4, 0).into())?;
    Ok(())
}

fn snmp(lab: &Lab, protocol: &str, name: &str) -> Result<u64> {
    let text = lab.node.run("cat /proc/thread-self/net/snmp")?;
    let mut lines = text.lines().filter(|line| line.starts_with(&format!("{protocol}: ")));
    let (names, values) = (lines.next().context("no names")?, lines.next().context("no values")?);
    let at = names.split(' ').position(|have| have == name).context("no such count")?;
    Ok(values.split(' ').nth(at).context("no value")?.parse()?)
}

#[test]
fn a_forged_too_big_does_not_cut_what_is_sent_to_a_consumer() -> Result<()> {
    let lab = Lab::new()?;
    let (_node, _added, client) = connected(&lab, Settings::default())?;
    let port = lab.consumer.run(&format!("wg show {} listen-port", client.interface()))?;
    let before = snmp(&lab, "Icmp", "InDestUnreachs")?;
    forge_too_big(&lab, port.trim().parse()?)?;
    until("the message is there", Duration::from_secs(10), || {
        ensure!(snmp(&lab, "Icmp", "InDestUnreachs")? > before);
        Ok(())
    })?;
    let server = tcp::Server::start(&lab.internet)?;
    tcp::parallel(&lab.consumer, server.at(SERVERS[0]), Direction::Down, 1, LENGTH)?;
    let route = lab.node.ip(&format!("route get {CONSUMER_V4}"))?;
    ensure!(!route.contains("mtu"), "{route}");
    let fragments = snmp(&lab, "Ip", "FragCreates")?;
    ensure!(fragments == 0, "{fragments} fragments");
    Ok(())
}
