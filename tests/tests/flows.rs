//! Nothing of a session is left in the kernel's flow table when its slot is another's.

use std::{
    fs,
    io::{ErrorKind, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use weir_tests::{
    Client, Lab, Node, Settings,
    lab::{SERVER_V4, SERVERS},
    node::Added,
    traffic::udp,
    until,
};

const LATE: &[u8] = b"for the one who asked";

/// What a server of the internet has of a consumer: a datagram's source, and a connection.
struct Asked {
    udp: UdpSocket,
    from: SocketAddr,
    tcp: TcpStream,
    consumer: TcpStream,
}

impl Asked {
    /// Has the consumer ask a server, by UDP and by TCP, and ping it.
    fn by(lab: &Lab, client: &Client<'_>, server: IpAddr) -> Result<Self> {
        let (udp, listener) = lab
            .internet
            .enter(|| Ok((UdpSocket::bind((server, 0))?, TcpListener::bind((server, 0))?)))?;
        let consumer = lab.consumer.enter(|| {
            let any: IpAddr = if server.is_ipv4() { [0; 4].into() } else { [0u16; 8].into() };
            let socket = UdpSocket::bind((any, 0))?;
            socket.send_to(b"question", udp.local_addr()?)?;
            Ok(TcpStream::connect_timeout(&listener.local_addr()?, Duration::from_secs(5))?)
        })?;
        udp.set_read_timeout(Some(Duration::from_secs(5)))?;
        let (_, from) = udp.recv_from(&mut [0; 100]).context("no question comes")?;
        let (tcp, _) = listener.accept()?;
        client.ping(server, 1)?;
        Ok(Self { udp, from, tcp, consumer })
    }

    /// The server goes on as if nothing had happened.
    fn answer(&mut self) -> Result<()> {
        for _ in 0..20 {
            self.udp.send_to(LATE, self.from)?;
        }
        // Once the node has said that there is no such connection, it is at an end.
        match self.tcp.write_all(LATE) {
            Err(error) if error.kind() != ErrorKind::ConnectionReset => Err(error.into()),
            _ => Ok(()),
        }
    }
}

/// Whether a flow of a session's addresses is in the kernel's table.
fn has_kernel_flows(lab: &Lab, added: &Added) -> Result<bool> {
    let table = lab.node.run("cat /proc/net/nf_conntrack")?;
    let v6 = added.session.address_v6;
    let v6 = v6.segments().map(|part| format!("{part:04x}")).join(":");
    let of_session = [format!("={} ", added.session.address_v4), format!("={v6} ")];
    Ok(table.lines().any(|line| of_session.iter().any(|address| line.contains(address))))
}

/// How packets leave.
const EGRESS: [&str; 2] = ["kernel", "bypass"];

fn by(egress: &str) -> Settings {
    Settings::default().with("node", "egress", &format!("{egress:?}"))
}

fn now() -> Result<String> {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    Ok(since.as_secs().to_string())
}

fn one_slot(egress: &str) -> Settings {
    by(egress).with("node", "max_sessions", "1").with("dns", "enabled", "false")
}

/// Alice has asked servers of both families, and is there no more.
fn alice<'l>(lab: &'l Lab, node: &Node<'_>) -> Result<(Added, Client<'l>, Vec<Asked>)> {
    let added = node.session_add("alice")?;
    let client = Client::connect(&lab.consumer, &added.config)?;
    client.wait_connected(SERVERS[0])?;
    let asked = SERVERS.iter().map(|server| Asked::by(lab, &client, *server));
    let asked = asked.collect::<Result<Vec<_>>>()?;
    if node.status()?.egress.mode == "kernel" {
        ensure!(has_kernel_flows(lab, &added)?, "alice has no flows, and nothing is tried");
    } else {
        until("alice has flows", Duration::from_secs(5), || {
            let flows = node.status()?.nat.context("no NAT")?;
            ensure!(flows.tcp >= 2 && flows.udp >= 2 && flows.icmp >= 2, "{flows:?}");
            Ok(())
        })?;
        ensure!(!has_kernel_flows(lab, &added)?, "the kernel has flows of hers");
    }
    Ok((added, client, asked))
}

/// Bob has alice's slot, and gets and pays for nothing of hers.
fn bob_gets_nothing(
    lab: &Lab,
    node: &Node<'_>,
    alice: &Added,
    mut asked: Vec<Asked>,
) -> Result<()> {
    ensure!(
        !has_kernel_flows(lab, alice)?,
        "flows are left:\n{}",
        lab.node.run("cat /proc/net/nf_conntrack")?
    );
    let added = node.session_add("bob")?;
    ensure!(added.session.slot == alice.session.slot, "bob has another slot: {:?}", added.session);
    let client = Client::connect(&lab.consumer, &added.config)?;
    client.wait_connected(SERVERS[0])?;
    let before = node.session_show(&added.session.id)?;
    for asked in &mut asked {
        asked.answer()?;
    }
    // What comes after the answers has come through the same queues.
    client.ping(SERVERS[0], 1)?;
    let after = node.session_show(&added.session.id)?;
    // 84 bytes, padded to 96, and WireGuard's 32.
    let one_ping = 128;
    let billed = after.bytes_down - before.bytes_down;
    ensure!(billed <= one_ping, "bob pays for {billed} bytes of alice's");
    ensure!(after.packets_down == before.packets_down + 1, "{before:?} {after:?}");
    let echo = udp::Echo::start(&lab.internet, SERVER_V4.into())?;
    udp::converse(&lab.consumer, echo.at(SERVER_V4.into()), &[100], 1)
}

#[test]
fn the_next_session_of_a_slot_gets_nothing_of_its_predecessors_flows() -> Result<()> {
    EGRESS.iter().try_for_each(|egress| check_next_session(egress).context(*egress))
}

fn check_next_session(egress: &str) -> Result<()> {
    let lab = Lab::new()?;
    let node = Node::start(&lab.node, one_slot(egress))?;
    let (added, client, asked) = alice(&lab, &node)?;
    node.weir(&["session", "remove", "alice"])?;
    drop(client);
    bob_gets_nothing(&lab, &node, &added, asked)
}

#[test]
fn flows_of_a_session_that_is_none_any_more_when_the_node_starts_go() -> Result<()> {
    EGRESS.iter().try_for_each(|egress| check_forgotten(egress).context(*egress))
}

fn check_forgotten(egress: &str) -> Result<()> {
    let lab = Lab::new()?;
    let mut node = Node::start(&lab.node, one_slot(egress))?;
    let (added, client, asked) = alice(&lab, &node)?;
    node.kill()?;
    drop(client);
    if egress == "kernel" {
        ensure!(has_kernel_flows(&lab, &added)?, "the kill took the flows along");
    }
    for name in ["", "-wal", "-shm"] {
        let ledger = node.ledger_path();
        let path = ledger.with_file_name(format!("{}{name}", file_name(&ledger)?));
        if path.exists() {
            fs::remove_file(path)?;
        }
    }
    node.restart()?;
    bob_gets_nothing(&lab, &node, &added, asked)
}

fn file_name(path: &std::path::Path) -> Result<String> {
    Ok(path.file_name().context("no name")?.to_string_lossy().into_owned())
}

#[test]
fn flows_of_a_session_that_goes_on_are_kept_over_a_kill() -> Result<()> {
    EGRESS.iter().try_for_each(|egress| check_kill(egress).context(*egress))
}

fn check_kill(egress: &str) -> Result<()> {
    let lab = Lab::new()?;
    let mut node = Node::start(&lab.node, one_slot(egress))?;
    let (_added, client, mut asked) = alice(&lab, &node)?;
    if egress == "bypass" {
        // The block of its ports must be in the ledger.
        let external = asked[0].from.to_string();
        until("the ledger knows whose port it is", Duration::from_secs(5), || {
            let ledger = node.ledger_path().to_string_lossy().into_owned();
            let said = node.weir(&["flows", "owner", &external, &now()?, "--file", &ledger])?;
            ensure!(said.contains("held ports"), "{said}");
            Ok(())
        })?;
    }
    node.kill()?;
    node.restart()?;
    client.wait_connected(SERVERS[0])?;
    for asked in &mut asked {
        if egress == "bypass" {
            // What the consumer sends tells where its flow goes.
            asked.consumer.write_all(b"and?")?;
        }
        asked.tcp.write_all(LATE)?;
        asked.consumer.set_read_timeout(Some(Duration::from_secs(20)))?;
        let mut buffer = vec![0; LATE.len()];
        asked.consumer.read_exact(&mut buffer).context("the connection has not survived")?;
        ensure!(buffer == LATE, "{buffer:?}");
    }
    Ok(())
}

/// Begins so many flows.
fn flows_to(target: SocketAddr, count: usize) -> Result<Vec<UdpSocket>> {
    let one = |_| {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.send_to(b"x", target)?;
        Ok(socket)
    };
    (0..count).map(one).collect()
}

#[test]
fn one_session_cannot_take_more_flows_than_its_share() -> Result<()> {
    EGRESS.iter().try_for_each(|egress| check_share(egress).context(*egress))
}

fn check_share(egress: &str) -> Result<()> {
    let lab = Lab::new()?;
    let settings = by(egress).with("limits", "session_flows", "40");
    let mut node = Node::start(&lab.node, settings)?;
    let added = node.session_add("greedy")?;
    let client = Client::connect(&lab.consumer, &added.config)?;
    client.wait_connected(SERVERS[0])?;
    let server = lab.internet.enter(|| Ok(UdpSocket::bind((SERVER_V4, 0))?))?;
    let target = server.local_addr()?;
    // Kept open, so that no two have the same port and are one flow.
    let greedy = lab.consumer.enter(|| flows_to(target, 120))?;
    until("the session has its share and no more", Duration::from_secs(10), || {
        if egress == "kernel" {
            let refused = node.refused("session_flows")?;
            ensure!(refused >= 80, "{refused} are refused");
        } else {
            // New ones take the place of the oldest without an answer.
            let flows = node.status()?.nat.context("no NAT")?;
            ensure!((30..=40).contains(&flows.udp), "{flows:?}");
        }
        Ok(())
    })?;
    let own = lab.node.enter(|| Ok(UdpSocket::bind("0.0.0.0:0")?))?;
    server.set_read_timeout(Some(Duration::from_secs(5)))?;
    own.send_to(b"the host's", target)?;
    let mut got = [0; 100];
    while server.recv(&mut got).context("the host's own is refused")? != b"the host's".len() {}
    let said = node.weir(&["limits"])?;
    ensure!(said.contains("at most 40 of each session"), "{said}");

    // While the node runs, the limit becomes another, and a reload that finds nothing new keeps it.
    node.weir(&["limits", "set", "session-flows=off"])?;
    let said = node.weir(&["reload"])?;
    ensure!(!said.contains("session_flows"), "{said}");
    let limits = || -> Result<serde_json::Value> {
        Ok(serde_json::from_str(&node.weir(&["limits", "--json"])?)?)
    };
    let is = limits()?;
    ensure!(is["limits"]["session_flows"] == 0 && is["now"]["session_flows"] == 0, "{is}");
    drop(greedy);
    let before = node.refused("session_flows")?;
    server.set_read_timeout(Some(Duration::from_millis(200)))?;
    while server.recv(&mut got).is_ok() {}
    let _more = lab.consumer.enter(|| flows_to(target, 60))?;
    server.set_read_timeout(Some(Duration::from_secs(5)))?;
    for number in 0..60 {
        server.recv(&mut got).with_context(|| format!("{number} of 60 flows pass"))?;
    }
    ensure!(node.refused("session_flows")? == before, "one is refused without a limit");
    let error =
        format!("{:#}", node.weir(&["limits", "set", "session-flows=65001"]).expect_err("no"));
    ensure!(error.contains("session_flows 65001 is out of range"), "{error}");
    node.weir(&["limits", "set", "session-flows=auto"])?;
    let is = limits()?;
    ensure!(is["limits"]["session_flows"] == "auto", "{is}");
    ensure!(is["now"]["session_flows"].as_u64().is_some_and(|share| share >= 256), "{is}");

    // A reload that finds another one takes it, and all is as in the file.
    node.configure(by(egress).with("limits", "session_flows", "50"))?;
    let said = node.weir(&["reload"])?;
    ensure!(said.contains("limits.session_flows"), "{said}");
    let said = node.weir(&["limits"])?;
    ensure!(said.contains("at most 50 of each session"), "{said}");
    Ok(())
}
