//! Usage records, signed so that the consumer and the payment layer can check them.

use std::{ops::Deref, path::Path};

use serde::{Deserialize, Serialize};

use weir_receipt::{Receipt, Signer};
use weir_wireguard::keys::{self, KeyFileError};

/// The file of the key, beside the ledger.
const FILE: &str = "receipt.key";

/// One usage record: a receipt with its place among the node's records. The receipt's numbers are
/// cumulative, so the latest record of a session replaces all earlier ones. (session, sequence) is
/// unique.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageRecord {
    /// The record's position among the records of this node. It rises and may skip numbers. It is not
    /// signed, and not for consumers: it says how many records the node has.
    pub cursor: u64,
    /// What is signed.
    #[serde(flatten)]
    pub receipt: Receipt,
}

impl Deref for UsageRecord {
    type Target = Receipt;

    fn deref(&self) -> &Receipt {
        &self.receipt
    }
}

impl UsageRecord {
    /// Whether the signature is by `signer` (base64), as the node's own answer names it.
    #[must_use]
    pub fn is_signed_by(&self, signer: &str) -> bool {
        self.receipt.verify(signer).is_ok()
    }
}

/// The node's key for usage records (Ed25519).
#[derive(Debug)]
pub(crate) struct RecordKey(Signer);

impl RecordKey {
    /// The key in `receipt.key` beside the ledger, made there (mode 0600) at the first start.
    ///
    /// # Errors
    ///
    /// When the file cannot be read or written, when others can read it, and when it has no key.
    pub(crate) fn beside(ledger: &Path) -> Result<Self, KeyFileError> {
        let (seed, _) = keys::load_or_create(&ledger.with_file_name(FILE))?;
        Ok(Self(Signer::from_seed(&seed.secret().to_bytes())))
    }

    /// Whether there is such a file already.
    #[must_use]
    pub(crate) fn is_beside(ledger: &Path) -> bool {
        ledger.with_file_name(FILE).exists()
    }

    /// The public half in base64.
    #[must_use]
    pub(crate) fn public(&self) -> &str {
        self.0.public()
    }

    /// Fills in who signs, and the signature.
    #[must_use]
    pub(crate) fn sign(&self, record: UsageRecord) -> UsageRecord {
        UsageRecord { receipt: self.0.sign(record.receipt), ..record }
    }
}
