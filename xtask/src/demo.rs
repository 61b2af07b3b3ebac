//! `cargo xtask demo`: builds weir and the demo and becomes the demo, so that signals reach it.
#![expect(clippy::print_stdout, reason = "a task tells what it does")]

use std::{os::unix::process::CommandExt as _, path::Path, process::Command};

use anyhow::{Context as _, Result};

use crate::{
    setup,
    workspace::{self, cargo},
};

/// What the demo shows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scene {
    /// One node and its consumer.
    Node,
    /// The market.
    Market,
}

/// Runs the demo.
///
/// # Errors
/// If something cannot be installed, built or started.
pub(crate) fn run(scene: Scene, json: Option<&Path>, seconds: u32) -> Result<()> {
    setup::run()?;
    println!("building weir and the demo (release)");
    let packages = ["-p", "weir", "-p", "weir-tests", "--bin", "weir", "--example", "demo"];
    workspace::run(cargo(&["build", "--release"]).args(packages))?;
    let built = workspace::target().join("release");
    let mut demo = Command::new(built.join("examples/demo"));
    demo.env("WEIR_BIN", built.join("weir")).args(["--seconds", &seconds.to_string()]);
    if scene == Scene::Market {
        demo.arg("--market");
    }
    if let Some(json) = json {
        demo.arg("--json").arg(json);
    }
    Err(demo.exec()).context("cannot start the demo")
}
