//! An exchange message: a promise, and what it is for.

use alloy_primitives::{Address, B256, U256, keccak256};
use k256::ecdsa::SigningKey;

use super::{
    promise::{Promise, word},
    signature::{self, SignatureError},
};

/// The consumer's answer to an invoice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExchangeMessage {
    /// The promise, signed by itself.
    pub promise: Promise,
    /// The session's agreement.
    pub agreement_id: U256,
    /// What the agreement has cost so far, in wei.
    pub agreement_total: U256,
    /// The node's address.
    pub provider: Address,
    /// The hub through which it is settled; some messages name none.
    pub hermes: Option<Address>,
    /// The chain.
    pub chain_id: u64,
    /// By the consumer's key, over all of the above.
    pub signature: signature::Bytes,
}

impl ExchangeMessage {
    /// What is signed.
    #[must_use]
    pub fn hash(&self) -> B256 {
        let mut message = Vec::with_capacity(168);
        message.extend(word(self.chain_id));
        message.extend(self.promise.hash());
        message.extend(self.agreement_id.to_be_bytes::<32>());
        message.extend(self.agreement_total.to_be_bytes::<32>());
        message.extend(self.provider);
        if let Some(hermes) = self.hermes {
            message.extend(hermes);
        }
        keccak256(message)
    }

    /// The message with its signature by `key`. The promise's is its own.
    ///
    /// # Errors
    ///
    /// See [`signature::sign`].
    pub fn signed(self, key: &SigningKey) -> Result<Self, SignatureError> {
        Ok(Self { signature: signature::sign(&self.hash(), key)?, ..self })
    }

    /// Whose message it is.
    ///
    /// # Errors
    ///
    /// When the signature is none.
    pub fn signer(&self) -> Result<Address, SignatureError> {
        signature::recover(&self.hash(), &self.signature)
    }
}
