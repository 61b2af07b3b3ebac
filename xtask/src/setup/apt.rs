//! Installing Debian packages.
#![expect(clippy::print_stdout, reason = "a task tells what it does")]

use std::{path::Path, process::Command, sync::OnceLock};

use anyhow::{Context as _, Result, ensure};

use crate::workspace;

/// A Debian package, the file that proves it is there, and what it is for.
#[derive(Debug)]
pub(crate) struct Need {
    /// The package's name.
    pub(crate) package: &'static str,
    /// A file that exists when the package, or anything in its place, is installed.
    pub(crate) proof: &'static str,
    /// What it is for.
    pub(crate) why: &'static str,
}

impl Need {
    pub(crate) const fn new(package: &'static str, proof: &'static str, why: &'static str) -> Self {
        Self { package, proof, why }
    }
}

/// Installs packages; asks apt nothing when there are none.
pub(crate) fn install(needs: &[&Need]) -> Result<()> {
    if needs.is_empty() {
        return Ok(());
    }
    for need in needs {
        println!("installing Debian package {}: it {}", need.package, need.why);
    }
    update_once()?;
    let packages: Vec<_> = needs.iter().map(|need| need.package).collect();
    let names = packages.join(" ");
    run(Command::new("apt-get").args(["install", "-y", "--no-install-recommends"]).args(packages))
        .with_context(|| format!("cannot install {names}. Fix: apt-get install {names}"))
}

/// Reads the package lists anew, once in this run.
pub(crate) fn update_once() -> Result<()> {
    static DONE: OnceLock<()> = OnceLock::new();
    if DONE.get().is_some() {
        return Ok(());
    }
    update()?;
    DONE.get_or_init(|| ());
    Ok(())
}

/// Reads the package lists anew.
pub(crate) fn update() -> Result<()> {
    run(Command::new("apt-get").args(["update", "-q", "--error-on=any"]))
        .context("cannot read Debian's package lists. Fix: check the network and /etc/apt")
}

/// Runs an apt command, which asks nothing and says nothing unless it fails.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    ensure!(
        Path::new("/usr/bin/apt-get").exists(),
        "this is no Debian system. Fix: install what is named above by hand"
    );
    let id = Command::new("id").arg("-u").output().context("cannot ask who we are")?;
    ensure!(id.stdout == b"0\n", "installing packages needs root. Fix: run this as root");
    let log = workspace::target().join("apt.log");
    let file = std::fs::File::create(&log).context("cannot write apt.log")?;
    command.env("DEBIAN_FRONTEND", "noninteractive").stdin(std::process::Stdio::null());
    command.stdout(file.try_clone()?).stderr(file);
    let status = command.status().with_context(|| format!("cannot start {command:?}"))?;
    if !status.success() {
        println!("{}", std::fs::read_to_string(&log).unwrap_or_default());
    }
    ensure!(status.success(), "{command:?} failed: {status}");
    Ok(())
}
