//! `weir run` in a rig.

use std::{
    fs::{self, File},
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use rustix::{
    process::{Pid, Signal, kill_process},
    thread::CpuSet,
};

use super::{place::Place, rig::UPLINK};
use weir_common::PublicKey;
use weir_control::{
    api::view::{MadeSession, SessionRequest},
    client::Client,
    view::Status,
};
use weir_wireguard::keys;

const PATIENCE: Duration = Duration::from_secs(20);

/// How the node is to run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The cores of the workers; one worker each.
    pub cores: Vec<usize>,
    /// `node.xdp`.
    pub xdp: String,
    /// `node.receive`.
    pub receive: String,
    /// `node.max_sessions`.
    pub max_sessions: u32,
    /// More consumers shake hands from one address than the limits on handshakes let through: these
    /// are lifted.
    pub crowded: bool,
    /// What is written down.
    pub books: Books,
    /// Where Prometheus may ask.
    pub metrics: Option<SocketAddr>,
}

/// What the node writes down of what its sessions use, and whom it tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Books {
    /// What it does by default.
    Usual,
    /// As little as the configuration lets it: a checkpoint a minute, and no usage records within
    /// the first day.
    Few,
    /// A checkpoint every second, and records to a file and to a webhook.
    All {
        /// Where the webhook is.
        webhook: SocketAddr,
        /// Seconds between two records of a session.
        record_seconds: u32,
    },
}

/// The secret of the webhook in [`Books::All`].
const WEBHOOK_SECRET: &str = "a secret of the benchmark";

/// A running node; stopped, and its files removed, when dropped.
pub struct Node {
    child: Child,
    directory: PathBuf,
    api: Client,
}

impl Node {
    /// Starts `program run` in `place`, and waits until it serves.
    ///
    /// # Errors
    ///
    /// Fails when it does not serve; says what it wrote.
    pub fn start(program: &Path, place: &Place, settings: &Settings) -> anyhow::Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("weir-bench-{}-{number}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        fs::create_dir_all(&directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
        let at = |name: &str| directory.join(name);
        fs::write(at("weir.toml"), config(&directory, settings))?;
        fs::write(at("webhook.secret"), WEBHOOK_SECRET)?;
        let log = File::create(at("log"))?;
        let child = place.enter(|| {
            let mut set = CpuSet::new();
            settings.cores.iter().for_each(|core| set.set(*core));
            rustix::thread::sched_setaffinity(None, &set).context("no such core")?;
            let mut command = Command::new(program);
            command.args(["run", "--config"]).arg(at("weir.toml")).stdin(Stdio::null());
            command.stdout(log.try_clone()?).stderr(log);
            command.spawn().with_context(|| format!("cannot start {}", program.display()))
        })?;
        let api = Client::new(at("weir.sock"))?;
        let mut node = Self { child, directory, api };
        let end = Instant::now() + PATIENCE;
        while node.status().is_err() {
            let ended = node.child.try_wait()?;
            if ended.is_some() || Instant::now() > end {
                let log = fs::read_to_string(node.directory.join("log")).unwrap_or_default();
                bail!("the node did not start. It wrote:\n{log}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(node)
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Adds a session; gives its inner address.
    ///
    /// # Errors
    ///
    /// Fails when the node refuses it.
    pub fn add(&self, public_key: [u8; 32]) -> anyhow::Result<Ipv4Addr> {
        let public_key = Some(keys::print_public(&PublicKey(public_key)));
        let made: MadeSession =
            self.api.post("/v1/sessions", &SessionRequest { public_key, ..Default::default() })?;
        Ok(made.session.address_v4)
    }

    /// The node as its operator sees it.
    ///
    /// # Errors
    ///
    /// Fails when it does not answer.
    pub fn status(&self) -> anyhow::Result<Status> {
        self.api.get("/v1/status")
    }

    /// Its public key.
    ///
    /// # Errors
    ///
    /// Fails when it does not answer.
    pub fn public_key(&self) -> anyhow::Result<[u8; 32]> {
        Ok(keys::parse_public(&self.status()?.public_key)?.0)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).ok();
        let end = Instant::now() + PATIENCE;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > end {
                self.child.kill().ok();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        fs::remove_dir_all(&self.directory).ok();
    }
}

fn config(directory: &Path, settings: &Settings) -> String {
    let lifted = "handshakes_per_source = 1000000\nhandshakes_per_source_burst = 1000000\n\
                  handshakes_under_load = 1000000\n";
    let handshakes = if settings.crowded { lifted } else { "" };
    let at = |name: &str| format!("{:?}", directory.join(name));
    let ledger = match settings.books {
        Books::Usual => String::new(),
        Books::Few => "checkpoint_seconds = 60\nrecord_seconds = 86400\n".into(),
        Books::All { webhook, record_seconds } => format!(
            "checkpoint_seconds = 1\nrecord_seconds = {record_seconds}\nwebhook = \"http://{webhook}/usage\"\n\
             webhook_secret_file = {}\nusage_file = {}\n",
            at("webhook.secret"),
            at("usage.ndjson")
        ),
    };
    let metrics = settings.metrics.map_or("off".into(), |address| address.to_string());
    format!(
        "[node]\nuplink = {UPLINK:?}\nprivate_key_file = {}\nstate_dir = {}\nruntime_dir = {}\n\
         max_sessions = {}\ncores = {:?}\nworkers = {}\nxdp = {:?}\n\
         receive = {:?}\n\
         {handshakes}[ledger]\n{ledger}[api]\nsocket = {}\nmetrics = {metrics:?}\n",
        at("private.key"),
        at("state"),
        at("run"),
        settings.max_sessions,
        settings.cores,
        settings.cores.len(),
        settings.xdp,
        settings.receive,
        at("weir.sock"),
    )
}
