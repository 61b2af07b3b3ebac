//! The disk below the state directory.

use std::{
    fs::File,
    io::Write as _,
    path::{Path, PathBuf},
};

use rustix::fs::{CWD, Mode, OFlags, openat, statvfs};

use super::Known;

/// The file system of the state.
#[derive(Clone, Debug)]
pub struct Disk {
    /// The state directory, or the nearest directory above it that exists.
    pub directory: PathBuf,
    /// Free bytes.
    pub free: Known<u64>,
    /// Whether fsync works; `None` if the directory is not writable.
    pub sync: Known<()>,
}

impl Disk {
    pub(super) fn gather(state_dir: &Path) -> Self {
        let exists = |path: &&Path| path.is_dir();
        let directory = state_dir.ancestors().find(exists).unwrap_or(Path::new("/")).to_owned();
        let free = statvfs(&directory)
            .map(|stat| stat.f_bavail.saturating_mul(stat.f_frsize))
            .map_err(|error| error.to_string());
        let sync = sync(&directory).map_err(|error| error.to_string());
        Self { directory, free, sync }
    }
}

/// Writes to an unnamed file (O_TMPFILE), which disappears when it is closed.
fn sync(directory: &Path) -> std::io::Result<()> {
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    let mut file: File = openat(CWD, directory, flags, Mode::RUSR | Mode::WUSR)?.into();
    file.write_all(b"weir doctor")?;
    file.sync_all()
}
