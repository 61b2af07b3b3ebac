//! The key that signs a node's listing: a secp256k1 key of its own, in a file for its owner alone.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use nostr::key::{Keys, PublicKey, SecretKey};

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The file is readable by others.
    #[error(
        "others than its owner can read the key {0}. Fix: chmod 600 {0}, and make a new key by \
         moving it away if they may have read it"
    )]
    Exposed(PathBuf),
    /// The file has something else.
    #[error("{0} does not hold a key: move it away, and weir makes a new one")]
    NotAKey(PathBuf),
    /// A file operation failed.
    #[error("cannot {doing} the key {path}: {source}")]
    Io {
        /// The operation.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

/// The key that signs listings.
#[derive(Clone)]
pub struct MarketKey(pub(crate) Keys);

impl std::fmt::Debug for MarketKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("MarketKey").field(&self.0.public_key()).finish()
    }
}

impl MarketKey {
    /// A new one.
    #[must_use]
    pub fn random() -> Self {
        Self(Keys::generate())
    }

    /// A key that tests have again and again.
    ///
    /// # Panics
    ///
    /// When `number` is 0.
    #[cfg(any(test, feature = "test-util"))]
    #[doc(hidden)]
    #[expect(clippy::expect_used, reason = "it is for tests")]
    #[must_use]
    pub fn for_tests(number: u8) -> Self {
        let secret = SecretKey::from_hex(&format!("{number:064x}"));
        Self(Keys::new(secret.expect("a number that is not 0")))
    }

    /// Its public part.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        self.0.public_key()
    }

    /// Reads the key in `path`, or makes one there.
    ///
    /// # Errors
    ///
    /// When the file is readable by others, has no key, or cannot be read or made.
    pub fn load_or_create(path: &Path) -> Result<Self, KeyFileError> {
        if let Some(key) = Self::load(path)? {
            return Ok(key);
        }
        let failed = |doing| move |source| KeyFileError::Io { doing, path: path.into(), source };
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).map_err(failed("make the directory of"))?;
        }
        let key = Self::random();
        let mut options = OpenOptions::new();
        let file = options.write(true).create_new(true).mode(0o600).open(path);
        let mut file = match file {
            Ok(file) => file,
            // Another process was quicker.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Self::load(path)?.ok_or_else(|| KeyFileError::NotAKey(path.into()));
            }
            Err(error) => return Err(failed("make")(error)),
        };
        let text = key.0.secret_key().to_secret_hex();
        file.write_all(format!("{text}\n").as_bytes()).map_err(failed("write"))?;
        file.sync_all().map_err(failed("write"))?;
        Ok(key)
    }

    /// Reads the key in `path`; `None` if there is no such file.
    ///
    /// # Errors
    ///
    /// As [`Self::load_or_create`].
    pub fn load(path: &Path) -> Result<Option<Self>, KeyFileError> {
        let failed = |source| KeyFileError::Io { doing: "read", path: path.into(), source };
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let mode = fs::metadata(path).map_err(failed)?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(KeyFileError::Exposed(path.into()));
        }
        let secret = SecretKey::from_hex(text.trim());
        let secret = secret.map_err(|_| KeyFileError::NotAKey(path.into()))?;
        Ok(Some(Self(Keys::new(secret))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_for_its_owner_alone() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("state/market.key");
        assert!(MarketKey::load(&path).expect("readable").is_none());
        let made = MarketKey::load_or_create(&path).expect("made");
        let mode = fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let read = MarketKey::load_or_create(&path).expect("read");
        assert_eq!(read.public(), made.public());
    }

    #[test]
    fn a_key_that_others_can_read_and_what_is_no_key_are_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("market.key");
        MarketKey::load_or_create(&path).expect("made");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("set");
        assert!(matches!(MarketKey::load(&path), Err(KeyFileError::Exposed(_))));
        fs::write(&path, "rubbish").expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("set");
        assert!(matches!(MarketKey::load_or_create(&path), Err(KeyFileError::NotAKey(_))));
    }
}
