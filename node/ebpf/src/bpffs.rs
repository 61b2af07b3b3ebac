//! A file system for pins: objects of the kernel that outlive the process.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use rustix::{
    fs::statfs,
    mount::{MountFlags, UnmountFlags, mount, unmount},
};

const SYSTEM: &str = "/sys/fs/bpf";
/// From the kernel's `magic.h`.
const BPF_FS_MAGIC: u32 = 0xcafe_4a11;

/// A mounted bpffs.
#[derive(Debug)]
pub struct Bpffs {
    path: PathBuf,
    ours: bool,
}

impl Bpffs {
    /// The system's bpffs, or one that is mounted at `<runtime_dir>/bpf`.
    ///
    /// # Errors
    ///
    /// Fails when there is none and none can be mounted (it takes CAP_SYS_ADMIN).
    pub fn find_or_mount(runtime_dir: &Path) -> io::Result<Self> {
        let own = runtime_dir.join("bpf");
        // A killed node may have left its pins there.
        if is_bpffs(&own) {
            return Ok(Self { path: own, ours: true });
        }
        if is_bpffs(Path::new(SYSTEM)) {
            return Ok(Self { path: SYSTEM.into(), ours: false });
        }
        fs::create_dir_all(&own)?;
        mount(
            "bpf",
            &own,
            "bpf",
            MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC,
            None,
        )?;
        Ok(Self { path: own, ours: true })
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it was mounted for us, so that we must unmount it.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        self.ours
    }

    /// Unmounts it at a clean stop, if it was mounted for us. What is still pinned there is lost.
    ///
    /// # Errors
    ///
    /// Fails when it cannot be unmounted.
    pub fn release(self) -> io::Result<()> {
        if !self.ours {
            return Ok(());
        }
        unmount(&self.path, UnmountFlags::empty())?;
        fs::remove_dir(&self.path)
    }
}

/// Whether the system has one, at its usual place.
#[must_use]
pub fn is_mounted() -> bool {
    is_bpffs(Path::new(SYSTEM))
}

fn is_bpffs(path: &Path) -> bool {
    statfs(path).is_ok_and(|stat| stat.f_type as u32 == BPF_FS_MAGIC)
}
