//! Network namespaces.

#![expect(unsafe_code, reason = "a thread leaves the network namespace of its process")]

use std::{
    fs::File,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    path::Path,
    process::Command,
    thread,
};

use anyhow::{Context as _, Result, anyhow};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

use crate::{
    command::{run, words},
    process,
};

/// A network namespace, held by its descriptor.
///
/// One without a name is gone with this value, or with the process that made it, however that
/// ends. One with a name can be looked into while a test runs (`ip netns exec`). It is removed when
/// this value is dropped, with the processes in it.
#[derive(Debug)]
pub struct Namespace {
    file: OwnedFd,
    /// Of a namespace that is removed on drop.
    name: Option<String>,
}

impl Namespace {
    /// Makes a namespace without a name, with its loopback interface up.
    ///
    /// # Errors
    /// Without root (CAP_SYS_ADMIN).
    pub fn new() -> Result<Self> {
        let namespace = Self::bare()?;
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// Makes a namespace without a name, in which nothing is up.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn bare() -> Result<Self> {
        let make = || {
            // SAFETY: only the network namespace is left, and only by this thread, which ends
            // here: no file descriptor or memory is unshared.
            unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.context(
                "cannot make a network namespace. Fix: run this as root (CAP_SYS_ADMIN)",
            )?;
            File::open("/proc/thread-self/ns/net").context("cannot open the network namespace")
        };
        let made = thread::scope(|scope| scope.spawn(make).join());
        let file = made.map_err(|_| anyhow!("a thread panicked"))??.into();
        Ok(Self { file, name: None })
    }

    /// Makes a namespace with a name and with its loopback interface up.
    ///
    /// # Errors
    /// If `ip netns add` fails, as it does without root.
    pub fn create(name: &str) -> Result<Self> {
        run(&mut words(&format!("ip netns add {name}")))?;
        let opened = Self::open(&Path::new("/run/netns").join(name));
        let mut namespace = opened.inspect_err(|_| Self::remove(name))?;
        namespace.name = Some(name.to_owned());
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// A namespace that somebody else has made, and removes: `/run/netns/NAME`, or the
    /// [`Self::path`] of another.
    ///
    /// # Errors
    /// If there is none.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        Ok(Self { file: file.into(), name: None })
    }

    /// Its name, as `ip netns` shows it; empty if it has none.
    #[must_use]
    pub fn name(&self) -> &str {
        self.name.as_deref().unwrap_or_default()
    }

    /// What `ip link ... netns` and `nsenter --net` take for it, while this process lives.
    #[must_use]
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd())
    }

    /// A command that will run in here. Only the network is the namespace's: unlike
    /// `ip netns exec`, this keeps the mounts, so that pinned maps can be found again.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path())).arg(program);
        command
    }

    /// Runs a line of words separated by spaces in here.
    ///
    /// # Errors
    /// As [`run`].
    pub fn run(&self, line: &str) -> Result<String> {
        self.enter(|| run(&mut words(line)))
    }

    /// Runs `ip` with a line of words separated by spaces in here.
    ///
    /// # Errors
    /// As [`run`].
    pub fn ip(&self, line: &str) -> Result<String> {
        self.run(&format!("ip {line}"))
    }

    /// Sets a variable below `/proc/sys/net` in here.
    ///
    /// # Errors
    /// As [`run`].
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let setting = format!("{key}={value}");
        self.enter(|| run(words("sysctl -q -w").arg(setting)))?;
        Ok(())
    }

    /// Writes an attribute of an interface in here, which only a sysfs that is mounted in this
    /// namespace shows.
    ///
    /// # Errors
    /// As [`run`].
    pub fn set_attribute(&self, interface: &str, attribute: &str, value: &str) -> Result<()> {
        let script = format!(
            "mount -t sysfs sysfs /sys && echo {value} > /sys/class/net/{interface}/{attribute}"
        );
        self.enter(|| run(words("unshare --mount sh -c").arg(script)))
            .with_context(|| format!("cannot set {interface} {attribute}"))?;
        Ok(())
    }

    /// Runs `action` on a thread that is in here. Sockets and processes that it makes stay in here,
    /// whoever uses them afterwards.
    ///
    /// # Errors
    /// If the namespace cannot be entered, or what `action` gives.
    pub fn enter<T: Send>(&self, action: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let inside = || {
            move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network))
                .context("cannot enter the network namespace. Fix: run this as root")?;
            action()
        };
        thread::scope(|scope| scope.spawn(inside).join())
            .map_err(|_| anyhow!("the thread in the namespace panicked"))?
    }

    /// Removes a namespace and all processes in it. One that is gone already is no error.
    pub fn remove(name: &str) {
        let ours = std::process::id().cast_signed();
        let pids = run(&mut words(&format!("ip netns pids {name}"))).unwrap_or_default();
        for pid in pids.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid != ours) {
            process::kill(pid);
        }
        run(&mut words(&format!("ip netns del {name}"))).ok();
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            Self::remove(name);
        }
    }
}
