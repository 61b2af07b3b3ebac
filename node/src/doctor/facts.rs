//! Facts about this machine. Nothing here changes anything.

use std::{fs, path::Path};

use weir_config::Config;
use weir_host::nft::{self, Refusal, Site};

mod clock;
pub mod disk;
pub mod kernel;
pub mod network;

pub use clock::Clock;
pub use disk::Disk;
pub use kernel::Kernel;
pub use network::{Conntrack, Egress, Nic, Port};

/// A fact, or why it is unknown.
pub type Known<T> = Result<T, String>;

/// All facts that the checks judge.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The configuration's name, or its mistakes.
    pub configuration: Result<String, String>,
    /// The configuration, or the defaults if it has mistakes.
    pub config: Config,
    /// What the kernel offers and allows.
    pub kernel: Kernel,
    /// The uplink, or why there is none.
    pub nic: Result<Nic, String>,
    /// The number of cores that this process may use.
    pub cores: usize,
    /// The node's UDP port.
    pub port: Port,
    /// Whether the kernel has the exit policy.
    pub policy: Known<bool>,
    /// The node's packets that other programs' firewall rules refuse.
    pub refusals: Known<Vec<Refusal>>,
    /// The kernel's connection tracking.
    pub conntrack: Known<Conntrack>,
    /// The clock.
    pub clock: Clock,
    /// The disk of the state directory.
    pub disk: Disk,
}

impl Facts {
    /// Gathers all facts.
    #[must_use]
    pub fn gather(path: Option<&Path>) -> Self {
        let (configuration, config) = match Config::load(path) {
            Ok(config) => {
                let which = path.map_or("the defaults".into(), |path| path.display().to_string());
                (Ok(which), config)
            }
            Err(error) => (Err(error.to_string()), Config::default()),
        };
        let nic = Nic::gather(&config);
        // The port can be checked without an uplink.
        let site = nic.as_ref().map_or(["", ""], |nic| {
            [nic.name.as_str(), nic.ipv6.other().unwrap_or(nic.name.as_str())]
        });
        let site = Site::of_config(&config, site);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            configuration,
            kernel: Kernel::gather(),
            nic,
            cores,
            port: Port::gather(&config),
            policy: nft::is_installed().map_err(|error| error.to_string()),
            refusals: nft::foreign_drops(&site).map_err(|error| error.to_string()),
            conntrack: Conntrack::gather(),
            clock: Clock::gather(),
            disk: Disk::gather(&config.node.state_dir),
            config,
        }
    }
}

/// The text of a file of the kernel's, without the newline.
fn read(path: &str) -> Known<String> {
    let text = fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
    Ok(text.trim().to_owned())
}

/// A number in a file of the kernel's.
fn number<T: std::str::FromStr>(path: &str) -> Known<T> {
    read(path)?.parse().map_err(|_| format!("{path} does not hold a number"))
}
