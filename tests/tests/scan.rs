//! A consumer that scans is stopped, and nobody else notices, with real traffic.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use weir_tests::{
    Lab, Namespace, Node, Settings,
    lab::SERVER_V4,
    steps::{beside, connected},
    until,
};

/// Where scans go: all of 45.81.0.0/16 is the internet's own.
const SCANNED: &str = "45.81.0.0/16";
const PORT: u16 = 9;

/// Somebody at every address of [`SCANNED`], who counts what arrives.
struct Everywhere(Arc<AtomicU64>);

impl Everywhere {
    fn start(internet: &Namespace) -> Result<Self> {
        internet.ip(&format!("route add local {SCANNED} dev lo"))?;
        let socket = internet.enter(|| Ok(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT))?))?;
        let arrived = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&arrived);
        thread::spawn(move || {
            while socket.recv(&mut [0; 64]).is_ok() {
                count.fetch_add(1, Relaxed);
            }
        });
        Ok(Self(arrived))
    }

    /// What has arrived when nothing more does.
    fn settled(&self) -> Result<u64> {
        let mut last = u64::MAX;
        until("nothing more arrives", Duration::from_secs(20), || {
            let now = self.0.load(Relaxed);
            let is_settled = std::mem::replace(&mut last, now) == now;
            thread::sleep(Duration::from_millis(200));
            ensure!(is_settled, "{now} and more");
            Ok(now)
        })
    }
}

/// Sends one datagram to each of so many addresses, a few thousand a second, and calls `between`
/// now and then. Returns how long that took.
fn scan(
    from: &UdpSocket,
    hosts: std::ops::Range<u32>,
    mut between: impl FnMut() -> Result<()>,
) -> Result<Duration> {
    let start = Instant::now();
    for host in hosts {
        let [.., c, d] = host.to_be_bytes();
        from.send_to(b"anybody?", (Ipv4Addr::new(45, 81, c, d), PORT))?;
        if host % 8 == 0 {
            thread::sleep(Duration::from_millis(1));
        }
        if host % 250 == 0 {
            between()?;
        }
    }
    Ok(start.elapsed())
}

/// A connection of the consumer's to a server that sends everything back.
struct Conversation(TcpStream);

impl Conversation {
    fn begin(lab: &Lab) -> Result<Self> {
        let listener = lab.internet.enter(|| Ok(TcpListener::bind((SERVER_V4, 0))?))?;
        let at: SocketAddr = listener.local_addr()?;
        thread::spawn(move || {
            let Ok((mut stream, _)) = listener.accept() else { return };
            let mut buffer = [0; 1024];
            while let Ok(length @ 1..) = stream.read(&mut buffer) {
                if stream.write_all(&buffer[..length]).is_err() {
                    return;
                }
            }
        });
        let connect = || Ok(TcpStream::connect_timeout(&at, Duration::from_secs(20))?);
        let stream = lab.consumer.enter(connect)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        Ok(Self(stream))
    }

    fn go_on(&mut self) -> Result<()> {
        self.0.write_all(b"still there?")?;
        let mut answer = [0; 12];
        self.0.read_exact(&mut answer).context("an open connection stands still")?;
        ensure!(&answer == b"still there?");
        Ok(())
    }
}

/// Everything that the node says of itself, to whomever.
fn all_that_is_said(node: &Node<'_>, id: &str) -> Result<String> {
    let mut said = node.log() + &node.metrics()?;
    for words in [
        &["status", "--json"][..],
        &["limits", "--json"],
        &["session", "show", id, "--json"],
        &["session", "list"],
    ] {
        said += &node.weir(words)?;
    }
    Ok(said)
}

#[test]
fn a_scan_is_stopped_while_open_connections_and_other_consumers_go_on() -> Result<()> {
    let lab = Lab::new()?;
    // It leaves more flows behind in half a minute than one session may have.
    let settings = Settings::default().with("limits", "session_flows", "\"off\"");
    let (node, added, client) = connected(&lab, settings)?;
    client.route(SCANNED)?;
    let everywhere = Everywhere::start(&lab.internet)?;
    let other = node.session_add("other")?;
    let (_other_client, own) = beside(&lab, &other, 1001)?;
    let socket = |own: IpAddr| lab.consumer.enter(|| Ok(UdpSocket::bind((own, 0))?));
    let scanner = socket(added.session.address_v4.into())?;
    let modest = socket(own)?;

    let mut conversation = Conversation::begin(&lab)?;
    let before = node.session_show(&added.session.id)?;
    let took = scan(&scanner, 0..6000, || conversation.go_on())?;
    let arrived = everywhere.settled()?;
    // 1000 at once, 100 a second, and the few that share their bits in the Bloom filter.
    let most = 1000 + took.as_secs() * 100 + 150;
    ensure!((950..=most).contains(&arrived), "{arrived} of 6000 arrived in {took:?}");
    let dropped = node.drops("up", "destinations")?;
    // wireguard-go may lose a few.
    ensure!((5500..=6000).contains(&(dropped + arrived)), "{dropped} dropped, {arrived} arrived");
    let after = node.session_show(&added.session.id)?;
    let billed = after.packets_up - before.packets_up;
    ensure!((arrived..arrived + 300).contains(&billed), "{billed} billed of {arrived}");
    ensure!(node.drops("up", "new_flows")? == 0);

    // The scanner's open connection goes on, and it reaches new ports of who it knows.
    conversation.go_on()?;
    Conversation::begin(&lab)?.go_on()?;
    // Somebody else has limits of their own.
    let took = scan(&modest, 10_000..10_900, || conversation.go_on())?;
    let more = everywhere.settled()? - arrived;
    ensure!((880..=900).contains(&more), "{more} of 900 arrived in {took:?}");
    ensure!(node.drops("up", "destinations")? < dropped + 20);

    node.weir(&["limits", "set", "session-destinations=off", "session-new-flows=off"])?;
    let before = everywhere.settled()?;
    scan(&scanner, 20_000..23_000, || conversation.go_on())?;
    let more = everywhere.settled()? - before;
    ensure!((2900..=3000).contains(&more), "{more} of 3000 arrived without a limit");

    let said = all_that_is_said(&node, &added.session.id)?;
    ensure!(said.contains("destinations"), "it tells what it dropped");
    ensure!(!said.contains("45.81."), "a destination in\n{said}");
    Ok(())
}

#[test]
fn new_flows_are_held_to_a_rate_that_can_be_changed_live() -> Result<()> {
    let lab = Lab::new()?;
    let settings = Settings::default().with("limits", "session_new_flows", "4");
    let (mut node, _added, client) = connected(&lab, settings)?;
    client.route(SCANNED)?;
    let everywhere = Everywhere::start(&lab.internet)?;
    let mut conversation = Conversation::begin(&lab)?;
    // One host, and each datagram from another port.
    let mut knock = |times: u32| -> Result<(u64, u64)> {
        let before = (everywhere.settled()?, node.drops("up", "new_flows")?);
        for _ in 0..times {
            let socket = lab.consumer.enter(|| Ok(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?))?;
            socket.send_to(b"anybody?", (Ipv4Addr::new(45, 81, 0, 1), PORT))?;
        }
        conversation.go_on()?;
        Ok((everywhere.settled()? - before.0, node.drops("up", "new_flows")? - before.1))
    };
    let (arrived, dropped) = knock(300)?;
    // 20 at once, less what has been begun before, and 4 a second.
    ensure!((5..=60).contains(&arrived) && dropped >= 200, "{arrived} arrived, {dropped} dropped");
    node.weir(&["limits", "set", "session-new-flows=300"])?;
    thread::sleep(Duration::from_secs(1));
    let (arrived, dropped) = knock(300)?;
    ensure!((290..=300).contains(&arrived) && dropped == 0, "{arrived} arrived, {dropped} dropped");
    let limits: Value = serde_json::from_str(&node.weir(&["limits", "--json"])?)?;
    ensure!(limits["now"]["session_new_flows"] == 300, "{limits}");
    ensure!(node.metrics()?.contains("weir_session_new_flows_limit_per_second 300\n"));
    let refused = node.weir(&["limits", "set", "session-new-flows=301"]).expect_err("too many");
    ensure!(refused.to_string().contains("from 0 to 300"), "{refused}");

    node.configure(Settings::default().with("limits", "session_new_flows", "\"off\""))?;
    let outcome = node.weir(&["reload"])?;
    ensure!(outcome.contains("limits.session_new_flows"), "{outcome}");
    let shown = node.weir(&["limits"])?;
    ensure!(shown.contains("session flows     off"), "{shown}");
    ensure!(shown.contains("destinations      at most 1000 of each session"), "{shown}");
    node.stop()
}
