//! Where a wallet is.

use std::{ffi::OsString, path::PathBuf};

/// The directory of root's wallet.
const OF_ROOT: &str = "/var/lib/weir-connect";

/// The user's directory for a consumer's state: `/var/lib/weir-connect` for root, else `weir-connect` in
/// `$XDG_STATE_HOME` or `~/.local/state`. `None` if there is no home directory.
///
/// `variable` reads the environment.
#[must_use]
pub fn default_directory(
    is_root: bool,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Option<PathBuf> {
    if is_root {
        return Some(OF_ROOT.into());
    }
    let absolute = |name: &str| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = absolute("XDG_STATE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/state")))?;
    Some(state.join("weir-connect"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_has_the_systems_directory_and_others_their_own() {
        let none = |_: &str| None;
        assert_eq!(default_directory(true, none), Some(OF_ROOT.into()));
        assert_eq!(default_directory(false, none), None);
        let home = |name: &str| (name == "HOME").then(|| "/home/a".into());
        let there = PathBuf::from("/home/a/.local/state/weir-connect");
        assert_eq!(default_directory(false, home), Some(there));
        let state = |name: &str| (name == "XDG_STATE_HOME").then(|| "/state".into());
        assert_eq!(default_directory(false, state), Some("/state/weir-connect".into()));
    }
}
