//! Network namespaces: which one this is, and one for a single program.

#![expect(unsafe_code, reason = "a thread leaves the namespaces of its process")]

use std::{
    fs::{self, File},
    io,
    os::{fd::OwnedFd, unix::fs::MetadataExt as _},
    path::Path,
};

use anyhow::Context as _;
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// The number of this process's network namespace, unless it is the machine's own one.
#[must_use]
pub fn of_its_own() -> Option<u64> {
    let inode = |path: &str| fs::metadata(path).map(|file| file.ino());
    let (own, init) = (inode("/proc/self/ns/net").ok()?, inode("/proc/1/ns/net"));
    (init.ok() != Some(own)).then_some(own)
}

/// Whether a file is the machine's own one, as the first process sees it.
#[must_use]
pub fn is_machines(path: &Path) -> bool {
    let same = |one: fs::Metadata, other: fs::Metadata| {
        (one.dev(), one.ino()) == (other.dev(), other.ino())
    };
    let init = Path::new("/proc/1/root").join(path.strip_prefix("/").unwrap_or(path));
    match (fs::metadata(path), fs::metadata(init)) {
        (Ok(own), Ok(init)) => same(own, init),
        _ => false,
    }
}

/// Moves this thread into a new network namespace, in which nothing is up. What it opens or starts
/// from now on is in there.
///
/// # Errors
///
/// Without root.
pub fn leave_network() -> anyhow::Result<OwnedFd> {
    // SAFETY: only the network namespace is left, and only by this thread: no file descriptor or
    // memory is unshared.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }
        .context("cannot make a network namespace. Fix: run as root")?;
    Ok(File::open("/proc/thread-self/ns/net")?.into())
}

/// Gives this thread mounts of its own. What it mounts from now on is seen by it, and by the
/// programs that it starts.
///
/// # Errors
///
/// Without root.
pub fn leave_mounts() -> io::Result<()> {
    // SAFETY: only the mounts are left, with the working directory, and only by this thread: no file
    // descriptor or memory is unshared.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }?;
    Ok(())
}
