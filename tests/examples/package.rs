//! The Debian package in a fresh root: install, doctor, serve a consumer, scrape, remove, purge.
//! `cargo xtask package-test` makes both and runs this. systemd is not PID 1 in there, so that the
//! unit is installed but started by hand, with the unit's capabilities.
#![expect(clippy::print_stdout, reason = "it tells what it does")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use rustix::{
    mount::{MountFlags, MountPropagationFlags, mount, mount_bind, mount_change},
    process::Signal,
};
use serde_json::Value;
use weir_tests::{
    Client, Lab, command,
    lab::{SERVERS, UPLINK},
    process,
    suite::everything_passes,
    until,
};

/// The root, in the node's network namespace.
struct Machine<'a> {
    lab: &'a Lab,
    root: PathBuf,
}

impl Machine<'_> {
    fn command(&self, line: &str) -> Command {
        let mut command = self.lab.node.command("/usr/sbin/chroot");
        command.arg(&self.root).args(line.split_whitespace());
        command
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("DEBIAN_FRONTEND", "noninteractive");
        command
    }

    fn run(&self, line: &str) -> Result<String> {
        command::run(&mut self.command(line))
    }

    /// Every path in the root, but what dpkg keeps of itself.
    fn files(&self) -> Result<BTreeSet<String>> {
        let all = self.run("find / -xdev -not -path /proc/* -not -path /var/cache/*")?;
        // The last one is the backup that the tools for groups make, of whatever they change.
        let own = [
            "/var/lib/dpkg",
            "/var/log",
            "/var/cache",
            "/tmp",
            "/var/lib/systemd/deb-systemd",
            "/etc/gshadow-",
        ];
        let kept = |line: &&str| !own.iter().any(|path| line.starts_with(path));
        Ok(all.lines().filter(kept).map(str::to_owned).collect())
    }

    /// What a node changes on its host, and the groups.
    fn host(&self) -> Result<String> {
        let node = &self.lab.node;
        let sysctls = node.run("sysctl -a --ignore --pattern forwarding|accept_ra")?;
        let pins = self.run("ls /sys/fs/bpf")?;
        let groups = fs::read_to_string(self.root.join("etc/group"))?;
        Ok([
            node.ip("-o link")?,
            node.run("nft list ruleset")?,
            sysctls,
            node.run(&format!("ethtool -k {UPLINK}"))?,
            pins,
            groups,
        ]
        .join("\n"))
    }
}

/// Stops the node when dropped, however this ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn mounts(root: &Path) -> Result<()> {
    #[expect(deprecated, reason = "the namespace is left by the process's end only")]
    rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNS).context("run this as root")?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    for (kind, place) in
        [("proc", "proc"), ("sysfs", "sys"), ("bpf", "sys/fs/bpf"), ("tmpfs", "run")]
    {
        mount(kind, root.join(place), kind, MountFlags::empty(), None)
            .with_context(|| format!("cannot mount {place}"))?;
    }
    mount_bind("/dev", root.join("dev")).context("cannot mount dev")
}

fn main() -> Result<()> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let root = arguments.next().context("give the root and the package")?;
    let package = arguments.next().context("give the package")?;
    let lab = Lab::new()?;
    mounts(&root)?;
    let machine = Machine { lab: &lab, root };
    let (files, host) = (machine.files()?, machine.host()?);

    fs::copy(&package, machine.root.join("weir.deb"))?;
    machine.run("dpkg --install /weir.deb")?;
    fs::remove_file(machine.root.join("weir.deb"))?;
    println!("installed {}", machine.run("dpkg-query --show weir")?.trim());
    ensure!(machine.run("getent group weir").is_ok(), "there is no group weir");
    machine.run("weir config check /etc/weir/weir.toml")?;
    for path in ["lib/systemd/system/weir.service", "usr/share/man/man1/weir.1.gz"] {
        ensure!(machine.root.join(path).exists(), "there is no /{path}");
    }

    let said = machine.command("weir doctor --config /etc/weir/weir.toml --json").output()?;
    let report: Value = serde_json::from_slice(&said.stdout)?;
    println!("weir doctor: {}", report["verdict"]);
    for finding in report["findings"].as_array().context("no findings")? {
        if finding["verdict"] != "good" {
            println!("  {} {}: {}", finding["verdict"], finding["check"], finding["found"]);
        }
        ensure!(finding["verdict"] != "bad", "{finding}");
    }

    let unit = fs::read_to_string(machine.root.join("lib/systemd/system/weir.service"))?;
    let value = |key: &str| unit.lines().find_map(|line| line.strip_prefix(key)).context("no line");
    let bounding = value("CapabilityBoundingSet=")?.replace("CAP_", "+").replace(' ', ",");
    let start = format!(
        "setpriv --groups {} --bounding-set=-all,{} --inh-caps=-all --no-new-privs {}",
        value("SupplementaryGroups=")?,
        bounding.to_lowercase(),
        value("ExecStart=")?
    );
    fs::create_dir_all(machine.root.join("var/lib/weir"))?;
    let mut command = machine.command(&start);
    let mut node = Running(command.stdin(Stdio::null()).spawn().context("cannot start weir")?);
    until("weir answers", Duration::from_secs(30), || {
        ensure!(node.0.try_wait()?.is_none(), "weir ended");
        machine.run("weir status")
    })?;
    let status: Value = serde_json::from_str(&machine.run("weir status --json")?)?;
    println!("sandbox: {}", status["sandbox"]);
    ensure!(status["xdp_mode"] == "native", "{status}");
    ensure!(status["sandbox"].as_str().is_some_and(|said| said.contains("Landlock")), "{status}");

    let config = machine.run("weir session add --name alice")?;
    let client = Client::connect(&lab.consumer, &config)?;
    client.wait_connected(SERVERS[0])?;
    everything_passes(&lab, &client)?;
    let page = machine.run("curl --silent --fail http://127.0.0.1:9587/metrics")?;
    let bytes = page.lines().find_map(|line| line.strip_prefix("weir_tunnel_receive_bytes_total "));
    ensure!(
        bytes.is_some_and(|count| count.parse::<f64>().is_ok_and(|count| count > 1e6)),
        "{page}"
    );
    println!("served wireguard-go, and a scrape that counts {} bytes", bytes.unwrap_or_default());
    drop(client);

    process::signal(&node.0, Signal::TERM)?;
    let ended = process::wait(&mut node.0, Duration::from_secs(30))?;
    ensure!(ended.success(), "weir ended with {ended}");
    machine.run("dpkg --remove weir")?;
    ensure!(machine.root.join("etc/weir/weir.toml").exists(), "removing took the configuration");
    ensure!(machine.root.join("var/lib/weir/ledger.db").exists(), "removing took the ledger");
    machine.run("dpkg --purge weir")?;
    let left: Vec<_> = machine.files()?.symmetric_difference(&files).cloned().collect();
    ensure!(left.is_empty(), "not as before: {left:?}");
    ensure!(machine.host()? == host, "before:\n{host}\nafter:\n{}", machine.host()?);
    println!("purged: no file, rule, interface, switch, pin or group is left");
    Ok(())
}
