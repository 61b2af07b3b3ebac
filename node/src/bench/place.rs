//! Network namespaces that are gone with the process that made them, however it ends.

#![expect(unsafe_code, reason = "a thread leaves the network namespace of its process")]

use std::{
    fs::File,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    path::Path,
    process::{Command, Stdio},
    thread,
};

use anyhow::{Context as _, anyhow, ensure};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

/// A network namespace, held by its descriptor.
#[derive(Debug)]
pub struct Place(OwnedFd);

impl Place {
    /// Makes a namespace without a name, with its loopback interface up.
    ///
    /// # Errors
    ///
    /// Fails without root (CAP_SYS_ADMIN).
    pub fn new() -> anyhow::Result<Self> {
        let place = Self::bare()?;
        place.ip("link set lo up")?;
        Ok(place)
    }

    /// Makes a namespace without a name, in which nothing is up.
    ///
    /// # Errors
    ///
    /// As [`Self::new`].
    pub fn bare() -> anyhow::Result<Self> {
        let make = || {
            // SAFETY: only the network namespace is left, and only by this thread, which ends
            // here: no file descriptor or memory is unshared.
            unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.context(
                "cannot make a network namespace. Fix: run this as root (CAP_SYS_ADMIN)",
            )?;
            File::open("/proc/thread-self/ns/net").context("cannot open the network namespace")
        };
        let made = thread::scope(|scope| scope.spawn(make).join());
        Ok(Self(made.map_err(|_| anyhow!("a thread panicked"))??.into()))
    }

    /// A namespace with a name, such as `/run/netns/NAME`.
    ///
    /// # Errors
    ///
    /// Fails when there is none.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        Ok(Self(file.into()))
    }

    /// What `ip link ... netns` takes for it, while this process lives.
    #[must_use]
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }

    /// Runs `action` on a thread in here. Sockets and processes that it makes stay in here.
    ///
    /// # Errors
    ///
    /// Fails when the namespace cannot be entered, or as `action` does.
    pub fn enter<T: Send>(
        &self,
        action: impl FnOnce() -> anyhow::Result<T> + Send,
    ) -> anyhow::Result<T> {
        let inside = || {
            move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network))
                .context("cannot enter the network namespace. Fix: run this as root")?;
            action()
        };
        thread::scope(|scope| scope.spawn(inside).join())
            .map_err(|_| anyhow!("a thread panicked"))?
    }

    /// Runs a line of words in here.
    ///
    /// # Errors
    ///
    /// Fails when the program is missing or fails; says what it wrote.
    pub fn run(&self, line: &str) -> anyhow::Result<()> {
        self.enter(|| {
            let mut words = line.split_whitespace();
            let mut command = Command::new(words.next().context("an empty line")?);
            let output = command.args(words).stdin(Stdio::null()).output();
            let output = output.with_context(|| format!("cannot start: {line}"))?;
            let said = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.success(), "{line}: {}: {}", output.status, said.trim());
            Ok(())
        })
    }

    /// Runs `ip` with a line of words in here.
    ///
    /// # Errors
    ///
    /// As [`Self::run`].
    pub fn ip(&self, line: &str) -> anyhow::Result<()> {
        self.run(&format!("ip {line}"))
    }
}
