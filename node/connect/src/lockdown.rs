//! `--lockdown`: a systemd unit that closes the machine before it has a network, so that nothing
//! leaves after a reboot either.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, bail};

use crate::{
    firewall::{self, Allowed, Lan},
    namespace,
};

/// The unit.
pub const UNIT: &str = "weir-lockdown.service";
const UNITS: &str = "/etc/systemd/system";
const RULES: &str = "/etc/weir-connect/lockdown.nft";

/// The unit's text.
#[must_use]
pub fn unit(nft: &Path) -> String {
    format!(
        "# Written by weir connect --lockdown. weir disconnect removes it.\n\
         [Unit]\n\
         Description=Nothing leaves this machine beside the tunnel of weir connect\n\
         Documentation=man:weir-connect(1)\n\
         DefaultDependencies=no\n\
         # nftables.service begins by removing every table.\n\
         After=nftables.service\n\
         Before=network-pre.target shutdown.target\n\
         Wants=network-pre.target\n\
         Conflicts=shutdown.target\n\
         \n\
         [Service]\n\
         Type=oneshot\n\
         RemainAfterExit=yes\n\
         ExecStart={} -f {RULES}\n\
         \n\
         [Install]\n\
         WantedBy=sysinit.target\n",
        nft.display()
    )
}

/// Installs and enables the unit.
///
/// # Errors
///
/// Without systemd, or in a network namespace, which does not survive a reboot.
pub fn install(lan: Lan) -> anyhow::Result<()> {
    if namespace::of_its_own().is_some() {
        bail!("--lockdown is for the whole machine, and this is a network namespace");
    }
    if !Path::new("/run/systemd/system").exists() {
        bail!("--lockdown needs systemd, which does not run here. Fix: leave out --lockdown");
    }
    let nft = ["/usr/sbin/nft", "/sbin/nft", "/usr/bin/nft"].map(PathBuf::from);
    let nft = nft.into_iter().find(|path| path.exists());
    let nft = nft.context("there is no nft. Fix: apt-get install nftables")?;
    let rules = firewall::render(&Allowed { lan, ..Allowed::default() });
    write(Path::new(RULES), &rules)?;
    write(&unit_path(), &unit(&nft))?;
    systemctl(&["daemon-reload"])?;
    systemctl(&["enable", "--quiet", UNIT])
}

/// Disables and removes the unit. One that is not there is no error.
///
/// # Errors
///
/// When a file cannot be removed.
pub fn remove() -> anyhow::Result<()> {
    if namespace::of_its_own().is_some() || !is_installed() {
        return Ok(());
    }
    systemctl(&["disable", "--quiet", UNIT])?;
    for path in [unit_path(), PathBuf::from(RULES)] {
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {}", path.display()));
            }
            _ => {}
        }
    }
    // It stays if something else is in it.
    if let Some(directory) = Path::new(RULES).parent() {
        fs::remove_dir(directory).ok();
    }
    systemctl(&["daemon-reload"])
}

/// Whether the unit is there.
#[must_use]
pub fn is_installed() -> bool {
    unit_path().exists()
}

fn unit_path() -> PathBuf {
    Path::new(UNITS).join(UNIT)
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    let written = fs::create_dir_all(parent).and_then(|()| fs::write(path, text));
    written.with_context(|| format!("cannot write {}. Fix: run as root", path.display()))
}

fn systemctl(words: &[&str]) -> anyhow::Result<()> {
    let output = Command::new("systemctl").args(words).stdin(Stdio::null()).output();
    let output = output.context("cannot start systemctl")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("systemctl {}: {}", words.join(" "), said.trim());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_comes_before_any_network_and_after_what_flushes_tables() {
        let text = unit(Path::new("/usr/sbin/nft"));
        assert!(text.contains("Before=network-pre.target"), "{text}");
        assert!(text.contains("After=nftables.service"), "{text}");
        assert!(text.contains("ExecStart=/usr/sbin/nft -f /etc/weir-connect/lockdown.nft\n"));
    }
}
