//! What a consumer, or a watcher, has measured itself: a small file of its own.
//!
//! Each change replaces the file as a whole, under a lock, so that a crash leaves the old or the new one.

use std::{
    collections::BTreeMap,
    fs::{DirBuilder, File, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    attestation::{Reason, Share},
    replace::replace,
    score::{Experience, History},
};

/// The format of the file.
const VERSION: u32 = 1;
/// Measurements of one exit that are kept.
pub const MAX_PER_EXIT: usize = 32;
/// Exits that are kept. Beyond it, those that were measured longest ago are forgotten.
pub const MAX_EXITS: usize = 20_000;
/// How long a measurement is kept, in seconds.
pub const MAX_AGE: u64 = 90 * 24 * 3600;
/// The largest file that is read, in bytes.
const MAX_BYTES: u64 = 128 << 20;

/// What was measured at one exit, once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measurement {
    /// When it ended, in seconds since 1970.
    pub at: u64,
    /// Why the exit was left, or is not good; `None` if it was good to the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Reason>,
    /// Milliseconds until it answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect_ms: Option<u32>,
    /// Seconds for which it was used.
    #[serde(default)]
    pub seconds: u64,
    /// Bytes from it.
    #[serde(default)]
    pub received: u64,
    /// Bytes to it.
    #[serde(default)]
    pub sent: u64,
}

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// A file operation failed.
    #[error("cannot {doing} the measurements {path}: {source}")]
    Io {
        /// The operation.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// It is something else.
    #[error("{0} does not have measurements. Fix: move it away, and weir begins a new one")]
    Form(PathBuf),
}

/// The measurements by the exit's key, in hex; of each exit the oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Measurements(BTreeMap<String, Vec<Measurement>>);

#[derive(Serialize, Deserialize)]
struct Content {
    version: u32,
    exits: BTreeMap<String, Vec<Measurement>>,
}

impl Measurements {
    /// Those of one exit, the oldest first.
    #[must_use]
    pub fn of(&self, key: &str) -> &[Measurement] {
        self.0.get(key).map_or(&[], Vec::as_slice)
    }

    /// Adds one, as of `now`. What is too old or too much is forgotten.
    pub fn add(&mut self, key: &str, measurement: Measurement, now: u64) {
        let of_exit = self.0.entry(key.to_owned()).or_default();
        of_exit.push(measurement);
        let beyond = of_exit.len().saturating_sub(MAX_PER_EXIT);
        of_exit.drain(..beyond);
        self.forget(now);
    }

    fn forget(&mut self, now: u64) {
        let oldest = now.saturating_sub(MAX_AGE);
        self.0.retain(|_, all| {
            all.retain(|it| it.at >= oldest);
            !all.is_empty()
        });
        if self.0.len() > MAX_EXITS {
            let last = |all: &Vec<Measurement>| all.last().map_or(0, |it| it.at);
            let mut times: Vec<u64> = self.0.values().map(last).collect();
            let beyond = self.0.len() - MAX_EXITS;
            let (_, bound, _) = times.select_nth_unstable(beyond - 1);
            let bound = *bound;
            self.0.retain(|_, all| last(all) > bound);
        }
    }

    /// The share of the measurements since then in which the exit was good; `None` without any.
    #[must_use]
    pub fn share_good(&self, key: &str, since: u64) -> Option<Share> {
        let recent: Vec<_> = self.of(key).iter().filter(|it| it.at >= since).collect();
        let good = recent.iter().filter(|it| it.failure.is_none()).count();
        Share::of(good as u64, recent.len() as u64)
    }
}

impl History for Measurements {
    fn of(&self, key: &str) -> Option<Experience> {
        let all = self.0.get(key).filter(|all| !all.is_empty())?;
        let mut times: Vec<u32> = all.iter().filter_map(|it| it.connect_ms).collect();
        times.sort_unstable();
        let count = |is_good: bool| {
            let count = all.iter().filter(|it| it.failure.is_none() == is_good).count();
            u32::try_from(count).unwrap_or(u32::MAX)
        };
        Some(Experience {
            good: count(true),
            bad: count(false),
            last_failure: all.iter().rev().find_map(|it| it.failure),
            connect_ms: times.get(times.len() / 2).copied(),
        })
    }
}

/// The file.
#[derive(Clone, Debug)]
pub struct HistoryFile(PathBuf);

impl HistoryFile {
    /// The file at this path, which need not exist.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// Reads it. Without a file, there are no measurements.
    ///
    /// # Errors
    ///
    /// When it cannot be read, or is something else.
    pub fn load(&self) -> Result<Measurements, HistoryError> {
        let file = match File::open(&self.0) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Measurements::default());
            }
            Err(error) => return Err(self.failed("read")(error)),
        };
        let mut text = String::new();
        file.take(MAX_BYTES).read_to_string(&mut text).map_err(self.failed("read"))?;
        let content = serde_json::from_str::<Content>(&text).ok();
        let content = content.filter(|content| content.version == VERSION);
        let content = content.ok_or_else(|| HistoryError::Form(self.0.clone()))?;
        Ok(Measurements(content.exits))
    }

    /// Adds a measurement, as of `now` (seconds since 1970), and returns all. Other processes may do so at
    /// the same time.
    ///
    /// # Errors
    ///
    /// When the file cannot be read or written. What was in it is still there then.
    pub fn record(
        &self,
        key: &str,
        measurement: Measurement,
        now: u64,
    ) -> Result<Measurements, HistoryError> {
        if let Some(directory) = self.0.parent() {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
            made.map_err(self.failed("make the directory of"))?;
        }
        let mut options = OpenOptions::new();
        let lock = options.write(true).create(true).truncate(false).mode(0o600);
        let mut beside = self.0.as_os_str().to_owned();
        beside.push(".lock");
        let lock = lock.open(beside).map_err(self.failed("lock"))?;
        // It goes with the file descriptor.
        lock.lock().map_err(self.failed("lock"))?;
        let mut all = self.load()?;
        all.add(key, measurement, now);
        let content = Content { version: VERSION, exits: all.0 };
        let written = replace(&self.0, |out| Ok(serde_json::to_writer(out, &content)?));
        written.map_err(self.failed("write"))?;
        Ok(Measurements(content.exits))
    }

    fn failed(&self, doing: &'static str) -> impl FnOnce(io::Error) -> HistoryError + use<> {
        let path = self.0.clone();
        move |source| HistoryError::Io { doing, path, source }
    }
}

#[cfg(test)]
mod tests;
