//! A real Prometheus that scrapes the node as the shipped configuration says.

use std::{
    fs,
    path::Path,
    process::{Child, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;

use crate::{Namespace, http, process};

const PORT: u16 = 9090;

/// A Prometheus in the node's namespace that scrapes it every second; gone when dropped.
#[derive(Debug)]
pub struct Prometheus<'a> {
    namespace: &'a Namespace,
    child: Child,
    _directory: tempfile::TempDir,
}

impl<'a> Prometheus<'a> {
    /// Starts it with `scrape.yml` and the rules of a directory.
    ///
    /// # Errors
    /// If it cannot be started or the files are not there.
    pub fn start(namespace: &'a Namespace, files: &Path) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let scrape = fs::read_to_string(files.join("scrape.yml")).context("no scrape.yml")?;
        let config = directory.path().join("prometheus.yml");
        fs::write(&config, scrape.replace("15s", "1s"))?;
        let rules = "weir.rules.yml";
        fs::copy(files.join(rules), directory.path().join(rules)).context("no rules")?;
        let mut command = namespace.command("prometheus");
        command.arg(format!("--config.file={}", config.display()));
        command.arg(format!("--storage.tsdb.path={}", directory.path().join("data").display()));
        command.arg(format!("--web.listen-address=127.0.0.1:{PORT}"));
        command.args(["--log.level=error"]);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.spawn().context("cannot start prometheus: cargo xtask setup")?;
        Ok(Self { namespace, child, _directory: directory })
    }

    /// What it answers to a request.
    ///
    /// # Errors
    /// If it does not, or says that it failed.
    pub fn ask(&self, path: &str) -> Result<Value> {
        let answer: Value = serde_json::from_str(&http::get(self.namespace, PORT, path)?)?;
        ensure!(answer["status"] == "success", "{path}: {answer}");
        Ok(answer["data"].clone())
    }

    /// The series that are the result of a query now.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub fn query(&self, query: &str) -> Result<Vec<Value>> {
        let data = self.ask(&format!("/api/v1/query?query={}", http::escape(query)))?;
        Ok(data["result"].as_array().context("no result")?.clone())
    }
}

impl Drop for Prometheus<'_> {
    fn drop(&mut self) {
        process::signal(&self.child, Signal::KILL).ok();
        self.child.wait().ok();
    }
}
