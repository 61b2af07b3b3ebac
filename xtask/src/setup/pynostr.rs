//! pynostr: a Nostr client of other people's making. It is written in Python throughout, and shares no code with the
//! crate that weir uses. `pynostr.txt` has the versions.

use std::path::PathBuf;

use anyhow::Result;

use super::nutshell;

const REQUIREMENTS: &str = include_str!("pynostr.txt");

/// Installs it into the target directory, unless it is there.
///
/// # Errors
/// If there is no Python, or a package cannot be had.
pub(crate) fn ensure() -> Result<PathBuf> {
    nutshell::install("pynostr", "pynostr", REQUIREMENTS)
}
