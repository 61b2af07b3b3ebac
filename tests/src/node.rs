//! `weir run` in a lab's node namespace.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    time::Duration,
};

use anyhow::{Context as _, Result};
use rustix::process::Signal;
use tempfile::TempDir;
use weir_control::{
    api::view::{AllSessions, OneSession},
    view::Status,
};
use weir_ledger::UsageRecord;
use weir_testkit::child::Child;

pub use weir_control::api::view::{GuardView, MadeSession as Added, SessionView as Session};

use crate::{Namespace, Settings, command, disk::Disk, http, privacy, sweep, until};

const RELOAD_TIMEOUT: Duration = Duration::from_secs(30);

/// A node with a configuration, a state and a socket of its own.
#[derive(Debug)]
pub struct Node<'a> {
    namespace: &'a Namespace,
    launcher: Vec<String>,
    environment: Vec<(String, String)>,
    child: Child,
    disk: Option<Disk>,
    directory: TempDir,
}

impl<'a> Node<'a> {
    /// Starts a node and waits until it serves.
    ///
    /// # Errors
    /// If it ends or does not serve; the error has what it wrote.
    pub fn start(namespace: &'a Namespace, settings: Settings) -> Result<Self> {
        let mut node = Self::prepare(namespace, settings)?;
        node.restart()?;
        Ok(node)
    }

    /// Writes the configuration, but starts nothing.
    ///
    /// # Errors
    /// If the files cannot be written.
    pub fn prepare(namespace: &'a Namespace, settings: Settings) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix(&sweep::directory()).tempdir()?;
        let child = Child::prepare(directory.path(), &settings)?;
        let (launcher, environment) = (Vec::new(), Vec::new());
        Ok(Self { namespace, launcher, environment, child, disk: None, directory })
    }

    /// Has another program start it, such as `setpriv` with its options, and become it.
    pub fn launch_by(&mut self, launcher: &[&str]) {
        self.launcher = launcher.iter().map(|word| (*word).to_owned()).collect();
    }

    /// Sets a variable of its environment.
    pub fn set_environment(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Replaces the settings; the next start takes them.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn configure(&mut self, settings: Settings) -> Result<()> {
        self.child.configure(&settings)
    }

    /// Gives its state directory a disk of its own, which must be done before its first start.
    ///
    /// # Errors
    /// If it cannot be mounted.
    pub fn put_state_on_disk(&mut self, mib: u32) -> Result<&Disk> {
        let disk = Disk::mount(&self.path("state"), mib)?;
        Ok(self.disk.insert(disk))
    }

    /// The disk of its state directory.
    ///
    /// # Errors
    /// If it has none of its own.
    pub fn disk(&self) -> Result<&Disk> {
        self.disk.as_ref().context("the state is on the machine's disk")
    }

    /// Starts it again, with the same files, and waits until it serves.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn restart(&mut self) -> Result<()> {
        let mut program = self.program(&self.launcher)?;
        program.envs(self.environment.iter().map(|(name, value)| (name, value)));
        let mut status = self.program(&[])?;
        status.arg("--socket").arg(self.socket_path()).args(["status", "--json"]);
        self.child.start(program, self.namespace, &[], || command::run(&mut status))?;
        Ok(())
    }

    /// Ends it as an operator does, and waits for the end.
    ///
    /// # Errors
    /// If it does not end, or not with success.
    pub fn stop(&mut self) -> Result<()> {
        let status = self.end(Signal::TERM)?;
        anyhow::ensure!(status.success(), "weir ended with {status}\n{}", self.log());
        Ok(())
    }

    /// Waits until it ends without having been told to.
    ///
    /// # Errors
    /// If it goes on running.
    pub fn wait_for_end(&mut self) -> Result<ExitStatus> {
        self.child.wait_for_end()
    }

    /// Kills it, so that it can clean nothing up.
    ///
    /// # Errors
    /// If it does not run.
    pub fn kill(&mut self) -> Result<()> {
        self.end(Signal::KILL)?;
        Ok(())
    }

    /// Has it read its configuration again, and waits until it says that it did, or did not.
    ///
    /// # Errors
    /// If it does not run or says nothing.
    pub fn hang_up(&self) -> Result<()> {
        let said = |log: &str| {
            log.matches("the configuration was reloaded").count()
                + log.matches("the configuration is unchanged").count()
        };
        let before = said(&self.log());
        self.child.signal(Signal::HUP)?;
        until("weir has read its configuration again", RELOAD_TIMEOUT, || {
            anyhow::ensure!(said(&self.log()) > before, "it says nothing");
            Ok(())
        })
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// If that cannot be told.
    pub fn is_running(&mut self) -> Result<bool> {
        self.child.is_running()
    }

    /// Its process id.
    ///
    /// # Errors
    /// If it does not run.
    pub fn pid(&self) -> Result<u32> {
        self.child.pid()
    }

    /// Runs a `weir` command against it.
    ///
    /// # Errors
    /// If the command fails.
    pub fn weir(&self, arguments: &[&str]) -> Result<String> {
        let mut command = self.program(&[])?;
        command::run(command.arg("--socket").arg(self.socket_path()).args(arguments))
    }

    /// Adds a session, for which the node makes the key pair.
    ///
    /// # Errors
    /// If the command fails or says something else than JSON of this shape.
    pub fn session_add(&self, name: &str) -> Result<Added> {
        parse(&self.weir(&["session", "add", "--name", name, "--json"])?)
    }

    /// A session with its counters.
    ///
    /// # Errors
    /// As [`Self::session_add`].
    pub fn session_show(&self, id: &str) -> Result<Session> {
        let one: OneSession = parse(&self.weir(&["session", "show", id, "--json"])?)?;
        Ok(one.session)
    }

    /// All sessions.
    ///
    /// # Errors
    /// As [`Self::session_add`].
    pub fn session_list(&self) -> Result<Vec<Session>> {
        let all: AllSessions = parse(&self.weir(&["session", "list", "--json"])?)?;
        Ok(all.sessions)
    }

    /// The node as its operator sees it.
    ///
    /// # Errors
    /// As [`Self::session_add`].
    pub fn status(&self) -> Result<Status> {
        parse(&self.weir(&["status", "--json"])?)
    }

    /// How many packets were dropped at a stage for a reason.
    ///
    /// # Errors
    /// If the status cannot be had or knows no such reason.
    pub fn drops(&self, stage: &str, reason: &str) -> Result<u64> {
        let drops = self.status()?.drops;
        let found = drops.iter().find(|drop| drop.stage == stage && drop.reason == reason);
        Ok(found.with_context(|| format!("no reason {stage}/{reason}"))?.packets)
    }

    /// The page that Prometheus gets.
    ///
    /// # Errors
    /// If it cannot be had.
    pub fn metrics(&self) -> Result<String> {
        http::get(self.namespace, 9587, "/metrics").context("cannot have the metrics")
    }

    /// The rules of weir's nftables table, as nft prints them, without the counters' values.
    ///
    /// # Errors
    /// If there is no such table.
    pub fn nft_table(&self) -> Result<String> {
        let table = self.namespace.run("nft --stateless list table inet weir")?;
        Ok(table.lines().map(|line| without_generation(line) + "\n").collect())
    }

    /// Packets that a rule of the exit policy refused, whichever way packets leave.
    ///
    /// # Errors
    /// If the node does not answer or has no such rule.
    pub fn refused(&self, rule: &str) -> Result<u64> {
        self.drops("policy", rule)
    }

    /// Everything that it wrote so far.
    #[must_use]
    pub fn log(&self) -> String {
        self.child.log()
    }

    /// Where its configuration is.
    #[must_use]
    pub fn config_path(&self) -> PathBuf {
        self.child.config_path()
    }

    /// Where its API answers.
    #[must_use]
    pub fn socket_path(&self) -> PathBuf {
        self.child.socket_path()
    }

    /// Where its private key is.
    #[must_use]
    pub fn private_key_path(&self) -> PathBuf {
        self.path("state/private.key")
    }

    /// Where the socket for `wg` is.
    #[must_use]
    pub fn wg_directory(&self) -> PathBuf {
        self.path("wireguard")
    }

    /// Where its ledger is.
    #[must_use]
    pub fn ledger_path(&self) -> PathBuf {
        self.path("state/ledger.db")
    }

    /// What `weir ledger export` says, record by record.
    ///
    /// # Errors
    /// If the ledger cannot be read or is not as the node wrote it.
    pub fn records(&self) -> Result<Vec<UsageRecord>> {
        let ledger = self.ledger_path().to_string_lossy().into_owned();
        self.weir(&["ledger", "check", &ledger])?;
        self.weir(&["ledger", "export", &ledger])?.lines().map(parse).collect()
    }

    /// Where it keeps what need not survive a reboot.
    #[must_use]
    pub fn runtime_dir(&self) -> PathBuf {
        self.path("run")
    }

    /// What it has pinned in the machine's bpffs.
    #[must_use]
    pub fn pins(&self) -> Vec<PathBuf> {
        sweep::pins(&self.name())
    }

    /// File systems that are mounted in its directories.
    #[must_use]
    pub fn mounts(&self) -> Vec<PathBuf> {
        sweep::mounts(&self.name())
    }

    fn name(&self) -> String {
        let name = self.directory.path().file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    fn end(&mut self, signal: Signal) -> Result<ExitStatus> {
        self.keep_scrape();
        self.child.end(signal)
    }

    /// `weir`, in the network of its namespace and with the disk of its state.
    fn program(&self, launcher: &[String]) -> Result<Command> {
        let mount = |disk: &Disk| ["nsenter".to_owned(), format!("--mount={}", disk.namespace())];
        let weir = binary()?.to_string_lossy().into_owned();
        let disk = self.disk.iter().flat_map(mount);
        let mut words = disk.chain(launcher.iter().cloned()).chain([weir]);
        let mut command = self.namespace.command(&words.next().context("no program")?);
        command.args(words);
        Ok(command)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.child.path(name)
    }
}

impl Drop for Node<'_> {
    fn drop(&mut self) {
        self.keep_scrape();
        self.child.finish();
        sweep::mounts_and_pins(&self.name());
        sweep::clocks();
        self.kept(".log", &self.log());
        if std::thread::panicking() {
            self.show_log();
        }
    }
}

impl Node<'_> {
    /// What it tells Prometheus now, for who looks through all of it at the end of the tests.
    fn keep_scrape(&self) {
        if self.child.is_started()
            && std::env::var_os(privacy::KEEP).is_some()
            && let Ok(page) = self.metrics()
        {
            self.kept(".metrics", &page);
        }
    }

    fn kept(&self, kind: &str, text: &str) {
        let kept = privacy::keep(&(self.name() + kind), text);
        if !std::thread::panicking() {
            kept.expect("the directory of WEIR_KEEP_LOGS can be written");
        }
    }

    #[expect(clippy::print_stderr, reason = "the test runner shows it with the failed test")]
    fn show_log(&self) {
        eprintln!("weir wrote:\n{}", self.log());
    }
}

/// The program under test: `WEIR_BIN`, else the newest of the workspace's target directory.
///
/// # Errors
/// If it was not built.
pub fn binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("WEIR_BIN") {
        return Ok(path.into());
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("no workspace")?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(root.join("target"), PathBuf::from);
    let age = |path: &PathBuf| fs::metadata(path).and_then(|meta| meta.modified()).ok();
    let built = ["release/weir", "debug/weir"].map(|path| target.join(path));
    built
        .into_iter()
        .filter(|path| path.exists())
        .max_by_key(age)
        .context("weir is not built. Fix: cargo build --release -p weir")
}

/// A line of the table without the number that the names of its sets end in, which is another after
/// each change: `ip daddr @blocked4_7` and `set blocked4_7 {`.
fn without_generation(line: &str) -> String {
    let is_set = |before: &str, word: &str| word.starts_with('@') || before.trim() == "set";
    let mut before = "";
    let strip = |word| {
        let last = std::mem::replace(&mut before, word);
        match word.trim_end().rsplit_once('_') {
            Some((name, number)) if is_set(last, word) && number.parse::<u32>().is_ok() => {
                format!("{name} ")
            }
            _ => word.to_owned(),
        }
    };
    line.split_inclusive(' ').map(strip).collect()
}

fn parse<T: serde::de::DeserializeOwned>(text: &str) -> Result<T> {
    serde_json::from_str(text).with_context(|| format!("unexpected JSON: {text}"))
}
