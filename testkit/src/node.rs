//! A node for load: `weir run` in a [`rig`](super::rig), and its API.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::Context as _;
use weir_common::PublicKey;
use weir_control::{
    api::view::{MadeSession, SessionRequest},
    client::Client,
    view::Status,
};
use weir_wireguard::keys;

use crate::{Namespace, Settings, child::Child};

/// How the node is to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// The cores of the workers; one worker each.
    pub cores: Vec<usize>,
    /// The cores that help with the cipher (`node.cipher_cores`).
    pub cipher_cores: Vec<usize>,
    /// `node.xdp`.
    pub xdp: String,
    /// `node.receive`.
    pub receive: String,
    /// `node.egress`.
    pub egress: String,
    /// `node.defer_interrupts`.
    pub defer_interrupts: bool,
    /// `node.max_sessions`.
    pub max_sessions: u32,
    /// More consumers shake hands from one address than the limits on handshakes let through: these
    /// are lifted.
    pub crowded: bool,
    /// What the node records of usage.
    pub recording: Recording,
    /// The address of the metrics, or none.
    pub metrics: Option<SocketAddr>,
}

/// How often the node writes its sessions' usage to the ledger, and where it sends the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recording {
    /// The defaults of the configuration.
    Default,
    /// The minimum that the configuration allows: a checkpoint a minute, and no usage records in
    /// the first day.
    Minimal,
    /// A checkpoint every second, and records to a file and to a webhook.
    All {
        /// The address of the webhook.
        webhook: SocketAddr,
        /// Seconds between two records of a session.
        record_seconds: u32,
    },
}

/// The secret of the webhook in [`Recording::All`].
const WEBHOOK_SECRET: &str = "a secret of the benchmark";
const SECRET_FILE: &str = "webhook.secret";

/// A running node; stopped, and its files removed, when dropped.
pub struct Node {
    child: Child,
    api: Client,
    // Dropped after the child.
    _directory: Directory,
}

impl Node {
    /// Starts `program run` in `namespace`, and waits until it serves.
    ///
    /// # Errors
    ///
    /// Fails when it does not serve; says what it wrote.
    pub fn start(program: &Path, namespace: &Namespace, options: &Options) -> anyhow::Result<Self> {
        let directory = Directory::new()?;
        let child = Child::prepare(&directory.0, &options.settings(&directory.0))?;
        fs::write(child.path(SECRET_FILE), WEBHOOK_SECRET)?;
        let api = Client::new(child.socket_path())?;
        let mut node = Self { child, api, _directory: directory };
        let ready = || node.api.get::<Status>("/v1/status");
        node.child.start(
            Command::new(program),
            namespace,
            &[&options.cores[..], &options.cipher_cores].concat(),
            ready,
        )?;
        Ok(node)
    }

    /// Its process.
    ///
    /// # Errors
    ///
    /// Fails when it has ended.
    pub fn pid(&self) -> anyhow::Result<u32> {
        self.child.pid()
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

impl Options {
    fn settings(&self, directory: &Path) -> Settings {
        let at = |name: &str| format!("{:?}", directory.join(name));
        let mut settings = Settings::default()
            .with("node", "max_sessions", &self.max_sessions.to_string())
            .with("node", "cores", &format!("{:?}", self.cores))
            .with("node", "workers", &self.cores.len().to_string())
            .with("node", "xdp", &format!("{:?}", self.xdp))
            .with("node", "receive", &format!("{:?}", self.receive));
        // An older weir does not know the keys.
        if self.defer_interrupts {
            settings = settings.with("node", "defer_interrupts", "true");
        }
        if self.egress != "auto" {
            settings = settings.with("node", "egress", &format!("{:?}", self.egress));
        }
        if !self.cipher_cores.is_empty() {
            settings = settings.with("node", "cipher_cores", &format!("{:?}", self.cipher_cores));
        }
        if self.crowded {
            for key in
                ["handshakes_per_source", "handshakes_per_source_burst", "handshakes_under_load"]
            {
                settings = settings.with("node", key, "1000000");
            }
        }
        let ledger = match self.recording {
            Recording::Default => Vec::new(),
            Recording::Minimal => vec![
                ("checkpoint_seconds", "60".to_owned()),
                ("record_seconds", "86400".to_owned()),
            ],
            Recording::All { webhook, record_seconds } => vec![
                ("checkpoint_seconds", "1".to_owned()),
                ("record_seconds", record_seconds.to_string()),
                ("webhook", format!("\"http://{webhook}/usage\"")),
                ("webhook_secret_file", at(SECRET_FILE)),
                ("usage_file", at("usage.ndjson")),
            ],
        };
        for (key, value) in ledger {
            settings = settings.with("ledger", key, &value);
        }
        let metrics = self.metrics.map_or("off".into(), |address| address.to_string());
        settings.with("api", "metrics", &format!("{metrics:?}"))
    }
}

/// A directory of this process; removed when dropped.
struct Directory(PathBuf);

impl Directory {
    fn new() -> anyhow::Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("weir-bench-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}
