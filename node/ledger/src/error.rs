//! Why the ledger could not do what was asked.

use std::{
    io,
    path::{Path, PathBuf},
};

use weir_wireguard::keys;

/// Why the ledger could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The file system said no.
    #[error("cannot open the ledger {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Another node writes it.
    #[error(
        "the ledger {path} is in use by another weir: stop that one, or set another \
         node.state_dir for this one"
    )]
    InUse {
        /// The ledger.
        path: PathBuf,
    },
    /// A later weir wrote it.
    #[error(
        "the ledger {path} has schema {found}, but this weir supports up to {known}: run a newer \
         weir"
    )]
    Newer {
        /// The ledger.
        path: PathBuf,
        /// Its schema.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// An earlier weir wrote it, and this command does not write.
    #[error("the ledger {path} has the older schema {found}: start the node once to upgrade it")]
    Older {
        /// The ledger.
        path: PathBuf,
        /// Its schema.
        found: i64,
    },
    /// The file is damaged.
    #[error(
        "the ledger {path} is damaged ({what}): keep a copy of it for `sqlite3 {path} .recover`, \
         and restore it from a backup or move it away"
    )]
    Damaged {
        /// The ledger.
        path: PathBuf,
        /// What SQLite says.
        what: String,
    },
    /// A record that contradicts itself.
    #[error("the ledger's record of session {id:?} is damaged: {what}")]
    Record {
        /// The identifier as it stands there.
        id: String,
        /// What is wrong.
        what: String,
    },
    /// A usage record is not as the node signed it.
    #[error(
        "usage record {0} of the ledger has an invalid signature, so it was altered after weir \
         wrote it: run `weir ledger check`"
    )]
    Unsigned(u64),
    /// The key that signs usage records.
    #[error(transparent)]
    Key(#[from] keys::KeyFileError),
    /// There is no room for what was to be written.
    #[error(
        "the disk with the ledger is full: nothing was changed. Free some space; weir then \
         continues by itself"
    )]
    Full,
    /// The check beside the running node has found damage.
    #[error(
        "the ledger is damaged ({0}): new sessions and credit are refused. Stop the node, keep a \
         copy of the ledger, and restore it from a backup; `weir ledger check` shows details"
    )]
    Unsound(String),
    /// SQLite failed.
    #[error("the ledger: {0}")]
    Sql(rusqlite::Error),
}

impl From<rusqlite::Error> for LedgerError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DiskFull) => Self::Full,
            _ => Self::Sql(error),
        }
    }
}

/// The error of opening or reading the file at `path`: SQLite says in two ways that it is damaged.
pub(crate) fn damaged(path: &Path, error: rusqlite::Error) -> LedgerError {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    match error.sqlite_error_code() {
        Some(DatabaseCorrupt | NotADatabase) => {
            LedgerError::Damaged { path: path.to_owned(), what: error.to_string() }
        }
        _ => error.into(),
    }
}
