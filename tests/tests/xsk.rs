//! The XSK fast path from the guard to the workers (AF_XDP), beside the one through the stack.

use std::{net::SocketAddrV4, thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use weir_common::wire::message_type;
use weir_host::deferral::{self, Deferral};
use weir_tests::{
    Client, Lab, Node, Settings,
    lab::{NODE_V4, SERVERS, UPLINK},
    newcomer,
    steps::{connected, everything_passes, outside},
    until,
};

fn settings(receive: &str) -> Settings {
    Settings::default().with("node", "receive", &format!("{receive:?}"))
}

/// What the node's UDP sockets have received, by the kernel's own count.
fn through_the_stack(lab: &Lab) -> Result<u64> {
    let mut all = 0;
    let v4 = lab.node.run("cat /proc/thread-self/net/snmp")?;
    let mut udp = v4.lines().filter(|line| line.starts_with("Udp: "));
    let (names, values) = (udp.next().context("no UDP")?, udp.next().context("no UDP")?);
    for (name, value) in names.split(' ').zip(values.split(' ')) {
        if name == "InDatagrams" {
            all += value.parse::<u64>()?;
        }
    }
    let v6 = lab.node.run("cat /proc/thread-self/net/snmp6")?;
    let line = v6.lines().find(|line| line.starts_with("Udp6InDatagrams"));
    all +=
        line.and_then(|line| line.split_whitespace().nth(1)).context("no UDP6")?.parse::<u64>()?;
    Ok(all)
}

#[test]
fn data_passes_by_the_xsk_fast_path_in_both_families_and_is_billed_as_the_client_counts()
-> Result<()> {
    let lab = Lab::new()?;
    let node = Node::start(&lab.node, settings("af_xdp").with("node", "workers", "1"))?;
    ensure!(node.status()?.receive == "af_xdp", "{:?}", node.status()?);
    for outer in SERVERS {
        let added = node.session_add(if outer.is_ipv4() { "by-v4" } else { "by-v6" })?;
        let client = Client::connect_with(&lab.consumer, &outside(&added.config, outer)?)?;
        client.wait_connected(SERVERS[0])?;
        let before = through_the_stack(&lab)?;
        everything_passes(&lab, &client)?;
        let datagrams = node.session_show(&added.session.id)?.packets_up;
        // Handshakes, and the lab's own datagrams, of which the stack counts those that it merged once.
        let stack = through_the_stack(&lab)? - before;
        ensure!(datagrams > 2000 && stack < 50, "{stack} of {datagrams} went through the stack");
        until("both ends agree", Duration::from_secs(15), || {
            let (theirs, ours) = (client.transfer()?, node.session_show(&added.session.id)?);
            ensure!(ours.bytes_up + ours.handshake_bytes_up <= theirs.sent, "{theirs:?} {ours:?}");
            ensure!(ours.bytes_up == ours.guard.bytes, "{ours:?}");
            ensure!(
                theirs.received == ours.bytes_down + ours.handshake_bytes_down,
                "{theirs:?} {ours:?}"
            );
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn everything_passes_by_the_xsk_fast_path_with_plain_system_calls() -> Result<()> {
    let lab = Lab::new()?;
    let (node, _added, client) =
        connected(&lab, settings("af_xdp").with("node", "io", "\"syscall\""))?;
    let status = node.status()?;
    ensure!((status.receive.as_str(), status.io.as_str()) == ("af_xdp", "syscall"), "{status:?}");
    everything_passes(&lab, &client)
}

/// One queue and three workers: what arrives for the others is handed to them, past the stack too.
#[test]
fn sessions_of_all_workers_pass_where_one_has_the_only_queue() -> Result<()> {
    let lab = Lab::new()?;
    let node = Node::start(&lab.node, settings("af_xdp").with("node", "workers", "3"))?;
    for name in ["one", "two", "three"] {
        let added = node.session_add(name)?;
        let client = Client::connect(&lab.consumer, &added.config)?;
        client.wait_connected(SERVERS[0])?;
        let before = through_the_stack(&lab)?;
        everything_passes(&lab, &client)?;
        let stack = through_the_stack(&lab)? - before;
        let datagrams = node.session_show(&added.session.id)?.packets_up;
        ensure!(datagrams > 2000 && stack < 50, "slot {}: {stack}", added.session.slot);
    }
    Ok(())
}

#[test]
fn what_has_no_xsk_fast_path_goes_through_the_sockets_and_says_why() -> Result<()> {
    for (settings, why) in [
        (settings("sockets"), "node.receive"),
        (settings("auto").with("node", "xdp", "\"generic\""), "does not run in the driver"),
    ] {
        let lab = Lab::new()?;
        let (node, _added, client) = connected(&lab, settings)?;
        let status = node.status()?;
        ensure!(status.receive == "sockets", "{status:?}");
        ensure!(status.offloads.iter().any(|note| note.contains(why)), "{status:?}");
        everything_passes(&lab, &client)?;
    }
    // A bridge stands for a bond: frames come up with the numbers of its port's queues.
    let lab = Lab::new()?;
    for line in [
        "link add br0 type bridge",
        "link set br0 up",
        "addr flush dev up0",
        "link set up0 master br0",
        "addr add 45.80.2.2/24 dev br0",
        "route add default via 45.80.2.1",
    ] {
        lab.node.ip(line)?;
    }
    let (node, _added, _client) =
        connected(&lab, settings("auto").with("node", "uplink", "\"br0\""))?;
    let status = node.status()?;
    ensure!(status.receive == "sockets", "{status:?}");
    let why = "br0 is made of other interfaces (up0)";
    ensure!(status.offloads.iter().any(|note| note.contains(why)), "{status:?}");

    let lab = Lab::new()?;
    let settings = settings("af_xdp").with("node", "xdp", "\"generic\"");
    let refused = Node::start(&lab.node, settings).err().context("it started")?;
    ensure!(format!("{refused:#}").contains("node.receive is \"af_xdp\""), "{refused:#}");
    Ok(())
}

#[test]
fn what_a_worker_has_no_room_for_is_counted_and_not_billed() -> Result<()> {
    let lab = Lab::new()?;
    let (node, _added, client) = connected(&lab, settings("af_xdp").with("node", "workers", "1"))?;
    let other = node.session_add("other")?;
    let (private, public) = newcomer::keys_of(&other.config)?;
    let to = SocketAddrV4::new(NODE_V4, 51820);
    let timeout = Duration::from_secs(2);
    let socket = newcomer::socket(&lab.consumer, to.into())?;
    let shaken = newcomer::shake_hands_over(&socket, private, public, timeout)?;
    // The first message under the new keys is authentic, and billed.
    thread::sleep(Duration::from_millis(200));
    let before = node.session_show(&other.session.id)?.bytes_up;
    let pid = Pid::from_raw(node.pid()?.cast_signed()).context("no process")?;
    kill_process(pid, Signal::STOP)?;
    // From the session's own address: from other addresses the guard lets a few through.
    let mut forged = [0x5a; 144];
    forged[..4].copy_from_slice(&[message_type::DATA, 0, 0, 0]);
    forged[4..8].copy_from_slice(&shaken.node_index.to_le_bytes());
    for _ in 0..10_000 {
        socket.send(&forged)?;
    }
    kill_process(pid, Signal::CONT)?;
    until("the loss is counted", Duration::from_secs(10), || {
        let lost = node.drops("udp", "xsk_ring_full")?;
        let looked_at = node.drops("crypto", "authentication")? + node.drops("crypto", "replay")?;
        let seen = node.session_show(&other.session.id)?.guard.datagrams;
        ensure!(lost > 1000 && lost + looked_at >= seen - 8, "{lost} + {looked_at} of {seen}");
        Ok(())
    })?;
    let after = node.session_show(&other.session.id)?.bytes_up;
    ensure!(after == before, "forged data was billed: {before} {after}");
    // And it goes on.
    everything_passes(&lab, &client)
}

/// How long the interrupts of the uplink wait.
fn deferral_of(lab: &Lab) -> Result<Deferral> {
    lab.node.enter(|| deferral::read(UPLINK))
}

fn deferring() -> Settings {
    Settings::default().with("node", "defer_interrupts", "true")
}

fn defers(node: &Node) -> Result<bool> {
    Ok(node.status()?.offloads.iter().any(|line| line.ends_with(", interrupts deferred")))
}

#[test]
fn the_uplinks_interrupts_are_deferred_while_a_node_runs_also_after_a_kill() -> Result<()> {
    let lab = Lab::new()?;
    // The queues stay what they are when the guard comes and goes.
    lab.node.run(&format!("ethtool -K {UPLINK} gro on"))?;
    let before = deferral_of(&lab)?;
    ensure!(before == Deferral::default(), "{before:?}");
    let mut node = Node::start(&lab.node, deferring())?;
    ensure!(defers(&node)?, "{:?}", node.status()?);
    ensure!(deferral_of(&lab)? == deferral::WANTED, "{:?}", deferral_of(&lab)?);
    node.kill()?;
    ensure!(deferral_of(&lab)? == deferral::WANTED, "nothing else undoes it");
    node.restart()?;
    ensure!(defers(&node)?, "{:?}", node.status()?);
    node.stop()?;
    ensure!(deferral_of(&lab)? == before, "{:?}", deferral_of(&lab)?);
    Ok(())
}

#[test]
fn a_node_that_defers_no_interrupts_leaves_them_alone() -> Result<()> {
    let lab = Lab::new()?;
    lab.node.run(&format!("ethtool -K {UPLINK} gro on"))?;
    for settings in [Settings::default(), deferring().with("node", "egress", "\"kernel\"")] {
        let mut node = Node::start(&lab.node, settings)?;
        ensure!(!defers(&node)?, "{:?}", node.status()?);
        ensure!(deferral_of(&lab)? == Deferral::default(), "{:?}", deferral_of(&lab)?);
        node.stop()?;
    }
    Ok(())
}

#[test]
fn what_the_operator_has_set_for_the_uplinks_interrupts_stays() -> Result<()> {
    let lab = Lab::new()?;
    lab.node.run(&format!("ethtool -K {UPLINK} gro on"))?;
    let own = Deferral { empty_polls: 3, nanos: 50_000 };
    lab.node.enter(|| deferral::set(UPLINK, own))?;
    let mut node = Node::start(&lab.node, deferring())?;
    ensure!(defers(&node)?, "{:?}", node.status()?);
    ensure!(deferral_of(&lab)? == own, "{:?}", deferral_of(&lab)?);
    node.stop()?;
    ensure!(deferral_of(&lab)? == own, "{:?}", deferral_of(&lab)?);
    // While a node runs, too.
    lab.node.enter(|| deferral::set(UPLINK, Deferral::default()))?;
    node.restart()?;
    ensure!(deferral_of(&lab)? == deferral::WANTED, "{:?}", deferral_of(&lab)?);
    lab.node.enter(|| deferral::set(UPLINK, own))?;
    node.stop()?;
    ensure!(deferral_of(&lab)? == own, "{:?}", deferral_of(&lab)?);
    Ok(())
}
