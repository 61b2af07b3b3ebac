//! The wallet.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::Serialize;
use weir_ecash::{Keysets, mint_url};

use crate::{
    Balance, Mints, Sent, WalletError,
    http::{Answer, Http, NoAnswer},
    lock::Lock,
    store::{Place, Store},
};

mod exchange;
mod receive;
mod send;
mod sent;
#[cfg(test)]
mod tests;

pub use receive::{Received, Trust};
pub use send::{Amount, Payment, Refund};
pub use sent::Taken;

/// The age at which a mint is asked for its keysets again.
const KEYSETS_AGE: Duration = Duration::from_hours(1);

/// A purse. Other processes may use the same file.
pub struct Wallet {
    store: Mutex<Store>,
    lock: PathBuf,
    mints: Arc<dyn Mints>,
}

impl std::fmt::Debug for Wallet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wallet").field("lock", &self.lock).finish_non_exhaustive()
    }
}

/// A mint that the wallet knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mint {
    /// Its URL.
    pub url: String,
    /// What the wallet has of it.
    pub balances: Vec<Balance>,
}

impl Wallet {
    /// Opens the wallet in a directory, or makes it there.
    ///
    /// # Errors
    ///
    /// When the files cannot be used, or others can read them.
    pub fn open(directory: &Path) -> Result<Self, WalletError> {
        Self::with_mints(directory, Arc::new(Http::default()))
    }

    /// The same, where mints are asked like this.
    ///
    /// # Errors
    ///
    /// As [`Self::open`].
    pub fn with_mints(directory: &Path, mints: Arc<dyn Mints>) -> Result<Self, WalletError> {
        let store = Mutex::new(Store::open(&directory.join("wallet.db"))?);
        Ok(Self { store, lock: directory.join("wallet.lock"), mints })
    }

    /// What the wallet has, by mint and unit. It asks nobody.
    ///
    /// # Errors
    ///
    /// When the file cannot be read.
    pub fn balances(&self) -> Result<Vec<Balance>, WalletError> {
        self.store().balances()
    }

    /// The mints that the wallet knows.
    ///
    /// # Errors
    ///
    /// When the file cannot be read.
    pub fn mints(&self) -> Result<Vec<Mint>, WalletError> {
        let store = self.store();
        let balances = store.balances()?;
        let of = |url: &String| balances.iter().filter(|it| it.mint == *url).cloned().collect();
        let mints = store.mints()?.into_iter();
        Ok(mints.map(|url| Mint { balances: of(&url), url }).collect())
    }

    /// Has the wallet take ecash of a mint. Says whether it did not know it before.
    ///
    /// # Errors
    ///
    /// When it is no mint's URL.
    pub fn add_mint(&self, url: &str) -> Result<bool, WalletError> {
        self.store().add_mint(&checked(url)?)
    }

    /// Has the wallet forget a mint. Says whether it knew it.
    ///
    /// # Errors
    ///
    /// When the wallet has ecash of it.
    pub fn remove_mint(&self, url: &str) -> Result<bool, WalletError> {
        let url = checked(url)?;
        let mut store = self.store();
        let balances = store.balances()?.into_iter().filter(|it| it.mint == url);
        let left = balances.map(|it| it.balance + it.unfinished + it.unclaimed).sum();
        match left {
            0 => store.remove_mint(&url),
            _ => Err(WalletError::MintInUse(url, left)),
        }
    }

    /// The tokens that the wallet has sent, the newest last. It asks nobody: see [`Self::check_sent`].
    ///
    /// # Errors
    ///
    /// When the file cannot be read.
    pub fn sent(&self) -> Result<Vec<Sent>, WalletError> {
        self.store().sent()
    }

    /// Changes what a sent token is for.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn set_note(&self, number: u64, note: &str) -> Result<(), WalletError> {
        self.store().set_note(number, note)
    }

    /// Finishes what a killed process or a lost answer has left. Says what could not be finished yet.
    ///
    /// # Errors
    ///
    /// When the file cannot be used.
    pub async fn recover(&self) -> Result<Vec<WalletError>, WalletError> {
        let _lock = self.lock().await?;
        self.settle_all(None).await
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn lock(&self) -> Result<Lock, WalletError> {
        Lock::take(&self.lock).await
    }

    async fn ask(&self, mint: &str, path: &str, json: Vec<u8>) -> Result<Answer, NoAnswer> {
        self.mints.ask(mint, path, json).await
    }

    /// A mint's keysets: the stored ones, unless they are old or `fresh` ones are needed.
    async fn keysets(&self, at: &Place, fresh: bool) -> Result<Keysets, WalletError> {
        let (stored, asked) = self.store().keysets(at)?;
        let mut keysets = Keysets::restore(&at.unit, stored.iter().map(String::as_str));
        let age = asked.map(|asked| unix_now().saturating_sub(asked));
        if !fresh && keysets.is_ready() && age.is_some_and(|age| age < KEYSETS_AGE.as_secs()) {
            return Ok(keysets);
        }
        let list = self.get(&at.url, "/v1/keysets").await?;
        let wrong = |error| WalletError::Keysets(at.url.clone(), error);
        for id in keysets.update(&list.body).map_err(wrong)? {
            let keys = self.get(&at.url, &format!("/v1/keys/{id}")).await?;
            keysets.add_keys(&keys.body).map_err(wrong)?;
        }
        let stored = keysets.stored().map_err(wrong)?;
        self.store().set_keysets(at, &stored, unix_now())?;
        Ok(keysets)
    }

    async fn get(&self, mint: &str, path: &str) -> Result<Answer, WalletError> {
        let unreachable = |reason| WalletError::Unreachable { mint: mint.to_owned(), reason };
        let answer = self.ask(mint, path, Vec::new()).await;
        let answer = answer.map_err(|error| unreachable(error.to_string()))?;
        match answer.status.is_success() {
            true => Ok(answer),
            false => Err(unreachable(format!("it answers {}", answer.excerpt()))),
        }
    }
}

fn checked(url: &str) -> Result<String, WalletError> {
    mint_url(url).ok_or_else(|| WalletError::NotAMint(url.chars().take(200).collect()))
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
