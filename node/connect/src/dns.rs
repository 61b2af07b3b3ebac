//! The machine's resolver while a tunnel is up.
//!
//! systemd-resolved gets the tunnel's resolvers for the tunnel's interface, and forgets them with the
//! interface. Without it, `/etc/resolv.conf` is replaced. The file before is kept first, so that it
//! comes back after a crash too. Whatever happens here, the closed table drops DNS beside the tunnel.

use std::{
    fs, io,
    net::IpAddr,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, ensure};

use crate::{namespace, state::Directory};

const RESOLV_CONF: &str = "/etc/resolv.conf";
/// The first line of our file.
const HEADING: &str = "# Written by weir connect. weir disconnect brings back the file before.\n";

/// How names are resolved while the tunnel is up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dns {
    /// systemd-resolved asks the tunnel's resolvers.
    Resolved,
    /// A file is replaced.
    File(ResolvConf),
    /// Nothing is changed: this namespace shares the file with the machine.
    Shared,
}

impl Dns {
    /// What this machine, or this network namespace, has.
    #[must_use]
    pub fn find(directory: &Directory) -> Self {
        let path = Path::new(RESOLV_CONF);
        match namespace::of_its_own() {
            Some(_) if namespace::is_machines(path) => Self::Shared,
            None if uses_resolved(path) => Self::Resolved,
            _ => Self::File(ResolvConf::new(path, &directory.file("resolv.conf.before"))),
        }
    }

    /// Has names resolved by these servers, over this interface. Repeating it changes nothing.
    ///
    /// # Errors
    ///
    /// When resolved refuses, or the file cannot be written.
    pub fn set(&self, servers: &[IpAddr], interface: &str) -> anyhow::Result<()> {
        match self {
            Self::Shared => Ok(()),
            Self::File(file) => file.set(servers),
            Self::Resolved => {
                let servers: Vec<_> = servers.iter().map(ToString::to_string).collect();
                let mut words = vec!["dns", interface];
                words.extend(servers.iter().map(String::as_str));
                resolvectl(&words)?;
                // Every name goes to this interface, and to no other.
                resolvectl(&["domain", interface, "~."])?;
                resolvectl(&["default-route", interface, "yes"])
            }
        }
    }

    /// Brings back what was before. Repeating it changes nothing.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn restore(&self) -> anyhow::Result<()> {
        match self {
            // It goes with the interface.
            Self::Shared | Self::Resolved => Ok(()),
            Self::File(file) => file.restore(),
        }
    }
}

fn uses_resolved(path: &Path) -> bool {
    let is_stub = fs::canonicalize(path).is_ok_and(|path| path.starts_with("/run/systemd/resolve"))
        || fs::read_to_string(path).is_ok_and(|text| text.contains("127.0.0.53"));
    is_stub && Path::new("/run/systemd/resolve/io.systemd.Resolve").exists()
}

fn resolvectl(words: &[&str]) -> anyhow::Result<()> {
    let output = Command::new("resolvectl").args(words).stdin(Stdio::null()).output();
    let output =
        output.context("cannot start resolvectl. Fix: apt-get install systemd-resolved")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "resolvectl {}: {}", words.join(" "), said.trim());
    Ok(())
}

/// A resolver's file, and where the one before is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvConf {
    path: PathBuf,
    backup: PathBuf,
    /// Whether the file is a mount of its own, as in containers: it cannot be renamed.
    is_mount: bool,
}

impl ResolvConf {
    /// The file at `path`. If that is a mount of its own, what was before is kept at `elsewhere`,
    /// else beside it, where a reboot leaves it.
    fn new(path: &Path, elsewhere: &Path) -> Self {
        let device = |path: &Path| fs::symlink_metadata(path).map(|file| file.dev()).ok();
        let listed = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let is_listed = listed
            .lines()
            .any(|line| line.split(' ').nth(1).is_some_and(|mount| Path::new(mount) == path));
        let parent = path.parent().unwrap_or(Path::new("/"));
        let is_mount = is_listed || device(path).is_some_and(|it| Some(it) != device(parent));
        let beside = path.with_extension("conf.before-weir-connect");
        let backup = if is_mount { elsewhere.to_owned() } else { beside };
        Self { path: path.to_owned(), backup, is_mount }
    }

    fn set(&self, servers: &[IpAddr]) -> anyhow::Result<()> {
        let text = render(servers);
        let present = fs::read_to_string(&self.path).unwrap_or_default();
        if present == text {
            return Ok(());
        }
        // What another program has written meanwhile is what comes back, not what was before that.
        if !present.starts_with(HEADING) {
            self.keep().context("cannot keep /etc/resolv.conf")?;
        }
        self.put(text.as_bytes()).context("cannot write /etc/resolv.conf")
    }

    fn keep(&self) -> io::Result<()> {
        let new = self.backup.with_extension("new");
        remove(&new)?;
        match fs::symlink_metadata(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // There was none: an empty one stands for it.
                fs::write(&new, "")?;
            }
            Err(error) => return Err(error),
            Ok(_) if self.is_mount => {
                fs::copy(&self.path, &new)?;
            }
            // The file itself, be it a symbolic link.
            Ok(_) => fs::hard_link(&self.path, &new)?,
        }
        fs::rename(&new, &self.backup)
    }

    fn put(&self, text: &[u8]) -> io::Result<()> {
        if self.is_mount {
            return fs::write(&self.path, text);
        }
        let new = self.path.with_extension("conf.new-weir-connect");
        remove(&new)?;
        fs::write(&new, text)?;
        fs::File::open(&new)?.sync_all()?;
        fs::rename(&new, &self.path)
    }

    fn restore(&self) -> anyhow::Result<()> {
        if fs::symlink_metadata(&self.backup).is_err() {
            return Ok(());
        }
        let is_ours = fs::read_to_string(&self.path).is_ok_and(|text| text.starts_with(HEADING));
        let restored = match (is_ours, self.is_mount) {
            // Another program has written it since: that is newer.
            (false, _) => Ok(()),
            (true, true) => fs::read(&self.backup).and_then(|text| fs::write(&self.path, text)),
            (true, false) => {
                return fs::rename(&self.backup, &self.path)
                    .context("cannot restore /etc/resolv.conf");
            }
        };
        restored.context("cannot restore /etc/resolv.conf")?;
        remove(&self.backup).context("cannot remove the copy of /etc/resolv.conf")
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A file for these resolvers. Without any, no name is resolved.
#[must_use]
pub fn render(servers: &[IpAddr]) -> String {
    let lines = servers.iter().map(|server| format!("nameserver {server}\n"));
    std::iter::once(HEADING.to_owned()).chain(lines).collect()
}

#[cfg(test)]
mod tests;
