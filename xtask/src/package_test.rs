//! `cargo xtask package-test`: the package in a fresh Debian 12 with systemd as its first process, of
//! which only the network namespaces and the kernel are this machine's. The work is done by the
//! example `package` of the tests.
#![expect(clippy::print_stdout, reason = "a task tells what it does")]

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result};

use crate::{
    deb,
    setup::{self, apt, apt::Need},
    workspace::{self, cargo},
};

const DEBOOTSTRAP: Need =
    Need::new("debootstrap", "/usr/sbin/debootstrap", "makes a fresh Debian 12 to install into");
const NSPAWN: Need =
    Need::new("systemd-container", "/usr/bin/systemd-nspawn", "boots that Debian with systemd");
/// systemd, and what the package depends on.
const INCLUDE: &str = "--include=systemd,systemd-sysv,dbus,nftables,iproute2,procps";

/// Says in a fresh Debian that all of it is there.
const DONE: &str = "var/cache/weir-package-test";

/// Builds the package and tries it.
///
/// # Errors
/// If something cannot be built or installed, or the package does not do its work.
pub(crate) fn run(profile: &str) -> Result<()> {
    setup::run()?;
    let missing = [&DEBOOTSTRAP, &NSPAWN];
    let missing = missing.into_iter().filter(|need| !Path::new(need.proof).exists());
    apt::install(&missing.collect::<Vec<_>>())?;
    let packages = deb::build(profile)?;
    let base = workspace::target().join("package-test/base");
    if !base.join(DONE).exists() {
        remove(&base)?;
        println!("making a fresh Debian 12 in {}", base.display());
        let mirror = setup::mirror().context("no mirror of bookworm in /etc/apt")?;
        fs::create_dir_all(&base)?;
        let mut command = Command::new(DEBOOTSTRAP.proof);
        command.args(["--variant=minbase", INCLUDE, "bookworm"]).arg(&base).arg(mirror);
        apt::run(&mut command)?;
        fs::write(base.join(DONE), "").context("cannot mark the fresh Debian as whole")?;
    }
    let root = base.with_file_name("root");
    remove(&root)?;
    workspace::run(Command::new("cp").arg("-a").args([&base, &root]))?;
    let built = cargo(&["build", "--quiet", "-p", "weir-tests", "--example", "package"]);
    workspace::run(&mut { built })?;
    let example = workspace::target().join("debug/examples/package");
    let mut command = Command::new(example);
    command.arg(&root).arg(&packages.node).arg(&packages.consumer);
    let result = workspace::run(&mut command);
    remove(&root)?;
    result
}

fn remove(root: &Path) -> Result<()> {
    if root.exists() {
        // Its mounts were in a mount namespace that is gone.
        fs::remove_dir_all(root).with_context(|| format!("cannot remove {}", root.display()))?;
    }
    Ok(())
}
