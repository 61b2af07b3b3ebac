//! Removing what labs leave that were not dropped. Everything that they make outside their
//! namespaces has the process's number in its name.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rustix::mount::{UnmountFlags, unmount};
use weir_testkit::wireguard::SOCKETS;

use crate::Namespace;

/// Begins the names of namespaces.
const NAMESPACE: &str = "weirlab-";
/// Begins the names of clients' interfaces.
const INTERFACE: &str = "wl";
/// Begins the names of nodes' directories.
const DIRECTORY: &str = "weir-test-";

const BPFFS: &str = "/sys/fs/bpf";

/// What libfaketime leaves of a process that was killed, or that could not remove it itself for its
/// sandbox.
const CLOCKS: (&str, [&str; 2]) = ("/dev/shm", ["faketime_shm_", "sem.faketime_sem_"]);

/// A name for a namespace of this process.
pub(crate) fn namespace(number: u32) -> String {
    format!("{NAMESPACE}{}-{number}", std::process::id())
}

/// A name for an interface of this process, short enough for one.
pub(crate) fn interface(number: u32) -> String {
    format!("{INTERFACE}{}c{number}", std::process::id())
}

/// The start of the name of a directory of this process.
pub(crate) fn directory() -> String {
    format!("{DIRECTORY}{}-", std::process::id())
}

/// Removes what dead processes have left.
pub fn dead() {
    remove_where(is_dead);
    clocks();
}

/// Removes what is left of dead processes' clocks.
pub(crate) fn clocks() {
    let (directory, prefixes) = CLOCKS;
    for path in entries(directory) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let pid = prefixes.iter().find_map(|prefix| name.strip_prefix(prefix)?.parse().ok());
        if pid.is_some_and(is_dead) {
            fs::remove_file(&path).ok();
        }
    }
}

fn is_dead(pid: u32) -> bool {
    !Path::new(&format!("/proc/{pid}")).exists()
}

/// Removes everything of this process; for an interrupt, after which nothing is dropped.
pub fn own() {
    remove_where(|pid| pid == std::process::id());
}

/// What is pinned in the machine's bpffs under a name that contains `name`.
pub(crate) fn pins(name: &str) -> Vec<PathBuf> {
    entries(BPFFS).filter(|path| path.to_string_lossy().contains(name)).collect()
}

/// What is mounted at a path that contains `name`.
pub(crate) fn mounts(name: &str) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let paths = mounts.lines().filter_map(|line| line.split(' ').nth(1));
    paths.filter(|path| path.contains(name)).map(PathBuf::from).collect()
}

/// Removes the mounts and pins of a directory.
pub(crate) fn mounts_and_pins(name: &str) {
    for path in mounts(name) {
        unmount(&path, UnmountFlags::DETACH).ok();
    }
    for path in pins(name) {
        fs::remove_dir_all(path).ok();
    }
}

fn remove_where(condition: impl Fn(u32) -> bool) {
    let ours = |path: &Path, prefix: &str| {
        let name = path.file_name()?.to_string_lossy().into_owned();
        let rest = name.strip_prefix(prefix)?;
        let digits = rest.split(|letter: char| !letter.is_ascii_digit()).next()?;
        digits.parse().is_ok_and(&condition).then_some(name)
    };
    for name in entries("/run/netns").filter_map(|path| ours(&path, NAMESPACE)) {
        Namespace::remove(&name);
    }
    for path in entries(SOCKETS).filter(|path| ours(path, INTERFACE).is_some()) {
        fs::remove_file(path).ok();
    }
    for path in entries(std::env::temp_dir()) {
        if let Some(name) = ours(&path, DIRECTORY) {
            mounts_and_pins(&name);
            fs::remove_dir_all(path).ok();
        }
    }
}

fn entries(directory: impl AsRef<Path>) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path())
}
