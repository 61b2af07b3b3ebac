//! `weir connect`: everything through the tunnel, and nothing beside it, whatever happens.

use std::{fs, thread::sleep, time::Duration};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use weir_tests::{
    Lab, Node, Settings,
    connect::{Capture, ForeignExit, Machine, Noise, RESOLV_CONF, endpoint},
    lab::{CONSUMER_LINK, CONSUMER_V4, MOVED_V4, SERVER_V4, SERVER_V6, SERVERS},
    steps::outside,
    traffic::tcp::{self, Direction},
    until,
};

const LIMIT: Duration = Duration::from_secs(60);

/// A configuration of a new session.
fn conf(node: &Node<'_>, name: &str) -> Result<String> {
    Ok(node.session_add(name)?.config)
}

/// That the machine reaches the servers, and only through the tunnel.
fn all_passes(lab: &Lab, machine: &Machine<'_>, capture: &Capture) -> Result<()> {
    let before = capture.tunnel();
    for server in SERVERS {
        machine.reaches(server)?;
    }
    ensure!(capture.tunnel() > before, "nothing went through the tunnel");
    assert_eq!(capture.beside(), Vec::<String>::new(), "beside the tunnel, of {:?}", lab.consumer);
    Ok(())
}

/// Disconnects, when nothing has left beside the tunnel: then everything is as it was before.
fn leaves_no_trace(
    machine: &mut Machine<'_>,
    capture: &Capture,
    noise: Noise,
    before: &str,
) -> Result<()> {
    assert_eq!(capture.beside(), Vec::<String>::new());
    drop(noise);
    machine.disconnect()?;
    assert_eq!(machine.everything()?, before);
    Ok(())
}

#[test]
fn without_the_table_the_capture_sees_everything_that_leaves() -> Result<()> {
    let lab = Lab::new()?;
    let capture = Capture::start(&lab, Vec::new())?;
    let _noise = Noise::start(&lab)?;
    until("four kinds of noise", LIMIT, || {
        let seen = capture.beside();
        ensure!(seen.len() > 100, "only {}", seen.len());
        let v6 = seen.iter().filter(|frame| frame.contains("86, dd")).count();
        ensure!(v6 > 20 && seen.len() - v6 > 20, "{v6} of {}", seen.len());
        Ok(())
    })
}

#[test]
fn nothing_leaves_beside_the_tunnel_from_the_start_to_the_end() -> Result<()> {
    let lab = Lab::new()?;
    let node = Node::start(&lab.node, Settings::default())?;
    let text = conf(&node, "consumer")?;
    let mut machine = Machine::new(&lab)?;
    let before = machine.everything()?;
    let path = machine.conf("exit.conf", &text)?;
    let capture = Capture::start(&lab, vec![endpoint(&text)?])?;

    // The start, as long as the node cannot be reached.
    let lost = "blackhole 45.80.2.2/32 table 100";
    lab.internet.ip(&format!("route add {lost}"))?;
    machine.start(&["--conf", &path])?;
    let noise = Noise::start(&lab)?;
    until("a try", LIMIT, || {
        ensure!(machine.log().contains("Trying exit.conf"), "{}", machine.log());
        ensure!(capture.tunnel() > 0, "no handshake");
        Ok(())
    })?;
    assert_eq!(capture.beside(), Vec::<String>::new());
    assert_eq!(machine.status()?["state"], "connecting");
    lab.internet.ip(&format!("route del {lost}"))?;
    machine.wait_connected("exit.conf")?;
    all_passes(&lab, &machine, &capture)?;

    // Names: only the tunnel's resolvers.
    let resolver = fs::read_to_string(machine.resolv_conf())?;
    ensure!(resolver.contains("nameserver 10.66.0.1") && !resolver.contains("192.0.2.53"));

    // A second connection is refused, and changes nothing.
    let second = machine.weir(&["connect", "--conf", &path]);
    ensure!(format!("{:#}", second.expect_err("refused")).contains("weir connect runs already"));

    // A crash: the tunnel is gone, and the machine is closed.
    machine.end(Signal::KILL)?;
    let ping = lab.consumer.run(&format!("ping -n -q -c 1 -W 1 {SERVER_V4}"));
    ensure!(ping.is_err(), "it reaches the internet without a tunnel");
    assert_eq!(machine.status()?["state"], "closed");
    assert_eq!(capture.beside(), Vec::<String>::new());

    // Another connection takes over; SIGTERM ends it, and the machine stays closed.
    machine.connect(&["--conf", &path])?;
    all_passes(&lab, &machine, &capture)?;
    machine.end(Signal::TERM)?;
    assert_eq!(machine.status()?["state"], "closed");
    assert_eq!(capture.beside(), Vec::<String>::new());

    drop(noise);
    let said = machine.disconnect()?;
    ensure!(said.contains("open again"), "{said}");
    assert_eq!(machine.everything()?, before);
    assert_eq!(fs::read_to_string(machine.resolv_conf())?, RESOLV_CONF);
    lab.consumer.run(&format!("ping -n -q -c 1 -W 2 {SERVER_V4}"))?;
    Ok(())
}

#[test]
fn an_interrupt_disconnects_and_restores_everything() -> Result<()> {
    let lab = Lab::new()?;
    let node = Node::start(&lab.node, Settings::default())?;
    let mut machine = Machine::new(&lab)?;
    let before = machine.everything()?;
    let path = machine.conf("exit.conf", &conf(&node, "consumer")?)?;
    machine.connect(&["--conf", &path])?;
    assert_ne!(machine.everything()?, before);
    machine.end(Signal::INT)?;
    assert_eq!(machine.everything()?, before);
    assert_eq!(machine.status()?["state"], "off");
    ensure!(machine.disconnect()?.contains("There was no connection"));
    Ok(())
}

#[test]
fn when_a_node_dies_the_next_one_takes_over_and_nothing_leaves() -> Result<()> {
    let lab = Lab::new()?;
    let other = lab.another_node(4)?;
    let mut first = Node::start(&lab.node, Settings::default())?;
    let second = Node::start(&other, Settings::default())?;
    let (one, two) = (conf(&first, "consumer")?, conf(&second, "consumer")?);
    let mut machine = Machine::new(&lab)?;
    let before = machine.everything()?;
    let capture = Capture::start(&lab, vec![endpoint(&one)?, endpoint(&two)?])?;
    let (one, two) = (machine.conf("first.conf", &one)?, machine.conf("second.conf", &two)?);
    machine.start(&["--conf", &one, "--conf", &two])?;
    let noise = Noise::start(&lab)?;
    machine.wait_connected("first.conf")?;
    all_passes(&lab, &machine, &capture)?;
    first.kill()?;
    machine.wait_connected("second.conf")?;
    all_passes(&lab, &machine, &capture)?;
    let status = machine.status()?;
    let why = status["last_change"].as_str().unwrap_or_default();
    ensure!(why.contains("first.conf: it does not answer"), "{status}");
    ensure!(status["dropped"].as_u64() > Some(0), "the table has dropped nothing: {status}");
    drop(noise);
    machine.disconnect()?;
    assert_eq!(machine.everything()?, before);
    Ok(())
}

#[test]
fn nothing_leaves_when_the_link_flaps_the_process_stops_or_the_resolver_changes() -> Result<()> {
    let lab = Lab::new()?;
    let node = Node::start(&lab.node, Settings::default())?;
    let text = conf(&node, "consumer")?;
    let mut machine = Machine::new(&lab)?;
    let path = machine.conf("exit.conf", &text)?;
    let capture = Capture::start(&lab, vec![endpoint(&text)?])?;
    machine.start(&["--conf", &path])?;
    let _noise = Noise::start(&lab)?;
    machine.wait_connected("")?;

    // The link goes and comes back with other addresses, as another network's.
    lab.consumer.ip(&format!("link set {CONSUMER_LINK} down"))?;
    sleep(Duration::from_millis(300));
    lab.consumer.ip(&format!("addr del {CONSUMER_V4}/24 dev {CONSUMER_LINK}"))?;
    lab.consumer.ip(&format!("link set {CONSUMER_LINK} up"))?;
    lab.consumer.ip(&format!("route replace default via 45.80.1.1 src {MOVED_V4}"))?;
    for address in ["2a0c:b641:1::2/64", "2a0c:b641:1::77/64"] {
        lab.consumer.ip(&format!("addr replace {address} dev {CONSUMER_LINK} nodad"))?;
    }
    lab.consumer.ip("route replace default via 2a0c:b641:1::1")?;
    all_passes(&lab, &machine, &capture)?;

    // Suspended: nothing is carried, and nothing leaves.
    machine.signal(Signal::STOP)?;
    sleep(Duration::from_secs(2));
    assert_eq!(capture.beside(), Vec::<String>::new());
    machine.signal(Signal::CONT)?;
    all_passes(&lab, &machine, &capture)?;

    // A DHCP client writes its own resolver.
    fs::write(machine.resolv_conf(), "nameserver 192.0.2.99\n")?;
    until("the tunnel's resolver is back", LIMIT, || {
        let text = fs::read_to_string(machine.resolv_conf())?;
        ensure!(text.contains("nameserver 10.66.0.1"), "{text}");
        Ok(())
    })?;
    // Another firewall removes every table.
    lab.consumer.run("nft flush ruleset")?;
    until("the table is back", LIMIT, || {
        lab.consumer.run("nft list table inet weir_connect").map(drop)
    })?;
    drop(capture.beside());
    all_passes(&lab, &machine, &capture)?;
    machine.disconnect()?;
    assert_eq!(fs::read_to_string(machine.resolv_conf())?, "nameserver 192.0.2.99\n");
    Ok(())
}

#[test]
fn a_family_without_an_exit_is_refused_and_one_that_carries_the_tunnel_is_enough() -> Result<()> {
    let lab = Lab::new()?;
    let node = Node::start(&lab.node, Settings::default())?;
    let text = conf(&node, "consumer")?;
    let mut machine = Machine::new(&lab)?;

    // Only IPv4 inside: IPv6 does not leave beside it.
    let only_v4 = text.replace(", ::/0", "");
    let path = machine.conf("v4.conf", &only_v4)?;
    let capture = Capture::start(&lab, vec![endpoint(&text)?])?;
    machine.start(&["--conf", &path])?;
    let noise = Noise::start(&lab)?;
    machine.wait_connected("")?;
    machine.reaches(SERVER_V4.into())?;
    let ping = lab.consumer.run(&format!("ping -n -q -c 1 -W 1 {SERVER_V6}"));
    let refused = format!("{:#}", ping.expect_err("there is no IPv6"));
    ensure!(refused.contains("No route to host"), "it is not refused at once: {refused}");
    assert_eq!(capture.beside(), Vec::<String>::new());
    // What it sends on the open machine could wait for a neighbour, and be seen by the next capture.
    drop(noise);
    machine.disconnect()?;
    drop(capture);

    // A consumer that has IPv6 alone.
    let config = outside(&text, SERVER_V6.into())?;
    let at_v6 = config.endpoint.context("no endpoint")?;
    let text = text.replace(&endpoint(&text)?.to_string(), &at_v6);
    let path = machine.conf("v6.conf", &text)?;
    for address in [CONSUMER_V4, MOVED_V4] {
        lab.consumer.ip(&format!("addr del {address}/24 dev {CONSUMER_LINK}"))?;
    }
    let capture = Capture::start(&lab, vec![endpoint(&text)?])?;
    machine.start(&["--conf", &path])?;
    let _noise = Noise::start(&lab)?;
    machine.wait_connected("v6.conf")?;
    all_passes(&lab, &machine, &capture)
}

#[test]
fn the_local_network_is_reached_only_when_asked_for_and_never_for_names() -> Result<()> {
    let lab = Lab::new()?;
    let node = Node::start(&lab.node, Settings::default())?;
    let text = conf(&node, "consumer")?;
    lab.internet.ip("addr add 192.168.7.1/24 dev to-consumer")?;
    lab.consumer.ip(&format!("addr add 192.168.7.2/24 dev {CONSUMER_LINK}"))?;
    let mut machine = Machine::new(&lab)?;
    let path = machine.conf("exit.conf", &text)?;
    let printer = "ping -n -q -c 1 -W 1 192.168.7.1";
    lab.consumer.run(printer)?;
    machine.connect(&["--conf", &path])?;
    ensure!(lab.consumer.run(printer).is_err(), "the local network is not closed");
    machine.disconnect()?;

    machine.connect(&["--conf", &path, "--lan"])?;
    machine.reaches(SERVER_V4.into())?;
    lab.consumer.run(printer)?;
    let capture = Capture::start(&lab, vec![endpoint(&text)?])?;
    for port in [53, 853] {
        let socket = lab.consumer.enter(|| Ok(std::net::UdpSocket::bind("0.0.0.0:0")?))?;
        socket.send_to(b"who is", ("192.168.7.1", port)).ok();
    }
    assert_eq!(capture.beside(), Vec::<String>::new());
    let socket = lab.consumer.enter(|| Ok(std::net::UdpSocket::bind("0.0.0.0:0")?))?;
    socket.send_to(b"print", ("192.168.7.1", 9100))?;
    assert_eq!(capture.beside().len(), 1, "the capture sees the local network");
    Ok(())
}

#[test]
fn a_program_in_exec_reaches_nothing_but_the_tunnel() -> Result<()> {
    let lab = Lab::new()?;
    let mut node = Node::start(&lab.node, Settings::default())?;
    let text = conf(&node, "consumer")?;
    let machine = Machine::new(&lab)?;
    let before = machine.everything()?;
    let path = machine.conf("exit.conf", &text)?;
    let capture = Capture::start(&lab, vec![endpoint(&text)?])?;
    let exec = |script: &str| {
        let command = machine.command(&["exec", "--conf", &path, "--", "sh", "-c", script]);
        Ok::<_, anyhow::Error>(command?.output()?)
    };
    let done = exec(&format!(
        "ping -n -q -c 2 -i 0.2 -W 5 {SERVER_V4} && ping -n -q -c 2 -i 0.2 -W 5 {SERVER_V6} && \
         grep -q 'nameserver 10.66.0.1' /etc/resolv.conf && ! ip link show {CONSUMER_LINK} && \
         exit 7"
    ))?;
    assert_eq!(done.status.code(), Some(7), "{done:?}");
    let done = exec("kill -9 $$")?;
    assert_eq!(done.status.code(), Some(128 + 9), "{done:?}");
    ensure!(exec("true").map(|done| done.status.success())?);

    // The tunnel dies while the program runs.
    let run = format!(
        "ping -n -q -c 1 -W 5 {SERVER_V4} || exit 1; touch {0}.up; \
         while [ ! -e {0}.down ]; do sleep 0.1; done; \
         for to in {SERVER_V4} {SERVER_V6} {CONSUMER_V4} 45.80.1.1; do \
         ping -n -q -c 1 -W 1 $to && exit 2; done; exit 0",
        path
    );
    let mut child = machine.command(&["exec", "--conf", &path, "--", "sh", "-c", &run])?.spawn()?;
    until("the program runs", LIMIT, || {
        fs::metadata(format!("{path}.up")).context("not yet").map(drop)
    })?;
    node.kill()?;
    fs::write(format!("{path}.down"), "")?;
    assert_eq!(child.wait()?.code(), Some(0));
    assert_eq!(capture.beside(), Vec::<String>::new());
    ensure!(capture.tunnel() > 0);
    assert_eq!(machine.everything()?, before, "exec changes nothing outside");
    Ok(())
}

#[test]
fn vouchers_are_used_when_a_quarter_is_left_and_never_more_than_the_budget() -> Result<()> {
    let lab = Lab::new()?;
    let settings = Settings::default().with("voucher", "enabled", "true");
    let node = Node::start(&lab.node, settings)?;
    let made = node.weir(&["voucher", "make", "--bytes", "400000", "--count", "3"])?;
    let codes: Vec<_> = made.split_whitespace().collect();
    let added = node.weir(&["session", "add", "--prepaid", "--name", "c", "--json"])?;
    let added: weir_tests::node::Added = serde_json::from_str(&added)?;
    let mut machine = Machine::new(&lab)?;
    let path = machine.conf("exit.conf", &added.config)?;
    let mut words = vec!["--conf", &path, "--budget", "2"];
    for code in &codes {
        words.extend(["--voucher", code]);
    }
    machine.connect(&words)?;
    let used = || -> Result<u64> {
        let list = node.weir(&["voucher", "list", "--json"])?;
        let list: serde_json::Value = serde_json::from_str(&list)?;
        list["batches"][0]["used"].as_u64().context("no number")
    };
    // Paused without credit: the first voucher opens it.
    machine.reaches(SERVER_V4.into())?;
    assert_eq!(used()?, 1);
    // More than a quarter of the first is used soon.
    until("the second voucher", LIMIT, || {
        lab.consumer.run(&format!("ping -n -q -c 40 -i 0.01 -s 1300 -W 1 {SERVER_V4}")).ok();
        ensure!(used()? == 2, "{}", machine.log());
        Ok(())
    })?;
    until("the money is gone", LIMIT, || {
        lab.consumer.run(&format!("ping -n -q -c 40 -i 0.01 -s 1300 -W 1 {SERVER_V4}")).ok();
        ensure!(machine.log().contains("its session is used up"), "{}", machine.log());
        Ok(())
    })?;
    assert_eq!(used()?, 2, "the budget is two");
    Ok(())
}

#[test]
fn through_an_entry_the_consumer_never_talks_to_the_exit_itself() -> Result<()> {
    let lab = Lab::new()?;
    let other = lab.another_node(4)?;
    let mut entry = Node::start(&lab.node, Settings::default())?;
    let exit = Node::start(&other, Settings::default())?;
    let (one, two) = (conf(&entry, "consumer")?, conf(&exit, "consumer")?);
    let mut machine = Machine::new(&lab)?;
    let before = machine.everything()?;
    // Datagrams to the exit would be beside the tunnel.
    let capture = Capture::start(&lab, vec![endpoint(&one)?])?;
    let (one, two) = (machine.conf("entry.conf", &one)?, machine.conf("exit.conf", &two)?);
    let same = machine.weir(&["connect", "--conf", &one, "--via", &one]);
    ensure!(format!("{:#}", same.expect_err("one node twice")).contains("same address"));
    machine.start(&["--conf", &two, "--via", &one])?;
    let noise = Noise::start(&lab)?;
    machine.wait_connected("exit.conf")?;
    all_passes(&lab, &machine, &capture)?;
    let server = tcp::Server::start(&lab.internet)?;
    tcp::parallel(&lab.consumer, server.at(SERVER_V4.into()), Direction::Up, 2, 2_000_000)?;
    let carried = exit.session_list()?.first().context("no session")?.bytes_up;
    ensure!(carried > 2_000_000, "the exit carried {carried} bytes");
    entry.kill()?;
    let ping = lab.consumer.run(&format!("ping -n -q -c 1 -W 1 {SERVER_V4}"));
    ensure!(ping.is_err(), "it goes on without the entry");
    leaves_no_trace(&mut machine, &capture, noise, &before)
}

#[test]
fn when_the_entry_dies_the_same_exit_is_reached_through_another_one() -> Result<()> {
    let lab = Lab::new()?;
    let [place, far] = [lab.another_node(4)?, lab.another_node(5)?];
    let mut first = Node::start(&lab.node, Settings::default())?;
    let second = Node::start(&place, Settings::default())?;
    let exit = Node::start(&far, Settings::default())?;
    let nodes = [&first, &second, &exit];
    let [one, two, three] = nodes.map(|node| conf(node, "consumer"));
    let (one, two, three) = (one?, two?, three?);
    let mut machine = Machine::new(&lab)?;
    let before = machine.everything()?;
    let capture = Capture::start(&lab, vec![endpoint(&one)?, endpoint(&two)?])?;
    let entries = [machine.conf("first.conf", &one)?, machine.conf("second.conf", &two)?];
    let path = machine.conf("exit.conf", &three)?;
    machine.start(&["--conf", &path, "--via", &entries[0], "--via", &entries[1]])?;
    let noise = Noise::start(&lab)?;
    machine.wait_connected("exit.conf")?;
    let through = |machine: &Machine<'_>| -> Result<String> {
        Ok(machine.status()?["entry"]["node"].as_str().unwrap_or_default().to_owned())
    };
    ensure!(through(&machine)? == "first.conf");
    let server = tcp::Server::start(&lab.internet)?;
    let fetch =
        || tcp::parallel(&lab.consumer, server.at(SERVERS[0]), Direction::Down, 2, 2_000_000);
    fetch()?;
    first.kill()?;
    until("it goes through the second entry", Duration::from_secs(60), || {
        ensure!(through(&machine)? == "second.conf", "{}", machine.log());
        lab.consumer.run(&format!("ping -n -q -c 1 -W 1 {SERVER_V4}")).map(drop)
    })?;
    fetch().with_context(|| machine.log())?;
    ensure!(
        machine.log().contains("first.conf, the entry: it does not answer."),
        "{}",
        machine.log()
    );
    // The session that the exit had before, and the first entry's is not used.
    let sessions = exit.session_list()?;
    ensure!(sessions.len() == 1 && sessions[0].bytes_down > 4_000_000, "{sessions:?}");
    ensure!(second.session_list()?[0].bytes_down > 2_000_000, "the second entry carried nothing");
    ensure!(!machine.log().contains("exit.conf: "), "the exit is blamed: {}", machine.log());
    leaves_no_trace(&mut machine, &capture, noise, &before)
}

#[test]
fn an_entry_that_answers_and_carries_nothing_to_the_exit_is_left_for_another_one() -> Result<()> {
    let lab = Lab::new()?;
    let [place, far] = [lab.another_node(4)?, lab.another_node(5)?];
    // Its operator does not let consumers reach the exit.
    let closed = Settings::default().with("policy", "block", "[\"45.80.5.0/24\"]");
    let first = Node::start(&lab.node, closed)?;
    let second = Node::start(&place, Settings::default())?;
    let exit = Node::start(&far, Settings::default())?;
    let mut machine = Machine::new(&lab)?;
    let named = [("first.conf", &first), ("second.conf", &second), ("exit.conf", &exit)];
    let paths = named.map(|(name, node)| machine.conf(name, &conf(node, "consumer")?));
    let [one, two, three] = paths;
    let (one, two, three) = (one?, two?, three?);
    machine.connect(&["--conf", &three, "--via", &one, "--via", &two])?;
    machine.reaches(SERVERS[0]).with_context(|| machine.log())?;
    let log = machine.log();
    ensure!(log.contains("first.conf, the entry: it answers, but carries no traffic."), "{log}");
    ensure!(machine.status()?["entry"]["node"] == "second.conf", "{log}");
    machine.disconnect()?;
    Ok(())
}

#[test]
fn a_node_that_bills_more_than_it_carried_is_left_and_named() -> Result<()> {
    let lab = Lab::new()?;
    let other = lab.another_node(4)?;
    let cheat = ForeignExit::start(&lab)?;
    let honest = Node::start(&other, Settings::default())?;
    let two = conf(&honest, "consumer")?;
    let mut machine = Machine::new(&lab)?;
    let capture = Capture::start(&lab, vec![endpoint(cheat.conf())?, endpoint(&two)?])?;
    let one = machine.conf("cheat.conf", cheat.conf())?;
    let two = machine.conf("honest.conf", &two)?;
    machine.start(&["--conf", &one, "--conf", &two])?;
    let _noise = Noise::start(&lab)?;
    machine.wait_connected("cheat.conf")?;
    let server = tcp::Server::start(&lab.internet)?;
    let carry = || {
        let to = server.at(SERVER_V4.into());
        tcp::parallel(&lab.consumer, to, Direction::Down, 2, 10_000_000)
    };
    let asked = |more: u64| {
        let before = cheat.answers();
        until("the gateway is asked", LIMIT, || {
            ensure!(cheat.answers() >= before + more, "{} times", cheat.answers());
            Ok(())
        })
    };
    // It bills exactly what it carried, handshakes included: it stays.
    asked(1)?;
    carry()?;
    asked(2)?;
    assert_eq!(machine.status()?["node"], "cheat.conf", "{}", machine.log());
    // Three per cent more.
    cheat.bill(1030);
    carry()?;
    machine.wait_connected("honest.conf")?;
    let why = machine.status()?["last_change"].to_string();
    ensure!(why.contains("cheat.conf: it bills more than it carried"), "{why}");
    all_passes(&lab, &machine, &capture)
}
