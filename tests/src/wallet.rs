//! `weir wallet` in a namespace, with a directory of its own.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
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

    /// Where its file is.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    /// Runs `weir wallet` with these arguments, and returns what it prints as JSON.
    ///
    /// # Errors
    /// If it fails; the error has what it wrote.
    pub fn run(&self, arguments: &[&str]) -> Result<Value> {
        json(self.command()?.args(arguments))
    }

    /// Runs `weir buy` with these arguments, and returns what it prints as JSON.
    ///
    /// # Errors
    /// If it fails; the error has what it wrote.
    pub fn buy(&self, arguments: &[&str]) -> Result<Value> {
        json(self.buy_command()?.args(arguments))
    }

    /// The same as a command, to be killed.
    ///
    /// # Errors
    /// If weir is not built.
    pub fn command(&self) -> Result<Command> {
        self.weir("wallet")
    }

    /// `weir buy` as a command.
    ///
    /// # Errors
    /// If weir is not built.
    pub fn buy_command(&self) -> Result<Command> {
        self.weir("buy")
    }

    fn weir(&self, name: &str) -> Result<Command> {
        let program = node::binary()?;
        let mut command = self.namespace.command(program.to_str().context("a path")?);
        command.arg(name).arg("--wallet").arg(self.directory.path().join("state"));
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

fn json(command: &mut Command) -> Result<Value> {
    let said = command::run(command.arg("--json"))?;
    serde_json::from_str(&said).with_context(|| format!("no JSON: {said}"))
}

/// Runs the wallet of `tests/programs/cashu.mjs`, which is made of cashu-ts, and returns what it prints.
///
/// # Errors
/// If it is not installed, or fails; the error has what it wrote.
pub fn cashu_ts(namespace: &Namespace, arguments: &[&str]) -> Result<String> {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target = env::var_os("CARGO_TARGET_DIR").map_or(tests.join("../target"), PathBuf::from);
    let library = target.join("tools/cashu-ts").canonicalize();
    let library = library.context("cashu-ts is missing: cargo xtask setup")?;
    ensure!(library.join("node_modules").exists(), "cashu-ts is missing: cargo xtask setup");
    let mut program = namespace.command("node");
    program.arg(tests.join("programs/cashu.mjs")).arg(library).args(arguments);
    Ok(command::run(&mut program)?.trim().to_owned())
}
