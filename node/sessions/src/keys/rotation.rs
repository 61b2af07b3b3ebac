//! The node's second key. While it changes its key, both are taken: new consumers are told the new
//! one, and the others have time to get it.

use std::{
    ffi::OsString,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use weir_wireguard::keys::{KeyFileError, PrivateKey, create, failed, load};

/// Where the old key is, while both are taken: beside the present one.
#[must_use]
pub fn previous_path(path: &Path) -> PathBuf {
    beside(path, ".previous")
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().map_or_else(OsString::new, OsString::from);
    name.push(suffix);
    path.with_file_name(name)
}

/// The old key, if there is one.
///
/// # Errors
///
/// When the file cannot be read, when others can read it, and when it holds no key.
pub fn previous(path: &Path) -> Result<Option<PrivateKey>, KeyFileError> {
    load(&previous_path(path))
}

/// Makes the present key the old one, and a new one the present one. Returns the new one. Whenever
/// the machine stops meanwhile, each key that consumers may have is still in one of the files.
///
/// # Errors
///
/// When there is an old key already, and when a file cannot be written.
pub fn rotate(path: &Path) -> Result<PrivateKey, KeyFileError> {
    let old = previous_path(path);
    let present =
        load(path)?.ok_or_else(|| failed("read", path)(io::ErrorKind::NotFound.into()))?;
    if !create(&old, &present)? {
        // What a rotation that was cut short has left is the same key.
        let there = load(&old)?;
        if there.is_none_or(|there| there.public() != present.public()) {
            return Err(KeyFileError::TwoKeys { path: old });
        }
    }
    let key = PrivateKey::random();
    let next = beside(path, ".next");
    remove(&next)?;
    create(&next, &key)?;
    fs::rename(&next, path).map_err(failed("replace", path))?;
    sync_folder(path)?;
    Ok(key)
}

/// Forgets the old key.
///
/// # Errors
///
/// When there is none, and when the file cannot be removed.
pub fn retire(path: &Path) -> Result<(), KeyFileError> {
    let old = previous_path(path);
    if !old.exists() {
        return Err(KeyFileError::OneKey);
    }
    remove(&old)?;
    sync_folder(path)
}

fn remove(path: &Path) -> Result<(), KeyFileError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", path)(error)),
        _ => Ok(()),
    }
}

fn sync_folder(path: &Path) -> Result<(), KeyFileError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = File::open(folder.unwrap_or(Path::new(".")));
    folder.and_then(|folder| folder.sync_all()).map_err(failed("sync", path))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use weir_wireguard::keys::load_or_create;

    #[test]
    fn a_rotation_keeps_both_keys_until_the_old_one_is_retired() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("private.key");
        let (first, _) = load_or_create(&path).expect("made");
        assert!(previous(&path).expect("readable").is_none());
        let second = rotate(&path).expect("rotated");
        assert_ne!(first.public(), second.public());
        let (present, made) = load_or_create(&path).expect("read");
        assert!(!made);
        assert_eq!(present.public(), second.public());
        let old = previous(&path).expect("readable").expect("there");
        assert_eq!(old.public(), first.public());
        assert!(matches!(rotate(&path), Err(KeyFileError::TwoKeys { .. })));
        assert_eq!(load_or_create(&path).expect("read").0.public(), second.public());
        retire(&path).expect("retired");
        assert!(matches!(retire(&path), Err(KeyFileError::OneKey)));
        assert_eq!(fs::read_dir(folder.path()).expect("readable").count(), 1, "nothing is left");
    }

    #[test]
    fn a_rotation_that_was_cut_short_goes_on_where_it_was() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("private.key");
        let (first, _) = load_or_create(&path).expect("made");
        // The old key was written, the new one was not.
        assert!(create(&previous_path(&path), &first).expect("written"));
        let second = rotate(&path).expect("rotated");
        assert_ne!(first.public(), second.public());
        let old = previous(&path).expect("readable").expect("there");
        assert_eq!(old.public(), first.public());
    }

    #[test]
    fn an_old_key_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("private.key");
        load_or_create(&path).expect("made");
        rotate(&path).expect("rotated");
        let old = previous_path(&path);
        fs::set_permissions(&old, fs::Permissions::from_mode(0o644)).expect("set");
        assert!(matches!(previous(&path), Err(KeyFileError::Exposed { .. })));
    }
}
