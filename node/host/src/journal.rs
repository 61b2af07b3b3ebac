//! The undo journal: the changes to this machine, each written to a file before it is made, so that
//! they can be undone after the process has been killed. How they are undone is in [`super::undo`].

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

use super::deferral::Deferral;

const FILE: &str = "changes.json";
/// The second copy: the runtime directory may be gone before the changes are, with a container's
/// file systems or after a unit has failed.
const COPY: &str = "host-changes.json";
const LOCK: &str = "lock";

/// The time that a child of this process may take between fork and exec, during which it holds the
/// lock.
const CHILD_EXEC_TIMEOUT: Duration = Duration::from_secs(2);

/// One change, with what undoes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Change {
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
    /// Ports were reserved, in addition to those of others.
    ReservedPorts {
        /// The first.
        first: u16,
        /// The last.
        last: u16,
        /// Those of them that were reserved before.
        before: String,
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
    /// An interface's interrupts were put off.
    Deferral {
        /// The interface.
        interface: String,
        /// How long they waited before.
        old: Deferral,
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
            (Self::Deferral { interface: one, .. }, Self::Deferral { interface: two, .. }) => {
                one == two
            }
            (
                Self::ReservedPorts { first: one, last: a, .. },
                Self::ReservedPorts { first: two, last: b, .. },
            ) => one == two && a == b,
            (one, two) => one == two,
        }
    }

    /// Whether it reserved these ports, and no others.
    fn reserved(&self, ports: (u16, u16)) -> bool {
        matches!(self, Self::ReservedPorts { first, last, .. } if (*first, *last) == ports)
    }
}

/// Why the undo journal cannot be kept.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JournalError {
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

/// The journal as it is on disk.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Written {
    /// The boot of the machine and the network namespace that the changes are of. In another one,
    /// what they name is gone or belongs to another program.
    #[serde(rename = "place")]
    scope: String,
    changes: Vec<Change>,
}

/// All changes that are not undone: those of this run, and those that an earlier run left.
#[derive(Debug)]
pub(crate) struct UndoJournal {
    directory: PathBuf,
    /// Where the second copy is.
    copy: Option<PathBuf>,
    scope: String,
    /// Of a run that did not stop cleanly, unless this run has made them as well.
    recovered: Vec<Change>,
    /// Of this run, in the order in which they were made.
    applied: Vec<Change>,
    /// The lock on the directory lasts as long as this is open.
    _lock: File,
    /// The lock on the network namespace, where there can be one exit policy.
    _namespace: UnixDatagram,
}

impl UndoJournal {
    /// Takes the directory, and what an earlier run has left there. A second copy of the list is
    /// kept in `state`, and read when the first one is gone.
    ///
    /// # Errors
    ///
    /// Fails when another node has the directory, or it cannot be written.
    pub(crate) fn open(directory: &Path, state: Option<&Path>) -> Result<Self, JournalError> {
        let failed = |source| JournalError::Io { path: directory.to_owned(), source };
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
        let end = Instant::now() + CHILD_EXEC_TIMEOUT;
        while flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            let pid = holder();
            // A program that this process is starting has its files until it runs.
            let is_own = pid.as_deref() == Some(&std::process::id().to_string());
            if !is_own || Instant::now() >= end {
                // In a container each node is process 1, which is another process outside.
                let pid = pid.filter(|pid| pid != "1");
                return Err(JournalError::InUse { path: directory.to_owned(), pid });
            }
            thread::sleep(Duration::from_millis(5));
        }
        lock.set_len(0).map_err(failed)?;
        writeln!(lock, "{}", std::process::id()).map_err(failed)?;
        // Names without a file belong to the network namespace.
        let namespace = SocketAddr::from_abstract_name(b"weir exit policy")
            .and_then(|name| UnixDatagram::bind_addr(&name))
            .map_err(|error| match error.kind() {
                io::ErrorKind::AddrInUse => JournalError::NotAlone,
                _ => failed(error),
            })?;
        let scope = scope().map_err(failed)?;
        let copy = state.map(|state| state.join(COPY));
        let mut recovered = read(&directory.join(FILE), &scope).map_err(failed)?;
        if let (None, Some(copy)) = (&recovered, &copy) {
            recovered = read(copy, &scope).map_err(failed)?;
        }
        let recovered = recovered.unwrap_or_default();
        Ok(Self {
            directory: directory.to_owned(),
            copy,
            scope,
            recovered,
            applied: Vec::new(),
            _lock: lock,
            _namespace: namespace,
        })
    }

    /// Whether an earlier run left changes.
    #[must_use]
    pub(crate) fn has_recovered(&self) -> bool {
        !self.recovered.is_empty()
    }

    /// The interfaces that an earlier run made and could not remove.
    pub(super) fn recovered_links(&self) -> Vec<String> {
        let name = |change: &Change| match change {
            Change::Link { name } => Some(name.clone()),
            _ => None,
        };
        self.recovered.iter().filter_map(name).collect()
    }

    /// Whether this parameter was changed by this run or the one before.
    pub(super) fn has_sysctl(&self, wanted: &str) -> bool {
        self.sysctl(wanted).is_some()
    }

    /// Of a parameter that this run or the one before changed: the old value, and the new one
    /// unless the old one comes back in any case.
    pub(super) fn sysctl(&self, wanted: &str) -> Option<(&str, Option<&str>)> {
        self.recovered.iter().chain(&self.applied).find_map(|change| match change {
            Change::Sysctl { parameter, old, set } if parameter == wanted => {
                Some((old.as_str(), set.as_deref()))
            }
            _ => None,
        })
    }

    /// Whether an earlier run changed this offload.
    pub(super) fn has_recovered_feature(&self, of: &str, name: &str) -> bool {
        let same = |change: &Change| {
            matches!(change, Change::Feature { interface, feature, .. }
                if interface == of && feature == name)
        };
        self.recovered.iter().any(same)
    }

    /// Whether an earlier run reserved these ports.
    pub(super) fn has_recovered_ports(&self, ports: (u16, u16)) -> bool {
        self.recovered.iter().any(|change| change.reserved(ports))
    }

    /// Takes out what an earlier run reserved of other ports than these.
    pub(super) fn take_recovered_ports(&mut self, but: (u16, u16)) -> Vec<Change> {
        let of_others = |change: &mut Change| {
            matches!(change, Change::ReservedPorts { .. }) && !change.reserved(but)
        };
        self.recovered.extract_if(.., of_others).collect()
    }

    /// The offloads that this run has turned on, with the interface of each.
    pub(super) fn turned_on(&self) -> impl Iterator<Item = (&str, &str)> {
        self.applied.iter().filter_map(|change| match change {
            Change::Feature { interface, feature, old: false } => {
                Some((interface.as_str(), feature.as_str()))
            }
            _ => None,
        })
    }

    /// Takes out the changes that an earlier run left and this one did not make again, for them to
    /// be undone. What the file says stays as it is until [`keep`](Self::keep).
    pub(crate) fn take_recovered(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.recovered)
    }

    /// Takes out all changes, as [`take_recovered`](Self::take_recovered) does.
    pub(crate) fn take_all(&mut self) -> Vec<Change> {
        let mut all = self.take_recovered();
        all.append(&mut self.applied);
        all
    }

    /// Puts back the changes that could not be undone, for the next run, and writes the file.
    pub(crate) fn keep(&mut self, changes: Vec<Change>) -> io::Result<()> {
        self.recovered = changes;
        self.write()
    }

    /// The directory of the file.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Writes a change down, which the caller makes next. Of a thing that was changed before,
    /// the first old value stays.
    ///
    /// # Errors
    ///
    /// Fails when it cannot be written: then the change must not be made.
    pub(crate) fn record(&mut self, change: Change) -> io::Result<()> {
        if self.applied.iter().any(|applied| applied.same_thing(&change)) {
            return Ok(());
        }
        let earlier = self.recovered.iter().position(|recovered| recovered.same_thing(&change));
        let change = match (earlier.map(|index| self.recovered.remove(index)), change) {
            (
                Some(Change::Sysctl { old, set: before, .. }),
                Change::Sysctl { parameter, set, .. },
            ) => {
                // What must come back in any case still must.
                Change::Sysctl { parameter, old, set: before.and(set) }
            }
            (Some(earlier), _) => earlier,
            (None, change) => change,
        };
        self.applied.push(change);
        self.write()
    }

    fn write(&self) -> io::Result<()> {
        let changes: Vec<Change> = self.recovered.iter().chain(&self.applied).cloned().collect();
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
        let written = Written { scope: self.scope.clone(), changes: changes.to_vec() };
        let text = serde_json::to_vec_pretty(&written)?;
        // A process that is killed while it writes leaves the previous list.
        let new = path.with_extension("json.new");
        fs::write(&new, text)?;
        fs::rename(new, path)
    }
}

/// The changes in a file; `None` if there is no file, or it is of another scope.
fn read(path: &Path, scope: &str) -> io::Result<Option<Vec<Change>>> {
    let text = match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        text => text?,
    };
    match serde_json::from_str::<Written>(&text) {
        Ok(written) if written.scope == scope => Ok(Some(written.changes)),
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

/// Names this boot of the machine and this network namespace.
fn scope() -> io::Result<String> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let namespace = fs::metadata("/proc/thread-self/ns/net")?;
    Ok(format!("{} {}:{}", boot.trim(), namespace.dev(), namespace.ino()))
}
