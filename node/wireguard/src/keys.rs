//! X25519 keys: read, written, made and kept.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rand_core::{OsRng, RngCore as _};
use x25519_dalek::{PublicKey as Point, StaticSecret};
use zeroize::Zeroizing;

use weir_common::PublicKey;

/// Why a key was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not as long as a key in base64 is.
    #[error("a key has 44 characters of base64, but this has {0}")]
    Length(usize),
    /// A character or the padding is wrong.
    #[error("the key is not base64: {0}")]
    Base64(String),
    /// A point of low order (zero among them): whoever uses it has no secret.
    #[error("the key is a point of low order and gives no secrecy: create one with `wg genkey`")]
    LowOrder,
    /// A second spelling of another key.
    #[error("the key is not in canonical form (its number is 2^255 - 19 or more)")]
    NotCanonical,
    /// A pre-shared key that adds nothing.
    #[error(
        "the pre-shared key is all zeros, which is the same as none: create one with `wg genpsk`"
    )]
    ZeroPreshared,
    /// The node's own.
    #[error("the key is this node's own public key: give the consumer's")]
    OwnKey,
}

/// Reads a public key in base64, as `wg` prints it.
///
/// # Errors
///
/// Says which rule the text breaks; see [`KeyError`].
pub fn parse_public(text: &str) -> Result<PublicKey, KeyError> {
    let key = *decode(text)?;
    let canonical = key[31] < 0x7f
        || key[31] == 0x7f && (key[0] < 0xed || key[1..31].iter().any(|byte| *byte != 0xff));
    // Any clamped scalar is a multiple of 8 and takes each point of low order to zero.
    if !StaticSecret::from([1; 32]).diffie_hellman(&Point::from(key)).was_contributory() {
        return Err(KeyError::LowOrder);
    }
    if !canonical {
        return Err(KeyError::NotCanonical);
    }
    Ok(PublicKey(key))
}

/// Reads a public key that passed [`parse_public`] when it was written down: much quicker.
pub fn read_public(text: &str) -> Result<PublicKey, KeyError> {
    Ok(PublicKey(*decode(text)?))
}

/// A key in base64, as `wg` prints it.
#[must_use]
pub fn print_public(key: &PublicKey) -> String {
    STANDARD.encode(key.0)
}

fn decode(text: &str) -> Result<Zeroizing<[u8; 32]>, KeyError> {
    let len = text.chars().count();
    if len != 44 {
        return Err(KeyError::Length(len));
    }
    let bytes =
        Zeroizing::new(STANDARD.decode(text).map_err(|e| KeyError::Base64(describe(text, &e)))?);
    let mut key = Zeroizing::new([0; 32]);
    if bytes.len() != key.len() {
        return Err(KeyError::Base64(format!("it stands for {} bytes, not 32", bytes.len())));
    }
    key.copy_from_slice(&bytes);
    Ok(key)
}

/// Says where the text goes wrong without repeating it: it may be a private key.
fn describe(text: &str, error: &base64::DecodeError) -> String {
    use base64::DecodeError;
    match error {
        DecodeError::InvalidByte(offset, _) => {
            let before = text.get(..*offset).map_or(*offset, |before| before.chars().count());
            format!("character {} does not belong there", before + 1)
        }
        DecodeError::InvalidLength(_)
        | DecodeError::InvalidLastSymbol(..)
        | DecodeError::InvalidPadding => "its end is cut off or altered".to_owned(),
    }
}

/// A private key. Its memory is wiped when it goes.
#[derive(Clone)]
pub struct PrivateKey(StaticSecret);

impl std::fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PrivateKey(..)")
    }
}

impl PrivateKey {
    /// A new one.
    #[must_use]
    pub fn random() -> Self {
        Self(StaticSecret::random_from_rng(OsRng))
    }

    /// Reads a private key in base64.
    ///
    /// # Errors
    ///
    /// When it is not 32 bytes in base64.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        Ok(Self(StaticSecret::from(*decode(text)?)))
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(Point::from(&self.0).to_bytes())
    }

    /// The key as the cipher takes it.
    #[must_use]
    pub fn secret(&self) -> StaticSecret {
        self.0.clone()
    }

    /// The key in base64, in memory that is wiped.
    #[must_use]
    pub fn print(&self) -> Zeroizing<String> {
        Zeroizing::new(STANDARD.encode(self.0.as_bytes()))
    }
}

/// A pre-shared key (whitepaper, section 5.2). Its memory is wiped when it goes.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct PresharedKey(Zeroizing<[u8; 32]>);

impl std::fmt::Debug for PresharedKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PresharedKey(..)")
    }
}

impl PresharedKey {
    /// A key of these bytes. All zeros are the same as none.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// A new one.
    #[must_use]
    pub fn random() -> Self {
        let mut key = Self::default();
        OsRng.fill_bytes(&mut *key.0);
        key
    }

    /// Reads a pre-shared key in base64.
    ///
    /// # Errors
    ///
    /// When it is not 32 bytes in base64, or all zeros.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let key = decode(text)?;
        if *key == [0; 32] {
            return Err(KeyError::ZeroPreshared);
        }
        Ok(Self(key))
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The key in base64, in memory that is wiped.
    #[must_use]
    pub fn print(&self) -> Zeroizing<String> {
        Zeroizing::new(STANDARD.encode(*self.0))
    }
}

/// Why the node's key could not be had.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The file system said no.
    #[error("cannot {doing} the node's private key {path}: {source}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Others than the owner may read it.
    #[error(
        "other users can read the node's private key {path} (mode {mode:04o}): \
         protect it with: chmod 600 {path}"
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// There is an old key already.
    #[error(
        "the node has two keys already: its old one, {path}, is still accepted. Retire it first: \
         weir key retire"
    )]
    TwoKeys {
        /// The old key's file.
        path: PathBuf,
    },
    /// There is no old key.
    #[error("there is no old key to retire; to create a new key: weir key rotate")]
    OneKey,
    /// The file holds something else.
    #[error(
        "{path} does not hold a private key: {source}. Put the key back, or move the file away \
         and weir creates a new key (consumers then need new configurations)"
    )]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: KeyError,
    },
}

/// The node's private key: read from `path`, or made and written there (mode 0600) at the first
/// start. The boolean says whether it was made.
///
/// # Errors
///
/// When the file cannot be read or written, when others can read it, and when it holds no key.
pub fn load_or_create(path: &Path) -> Result<(PrivateKey, bool), KeyFileError> {
    if let Some(key) = load(path)? {
        return Ok((key, false));
    }
    let key = PrivateKey::random();
    if create(path, &key)? {
        return Ok((key, true));
    }
    // Another node's start made it between our look and our try.
    let key = load(path)?.ok_or_else(|| failed("read", path)(io::ErrorKind::NotFound.into()))?;
    Ok((key, false))
}

/// What the file system said about the file of a key.
pub fn failed<'a>(doing: &'static str, path: &'a Path) -> impl Fn(io::Error) -> KeyFileError + 'a {
    move |source| KeyFileError::Io { doing, path: path.to_owned(), source }
}

/// The private key in a file; `None` without the file.
///
/// # Errors
///
/// When the file cannot be read, when others can read it, and when it holds no key.
pub fn load(path: &Path) -> Result<Option<PrivateKey>, KeyFileError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("open", path)(error)),
    };
    let mode = file.metadata().map_err(failed("inspect", path))?.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(KeyFileError::Exposed { path: path.to_owned(), mode });
    }
    // Larger than any key, so that a wrong file is told from a right one without reading it all.
    let mut text = Zeroizing::new(Vec::with_capacity(256));
    file.take(256).read_to_end(&mut text).map_err(failed("read", path))?;
    let content = |source| KeyFileError::Content { path: path.to_owned(), source };
    let text = std::str::from_utf8(&text)
        .map_err(|_| content(KeyError::Base64("it is not text".to_owned())))?;
    Ok(Some(PrivateKey::parse(text.trim()).map_err(content)?))
}

/// Writes the key where no file is yet. `false` when one appeared meanwhile.
pub fn create(path: &Path, key: &PrivateKey) -> Result<bool, KeyFileError> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    fs::create_dir_all(folder).map_err(failed("make the folder of", path))?;
    let draft = folder.join(format!(".weir-key.{:016x}", OsRng.next_u64()));
    let written = write_draft(&draft, key).and_then(|()| {
        // A link, unlike a renaming, never replaces a key that is there.
        match fs::hard_link(&draft, path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            other => other.map(|()| true),
        }
    });
    let removed = match fs::remove_file(&draft) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    };
    let made = written.map_err(failed("write", path))?;
    removed.map_err(failed("tidy up after writing", path))?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed("sync", path))?;
    Ok(made)
}

fn write_draft(draft: &Path, key: &PrivateKey) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(draft)?;
    file.write_all(key.print().as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(bytes: [u8; 32]) -> String {
        STANDARD.encode(bytes)
    }

    #[test]
    fn keys_read_back_as_printed() {
        let key = PrivateKey::random();
        let public = key.public();
        assert_eq!(parse_public(&print_public(&public)), Ok(public));
        assert_eq!(PrivateKey::parse(&key.print()).expect("a key").public(), public);
    }

    #[test]
    fn preshared_keys_read_back_as_printed_and_are_not_shown() {
        let key = PresharedKey::random();
        assert_eq!(PresharedKey::parse(&key.print()), Ok(key.clone()));
        assert_ne!(key, PresharedKey::random());
        assert_eq!(format!("{key:?}"), "PresharedKey(..)");
        assert_eq!(PresharedKey::parse("x"), Err(KeyError::Length(1)));
        assert_eq!(PresharedKey::parse(&encode([0; 32])), Err(KeyError::ZeroPreshared));
    }

    #[test]
    fn the_public_half_is_the_one_of_rfc_7748() {
        let private = STANDARD.encode([
            0x77, 0x07, 0x6d, 0x0a, 0x73, 0x18, 0xa5, 0x7d, 0x3c, 0x16, 0xc1, 0x72, 0x51, 0xb2,
            0x66, 0x45, 0xdf, 0x4c, 0x2f, 0x87, 0xeb, 0xc0, 0x99, 0x2a, 0xb1, 0x77, 0xfb, 0xa5,
            0x1d, 0xb9, 0x2c, 0x2a,
        ]);
        let public = PrivateKey::parse(&private).expect("a key").public();
        assert_eq!(print_public(&public), "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=");
    }

    #[test]
    fn each_kind_of_bad_key_has_its_own_error() {
        let good = encode([9; 32]);
        assert_eq!(parse_public(""), Err(KeyError::Length(0)));
        assert_eq!(parse_public(&good[..43]), Err(KeyError::Length(43)));
        let altered = format!("{}*{}", &good[..3], &good[4..]);
        let fourth = "character 4 does not belong there".to_owned();
        assert_eq!(parse_public(&altered), Err(KeyError::Base64(fourth)));
        assert!(matches!(parse_public(&"é".repeat(44)), Err(KeyError::Base64(_))));
        assert!(matches!(parse_public(&"A".repeat(44)), Err(KeyError::Base64(_))));
        assert_eq!(parse_public(&encode([0; 32])), Err(KeyError::LowOrder));
        let mut one = [0; 32];
        one[0] = 1;
        assert_eq!(parse_public(&encode(one)), Err(KeyError::LowOrder));
        let mut high = [9; 32];
        high[31] |= 0x80;
        assert_eq!(parse_public(&encode(high)), Err(KeyError::NotCanonical));
        let mut beyond = [0xff; 32];
        beyond[31] = 0x7f;
        assert_eq!(parse_public(&encode(beyond)), Err(KeyError::NotCanonical));
    }

    #[test]
    fn every_point_of_low_order_is_refused() {
        let eight = "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800";
        let other = "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157";
        for hex in [eight, other] {
            let bytes = std::array::from_fn(|i| {
                u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).expect("hex")
            });
            assert_eq!(parse_public(&encode(bytes)), Err(KeyError::LowOrder), "{hex}");
        }
    }

    #[test]
    fn the_first_start_makes_a_key_that_only_its_owner_reads_and_later_ones_keep_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("state/node.key");
        let (first, made) = load_or_create(&path).expect("made");
        assert!(made);
        let mode = fs::metadata(&path).expect("there").permissions().mode() & 0o7777;
        assert_eq!(mode, 0o600);
        let (second, made) = load_or_create(&path).expect("read");
        assert!(!made);
        assert_eq!(first.public(), second.public());
        let left = fs::read_dir(path.parent().expect("a folder")).expect("readable").count();
        assert_eq!(left, 1, "drafts are removed");
    }

    #[test]
    fn an_exposed_or_foreign_key_file_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("node.key");
        fs::write(&path, "not a key\n").expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("set");
        let error = load_or_create(&path).expect_err("refused").to_string();
        assert!(error.contains("chmod 600"), "{error}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("set");
        let error = load_or_create(&path).expect_err("refused");
        assert!(matches!(error, KeyFileError::Content { .. }), "{error}");
        assert_eq!(fs::read_to_string(&path).expect("there"), "not a key\n");
    }
}
