//! A fresh Debian with systemd as its first process, whose network is the lab's.

use std::{
    collections::BTreeSet,
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use weir_tests::{Lab, command, lab::UPLINK, process, until};

/// System calls that weir, or systemd on its behalf, makes, and that systemd-nspawn lets no
/// container make. A machine of its own has them all.
const CALLS: &str = "bpf perf_event_open io_uring_setup io_uring_enter io_uring_register seccomp \
                     landlock_create_ruleset landlock_add_rule landlock_restrict_self";
/// Services that would change this machine's clock, kernel or modules, or wait for a terminal.
const MASKED: &[&str] = &[
    "systemd-sysctl.service",
    "systemd-timesyncd.service",
    "systemd-udevd.service",
    "systemd-modules-load.service",
    "systemd-networkd.service",
    "console-getty.service",
];

/// The running Debian; it is gone when this is dropped.
pub(crate) struct Machine<'a> {
    lab: &'a Lab,
    root: PathBuf,
    container: Child,
    init: u32,
}

impl<'a> Machine<'a> {
    /// Boots the root and waits until systemd has started everything.
    pub(crate) fn boot(lab: &'a Lab, root: PathBuf) -> Result<Self> {
        for unit in MASKED {
            let place = root.join("etc/systemd/system").join(unit);
            std::os::unix::fs::symlink("/dev/null", place).context("cannot mask a unit")?;
        }
        Self::start(lab, root)
    }

    /// Boots it again. Its kernel's tables are empty then, as those of a machine of its own are.
    pub(crate) fn reboot(&mut self) -> Result<()> {
        self.stop();
        self.lab.node.run("nft flush ruleset")?;
        let again = Self::start(self.lab, self.root.clone())?;
        *self = again;
        Ok(())
    }

    fn start(lab: &'a Lab, root: PathBuf) -> Result<Self> {
        let name = lab.node.name().to_owned();
        let mut nspawn = Command::new("systemd-nspawn");
        nspawn.args(["--quiet", "--boot", "--register=no", "--keep-unit", "--link-journal=no"]);
        nspawn.args(["--resolv-conf=off", "--timezone=off", "--bind=/dev/net/tun"]);
        nspawn.arg("--directory").arg(&root).arg(format!("--machine={name}"));
        nspawn.arg(format!("--network-namespace-path=/run/netns/{name}"));
        nspawn.arg("--capability=CAP_NET_ADMIN,CAP_BPF,CAP_PERFMON");
        nspawn.arg(format!("--system-call-filter={CALLS}"));
        // Of this kernel's parameters only those of the lab's network can be written.
        nspawn.env("SYSTEMD_NSPAWN_API_VFS_WRITABLE", "network");
        nspawn.env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1");
        let console = fs::File::create(root.with_file_name("console.log"))?;
        nspawn.stdin(Stdio::null()).stdout(console.try_clone()?).stderr(console);
        let container = nspawn.spawn().context("cannot start systemd-nspawn")?;
        let mut machine = Self { lab, root, container, init: 0 };
        machine.init = until("systemd is there", Duration::from_secs(30), || {
            ensure!(machine.container.try_wait()?.is_none(), "{}", machine.console());
            let nspawn = machine.container.id();
            let children = fs::read_to_string(format!("/proc/{nspawn}/task/{nspawn}/children"))?;
            let init = children.split_whitespace().next().context("no child")?.parse()?;
            let name = fs::read_to_string(format!("/proc/{init}/comm"))?;
            ensure!(name.trim() == "systemd", "it is still {name}");
            Ok(init)
        })?;
        until("systemd has started everything", Duration::from_secs(60), || {
            let said = machine.command("systemctl is-system-running").output()?;
            let said = String::from_utf8_lossy(&said.stdout).into_owned();
            ensure!(said.trim() == "running", "{said}\n{}", machine.console());
            Ok(())
        })?;
        // As systemd does on a machine of its own.
        for line in [
            "mount -o remount,rw /sys",
            "mkdir -p /sys/fs/bpf",
            "mount -t bpf bpf /sys/fs/bpf",
            "mount -o remount,ro /sys",
        ] {
            machine.run(line)?;
        }
        Ok(machine)
    }

    /// A line of words separated by spaces, as a command in there.
    pub(crate) fn command(&self, line: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--all", "--target", &self.init.to_string()]);
        command.args(line.split_whitespace());
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command.env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C.UTF-8");
        command
    }

    /// Runs such a line, and gives what it said.
    pub(crate) fn run(&self, line: &str) -> Result<String> {
        command::run(&mut self.command(line))
    }

    /// Where a file of it is outside.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// A property of the service, as `systemctl show` has it.
    pub(crate) fn property(&self, name: &str) -> Result<String> {
        Ok(self.run(&format!("systemctl show --value -p {name} weir"))?.trim().to_owned())
    }

    /// What the service has logged.
    pub(crate) fn journal(&self) -> String {
        self.run("journalctl --no-pager --output=cat -u weir").unwrap_or_default()
    }

    /// Every path, but what dpkg and systemd keep of themselves.
    pub(crate) fn files(&self) -> Result<BTreeSet<String>> {
        let all = self.run("find / -xdev -not -path /proc/* -not -path /var/cache/*")?;
        // The last one is the backup that the tools for groups make, of whatever they change.
        let own = ["/var/lib/dpkg", "/var/log", "/var/cache", "/var/lib/systemd", "/etc/gshadow-"];
        // Made anew, under another name, for each start of a service.
        let passing = ["/tmp", "/var/tmp"];
        let kept = |line: &&str| !own.iter().chain(&passing).any(|path| line.starts_with(path));
        Ok(all.lines().filter(kept).map(str::to_owned).collect())
    }

    /// What a node changes on its host, and the groups.
    pub(crate) fn host(&self) -> Result<String> {
        let node = &self.lab.node;
        Ok([
            node.ip("-o link")?,
            node.ip("-brief address")?,
            node.ip("route")?,
            node.run("nft list ruleset")?,
            node.run("sysctl -a --ignore --pattern forwarding|accept_ra")?,
            node.run(&format!("ethtool -k {UPLINK}"))?,
            self.run("ls /sys/fs/bpf")?,
            self.run("find /run -maxdepth 1 -name w*")?,
            fs::read_to_string(self.path("/etc/group"))?,
        ]
        .join("\n"))
    }

    fn console(&self) -> String {
        fs::read_to_string(self.root.with_file_name("console.log")).unwrap_or_default()
    }
}

impl Machine<'_> {
    fn stop(&mut self) {
        // Its number may be another's by now.
        if !matches!(self.container.try_wait(), Ok(None)) {
            return;
        }
        // systemd-nspawn takes everything in there with it.
        process::signal(&self.container, Signal::TERM).ok();
        if process::wait(&mut self.container, Duration::from_secs(20)).is_err() {
            self.container.kill().ok();
            self.container.wait().ok();
        }
    }
}

impl Drop for Machine<'_> {
    fn drop(&mut self) {
        self.stop();
    }
}
