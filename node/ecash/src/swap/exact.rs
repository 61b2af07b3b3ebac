//! The exchange of a wallet's proofs for an exact amount, and for the change.

use cashu::{
    Amount, Kind, Nut10Secret, PublicKey, SecretKey, nut01::Keys, nuts::nut10::SecretData,
    secret::Secret,
};

use super::{Output, Outputs, SwapError, read};
use crate::{Keysets, LockKey};

/// The most proofs of a payment and of the change: a mint refuses requests that are much larger.
const MAX_OUTPUTS: usize = 100;
/// The highest fee that a payer bears for the redemption of a payment, in the mint's unit.
const MAX_REDEMPTION_FEE: u64 = 1000;

/// Who can spend a payment (NUT-11).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lock {
    /// The payee's public key: 66 hex digits.
    pub key: String,
    /// Who can take it back.
    pub refund: Option<Refund>,
}

/// Who can take a payment back, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refund {
    /// The Unix time from which the key below can spend it too.
    pub after: u64,
    /// A public key: 66 hex digits.
    pub key: String,
}

impl Lock {
    fn secret(&self) -> Result<Secret, SwapError> {
        let check = |key: &str| {
            let checked = PublicKey::from_hex(key).map(|key| key.to_hex());
            checked.map_err(|_| SwapError::NotAKey(key.chars().take(80).collect()))
        };
        let mut tags = Vec::new();
        if let Some(refund) = &self.refund {
            tags.push(vec!["locktime".to_owned(), refund.after.to_string()]);
            tags.push(vec!["refund".to_owned(), check(&refund.key)?]);
        }
        let data = SecretData::new(check(&self.key)?, (!tags.is_empty()).then_some(tags));
        let secret = Nut10Secret::new(Kind::P2PK, data).try_into();
        secret.map_err(|_| SwapError::NotAKey(self.key.clone()))
    }
}

impl Outputs {
    /// New outputs: `amount` to pay, locked if there is a lock, and the rest of these proofs (as JSON), less the
    /// mint's fee, as change.
    ///
    /// # Errors
    ///
    /// When the mint's keys are not known, the proofs are not worth that much, or the lock's key is none.
    pub fn exact<'a>(
        keysets: &Keysets,
        inputs: impl IntoIterator<Item = &'a str>,
        amount: u64,
        lock: Option<&Lock>,
    ) -> Result<Self, SwapError> {
        let (keyset, keys) = keysets.active().ok_or(SwapError::NoKeys)?;
        let inputs = read(inputs)?;
        let sum = inputs.iter().fold(0u64, |sum, proof| sum.saturating_add(proof.amount.to_u64()));
        let fee = keysets.fee(inputs.iter().map(|proof| &proof.keyset_id));
        let change = sum.checked_sub(fee).and_then(|left| left.checked_sub(amount));
        let change = change.ok_or(SwapError::NotEnough(fee))?;
        let mut outputs = Vec::new();
        for value in split(keys, amount)? {
            let secret = lock.map_or_else(|| Ok(Secret::generate()), Lock::secret)?;
            outputs.push(Output { amount: value, secret, r: SecretKey::generate(), paid: true });
        }
        for value in split(keys, change)? {
            let (secret, r) = (Secret::generate(), SecretKey::generate());
            outputs.push(Output { amount: value, secret, r, paid: false });
        }
        // Their order does not tell the mint which are the payment.
        outputs.sort_by_key(|output| output.amount);
        Ok(Self { keyset: keyset.info.id, outputs })
    }

    /// Of each output, in their order, whether it is part of the payment.
    pub fn are_paid(&self) -> impl Iterator<Item = bool> {
        self.outputs.iter().map(|output| output.paid)
    }

    /// The body of `POST /v1/swap` for inputs that anybody can spend.
    ///
    /// # Errors
    ///
    /// When what is stored cannot be read.
    pub fn open_swap_request<'a>(
        &self,
        inputs: impl IntoIterator<Item = &'a str>,
    ) -> Result<Vec<u8>, SwapError> {
        self.request(inputs, None)
    }
}

impl Keysets {
    /// The least amount that is worth at least `worth` after the mint's fee for its redemption.
    ///
    /// # Errors
    ///
    /// When the mint's keys are not known, or its fee is out of all proportion.
    pub fn amount_worth(&self, worth: u64) -> Result<u64, SwapError> {
        let (keyset, keys) = self.active().ok_or(SwapError::NoKeys)?;
        for amount in worth..=worth.saturating_add(MAX_REDEMPTION_FEE) {
            let proofs = split(keys, amount)?.len() as u64;
            let fee = proofs.saturating_mul(keyset.info.input_fee_ppk).div_ceil(1000);
            if amount.checked_sub(fee).is_some_and(|left| left >= worth) {
                return Ok(amount);
            }
        }
        Err(SwapError::TooSmall)
    }
}

/// An amount as values of a keyset: as few as possible.
fn split(keys: &Keys, amount: u64) -> Result<Vec<Amount>, SwapError> {
    let mut left = amount;
    let mut values = Vec::new();
    for value in keys.keys().keys().rev() {
        let size = value.to_u64();
        while size > 0 && left >= size && values.len() < MAX_OUTPUTS {
            left -= size;
            values.push(*value);
        }
    }
    match left {
        0 => Ok(values),
        _ => Err(SwapError::NoKeys),
    }
}

impl LockKey {
    /// A lock to a payee's key, with a refund to this one from this time on.
    #[must_use]
    pub fn lock_with_refund(&self, payee: &str, after: u64) -> Lock {
        let refund = Refund { after, key: self.public() };
        Lock { key: payee.to_owned(), refund: Some(refund) }
    }
}
