//! A promise: "the channel owes so much to whoever shows the preimage of this hash".

use alloy_primitives::{Address, B256, U256, keccak256};
use k256::ecdsa::SigningKey;

use super::signature::{self, SignatureError};

/// A consumer's promise, signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Promise {
    /// The chain on which it can be settled.
    pub chain_id: u64,
    /// The channel: a consumer's is an address with twelve zero bytes before it.
    pub channel_id: B256,
    /// What the channel has promised since it exists, in wei. Only rises.
    pub amount: U256,
    /// What the one who settles it gets, in wei.
    pub fee: U256,
    /// Keccak-256 of the preimage R, which the node shows once it accepts the promise.
    pub hashlock: B256,
    /// By the consumer's key.
    pub signature: signature::Bytes,
}

/// A field has the wrong length. The hash pads and never cuts, so nothing else would notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LengthError {
    /// The channel's identifier.
    #[error("the promise's channel has {0} bytes: it must have 20 (an address) or 32")]
    Channel(usize),
    /// The hashlock.
    #[error("the promise's hashlock has {0} bytes: it must have 32")]
    Hashlock(usize),
}

/// A channel's identifier of 20 or 32 bytes.
///
/// # Errors
///
/// For any other length.
pub fn channel_id(bytes: &[u8]) -> Result<B256, LengthError> {
    match bytes.len() {
        20 => Ok(Address::from_slice(bytes).into_word()),
        32 => Ok(B256::from_slice(bytes)),
        other => Err(LengthError::Channel(other)),
    }
}

/// A hashlock of 32 bytes.
///
/// # Errors
///
/// For any other length.
pub fn hashlock(bytes: &[u8]) -> Result<B256, LengthError> {
    B256::try_from(bytes).map_err(|_| LengthError::Hashlock(bytes.len()))
}

/// A number as contracts have it.
pub(super) fn word(number: u64) -> [u8; 32] {
    U256::from(number).to_be_bytes()
}

impl Promise {
    /// What is signed.
    #[must_use]
    pub fn hash(&self) -> B256 {
        let mut message = [0; 160];
        let parts = [
            word(self.chain_id),
            self.channel_id.0,
            self.amount.to_be_bytes(),
            self.fee.to_be_bytes(),
            self.hashlock.0,
        ];
        for (place, part) in message.as_chunks_mut::<32>().0.iter_mut().zip(parts) {
            *place = part;
        }
        keccak256(message)
    }

    /// The promise with its signature by `key`.
    ///
    /// # Errors
    ///
    /// See [`signature::sign`].
    pub fn signed(self, key: &SigningKey) -> Result<Self, SignatureError> {
        Ok(Self { signature: signature::sign(&self.hash(), key)?, ..self })
    }

    /// Whose promise it is.
    ///
    /// # Errors
    ///
    /// When the signature is none.
    pub fn signer(&self) -> Result<Address, SignatureError> {
        signature::recover(&self.hash(), &self.signature)
    }
}
