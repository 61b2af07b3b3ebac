//! Set reconciliation (NIP-77): which events one side has and the other lacks, in a few messages.

use negentropy::{Id, Negentropy, NegentropyStorageVector};
use serde_json::json;

/// The longest message of a reconciliation, in bytes. In hex it is twice as long.
pub const MAX_FRAME: u64 = 32 * 1024;

/// A peer's reconciliation with this registry.
pub(super) struct Reconciliation {
    id: String,
    set: Negentropy<'static, NegentropyStorageVector>,
}

/// The set of these events: when they were created, and their identifiers.
///
/// # Errors
///
/// When the library cannot make it, which does not happen.
pub fn vector(
    items: impl Iterator<Item = (u64, [u8; 32])>,
) -> Result<NegentropyStorageVector, negentropy::Error> {
    let mut set = NegentropyStorageVector::new();
    for (created_at, id) in items {
        set.insert(created_at, Id::from_byte_array(id))?;
    }
    set.seal()?;
    Ok(set)
}

impl Reconciliation {
    pub(super) fn open(
        id: &str,
        items: impl Iterator<Item = (u64, [u8; 32])>,
    ) -> Result<Self, negentropy::Error> {
        let set = Negentropy::owned(vector(items)?, MAX_FRAME)?;
        Ok(Self { id: id.to_owned(), set })
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// The answer to a message of the peer's.
    pub(super) fn step(&mut self, message: &str) -> String {
        let done = from_hex(message).and_then(|query| self.set.reconcile(&query).ok());
        match done {
            Some(answer) => json!(["NEG-MSG", self.id, to_hex(&answer)]).to_string(),
            None => super::neg_error(&self.id, "invalid: this is not a message of NIP-77"),
        }
    }
}

/// Bytes in hex.
#[must_use]
pub(crate) fn to_hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a string does not fail.
        write!(text, "{byte:02x}").ok();
    }
    text
}

/// Reads bytes in hex.
#[must_use]
pub(crate) fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pair = |pair: &[u8]| match pair {
        &[high, low] => Some(digit(high)? << 4 | digit(low)?),
        _ => None,
    };
    text.as_bytes().chunks(2).map(pair).collect()
}
