//! The exchange of proofs at their mint.

use cashu::{
    Amount, BlindSignature, BlindedMessage, CheckStateRequest, CheckStateResponse, Id, MintUrl,
    Proof, PublicKey, RestoreRequest, RestoreResponse, SecretKey, State, SwapRequest, SwapResponse,
    Token,
    dhke::{blind_message, construct_proofs},
    secret::Secret,
};
use serde::{Deserialize, Serialize};
use std::str::FromStr as _;

use crate::{Keysets, LockKey};

/// Why proofs cannot be exchanged.
#[derive(Debug, thiserror::Error)]
pub enum SwapError {
    /// The mint's keys are not known.
    #[error("the mint's active keyset is not known yet")]
    NoKeys,
    /// The fee is all of it.
    #[error("the mint's fee is no less than the proofs' value")]
    TooSmall,
    /// What is stored or what the mint sent is not in the format.
    #[error("it cannot be read: {0}")]
    Unreadable(#[from] serde_json::Error),
    /// The proofs are worth less than what is to be paid, after the mint's fee.
    #[error("the proofs are worth less than the payment and the mint's fee of {0}")]
    NotEnough(u64),
    /// The key to lock to is none.
    #[error("{0:?} is not a public key: 66 hex digits of a secp256k1 key")]
    NotAKey(String),
    /// The mint's signatures are not for what was sent.
    #[error("the mint's signatures do not fit: {0}")]
    WrongSignatures(String),
    /// A proof cannot be signed.
    #[error("a proof cannot be signed: {0}")]
    Sign(#[from] cashu::nut11::Error),
}

/// What proofs are exchanged for: new secrets, blinded. Stored before the mint sees them, because with them a lost
/// answer can be asked for again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outputs {
    keyset: Id,
    outputs: Vec<Output>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Output {
    amount: Amount,
    secret: Secret,
    r: SecretKey,
    /// Whether it is part of a payment to somebody else, and not change.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    paid: bool,
}

mod exact;
pub use exact::{Lock, Refund};

impl Outputs {
    /// New outputs, worth these proofs (as JSON) less the mint's fee.
    ///
    /// # Errors
    ///
    /// When the mint's keys are not known, or nothing would remain.
    pub fn new<'a>(
        keysets: &Keysets,
        inputs: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, SwapError> {
        let (keyset, keys) = keysets.active().ok_or(SwapError::NoKeys)?;
        let inputs = read(inputs)?;
        let sum = inputs.iter().fold(0u64, |sum, proof| sum.saturating_add(proof.amount.to_u64()));
        let fee = keysets.fee(inputs.iter().map(|proof| &proof.keyset_id));
        let mut left = sum.checked_sub(fee).filter(|left| *left > 0).ok_or(SwapError::TooSmall)?;
        let mut outputs = Vec::new();
        for amount in keys.keys().keys().rev() {
            let value = amount.to_u64();
            // Bounded: with one key of 1 alone it is as long as the sum, which the mint would refuse.
            while value > 0 && left >= value && outputs.len() < 1000 {
                left -= value;
                let (secret, r) = (Secret::generate(), SecretKey::generate());
                outputs.push(Output { amount: *amount, secret, r, paid: false });
            }
        }
        if left > 0 {
            return Err(SwapError::NoKeys);
        }
        // In the order of their values, which tells nothing of the secrets' order.
        outputs.reverse();
        Ok(Self { keyset: keyset.info.id, outputs })
    }

    /// As it is stored.
    ///
    /// # Errors
    ///
    /// When JSON cannot be written, which does not happen.
    pub fn to_json(&self) -> Result<String, SwapError> {
        Ok(serde_json::to_string(self)?)
    }

    /// What was stored.
    ///
    /// # Errors
    ///
    /// When the text is nothing of the kind.
    pub fn from_json(json: &str) -> Result<Self, SwapError> {
        Ok(serde_json::from_str(json)?)
    }

    fn blinded(&self) -> Result<Vec<BlindedMessage>, SwapError> {
        let blind = |output: &Output| {
            let blinded = blind_message(output.secret.as_bytes(), Some(output.r.clone()));
            let (blinded, _) = blinded.map_err(|e| SwapError::WrongSignatures(e.to_string()))?;
            Ok(BlindedMessage::new(output.amount, self.keyset, blinded))
        };
        self.outputs.iter().map(blind).collect()
    }

    /// The body of `POST /v1/swap`, with the node's signature on each input.
    ///
    /// # Errors
    ///
    /// When what is stored cannot be read.
    pub fn swap_request<'a>(
        &self,
        inputs: impl IntoIterator<Item = &'a str>,
        key: &LockKey,
    ) -> Result<Vec<u8>, SwapError> {
        self.request(inputs, Some(key))
    }

    fn request<'a>(
        &self,
        inputs: impl IntoIterator<Item = &'a str>,
        key: Option<&LockKey>,
    ) -> Result<Vec<u8>, SwapError> {
        let mut inputs = read(inputs)?;
        for proof in &mut inputs {
            // The blinding factor in it would tell the mint which of its signatures this is.
            proof.dleq = None;
            key.map_or(Ok(()), |key| key.sign(proof))?;
        }
        Ok(serde_json::to_vec(&SwapRequest::new(inputs, self.blinded()?))?)
    }

    /// The body of `POST /v1/restore`.
    ///
    /// # Errors
    ///
    /// When what is stored cannot be read.
    pub fn restore_request(&self) -> Result<Vec<u8>, SwapError> {
        Ok(serde_json::to_vec(&RestoreRequest { outputs: self.blinded()? })?)
    }

    /// The new proofs, each a value and JSON, out of the mint's answer to the swap.
    ///
    /// # Errors
    ///
    /// When the answer is not that.
    pub fn open(&self, keysets: &Keysets, answer: &[u8]) -> Result<Vec<(u64, String)>, SwapError> {
        let answer: SwapResponse = serde_json::from_slice(answer)?;
        self.unblind(keysets, answer.signatures)
    }

    /// The same out of the answer to the request to restore; `None` if the mint has not signed them.
    ///
    /// # Errors
    ///
    /// When the answer is not that.
    pub fn open_restored(
        &self,
        keysets: &Keysets,
        answer: &[u8],
    ) -> Result<Option<Vec<(u64, String)>>, SwapError> {
        let answer: RestoreResponse = serde_json::from_slice(answer)?;
        if answer.signatures.len() < self.outputs.len() {
            return Ok(None);
        }
        let mut signatures = Vec::new();
        for message in self.blinded()? {
            let same = |it: &&BlindedMessage| it.blinded_secret == message.blinded_secret;
            let place = answer.outputs.iter().position(|it| same(&it));
            let Some(signature) = place.and_then(|place| answer.signatures.get(place)) else {
                return Ok(None);
            };
            signatures.push(signature.clone());
        }
        self.unblind(keysets, signatures).map(Some)
    }

    fn unblind(
        &self,
        keysets: &Keysets,
        signatures: Vec<BlindSignature>,
    ) -> Result<Vec<(u64, String)>, SwapError> {
        let wrong = |what: &str| SwapError::WrongSignatures(what.to_owned());
        let keys = keysets.get(&self.keyset).and_then(|set| set.keys.as_ref());
        let keys = keys.ok_or(SwapError::NoKeys)?;
        if signatures.len() != self.outputs.len() {
            return Err(wrong("there are more or fewer than outputs"));
        }
        for ((signature, message), output) in
            signatures.iter().zip(self.blinded()?).zip(&self.outputs)
        {
            if (signature.amount, signature.keyset_id) != (output.amount, self.keyset) {
                return Err(wrong("another value or keyset"));
            }
            let key = keys.amount_key(output.amount).ok_or(SwapError::NoKeys)?;
            // A mint without NUT-12 could not have been paid with either.
            signature
                .verify_dleq(key, message.blinded_secret)
                .map_err(|_| wrong("one is not by the mint's key"))?;
        }
        let rs = self.outputs.iter().map(|output| output.r.clone()).collect();
        let secrets = self.outputs.iter().map(|output| output.secret.clone()).collect();
        let proofs = construct_proofs(signatures, rs, secrets, keys)
            .map_err(|error| SwapError::WrongSignatures(error.to_string()))?;
        let json = |proof: &Proof| Ok((proof.amount.to_u64(), serde_json::to_string(proof)?));
        proofs.iter().map(json).collect()
    }
}

fn read<'a>(proofs: impl IntoIterator<Item = &'a str>) -> Result<Vec<Proof>, SwapError> {
    let proofs: Result<_, _> = proofs.into_iter().map(serde_json::from_str).collect();
    Ok(proofs?)
}

/// What a mint says of a proof (NUT-07).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpentState {
    /// It can be exchanged.
    Unspent,
    /// It was.
    Spent,
    /// The mint is at it.
    Pending,
}

/// The body of `POST /v1/checkstate`.
///
/// # Errors
///
/// When one of them is no point.
pub fn check_request(points: &[[u8; 33]]) -> Result<Vec<u8>, SwapError> {
    let wrong = |error: cashu::nut01::Error| SwapError::WrongSignatures(error.to_string());
    let ys: Result<_, _> = points.iter().map(|y| PublicKey::from_slice(y)).collect();
    Ok(serde_json::to_vec(&CheckStateRequest { ys: ys.map_err(wrong)? })?)
}

/// What the mint answers to [`check_request`], in the order of `points`.
///
/// # Errors
///
/// When the answer does not name each of them.
pub fn check_response(points: &[[u8; 33]], answer: &[u8]) -> Result<Vec<SpentState>, SwapError> {
    let answer: CheckStateResponse = serde_json::from_slice(answer)?;
    let state = |y: &[u8; 33]| {
        let found = answer.states.iter().find(|state| state.y.to_bytes() == *y);
        let found = found.ok_or_else(|| SwapError::WrongSignatures("a proof is missing".into()));
        Ok(match found?.state {
            State::Unspent => SpentState::Unspent,
            State::Spent => SpentState::Spent,
            State::Pending | State::Reserved | State::PendingSpent => SpentState::Pending,
        })
    };
    points.iter().map(state).collect()
}

/// A token for a wallet out of proofs (as JSON). Anyone who has it can spend it.
///
/// # Errors
///
/// When one of them cannot be read, or the mint's URL is none.
pub fn wallet_token<'a>(
    mint: &str,
    unit: &str,
    proofs: impl IntoIterator<Item = &'a str>,
) -> Result<String, SwapError> {
    let wrong = |error: cashu::mint_url::Error| SwapError::WrongSignatures(error.to_string());
    let mint = MintUrl::from_str(mint).map_err(wrong)?;
    let unit = Keysets::new(unit).currency_unit().clone();
    Ok(Token::new(mint, read(proofs)?, None, unit).to_string())
}

#[cfg(test)]
mod tests;
