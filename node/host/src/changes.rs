//! What has been changed on this machine: written down before it is done, so that it can be undone
//! also after the process has been killed.

use std::{
    fs::{self, DirBuilder, File},
    io::{self, Write as _},
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            fs::{DirBuilderExt as _, MetadataExt as _},
            net::{SocketAddr, UnixDatagram},
        },
    },
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::{ethtool, link, nft, sysctl};

const FILE: &str = "changes.json";
/// The second copy: the runtime directory may be gone before the changes are, with a container's
/// file systems or after a unit has failed.
const COPY: &str = "host-changes.json";
const LOCK: &str = "lock";

/// How long a program takes from the moment at which it is made to that at which it runs.
const OWN_CHILDREN: Duration = Duration::from_secs(2);

/// One change, with what undoes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Change {
    /// A kernel parameter.
    Sysctl {
        /// Its path below /proc/sys.
        parameter: String,
        /// Its value before.
        old: String,
        /// The value that weir gave it: when it has another by now, somebody else's wish counts.
        /// Without one, the old value comes back in any case.
        set: Option<String>,
    },
    /// An interface's offload.
    Feature {
        /// The interface.
        interface: String,
        /// The name that `ethtool -k` shows, or the kernel's for it.
        feature: String,
        /// Whether it was on before.
        old: bool,
    },
    /// The exit policy was installed.
    Policy,
    /// An interface was made.
    Link {
        /// Its name.
        name: String,
    },
    /// A file or directory was made, or something pinned in a file system of the kernel's.
    File {
        /// Where.
        path: PathBuf,
    },
}

impl Change {
    /// Whether both change the same thing.
    fn same_thing(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Sysctl { parameter: one, .. }, Self::Sysctl { parameter: two, .. }) => {
                one == two
            }
            (
                Self::Feature { interface: one, feature: a, .. },
                Self::Feature { interface: two, feature: b, .. },
            ) => one == two && a == b,
            (one, two) => one == two,
        }
    }

    fn undo(&self) -> Result<(), String> {
        match self {
            Self::Sysctl { parameter, old, set } => undo_sysctl(parameter, old, set.as_deref()),
            Self::Feature { interface, feature, old } => {
                match ethtool::set_feature(interface, feature, *old) {
                    Err(error) if error.raw_os_error() != Some(libc::ENODEV) => {
                        let state = if *old { "on" } else { "off" };
                        Err(format!("cannot turn {feature} of {interface} {state}: {error}"))
                    }
                    _ => Ok(()),
                }
            }
            Self::Policy => nft::remove().map_err(|error| error.to_string()),
            Self::Link { name } => link::remove(name)
                .map_err(|error| format!("cannot remove the interface {name}: {error}")),
            Self::File { path } => {
                let removed =
                    if path.is_dir() { fs::remove_dir(path) } else { fs::remove_file(path) };
                match removed {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        Err(format!("cannot remove {}: {error}", path.display()))
                    }
                    _ => Ok(()),
                }
            }
        }
    }
}

fn undo_sysctl(parameter: &str, old: &str, set: Option<&str>) -> Result<(), String> {
    let now = match sysctl::read(parameter) {
        // The interface that it belonged to is gone.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        now => now.map_err(|error| format!("cannot read /proc/sys/{parameter}: {error}"))?,
    };
    if now == old || set.is_some_and(|set| set != now) {
        return Ok(());
    }
    if set.is_some() && sysctl::is_forwarding_everywhere_since(parameter) {
        return Ok(());
    }
    sysctl::write(parameter, old).map_err(|error| format!("cannot undo a change: {error}"))
}

/// Why the list of changes cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum ChangesError {
    /// Another node has it.
    #[error(
        "another weir{} runs with {}. Fix: stop that one, or give this one its own runtime_dir, \
         interface and port.",
        pid.as_ref().map(|pid| format!(" (process {pid})")).unwrap_or_default(), path.display()
    )]
    InUse {
        /// The directory.
        path: PathBuf,
        /// The other's process id.
        pid: Option<String>,
    },
    /// Another node has the namespace.
    #[error(
        "another weir runs on this machine with another runtime_dir, and there can be only one \
         exit policy. Fix: stop that one, or start this one in a network namespace."
    )]
    NotAlone,
    /// The directory or a file in it cannot be written.
    #[error(
        "cannot write to {}: {source}. Fix: set node.runtime_dir to a directory that weir can \
         write to.", path.display()
    )]
    Io {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The changes as they are on disk. `place` tells whether they are of this machine's current run
/// and of this network namespace; otherwise what they name is gone, or somebody else's.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Written {
    place: String,
    changes: Vec<Change>,
}

/// All changes that stand, of this run and those that an earlier one left.
#[derive(Debug)]
pub struct Changes {
    directory: PathBuf,
    /// Where the second copy is.
    copy: Option<PathBuf>,
    place: String,
    /// Of a run that did not end cleanly, and not yet made by this one as well.
    left: Vec<Change>,
    /// Of this run, in the order in which they were made.
    made: Vec<Change>,
    /// The lock on the directory lasts as long as this is open.
    _lock: File,
    /// The lock on the network namespace, where there can be one exit policy.
    _namespace: UnixDatagram,
}

impl Changes {
    /// Takes the directory, and what an earlier run has left there. A second copy of the list is
    /// kept in `state`, and read when the first one is gone.
    ///
    /// # Errors
    ///
    /// Fails when another node has the directory, or it cannot be written.
    pub fn open(directory: &Path, state: Option<&Path>) -> Result<Self, ChangesError> {
        let failed = |source| ChangesError::Io { path: directory.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o755).create(directory).map_err(failed)?;
        let mut lock = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(directory.join(LOCK))
            .map_err(failed)?;
        let holder = || {
            let pid = fs::read_to_string(directory.join(LOCK)).ok();
            pid.map(|pid| pid.trim().to_owned()).filter(|pid| !pid.is_empty())
        };
        let end = Instant::now() + OWN_CHILDREN;
        while flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            let pid = holder();
            // A program that this process is starting has its files until it runs.
            let is_own = pid.as_deref() == Some(&std::process::id().to_string());
            if !is_own || Instant::now() >= end {
                // In a container each node is process 1, which is another process outside.
                let pid = pid.filter(|pid| pid != "1");
                return Err(ChangesError::InUse { path: directory.to_owned(), pid });
            }
            thread::sleep(Duration::from_millis(5));
        }
        lock.set_len(0).map_err(failed)?;
        writeln!(lock, "{}", std::process::id()).map_err(failed)?;
        // Names without a file belong to the network namespace.
        let namespace = SocketAddr::from_abstract_name(b"weir exit policy")
            .and_then(|name| UnixDatagram::bind_addr(&name))
            .map_err(|error| match error.kind() {
                io::ErrorKind::AddrInUse => ChangesError::NotAlone,
                _ => failed(error),
            })?;
        let place = place().map_err(failed)?;
        let copy = state.map(|state| state.join(COPY));
        let mut left = read(&directory.join(FILE), &place).map_err(failed)?;
        if let (None, Some(copy)) = (&left, &copy) {
            left = read(copy, &place).map_err(failed)?;
        }
        let left = left.unwrap_or_default();
        Ok(Self {
            directory: directory.to_owned(),
            copy,
            place,
            left,
            made: Vec::new(),
            _lock: lock,
            _namespace: namespace,
        })
    }

    /// Whether an earlier run left changes.
    #[must_use]
    pub fn has_left(&self) -> bool {
        !self.left.is_empty()
    }

    /// The interfaces that an earlier run made and could not remove.
    pub(super) fn left_links(&self) -> Vec<String> {
        let name = |change: &Change| match change {
            Change::Link { name } => Some(name.clone()),
            _ => None,
        };
        self.left.iter().filter_map(name).collect()
    }

    /// Whether this parameter was changed by this run or the one before.
    pub(super) fn has_sysctl(&self, wanted: &str) -> bool {
        self.sysctl(wanted).is_some()
    }

    /// Of a parameter that this run or the one before changed: the old value, and the new one
    /// unless the old one comes back in any case.
    pub(super) fn sysctl(&self, wanted: &str) -> Option<(&str, Option<&str>)> {
        self.left.iter().chain(&self.made).find_map(|change| match change {
            Change::Sysctl { parameter, old, set } if parameter == wanted => {
                Some((old.as_str(), set.as_deref()))
            }
            _ => None,
        })
    }

    /// Whether an earlier run changed this offload.
    pub(super) fn has_left_feature(&self, of: &str, name: &str) -> bool {
        let same = |change: &Change| {
            matches!(change, Change::Feature { interface, feature, .. }
                if interface == of && feature == name)
        };
        self.left.iter().any(same)
    }

    /// The offloads that this run has turned on, with the interface of each.
    pub(super) fn turned_on(&self) -> impl Iterator<Item = (&str, &str)> {
        self.made.iter().filter_map(|change| match change {
            Change::Feature { interface, feature, old: false } => {
                Some((interface.as_str(), feature.as_str()))
            }
            _ => None,
        })
    }

    /// Writes a change down, which the caller makes next. Of a thing that was changed before,
    /// the first old value stays.
    ///
    /// # Errors
    ///
    /// Fails when it cannot be written: then the change must not be made.
    pub fn record(&mut self, change: Change) -> io::Result<()> {
        if self.made.iter().any(|made| made.same_thing(&change)) {
            return Ok(());
        }
        let left = self.left.iter().position(|left| left.same_thing(&change));
        let change = match (left.map(|index| self.left.remove(index)), change) {
            (
                Some(Change::Sysctl { old, set: before, .. }),
                Change::Sysctl { parameter, set, .. },
            ) => {
                // What must come back in any case still must.
                Change::Sysctl { parameter, old, set: before.and(set) }
            }
            (Some(left), _) => left,
            (None, change) => change,
        };
        self.made.push(change);
        self.write()
    }

    /// Undoes what an earlier run left and this one did not make again.
    ///
    /// # Errors
    ///
    /// Says what could not be undone; that stays on the list.
    pub fn undo_left(&mut self) -> Result<(), Vec<String>> {
        let (left, errors) = undo(std::mem::take(&mut self.left));
        self.left = left;
        self.settle(errors)
    }

    /// Undoes all changes, the last one first. Files may be kept for the next run: when this one
    /// fails, the counters that are pinned in them must outlive it.
    ///
    /// # Errors
    ///
    /// Says what could not be undone; that stays on the list for the next run.
    pub fn undo_all(&mut self, keep_files: bool) -> Result<(), Vec<String>> {
        let mut all = std::mem::take(&mut self.left);
        all.append(&mut self.made);
        let is_kept = |change: &Change| keep_files && matches!(change, Change::File { .. });
        let (mut kept, all): (Vec<_>, Vec<_>) = all.into_iter().partition(is_kept);
        let (left, errors) = undo(all);
        kept.extend(left);
        self.left = kept;
        self.settle(errors)
    }

    fn settle(&self, mut errors: Vec<String>) -> Result<(), Vec<String>> {
        if let Err(error) = self.write() {
            errors.push(format!("cannot write {}: {error}", self.directory.display()));
        }
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    fn write(&self) -> io::Result<()> {
        let changes: Vec<Change> = self.left.iter().chain(&self.made).cloned().collect();
        if let Some(copy) = &self.copy
            && let Err(error) = self.write_to(copy, &changes)
        {
            // The first copy is enough, unless the runtime directory goes.
            tracing::warn!(
                file = %copy.display(),
                %error,
                "cannot write a second copy of the list of changes"
            );
        }
        self.write_to(&self.directory.join(FILE), &changes)
    }

    fn write_to(&self, path: &Path, changes: &[Change]) -> io::Result<()> {
        if changes.is_empty() {
            return match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            };
        }
        if let Some(directory) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o750).create(directory)?;
        }
        let written = Written { place: self.place.clone(), changes: changes.to_vec() };
        let text = serde_json::to_vec_pretty(&written)?;
        // Whoever is killed while writing leaves the list before this one.
        let new = path.with_extension("json.new");
        fs::write(&new, text)?;
        fs::rename(new, path)
    }
}

/// Undoes changes, the last one first; gives back those that could not be, and why.
fn undo(changes: Vec<Change>) -> (Vec<Change>, Vec<String>) {
    let mut errors = Vec::new();
    let mut left = Vec::new();
    for change in changes.into_iter().rev() {
        if let Err(error) = change.undo() {
            errors.push(error);
            left.push(change);
        }
    }
    left.reverse();
    (left, errors)
}

/// What a file says of this place; `None` if there is no file, or it is of another place.
fn read(path: &Path, place: &str) -> io::Result<Option<Vec<Change>>> {
    let text = match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        text => text?,
    };
    match serde_json::from_str::<Written>(&text) {
        Ok(written) if written.place == place => Ok(Some(written.changes)),
        Ok(_) => Ok(None),
        Err(error) => {
            let aside = path.with_extension("json.broken");
            tracing::warn!(
                file = %aside.display(),
                %error,
                "cannot read the list of changes of an earlier run; it was moved aside"
            );
            fs::rename(path, aside)?;
            Ok(None)
        }
    }
}

/// This run of the machine, and this network namespace.
fn place() -> io::Result<String> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let namespace = fs::metadata("/proc/thread-self/ns/net")?;
    Ok(format!("{} {}:{}", boot.trim(), namespace.dev(), namespace.ino()))
}
