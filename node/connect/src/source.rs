//! Where candidates come from: so far, files.

use std::{
    fs,
    net::{SocketAddr, ToSocketAddrs as _},
    path::{Path, PathBuf},
};

use anyhow::Context as _;

use crate::conf::{Conf, Endpoint};

/// A node that can be used, with the consumer's keys for it.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// What it is called: a file, or a name from the market.
    pub name: String,
    /// The consumer's end.
    pub conf: Conf,
    /// Where the node is.
    pub endpoint: SocketAddr,
}

/// Reads candidates from configurations for wg-quick. Their endpoints' names are resolved.
///
/// # Errors
///
/// Names the file and what is wrong with it.
pub fn from_files(paths: &[PathBuf]) -> anyhow::Result<Vec<Candidate>> {
    paths.iter().map(|path| from_file(path)).collect()
}

fn from_file(path: &Path) -> anyhow::Result<Candidate> {
    let text = fs::read_to_string(path).map(zeroize::Zeroizing::new);
    let text = text.with_context(|| format!("cannot read {}", path.display()))?;
    let conf = Conf::parse(&text).with_context(|| format!("{}", path.display()))?;
    let endpoint = resolve(&conf.endpoint).with_context(|| format!("{}", path.display()))?;
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    Ok(Candidate { name, conf, endpoint })
}

/// The address of an endpoint.
///
/// # Errors
///
/// When a name has none, as is the case while this machine is closed.
pub fn resolve(endpoint: &Endpoint) -> anyhow::Result<SocketAddr> {
    match endpoint {
        Endpoint::Address(address) => Ok(*address),
        Endpoint::Name(name, port) => {
            let found =
                (name.as_str(), *port).to_socket_addrs().ok().and_then(|mut all| all.next());
            found.with_context(|| {
                format!(
                    "the name {name:?} of the Endpoint has no address. Fix: while this machine is \
                     closed, no name can be resolved: write the node's address in its place"
                )
            })
        }
    }
}
