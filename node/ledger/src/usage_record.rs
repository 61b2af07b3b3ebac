//! Usage records, signed so that the consumer and the payment layer can check them.

use std::path::Path;

use serde::{Deserialize, Serialize};

use weir_receipt::{Receipt, Signer};
use weir_wireguard::keys::{self, KeyFileError};

/// The file of the key, beside the ledger.
const FILE: &str = "receipt.key";

/// One usage record. Its numbers are cumulative, so the latest record of a session replaces all
/// earlier ones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageRecord {
    /// The record's position among the records of this node. It rises and may skip numbers. It is not
    /// signed.
    pub cursor: u64,
    /// The form of the record: 1.
    pub version: u32,
    /// The session's identifier.
    pub session: String,
    /// What the operator or the payment layer calls the session.
    pub consumer: Option<String>,
    /// The consumer's WireGuard key in base64.
    pub public_key: String,
    /// 1 for the session's first record, then one more for each. (session, sequence) is unique.
    pub sequence: u64,
    /// Billed bytes from the consumer.
    pub bytes_up: u64,
    /// Data messages from the consumer.
    pub packets_up: u64,
    /// Billed bytes to the consumer.
    pub bytes_down: u64,
    /// Data messages to the consumer.
    pub packets_down: u64,
    /// Seconds for which the session was open.
    pub seconds: u64,
    /// When the session was made, in seconds since 1970.
    pub start: u64,
    /// When traffic was last counted, in seconds since 1970; the start if never.
    pub last_activity: u64,
    /// Why the session ended; absent while it lives.
    pub end_reason: Option<String>,
    /// The node's Ed25519 key for records, in base64.
    pub signer: String,
    /// By that key over [`Receipt::signed_text`], in base64.
    pub signature: String,
}

impl UsageRecord {
    /// What is signed of it, for the consumer: everything but the cursor, which says how many records
    /// the node has.
    #[must_use]
    pub fn receipt(&self) -> Receipt {
        Receipt {
            version: self.version,
            session: self.session.clone(),
            consumer: self.consumer.clone(),
            public_key: self.public_key.clone(),
            sequence: self.sequence,
            bytes_up: self.bytes_up,
            packets_up: self.packets_up,
            bytes_down: self.bytes_down,
            packets_down: self.packets_down,
            seconds: self.seconds,
            start: self.start,
            last_activity: self.last_activity,
            end_reason: self.end_reason.clone(),
            signer: self.signer.clone(),
            signature: self.signature.clone(),
        }
    }

    /// Whether the signature is by `signer` (base64), as the node's own answer names it.
    #[must_use]
    pub fn is_signed_by(&self, signer: &str) -> bool {
        self.receipt().verify(signer).is_ok()
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
        let Receipt { signer, signature, .. } = self.0.sign(record.receipt());
        UsageRecord { signer, signature, ..record }
    }
}
