//! The operator's lists: of any length, replaced at once under traffic, and never half.

use std::{
    fs,
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use weir_tests::{
    Lab, Namespace, Settings,
    lab::{SERVER_V4, SERVER_V6, SERVERS},
    steps::connected,
    traffic::tcp::{self, Direction},
    until,
};

/// On the internet, and in the lists.
const BLOCKED_V4: Ipv4Addr = Ipv4Addr::new(45, 80, 3, 66);
/// On the internet, and in no list.
const OPEN_V4: Ipv4Addr = Ipv4Addr::new(45, 80, 3, 67);

fn connect(from: &Namespace, to: impl Into<SocketAddr>) -> Result<(), ErrorKind> {
    let to = to.into();
    let connected = from.enter(|| Ok(TcpStream::connect_timeout(&to, Duration::from_secs(5))));
    connected.expect("a namespace").map(drop).map_err(|error| error.kind())
}

/// What a datagram to `to` is answered with.
fn datagram(from: &Namespace, to: SocketAddr) -> Result<ErrorKind> {
    from.enter(|| {
        let any = if to.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
        let socket = UdpSocket::bind(any)?;
        socket.connect(to)?;
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        socket.send(b"hello")?;
        Ok(socket.recv(&mut [0; 8]).expect_err("nobody answers").kind())
    })
}

fn test(node: &weir_tests::Node<'_>, arguments: &[&str]) -> Result<Value> {
    let all = [&["policy", "test", "--json"], arguments].concat();
    Ok(serde_json::from_str(&node.weir(&all)?)?)
}

/// So many entries that cannot be joined, and none of the lab's.
fn long_list(entries: u32) -> String {
    let v4 = (0..entries / 2).map(|i| format!("{}\n", Ipv4Addr::from(0x5000_0000 + 2 * i)));
    let v6 = (0..entries / 2).map(|i| format!("2a01:{:x}:{:x}::/48\n", i >> 15, (i << 1) & 0xffff));
    v4.chain(v6).collect()
}

#[test]
fn a_list_of_200_000_entries_refuses_what_it_has_and_the_consumer_is_told() -> Result<()> {
    let lab = Lab::new()?;
    for address in [BLOCKED_V4, OPEN_V4] {
        lab.internet.ip(&format!("addr add {address}/32 dev lo"))?;
    }
    let folder = tempfile::tempdir()?;
    let (list, ports) = (folder.path().join("block.txt"), folder.path().join("ports.txt"));
    let text = long_list(200_000);
    fs::write(&list, format!("{text}{BLOCKED_V4} # an abuser\n{SERVER_V6}\n"))?;
    fs::write(&ports, "# swarms\n6881-6999\n5353/udp\n")?;
    let settings = Settings::default().with("policy", "block_files", &format!("[{list:?}]")).with(
        "policy",
        "blocked_port_files",
        &format!("[{ports:?}]"),
    );
    let (mut node, _added, _client) = connected(&lab, settings)?;
    let service = tcp::Server::start(&lab.internet)?;
    let port = service.at(OPEN_V4.into()).port();

    ensure!(connect(&lab.consumer, (OPEN_V4, port)) == Ok(()), "{OPEN_V4} is out of reach");
    // A reset, and an ICMP error: each family has its own word for "prohibited".
    for (to, error) in [
        (IpAddr::from(BLOCKED_V4), ErrorKind::HostUnreachable),
        (SERVER_V6.into(), ErrorKind::PermissionDenied),
    ] {
        let before = node.refused("blocked_destination")?;
        let refused = connect(&lab.consumer, (to, port));
        ensure!(refused == Err(ErrorKind::ConnectionRefused), "{to}: {refused:?}");
        let answer = datagram(&lab.consumer, (to, port).into())?;
        ensure!(answer == error, "{to}: {answer:?}");
        ensure!(node.refused("blocked_destination")? == before + 2, "{to} is not counted");
    }
    let refused = connect(&lab.consumer, (OPEN_V4, 6900));
    ensure!(refused == Err(ErrorKind::ConnectionRefused), "port 6900: {refused:?}");
    let answer = datagram(&lab.consumer, (OPEN_V4, 5353).into())?;
    ensure!(answer == ErrorKind::HostUnreachable, "port 5353: {answer:?}");
    ensure!(node.refused("blocked_port")? == 2, "ports are not counted");
    ensure!(node.drops("policy", "blocked_port")? == 2, "the status does not have it");
    let sample = "weir_drops_total{stage=\"policy\",reason=\"blocked_destination\"} 4";
    ensure!(node.metrics()?.contains(sample), "the metrics do not have it");

    // The node says so too, with the line.
    let to = format!("{BLOCKED_V4}:80");
    let verdict = test(&node, &[&to])?;
    ensure!(verdict["allowed"] == false && verdict["rule"] == "blocked_destination", "{verdict}");
    let entry = format!("{}:200001", list.display());
    ensure!(verdict["entry"] == entry.as_str(), "{verdict}");
    let config = node.config_path().display().to_string();
    let offline = test(&node, &[&to, "--offline", "--config", &config])?;
    ensure!(offline == verdict, "{offline}");
    let verdict = test(&node, &[&format!("{OPEN_V4}:5353"), "--udp"])?;
    ensure!(verdict["entry"] == format!("{}:3", ports.display()).as_str(), "{verdict}");
    let verdict = test(&node, &[&format!("{OPEN_V4}:5353")])?;
    ensure!(verdict["allowed"] == true, "{verdict}");
    node.stop()
}

#[test]
fn lists_are_replaced_under_traffic_and_nothing_refused_slips_through() -> Result<()> {
    let lab = Lab::new()?;
    for address in [BLOCKED_V4, OPEN_V4] {
        lab.internet.ip(&format!("addr add {address}/32 dev lo"))?;
    }
    let folder = tempfile::tempdir()?;
    let list = folder.path().join("block.txt");
    fs::write(&list, format!("{BLOCKED_V4}\n"))?;
    let settings = Settings::default().with("policy", "block_files", &format!("[{list:?}]"));
    // Thousands of flows a second are to reach the policy.
    let settings = settings.with("limits", "session_new_flows", "\"off\"");
    let (mut node, _added, _client) = connected(&lab, settings)?;
    let service = tcp::Server::start(&lab.internet)?;
    // Whatever arrives at the refused address, from whomever.
    let target = lab.internet.enter(|| Ok(UdpSocket::bind((BLOCKED_V4, 7777))?))?;
    target.set_nonblocking(true)?;

    let stop = AtomicBool::new(false);
    let sent = thread::scope(|scope| -> Result<u32> {
        let knock = scope.spawn(|| {
            lab.consumer.enter(|| {
                let mut sent = 0;
                while !stop.load(Relaxed) {
                    // A flow of its own each time. Its ICMP error is of no interest.
                    let socket = UdpSocket::bind("0.0.0.0:0")?;
                    sent += u32::from(socket.send_to(b"x", (BLOCKED_V4, 7777)).is_ok());
                    thread::sleep(Duration::from_micros(200));
                }
                Ok(sent)
            })
        });
        let flow = scope.spawn(|| {
            while !stop.load(Relaxed) {
                tcp::parallel(
                    &lab.consumer,
                    service.at(SERVER_V4.into()),
                    Direction::Up,
                    1,
                    2_000_000,
                )?;
            }
            Ok(())
        });
        // One connection that is there before, and is used after.
        let kept = lab.consumer.enter(|| {
            Ok(TcpStream::connect_timeout(&service.at(OPEN_V4.into()), Duration::from_secs(5))?)
        })?;
        let done = (|| {
            for round in 0..8 {
                let open = if round % 2 == 0 { format!("{OPEN_V4}\n") } else { String::new() };
                fs::write(&list, format!("{}{BLOCKED_V4}\n{open}", long_list(2000)))?;
                node.hang_up()?;
                let answer = connect(&lab.consumer, (OPEN_V4, 1));
                let refused = node.refused("blocked_destination")?;
                ensure!(refused > 0, "{answer:?}");
                let verdict = test(&node, &[&format!("{OPEN_V4}:1")])?;
                ensure!(verdict["allowed"] == (round % 2 != 0), "round {round}: {verdict}");
            }
            Ok(())
        })();
        stop.store(true, Relaxed);
        let sent = knock.join().expect("no panic")?;
        let flow: Result<()> = flow.join().expect("no panic");
        flow.context("an open flow was broken")?;
        ensure!(kept.peer_addr().is_ok() && kept.take_error()?.is_none(), "it was reset");
        done.map(|()| sent)
    })?;
    ensure!(sent > 500, "only {sent} were tried");
    let mut buffer = [0; 8];
    let arrived = target.recv_from(&mut buffer);
    ensure!(arrived.is_err_and(|error| error.kind() == ErrorKind::WouldBlock), "some came through");
    // A reload is no change by somebody else.
    let restored = node.status()?.restored;
    ensure!(restored.iter().all(|it| it.times == 0), "{restored:?}");
    ensure!(node.drops("policy", "no_policy")? == 0, "packets were kept in");
    let refused = node.refused("blocked_destination")?;
    ensure!(refused >= u64::from(sent), "counts were lost: {refused} of {sent}");
    node.stop()
}

#[test]
fn a_bad_list_leaves_the_old_one_in_force() -> Result<()> {
    let lab = Lab::new()?;
    lab.internet.ip(&format!("addr add {BLOCKED_V4}/32 dev lo"))?;
    let folder = tempfile::tempdir()?;
    let list = folder.path().join("block.txt");
    fs::write(&list, format!("{BLOCKED_V4}\n"))?;
    let settings = Settings::default().with("policy", "block_files", &format!("[{list:?}]"));
    let (mut node, _added, client) = connected(&lab, settings)?;
    ensure!(client.ping(BLOCKED_V4.into(), 1).is_err(), "it is not refused");
    fs::write(&list, "45.80.3.0/24\n45.80.3\n")?;
    let named = format!("{}:2: \"45.80.3\" is not a network", list.display());
    let error = format!("{:#}", node.weir(&["reload"]).expect_err("a bad list"));
    ensure!(error.contains(&named) && error.contains("exit status: 1"), "{error}");
    let config = node.config_path().display().to_string();
    let check = format!("{:#}", node.weir(&["config", "check", &config]).expect_err("a bad list"));
    ensure!(check.contains(&named), "{check}");
    node.hang_up()?;
    ensure!(node.log().contains("the configuration is unchanged"), "{}", node.log());
    fs::remove_file(&list)?;
    let error = format!("{:#}", node.weir(&["reload"]).expect_err("no list"));
    ensure!(error.contains("policy.block_files: cannot read"), "{error}");
    for server in SERVERS {
        client.ping(server, 1)?;
    }
    ensure!(client.ping(BLOCKED_V4.into(), 1).is_err(), "the old list is gone");
    fs::write(&list, "")?;
    node.weir(&["reload"])?;
    client.ping(BLOCKED_V4.into(), 1)?;
    node.stop()
}

#[test]
fn an_address_that_the_host_gets_later_is_refused_too() -> Result<()> {
    let lab = Lab::new()?;
    let (mut node, _added, client) = connected(&lab, Settings::default())?;
    for (address, length) in [("45.80.2.77", 32), ("2a0c:b641:2::77", 128)] {
        let nodad = if length == 128 { "nodad" } else { "" };
        lab.node.ip(&format!("addr add {address}/{length} dev lo {nodad}"))?;
        let to: IpAddr = address.parse()?;
        lab.consumer.ip(&format!("route replace {to}/{length} dev {}", client.interface()))?;
        let before = node.refused("host_destination")?;
        until("it is refused", Duration::from_secs(5), || {
            ensure!(client.ping(to, 2).is_err(), "{to} answered");
            let after = node.refused("host_destination")?;
            ensure!(after >= before + 2, "{to}: {before} to {after}");
            Ok(())
        })?;
        let verdict = test(&node, &[&SocketAddr::new(to, 22).to_string()])?;
        ensure!(verdict["rule"] == "host_destination", "{verdict}");
    }
    node.stop()
}
