//! `weir run` as a child process.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{self as std_process, Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use rustix::{process::Signal, thread::CpuSet};

use crate::{Namespace, Settings, process, until};

const START_TIMEOUT: Duration = Duration::from_secs(30);
const STOP_TIMEOUT: Duration = Duration::from_secs(30);
/// From being told to end to being killed, where nobody waits for a clean end.
const FINISH_TIMEOUT: Duration = Duration::from_secs(5);

/// A node's files, all in one directory, and its process, if it runs. The process ends when this is
/// dropped; the directory stays.
#[derive(Debug)]
pub struct Child {
    directory: PathBuf,
    process: Option<std_process::Child>,
}

impl Child {
    /// Writes the configuration of a node whose files are in `directory`, but starts nothing.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn prepare(directory: &Path, settings: &Settings) -> Result<Self> {
        let child = Self { directory: directory.to_owned(), process: None };
        child.configure(settings)?;
        Ok(child)
    }

    /// Replaces the configuration.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn configure(&self, settings: &Settings) -> Result<()> {
        let text = settings.render(&self.directory);
        fs::write(self.config_path(), text).context("cannot write the configuration")
    }

    /// Starts `program`, which is `weir` or becomes it, in a namespace and on these cores (on any,
    /// if there are none), and asks until it is ready.
    ///
    /// # Errors
    /// If it cannot be started, ends, or is not ready in time; the error has what it wrote.
    pub fn start<T>(
        &mut self,
        mut program: Command,
        namespace: &Namespace,
        cores: &[usize],
        mut ready: impl FnMut() -> Result<T>,
    ) -> Result<T> {
        ensure!(self.process.is_none(), "the node runs already");
        let log = File::options().create(true).append(true).open(self.log_path())?;
        program.args(["run", "--config"]).arg(self.config_path()).env("RUST_BACKTRACE", "1");
        program.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let spawn = || {
            if !cores.is_empty() {
                let mut set = CpuSet::new();
                cores.iter().for_each(|core| set.set(*core));
                rustix::thread::sched_setaffinity(None, &set).context("no such core")?;
            }
            program.spawn().context("cannot start weir")
        };
        let pid = self.process.insert(namespace.enter(spawn)?).id();
        until("weir answers", START_TIMEOUT, || {
            if let Some(status) = self.exited()? {
                return Ok(Err(anyhow!("weir ended at its start: {status}\n{}", self.log())));
            }
            ready().map(Ok)
        })
        .with_context(|| format!("weir {pid} wrote:\n{}", self.log()))?
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// If it does not run.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        process::signal(self.process.as_ref().context("weir does not run")?, signal)
    }

    /// Sends it a signal that ends it, and waits for the end.
    ///
    /// # Errors
    /// If it does not end in time; then it is killed.
    pub fn end(&mut self, signal: Signal) -> Result<ExitStatus> {
        let mut child = self.process.take().context("weir does not run")?;
        process::signal(&child, signal)?;
        let ended = process::wait(&mut child, STOP_TIMEOUT);
        if ended.is_err() {
            child.kill().ok();
            child.wait().ok();
        }
        ended.with_context(|| format!("weir wrote:\n{}", self.log()))
    }

    /// Ends it, if it runs: it is told to, and soon after killed.
    pub fn finish(&mut self) {
        let Some(mut child) = self.process.take() else { return };
        process::signal(&child, Signal::TERM).ok();
        if process::wait(&mut child, FINISH_TIMEOUT).is_err() {
            child.kill().ok();
            child.wait().ok();
        }
    }

    /// Waits until it ends without having been told to.
    ///
    /// # Errors
    /// If it goes on running.
    pub fn wait_for_end(&mut self) -> Result<ExitStatus> {
        let mut child = self.process.take().context("weir does not run")?;
        let ended = process::wait(&mut child, STOP_TIMEOUT);
        if ended.is_err() {
            // What is left of it is for `Drop`.
            self.process = Some(child);
        }
        ended.with_context(|| format!("weir wrote:\n{}", self.log()))
    }

    /// Whether it was started and not ended, as far as is known here.
    #[must_use]
    pub fn is_started(&self) -> bool {
        self.process.is_some()
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// If that cannot be told.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.process.is_some() && self.exited()?.is_none())
    }

    /// Its process id.
    ///
    /// # Errors
    /// If it does not run.
    pub fn pid(&self) -> Result<u32> {
        Ok(self.process.as_ref().context("weir does not run")?.id())
    }

    /// Everything that it wrote so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Where its configuration is.
    #[must_use]
    pub fn config_path(&self) -> PathBuf {
        self.path("weir.toml")
    }

    /// Where its API answers.
    #[must_use]
    pub fn socket_path(&self) -> PathBuf {
        self.path("run/weir.sock")
    }

    /// A path in its directory.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn log_path(&self) -> PathBuf {
        self.path("weir.log")
    }

    fn exited(&mut self) -> Result<Option<ExitStatus>> {
        let Some(child) = &mut self.process else { bail!("weir does not run") };
        let status = child.try_wait()?;
        if status.is_some() {
            self.process = None;
        }
        Ok(status)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.finish();
    }
}
