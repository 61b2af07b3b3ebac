//! Whether a token is worth something to this node, without asking anybody.

use std::{collections::BTreeSet, str::FromStr as _};

use cashu::{Proof, PublicKey, Token};
use ring::digest;
use serde::Deserialize;

use crate::{Keysets, LockKey};

/// The longest token, in bytes.
pub const MAX_TOKEN: usize = 32 * 1024;
/// The most proofs of a token. An amount of 32 bits has no more powers of two.
pub const MAX_PROOFS: usize = 32;
/// The longest secret of a proof, in bytes.
const MAX_SECRET: usize = 1024;

/// What a token is judged by.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    /// The key that it must be locked to.
    pub lock: &'a LockKey,
    /// The Unix time until which nobody else may be able to spend it.
    pub locked_until: u64,
}

/// A token that this node can exchange for its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The mint's URL, as [`crate::mint_url`] writes it.
    pub mint: String,
    /// A hash over the proofs: the same however the token is written.
    pub hash: [u8; 32],
    /// Its proofs.
    pub proofs: Vec<VerifiedProof>,
    /// What it is worth after the mint's fee.
    pub worth: u64,
}

/// One proof.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedProof {
    /// The point of its secret.
    pub y: [u8; 33],
    /// Its value.
    pub amount: u64,
    /// The proof as JSON.
    pub json: String,
}

/// Why a token is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is no token.
    #[error("this is not a Cashu token: paste all of it, from \"cashuB\" or \"cashuA\" on")]
    Unreadable,
    /// It is too long.
    #[error(
        "the token is longer than {MAX_TOKEN} bytes or has more than {MAX_PROOFS} proofs: send fewer at once"
    )]
    TooLong,
    /// It is of another mint.
    #[error("this node takes no tokens of that mint: see the payment request for its mints")]
    WrongMint,
    /// It is in another unit.
    #[error("the token is not in the unit {0:?}, which this node takes")]
    WrongUnit(String),
    /// The mint has no such keyset, as far as the node knows.
    #[error(
        "the token has a proof of a keyset that the node does not know: exchange it in the wallet, and send a new one"
    )]
    UnknownKeyset,
    /// The mint signs with it no more.
    #[error(
        "the token has a proof of a keyset that is no longer active: exchange it in the wallet, and send a new one"
    )]
    InactiveKeyset,
    /// The keyset has no such value.
    #[error("the token has a proof of a value that its keyset does not have")]
    WrongAmount,
    /// Nothing shows that the mint signed it.
    #[error("the token has a proof without a DLEQ proof (NUT-12): use a wallet that sends it")]
    NoDleq,
    /// The mint did not sign it.
    #[error("the token has a proof that the mint did not sign (NUT-12)")]
    BadDleq,
    /// Anybody can spend it.
    #[error("the token is not locked to the node's key (NUT-11): lock it to {0}")]
    NotLocked(String),
    /// Others can spend it, or this node alone cannot.
    #[error("the token is locked to another key (NUT-11): lock it to {0} alone")]
    WrongLock(String),
    /// Its conditions are not understood, or need more than this node's signature.
    #[error(
        "the token has a spending condition that this node does not take: lock it to the node's key and nothing else"
    )]
    Condition,
    /// It can be taken back too soon.
    #[error("the token can be taken back too soon: lock it without a refund, or for longer")]
    RefundTooEarly,
    /// The same proof is in it twice.
    #[error("the token has the same proof twice")]
    Duplicate,
    /// The mint's fee is all of it.
    #[error("the token is worth no more than the mint's fee for it: send more at once")]
    TooSmall,
}

impl Refusal {
    /// The refusal as a word, for programs.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Unreadable => "bad_token",
            Self::TooLong => "token_too_long",
            Self::WrongMint => "wrong_mint",
            Self::WrongUnit(_) => "wrong_unit",
            Self::UnknownKeyset => "unknown_keyset",
            Self::InactiveKeyset => "inactive_keyset",
            Self::WrongAmount => "wrong_amount",
            Self::NoDleq => "no_dleq",
            Self::BadDleq => "bad_dleq",
            Self::NotLocked(_) => "not_locked",
            Self::WrongLock(_) => "wrong_lock",
            Self::Condition => "bad_condition",
            Self::RefundTooEarly => "refund_too_early",
            Self::Duplicate => "duplicate_proof",
            Self::TooSmall => "too_small",
        }
    }
}

/// Judges a token. `keysets_of` knows the mints that are accepted, by their URL.
///
/// The cheap checks come first; the signatures of at most [`MAX_PROOFS`] proofs last.
///
/// # Errors
///
/// Says what is wrong with it.
pub fn verify<'k>(
    text: &str,
    keysets_of: impl FnOnce(&str) -> Option<&'k Keysets>,
    rules: &Rules<'_>,
) -> Result<Verified, Refusal> {
    let text = text.trim();
    if text.len() > MAX_TOKEN {
        return Err(Refusal::TooLong);
    }
    let token = Token::from_str(text).map_err(|_| Refusal::Unreadable)?;
    let mint = token.mint_url().map_err(|_| Refusal::WrongMint)?.to_string();
    let keysets = keysets_of(&mint).ok_or(Refusal::WrongMint)?;
    if token.unit().is_some_and(|unit| unit != *keysets.currency_unit()) {
        return Err(Refusal::WrongUnit(keysets.unit()));
    }
    let secrets = token.token_secrets();
    if secrets.is_empty() {
        return Err(Refusal::Unreadable);
    }
    if secrets.len() > MAX_PROOFS || secrets.iter().any(|secret| secret.len() > MAX_SECRET) {
        return Err(Refusal::TooLong);
    }
    let proofs = token.proofs(&keysets.infos()).map_err(|_| Refusal::UnknownKeyset)?;
    for proof in &proofs {
        check_lock(&proof.secret.to_string(), rules)?;
    }
    let mut points = BTreeSet::new();
    let mut verified = Vec::new();
    let mut sum = 0u64;
    for proof in &proofs {
        let checked = check_proof(proof, keysets)?;
        if !points.insert(checked.y) {
            return Err(Refusal::Duplicate);
        }
        sum = sum.checked_add(checked.amount).ok_or(Refusal::WrongAmount)?;
        verified.push(checked);
    }
    let fee = keysets.fee(proofs.iter().map(|proof| &proof.keyset_id));
    let worth = sum.checked_sub(fee).filter(|worth| *worth > 0).ok_or(Refusal::TooSmall)?;
    let mut hash = digest::Context::new(&digest::SHA256);
    points.iter().for_each(|y| hash.update(y));
    let mut bytes = [0; 32];
    bytes.copy_from_slice(hash.finish().as_ref());
    Ok(Verified { mint, hash: bytes, proofs: verified, worth })
}

/// Whether the mint signed a proof.
fn check_proof(proof: &Proof, keysets: &Keysets) -> Result<VerifiedProof, Refusal> {
    let keyset = keysets.get(&proof.keyset_id).ok_or(Refusal::UnknownKeyset)?;
    if !keyset.info.active {
        return Err(Refusal::InactiveKeyset);
    }
    let keys = keyset.keys.as_ref().ok_or(Refusal::UnknownKeyset)?;
    let key = keys.amount_key(proof.amount).ok_or(Refusal::WrongAmount)?;
    if proof.dleq.is_none() {
        return Err(Refusal::NoDleq);
    }
    proof.verify_dleq(key).map_err(|_| Refusal::BadDleq)?;
    let y = proof.y().map_err(|_| Refusal::BadDleq)?.to_bytes();
    let amount = proof.amount.to_u64();
    let stored = Proof { witness: None, dleq: None, p2pk_e: None, ..proof.clone() };
    let json = serde_json::to_string(&stored).map_err(|_| Refusal::Unreadable)?;
    Ok(VerifiedProof { y, amount, json })
}

/// What a locked proof's secret says (NUT-10), and nothing beside that.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Lock {
    #[serde(rename = "nonce")]
    _nonce: String,
    data: String,
    #[serde(default)]
    tags: Option<Vec<Vec<String>>>,
}

/// Whether this node, and until [`Rules::locked_until`] nobody else, can spend what has this secret. It takes only
/// what it understands fully: the mint must come to the same conclusion.
fn check_lock(secret: &str, rules: &Rules<'_>) -> Result<(), Refusal> {
    let ours = rules.lock.public_key();
    let not_locked = || Refusal::NotLocked(ours.to_hex());
    if !secret.trim_start().starts_with('[') {
        return Err(not_locked());
    }
    let (kind, lock): (String, Lock) =
        serde_json::from_str(secret).map_err(|_| Refusal::Condition)?;
    if kind != "P2PK" {
        return Err(Refusal::Condition);
    }
    let key = PublicKey::from_hex(&lock.data).map_err(|_| Refusal::Condition)?;
    // Signatures are checked with the x coordinate alone, and some wallets store only that.
    if key.x_only_public_key() != ours.x_only_public_key() {
        return Err(Refusal::WrongLock(ours.to_hex()));
    }
    let mut seen = BTreeSet::new();
    let mut locktime = None;
    for tag in lock.tags.iter().flatten() {
        let Some((name, values)) = tag.split_first() else { return Err(Refusal::Condition) };
        if !seen.insert(name.as_str()) {
            return Err(Refusal::Condition);
        }
        match (name.as_str(), values) {
            ("sigflag", [flag]) if flag == "SIG_INPUTS" => {}
            ("n_sigs", [one]) if one == "1" => {}
            ("locktime", [time]) => {
                let time = time.parse::<u64>().map_err(|_| Refusal::Condition)?;
                locktime = Some(time);
            }
            // After the time they can take it back; before it they cannot.
            ("refund", keys) if keys.len() <= 8 => {}
            ("n_sigs_refund", [_]) => {}
            ("pubkeys", [_, ..]) => return Err(Refusal::WrongLock(ours.to_hex())),
            _ => return Err(Refusal::Condition),
        }
    }
    // Without a refund key, anybody can spend it after the time.
    if locktime.is_some_and(|time| time < rules.locked_until) {
        return Err(Refusal::RefundTooEarly);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
