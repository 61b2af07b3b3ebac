//! The part of the listing that survives a restart: `market.json` in the state directory.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

/// What is remembered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct State {
    /// The operator has withdrawn the listing.
    pub(super) withdrawn: bool,
    /// The time in the last event, in seconds since 1970.
    pub(super) last_signed: u64,
}

/// The file.
#[derive(Clone, Debug)]
pub(super) struct StateFile(PathBuf);

impl StateFile {
    pub(super) fn new(state_dir: &Path) -> Self {
        Self(state_dir.join("market.json"))
    }

    /// What the file says. A missing or damaged file says nothing.
    pub(super) fn load(&self) -> State {
        let text = fs::read_to_string(&self.0).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// Replaces the file.
    pub(super) fn store(&self, state: &State) -> io::Result<()> {
        let temporary = self.0.with_extension("json.new");
        fs::write(&temporary, serde_json::to_vec(state)?)?;
        fs::rename(&temporary, &self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_survives_and_a_damaged_file_is_none() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = StateFile::new(directory.path());
        assert_eq!(file.load(), State::default());
        let state = State { withdrawn: true, last_signed: 7 };
        file.store(&state).expect("stored");
        assert_eq!(file.load(), state);
        fs::write(directory.path().join("market.json"), "{").expect("written");
        assert_eq!(file.load(), State::default());
    }
}
