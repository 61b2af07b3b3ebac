//! `weir doctor` on real machines: as root, as nobody, and where everything is taken away. It
//! never fails itself, and changes nothing.

use std::{path::PathBuf, process::Output};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use weir_tests::{Lab, Node, Settings, lab::UPLINK, node::binary};

const CHECKS: [&str; 23] = [
    "configuration",
    "kernel",
    "capabilities",
    "seccomp",
    "io_uring",
    "eBPF",
    "bpffs",
    "TUN",
    "nft",
    "uplink",
    "XDP",
    "egress",
    "offloads",
    "queues",
    "MTU",
    "forwarding",
    "rp_filter",
    "port",
    "firewall",
    "flow table",
    "clock",
    "disk",
    "fsync",
];

/// The binary where everybody may run it.
fn public_binary(directory: &tempfile::TempDir) -> Result<PathBuf> {
    use std::os::unix::fs::PermissionsExt as _;
    let copy = directory.path().join("weir");
    std::fs::copy(binary()?, &copy)?;
    for path in [directory.path(), &copy] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))?;
    }
    Ok(copy)
}

struct Said {
    report: Value,
    code: Option<i32>,
}

impl Said {
    fn read(output: &Output) -> Result<Self> {
        let (text, err) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(!err.contains("panicked"), "{err}");
        let report = serde_json::from_str(&text).with_context(|| format!("{text}\n{err}"))?;
        Ok(Self { report, code: output.status.code() })
    }

    fn finding(&self, check: &str) -> Result<&Value> {
        let mut findings = self.report["findings"].as_array().context("no findings")?.iter();
        findings.find(|finding| finding["check"] == check).context(format!("no check {check}"))
    }

    fn is(&self, check: &str, verdict: &str) -> Result<()> {
        let finding = self.finding(check)?;
        ensure!(finding["verdict"] == verdict, "{finding}");
        Ok(())
    }
}

#[test]
fn as_root_it_tells_everything_and_changes_nothing() -> Result<()> {
    let lab = Lab::new()?;
    let doctor = |config: &str| -> Result<Said> {
        let mut command = lab.node.command(&binary()?.to_string_lossy());
        Said::read(&command.args(["doctor", "--json", "--config", config]).output()?)
    };
    let state = || -> Result<String> {
        let links = lab.node.ip("-o -d link")?;
        let sysctls = lab.node.run("sysctl -a --ignore --pattern ^net.ipv")?;
        // Brief: without whether an address is still tentative, which the kernel changes by itself.
        Ok(links + &lab.node.ip("-brief addr")? + &sysctls + &lab.node.run("nft list ruleset")?)
    };
    let by_default = Settings::default().with("node", "egress", "\"auto\"");
    let mut node = Node::prepare(&lab.node, by_default)?;
    let config = node.config_path().to_string_lossy().into_owned();
    let before = state()?;
    let said = doctor(&config)?;
    let after = state()?;
    ensure!(before == after, "it changed the machine from\n{before}\nto\n{after}");
    ensure!(!node.runtime_dir().exists(), "it made the runtime directory");
    for check in CHECKS {
        said.finding(check)?;
    }
    for check in ["capabilities", "eBPF", "TUN", "nft", "uplink", "MTU", "port", "fsync"] {
        said.is(check, "good")?;
    }
    let found = said.finding("XDP")?["found"].as_str().context("no text")?;
    ensure!(found.contains("native") && found.contains(UPLINK), "{found}");
    ensure!(said.code == Some(0), "{:?}", said.report);

    // A host's own service in the node's port range keeps its port, and is named.
    let service = lab.node.enter(|| Ok(std::net::TcpListener::bind("0.0.0.0:20000")?))?;
    let said = doctor(&config)?;
    said.is("egress", "good")?;
    let found = said.finding("egress")?["found"].as_str().context("no text")?;
    ensure!(found.starts_with("bypass") && found.contains("tcp 20000"), "{found}");
    drop(service);

    // A firewall that drops, and another program's port.
    lab.node.run("nft add table inet filter")?;
    lab.node.run(
        "nft add chain inet filter input { type filter hook input priority 0 ; policy drop ; }",
    )?;
    let taken = lab.node.enter(|| Ok(std::net::UdpSocket::bind("[::]:51820")?))?;
    let said = doctor(&config)?;
    said.is("firewall", "warning")?;
    said.is("port", "bad")?;
    ensure!(said.code == Some(1), "something is bad: {:?}", said.code);
    let fix = said.finding("firewall")?["fix"].as_str().context("no fix")?.to_owned();
    lab.node.run(&fix)?;
    doctor(&config)?.is("firewall", "good")?;
    lab.node.run("nft delete table inet filter")?;
    drop(taken);

    // With the node running, its own port and program are no fault, and it is not disturbed.
    node.restart()?;
    let said = doctor(&config)?;
    said.is("port", "good")?;
    said.is("XDP", "good")?;
    ensure!(node.status()?.xdp_mode == "native", "{:?}", node.status()?);
    node.stop()
}

#[test]
fn as_nobody_it_tells_what_it_can() -> Result<()> {
    let lab = Lab::new()?;
    let directory = tempfile::tempdir()?;
    let mut command = lab.node.command("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    let output = command.arg(public_binary(&directory)?).args(["doctor", "--json"]).output()?;
    let said = Said::read(&output)?;
    for check in CHECKS {
        said.finding(check)?;
    }
    for check in ["capabilities", "eBPF", "TUN", "forwarding", "firewall", "nft"] {
        said.is(check, "unknown")?;
    }
    said.is("uplink", "good")?;
    said.is("MTU", "good")?;
    ensure!(said.code == Some(0), "{:?}", said.report);
    Ok(())
}

#[test]
fn where_everything_is_taken_away_it_still_tells_and_what_to_do() -> Result<()> {
    let lab = Lab::new()?;
    let directory = tempfile::tempdir()?;
    let weir = public_binary(&directory)?;
    lab.node.ip(&format!("link del {UPLINK}"))?;
    // No programs, no devices, a /proc/sys that is read-only, no rights, no memory to lock.
    let script = format!(
        "mount -t tmpfs none /dev && mount -t tmpfs none /usr/sbin && mount -t tmpfs none /sbin \
         && mount --bind /proc/sys /proc/sys && mount -o remount,ro,bind /proc/sys \
         && ulimit -l 0 && PATH=/nonexistent exec /usr/bin/setpriv --bounding-set=-all \
         --inh-caps=-all --no-new-privs {} doctor --json --config /nonexistent/weir.toml",
        weir.display()
    );
    let mut command = lab.node.command("unshare");
    let output = command.args(["--mount", "sh", "-c", &script]).output()?;
    let said = Said::read(&output)?;
    for check in ["configuration", "TUN", "nft", "uplink"] {
        said.is(check, "bad")?;
        ensure!(said.finding(check)?["fix"].is_string(), "{check} says not what to do");
    }
    ensure!(said.code == Some(1), "{:?}", said.code);
    Ok(())
}
