//! Nutshell: a Cashu mint with a fake wallet behind it, and a wallet, of other people's making. Its own list of
//! dependencies is open at the top, and some of the newest do not work with it: `nutshell.txt` has the versions that do.
#![expect(clippy::print_stdout, reason = "a task tells what it does")]

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context as _, Result};

use crate::workspace;

const REQUIREMENTS: &str = include_str!("nutshell.txt");

/// Installs it into the target directory, unless it is there.
///
/// # Errors
/// If there is no Python, or a package cannot be had.
pub(crate) fn ensure() -> Result<PathBuf> {
    install("nutshell", "cashu", REQUIREMENTS)
}

/// Installs Python packages into a place of their own in the target directory, unless they are there.
///
/// # Errors
/// If there is no Python, or a package cannot be had.
pub(super) fn install(name: &str, package: &str, requirements: &str) -> Result<PathBuf> {
    let root = workspace::target().join("tools").join(name);
    let list = root.join("requirements.txt");
    if fs::read_to_string(&list).is_ok_and(|installed| installed == requirements) {
        return Ok(root);
    }
    println!("installing Python package {package} into {}", root.display());
    workspace::run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&root))?;
    let wanted = root.join("wanted.txt");
    fs::write(&wanted, requirements).context("cannot write into the target directory")?;
    let mut pip = Command::new(root.join("bin/pip"));
    pip.args(["install", "--quiet", "--disable-pip-version-check", "--no-deps", "-r"]);
    workspace::run(pip.arg(&wanted))?;
    fs::rename(&wanted, &list).context("cannot write into the target directory")?;
    Ok(root)
}
