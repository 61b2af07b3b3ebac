//! The configuration: its keys, their defaults and meanings, and a check that names every mistake.
//!
//! 1. [`sections`] declares every key once, except those of `[limits]`, which [`limits`] declares
//!    with [`limit`]. The default file, the reader and the list of known keys come from there.
//! 2. [`Config::load`] reads a file, and [`check()`] a text. Each [`Mistake`] has its line, its reason
//!    and its fix.
//! 3. The values have types that cannot be wrong: [`Auto`], [`HostPort`], [`ListenAddr`], the modes,
//!    [`PortRule`], [`PortRange`], [`HttpUrl`], the [`amounts`] and the [`schedule`].
//! 4. [`misfit`] and [`overlap`] check what only the machine can tell: the uplink's MTU, and its
//!    networks.
//! 5. [`default_text`] writes the default file with every key explained.
//! 6. [`Shared`] holds a value that a reload replaces.

use std::path::{Path, PathBuf};

pub mod amounts;
mod check;
mod kinds;
#[macro_use]
pub mod limit;
mod mistake;
mod port;
mod rules;
pub mod schedule;
#[macro_use]
mod section;
pub mod limits;
pub mod sections;
mod shared;
mod url;
mod value;

pub use check::check;
pub use kinds::{
    Auto, EgressMode, GuardMode, HostPort, IoMode, IpType, ListenAddr, LogFormat, LogLevel,
    ReceiveMode, SandboxMode, Wei,
};
pub use limits::Limits;
pub use mistake::Mistake;
pub use port::{NoPorts, NotARange, PortRange, PortRule, Protocol};
pub use rules::{misfit, overlap};
pub use sections::{
    Api, Cashu, Config, Dns, Fleet, Ledger, Log, Market, Nat, Node, Payment, Policy, Purchase,
    Registry, Tunnel, Voucher,
};
pub use shared::Shared;
pub use url::{HttpUrl, NotHttp, NotWebSocket, WebSocketUrl};

/// The bytes that the tunnel adds to an inner packet when the consumer is reached over IPv4: IPv4
/// header 20, UDP 8, WireGuard 32.
pub const OVERHEAD_V4: u32 = 60;
/// The same over IPv6, whose header has 40 bytes.
pub const OVERHEAD_V6: u32 = 80;

/// Why there is no usable configuration.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error(
        "cannot read the configuration {}: {source}. Fix: name a readable file with --config, \
         or leave --config out to use the defaults.", path.display()
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The file has mistakes.
    #[error("{}", report(path, mistakes))]
    Mistakes {
        /// The file.
        path: PathBuf,
        /// All of them, in the order of the file.
        mistakes: Vec<Mistake>,
    },
}

/// One line per mistake, each beginning with the file's name as a compiler's errors do.
#[must_use]
pub fn report(path: &Path, mistakes: &[Mistake]) -> String {
    let lines: Vec<String> =
        mistakes.iter().map(|mistake| format!("{}:{mistake}", path.display())).collect();
    lines.join("\n")
}

impl Config {
    /// The setting by which consumers' packets leave through the kernel in any case. `None` if they
    /// can leave past its stack.
    #[must_use]
    pub fn kernel_egress(&self) -> Option<&'static str> {
        match (self.node.egress, self.node.receive, self.node.xdp) {
            (EgressMode::Kernel, _, _) => Some("node.egress"),
            (_, ReceiveMode::Sockets, _) => Some("node.receive"),
            (_, _, GuardMode::Off) => Some("node.xdp"),
            _ => None,
        }
    }

    /// The configuration in `path`, or the defaults without one.
    ///
    /// Does not check the tunnel's MTU against the uplink's, because the configuration names the
    /// uplink. That happens when the host is prepared.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be read or has mistakes. The error lists all of them.
    pub fn load(path: Option<&Path>) -> Result<Self, LoadError> {
        Self::load_for(path, None)
    }

    /// As [`Config::load`], but also checks the tunnel's MTU against the uplink's.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be read or has mistakes. The error lists all of them.
    pub fn load_for(path: Option<&Path>, uplink_mtu: Option<u32>) -> Result<Self, LoadError> {
        let Some(path) = path else {
            return Ok(Self::default());
        };
        let text = std::fs::read_to_string(path)
            .map_err(|source| LoadError::Read { path: path.to_owned(), source })?;
        check(&text, uplink_mtu)
            .map_err(|mistakes| LoadError::Mistakes { path: path.to_owned(), mistakes })
    }
}

/// The default configuration as a TOML file that explains every key.
#[must_use]
pub fn default_text() -> String {
    sections::text(&Config::default())
}

#[cfg(test)]
mod tests;
