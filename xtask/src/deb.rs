//! `cargo xtask deb`: the Debian packages, with manual pages and completions from the command line
//! itself.
#![expect(clippy::print_stdout, reason = "a task tells what it does")]

use std::{path::PathBuf, process::Command};

use anyhow::{Context as _, Result};

use crate::workspace::{self, cargo};

/// The version of cargo-deb that is installed, into the target directory, if there is none.
const CARGO_DEB: &str = "3.8.0";

/// The packages of a profile.
#[derive(Debug)]
pub(crate) struct Packages {
    /// The node, with every command.
    pub(crate) node: PathBuf,
    /// The consumer's commands alone.
    pub(crate) consumer: PathBuf,
}

/// Builds the packages of a profile, and gives their paths.
///
/// # Errors
/// If something cannot be built.
pub(crate) fn build(profile: &str) -> Result<Packages> {
    docs(profile)?;
    println!("building weir ({profile})");
    let out = ["--bin", "weir", "--profile", profile];
    workspace::run(cargo(&["build", "--locked", "-p", "weir"]).args(out))?;
    let tools = workspace::target().join("tools");
    if !tools.join("bin/cargo-deb").exists() {
        println!("installing cargo-deb {CARGO_DEB} into {}", tools.display());
        let version = ["cargo-deb", "--version", CARGO_DEB, "--root"];
        workspace::run(cargo(&["install", "--quiet", "--locked"]).args(version).arg(&tools))?;
    }
    let package = |name: &str, variant: &str| {
        let package = workspace::target().join("package").join(name);
        let mut deb = Command::new(tools.join("bin/cargo-deb"));
        deb.current_dir(workspace::root()).args(["-p", "weir", "--no-build", "--quiet"]);
        // Without the lines of the source, which are four fifths of the file.
        deb.args(["--strip", "--profile", profile])
            .args(["--variant", variant, "--output"])
            .arg(&package);
        workspace::run(&mut deb)?;
        println!("{}", package.display());
        anyhow::Ok(package)
    };
    let node = package("weir.deb", "node")?;
    Ok(Packages { node, consumer: package("weir-connect.deb", "connect")? })
}

/// Makes the manual pages and completions, beside what the profile builds: of all directories
/// cargo-deb looks only for this one wherever `CARGO_TARGET_DIR` is.
fn docs(profile: &str) -> Result<()> {
    let built = if profile == "dev" { "debug" } else { profile };
    let place = workspace::target().join(built).join("package");
    if place.exists() {
        std::fs::remove_dir_all(&place).context("cannot empty the package's directory")?;
    }
    std::fs::create_dir_all(&place).context("cannot make the package's directory")?;
    println!("writing manual pages and completions to {}", place.display());
    workspace::run(cargo(&["run", "--quiet", "-p", "weir", "--example", "cli_docs"]).arg(&place))?;
    // Debian wants them so, and cargo-deb does it only to what is not in the target directory.
    for man in [place.join("man"), place.join("consumer/man")] {
        let pages = std::fs::read_dir(man)?.collect::<Result<Vec<_>, _>>()?;
        let pages = pages.iter().map(std::fs::DirEntry::path);
        workspace::run(Command::new("gzip").args(["-9", "--no-name"]).args(pages))?;
    }
    Ok(())
}

/// Builds the packages.
///
/// # Errors
/// As [`build`].
pub(crate) fn run(profile: &str) -> Result<()> {
    let Packages { node, consumer } = build(profile)?;
    for package in [node, consumer] {
        workspace::run(Command::new("dpkg-deb").arg("--info").arg(package))?;
    }
    Ok(())
}
