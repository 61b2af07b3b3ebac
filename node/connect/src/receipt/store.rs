//! The last receipt of each session, on the disk: evidence, and what the next connection compares
//! with.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::SystemTime,
};

use anyhow::Context as _;

use super::Verified;

/// Where receipts are kept, over reboots too.
const DIRECTORY: &str = "/var/lib/weir-connect/receipts";
/// The most sessions whose receipt is kept. The oldest go first.
const MAX_FILES: usize = 200;
/// The largest file that is read, in bytes.
const MAX_LEN: u64 = 16 * 1024;

/// The receipts that are kept.
#[derive(Clone, Debug)]
pub struct Store(PathBuf);

impl Default for Store {
    fn default() -> Self {
        Self(DIRECTORY.into())
    }
}

impl Store {
    /// A directory of a test.
    #[cfg(test)]
    pub(crate) fn at(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// The file of the session with this public key (base64).
    #[must_use]
    pub fn path(&self, public_key: &str) -> PathBuf {
        let letters = public_key.chars().filter_map(|letter| match letter {
            '+' => Some('-'),
            '/' => Some('_'),
            letter => letter.is_ascii_alphanumeric().then_some(letter),
        });
        self.0.join(format!("{}.json", letters.collect::<String>()))
    }

    /// The last receipt of the session with this public key.
    #[must_use]
    pub fn load(&self, public_key: &str) -> Option<Verified> {
        read(&self.path(public_key))
    }

    /// The receipt that was verified last, of any session.
    #[must_use]
    pub fn newest(&self) -> Option<Verified> {
        self.files().into_iter().rev().find_map(|(_, path)| read(&path))
    }

    /// Keeps a receipt in the place of the session's last one.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn save(&self, verified: &Verified) -> anyhow::Result<()> {
        let path = self.path(&verified.receipt.public_key);
        let new = path.with_extension("new");
        let text = serde_json::to_vec_pretty(verified)?;
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.0);
        let written = made.and_then(|()| options.open(&new)?.write_all(&text));
        written
            .and_then(|()| fs::rename(&new, &path))
            .with_context(|| format!("cannot keep the receipt {}", path.display()))?;
        let files = self.files();
        for (_, path) in files.iter().take(files.len().saturating_sub(MAX_FILES)) {
            fs::remove_file(path).ok();
        }
        Ok(())
    }

    /// All files, the oldest first.
    fn files(&self) -> Vec<(SystemTime, PathBuf)> {
        let entries = fs::read_dir(&self.0).into_iter().flatten().flatten();
        let mut files: Vec<_> = entries
            .filter(|entry| entry.path().extension().is_some_and(|it| it == "json"))
            .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
            .collect();
        files.sort();
        files
    }
}

fn read(path: &Path) -> Option<Verified> {
    let is_small = fs::metadata(path).is_ok_and(|file| file.len() <= MAX_LEN);
    is_small.then(|| serde_json::from_slice(&fs::read(path).ok()?).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::receipt::{Origin, Pinned, Receipt};

    fn verified(public_key: &str, at: u64) -> Verified {
        let receipt = Receipt {
            version: 1,
            session: "1".into(),
            consumer: None,
            public_key: public_key.into(),
            sequence: at,
            bytes_up: 1,
            packets_up: 1,
            bytes_down: 1,
            packets_down: 1,
            seconds: 1,
            start: 1,
            last_activity: 1,
            end_reason: None,
            signer: "s".into(),
            signature: "s".into(),
        };
        let pinned = Pinned { signer: "s".into(), origin: Origin::FirstUse };
        Verified { node: "exit.conf".into(), pinned, receipt, at }
    }

    #[test]
    fn a_receipt_is_kept_for_each_key_and_the_newest_is_found() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = Store::at(&directory.path().join("receipts"));
        assert_eq!((store.newest(), store.load("a/b+c=")), (None, None));
        let (one, two) = (verified("a/b+c=", 1), verified("d", 2));
        store.save(&one).expect("it is kept");
        assert_eq!(store.path("a/b+c=").file_name().expect("a name"), "a_b-c.json");
        assert_eq!(store.load("a/b+c="), Some(one.clone()));
        let later = SystemTime::now() + std::time::Duration::from_secs(5);
        store.save(&two).expect("it is kept");
        let file = fs::File::open(store.path("d")).expect("there");
        file.set_modified(later).expect("a later time");
        assert_eq!(store.newest(), Some(two));
        fs::write(store.path("d"), "{").expect("damaged");
        assert_eq!((store.load("d"), store.newest()), (None, Some(one)));
    }

    #[test]
    fn the_oldest_beyond_the_limit_go() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = Store::at(directory.path());
        for number in 0..MAX_FILES + 3 {
            store.save(&verified(&format!("k{number}"), 1)).expect("it is kept");
        }
        assert_eq!(store.files().len(), MAX_FILES);
    }
}
