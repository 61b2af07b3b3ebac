//! What the service manager is told, and that the unit says what the node does.

use std::{fs, os::unix::net::UnixDatagram, path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use weir_tests::{Lab, Node, Settings, until};

/// Everything that has been told so far.
fn told(socket: &UnixDatagram) -> Result<String> {
    let (mut buffer, mut all) = ([0; 4096], String::new());
    loop {
        match socket.recv(&mut buffer) {
            Ok(length) => all += &format!("{}\n", String::from_utf8_lossy(&buffer[..length])),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(all),
            Err(error) => return Err(error.into()),
        }
    }
}

fn wait_for(socket: &UnixDatagram, wanted: &[&str]) -> Result<String> {
    let mut all = String::new();
    until("words for the service manager", Duration::from_secs(30), || {
        all += &told(socket)?;
        ensure!(wanted.iter().all(|line| all.lines().any(|is| is.starts_with(line))), "{all}");
        Ok(())
    })?;
    Ok(all)
}

#[test]
fn the_service_manager_is_told_each_change_and_the_watchdog_is_fed() -> Result<()> {
    let lab = Lab::new()?;
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("notify");
    let socket = UnixDatagram::bind(&path)?;
    socket.set_nonblocking(true)?;
    let mut node = Node::prepare(&lab.node, Settings::default())?;
    node.set_environment("NOTIFY_SOCKET", &path.to_string_lossy());
    node.set_environment("WATCHDOG_USEC", "1000000");
    node.restart()?;
    let said = wait_for(&socket, &["READY=1", "STATUS=serving at 45.80.2.2:51820", "WATCHDOG=1"])?;
    ensure!(!said.contains("STOPPING"), "{said}");
    node.hang_up()?;
    let said = wait_for(&socket, &["RELOADING=1", "MONOTONIC_USEC=", "READY=1"])?;
    ensure!(said.find("RELOADING=1") < said.rfind("READY=1"), "{said}");
    node.stop()?;
    wait_for(&socket, &["STOPPING=1"])?;
    Ok(())
}

#[test]
fn a_start_without_a_default_route_waits_says_so_and_serves_once_there_is_one() -> Result<()> {
    let lab = Lab::new()?;
    lab.node.ip("route del default")?;
    lab.node.ip("-6 route del default")?;
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("notify");
    let socket = UnixDatagram::bind(&path)?;
    socket.set_nonblocking(true)?;
    let settings = Settings::default().with("node", "uplink", "\"auto\"");
    let mut node = Node::prepare(&lab.node, settings)?;
    node.set_environment("NOTIFY_SOCKET", &path.to_string_lossy());
    std::thread::scope(|scope| -> Result<()> {
        let router = scope.spawn(|| {
            // Told again and again, so that no limit on the start's time is reached.
            let waits = "STATUS=waiting for the uplink: this machine has no default route";
            let mut said = wait_for(&socket, &[waits, "EXTEND_TIMEOUT_USEC="])?;
            said += &wait_for(&socket, &[waits, "EXTEND_TIMEOUT_USEC="])?;
            ensure!(!said.contains("READY=1"), "{said}");
            lab.node.ip("route add default via 45.80.2.1")
        });
        node.restart()?;
        router.join().map_err(|_| anyhow::anyhow!("no route"))??;
        Ok(())
    })?;
    wait_for(&socket, &["READY=1"])?;
    let log = node.log();
    ensure!(log.matches("waiting for the uplink").count() == 1, "said once: {log}");
    node.stop()
}

#[test]
fn a_node_that_cannot_start_is_never_ready() -> Result<()> {
    let lab = Lab::new()?;
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("notify");
    let socket = UnixDatagram::bind(&path)?;
    socket.set_nonblocking(true)?;
    let _taken = lab.node.enter(|| Ok(std::net::UdpSocket::bind("[::]:51820")?))?;
    let mut node = Node::prepare(&lab.node, Settings::default())?;
    node.set_environment("NOTIFY_SOCKET", &path.to_string_lossy());
    node.restart().expect_err("the port is taken");
    let said = told(&socket)?;
    ensure!(!said.contains("READY=1"), "{said}");
    Ok(())
}

#[test]
fn the_unit_names_what_there_is() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("no workspace")?;
    let unit = fs::read_to_string(root.join("packaging/systemd/weir.service"))?;
    let value = |key: &str| {
        let prefix = format!("{key}=");
        unit.lines().find_map(|line| line.strip_prefix(&prefix)).context(format!("no {key}"))
    };
    ensure!(value("Type")? == "notify");
    ensure!(value("ExecStart")? == "/usr/bin/weir run --config /etc/weir/weir.toml");
    for (directory, key) in [("StateDirectory", "state_dir"), ("RuntimeDirectory", "runtime_dir")] {
        let default = weir_config::default_text();
        let line = format!(
            "{key} = \"/{}/{}\"",
            if key == "state_dir" { "var/lib" } else { "run" },
            value(directory)?
        );
        ensure!(default.contains(&line), "{line} is not the default");
    }
    // What must outlive the node outlives a unit that has failed; and no start is given up for good.
    ensure!(value("RuntimeDirectoryPreserve")? == "yes");
    ensure!(value("StartLimitIntervalSec")? == "0");
    let capabilities = value("CapabilityBoundingSet")?;
    for name in ["CAP_NET_ADMIN", "CAP_BPF", "CAP_NET_BIND_SERVICE"] {
        ensure!(capabilities.contains(name), "{name}: {capabilities}");
    }
    // What weir needs to confine itself is in none of systemd 252's groups that the unit allows.
    let allowed: Vec<_> = unit
        .lines()
        .filter_map(|line| line.strip_prefix("SystemCallFilter="))
        .filter(|calls| !calls.starts_with('~'))
        .flat_map(str::split_whitespace)
        .collect();
    for call in [
        "seccomp",
        "landlock_create_ruleset",
        "landlock_add_rule",
        "landlock_restrict_self",
        "bpf",
        "io_uring_setup",
        "io_uring_enter",
        "io_uring_register",
    ] {
        ensure!(allowed.contains(&call), "{call} is not in {allowed:?}");
    }
    Ok(())
}
