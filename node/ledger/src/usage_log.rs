//! All that a reader of usage records gets of the ledger.

use tokio::sync::watch;

use crate::{LedgerError, SharedLedger, UsageRecord};

/// The usage records, and the cursor of each receiver. Cheap to clone.
#[derive(Clone, Debug)]
pub struct UsageLog(SharedLedger);

impl UsageLog {
    pub(crate) fn new(ledger: SharedLedger) -> Self {
        Self(ledger)
    }

    /// The records after a cursor in order, at most `limit` and
    /// [`MAX_RECORDS`](crate::MAX_RECORDS).
    ///
    /// # Errors
    ///
    /// When the ledger cannot be read.
    pub fn after(&self, cursor: u64, limit: u32) -> Result<Vec<UsageRecord>, LedgerError> {
        self.0.lock().usage_after(cursor, limit)
    }

    /// Follows the cursor of the last record.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.0.watch()
    }

    /// The node's public key for usage records (Ed25519), in base64.
    #[must_use]
    pub fn signer(&self) -> String {
        self.0.lock().signer().to_owned()
    }

    /// The cursor up to which a receiver has every record; 0 for a new one.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be read.
    pub fn delivered(&self, receiver: &str) -> Result<u64, LedgerError> {
        self.0.lock().delivered(receiver)
    }

    /// Records that a receiver has every record up to `cursor`. The cursor never falls.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be written. The receiver then gets some records again.
    pub fn set_delivered(&self, receiver: &str, cursor: u64) -> Result<(), LedgerError> {
        self.0.lock().set_delivered(receiver, cursor)
    }
}
