//! Other implementations of WireGuard as child processes: wireguard-go and boringtun-cli.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use rustix::thread::CpuSet;

use crate::{Namespace, until};

const START_TIMEOUT: Duration = Duration::from_secs(10);
/// The maximum length of an interface's name (IFNAMSIZ, with its terminating zero).
const MAX_NAME: usize = 15;

/// The directory of the control sockets, which all network namespaces share.
pub const SOCKETS: &str = "/var/run/wireguard";

/// An implementation of WireGuard that runs as a process.
#[derive(Clone, Copy, Debug)]
pub enum Implementation<'p> {
    /// wireguard-go, as installed.
    WireguardGo,
    /// boringtun-cli.
    Boringtun {
        /// The program.
        program: &'p Path,
        /// The number of its threads.
        threads: usize,
    },
}

impl Implementation<'_> {
    /// The command that serves an interface in the foreground.
    fn command(self, interface: &str) -> Command {
        let mut command = match self {
            Self::WireguardGo => {
                let mut command = Command::new("wireguard-go");
                command.arg("-f");
                command
            }
            Self::Boringtun { program, threads } => {
                let mut command = Command::new(program);
                command.args(["-f", "--disable-drop-privileges", "--threads"]);
                command.arg(threads.to_string());
                command
            }
        };
        command.arg(interface).env("WG_I_PREFER_BUGGY_USERSPACE_TO_POLISHED_KMOD", "1");
        command.env("LOG_LEVEL", "silent").stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    }
}

/// A WireGuard interface that a child process serves. The process ends, and its control socket is
/// removed, when this is dropped.
#[derive(Debug)]
pub struct WireguardProcess {
    child: Child,
    interface: String,
}

impl WireguardProcess {
    /// Starts an implementation in a namespace and on these cores (on any, if there are none), and
    /// waits until `wg` can configure its interface.
    ///
    /// # Errors
    /// If it does not start.
    pub fn start(
        implementation: Implementation<'_>,
        namespace: &Namespace,
        cores: &[usize],
        interface: String,
    ) -> Result<Self> {
        ensure!(interface.len() <= MAX_NAME, "{interface} is too long for an interface");
        let mut command = implementation.command(&interface);
        let child = namespace.enter(|| {
            if !cores.is_empty() {
                let mut set = CpuSet::new();
                cores.iter().for_each(|core| set.set(*core));
                rustix::thread::sched_setaffinity(None, &set).context("no such core")?;
            }
            command.spawn().with_context(|| format!("cannot start {implementation:?}"))
        })?;
        // From here on, an error ends the process.
        let process = Self { child, interface };
        let interface = &process.interface;
        until("the WireGuard process answers", START_TIMEOUT, || {
            ensure!(socket(interface).exists(), "no control socket of {interface}");
            namespace.run(&format!("wg show {interface}"))
        })?;
        Ok(process)
    }

    /// Gives the interface a configuration for `wg setconf`.
    ///
    /// # Errors
    /// If `wg` fails.
    pub fn configure(&self, namespace: &Namespace, config: &str) -> Result<()> {
        let file = std::env::temp_dir().join(format!("{}.conf", self.interface));
        fs::write(&file, config)?;
        let set = namespace.run(&format!("wg setconf {} {}", self.interface, file.display()));
        fs::remove_file(&file)?;
        set.map(drop)
    }

    /// The interface's name.
    #[must_use]
    pub fn interface(&self) -> &str {
        &self.interface
    }

    /// The process's id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for WireguardProcess {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
        fs::remove_file(socket(&self.interface)).ok();
    }
}

/// The control socket of an interface.
#[must_use]
pub fn socket(interface: &str) -> PathBuf {
    Path::new(SOCKETS).join(interface).with_extension("sock")
}
