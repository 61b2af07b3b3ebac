//! What is known of a connection outside its process: a lock that says whether it runs, and a file
//! that says what it does.

use std::{
    fs::{self, File, OpenOptions},
    io::{Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use rustix::{
    fs::{FlockOperation, flock},
    process::Pid,
};
use serde::{Deserialize, Serialize};

use crate::{namespace, receipt::Verified};

/// Where connections keep what need not survive a reboot.
const DIRECTORY: &str = "/run/weir-connect";

/// A connection, as `weir connect --status` shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// What it is doing.
    pub state: State,
    /// The candidate: a file, or the name of a node.
    pub node: Option<String>,
    /// The node's address and port.
    pub endpoint: Option<String>,
    /// The interface.
    pub interface: Option<String>,
    /// Which WireGuard.
    pub engine: Option<String>,
    /// The country that the node says it is in.
    pub country: Option<String>,
    /// The node through which this one is reached, with its address and port.
    pub entry: Option<Entry>,
    /// When it was connected, in seconds since 1970.
    pub since: Option<u64>,
    /// Bytes from this node, as `wg show` counts.
    pub received: u64,
    /// Bytes to this node.
    pub sent: u64,
    /// When these bytes were counted, in milliseconds since 1970.
    pub counted_ms: Option<u64>,
    /// Bytes that are left at this node; `None` if it does not say, or has no limit.
    pub left_bytes: Option<u64>,
    /// Seconds that are left at this node; `None` if it does not say, or has no limit.
    pub left_seconds: Option<u64>,
    /// Bytes that the node has billed; `None` if it does not say.
    pub billed_bytes: Option<u64>,
    /// The last usage receipt of this node, verified.
    pub receipt: Option<Verified>,
    /// What was paid, if anything may be.
    pub money: Option<Money>,
    /// Packets that the table has dropped since it was last loaded.
    pub dropped: Option<u64>,
    /// Why the node before was left.
    pub last_change: Option<String>,
}

/// The node through which the exits are reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The candidate: a file, or the name of a node.
    pub node: String,
    /// The node's address and port.
    pub endpoint: String,
}

/// What a connection has paid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Money {
    /// The unit: `sat`, or `vouchers`.
    pub unit: String,
    /// What was paid so far.
    pub spent: u64,
    /// The most that is paid in all.
    pub budget: u64,
}

/// What a connection is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Nothing is closed and no tunnel is up.
    #[default]
    Off,
    /// No tunnel is up, and nothing leaves.
    Closed,
    /// It tries nodes. Nothing leaves.
    Connecting,
    /// Everything leaves by the tunnel.
    Connected,
}

impl State {
    /// In a word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Closed => "closed",
            Self::Connecting => "connecting",
            Self::Connected => "connected",
        }
    }
}

/// The directory of the connection in this network namespace.
#[derive(Clone, Debug)]
pub struct Directory(PathBuf);

impl Directory {
    /// That of the network namespace of this process.
    #[must_use]
    pub fn here() -> Self {
        let base = Path::new(DIRECTORY);
        Self(match namespace::of_its_own() {
            None => base.to_owned(),
            Some(number) => base.join(format!("netns-{number}")),
        })
    }

    /// A directory of a test.
    #[cfg(test)]
    pub(crate) fn at(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// A file in it.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Takes the lock, which this process keeps as long as the answer lives. The answer is the
    /// holder's process id if another has it.
    ///
    /// # Errors
    ///
    /// Without root.
    pub fn lock(&self) -> anyhow::Result<Result<Lock, i32>> {
        let make = fs::DirBuilder::new().recursive(true).mode(0o755).create(&self.0);
        make.with_context(|| format!("cannot make {}. Fix: run as root", self.0.display()))?;
        let path = self.file("lock");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o644)
            .open(&path)
            .with_context(|| format!("cannot open {}. Fix: run as root", path.display()))?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Ok(Err(read_pid(&mut file)));
        }
        file.set_len(0)?;
        file.write_all(std::process::id().to_string().as_bytes())?;
        Ok(Ok(Lock(file)))
    }

    /// The process that holds the lock.
    #[must_use]
    pub fn holder(&self) -> Option<Pid> {
        let mut file = File::open(self.file("lock")).ok()?;
        // A lock that can be had is held by nobody.
        match flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => None,
            Err(_) => Pid::from_raw(read_pid(&mut file)),
        }
    }

    /// Writes what the connection does, in one step.
    ///
    /// # Errors
    ///
    /// When the disk is full.
    pub fn write(&self, status: &Status) -> anyhow::Result<()> {
        let (path, new) = (self.file("status.json"), self.file("status.json.new"));
        let text = serde_json::to_vec(status)?;
        fs::write(&new, text).and_then(|()| fs::rename(&new, &path)).context("cannot write status")
    }

    /// What the connection last wrote.
    #[must_use]
    pub fn read(&self) -> Option<Status> {
        serde_json::from_slice(&fs::read(self.file("status.json")).ok()?).ok()
    }

    /// Removes everything but the lock, which others may hold open.
    pub fn clear(&self) {
        for name in ["status.json", "status.json.new", "log"] {
            fs::remove_file(self.file(name)).ok();
        }
    }
}

/// The right to be the connection of a network namespace.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "holds the lock while it lives")] File);

fn read_pid(file: &mut File) -> i32 {
    let mut text = String::new();
    match file.read_to_string(&mut text) {
        Ok(_) => text.trim().parse().unwrap_or(0),
        Err(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_connection_is_told_who_has_the_lock() {
        let directory = tempfile::tempdir().expect("a directory");
        let here = Directory::at(&directory.path().join("new"));
        assert!(here.holder().is_none(), "no directory yet");
        let lock = here.lock().expect("it can be made").expect("nobody has it");
        let own = std::process::id().cast_signed();
        assert_eq!(here.lock().expect("it is there").err(), Some(own));
        assert_eq!(here.holder().map(|pid| pid.as_raw_nonzero().get()), Some(own));
        drop(lock);
        assert!(here.holder().is_none());
        assert!(here.lock().expect("it is there").is_ok());
    }

    #[test]
    fn a_status_reads_back() {
        let directory = tempfile::tempdir().expect("a directory");
        let here = Directory::at(directory.path());
        assert_eq!(here.read(), None);
        let status = Status { state: State::Connected, received: 7, ..Status::default() };
        here.write(&status).expect("it is written");
        assert_eq!(here.read(), Some(status));
        here.clear();
        assert_eq!(here.read(), None);
    }
}
