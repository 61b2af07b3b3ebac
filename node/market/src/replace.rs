//! A file that is replaced as a whole: a crash leaves the old one or the new one.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufWriter},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

/// Replaces the file at `path` by what `write` writes. Only its owner can read it. It is on the disk
/// when this returns. One process may do so at a time.
///
/// # Errors
///
/// When a file operation fails. The old file is still there then.
pub fn replace(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    // One that was left behind may have other permissions.
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    let file = options.write(true).create_new(true).mode(0o600).open(&beside)?;
    let mut out = BufWriter::new(file);
    write(&mut out)?;
    out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    fs::rename(&beside, path)?;
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::{io::Write as _, os::unix::fs::PermissionsExt as _};

    use super::*;

    #[test]
    fn the_old_file_stays_until_the_new_one_is_written() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("file");
        replace(&path, |out| out.write_all(b"one")).expect("written");
        let failed = replace(&path, |out| {
            out.write_all(b"two")?;
            Err(io::Error::other("a full disk"))
        });
        assert!(failed.is_err());
        assert_eq!(fs::read_to_string(&path).expect("read"), "one");
        replace(&path, |out| out.write_all(b"three")).expect("what was left behind is no obstacle");
        assert_eq!(fs::read_to_string(&path).expect("read"), "three");
        let mode = fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(directory.path()).expect("read").count(), 1);
    }
}
