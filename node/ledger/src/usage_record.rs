//! Usage records, signed so that the consumer and the payment layer can check them.

use std::path::Path;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use serde::{Deserialize, Serialize};

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
    /// By that key over [`UsageRecord::signed_text`], in base64.
    pub signature: String,
}

impl UsageRecord {
    /// What the signature is over: every field but the cursor and the signature, one a line.
    /// No value can have a line end in it.
    #[must_use]
    pub fn signed_text(&self) -> String {
        format!(
            "weir usage {}\nsession={}\nconsumer={}\npublic_key={}\nsequence={}\nbytes_up={}\n\
             packets_up={}\nbytes_down={}\npackets_down={}\nseconds={}\nstart={}\n\
             last_activity={}\nend_reason={}\nsigner={}\n",
            self.version,
            self.session,
            self.consumer.as_deref().unwrap_or_default(),
            self.public_key,
            self.sequence,
            self.bytes_up,
            self.packets_up,
            self.bytes_down,
            self.packets_down,
            self.seconds,
            self.start,
            self.last_activity,
            self.end_reason.as_deref().unwrap_or_default(),
            self.signer,
        )
    }

    /// Whether the signature is by `signer` (base64), as the node's own answer names it.
    #[must_use]
    pub fn is_signed_by(&self, signer: &str) -> bool {
        let (Ok(key), Ok(signature)) =
            (STANDARD.decode(&self.signer), STANDARD.decode(&self.signature))
        else {
            return false;
        };
        let text = self.signed_text();
        self.signer == signer
            && UnparsedPublicKey::new(&ED25519, key).verify(text.as_bytes(), &signature).is_ok()
    }
}

/// The node's key for usage records (Ed25519).
pub(crate) struct RecordKey {
    pair: Ed25519KeyPair,
    public: String,
}

impl std::fmt::Debug for RecordKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("RecordKey").field(&self.public).finish()
    }
}

impl RecordKey {
    /// The key in `receipt.key` beside the ledger, made there (mode 0600) at the first start.
    ///
    /// # Errors
    ///
    /// When the file cannot be read or written, when others can read it, and when it has no key.
    pub(crate) fn beside(ledger: &Path) -> Result<Self, KeyFileError> {
        let (seed, _) = keys::load_or_create(&ledger.with_file_name(FILE))?;
        Ok(Self::new(&seed.secret().to_bytes()))
    }

    /// Whether there is such a file already.
    #[must_use]
    pub(crate) fn is_beside(ledger: &Path) -> bool {
        ledger.with_file_name(FILE).exists()
    }

    fn new(seed: &[u8; 32]) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).expect("any 32 bytes are a seed");
        let public = STANDARD.encode(pair.public_key());
        Self { pair, public }
    }

    /// The public half in base64.
    #[must_use]
    pub(crate) fn public(&self) -> &str {
        &self.public
    }

    /// Fills in who signs, and the signature.
    #[must_use]
    pub(crate) fn sign(&self, record: UsageRecord) -> UsageRecord {
        let mut record = UsageRecord { signer: self.public.clone(), ..record };
        record.signature = STANDARD.encode(self.pair.sign(record.signed_text().as_bytes()));
        record
    }
}
