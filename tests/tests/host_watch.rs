//! What others change on the machine while a node serves is put back, or named.

use std::{
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use weir_tests::{
    Client, Lab, Node, Settings,
    lab::{METADATA_V4, SERVERS, UPLINK},
    steps::connected,
    until,
};

/// How long the node may take to notice, on a slow machine.
const NOTICED: Duration = Duration::from_secs(30);

/// A program that is ended when it is no longer needed.
struct Running(Child);

impl Running {
    fn start(command: &mut Command) -> Result<Self> {
        let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Self(quiet.spawn()?))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn by_kernel() -> Settings {
    Settings::default().with("node", "egress", "\"kernel\"")
}

fn restored(node: &Node<'_>, part: &str) -> Result<u64> {
    let restored = node.status()?.restored;
    Ok(restored.iter().find(|it| it.part == part).with_context(|| format!("no {part}"))?.times)
}

/// The conditions of a part, as `weir status` has them; the metric agrees.
fn conditions(node: &Node<'_>, part: &str) -> Result<Vec<String>> {
    let host = node.status()?.host;
    let of_part = host.into_iter().filter(|it| it.part == part);
    Ok(of_part.map(|it| format!("{}. Fix: {}", it.problem, it.fix)).collect())
}

/// Waits until a condition of the part says this, everywhere where it is to be seen.
fn named(node: &Node<'_>, part: &str, said: &str) -> Result<()> {
    until(&format!("{part}: {said}"), NOTICED, || {
        let found = conditions(node, part)?;
        ensure!(found.iter().any(|it| it.contains(said)), "{found:?}");
        let sample = format!("weir_host_condition{{part=\"{part}\"}} 1");
        ensure!(node.metrics()?.contains(&sample), "no {sample}");
        let screen = node.weir(&["status"])?;
        ensure!(screen.contains("HOST"), "{screen}");
        let line = format!("part=\"{part}\"");
        let mut warnings = node
            .log()
            .lines()
            .filter(|it| it.contains(" WARN "))
            .map(str::to_owned)
            .collect::<Vec<_>>();
        warnings.retain(|it| it.contains(&line) && it.contains(said));
        ensure!(warnings.len() == 1, "said once: {warnings:?}");
        Ok(())
    })
}

fn over(node: &Node<'_>, part: &str) -> Result<()> {
    until(&format!("{part} is as it should be"), NOTICED, || {
        let found = conditions(node, part)?;
        ensure!(found.is_empty(), "{found:?}");
        let sample = format!("weir_host_condition{{part=\"{part}\"}} 0");
        ensure!(node.metrics()?.contains(&sample), "no {sample}");
        Ok(())
    })
}

/// Counts what reaches the internet's side and must not: for a private address, and with an inner
/// source.
fn count_leaks(lab: &Lab) -> Result<()> {
    let rules = format!(
        "table inet leaks {{
             counter private {{ }}
             counter inner {{ }}
             chain from_node {{
                 type filter hook prerouting priority raw
                 iifname to-node ip daddr {METADATA_V4} counter name private
                 iifname to-node ip saddr 10.66.0.0/16 counter name inner
                 iifname to-node ip6 saddr fd66:7765:6972::/64 counter name inner
             }}
         }}"
    );
    let path = tempfile::NamedTempFile::new()?;
    std::fs::write(path.path(), rules)?;
    lab.internet.run(&format!("nft -f {}", path.path().display()))?;
    Ok(())
}

#[test]
fn a_flushed_ruleset_lets_nothing_through_and_the_policy_is_back_at_once() -> Result<()> {
    let lab = Lab::new()?;
    count_leaks(&lab)?;
    let (node, _added, client) = connected(&lab, by_kernel())?;
    client.wait_connected(SERVERS[1])?;
    client.route(&format!("{METADATA_V4}/32"))?;
    let flood = |to: &str| {
        Running::start(lab.consumer.command("ping").args(["-n", "-q", "-i", "0.002", to]))
    };
    let private = flood(&METADATA_V4.to_string())?;
    let allowed = [flood(&SERVERS[0].to_string())?, flood(&SERVERS[1].to_string())?];
    for round in 1..=20 {
        lab.node.run("nft flush ruleset")?;
        until("the policy is back", NOTICED, || {
            ensure!(node.nft_table()?.contains("masquerade"));
            ensure!(restored(&node, "policy")? >= round, "not counted");
            Ok(())
        })?;
    }
    drop((private, allowed));
    ensure!(node.drops("policy", "no_policy")? > 0, "no packet came while the policy was away");
    for counter in ["private", "inner"] {
        let found = lab.internet.run(&format!("nft list counter inet leaks {counter}"))?;
        ensure!(found.contains("packets 0 "), "{found}");
    }
    for server in SERVERS {
        client.wait_connected(server)?;
    }
    let log = node.log();
    ensure!(log.contains("another program removed the exit policy's table"), "{log}");
    ensure!(log.matches("another program removed").count() <= 2, "once a minute: {log}");
    Ok(())
}

#[test]
fn a_rule_or_an_element_that_somebody_takes_out_of_the_policy_is_put_back() -> Result<()> {
    let lab = Lab::new()?;
    let (node, _added, client) = connected(&lab, Settings::default())?;
    let before = node.nft_table()?;
    let set = |name: &str| -> Result<String> {
        let table = lab.node.run("nft -t list table inet weir")?;
        let mut names = table.lines().filter_map(|it| it.trim().strip_prefix("set "));
        let found = names.find(|it| it.starts_with(name)).context("no set")?;
        Ok(found.trim_end_matches(" {").to_owned())
    };
    let mut times = 0;
    for change in 0..4 {
        match change {
            0 => lab.node.run("nft flush chain inet weir forward")?,
            1 => lab.node.run("nft add rule inet weir from_consumer accept")?,
            2 => lab
                .node
                .run(&format!("nft flush set inet weir {}", set("private_destination4")?))?,
            _ => lab.node.run("nft add table inet weir { flags dormant ; }")?,
        };
        times += 1;
        until(&format!("change {change} is undone"), NOTICED, || {
            ensure!(restored(&node, "policy")? >= times, "not noticed");
            ensure!(node.nft_table()? == before, "it is not as it was");
            Ok(())
        })?;
    }
    // What others do in tables of their own is none of it.
    lab.node.run("nft add table inet others")?;
    lab.node.run("nft add set inet others some { type ipv4_addr ; }")?;
    lab.node.run("nft add element inet others some { 192.0.2.1 }")?;
    // And a reload's own change neither.
    node.hang_up()?;
    client.wait_connected(SERVERS[0])?;
    std::thread::sleep(Duration::from_secs(2));
    ensure!(restored(&node, "policy")? == times, "{:?}", node.status()?.restored);
    Ok(())
}

#[test]
fn a_policy_that_cannot_be_put_back_ends_the_node_with_the_reason() -> Result<()> {
    let lab = Lab::new()?;
    count_leaks(&lab)?;
    let (mut node, _added, client) = connected(&lab, Settings::default())?;
    client.route(&format!("{METADATA_V4}/32"))?;
    let mut private = lab.consumer.command("ping");
    let private =
        Running::start(private.args(["-n", "-q", "-i", "0.01", &METADATA_V4.to_string()]))?;
    // Somebody else's table of that name, which only its owner may change.
    let script =
        "(printf 'flush ruleset\\nadd table inet weir { flags owner; }\\n'; sleep 60) | nft -i";
    let _owner = Running::start(lab.node.command("sh").args(["-c", script]))?;
    let status = node.wait_for_end()?;
    drop(private);
    ensure!(status.code() == Some(1), "{status}");
    let log = node.log();
    ensure!(log.contains("no longer meets the node's needs"), "{log}");
    ensure!(log.contains("cannot restore the exit policy"), "{log}");
    let found = lab.internet.run("nft list counter inet leaks private")?;
    ensure!(found.contains("packets 0 "), "{found}");
    Ok(())
}

#[test]
fn forwarding_that_is_turned_off_is_turned_on_again_for_both_families() -> Result<()> {
    let lab = Lab::new()?;
    let (mut node, _added, client) = connected(&lab, by_kernel())?;
    client.wait_connected(SERVERS[1])?;
    let on = |key: &str| -> Result<bool> {
        Ok(lab.node.run(&format!("sysctl -n -e {key}"))?.trim() == "1")
    };
    let v6 = format!("net.ipv6.conf.{UPLINK}.force_forwarding");
    let has_own_v6 = on(&v6)?;
    let v6 = if has_own_v6 { v6 } else { "net.ipv6.conf.all.forwarding".to_owned() };
    let cases: [(&str, &[(&str, &str)]); 4] = [
        (
            "net.ipv4.conf.weir0.forwarding",
            &[("net.ipv4.ip_forward", "1"), ("net.ipv4.ip_forward", "0")],
        ),
        ("net.ipv4.conf.up0.forwarding", &[("net.ipv4.conf.up0.forwarding", "0")]),
        (&v6, &[(&v6, "0")]),
        ("net.ipv4.conf.weir0.rp_filter", &[("net.ipv4.conf.weir0.rp_filter", "0")]),
    ];
    for (times, (needed, changes)) in (1..).zip(cases) {
        ensure!(on(needed)?, "{needed} is not what the node depends on");
        for (key, value) in changes {
            lab.node.sysctl(key, value)?;
        }
        until(needed, NOTICED, || {
            ensure!(restored(&node, "forwarding")? >= times, "not noticed");
            ensure!(on(needed)?, "it is off");
            Ok(())
        })?;
        for server in SERVERS {
            client.wait_connected(server)?;
        }
    }
    let log = node.log();
    ensure!(log.contains("another program changed net/ipv4/conf/weir0/forwarding"), "{log}");
    node.stop()?;
    ensure!(!on("net.ipv4.conf.up0.forwarding")? && !on(&v6)?, "the stopped node left it on");
    Ok(())
}

#[test]
fn a_tun_device_that_somebody_changes_is_set_up_again() -> Result<()> {
    let lab = Lab::new()?;
    let (node, _added, client) = connected(&lab, Settings::default())?;
    for (times, change) in (1..).zip([
        "link set weir0 mtu 1300",
        "addr del 10.66.0.1/16 dev weir0",
        "addr del fd66:7765:6972::1/64 dev weir0",
        "link set weir0 down",
    ]) {
        lab.node.ip(change)?;
        until(change, NOTICED, || {
            ensure!(restored(&node, "tunnel")? >= times, "not noticed");
            let (link, addresses) =
                (lab.node.ip("link show weir0")?, lab.node.ip("addr show weir0")?);
            ensure!(link.contains("mtu 1420") && link.contains("UP"), "{link}");
            ensure!(addresses.contains("10.66.0.1/16"), "{addresses}");
            ensure!(addresses.contains("fd66:7765:6972::1/64"), "{addresses}");
            Ok(())
        })?;
        for server in SERVERS {
            client.wait_connected(server).with_context(|| change.to_owned())?;
        }
    }
    Ok(())
}

#[test]
fn an_offload_that_weir_turned_on_and_somebody_turns_off_is_on_again() -> Result<()> {
    let lab = Lab::new()?;
    let feature = |feature: &str| -> Result<bool> {
        let features = lab.node.run(&format!("ethtool -k {UPLINK}"))?;
        Ok(features.lines().any(|line| line.starts_with(&format!("{feature}: on"))))
    };
    let gro = "rx-udp-gro-forwarding";
    ensure!(!feature(gro)?, "it is on without weir");
    let mut node = Node::start(&lab.node, by_kernel())?;
    ensure!(feature(gro)?, "weir has not turned it on");
    lab.node.run(&format!("ethtool -K {UPLINK} {gro} off"))?;
    until("it is on again", NOTICED, || {
        ensure!(restored(&node, "offloads")? == 1 && feature(gro)?, "it is off");
        Ok(())
    })?;
    node.stop()?;
    ensure!(!feature(gro)?, "the stopped node left it on");
    Ok(())
}

#[test]
fn a_chain_that_comes_later_and_drops_is_named_once_everywhere_and_by_doctor() -> Result<()> {
    let lab = Lab::new()?;
    let (node, _added, client) = connected(&lab, by_kernel())?;
    over(&node, "firewall")?;
    lab.node.run("nft add table ip other")?;
    lab.node.run(
        "nft add chain ip other FORWARD { type filter hook forward priority 0 ; policy drop ; }",
    )?;
    named(&node, "firewall", "ip other FORWARD")?;
    let config = node.config_path().display().to_string();
    let doctor = node.weir(&["doctor", "--config", &config]);
    let said = doctor.unwrap_or_else(|error| format!("{error:#}"));
    ensure!(said.contains("ip other FORWARD"), "{said}");
    lab.node.run("nft delete table ip other")?;
    over(&node, "firewall")?;
    client.wait_connected(SERVERS[0])?;
    Ok(())
}

#[test]
fn the_uplinks_state_routes_and_mtu_are_named_while_they_are_wrong() -> Result<()> {
    let lab = Lab::new()?;
    let (node, _added, client) = connected(&lab, Settings::default())?;
    client.wait_connected(SERVERS[1])?;
    lab.node.ip("route del default")?;
    named(&node, "default_route", "IPv4 has no default route")?;
    lab.node.ip("route add default via 45.80.2.1")?;
    over(&node, "default_route")?;
    lab.node.ip("-6 route del default")?;
    named(&node, "default_route", "IPv6 has no default route")?;
    lab.node.ip("-6 route add default via 2a0c:b641:2::1")?;
    over(&node, "default_route")?;
    lab.node.ip(&format!("link set {UPLINK} mtu 1400"))?;
    named(&node, "mtu", "does not fit the uplink, whose MTU is 1400")?;
    ensure!(node.status()?.uplink_mtu == 1400, "{:?}", node.status()?);
    lab.node.ip(&format!("link set {UPLINK} mtu 1500"))?;
    over(&node, "mtu")?;
    // Its peer is down: no carrier.
    lab.internet.ip("link set to-node down")?;
    named(&node, "uplink", "is down or has no carrier")?;
    lab.internet.ip("link set to-node up")?;
    over(&node, "uplink")?;
    lab.node.ip(&format!("link set {UPLINK} down"))?;
    named(&node, "default_route", "IPv4 has no default route").ok();
    lab.node.ip(&format!("link set {UPLINK} up"))?;
    lab.node.ip("route add default via 45.80.2.1")?;
    over(&node, "uplink")?;
    client.wait_connected(SERVERS[0])?;
    Ok(())
}

#[test]
fn new_consumers_are_told_the_address_that_the_machine_has_by_now() -> Result<()> {
    let lab = Lab::new()?;
    let node = Node::start(&lab.node, Settings::default())?;
    let told = |name: &str| Ok::<_, anyhow::Error>(node.session_add(name)?.config);
    ensure!(told("first")?.contains("Endpoint = 45.80.2.2:51820"));
    for address in ["45.80.2.2/24", "45.80.2.9/24"] {
        // The second one goes with the first, unless it is promoted.
        lab.node.ip(&format!("addr del {address} dev {UPLINK}")).ok();
    }
    lab.node.ip(&format!("addr add 45.80.2.50/24 dev {UPLINK}"))?;
    lab.node.ip("route replace default via 45.80.2.1")?;
    until("the new address is told", NOTICED, || {
        let endpoint = node.status()?.endpoint;
        ensure!(endpoint == "45.80.2.50:51820", "{endpoint}");
        Ok(())
    })?;
    let config = told("second")?;
    let client = Client::connect(&lab.consumer, &config)?;
    client.wait_connected(SERVERS[0])?;
    // A reload does not bring the old one back.
    node.hang_up()?;
    ensure!(told("third")?.contains("Endpoint = 45.80.2.50:51820"));
    let log = node.log();
    ensure!(log.contains("this machine's address has changed"), "{log}");
    Ok(())
}

/// A second line to the internet, by which IPv6 goes.
fn second_line(lab: &Lab) -> Result<()> {
    let node = lab.node.name();
    lab.internet.ip(&format!("link add to-six type veth peer name six0 netns {node}"))?;
    for (namespace, interface, host) in [(&lab.internet, "to-six", 1), (&lab.node, "six0", 2)] {
        namespace.ip(&format!("addr add 2a0c:b641:6::{host}/64 dev {interface} nodad"))?;
        namespace.ip(&format!("link set {interface} up"))?;
    }
    lab.node.ip("-6 route replace default via 2a0c:b641:6::1")?;
    Ok(())
}

#[test]
fn each_family_leaves_by_the_uplink_of_its_own_default_route() -> Result<()> {
    let lab = Lab::new()?;
    second_line(&lab)?;
    let (mut node, _added, client) =
        connected(&lab, Settings::default().with("node", "uplink", "\"auto\""))?;
    client.wait_connected(SERVERS[1])?;
    let status = node.status()?;
    ensure!(status.uplink == UPLINK, "{status:?}");
    ensure!(status.offloads.iter().any(|it| it.contains("leaves through six0")), "{status:?}");
    node.stop()?;
    // By name there is one uplink alone, and that IPv6 does not pass is said.
    let named = Node::start(&lab.node, Settings::default())?;
    let status = named.status()?;
    ensure!(status.offloads.iter().any(|it| it.contains("consumers have no IPv6")), "{status:?}");
    Ok(())
}

#[test]
fn a_vanished_uplink_ends_the_node_and_the_next_start_waits_for_it() -> Result<()> {
    let lab = Lab::new()?;
    let (mut node, _added, client) = connected(&lab, Settings::default())?;
    lab.internet.ip("link del to-node")?;
    let status = node.wait_for_end()?;
    ensure!(status.code() == Some(1), "{status}");
    ensure!(node.log().contains("is gone. Fix:"), "{}", node.log());
    let log = node.config_path().with_file_name("weir.log");
    std::thread::scope(|scope| -> Result<()> {
        let back = scope.spawn(|| -> Result<()> {
            until("the start waits", NOTICED, || {
                let log = std::fs::read_to_string(&log)?;
                ensure!(log.contains("waiting for the uplink: no interface"), "{log}");
                Ok(())
            })?;
            let peer = lab.node.name();
            let pair = format!("link add to-node type veth peer name {UPLINK} netns {peer}");
            lab.internet.ip(&pair)?;
            for (namespace, interface, host) in
                [(&lab.internet, "to-node", 1), (&lab.node, UPLINK, 2)]
            {
                namespace.ip(&format!("addr add 45.80.2.{host}/24 dev {interface}"))?;
                namespace.ip(&format!("link set {interface} up"))?;
            }
            lab.node.ip("route add default via 45.80.2.1")?;
            Ok(())
        });
        node.restart()?;
        back.join().map_err(|_| anyhow::anyhow!("the link did not come back"))?
    })?;
    let log = node.log();
    ensure!(log.matches("waiting for the uplink: no interface").count() == 1, "{log}");
    client.wait_connected(SERVERS[0])
}
