//! This machine as one that has just booted, as far as containers see it: `/run` is empty, a bpffs
//! is mounted, and `/etc` is a copy. All of it is gone with the mount namespace.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};
use rustix::mount::{MountFlags, mount, mount_bind};
use weir_tests::{Lab, command, lab::UPLINK};

/// Where labs take turns, also with those of other mount namespaces.
const TURNS: &str = "/run/weir-tests";

/// Mounts what is the machine's own.
pub(crate) fn boot(work: &Path) -> Result<()> {
    let parent = rustix::process::getppid().context("no parent")?.as_raw_nonzero();
    let namespace = |process: &str| fs::read_link(format!("/proc/{process}/ns/mnt"));
    ensure!(
        namespace("self")? != namespace(&parent.to_string())?,
        "this mounts over /run, so it takes a mount namespace. Fix: cargo xtask image-test"
    );
    let turns = work.join("turns");
    for directory in [Path::new(TURNS), &turns] {
        fs::create_dir_all(directory)?;
    }
    mount_bind(TURNS, &turns).context("cannot keep the turns of labs")?;
    mount("tmpfs", "/run", "tmpfs", MountFlags::empty(), c"mode=755")
        .context("cannot mount a /run of its own")?;
    let etc = work.join("etc");
    fs::create_dir_all(&etc)?;
    command::run(Command::new("cp").arg("-a").arg("/etc/.").arg(&etc))?;
    mount_bind(&etc, "/etc").context("cannot mount an /etc of its own")?;
    fs::create_dir(TURNS)?;
    mount_bind(&turns, TURNS).context("cannot keep the turns of labs")?;
    mount("bpf", "/sys/fs/bpf", "bpf", MountFlags::empty(), None)
        .context("cannot mount a bpffs of its own")
}

/// What a node changes on its machine.
pub(crate) fn state(lab: &Lab) -> Result<String> {
    let node = &lab.node;
    Ok([
        node.ip("-o link")?,
        node.ip("-brief address")?,
        node.ip("route")?,
        node.ip("-6 route")?,
        node.ip("rule")?,
        node.run("nft list ruleset")?,
        node.run("sysctl -a --ignore --pattern forwarding|accept_ra")?,
        node.run(&format!("ethtool -k {UPLINK}"))?,
        listing("/sys/fs/bpf"),
        // The empty file stays that one node keeps the directory for itself by.
        listing("/run/weir").replace("lock\n", ""),
        // Beside those of the consumer.
        listing("/run/wireguard").lines().filter(|name| name.starts_with("weir")).collect(),
    ]
    .join("\n"))
}

/// The names in a directory; none if it is not there.
pub(crate) fn listing(directory: &str) -> String {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<_> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned() + "\n").collect();
    names.sort();
    names.concat()
}
