//! Where candidates come from: so far, files.

use std::{
    fs,
    net::{SocketAddr, ToSocketAddrs as _},
    path::{Path, PathBuf},
};

use anyhow::Context as _;

use crate::conf::{Conf, Endpoint};

/// What stands before the exit's key in the market, on a line of its own in a configuration.
pub const EXIT_COMMENT: &str = "# Exit: ";

/// A node that can be used, with the consumer's keys for it.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// What it is called: a file, or a name from the market.
    pub name: String,
    /// Its key in the market, in hex, if it is known.
    pub exit: Option<String>,
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
    Ok(Candidate { name, exit: exit(&text), conf, endpoint })
}

/// The exit's key in the market, from the comment with which weir marks what it has bought.
fn exit(text: &str) -> Option<String> {
    let key = text.lines().find_map(|line| line.strip_prefix(EXIT_COMMENT))?.trim();
    let is_key = key.len() == 64 && key.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_key.then(|| key.to_ascii_lowercase())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_bought_has_the_exits_key_in_a_comment() {
        let key = "3F".repeat(32);
        let found = exit(&format!("# Exit: {key}\n[Interface]\n"));
        assert_eq!(found, Some(key.to_ascii_lowercase()));
        for text in ["[Interface]\n", "# Exit: 3f9a\n", "# Exit: \n"] {
            assert_eq!(exit(text), None, "{text}");
        }
    }
}
