//! The uplink changes under a node that exits past the kernel: the gateway's Ethernet address, the
//! link, the addresses. Consumers go on.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use weir_tests::{
    Client, Lab, Node, Settings,
    lab::{NODE_V4, NODE_V6, SERVERS, UPLINK},
    node::Added,
    steps::connected,
    until,
};

/// A third address of the node's host.
const OTHER_V4: Ipv4Addr = Ipv4Addr::new(45, 80, 2, 77);
const HEALS: Duration = Duration::from_secs(60);

fn start(lab: &Lab) -> Result<(Node<'_>, Added, Client<'_>)> {
    let (node, added, client) =
        connected(lab, Settings::default().with("node", "egress", "\"bypass\""))?;
    let egress = node.status()?.egress;
    ensure!(egress.mode == "bypass", "{egress:?}");
    Ok((node, added, client))
}

/// A connection of the consumer's to a server, and the server's end of it with the address that it
/// sees.
struct Connection {
    consumer: TcpStream,
    server: TcpStream,
    from: SocketAddr,
}

impl Connection {
    fn open(lab: &Lab, server: IpAddr) -> Result<Self> {
        let listener = lab.internet.enter(|| Ok(TcpListener::bind((server, 0))?))?;
        let to = listener.local_addr()?;
        let consumer =
            lab.consumer.enter(|| Ok(TcpStream::connect_timeout(&to, Duration::from_secs(20))?))?;
        let (server, from) = listener.accept()?;
        for end in [&consumer, &server] {
            end.set_read_timeout(Some(HEALS))?;
        }
        Ok(Self { consumer, server, from })
    }

    /// Carries some bytes each way.
    fn works(&self) -> Result<()> {
        for (mut from, mut to) in [(&self.consumer, &self.server), (&self.server, &self.consumer)] {
            from.write_all(b"is anybody there")?;
            let mut came = [0; 16];
            to.read_exact(&mut came).context("nothing comes")?;
            ensure!(&came == b"is anybody there");
        }
        Ok(())
    }
}

fn connections(lab: &Lab) -> Result<Vec<Connection>> {
    SERVERS.iter().map(|server| Connection::open(lab, *server)).collect()
}

#[test]
fn connections_live_on_when_the_gateways_ethernet_address_changes() -> Result<()> {
    let lab = Lab::new()?;
    let (_node, _added, client) = start(&lab)?;
    let open = connections(&lab)?;
    open.iter().try_for_each(Connection::works)?;
    // The node's kernel looks again for the gateway after some seconds, instead of half a minute.
    for family in ["ipv4", "ipv6"] {
        let key = format!("net.{family}.neigh.{UPLINK}.base_reachable_time_ms");
        lab.node.sysctl(&key, "2000")?;
    }
    lab.internet.ip("link set to-node address 02:00:00:00:77:01")?;
    for server in SERVERS {
        until("the consumer reaches the server", HEALS, || client.ping(server, 1))?;
    }
    open.iter().try_for_each(Connection::works)
}

#[test]
fn connections_live_on_when_the_link_goes_down_and_comes_back() -> Result<()> {
    let lab = Lab::new()?;
    let (node, _added, client) = start(&lab)?;
    let open = connections(&lab)?;
    open.iter().try_for_each(Connection::works)?;
    lab.internet.sysctl("net.ipv6.conf.to-node.keep_addr_on_down", "1")?;
    lab.internet.ip("link set to-node down")?;
    ensure!(client.ping(SERVERS[0], 1).is_err(), "the link is down");
    until("the node notices", HEALS, || {
        let conditions = format!("{:?}", node.status()?.host);
        ensure!(conditions.contains(UPLINK), "{conditions}");
        Ok(())
    })?;
    lab.internet.ip("link set to-node up")?;
    for (family, network) in [("-4", "45.80.2.0/24"), ("-6", "2a0c:b641:2::/64")] {
        // The routes of the lab's second table went with the link.
        lab.internet.ip(&format!("{family} route replace {network} dev to-node table 100"))?;
    }
    for server in SERVERS {
        until("the consumer reaches the server", HEALS, || client.ping(server, 1))?;
    }
    open.iter().try_for_each(Connection::works)
}

#[test]
fn consumers_leave_by_the_uplinks_new_address_when_it_changes() -> Result<()> {
    let lab = Lab::new()?;
    let (node, _added, client) = start(&lab)?;
    let before = Connection::open(&lab, SERVERS[0])?;
    ensure!(before.from.ip() == IpAddr::from(NODE_V4), "{}", before.from);
    // The consumer's tunnel is at the node's IPv6 address, which stays.
    let peer = lab.consumer.run(&format!("wg show {} peers", client.interface()))?;
    client.set(&format!("peer {} endpoint [{NODE_V6}]:51820", peer.trim()))?;
    client.wait_connected(SERVERS[1])?;
    lab.node.ip(&format!("addr flush dev {UPLINK} scope global to 45.80.2.0/24"))?;
    lab.node.ip(&format!("addr add {OTHER_V4}/24 dev {UPLINK}"))?;
    lab.node.ip("route replace default via 45.80.2.1")?;
    let now = until("the consumer leaves by the new address", HEALS, || {
        let connection = Connection::open(&lab, SERVERS[0])?;
        ensure!(connection.from.ip() == IpAddr::from(OTHER_V4), "{}", connection.from);
        Ok(connection)
    })?;
    now.works()?;
    let egress = node.status()?.egress;
    ensure!(egress.reason.contains(&OTHER_V4.to_string()), "{egress:?}");
    Connection::open(&lab, SERVERS[1])?.works()
}
