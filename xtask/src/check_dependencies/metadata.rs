//! What cargo says of the packages.

use std::{collections::BTreeSet, path::PathBuf};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use crate::workspace::cargo;

/// What weir is for, as far as dependencies differ.
const PLATFORM: &str = "x86_64-unknown-linux-gnu";

/// All packages of a workspace, with everything below it.
#[derive(Debug, Deserialize)]
pub(super) struct Metadata {
    packages: Vec<Package>,
    workspace_members: Vec<String>,
    resolve: Resolve,
    /// What is built, as `cargo tree` names it.
    #[serde(skip)]
    tree: BTreeSet<String>,
}

#[derive(Debug, Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

/// A package with those that it depends on.
#[derive(Debug, Deserialize)]
struct Node {
    id: String,
    deps: Vec<Edge>,
}

#[derive(Debug, Deserialize)]
struct Edge {
    /// By which the code names it.
    name: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Package {
    id: String,
    pub(super) name: String,
    pub(super) version: String,
    pub(super) license: Option<String>,
    /// Where it comes from; null for a directory.
    pub(super) source: Option<String>,
    pub(super) manifest_path: PathBuf,
    pub(super) dependencies: Vec<Dependency>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Dependency {
    pub(super) name: String,
    pub(super) req: String,
    pub(super) path: Option<PathBuf>,
}

impl Metadata {
    /// Asks cargo.
    pub(super) fn read(manifest: &str) -> Result<Self> {
        let said =
            ask(manifest, &["metadata", "--format-version=1", "--filter-platform", PLATFORM])?;
        let metadata = serde_json::from_slice(&said);
        let metadata: Self = metadata.context("cannot read what cargo metadata says")?;
        let tree = ["tree", "--workspace", "--edges=all", "--prefix=none", "--target", PLATFORM];
        let said = ask(manifest, &tree)?;
        let said = String::from_utf8(said).context("cannot read what cargo tree says")?;
        let name = |line: &str| line.split(' ').take(2).collect::<Vec<_>>().join(" ");
        Ok(Self { tree: said.lines().map(name).collect(), ..metadata })
    }

    /// The packages that the members are built from. The metadata also has some that no feature asks
    /// for.
    pub(super) fn used(&self) -> impl Iterator<Item = &Package> {
        self.packages
            .iter()
            .filter(|it| self.tree.contains(&format!("{} v{}", it.name, it.version)))
    }

    /// The names by which the code of a package knows what it depends on.
    pub(super) fn names<'a>(&'a self, package: &'a Package) -> impl Iterator<Item = &'a str> {
        let nodes = self.resolve.nodes.iter().filter(|node| node.id == package.id);
        nodes.flat_map(|node| &node.deps).map(|edge| edge.name.as_str())
    }

    /// The packages that are developed here.
    pub(super) fn members(&self) -> impl Iterator<Item = &Package> {
        self.packages.iter().filter(|package| self.workspace_members.contains(&package.id))
    }
}

fn ask(manifest: &str, arguments: &[&str]) -> Result<Vec<u8>> {
    let mut command = cargo(arguments);
    command.args(["--locked", "--all-features", "--manifest-path", manifest]);
    let said = command.output().context("cannot start cargo")?;
    let error = String::from_utf8_lossy(&said.stderr);
    ensure!(said.status.success(), "cargo {arguments:?} failed for {manifest}: {error}");
    Ok(said.stdout)
}
