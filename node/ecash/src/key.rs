//! The key that tokens are locked to.

use cashu::{Proof, PublicKey, SecretKey};
use zeroize::Zeroizing;

/// The node's own key for ecash. Anyone who has it can spend the tokens that are not exchanged yet.
#[derive(Clone)]
pub struct LockKey(SecretKey);

/// The text is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is not 64 hex digits of a secp256k1 key")]
pub struct NotAKey;

impl LockKey {
    /// A new key.
    #[must_use]
    pub fn random() -> Self {
        Self(SecretKey::generate())
    }

    /// The key of [`LockKey::to_hex`].
    ///
    /// # Errors
    ///
    /// When the text is none.
    pub fn parse(text: &str) -> Result<Self, NotAKey> {
        SecretKey::from_hex(text.trim()).map(Self).map_err(|_| NotAKey)
    }

    /// The key as hex digits.
    #[must_use]
    pub fn to_hex(&self) -> Zeroizing<String> {
        Zeroizing::new(self.0.to_secret_hex())
    }

    /// The public half, which tokens are locked to: 66 hex digits.
    #[must_use]
    pub fn public(&self) -> String {
        self.0.public_key().to_hex()
    }

    pub(crate) fn public_key(&self) -> PublicKey {
        self.0.public_key()
    }

    /// Adds the signature by which the mint lets a proof be spent.
    pub(crate) fn sign(&self, proof: &mut Proof) -> Result<(), cashu::nut11::Error> {
        proof.sign_p2pk(self.0.clone())
    }
}

impl std::fmt::Debug for LockKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("LockKey").field(&self.public()).finish()
    }
}
