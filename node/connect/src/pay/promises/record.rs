//! What a consumer's channels have promised, on the disk before it is promised: a promise is for all
//! that the channel has ever promised, so what is forgotten would be promised again.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use alloy_primitives::{Address, U256, hex};
use anyhow::{Context as _, bail, ensure};
use k256::ecdsa::SigningKey;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use weir_promise::Price;
use zeroize::Zeroizing;

/// How many agreements are remembered. The ones that were paid longest ago are forgotten.
const MAX_AGREEMENTS: usize = 200;
/// The largest file that is read, in bytes.
const MAX_LEN: u64 = 1 << 20;

/// What a channel has promised in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Channel {
    pub(super) chain_id: u64,
    pub(super) id: Address,
    /// In wei.
    pub(super) promised: U256,
}

/// A session's agreement with its node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Agreed {
    pub(super) id: String,
    pub(super) price: Price,
    /// What was promised for it, in wei.
    pub(super) paid: U256,
}

/// The file's content. Amounts are decimal texts.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    /// By chain and address.
    channels: BTreeMap<String, String>,
    /// The one that was paid last is the last.
    agreements: Vec<Line>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    id: String,
    per_gib: String,
    per_hour: String,
    paid: String,
}

/// The file. It is locked for as long as this lives.
#[derive(Debug)]
pub(super) struct Record {
    path: PathBuf,
    content: Content,
    _lock: File,
}

impl Record {
    /// Opens the record of the key in a file, or begins one.
    pub(super) fn open(key: &Path) -> anyhow::Result<Self> {
        let path = beside(key, ".promised");
        let lock_path = beside(key, ".lock");
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        let lock = options
            .open(&lock_path)
            .with_context(|| format!("cannot lock the key by {}", lock_path.display()))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).with_context(|| {
            format!(
                "another weir pays with the key {}. Fix: end it, or use another key",
                key.display()
            )
        })?;
        let content = match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Content::default(),
            Err(error) => return Err(error).context(format!("cannot read {}", path.display())),
            Ok(file) => {
                ensure!(file.len() <= MAX_LEN, "{} is too large", path.display());
                let text = fs::read(&path);
                let text = text.with_context(|| format!("cannot read {}", path.display()))?;
                serde_json::from_slice(&text).with_context(|| {
                    format!(
                        "{} cannot be understood. It says what your channels have promised. Fix: \
                         restore it from a copy",
                        path.display()
                    )
                })?
            }
        };
        let record = Self { path, content, _lock: lock };
        record.check()?;
        Ok(record)
    }

    /// What a channel has promised in all, in wei.
    pub(super) fn promised_by(&self, chain_id: u64, id: Address) -> U256 {
        let text = self.content.channels.get(&name(chain_id, id));
        text.and_then(|text| amount(text).ok()).unwrap_or_default()
    }

    /// An agreement that was paid before.
    pub(super) fn agreed(&self, id: &str) -> Option<Agreed> {
        self.content.agreements.iter().find(|line| line.id == id)?.agreed().ok()
    }

    /// Notes a promise. It is on the disk when this returns.
    pub(super) fn promised(&mut self, channel: Channel, agreed: Agreed) -> anyhow::Result<()> {
        let Content { channels, agreements } = &mut self.content;
        channels.insert(name(channel.chain_id, channel.id), channel.promised.to_string());
        agreements.retain(|line| line.id != agreed.id);
        let surplus = (agreements.len() + 1).saturating_sub(MAX_AGREEMENTS);
        agreements.drain(..surplus);
        agreements.push(Line {
            id: agreed.id,
            per_gib: agreed.price.per_gib.to_string(),
            per_hour: agreed.price.per_hour.to_string(),
            paid: agreed.paid.to_string(),
        });
        let text = serde_json::to_vec_pretty(&self.content)?;
        replace(&self.path, &text).with_context(|| format!("cannot write {}", self.path.display()))
    }

    fn check(&self) -> anyhow::Result<()> {
        let all = self.content.channels.values().map(|text| amount(text).map(drop));
        let lines = self.content.agreements.iter().map(|line| line.agreed().map(drop));
        let checked: anyhow::Result<()> = all.chain(lines).collect();
        checked.with_context(|| {
            format!("{} is damaged. Fix: restore it from a copy", self.path.display())
        })
    }
}

impl Line {
    fn agreed(&self) -> anyhow::Result<Agreed> {
        let price = Price { per_gib: self.per_gib.parse()?, per_hour: self.per_hour.parse()? };
        Ok(Agreed { id: self.id.clone(), price, paid: amount(&self.paid)? })
    }
}

/// Reads the key of an identity.
pub(super) fn read_key(path: &Path) -> anyhow::Result<SigningKey> {
    let shown = path.display();
    let file = fs::metadata(path).with_context(|| format!("cannot read the key {shown}"))?;
    ensure!(
        file.permissions().mode() & 0o077 == 0,
        "others than its owner can read the key {shown}. Fix: chmod 600 {shown}"
    );
    let text = fs::read_to_string(path).map(Zeroizing::new);
    let text = text.with_context(|| format!("cannot read the key {shown}"))?;
    let bytes = hex::decode_to_array::<_, 32>(text.trim()).map(Zeroizing::new);
    let key = bytes.ok().and_then(|bytes| SigningKey::from_slice(bytes.as_slice()).ok());
    let Some(key) = key else {
        bail!("{shown} holds no key: it must be the 32 bytes of a secp256k1 key in hex");
    };
    Ok(key)
}

/// Replaces a file as a whole: a crash leaves the old one or the new one.
fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let new = beside(path, ".new");
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn name(chain_id: u64, id: Address) -> String {
    format!("{chain_id}/{id}")
}

fn amount(text: &str) -> anyhow::Result<U256> {
    Ok(weir_promise::wire::number("an amount", text)?)
}
