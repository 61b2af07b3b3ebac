//! What outlives the process: the accounts, and the guard's link to its interface.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use aya::{
    Ebpf,
    maps::{Map, MapData},
};
use weir_common::{Account, Slot, guard::name};

use super::{GuardError, XdpMode, detach::detach};
use weir_accounts::Accounts;

const ACCOUNTS: &str = "accounts";
const NEW_ACCOUNTS: &str = "accounts-new";
const LINK: &str = "xdp";

/// A node's directory in a bpffs.
#[derive(Debug)]
pub(super) struct Pins {
    directory: PathBuf,
}

/// How the accounts come to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// There are pinned ones of this count: they are used as they are.
    Pinned(u32),
    /// New ones of this count.
    New(u32),
    /// New ones, into which this many pinned ones are copied.
    Copied { from: u32, to: u32 },
}

impl Source {
    pub(super) fn count(self) -> u32 {
        match self {
            Self::Pinned(count) | Self::New(count) | Self::Copied { to: count, .. } => count,
        }
    }
}

/// A pinned link, as its name tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LinkPin {
    pub(super) path: PathBuf,
    pub(super) mode: XdpMode,
    /// It holds an interface of this number in this network namespace.
    pub(super) here: bool,
}

impl Pins {
    pub(super) fn open(directory: &Path) -> Result<Self, GuardError> {
        let directory = directory.to_owned();
        match fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory) {
            Ok(()) => Ok(Self { directory }),
            Err(error) => Err(GuardError::pin(directory, error)),
        }
    }

    /// Says how `slots` accounts are to be had. Accounts in use are never left behind.
    pub(super) fn accounts_to_load(&self, slots: u32) -> Result<Source, GuardError> {
        // Left by a node that was killed while it copied: the original is whole.
        remove(&self.directory.join(NEW_ACCOUNTS))?;
        let path = self.directory.join(ACCOUNTS);
        if !path.exists() {
            return Ok(Source::New(slots));
        }
        let map = MapData::from_pin(&path).map_err(GuardError::Map)?;
        let info = map.info().map_err(GuardError::Map)?;
        if info.value_size() as usize != size_of::<Account>() {
            return Err(GuardError::Layout { path, found: info.value_size() });
        }
        let present = info.max_entries();
        if present == slots {
            return Ok(Source::Pinned(present));
        }
        let accounts = Accounts::map(map.fd(), present).map_err(GuardError::Accounts)?;
        let in_use = (slots..present).filter_map(|slot| accounts.get(Slot(slot))).any(is_in_use);
        Ok(if in_use {
            Source::Pinned(present)
        } else {
            Source::Copied { from: present, to: slots }
        })
    }

    /// Where the loader finds or pins the accounts.
    pub(super) fn accounts_path(&self, source: Source) -> PathBuf {
        self.directory.join(match source {
            Source::Pinned(_) | Source::New(_) => ACCOUNTS,
            Source::Copied { .. } => NEW_ACCOUNTS,
        })
    }

    /// Maps the loaded accounts, and copies the old ones into them where that was decided.
    pub(super) fn map_accounts(&self, ebpf: &Ebpf, source: Source) -> Result<Accounts, GuardError> {
        let Some(Map::Array(map)) = ebpf.map(name::ACCOUNTS) else {
            return Err(GuardError::Object(name::ACCOUNTS));
        };
        let accounts = Accounts::map(map.fd(), source.count()).map_err(GuardError::Accounts)?;
        if let Source::Copied { from, to } = source {
            let path = self.directory.join(ACCOUNTS);
            let old = MapData::from_pin(&path).map_err(GuardError::Map)?;
            let old = Accounts::map(old.fd(), from).map_err(GuardError::Accounts)?;
            for slot in (0..from.min(to)).map(Slot) {
                if let (Some(old), Some(new)) = (old.get(slot), accounts.get(slot)) {
                    new.copy_from(old);
                }
            }
            let new = self.directory.join(NEW_ACCOUNTS);
            fs::rename(&new, &path).map_err(|error| GuardError::pin(new, error))?;
        }
        Ok(accounts)
    }

    /// Where the link to an interface is pinned. The name tells all that is needed to take it
    /// over, since the kernel does not tell a link's mode.
    pub(super) fn link_path(&self, ifindex: u32, mode: &XdpMode) -> io::Result<PathBuf> {
        let namespace = network_namespace()?;
        Ok(self.directory.join(format!("{LINK}-{}-{namespace}-{ifindex}", mode.as_str())))
    }

    /// The pinned links that a node before us left.
    pub(super) fn links(&self, ifindex: u32) -> Result<Vec<LinkPin>, GuardError> {
        let fail = |error: io::Error| GuardError::pin(self.directory.clone(), error);
        let mut links = Vec::new();
        for entry in fs::read_dir(&self.directory).map_err(fail)? {
            let path = entry.map_err(fail)?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if !name.starts_with(LINK) {
                continue;
            }
            let mode = if name.contains("-native-") { XdpMode::Native } else { XdpMode::Generic };
            let here = self.link_path(ifindex, &mode).map_err(fail)? == path;
            links.push(LinkPin { path, mode, here });
        }
        Ok(links)
    }

    /// Removes every pin and the directory.
    pub(super) fn remove(self) -> Result<(), GuardError> {
        let fail = |error: io::Error| GuardError::pin(self.directory.clone(), error);
        let mut result = Ok(());
        for entry in fs::read_dir(&self.directory).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            let is_link = entry.file_name().to_string_lossy().starts_with(LINK);
            let removed = if is_link { remove_link(&entry.path()) } else { remove(&entry.path()) };
            result = result.and(removed);
        }
        result?;
        fs::remove_dir(&self.directory).map_err(fail)
    }
}

/// Removes what a guard that could not be loaded has pinned. What a killed node left stays.
pub(super) fn discard(directory: &Path, source: Source) {
    let removed = match source {
        Source::Pinned(_) => Ok(()),
        Source::Copied { .. } => remove(&directory.join(NEW_ACCOUNTS)),
        Source::New(_) => Pins { directory: directory.to_owned() }.remove(),
    };
    if let Err(error) = removed {
        tracing::warn!(%error, "cannot remove the guard's pins");
    }
}

/// Removes a pin if it is there.
pub(super) fn remove(path: &Path) -> Result<(), GuardError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(GuardError::pin(path.to_owned(), error))
        }
        _ => Ok(()),
    }
}

/// Takes the guard off the interface that a pinned link holds, and removes the pin.
pub(super) fn remove_link(path: &Path) -> Result<(), GuardError> {
    if let Err(error) = detach(path) {
        // The interface is gone, as a rule. Without its pin the link ends in any case.
        tracing::debug!(%error, "the pinned XDP link is not attached");
    }
    remove(path)
}

fn is_in_use(account: &Account) -> bool {
    account.control.session.load(std::sync::atomic::Ordering::Relaxed) != 0
}

fn network_namespace() -> io::Result<u64> {
    Ok(fs::metadata("/proc/thread-self/ns/net")?.ino())
}
