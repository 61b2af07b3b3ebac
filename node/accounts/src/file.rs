//! Accounts in a file, for hosts without eBPF. On a tmpfs they survive a killed node.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use weir_common::Account;

use crate::Accounts;

/// Opens `<runtime_dir>/accounts` with at least `slots` records, or makes it. The counters of a
/// run before this one are kept; records are never taken away.
///
/// # Errors
///
/// Fails when the file cannot be opened or mapped, or when its length is no whole number of
/// records, so that it is no file of this version's.
pub fn open(runtime_dir: &Path, slots: u32) -> io::Result<Accounts> {
    fs::create_dir_all(runtime_dir)?;
    let path = runtime_dir.join("accounts");
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)?;
    let record = size_of::<Account>() as u64;
    let len = file.metadata()?.len();
    if !len.is_multiple_of(record) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!(
                "{} has {len} bytes, not a whole number of {record}-byte accounts: it is damaged \
                 or from another version; stop that version cleanly, or remove the file",
                path.display()
            ),
        ));
    }
    grow(&file, len, u64::from(slots) * record)?;
    let count = (len / record).max(slots.into());
    Accounts::map(&file, u32::try_from(count).map_err(io::Error::other)?)
}

/// Removes the file, when the ledger has all that it says.
///
/// # Errors
///
/// Fails when the file is there and cannot be removed.
pub fn remove(runtime_dir: &Path) -> io::Result<()> {
    match fs::remove_file(runtime_dir.join("accounts")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn grow(file: &File, from: u64, to: u64) -> io::Result<()> {
    // New bytes read as zero: vacant accounts.
    if from < to { file.set_len(to) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use weir_common::Slot;

    use super::*;

    fn set_bytes_up(accounts: &Accounts, slot: u32, bytes: u64) {
        let account = accounts.get(Slot(slot)).expect("within the accounts");
        account.metered.bytes_up.store(bytes, Relaxed);
    }

    fn bytes_up(accounts: &Accounts, slot: u32) -> u64 {
        accounts.get(Slot(slot)).expect("within the accounts").metered.bytes_up.load(Relaxed)
    }

    #[test]
    fn counters_outlive_the_process_and_a_change_of_size() {
        let dir = tempfile::tempdir().expect("a directory");
        set_bytes_up(&open(dir.path(), 8).expect("new"), 7, 123);
        let grown = open(dir.path(), 16).expect("larger");
        assert_eq!((bytes_up(&grown, 7), bytes_up(&grown, 15)), (123, 0));
        drop(grown);
        let asked_for_less = open(dir.path(), 4).expect("smaller");
        assert_eq!(bytes_up(&asked_for_less, 7), 123);
        remove(dir.path()).expect("removable");
        assert_eq!(bytes_up(&open(dir.path(), 8).expect("new"), 7), 0);
    }

    #[test]
    fn a_file_of_another_layout_is_refused_with_its_name() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join("accounts"), [0; 300]).expect("writable");
        let error = open(dir.path(), 4).expect_err("no whole number of records");
        assert!(error.to_string().contains("accounts has 300 bytes"), "{error}");
    }
}
