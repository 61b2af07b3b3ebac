//! Ecash that consumers give: taken offline, exchanged at the mint later.
//!
//! [`Cashu::accept`] verifies a token with keys that were fetched before, and has the ledger write and credit it in
//! one transaction. Only if much of a mint's ecash is not exchanged yet is the token exchanged first. [`Cashu::run`]
//! exchanges what was taken, in batches.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use anyhow::Context as _;
use tokio::{sync::Notify, time::Instant};
use weir_config::{Config, Shared};
use weir_ecash::{Keysets, LockKey, Refusal, Rules, Verified, mint_url, request, verify};
use weir_ledger::{
    SessionId, SharedLedger,
    ecash::{Accept, NewProof, NewToken, Taken},
    unix_now,
};
use weir_sessions::{SessionError, registry::Sessions};

use crate::resolver::Resolver;

mod mint;
mod redeem;
mod sale;
#[cfg(test)]
pub(crate) mod tests;

use mint::{HttpMint, Mint};
pub(crate) use sale::{NotSold, Terms};

/// How long the mint's list of keysets is believed.
const KEYSETS_AGE: Duration = Duration::from_secs(600);
/// How often the list is fetched for the sake of a token that has an unknown keyset.
const MIN_KEYSETS_AGE: Duration = Duration::from_secs(30);
/// How long a consumer waits whose token is exchanged first.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(12);

/// What became of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// It was credited.
    Credited,
    /// The session has given it before: nothing has changed.
    Before,
    /// It was sent to the mint, and is credited once the mint has answered.
    Pending,
}

/// Why a token is not taken.
#[derive(Debug, thiserror::Error)]
pub enum NotAccepted {
    /// It is worth nothing to this node.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It was given before.
    #[error("this token, or a part of it, was given before: it is spent")]
    Spent,
    /// It has to be exchanged first, and the mint does not answer.
    #[error(
        "the mint must exchange this token first, and cannot be reached now: the token is still yours; try again later"
    )]
    MintUnreachable,
    /// The node's own trouble.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// A thread has ended.
    #[error("the node could not complete the request")]
    Internal,
}

/// Why there is no key for ecash.
#[derive(Debug, thiserror::Error)]
#[error("cannot read or create the key for ecash {}: {reason}. See cashu.key_file", path.display())]
pub struct KeyFileError {
    path: PathBuf,
    reason: String,
}

/// Ecash of the configured mints.
pub struct Cashu {
    key: LockKey,
    unit: String,
    gib_price: Shared<u64>,
    max_unredeemed: u64,
    lock_seconds: u64,
    redeem_every: Duration,
    mints: Vec<KnownMint>,
    sessions: Arc<Sessions>,
    ledger: SharedLedger,
}

/// A mint, and what is known of it.
struct KnownMint {
    url: String,
    api: Box<dyn Mint>,
    keysets: RwLock<Keysets>,
    /// When the list of keysets was last asked for.
    asked: std::sync::Mutex<Option<Instant>>,
    /// Held while something of this mint is exchanged.
    exchanging: tokio::sync::Mutex<()>,
    wake: Notify,
}

impl std::fmt::Debug for Cashu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mints: Vec<_> = self.mints.iter().map(|mint| &mint.url).collect();
        f.debug_struct("Cashu").field("mints", &mints).finish_non_exhaustive()
    }
}

impl Cashu {
    /// Prepares ecash, if the configuration names mints. Reads the key, or creates it. `gib_price` is
    /// the price of a GiB, which a reload changes.
    ///
    /// # Errors
    ///
    /// When there is no key, no TLS roots, or the ledger cannot be read.
    pub fn new(
        config: &Config,
        sessions: &Arc<Sessions>,
        resolver: &Resolver,
        gib_price: Shared<u64>,
    ) -> anyhow::Result<Option<Arc<Self>>> {
        let settings = &config.cashu;
        if settings.mints.is_empty() {
            return Ok(None);
        }
        let mut mints: Vec<(String, Box<dyn Mint>)> = Vec::new();
        for text in &settings.mints {
            let url = mint_url(text).with_context(|| format!("{text:?} is not a mint's URL"))?;
            if mints.iter().all(|(known, _)| *known != url) {
                let mint = HttpMint::new(&url, &settings.ca_file, resolver)?;
                mints.push((url, Box::new(mint)));
            }
        }
        let key = load_or_create(&settings.key_file)?;
        let cashu = Self::with_mints(settings, sessions, key, mints)?;
        Ok(Some(Arc::new(Self { gib_price, ..cashu })))
    }

    fn with_mints(
        settings: &weir_config::Cashu,
        sessions: &Arc<Sessions>,
        key: LockKey,
        mints: Vec<(String, Box<dyn Mint>)>,
    ) -> anyhow::Result<Self> {
        let ledger = sessions.ledger().clone();
        let mut known = Vec::new();
        for (url, api) in mints {
            let stored = ledger.lock().keysets(&url)?;
            let keysets = Keysets::restore(&settings.unit, stored.iter().map(String::as_str));
            let (asked, exchanging, wake) = Default::default();
            let keysets = RwLock::new(keysets);
            known.push(KnownMint { url, api, keysets, asked, exchanging, wake });
        }
        ledger.note_mints()?;
        Ok(Self {
            key,
            unit: settings.unit.clone(),
            gib_price: u64::from(settings.gib_price).into(),
            max_unredeemed: settings.max_unredeemed.into(),
            lock_seconds: u64::from(settings.lock_days) * 86_400,
            redeem_every: Duration::from_secs(settings.redeem_seconds.into()),
            mints: known,
            sessions: Arc::clone(sessions),
            ledger,
        })
    }

    /// The payment request for wallets (NUT-18).
    #[must_use]
    pub fn request(&self) -> String {
        let urls: Vec<_> = self.mints().map(str::to_owned).collect();
        let (price, unit) = self.price();
        request(&urls, unit, &self.key, &format!("{price} {unit} for a GiB"))
    }

    /// The key that tokens are to be locked to, in hex.
    #[must_use]
    pub fn lock(&self) -> String {
        self.key.public()
    }

    /// The URLs of the mints.
    pub fn mints(&self) -> impl Iterator<Item = &str> {
        self.mints.iter().map(|mint| mint.url.as_str())
    }

    /// The price of a GiB, and its unit.
    #[must_use]
    pub fn price(&self) -> (u64, &str) {
        (*self.gib_price.get(), &self.unit)
    }

    /// The bytes that an amount buys.
    #[must_use]
    pub fn bytes(&self, amount: u64) -> u64 {
        let bytes = (u128::from(amount) << 30) / u128::from((*self.gib_price.get()).max(1));
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }

    /// Takes a token of a session. Says what became of it, and the bytes that it buys.
    ///
    /// # Errors
    ///
    /// Says why it is not taken. Nothing has changed then, and the token is still its owner's.
    pub async fn accept(
        self: &Arc<Self>,
        session: SessionId,
        token: &str,
    ) -> Result<(Accepted, u64), NotAccepted> {
        let (mint, token) = self.judge(token).await?;
        let bytes = token.bytes;
        let limit = Accept::UpTo(self.max_unredeemed);
        let accepted = match self.take(session, token.clone(), limit).await? {
            Taken::Credited(_) => Accepted::Credited,
            Taken::Before => Accepted::Before,
            Taken::HeldBefore => Accepted::Pending,
            Taken::OverLimit => self.exchange_first(mint, session, token).await?,
            taken => return Err(refusal(taken)),
        };
        self.ledger.note_mints().map_err(SessionError::from)?;
        Ok((accepted, bytes))
    }

    /// Verifies a token offline, and says what it buys.
    async fn judge(self: &Arc<Self>, text: &str) -> Result<(&KnownMint, NewToken), NotAccepted> {
        let verified = match self.verify_off_thread(text).await? {
            Err(Refusal::UnknownKeyset) if self.refresh_for_token().await => {
                self.verify_off_thread(text).await??
            }
            verified => verified?,
        };
        let bytes = self.bytes(verified.worth);
        if bytes == 0 {
            return Err(Refusal::TooSmall.into());
        }
        let mint = self.mint(&verified.mint).ok_or(Refusal::WrongMint)?;
        let token = NewToken {
            hash: verified.hash,
            mint: verified.mint,
            unit: self.unit.clone(),
            bytes,
            proofs: verified.proofs.into_iter().map(new_proof).collect(),
        };
        Ok((mint, token))
    }

    /// The signatures of a token's proofs are some milliseconds of arithmetic.
    async fn verify_off_thread(
        self: &Arc<Self>,
        text: &str,
    ) -> Result<Result<Verified, Refusal>, NotAccepted> {
        let (cashu, text) = (Arc::clone(self), text.to_owned());
        let verified = tokio::task::spawn_blocking(move || cashu.verify(&text));
        verified.await.map_err(|_| NotAccepted::Internal)
    }

    fn verify(&self, token: &str) -> Result<Verified, Refusal> {
        let locked_until = unix_now() + self.lock_seconds;
        let rules = Rules { lock: &self.key, locked_until };
        // The keys are copied, so that nobody waits for the check of a token.
        let mut found = None;
        let keysets_of = |url: &str| {
            found = Some(self.mint(url)?.keysets());
            None::<&Keysets>
        };
        match verify(token, keysets_of, &rules) {
            Err(Refusal::WrongMint) => match found {
                Some(keysets) => verify(token, |_| Some(&keysets), &rules),
                None => Err(Refusal::WrongMint),
            },
            judged => judged,
        }
    }

    async fn take(
        self: &Arc<Self>,
        session: SessionId,
        token: NewToken,
        accept: Accept,
    ) -> Result<Taken, NotAccepted> {
        let cashu = Arc::clone(self);
        let taken =
            tokio::task::spawn_blocking(move || cashu.sessions.take_token(session, &token, accept));
        Ok(taken.await.map_err(|_| NotAccepted::Internal)??)
    }

    /// Has the mint exchange a token, and credits it then.
    async fn exchange_first(
        self: &Arc<Self>,
        mint: &KnownMint,
        session: SessionId,
        token: NewToken,
    ) -> Result<Accepted, NotAccepted> {
        let deadline = Instant::now() + EXCHANGE_TIMEOUT;
        let lock = tokio::time::timeout_at(deadline, mint.exchanging.lock()).await;
        let _exchanging = lock.map_err(|_| NotAccepted::MintUnreachable)?;
        let number = match self.take(session, token, Accept::AfterSwap).await? {
            Taken::Held(number) => number,
            Taken::Before => return Ok(Accepted::Before),
            Taken::HeldBefore => return Ok(Accepted::Pending),
            Taken::TooManyHeld => return Err(NotAccepted::MintUnreachable),
            taken => return Err(refusal(taken)),
        };
        match tokio::time::timeout_at(deadline, self.exchange_token(mint, number)).await {
            Ok(Ok(true)) => Ok(Accepted::Credited),
            Ok(Ok(false)) => Err(NotAccepted::MintUnreachable),
            // It may have been sent: the next round asks the mint.
            Ok(Err(error)) => {
                tracing::warn!(mint = mint.url, "a token waits for its mint: {error:#}");
                mint.wake.notify_one();
                Ok(Accepted::Pending)
            }
            Err(_) => {
                mint.wake.notify_one();
                Ok(Accepted::Pending)
            }
        }
    }

    fn mint(&self, url: &str) -> Option<&KnownMint> {
        self.mints.iter().find(|mint| mint.url == url)
    }
}

impl KnownMint {
    fn keysets(&self) -> Keysets {
        self.keysets.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the list of keysets was not asked for within this time.
    fn is_older(&self, age: Duration) -> bool {
        let asked = *self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.is_none_or(|asked| asked.elapsed() >= age)
    }
}

fn new_proof(proof: weir_ecash::VerifiedProof) -> NewProof {
    NewProof { y: proof.y, amount: proof.amount, proof: proof.json }
}

fn refusal(taken: Taken) -> NotAccepted {
    match taken {
        Taken::NoSession => SessionError::NotFound(String::new()).into(),
        Taken::TooManyHeld | Taken::OverLimit => NotAccepted::MintUnreachable,
        _ => NotAccepted::Spent,
    }
}

/// The key in a file, made there (mode 0600) where there is none.
fn load_or_create(path: &Path) -> Result<LockKey, KeyFileError> {
    let wrong = |reason: String| KeyFileError { path: path.to_owned(), reason };
    let io = |error: io::Error| wrong(error.to_string());
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(mut file) => {
            let text = LockKey::random().to_hex();
            writeln!(file, "{}", *text).and_then(|()| file.sync_all()).map_err(io)?;
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(io(error)),
    }
    let mode = fs::metadata(path).map_err(io)?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(wrong("other users can read it; protect it with chmod 600".into()));
    }
    let text = zeroize::Zeroizing::new(fs::read_to_string(path).map_err(io)?);
    LockKey::parse(&text).map_err(|error| wrong(error.to_string()))
}
