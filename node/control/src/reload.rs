//! Reads the configuration again and changes the running node, without ending a session.
//!
//! [`Reloader`] is the frame: it reads the file, finds which keys differ, and has each [`Applier`]
//! change its part. Everything is prepared before anything is changed, so that a mistake in the
//! file, or in a list that it names, leaves the node as it was. A key that no applier has takes a
//! restart, and is named.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use serde::{Deserialize, Serialize};

use weir_config::{Config, LoadError};

mod diff;

/// What a reload has done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The keys (`section.key`) whose new values are in force.
    pub applied: Vec<String>,
    /// The keys whose new values need a restart; the old ones stay in force until then.
    pub needs_restart: Vec<String>,
    /// What else the operator should know, in words.
    pub notes: Vec<String>,
}

/// Why the node is as it was before.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The configuration cannot be read, or has mistakes.
    #[error("the configuration is unchanged:\n{0}")]
    Config(#[from] LoadError),
    /// What would change at once does not fit what would need a restart.
    #[error(
        "the configuration is unchanged: its new values are consistent only after a restart ({}): \
         {problem}. Fix: restart weir, or change only the keys that need no restart.",
        restart.join(", ")
    )]
    Mixed {
        /// The keys that need a restart.
        restart: Vec<String>,
        /// What does not fit.
        problem: String,
    },
    /// A part of the node cannot take it. Nothing was changed.
    #[error("the configuration is unchanged: {0}")]
    Part(String),
    /// The node stops.
    #[error("the node is stopping; it reads its configuration at the next start")]
    Stopping,
    /// A part of the node did not take it, after others had.
    #[error("only a part of the new configuration was applied: {0}. Fix: restart weir.")]
    Half(String),
}

/// A change that is ready to be made. Says what the operator should know.
pub type Change = Box<dyn FnOnce() -> anyhow::Result<Vec<String>> + Send>;

/// Changes one part of the running node.
pub trait Applier: Send + Sync {
    /// The keys, `section.key`, whose values it can change.
    fn keys(&self) -> &'static [&'static str];

    /// Whether it must act also when none of its keys differs, because they name files.
    fn reads_files(&self) -> bool {
        false
    }

    /// Makes a change ready, without changing anything.
    ///
    /// # Errors
    ///
    /// Says why the part cannot be as the configuration wants it.
    fn prepare(&self, config: &Config) -> anyhow::Result<Change>;
}

/// Reloads the node.
pub trait Reload: Send + Sync {
    /// Reads the configuration again. May wait for disks and for the kernel.
    ///
    /// # Errors
    ///
    /// Says what stays as it was, and why.
    fn reload(&self) -> Result<Outcome, ReloadError>;
}

/// A shared [`Reload`].
pub type SharedReload = Arc<dyn Reload>;

/// The running node's configuration, and who can change what.
pub struct Reloader {
    file: Option<PathBuf>,
    uplink_mtu: u32,
    appliers: Vec<Box<dyn Applier>>,
    /// What is in force; `None` once the node stops.
    config: Mutex<Option<Config>>,
}

impl std::fmt::Debug for Reloader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reloader").field("file", &self.file).finish_non_exhaustive()
    }
}

impl Reloader {
    /// A node that runs with `config`, read from `file`. Appliers act in this order: those that may
    /// fail belong to the front.
    #[must_use]
    pub fn new(
        file: Option<PathBuf>,
        uplink_mtu: u32,
        config: Config,
        appliers: Vec<Box<dyn Applier>>,
    ) -> Self {
        Self { file, uplink_mtu, appliers, config: Mutex::new(Some(config)) }
    }

    /// Waits for a reload under way, and has every later one fail: the node stops.
    pub fn close(&self) {
        *self.config.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn is_live(&self, key: &str) -> bool {
        self.appliers.iter().any(|applier| applier.keys().contains(&key))
    }
}

impl Reload for Reloader {
    fn reload(&self) -> Result<Outcome, ReloadError> {
        let mut current = self.config.lock().unwrap_or_else(PoisonError::into_inner);
        let current = current.as_mut().ok_or(ReloadError::Stopping)?;
        let wanted = Config::load_for(self.file.as_deref(), Some(self.uplink_mtu))?;
        let differ = diff::keys(current, &wanted);
        let (applied, needs_restart): (Vec<_>, Vec<_>) =
            differ.into_iter().partition(|key| self.is_live(key));
        let next = diff::merge(current, &wanted, &applied).map_err(|mistakes| {
            let problems: Vec<_> = mistakes.iter().map(|it| it.problem.clone()).collect();
            ReloadError::Mixed { restart: needs_restart.clone(), problem: problems.join("; ") }
        })?;
        let mut changes = Vec::new();
        for applier in &self.appliers {
            let own = |key: &String| applier.keys().contains(&key.as_str());
            if applier.reads_files() || applied.iter().any(own) {
                let change = applier.prepare(&next);
                changes.push(change.map_err(|error| ReloadError::Part(format!("{error:#}")))?);
            }
        }
        let (mut notes, mut failed) = (Vec::new(), Vec::new());
        for (number, change) in changes.into_iter().enumerate() {
            match change() {
                Ok(said) => notes.extend(said),
                Err(error) if number == 0 => return Err(ReloadError::Part(format!("{error:#}"))),
                Err(error) => failed.push(format!("{error:#}")),
            }
        }
        *current = next;
        if !failed.is_empty() {
            return Err(ReloadError::Half(failed.join("; ")));
        }
        if self.file.is_none() {
            notes.push("no configuration file: weir was started without --config".into());
        }
        Ok(Outcome { applied, needs_restart, notes })
    }
}

#[cfg(test)]
mod tests;
