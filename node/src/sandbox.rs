//! Giving up what a running node does not need.
//!
//! Everything is prepared with the rights that the node was started with: TUN device, exit policy,
//! eBPF. Then, before the first thread that handles a packet, the process keeps three
//! capabilities, forbids itself new privileges, and puts Landlock (which files) and seccomp (which
//! system calls) around itself. Threads and programs that it starts inherit all of it. What is kept
//! is what a reload and a clean stop take.

mod capabilities;
mod files;
mod system_calls;
#[cfg(test)]
mod tests;

use std::{
    fs::DirBuilder,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use tracing::warn;

pub use self::files::AllowedPaths;
use weir_config::{Config, SandboxMode};
use weir_control::resolver::FileAccess;

/// What was put around the process, in words for the operator.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sandbox {
    /// Each layer that is in force.
    pub layers: Vec<String>,
    /// Each layer that is not, and why.
    pub missing: Vec<String>,
}

impl Sandbox {
    /// In one line.
    #[must_use]
    pub fn describe(&self) -> String {
        if self.layers.is_empty() && self.missing.is_empty() {
            return "off".into();
        }
        let missing = self.missing.iter().map(|why| format!("no {why}"));
        self.layers.iter().cloned().chain(missing).collect::<Vec<_>>().join("; ")
    }
}

/// Puts the sandbox around this thread and those that it starts. `mounted_bpffs` says that the node
/// has mounted a file system of its own, which it must unmount at the end: Landlock would forbid
/// that, and it takes CAP_SYS_ADMIN. `switches` are files of the kernel's that are written at the end
/// too.
///
/// # Errors
///
/// Fails when the configuration requires what cannot be had.
pub fn enter(
    config: &Config,
    file: Option<&Path>,
    switches: Vec<PathBuf>,
    mounted_bpffs: bool,
) -> anyhow::Result<Sandbox> {
    if config.node.sandbox == SandboxMode::Off {
        return Ok(Sandbox::default());
    }
    let mut sandbox = Sandbox::default();
    let mut layer = |done: anyhow::Result<String>, name: &str| match done {
        Ok(words) => sandbox.layers.push(words),
        Err(error) => sandbox.missing.push(format!("{name} ({error:#})")),
    };
    // A place must be there to be left within reach.
    let state = &config.node.state_dir;
    DirBuilder::new()
        .recursive(true)
        .mode(0o750)
        .create(state)
        .with_context(|| format!("cannot make {}", state.display()))?;
    // The group before the right to change it goes.
    if !config.api.socket_group.is_empty() {
        capabilities::join_group(&config.api.socket_group).with_context(|| {
            format!("cannot join the group {:?} of api.socket_group", config.api.socket_group)
        })?;
    }
    layer(capabilities::keep(mounted_bpffs), "dropped capabilities");
    layer(capabilities::no_new_privileges(), "ban on new privileges");
    let landlock = if mounted_bpffs {
        Err(anyhow::anyhow!(
            "weir has mounted a bpffs and must unmount it; mount -t bpf bpf /sys/fs/bpf"
        ))
    } else {
        let mut allowed = AllowedPaths::new(config, file);
        allowed.write.extend(switches);
        for file in &allowed.fixed {
            warn!(
                "if {} is replaced, weir cannot read it until it is restarted. Fix: keep \
                 it in its own directory, such as /etc/weir",
                file.display()
            );
        }
        files::restrict(&allowed)
    };
    layer(landlock, "Landlock");
    layer(system_calls::restrict(mounted_bpffs), "seccomp");
    if config.node.sandbox == SandboxMode::Required
        && let Some(missing) = sandbox.missing.first()
    {
        bail!(
            "node.sandbox is \"required\", but {missing} is missing. Fix: set it to \"auto\", \
             which does without"
        );
    }
    Ok(sandbox)
}

/// Puts a narrower sandbox around this process, which looks names up for a node: it becomes nobody,
/// has no capability, and may read what that takes. Where a layer cannot be had it does without.
pub fn enter_resolver() -> FileAccess {
    // To nobody, what is secret in /etc is so by its permissions. Its owner reads it.
    let access = match capabilities::become_nobody() {
        Ok(()) => FileAccess::All,
        Err(_) => FileAccess::Existing,
    };
    drop(capabilities::drop_all());
    drop(capabilities::no_new_privileges());
    drop(files::restrict(&AllowedPaths::of_resolver(access)));
    drop(system_calls::restrict(false));
    access
}
