//! What goes wrong in a wallet.

use std::{io, path::PathBuf};

use weir_ecash::{KeysetsError, SwapError, TokenError};

/// Why a wallet does not do something. Unless it says otherwise, nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum WalletError {
    /// A file operation failed.
    #[error("cannot {doing} {path}: {source}")]
    File {
        /// The operation.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Others can read the file.
    #[error(
        "others than its owner can read the wallet {0}, and could have taken what is in it. Fix: chmod 600 {0}"
    )]
    Exposed(PathBuf),
    /// Another process uses it.
    #[error(
        "another process has been using the wallet {0} for a minute. Fix: wait for it, or stop it"
    )]
    Busy(PathBuf),
    /// The file was written by another version of weir.
    #[error("the wallet {0} was written by a newer weir. Fix: install that version")]
    Newer(PathBuf),
    /// The database failed.
    #[error("the wallet's file cannot be used: {0}")]
    Database(#[from] rusqlite::Error),
    /// What is in the file cannot be read.
    #[error("an entry of the wallet's file cannot be read: {0}")]
    Json(#[from] serde_json::Error),
    /// The token is none that the wallet can take.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// Not a mint's URL.
    #[error("{0:?} is not a mint's URL, such as https://mint.example")]
    NotAMint(String),
    /// The wallet does not know the mint.
    #[error(
        "the wallet does not know the mint {0} yet. A mint holds the money: take its ecash only if you trust it. \
         Fix: weir wallet receive --trust-mint, or weir wallet mints add {0}"
    )]
    UnknownMint(String),
    /// There is ecash of it.
    #[error("the wallet has {1} of the mint {0}. Fix: spend or send it first")]
    MintInUse(String, u64),
    /// The purse has too little.
    #[error(
        "the wallet has {have} {unit}{at}, which is less than {need} {unit} and the mint's fee. Fix: receive more \
         with: weir wallet receive TOKEN"
    )]
    NotEnough {
        /// What it has.
        have: u64,
        /// What is to be paid.
        need: u64,
        /// The unit.
        unit: String,
        /// Of which mint, as words.
        at: String,
    },
    /// The token was spent.
    #[error("the mint says that this token was spent before: whoever received it first has it")]
    Spent,
    /// Ecash of this wallet was spent elsewhere.
    #[error(
        "the mint says that {0} of this wallet were spent elsewhere. Is there a copy of the wallet? They are no longer \
         counted"
    )]
    SpentElsewhere(u64),
    /// The mint was not reached.
    #[error("the mint {mint} was not reached: {reason}. Nothing has changed")]
    Unreachable {
        /// The mint.
        mint: String,
        /// What went wrong.
        reason: String,
    },
    /// It is not known whether the mint has done it.
    #[error(
        "the mint {mint} gave no usable answer: {reason}. Nothing is lost: the next command that uses this mint \
         finishes the exchange"
    )]
    Unfinished {
        /// The mint.
        mint: String,
        /// What went wrong.
        reason: String,
    },
    /// The mint said no.
    #[error("the mint {mint} refused ({reason}). Nothing has changed")]
    Refused {
        /// The mint.
        mint: String,
        /// What it said.
        reason: String,
    },
    /// The mint's keysets cannot be used.
    #[error("the keys of the mint {0} cannot be used: {1}")]
    Keysets(String, KeysetsError),
    /// An exchange cannot be prepared.
    #[error("{0}")]
    Swap(#[from] SwapError),
    /// There is no such sent token.
    #[error("the wallet has sent no token {0}: see weir wallet sent")]
    NoSuchToken(u64),
    /// It was claimed or taken back.
    #[error("the token {0} was claimed by whoever received it, or taken back before")]
    Claimed(u64),
    /// It is locked for the payee.
    #[error("the token {0} is locked to its payee, and can be taken back from Unix time {1} on")]
    RefundLater(u64, u64),
    /// It is locked for ever.
    #[error("the token {0} is locked to its payee without a refund: nobody else can spend it")]
    NoRefund(u64),
}
