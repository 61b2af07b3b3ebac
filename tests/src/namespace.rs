//! Network namespaces with names.

use std::{fs::File, mem::ManuallyDrop, process::Command, thread};

use anyhow::{Context as _, Result, anyhow};
use rustix::{
    fd::AsFd as _,
    thread::{LinkNameSpaceType, move_into_link_name_space},
};

use crate::{
    command::{run, words},
    process,
};

/// A network namespace; it and the processes in it are gone when this is dropped.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes a namespace with its loopback interface up.
    ///
    /// # Errors
    /// If `ip netns add` fails, as it does without root.
    pub fn create(name: &str) -> Result<Self> {
        run(&mut words(&format!("ip netns add {name}")))?;
        let namespace = Self { name: name.to_owned() };
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// A namespace that somebody else has made, and removes.
    #[must_use]
    pub fn existing(name: &str) -> ManuallyDrop<Self> {
        ManuallyDrop::new(Self { name: name.to_owned() })
    }

    /// Its name, as `ip netns` shows it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A command that will run in here. Only the network is the namespace's: unlike
    /// `ip netns exec`, this keeps the mounts, so that pinned maps can be found again.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.name)).arg(program);
        command
    }

    /// Runs a line of words separated by spaces in here.
    ///
    /// # Errors
    /// As [`run`].
    pub fn run(&self, line: &str) -> Result<String> {
        let mut line = line.split_whitespace();
        run(self.command(line.next().context("no program")?).args(line))
    }

    /// Runs `ip` with a line of words separated by spaces in here.
    ///
    /// # Errors
    /// As [`run`].
    pub fn ip(&self, line: &str) -> Result<String> {
        run(&mut words(&format!("ip -n {} {line}", self.name)))
    }

    /// Sets a variable below `/proc/sys/net` in here.
    ///
    /// # Errors
    /// As [`run`].
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        run(self.command("sysctl").args(["-q", "-w"]).arg(format!("{key}={value}")))?;
        Ok(())
    }

    /// Writes an attribute of an interface in here, which only a mounted sysfs of this namespace
    /// shows.
    ///
    /// # Errors
    /// As [`run`].
    pub fn set_attribute(&self, interface: &str, attribute: &str, value: &str) -> Result<()> {
        let script = format!("echo {value} > /sys/class/net/{interface}/{attribute}");
        run(words(&format!("ip netns exec {} sh -c", self.name)).arg(script))?;
        Ok(())
    }

    /// Runs `action` on a thread that is in here. Sockets that it makes stay in here, whoever uses
    /// them afterwards.
    ///
    /// # Errors
    /// If the namespace cannot be entered, or what `action` gives.
    ///
    /// # Panics
    /// If `action` panics.
    pub fn enter<T: Send>(&self, action: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let path = format!("/run/netns/{}", self.name);
        let inside = || {
            let file = File::open(&path).with_context(|| format!("cannot open {path}"))?;
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                .with_context(|| format!("cannot enter {path}"))?;
            action()
        };
        thread::scope(|scope| scope.spawn(inside).join())
            .map_err(|_| anyhow!("the thread in {} panicked", self.name))?
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
        Self::remove(&self.name);
    }
}
