//! `weir wallet` in a namespace, with a directory of its own.

use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::Value;
use tempfile::TempDir;
use weir_testkit::{Namespace, command};

use crate::{node, sweep};

/// A consumer's wallet.
#[derive(Debug)]
pub struct Wallet<'a> {
    namespace: &'a Namespace,
    directory: TempDir,
}

impl<'a> Wallet<'a> {
    /// A new one. Nothing is written before the first command.
    ///
    /// # Errors
    /// If there is no directory for it.
    pub fn new(namespace: &'a Namespace) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix(&sweep::directory()).tempdir()?;
        Ok(Self { namespace, directory })
    }

    /// Runs `weir wallet` with these arguments, and returns what it prints as JSON.
    ///
    /// # Errors
    /// If it fails; the error has what it wrote.
    pub fn run(&self, arguments: &[&str]) -> Result<Value> {
        let said = command::run(self.command()?.args(arguments).arg("--json"))?;
        serde_json::from_str(&said).with_context(|| format!("no JSON: {said}"))
    }

    /// The same as a command, to be killed.
    ///
    /// # Errors
    /// If weir is not built.
    pub fn command(&self) -> Result<Command> {
        let program = node::binary()?;
        let mut command = self.namespace.command(program.to_str().context("a path")?);
        command.arg("wallet").arg("--wallet").arg(self.directory.path().join("state"));
        Ok(command)
    }

    /// What can be spent, what is unfinished, and what is unclaimed.
    ///
    /// # Errors
    /// If the wallet does not say.
    pub fn sums(&self) -> Result<[u64; 3]> {
        let all = self.run(&["balance"])?;
        let mints = all["mints"].as_array().context("no mints")?;
        let sum = |of: &str| mints.iter().filter_map(|mint| mint[of].as_u64()).sum();
        Ok(["balance", "unfinished", "unclaimed"].map(sum))
    }
}
