//! Labs wait for each other: namespaces full of traffic must not all run at once on a small
//! machine, whether they belong to one test binary, to several, or to a demo beside them.

use std::{fs, os::fd::OwnedFd, thread};

use anyhow::{Context as _, Result};
use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};

const DIRECTORY: &str = "/run/weir-tests";

/// The right to run one lab; given back when dropped, and by the kernel when the process dies.
#[derive(Debug)]
pub struct LabLock(#[expect(dead_code, reason = "holds the lock while it lives")] OwnedFd);

impl LabLock {
    /// Waits for one of the locks, of which there are as many as the machine has processors.
    ///
    /// # Errors
    /// If the lock files cannot be made.
    pub fn wait() -> Result<Self> {
        fs::create_dir_all(DIRECTORY).with_context(|| format!("cannot make {DIRECTORY}"))?;
        let locks = thread::available_parallelism()?.get();
        loop {
            for number in 0..locks {
                let path = format!("{DIRECTORY}/lock-{number}");
                let file = open(&path, OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC, Mode::RUSR)
                    .with_context(|| format!("cannot open {path}"))?;
                if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
                    return Ok(Self(file));
                }
            }
            thread::sleep(std::time::Duration::from_millis(100));
        }
    }
}
