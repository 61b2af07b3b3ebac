//! `cargo xtask check-dependencies`: what the workspace depends on, and what it need not.

use anyhow::{Result, ensure};

use crate::workspace;

mod metadata;
mod rules;
mod unused;

use metadata::Metadata;
use rules::Rules;

/// The manifests of the two workspaces.
const MANIFESTS: [&str; 2] = ["Cargo.toml", "node-ebpf/Cargo.toml"];

/// Looks for unused dependencies, and compares licences, sources and versions with `deny.toml`.
///
/// # Errors
///
/// Names each dependency that must not be there.
pub(crate) fn run() -> Result<()> {
    let rules = Rules::read(&workspace::root().join("deny.toml"))?;
    let mut wrong = Vec::new();
    for manifest in MANIFESTS {
        let metadata = Metadata::read(manifest)?;
        for package in metadata.used() {
            wrong.extend(rules.judge(package));
        }
        for member in metadata.members() {
            wrong.extend(unused::find(member, metadata.names(member))?);
        }
    }
    wrong.sort();
    wrong.dedup();
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}
