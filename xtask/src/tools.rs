//! Programs that cargo builds from crates, once, into the target directory.
#![expect(clippy::print_stdout, reason = "a task tells what it does")]

use std::path::PathBuf;

use anyhow::Result;

use crate::workspace::{self, cargo};

/// A program from a crate of the same name.
#[derive(Debug)]
pub(crate) struct Tool {
    /// The crate's name.
    pub(crate) name: &'static str,
    /// Its version. Another one is built beside it.
    pub(crate) version: &'static str,
}

/// Builds the program if it is not there. Gives its path.
///
/// # Errors
/// If cargo cannot fetch or build it.
pub(crate) fn install(tool: &Tool) -> Result<PathBuf> {
    let Tool { name, version } = tool;
    let target = workspace::target();
    let root = target.join("tools").join(format!("{name}-{version}"));
    let program = root.join("bin").join(name);
    if !program.exists() {
        println!("installing crate {name} {version} into {}", root.display());
        let mut install = cargo(&["install", "--quiet", "--locked", name]);
        install.args(["--version", version]).arg("--root").arg(&root);
        workspace::run(install.env("CARGO_TARGET_DIR", target.join("tools-build")))?;
    }
    Ok(program)
}
