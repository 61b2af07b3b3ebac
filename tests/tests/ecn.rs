//! Congestion marks cross the tunnel both ways (RFC 6040).

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use socket2::SockRef;
use weir_tests::{Client, Lab, Namespace, Node, Settings, lab::SERVERS, steps::outside, until};

const PORT: u16 = 7007;
const ECT0: u32 = 2;

/// On the way to the node each datagram of the tunnel meets congestion; what arrives with a mark is
/// counted, inside the tunnel and outside.
fn congested_router(lab: &Lab) -> Result<()> {
    for line in [
        "nft add table inet marks",
        "nft add counter inet marks inner-ce",
        "nft add counter inet marks inner-other",
        "nft add counter inet marks outer-ect0",
        "nft add chain inet marks pre { type filter hook prerouting priority -300; }",
        "nft add rule inet marks pre iifname to-consumer udp dport 51820 ip ecn set ce",
        "nft add rule inet marks pre iifname to-consumer udp dport 51820 ip6 ecn set ce",
        "nft add rule inet marks pre udp dport 7007 ip ecn ce counter name inner-ce",
        "nft add rule inet marks pre udp dport 7007 ip6 ecn ce counter name inner-ce",
        "nft add rule inet marks pre udp dport 7007 ip ecn != ce counter name inner-other",
        "nft add rule inet marks pre udp dport 7007 ip6 ecn != ce counter name inner-other",
        "nft add rule inet marks pre iifname to-node udp sport 51820 ip ecn ect0 counter name outer-ect0",
        "nft add rule inet marks pre iifname to-node udp sport 51820 ip6 ecn ect0 counter name outer-ect0",
    ] {
        lab.internet.run(line)?;
    }
    Ok(())
}

fn counter(lab: &Lab, name: &str) -> Result<u64> {
    let text = lab.internet.run(&format!("nft list counter inet marks {name}"))?;
    let mut words = text.split_whitespace().skip_while(|word| *word != "packets");
    Ok(words.nth(1).context("no count")?.parse()?)
}

/// A socket whose packets have this ECN field.
fn socket(namespace: &Namespace, address: IpAddr, port: u16, ecn: u32) -> Result<UdpSocket> {
    let socket = namespace.enter(|| Ok(UdpSocket::bind((address, port))?))?;
    if address.is_ipv4() {
        SockRef::from(&socket).set_tos_v4(ecn)?;
    } else {
        SockRef::from(&socket).set_tclass_v6(ecn)?;
    }
    Ok(socket)
}

fn marks_cross(receive: &str, outer: IpAddr) -> Result<()> {
    let lab = Lab::new()?;
    congested_router(&lab)?;
    let settings = Settings::default().with("node", "receive", &format!("{receive:?}"));
    let node = Node::start(&lab.node, settings)?;
    let added = node.session_add("consumer")?;
    let client = Client::connect_with(&lab.consumer, &outside(&added.config, outer)?)?;
    // Nothing without ECT gets through: no ping, either.
    until("there was a handshake", Duration::from_secs(20), || {
        lab.consumer.run(&format!("ping -n -c 1 -W 1 {}", SERVERS[0])).ok();
        ensure!(client.last_handshake()? > 0);
        Ok(())
    })?;
    for inner in SERVERS {
        let own = client.address(inner)?;
        let (with, without) =
            (socket(&lab.consumer, own, 0, ECT0)?, socket(&lab.consumer, own, 0, 0)?);
        let server = socket(&lab.internet, inner, PORT, ECT0)?;
        server.set_read_timeout(Some(Duration::from_millis(300)))?;
        let to = SocketAddr::new(inner, PORT);
        let (came, sent) = (counter(&lab, "inner-ce")?, counter(&lab, "outer-ect0")?);
        let dropped = node.drops("up", "ecn")?;
        let mut back = None;
        until("a packet arrives with the mark", Duration::from_secs(20), || {
            with.send_to(b"with", to)?;
            let mut buffer = [0; 64];
            let (len, from) = server.recv_from(&mut buffer)?;
            ensure!(&buffer[..len] == b"with");
            back = Some(from);
            Ok(())
        })?;
        ensure!(counter(&lab, "inner-ce")? > came, "{receive} {outer} {inner}: no mark inside");
        without.send_to(b"without", to)?;
        until("what cannot carry the mark is dropped", Duration::from_secs(20), || {
            ensure!(node.drops("up", "ecn")? > dropped);
            Ok(())
        })?;
        ensure!(counter(&lab, "inner-other")? == 0, "{receive} {outer} {inner}: it lost the mark");
        until("an answer leaves with its mark", Duration::from_secs(20), || {
            server.send_to(b"back", back.context("nobody to answer to")?)?;
            ensure!(counter(&lab, "outer-ect0")? > sent);
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn marks_cross_the_tunnel_both_ways_in_both_families_and_both_ways_of_receiving() -> Result<()> {
    for receive in ["af_xdp", "sockets"] {
        for outer in SERVERS {
            marks_cross(receive, outer)?;
        }
    }
    Ok(())
}
