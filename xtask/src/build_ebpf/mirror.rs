//! The sources at a place that is the same on every machine: cargo's names for a crate, which end
//! up in the object's symbols, depend on where it lies.

use std::{
    fs::{self, DirBuilder, File},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};

const PLACE: &str = "/var/tmp/weir-ebpf";
/// What the build reads, relative to the repository.
const PARTS: [&str; 5] = [
    "node-common/Cargo.toml",
    "node-common/src",
    "node-ebpf/Cargo.toml",
    "node-ebpf/Cargo.lock",
    "node-ebpf/src",
];

/// The sources, for as long as this lives: another build waits meanwhile.
pub(super) struct Mirror {
    path: PathBuf,
    _lock: File,
}

impl Mirror {
    /// Copies the sources there.
    pub(super) fn new(repository: &Path) -> Result<Self> {
        let path = PathBuf::from(PLACE);
        DirBuilder::new().recursive(true).mode(0o700).create(&path)?;
        let own = fs::metadata("/proc/self")?.uid();
        let owner = fs::symlink_metadata(&path)?;
        ensure!(
            owner.is_dir() && owner.uid() == own,
            "{PLACE} belongs to somebody else. Fix: remove it."
        );
        let lock = File::create(path.join("lock"))?;
        lock.lock().context("wait for another build")?;
        for part in PARTS {
            let to = path.join(part);
            if to.is_dir() {
                fs::remove_dir_all(&to)?;
            }
            copy(&repository.join(part), &to).with_context(|| format!("copy {part}"))?;
        }
        // node-common inherits from the workspace, whose other members are not here.
        let manifest = fs::read_to_string(repository.join("Cargo.toml"))?;
        let (before, members) = manifest.split_once("members = [").context("no members")?;
        let (_, after) = members.split_once(']').context("the members have no end")?;
        let manifest = format!("{before}members = [\"node-common\"]{after}");
        fs::write(path.join("Cargo.toml"), manifest)?;
        Ok(Self { path, _lock: lock })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    if from.is_dir() {
        fs::create_dir_all(to)?;
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            copy(&entry.path(), &to.join(entry.file_name()))?;
        }
    } else {
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::copy(from, to)?;
    }
    Ok(())
}
