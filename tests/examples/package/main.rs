//! The Debian packages in a fresh Debian 12 under systemd: the consumer's, and then the node's: install,
//! doctor, serve a consumer, scrape, reload, hang, upgrade, remove, purge. `cargo xtask package-test`
//! makes both and runs this.
#![expect(clippy::print_stdout, reason = "it tells what it does")]

mod machine;

use std::{
    collections::BTreeSet,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use weir_tests::{
    Client, Lab, command, lab::SERVERS, prometheus::Prometheus, steps::everything_passes, until,
};

use self::machine::Machine;

const CONFIG: &str = "/etc/weir/weir.toml";
/// A watchdog for the impatient.
const DROP_IN: &str = "/run/systemd/system/weir.service.d/test.conf";
/// What docs/privileges.md says that a running node has: NET_BIND_SERVICE, NET_ADMIN and BPF.
const CAPABILITIES: &str = "0000008000001400";

fn main() -> Result<()> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let root = arguments.next().context("give the root and the package")?;
    let package = arguments.next().context("give the package")?;
    let consumer = arguments.next().context("give the consumer's package")?;
    let lab = Lab::new()?;
    let mut machine = Machine::boot(&lab, root)?;
    let tried = try_packages(&lab, &mut machine, &package, &consumer);
    if tried.is_err() {
        println!("the service wrote:\n{}", machine.journal());
    }
    tried
}

fn try_packages(
    lab: &Lab,
    machine: &mut Machine<'_>,
    package: &Path,
    consumer: &Path,
) -> Result<()> {
    let before = (machine.files()?, machine.host()?);
    try_consumer(lab, machine, consumer, &before)?;
    try_package(lab, machine, package, consumer, &before)
}

/// The consumer's package by itself: the commands, and nothing of a node. Its removal opens a machine
/// that `weir connect` has closed.
fn try_consumer(
    lab: &Lab,
    machine: &mut Machine<'_>,
    package: &Path,
    (files, host): &(BTreeSet<String>, String),
) -> Result<()> {
    install(machine, package)?;
    let new: Vec<_> = machine.files()?.difference(files).cloned().collect();
    for path in ["/usr/bin/weir", "/usr/share/man/man1/weir-connect.1.gz"] {
        ensure!(new.iter().any(|it| it == path), "no {path} in {new:?}");
    }
    let of_a_node = ["weir-session", ".service", "/etc/weir", "/var/lib/weir", "prometheus"];
    let found = new.iter().find(|path| of_a_node.iter().any(|part| path.contains(part)));
    ensure!(found.is_none(), "{found:?} is of a node");
    ensure!(machine.host()? == *host, "before:\n{host}\nafter:\n{}", machine.host()?);
    ensure!(machine.run("weir connect --status")?.starts_with("off "));

    let key = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=";
    let conf = format!(
        "[Interface]\nPrivateKey = {key}\nAddress = 10.66.0.2/32\n[Peer]\nPublicKey = \
         hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=\nAllowedIPs = 0.0.0.0/0\n\
         Endpoint = 45.80.1.99:51820\n"
    );
    fs::write(machine.path("/root/exit.conf"), conf)?;
    let mut connect = machine.command("weir connect --conf /root/exit.conf");
    let mut connect = connect.stdout(Stdio::null()).spawn()?;
    until("the machine is closed", Duration::from_secs(30), || {
        machine.run("nft list table inet weir_connect").map(drop)
    })?;
    machine.run("dpkg --remove weir-connect")?;
    connect.wait()?;
    install(machine, package)?;
    lockdown(lab, machine)?;
    machine.run("dpkg --remove weir-connect")?;
    fs::remove_file(machine.path("/root/exit.conf"))?;
    ensure!(machine.host()? == *host, "before:\n{host}\nremoved:\n{}", machine.host()?);
    machine.run("dpkg --purge weir-connect")?;
    let left: Vec<_> = machine.files()?.symmetric_difference(files).cloned().collect();
    ensure!(left.is_empty(), "not as before: {left:?}");
    // weir, which has the same commands, takes its place.
    install(machine, package)?;
    println!("weir-connect: the consumer's commands, removed with the table of weir connect");
    Ok(())
}

/// With `--lockdown` the machine is closed after a reboot too, before it has a network, until
/// `weir disconnect`.
fn lockdown(lab: &Lab, machine: &mut Machine<'_>) -> Result<()> {
    let [server, _] = SERVERS;
    let reaches = || lab.node.run(&format!("ping -n -q -c 1 -W 1 {server}")).is_ok();
    ensure!(reaches(), "it reaches nothing, before anything was closed");
    let mut connect = machine.command("weir connect --conf /root/exit.conf --lockdown");
    let mut connect = connect.stdout(Stdio::null()).spawn()?;
    until("the machine is closed", Duration::from_secs(30), || {
        machine.run("nft list table inet weir_connect")?;
        machine.run("systemctl is-enabled weir-lockdown.service").map(drop)
    })?;
    ensure!(!reaches(), "it is not closed");
    machine.run("pkill -KILL -x weir")?;
    connect.wait()?;
    machine.reboot()?;
    let reached = |unit: &str| -> Result<u64> {
        let line = format!("systemctl show --value -p ActiveEnterTimestampMonotonic {unit}");
        Ok(machine.run(&line)?.trim().parse()?)
    };
    let (closed, network) = (reached("weir-lockdown.service")?, reached("network-pre.target")?);
    ensure!(0 < closed && closed <= network, "closed at {closed}, networks begin at {network}");
    ensure!(!reaches(), "it is open after a reboot");
    ensure!(machine.run("weir connect --status")?.starts_with("closed "), "it says otherwise");
    machine.run("weir disconnect")?;
    ensure!(machine.run("systemctl is-enabled weir-lockdown.service").is_err(), "it comes back");
    ensure!(reaches(), "it is closed still");
    println!("weir connect --lockdown: closed after a reboot before any network, until disconnect");
    Ok(())
}

fn try_package(
    lab: &Lab,
    machine: &Machine<'_>,
    package: &Path,
    consumer: &Path,
    (files, host): &(BTreeSet<String>, String),
) -> Result<()> {
    drop_in(machine, "WatchdogSec=4")?;
    install(machine, package)?;
    let state = machine.run("dpkg-query --show --showformat=${Status} weir-connect");
    ensure!(!state.is_ok_and(|it| it.ends_with(" installed")), "both packages are installed");
    let beside = install(machine, consumer);
    ensure!(beside.is_err(), "the consumer's package took the place of a node");
    ensure!(machine.path("/usr/share/man/man1/weir.1.gz").exists(), "there is no manual page");
    serves(machine)?;
    println!("installed {}: systemd has started it", version(machine)?);
    machine.run("systemctl is-enabled weir")?;
    machine.run("systemd-analyze verify --man=no weir.service")?;
    let rating = machine.run("systemd-analyze security --no-pager weir.service")?;
    println!("systemd-analyze security: {}", rating.lines().last().unwrap_or_default());
    doctor(machine)?;
    privileges(machine)?;

    let config = machine.run("weir session add --name alice")?;
    let client = Client::connect(&lab.consumer, &config)?;
    client.wait_connected(SERVERS[0])?;
    everything_passes(lab, &client)?;
    scrape(lab, machine)?;
    reload(machine)?;
    client.ping(SERVERS[0], 3)?;
    watchdog(machine, &client)?;
    credential(machine, &client)?;
    upgrade(machine, package, &client)?;
    everything_passes(lab, &client)?;
    drop(client);

    machine.run("dpkg --remove weir")?;
    // The group stays, as the files do that are its.
    let stopped = machine.host()?.replace(&machine.run("getent group weir")?, "");
    ensure!(stopped == *host, "before:\n{host}\nremoved:\n{stopped}");
    ensure!(machine.path(CONFIG).exists(), "removing took the configuration");
    ensure!(machine.path("/var/lib/weir/ledger.db").exists(), "removing took the ledger");
    fs::remove_file(machine.path("/etc/weir/private.key"))?;
    machine.run("dpkg --purge weir")?;
    let left: Vec<_> = machine.files()?.symmetric_difference(files).cloned().collect();
    ensure!(left.is_empty(), "not as before: {left:?}");
    ensure!(machine.host()? == *host, "before:\n{host}\nafter:\n{}", machine.host()?);
    println!("purged: no file, rule, interface, switch, pin or group is left");
    Ok(())
}

fn install(machine: &Machine<'_>, package: &Path) -> Result<()> {
    let inside = machine.path("/weir.deb");
    fs::copy(package, &inside)?;
    let installed = machine.run("dpkg --install /weir.deb");
    fs::remove_file(inside)?;
    installed.map(drop)
}

fn version(machine: &Machine<'_>) -> Result<String> {
    machine.run("dpkg-query --show --showformat=${Version} weir")
}

fn serves(machine: &Machine<'_>) -> Result<()> {
    until("the service is active", Duration::from_secs(30), || {
        machine.run("systemctl is-active weir")?;
        machine.run("weir status")
    })?;
    ensure!(machine.property("StatusText")? == "serving at 45.80.2.2:51820");
    Ok(())
}

fn drop_in(machine: &Machine<'_>, line: &str) -> Result<()> {
    machine.run("mkdir -p /run/systemd/system/weir.service.d")?;
    let text = format!("[Service]\n{line}\n");
    // /run is another file system in there.
    let mut tee = machine.command(&format!("tee {DROP_IN}"));
    tee.stdin(Stdio::piped()).stdout(Stdio::null());
    let mut child = tee.spawn()?;
    child.stdin.take().context("no pipe")?.write_all(text.as_bytes())?;
    ensure!(child.wait()?.success(), "cannot write {DROP_IN}");
    machine.run("systemctl daemon-reload")?;
    Ok(())
}

fn doctor(machine: &Machine<'_>) -> Result<()> {
    let said = machine.command(&format!("weir doctor --config {CONFIG} --json")).output()?;
    let report: Value = serde_json::from_slice(&said.stdout)?;
    println!("weir doctor: {}", report["verdict"]);
    for finding in report["findings"].as_array().context("no findings")? {
        if finding["verdict"] != "good" {
            println!("  {} {}: {}", finding["verdict"], finding["check"], finding["found"]);
        }
        ensure!(finding["verdict"] != "bad", "{finding}");
    }
    Ok(())
}

fn privileges(machine: &Machine<'_>) -> Result<()> {
    let status: Value = serde_json::from_str(&machine.run("weir status --json")?)?;
    println!("sandbox: {}", status["sandbox"]);
    ensure!(status["xdp_mode"] == "native" && status["io"] == "uring", "{status}");
    // The unit must leave weir what it needs for its own sandbox.
    let sandbox = status["sandbox"].as_str().context("no sandbox")?;
    ensure!(sandbox.ends_with("no new privileges; Landlock; seccomp"), "{sandbox}");
    let pid = machine.property("MainPID")?;
    let process = machine.run(&format!("cat /proc/{pid}/status"))?;
    for line in ["CapEff", "CapPrm", "CapBnd"].map(|name| format!("{name}:\t{CAPABILITIES}")) {
        ensure!(process.contains(&line), "no {line} in {process}");
    }
    let nobody = "setpriv --reuid=65534 --clear-groups";
    machine.run(&format!("{nobody} --regid=weir weir status"))?;
    ensure!(machine.run(&format!("{nobody} --regid=65534 weir status")).is_err(), "for everybody");
    Ok(())
}

fn scrape(lab: &Lab, machine: &Machine<'_>) -> Result<()> {
    let prometheus = Prometheus::start(&lab.node, &machine.path("/usr/share/weir/prometheus"))?;
    let bytes = until("Prometheus has the bytes", Duration::from_secs(60), || {
        let found =
            prometheus.query("weir_tunnel_bytes_total{job=\"weir\",direction=\"up\"} > 1e6")?;
        let sample = found.first().context("none yet")?;
        Ok(sample["value"][1].as_str().context("no value")?.to_owned())
    })?;
    println!("served wireguard-go, and Prometheus with the package's files counts {bytes} bytes");
    Ok(())
}

fn configure(machine: &Machine<'_>, more: &str) -> Result<()> {
    let path = machine.path(CONFIG);
    let text = fs::read_to_string(&path)? + more;
    Ok(fs::write(path, text)?)
}

fn reload(machine: &Machine<'_>) -> Result<()> {
    let pid = machine.property("MainPID")?;
    configure(machine, "\n[tunnel]\nkeepalive = 17\n")?;
    machine.run("systemctl reload weir")?;
    // systemd has told the node, which may not have read its configuration yet.
    until("the new keepalive is in force", Duration::from_secs(30), || {
        let config = machine.run("weir session add --name probe")?;
        machine.run("weir session remove probe")?;
        ensure!(config.contains("PersistentKeepalive = 17"), "{config}");
        Ok(())
    })?;
    until("the reload is over", Duration::from_secs(10), || serves(machine))?;
    machine.run("weir session add --name bob")?;
    ensure!(machine.property("MainPID")? == pid && machine.property("NRestarts")? == "0");
    println!("systemctl reload: the new keepalive is in force, and it is the same process");
    Ok(())
}

/// It was fed all the time; when the node hangs, it bites.
fn watchdog(machine: &Machine<'_>, client: &Client<'_>) -> Result<()> {
    let age = |name| -> Result<u64> { Ok(machine.property(name)?.parse::<u64>()?) };
    let served = age("WatchdogTimestampMonotonic")? - age("ActiveEnterTimestampMonotonic")?;
    ensure!(served > 4_000_000, "it serves for {served} us only, less than the watchdog's timeout");
    ensure!(machine.property("NRestarts")? == "0", "the watchdog was not fed");
    machine.run("systemctl kill --signal=STOP --kill-whom=main weir")?;
    until("the watchdog has restarted it", Duration::from_secs(60), || {
        ensure!(machine.property("NRestarts")? == "1", "it has not");
        serves(machine)
    })?;
    client.wait_connected(SERVERS[0])?;
    println!("watchdog: fed for {} s, and restarted the node when it hung", served / 1_000_000);
    Ok(())
}

/// The node's key as a credential, as a comment in the unit says.
fn credential(machine: &Machine<'_>, client: &Client<'_>) -> Result<()> {
    let key = machine.run("weir key show")?;
    fs::rename(machine.path("/var/lib/weir/private.key"), machine.path("/etc/weir/private.key"))?;
    configure(
        machine,
        "\n[node]\nprivate_key_file = \"/run/credentials/weir.service/private.key\"\n",
    )?;
    drop_in(machine, "LoadCredential=private.key:/etc/weir/private.key")?;
    machine.run("systemctl restart weir")?;
    serves(machine)?;
    ensure!(machine.run("weir key show")? == key, "it has another key");
    client.wait_connected(SERVERS[0])?;
    println!("the key as a credential: the same key, and the consumer goes on");
    Ok(())
}

fn upgrade(machine: &Machine<'_>, package: &Path, client: &Client<'_>) -> Result<()> {
    let (pid, config) = (machine.property("MainPID")?, fs::read_to_string(machine.path(CONFIG))?);
    let sessions = machine.run("weir session list --json")?;
    let (before, newer) = (version(machine)?, newer(package)?);
    install(machine, newer.path())?;
    serves(machine)?;
    ensure!(version(machine)? == format!("{before}.1"), "{}", version(machine)?);
    ensure!(machine.property("MainPID")? != pid, "the old program still runs");
    ensure!(fs::read_to_string(machine.path(CONFIG))? == config, "the configuration has changed");
    let sessions: Vec<Value> = [sessions, machine.run("weir session list --json")?]
        .iter()
        .map(|text| Ok(serde_json::from_str::<Value>(text)?["sessions"].take()))
        .collect::<Result<_>>()?;
    for (old, new) in std::iter::zip(
        sessions[0].as_array().context("no list")?,
        sessions[1].as_array().context("no list")?,
    ) {
        ensure!(old["id"] == new["id"] && old["state"] == new["state"], "{old} {new}");
        ensure!(old["bytes_up"].as_u64() <= new["bytes_up"].as_u64(), "{old} {new}");
    }
    client.wait_connected(SERVERS[0])?;
    println!("upgraded to {}: sessions, counts and configuration are kept", version(machine)?);
    Ok(())
}

/// The same package with a higher version.
fn newer(package: &Path) -> Result<tempfile::NamedTempFile> {
    let (tree, made) = (tempfile::tempdir()?, tempfile::NamedTempFile::new()?);
    command::run(Command::new("dpkg-deb").arg("-R").arg(package).arg(tree.path()))?;
    let control = tree.path().join("DEBIAN/control");
    let text = fs::read_to_string(&control)?;
    let line = |line: &str| match line.strip_prefix("Version: ") {
        Some(version) => format!("Version: {version}.1\n"),
        None => format!("{line}\n"),
    };
    fs::write(&control, text.lines().map(line).collect::<String>())?;
    let mut build = Command::new("dpkg-deb");
    build.args(["--root-owner-group", "-Zgzip", "-z1", "-b"]).arg(tree.path()).arg(made.path());
    command::run(&mut build)?;
    Ok(made)
}
