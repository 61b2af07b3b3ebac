//! `cargo xtask bench`: builds weir and the comparison, gets the peers, and becomes the comparison.
#![expect(clippy::print_stdout, reason = "a task tells what it does")]

use std::{os::unix::process::CommandExt as _, process::Command};

use anyhow::{Context as _, Result};

use crate::{
    setup,
    tools::{self, Tool},
    workspace::{self, cargo},
};

const BORINGTUN: Tool = Tool { name: "boringtun-cli", version: "0.7.1" };

/// Runs the comparison with the arguments that it takes, or with `guard` the table of what each
/// verdict of the guard costs.
///
/// # Errors
///
/// If something cannot be installed, built or started.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    setup::run()?;
    if arguments == ["guard"] {
        let program = ["-p", "weir-benches", "--bin", "weir-guard-cost"];
        return workspace::run(cargo(&["run", "--quiet", "--release"]).args(program));
    }
    let boringtun = tools::install(&BORINGTUN)?;
    println!("building weir and the comparison (release)");
    let packages = ["-p", "weir", "-p", "weir-benches", "--bin", "weir", "--bin", "weir-bench"];
    workspace::run(cargo(&["build", "--quiet", "--release"]).args(packages))?;
    let built = workspace::target().join("release");
    let mut bench = Command::new(built.join("weir-bench"));
    bench.env("WEIR_BIN", built.join("weir")).env("BORINGTUN_BIN", boringtun);
    bench.current_dir(workspace::root()).args(arguments);
    Err(bench.exec()).context("cannot start the comparison")
}
