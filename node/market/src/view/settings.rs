//! The consumer's file: `market.toml`.

use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use weir_config::WebSocketUrl;

use crate::attestation::{NotAWatcher, WatcherKey};

/// Why the consumer's file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// It cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// It has a mistake.
    #[error(
        "{path}: {problem}. Fix: write for example registries = [\"wss://registry.example\"]; the \
         keys are registries, watchers and ca_file"
    )]
    Mistake {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

/// What the file says. Other keys belong to other commands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConsumerSettings {
    /// The registries.
    pub registries: Vec<WebSocketUrl>,
    /// The watchers that are believed.
    pub watchers: Vec<WatcherKey>,
    /// CA certificates for `wss`, in place of the machine's.
    pub ca_file: Option<PathBuf>,
}

/// Where a consumer's files are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConsumerPaths {
    /// The consumer's file, `weir/market.toml` in the directory for configurations.
    pub settings: Option<PathBuf>,
    /// The directory for what was fetched, `weir/market` in the directory for caches.
    pub cache: Option<PathBuf>,
}

impl ConsumerPaths {
    /// The paths by the XDG base directory specification. `variable` reads the environment.
    #[must_use]
    pub fn find(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let absolute =
            |name: &str| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let home = absolute("HOME");
        let base = |name: &str, below: &str| {
            absolute(name).or_else(|| home.as_ref().map(|home| home.join(below)))
        };
        Self {
            settings: base("XDG_CONFIG_HOME", ".config").map(|base| base.join("weir/market.toml")),
            cache: base("XDG_CACHE_HOME", ".cache").map(|base| base.join("weir/market")),
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Raw {
    registries: Vec<String>,
    watchers: Vec<String>,
    ca_file: Option<PathBuf>,
}

/// Reads the consumer's file. `None` if there is no such file.
///
/// # Errors
///
/// When it cannot be read, or has a mistake.
pub fn read_settings(path: &Path) -> Result<Option<ConsumerSettings>, SettingsError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(SettingsError::Read { path: path.into(), source }),
    };
    let mistake = |problem: String| SettingsError::Mistake { path: path.into(), problem };
    let raw: Raw = toml::from_str(&text).map_err(|error| mistake(error.message().to_owned()))?;
    let urls = raw.registries.iter().map(|text| text.parse());
    let registries = urls.collect::<Result<_, _>>();
    let registries = registries
        .map_err(|error: weir_config::NotWebSocket| mistake(format!("registries: {error}")))?;
    let watchers = raw.watchers.iter().map(|text| text.parse()).collect::<Result<_, _>>();
    let watchers = watchers.map_err(|error: NotAWatcher| mistake(format!("watchers: {error}")))?;
    Ok(Some(ConsumerSettings { registries, watchers, ca_file: raw.ca_file }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_where_the_specification_of_base_directories_says() {
        let environment = |pairs: &'static [(&str, &str)]| {
            ConsumerPaths::find(|name| {
                pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into())
            })
        };
        let home = environment(&[("HOME", "/home/a"), ("XDG_CACHE_HOME", "not/absolute")]);
        assert_eq!(home.settings, Some("/home/a/.config/weir/market.toml".into()));
        assert_eq!(home.cache, Some("/home/a/.cache/weir/market".into()));
        let moved = environment(&[("HOME", "/home/a"), ("XDG_CONFIG_HOME", "/c")]);
        assert_eq!(moved.settings, Some("/c/weir/market.toml".into()));
        assert_eq!(environment(&[]), ConsumerPaths::default());
    }

    #[test]
    fn a_consumers_file_names_registries() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("market.toml");
        assert_eq!(read_settings(&path).expect("no file"), None);
        fs::write(&path, "registries = [\"wss://a.example\"]\n[wallet]\nx = 1\n").expect("written");
        let read = read_settings(&path).expect("read").expect("there");
        assert_eq!(read.registries.len(), 1);
        let watcher = crate::key::MarketKey::for_tests(5).public();
        fs::write(&path, format!("watchers = [\"{}\"]\n", watcher.to_hex())).expect("written");
        let read = read_settings(&path).expect("read").expect("there");
        assert_eq!(read.watchers, [watcher.into()]);
        for (text, problem) in [
            ("registries = [\"https://a\"]\n", "neither with wss://"),
            ("registries = 1\n", ""),
            ("watchers = [\"3f9a\"]\n", "\"3f9a\" is not a watcher's key"),
        ] {
            fs::write(&path, text).expect("written");
            let error = read_settings(&path).expect_err("wrong").to_string();
            assert!(error.contains("Fix: ") && error.contains(problem), "{error}");
        }
    }
}
