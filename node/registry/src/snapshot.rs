//! The file that keeps the events over a restart: one line for each, with when it is forgotten. Every
//! signature is verified again when it is read, so a damaged or forged line is left out.

use std::{
    fs::File,
    io::{self, BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
};

use nostr::event::Event;
use weir_market::{event::MAX_EVENT_BYTES, replace::replace};

use crate::registry::Registry;

const HEADER: &str = "weir-registry 1";

/// Why a snapshot cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// A file operation failed.
    #[error(
        "cannot {doing} the snapshot {path}: {source}. Fix: make its directory, owned by the user \
         that runs the registry, or name another file with --snapshot; --snapshot \"\" keeps \
         listings in memory only"
    )]
    Io {
        /// The operation.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The file is something else.
    #[error("{0} is not a snapshot of a registry: name another file with --snapshot")]
    Other(PathBuf),
}

/// What was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Events that are stored again.
    pub events: usize,
    /// Lines that are not: expired, damaged, or against the rules of now.
    pub left_out: usize,
}

/// Reads the snapshot into the registry. A file that is not there has no events.
///
/// # Errors
///
/// When it cannot be read, or is not a snapshot.
pub fn read(path: &Path, registry: &Registry, now: u64) -> Result<Restored, SnapshotError> {
    let failed = |source| SnapshotError::Io { doing: "read", path: path.into(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Restored::default()),
        Err(error) => return Err(failed(error)),
    };
    let mut lines = BufReader::new(file).lines();
    match lines.next() {
        Some(Ok(line)) if line == HEADER => {}
        _ => return Err(SnapshotError::Other(path.into())),
    }
    let mut restored = Restored::default();
    for line in lines {
        let is_stored = line.is_ok_and(|line| restore(&line, registry, now).is_some());
        restored.events += usize::from(is_stored);
        restored.left_out += usize::from(!is_stored);
    }
    Ok(restored)
}

fn restore(line: &str, registry: &Registry, now: u64) -> Option<()> {
    let (until, json) = line.split_once(' ')?;
    if json.len() > MAX_EVENT_BYTES {
        return None;
    }
    let event = Event::from_json(json).ok()?;
    registry.restore(&event, until.parse().ok()?, now).ok()
}

/// Writes the snapshot, readable only by its owner. The old one stays until the new one is complete.
///
/// # Errors
///
/// When it cannot be written.
pub fn write(path: &Path, registry: &Registry) -> Result<usize, SnapshotError> {
    let failed = |source| SnapshotError::Io { doing: "write", path: path.into(), source };
    let events = registry.all();
    let written = replace(path, |out| {
        writeln!(out, "{HEADER}")?;
        // Oldest first, so that what is read later replaces what is read before.
        events.iter().rev().try_for_each(|record| writeln!(out, "{} {}", record.until, record.json))
    });
    written.map_err(failed)?;
    Ok(events.len())
}

#[cfg(test)]
mod tests;
