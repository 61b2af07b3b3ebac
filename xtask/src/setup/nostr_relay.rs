//! nostr-relay: a Nostr relay of other people's making, in Python. `nostr_relay.txt` has the versions.

use std::path::PathBuf;

use anyhow::Result;

use super::nutshell;

const REQUIREMENTS: &str = include_str!("nostr_relay.txt");

/// Installs it into the target directory, unless it is there.
///
/// # Errors
/// If there is no Python, or a package cannot be had.
pub(crate) fn ensure() -> Result<PathBuf> {
    nutshell::install("nostr-relay", "nostr-relay", REQUIREMENTS)
}
