//! Purchases on the disk: a file for each, readable only by its owner, because it has the buyer's WireGuard key.

use std::{
    fs::{self, DirBuilder, File},
    io::{self, Write as _},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use rand_core::{OsRng, RngCore as _};
use serde::{Deserialize, Serialize};

use crate::{Pay, Plan};

/// The most purchases that are open at once.
const MAX_OPEN: usize = 1000;

/// Why a purchase cannot be written or read.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} the purchase {path}: {source}")]
pub struct RecordError {
    /// The operation.
    pub doing: &'static str,
    /// The file.
    pub path: PathBuf,
    /// The system's answer.
    pub source: io::Error,
}

/// How far a purchase is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Stage {
    /// The wallet is making the token, whose note is the purchase's name.
    Paying,
    /// The exit may have seen the payment.
    Asking { payment: Payment },
    /// The exit has sold.
    Sold { config: String, expires_at: Option<u64>, bytes: Option<u64>, spent: u64 },
    /// The exit did not sell.
    Refused { payment: Payment, reason: String, message: String },
}

/// What was sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Payment {
    Token { text: String, number: u64, amount: u64 },
    Voucher { code: String },
}

/// A purchase.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) id: String,
    pub(crate) at: u64,
    pub(crate) exit: String,
    pub(crate) listing: String,
    pub(crate) url: String,
    pub(crate) price: Option<String>,
    pub(crate) mint: Option<String>,
    pub(crate) unit: Option<String>,
    pub(crate) private_key: String,
    pub(crate) stage: Stage,
}

/// A purchase that is not finished, as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Open {
    /// Its name.
    pub id: String,
    /// When it was begun, in seconds since 1970.
    pub at: u64,
    /// The exit's key, in hex.
    pub exit: String,
    /// How far it is.
    pub state: OpenState,
    /// The number of the token in the wallet.
    pub token: Option<u64>,
    /// Why the exit did not sell.
    pub reason: Option<String>,
}

/// How far a purchase is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OpenState {
    /// The exit has not seen the payment.
    Paying,
    /// The exit has not answered.
    Unanswered,
    /// It was sold, and was not shown to the end.
    Sold,
    /// The exit refused. Its token is the wallet's.
    Refused,
}

impl Record {
    pub(crate) fn new(plan: &Plan, private_key: &str, now: u64) -> Self {
        let (mint, unit, stage) = match &plan.pay {
            Pay::Ecash { mint, unit, .. } => {
                (Some(mint.clone()), Some(unit.clone()), Stage::Paying)
            }
            Pay::Voucher(code) => {
                (None, None, Stage::Asking { payment: Payment::Voucher { code: code.clone() } })
            }
        };
        Self {
            id: format!("{:016x}", OsRng.next_u64()),
            at: now,
            exit: plan.exit.clone(),
            listing: plan.listing.clone(),
            url: plan.url.to_string(),
            price: plan.price.as_ref().map(ToString::to_string),
            mint,
            unit,
            private_key: private_key.to_owned(),
            stage,
        }
    }

    /// The note by which the wallet's token is found again.
    pub(crate) fn note(&self) -> String {
        format!("purchase {} at {}", self.id, self.exit.get(..12).unwrap_or_default())
    }

    pub(crate) fn open(&self) -> Open {
        let number = |payment: &Payment| match payment {
            Payment::Token { number, .. } => Some(*number),
            Payment::Voucher { .. } => None,
        };
        let (state, token, reason) = match &self.stage {
            Stage::Paying => (OpenState::Paying, None, None),
            Stage::Asking { payment } => (OpenState::Unanswered, number(payment), None),
            Stage::Sold { .. } => (OpenState::Sold, None, None),
            Stage::Refused { payment, reason, message } => {
                (OpenState::Refused, number(payment), Some(format!("{reason}: {message}")))
            }
        };
        Open { id: self.id.clone(), at: self.at, exit: self.exit.clone(), state, token, reason }
    }
}

/// The directory of the purchases.
#[derive(Clone, Debug)]
pub(crate) struct Records(PathBuf);

impl Records {
    pub(crate) fn new(wallet: &Path) -> Self {
        Self(wallet.join("purchases"))
    }

    /// Writes a purchase so that a power cut leaves the old or the new.
    pub(crate) fn write(&self, record: &Record) -> Result<(), RecordError> {
        let path = self.path(&record.id);
        let failed = |doing| {
            let path = path.clone();
            move |source| RecordError { doing, path, source }
        };
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.0);
        made.map_err(failed("make the directory of"))?;
        let json = serde_json::to_vec(record).map_err(|error| failed("write")(error.into()))?;
        // Such a file is readable only by its owner.
        let mut file = tempfile::NamedTempFile::new_in(&self.0).map_err(failed("write"))?;
        file.write_all(&json).map_err(failed("write"))?;
        file.as_file().sync_all().map_err(failed("write"))?;
        file.persist(&path).map_err(|error| failed("write")(error.error))?;
        self.sync(&path)
    }

    /// Deletes a purchase that is finished.
    pub(crate) fn remove(&self, id: &str) -> Result<(), RecordError> {
        let path = self.path(id);
        match fs::remove_file(&path) {
            Ok(()) => self.sync(&path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(RecordError { doing: "delete", path, source }),
        }
    }

    /// All, the oldest first. A file that is something else is left alone.
    pub(crate) fn all(&self) -> Result<Vec<Record>, RecordError> {
        let failed = |source| RecordError { doing: "read", path: self.0.clone(), source };
        let entries = match fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut all = Vec::new();
        for entry in entries.take(MAX_OPEN) {
            let path = entry.map_err(failed)?.path();
            if path.extension().is_some_and(|end| end == "json") {
                let text = fs::read(&path).map_err(failed)?;
                all.extend(serde_json::from_slice::<Record>(&text).ok());
            }
        }
        all.sort_by(|one, other| (one.at, &one.id).cmp(&(other.at, &other.id)));
        Ok(all)
    }

    fn path(&self, id: &str) -> PathBuf {
        self.0.join(format!("{id}.json"))
    }

    fn sync(&self, path: &Path) -> Result<(), RecordError> {
        let synced = File::open(&self.0).and_then(|directory| directory.sync_all());
        synced.map_err(|source| RecordError { doing: "write", path: path.into(), source })
    }
}
