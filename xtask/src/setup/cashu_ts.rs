//! cashu-ts: a second wallet of other people's making, in another language than nutshell.
#![expect(clippy::print_stdout, reason = "a task tells what it does")]

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context as _, Result};

use crate::workspace;

/// The version that the tests were written for.
const PACKAGE: &str = "@cashu/cashu-ts@4.8.0";

/// Installs it into the target directory, unless it is there.
///
/// # Errors
/// If there is no npm, or the package cannot be had.
pub(crate) fn ensure() -> Result<PathBuf> {
    let root = workspace::target().join("tools").join("cashu-ts");
    let installed = root.join("installed.txt");
    if fs::read_to_string(&installed).is_ok_and(|text| text == PACKAGE) {
        return Ok(root);
    }
    println!("installing npm package {PACKAGE} into {}", root.display());
    fs::create_dir_all(&root).context("cannot write into the target directory")?;
    let mut npm = Command::new("npm");
    npm.arg("install").arg("--prefix").arg(&root);
    npm.args(["--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error", PACKAGE]);
    workspace::run(&mut npm)?;
    fs::write(&installed, PACKAGE).context("cannot write into the target directory")?;
    Ok(root)
}
