//! The Unix socket that the API listens on.

use std::{
    fs, io,
    os::unix::{
        fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, chown},
        net::{UnixListener as StdListener, UnixStream},
    },
    path::{Path, PathBuf},
};

use rand_core::{OsRng, RngCore as _};
use tokio::net::UnixListener;

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// A node answers there.
    #[error("another weir answers on {0}: stop it, or set another api.socket")]
    InUse(PathBuf),
    /// The path is taken by something else.
    #[error("{0} exists and is not a socket: move it away, weir does not replace it")]
    NotASocket(PathBuf),
    /// There is no such group.
    #[error("no group {0:?} for the API's socket: create it with `groupadd --system {0}`")]
    NoGroup(String),
    /// A file operation failed.
    #[error("cannot {doing} the API's socket {path}: {source}")]
    Io {
        /// The operation.
        doing: &'static str,
        /// The socket.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

/// A bound socket. Its file is removed when this is dropped, unless another node has replaced it.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    inode: u64,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path).is_ok_and(|file| file.ino() == self.inode);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the API's socket");
        }
    }
}

/// Binds the socket with mode 0600, or mode 0660 if `group` is given. Replaces the socket of a dead
/// node, but not that of a running one. Needs a tokio runtime.
///
/// # Errors
///
/// When another node answers there, something else lies there, or the file system refuses.
pub(crate) fn bind(
    path: &Path,
    group: Option<&str>,
) -> Result<(UnixListener, SocketFile), SocketError> {
    let failed = |doing| move |source| SocketError::Io { doing, path: path.to_owned(), source };
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder).map_err(failed("make the folder of"))?;
    }
    refuse_living(path)?;
    let group = group.map(group_id).transpose()?;
    // Bound under a temporary name and then renamed, so that its mode is never too wide.
    let draft = path.with_extension(format!("{:08x}", OsRng.next_u32()));
    let listener = StdListener::bind(&draft).map_err(failed("bind"))?;
    let placed = place(&draft, path, group);
    if placed.is_err()
        && let Err(error) = fs::remove_file(&draft)
    {
        tracing::warn!(path = %draft.display(), %error, "cannot remove the temporary socket");
    }
    let inode = placed.map_err(failed("place"))?;
    let file = SocketFile { path: path.to_owned(), inode };
    listener.set_nonblocking(true).map_err(failed("set up"))?;
    let listener = UnixListener::from_std(listener).map_err(failed("listen on"))?;
    Ok((listener, file))
}

fn place(draft: &Path, path: &Path, group: Option<u32>) -> io::Result<u64> {
    chown(draft, None, group)?;
    let mode = if group.is_some() { 0o660 } else { 0o600 };
    fs::set_permissions(draft, fs::Permissions::from_mode(mode))?;
    let inode = fs::symlink_metadata(draft)?.ino();
    fs::rename(draft, path)?;
    Ok(inode)
}

fn refuse_living(path: &Path) -> Result<(), SocketError> {
    let failed = |doing, source| SocketError::Io { doing, path: path.to_owned(), source };
    let kind = match fs::symlink_metadata(path) {
        Ok(file) => file.file_type(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("look at", error)),
    };
    if !kind.is_socket() {
        return Err(SocketError::NotASocket(path.to_owned()));
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(SocketError::InUse(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // The listener's queue is full, so a node is running.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            Err(SocketError::InUse(path.to_owned()))
        }
        Err(error) => Err(failed("try", error)),
    }
}

/// The number of a group, by name or as a number.
///
/// # Errors
///
/// When there is no such group.
pub fn group_id(name: &str) -> Result<u32, SocketError> {
    let no_group = || SocketError::NoGroup(name.to_owned());
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    let text = fs::read_to_string("/etc/group").map_err(|_| no_group())?;
    let found = text.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)).flatten()?.parse().ok()
    });
    found.ok_or_else(no_group)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_socket_is_for_owner_and_group_and_goes_with_the_node() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("run/weir.sock");
        let mode = || fs::metadata(&path).expect("there").permissions().mode() & 0o7777;
        let (_listener, file) = bind(&path, Some("root")).expect("bound");
        assert_eq!(mode(), 0o660);
        drop(file);
        let (_listener, file) = bind(&path, None).expect("bound");
        assert_eq!(mode(), 0o600);
        drop(file);
        assert!(!path.exists());
        let left = fs::read_dir(folder.path().join("run")).expect("readable").count();
        assert_eq!(left, 0);
    }

    #[tokio::test]
    async fn a_dead_nodes_socket_is_replaced_and_a_living_ones_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("weir.sock");
        drop(StdListener::bind(&path).expect("bound"));
        assert!(path.exists(), "a dead node leaves its socket");
        let (living, file) = bind(&path, None).expect("replaced");
        assert!(matches!(bind(&path, None), Err(SocketError::InUse(_))));
        drop(living);
        let (_new, _new_file) = bind(&path, None).expect("replaced again");
        drop(file);
        assert!(path.exists(), "the old node does not remove the new one's socket");
    }

    #[tokio::test]
    async fn other_files_and_unknown_groups_are_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("precious");
        fs::write(&path, "data").expect("written");
        assert!(matches!(bind(&path, None), Err(SocketError::NotASocket(_))));
        assert_eq!(fs::read_to_string(&path).expect("there"), "data");
        let other = folder.path().join("weir.sock");
        let error = bind(&other, Some("no-such-group-here")).expect_err("refused");
        assert!(matches!(error, SocketError::NoGroup(_)), "{error}");
    }
}
