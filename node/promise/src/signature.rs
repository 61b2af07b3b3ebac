//! Signatures over secp256k1 with which the signer's address is recovered: `r`, `s` and `v`, 65
//! bytes. The digest is Keccak-256 of the message as it is, with no prefix.

use alloy_primitives::{Address, B256, keccak256};
use k256::ecdsa::{RecoveryId, Signature, SigningKey, VerifyingKey};

/// A signature as it travels.
pub type Bytes = [u8; 65];

/// What is wrong with a signature before it is held against anybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// Not 65 bytes.
    #[error("a signature has 65 bytes (r, s, v), but this has {0}")]
    Length(usize),
    /// `v` is none of the four that exist.
    #[error("the signature's last byte is {0}: it must be 27 or 28 (or 0 or 1)")]
    RecoveryByte(u8),
    /// `r` or `s` is zero or not below the order of the curve.
    #[error("the signature's r or s is out of range")]
    Range,
    /// The second spelling of a signature, which contracts refuse.
    #[error("the signature's s is in the upper half: contracts refuse it; send the lower one")]
    HighS,
    /// No key can have made it.
    #[error("the signature does not belong to any key")]
    NoKey,
}

/// The address whose key signed the digest. Takes `v` as 27 or 28, and as 0 or 1.
///
/// # Errors
///
/// When the bytes are no signature; see [`SignatureError`].
pub fn recover(digest: &B256, signature: &[u8]) -> Result<Address, SignatureError> {
    let bytes: &Bytes =
        signature.try_into().map_err(|_| SignatureError::Length(signature.len()))?;
    let recovery = match bytes[64] {
        0 | 27 => RecoveryId::new(false, false),
        1 | 28 => RecoveryId::new(true, false),
        other => return Err(SignatureError::RecoveryByte(other)),
    };
    let pair = Signature::from_slice(&bytes[..64]).map_err(|_| SignatureError::Range)?;
    if pair.normalize_s().is_some() {
        return Err(SignatureError::HighS);
    }
    let key = VerifyingKey::recover_from_prehash(digest.as_slice(), &pair, recovery)
        .map_err(|_| SignatureError::NoKey)?;
    Ok(address_of(&key))
}

/// Signs a digest: deterministic (RFC 6979), `s` in the lower half, `v` 27 or 28.
///
/// # Errors
///
/// Only for a digest that no nonce fits, which nobody has ever seen.
pub fn sign(digest: &B256, key: &SigningKey) -> Result<Bytes, SignatureError> {
    let (pair, recovery) =
        key.sign_prehash_recoverable(digest.as_slice()).map_err(|_| SignatureError::Range)?;
    let mut bytes = [0; 65];
    bytes[..64].copy_from_slice(&pair.to_bytes());
    bytes[64] = 27 + u8::from(recovery.is_y_odd());
    Ok(bytes)
}

/// The address of a key: the last 20 bytes of the hash of its point.
#[must_use]
pub fn address_of(key: &VerifyingKey) -> Address {
    let point = key.to_encoded_point(false);
    // The first byte only says that the point is whole.
    let hash = keccak256(point.as_bytes().get(1..).unwrap_or_default());
    Address::from_word(hash)
}
