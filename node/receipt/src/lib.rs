//! Usage receipts: what a node signs about a session's use, and how anybody verifies it.
//!
//! The signed text is here and nowhere else (`docs/payments.md`, "The signature"). The node's ledger
//! signs it, and consumers and payment layers verify it. No I/O, no clock.
#![deny(unsafe_code)]

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use serde::{Deserialize, Serialize};

/// The form of receipts that this weir writes and reads.
pub const VERSION: u32 = 1;

/// The longest text in a receipt that is believed, in bytes.
const MAX_TEXT: usize = 256;

/// What a session has used since it was created, by the node's own account. Its numbers are
/// cumulative, so the latest receipt of a session replaces all earlier ones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The form: [`VERSION`].
    pub version: u32,
    /// The session's identifier.
    pub session: String,
    /// What the operator or the payment layer calls the session.
    pub consumer: Option<String>,
    /// The consumer's WireGuard key in base64.
    pub public_key: String,
    /// 1 for the session's first receipt, then one more for each.
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
    /// The node's Ed25519 key for receipts, in base64.
    pub signer: String,
    /// By that key over [`Receipt::signed_text`], in base64.
    pub signature: String,
}

/// Why a receipt proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotSigned {
    /// It is of a form that is not known here.
    #[error("is of a form that this weir does not know")]
    Version,
    /// A text in it cannot be part of the signed text.
    #[error("has a text that is empty, too long or not on one line")]
    Text,
    /// Another key than the node's.
    #[error("is signed by another key than this node's")]
    Signer,
    /// The signature is not of this receipt.
    #[error("has a wrong signature")]
    Signature,
}

impl Receipt {
    /// What the signature is over: every field but the signature, one a line.
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

    /// Whether the key `signer` (base64) has signed exactly this.
    ///
    /// # Errors
    ///
    /// Says why it has not.
    pub fn verify(&self, signer: &str) -> Result<(), NotSigned> {
        if self.version != VERSION {
            return Err(NotSigned::Version);
        }
        // A line end would make two receipts one text.
        let texts = [&self.session, &self.public_key, &self.signer];
        let optional = [&self.consumer, &self.end_reason];
        let is_line = |text: &String| {
            (1..=MAX_TEXT).contains(&text.len()) && !text.chars().any(char::is_control)
        };
        if !texts.into_iter().chain(optional.into_iter().flatten()).all(is_line) {
            return Err(NotSigned::Text);
        }
        if self.signer != signer {
            return Err(NotSigned::Signer);
        }
        let (Ok(key), Ok(signature)) = (STANDARD.decode(signer), STANDARD.decode(&self.signature))
        else {
            return Err(NotSigned::Signature);
        };
        let text = self.signed_text();
        let verified = UnparsedPublicKey::new(&ED25519, key).verify(text.as_bytes(), &signature);
        verified.map_err(|_| NotSigned::Signature)
    }

    /// Billed bytes of both directions.
    #[must_use]
    pub const fn billed(&self) -> u64 {
        self.bytes_up.saturating_add(self.bytes_down)
    }

    /// The first number that is lower than in an earlier receipt of the same session, by name: its
    /// value before, and now.
    #[must_use]
    pub fn falls_behind(&self, earlier: &Self) -> Option<(&'static str, u64, u64)> {
        let values = |receipt: &Self| {
            [
                ("sequence", receipt.sequence),
                ("bytes_up", receipt.bytes_up),
                ("packets_up", receipt.packets_up),
                ("bytes_down", receipt.bytes_down),
                ("packets_down", receipt.packets_down),
                ("seconds", receipt.seconds),
                ("last_activity", receipt.last_activity),
            ]
        };
        let pairs = values(earlier).into_iter().zip(values(self));
        pairs
            .map(|((name, before), (_, now))| (name, before, now))
            .find(|(_, before, now)| now < before)
    }
}

/// A node's key for receipts.
pub struct Signer {
    pair: Ed25519KeyPair,
    public: String,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Signer").field(&self.public).finish()
    }
}

impl Signer {
    /// The key of this seed.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).expect("any 32 bytes are a seed");
        let public = STANDARD.encode(pair.public_key());
        Self { pair, public }
    }

    /// The public half in base64.
    #[must_use]
    pub fn public(&self) -> &str {
        &self.public
    }

    /// Fills in who signs, and the signature.
    #[must_use]
    pub fn sign(&self, receipt: Receipt) -> Receipt {
        let mut receipt = Receipt { signer: self.public.clone(), ..receipt };
        receipt.signature = STANDARD.encode(self.pair.sign(receipt.signed_text().as_bytes()));
        receipt
    }
}

/// Whether a text can be a node's public key for receipts: 32 bytes in base64.
#[must_use]
pub fn is_signer(text: &str) -> bool {
    STANDARD.decode(text).is_ok_and(|key| key.len() == 32)
}

/// What a node's gateway answers to the session's own consumer at `GET /v1/session/receipt`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The node's public key for receipts, in base64.
    pub signer: String,
    /// The session's latest receipt; null before the first one.
    pub receipt: Option<Receipt>,
}

#[cfg(test)]
mod tests;
