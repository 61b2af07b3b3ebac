//! `cargo xtask check-dependencies`: what the workspace depends on, and what it need not.

use std::process::Command;

use anyhow::{Context as _, Result};

use crate::{
    tools::{self, Tool},
    workspace,
};

const DENY: Tool = Tool { name: "cargo-deny", version: "0.20.2" };
const MACHETE: Tool = Tool { name: "cargo-machete", version: "0.9.2" };

/// The manifests of the two workspaces.
const MANIFESTS: [&str; 2] = ["Cargo.toml", "node-ebpf/Cargo.toml"];
/// Not `advisories`: their database is a git repository, which CI cannot reach.
const CHECKS: [&str; 3] = ["bans", "licenses", "sources"];

/// Looks for unused dependencies, and compares licences and sources with `deny.toml`.
///
/// # Errors
///
/// Fails when a tool cannot be built, or finds something.
pub(crate) fn run() -> Result<()> {
    let mut machete = Command::new(tools::install(&MACHETE)?);
    machete.args(["--with-metadata", "--skip-target-dir"]);
    workspace::run(machete.current_dir(workspace::root()))
        .context("Fix: remove the dependencies named above from their Cargo.toml")?;
    let deny = tools::install(&DENY)?;
    for manifest in MANIFESTS {
        let mut deny = Command::new(&deny);
        deny.args(["--locked", "--all-features", "--config", "deny.toml"]);
        deny.args(["--manifest-path", manifest, "check", "--hide-inclusion-graph"]).args(CHECKS);
        workspace::run(deny.current_dir(workspace::root()))
            .context("Fix: choose another crate, or allow this one in deny.toml and say why")?;
    }
    Ok(())
}
