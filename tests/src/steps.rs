//! What several tests do: connect a consumer, and everything that a consumer does.

use std::net::IpAddr;

use anyhow::{Context as _, Result};

use crate::{
    Client, Lab, Node, Settings,
    lab::{CONSUMER_V4, NODE_V4, NODE_V6, SERVERS},
    node::Added,
    traffic::{
        tcp::{self, Direction},
        udp,
    },
    wgquick::WgQuick,
};

/// Starts a node with one session, and its consumer, with whom it has shaken hands.
///
/// # Errors
/// If one of the steps fails.
pub fn connected(lab: &Lab, settings: Settings) -> Result<(Node<'_>, Added, Client<'_>)> {
    let node = Node::start(&lab.node, settings)?;
    let added = node.session_add("consumer")?;
    let client = Client::connect(&lab.consumer, &added.config)?;
    client
        .wait_connected(SERVERS[0])
        .with_context(|| format!("status {:?}\nweir wrote:\n{}", node.status(), node.log()))?;
    Ok((node, added, client))
}

/// The connected consumer has fifty TCP streams at once, in both families, up and then down.
///
/// # Errors
/// If a stream fails, or brings other content.
pub fn fifty_streams_pass(lab: &Lab) -> Result<()> {
    let server = tcp::Server::start(&lab.internet)?;
    for address in SERVERS {
        for direction in [Direction::Up, Direction::Down] {
            tcp::parallel(&lab.consumer, server.at(address), direction, 50, 500_000)?;
        }
    }
    Ok(())
}

/// A consumer beside others in the same namespace, with its inner IPv4 address: what has that as its
/// source goes through its tunnel, by a routing table of this number.
///
/// # Errors
/// If one of the steps fails.
pub fn beside<'a>(lab: &'a Lab, added: &Added, table: usize) -> Result<(Client<'a>, IpAddr)> {
    let client = Client::start(&lab.consumer, &outside(&added.config, CONSUMER_V4.into())?)?;
    let own = IpAddr::from(added.session.address_v4);
    let interface = client.interface();
    lab.consumer.ip(&format!("route add default dev {interface} table {table}"))?;
    lab.consumer.ip(&format!("rule add from {own} table {table}"))?;
    client.wait_connected(SERVERS[0])?;
    Ok((client, own))
}

/// A configuration whose endpoint is the node's address of the same family as `like`.
///
/// # Errors
/// If it is no configuration of a consumer.
pub fn outside(config: &str, like: IpAddr) -> Result<WgQuick> {
    let config = WgQuick::parse(config)?;
    let endpoint = config.endpoint.clone().context("no Endpoint")?;
    let port = endpoint.rsplit(':').next().context("no port")?;
    let address = if like.is_ipv6() { format!("[{NODE_V6}]") } else { NODE_V4.to_string() };
    config.with_endpoint(&format!("{address}:{port}"))
}

/// Pings, TCP and UDP, both ways, over both families inside the tunnel, with their content checked.
///
/// # Errors
/// If anything is lost or changed.
pub fn everything_passes(lab: &Lab, client: &Client<'_>) -> Result<()> {
    let server = tcp::Server::start(&lab.internet)?;
    for address in SERVERS {
        client.wait_connected(address)?;
        client.ping(address, 10)?;
        for direction in [Direction::Up, Direction::Down] {
            tcp::parallel(&lab.consumer, server.at(address), direction, 2, 4_000_000)?;
        }
        let echo = udp::Echo::start(&lab.internet, address)?;
        // From nothing to more than fits one packet.
        let lengths = [0, 1, 15, 16, 17, 500, 1371, 1372, 1373, 4000];
        udp::converse(&lab.consumer, echo.at(address), &lengths, 3)?;
    }
    Ok(())
}
