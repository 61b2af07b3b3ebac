//! Which registries a consumer asks, and which watchers it believes: those of the options, else those
//! of its file.

use std::path::{Path, PathBuf};

use anyhow::ensure;
use weir_config::{NotWebSocket, WebSocketUrl};
use weir_market::{
    attestation::WatcherKey,
    client::{Connector, Limits, system_lookup},
    view::{ConsumerPaths, Settings, read_settings},
};

/// Reads a registry's URL.
pub(super) fn registry(text: &str) -> Result<WebSocketUrl, NotWebSocket> {
    text.parse()
}

/// What a consumer's options and file say.
pub(super) struct Consumer {
    registries: Vec<WebSocketUrl>,
    watchers: Vec<WatcherKey>,
    ca_file: Option<PathBuf>,
    paths: ConsumerPaths,
}

impl Consumer {
    /// Reads the file. What an option names is not taken from it.
    pub(super) fn read(
        registries: &[WebSocketUrl],
        watchers: &[WatcherKey],
        ca_file: Option<&Path>,
    ) -> anyhow::Result<Self> {
        let paths = ConsumerPaths::find(|name| std::env::var_os(name));
        let file = paths.settings.as_deref().map(read_settings).transpose()?.flatten();
        let file = file.unwrap_or_default();
        Ok(Self {
            registries: if registries.is_empty() { file.registries } else { registries.to_vec() },
            watchers: if watchers.is_empty() { file.watchers } else { watchers.to_vec() },
            ca_file: ca_file.map(PathBuf::from).or(file.ca_file),
            paths,
        })
    }

    /// The user's directory for what was fetched.
    pub(super) fn cache(&self) -> Option<PathBuf> {
        self.paths.cache.clone()
    }

    /// What to fetch, and where to keep it.
    pub(super) fn settings(&self, cache: Option<PathBuf>) -> Settings {
        let (registries, watchers) = (self.registries.clone(), self.watchers.clone());
        Settings { registries, watchers, cache, limits: Limits::default() }
    }

    /// What connects to the registries. `command` is the one that the user has typed.
    pub(super) fn connector(&self, command: &str) -> anyhow::Result<Connector> {
        let file = self.paths.settings.clone().unwrap_or_else(|| "market.toml".into());
        ensure!(
            !self.registries.is_empty(),
            "no registry is named. Fix: {command} --registry wss://registry.example, or write \
             registries = [\"wss://registry.example\"] to {}",
            file.display()
        );
        let file = self.ca_file.as_deref();
        Ok(Connector::for_urls(system_lookup(), &self.registries, file)?)
    }
}
