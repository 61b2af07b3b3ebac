//! What the node changed on its host is gone when it has stopped.

use std::time::Duration;

use anyhow::{Result, ensure};
use weir_tests::{Lab, Namespace, Node, Settings, lab::UPLINK, steps::connected, until};

/// Everything that the node may have changed, as text.
fn host(namespace: &Namespace) -> Result<Vec<(&'static str, String)>> {
    // Link-local addresses and their routes come by themselves, a while after their interface.
    until("the kernel's own addresses", Duration::from_secs(30), || {
        let addresses = namespace.ip("-o addr")?;
        ensure!(!addresses.contains("tentative"), "{addresses}");
        ensure!(addresses.contains("fe80::"), "{addresses}");
        Ok(())
    })?;
    let sysctls = namespace.run("sysctl -a --ignore")?;
    // Ports of ephemeral sockets, entropy and the like change by themselves.
    let kept = |line: &&str| line.starts_with("net.ipv4.") || line.starts_with("net.ipv6.");
    let sysctls: Vec<_> = sysctls.lines().filter(kept).collect();
    Ok(vec![
        ("interfaces", namespace.ip("-o link")?),
        ("addresses", without_lifetimes(&namespace.ip("-o addr")?)),
        ("routes", namespace.ip("-4 route show table all")?),
        ("IPv6 routes", namespace.ip("-6 route show table all")?),
        ("policy routing", namespace.ip("rule")? + &namespace.ip("-6 rule")?),
        ("sysctls", sysctls.join("\n")),
        ("nftables", namespace.run("nft list ruleset")?),
        ("offloads", namespace.run(&format!("ethtool -k {UPLINK}"))?),
    ])
}

fn without_lifetimes(text: &str) -> String {
    text.lines().filter_map(|line| line.split(" valid_lft").next()).collect::<Vec<_>>().join("\n")
}

fn nothing_left(node: &Node<'_>, before: &[(&str, String)], lab: &Lab) -> Result<()> {
    for ((what, before), (_, after)) in before.iter().zip(host(&lab.node)?) {
        ensure!(*before == after, "{what} before:\n{before}\nafter:\n{after}");
    }
    ensure!(!node.socket_path().exists(), "the API's socket is left");
    ensure!(node.mounts().is_empty(), "left mounted: {:?}", node.mounts());
    ensure!(node.pins().is_empty(), "left pinned: {:?}", node.pins());
    Ok(())
}

#[test]
fn a_stopped_node_leaves_the_host_as_it_was() -> Result<()> {
    let lab = Lab::new()?;
    let before = host(&lab.node)?;
    let (mut node, _added, client) = connected(&lab, Settings::default())?;
    ensure!(node.nft_table()?.contains("masquerade"), "the policy is not installed");
    drop(client);
    node.stop()?;
    nothing_left(&node, &before, &lab)
}

#[test]
fn a_node_that_was_killed_leaves_nothing_after_the_next_clean_stop() -> Result<()> {
    let lab = Lab::new()?;
    let before = host(&lab.node)?;
    let (mut node, _added, client) = connected(&lab, Settings::default())?;
    drop(client);
    node.kill()?;
    node.restart()?;
    node.stop()?;
    nothing_left(&node, &before, &lab)
}

#[test]
fn what_was_changed_is_undone_though_the_runtime_directory_is_lost_after_a_kill() -> Result<()> {
    let lab = Lab::new()?;
    let before = host(&lab.node)?;
    let (mut node, _added, client) = connected(&lab, Settings::default())?;
    drop(client);
    node.kill()?;
    // As a container's file system is gone, or a failed unit's directory.
    let mounted = node.mounts();
    for entry in std::fs::read_dir(node.runtime_dir())? {
        let path = entry?.path();
        if mounted.contains(&path) {
            continue;
        }
        if path.is_dir() {
            std::fs::remove_dir_all(path)?;
        } else {
            std::fs::remove_file(path)?;
        }
    }
    node.restart()?;
    ensure!(
        node.log().contains("took over from a run that did not stop cleanly"),
        "{}",
        node.log()
    );
    node.stop()?;
    nothing_left(&node, &before, &lab)
}

#[test]
fn a_node_that_cannot_start_leaves_the_host_as_it_was() -> Result<()> {
    let lab = Lab::new()?;
    let before = host(&lab.node)?;
    // Somebody else has the port: this shows after the host was changed, not in the configuration.
    let _taken = lab.node.enter(|| Ok(std::net::UdpSocket::bind("[::]:51820")?))?;
    let mut node = Node::prepare(&lab.node, Settings::default())?;
    let said = format!("{:#}", node.restart().expect_err("the port is taken"));
    ensure!(said.contains("51820"), "the port is not named: {said}");
    nothing_left(&node, &before, &lab)
}

#[test]
fn a_node_whose_device_was_removed_ends_and_says_so_and_leaves_the_rest_as_it_was() -> Result<()> {
    for io in ["uring", "syscall"] {
        let lab = Lab::new()?;
        let before = host(&lab.node)?;
        let settings = Settings::default().with("node", "io", &format!("{io:?}"));
        let (mut node, _added, client) = connected(&lab, settings)?;
        lab.node.ip("link del weir0")?;
        let status = node.wait_for_end()?;
        ensure!(status.code() == Some(1), "{io}: {status}");
        let log = node.log();
        ensure!(log.contains("the TUN device was removed while weir ran. Fix:"), "{io}: {log}");
        drop(client);
        nothing_left(&node, &before, &lab)?;
        // As after every end, the service manager may start it again.
        node.restart()?;
        node.stop()?;
    }
    Ok(())
}
