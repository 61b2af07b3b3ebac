//! What a wallet does with tokens and proofs, without I/O.

use std::{collections::BTreeSet, str::FromStr as _};

use cashu::{CurrencyUnit, Id, Proof, Token};
use ring::digest;
use serde::{Deserialize, Serialize};

use crate::{Keysets, SwapError};

/// The longest token that a wallet reads, in bytes.
const MAX_TOKEN: usize = 128 * 1024;
/// The largest amount of such a token: what programs in other languages count exactly too.
const MAX_AMOUNT: u64 = 1 << 53;
/// The most proofs of such a token, and of a payment's inputs.
const MAX_PROOFS: usize = 128;
/// The number of a purse's proofs above which small ones are exchanged together with a payment.
const MANY_PROOFS: usize = 48;
/// The most small proofs that a payment takes along.
const MAX_SMALL: usize = 24;

/// A proof that a wallet holds.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// The point of its secret, in hex: its name at the mint.
    pub y: String,
    /// Its value.
    pub amount: u64,
    /// Its keyset.
    pub keyset: String,
    /// The proof as JSON. It is money.
    pub json: String,
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Held").field(&self.amount).finish()
    }
}

impl Held {
    /// A proof of its JSON.
    ///
    /// # Errors
    ///
    /// When it is no proof.
    pub fn read(json: &str) -> Result<Self, SwapError> {
        Self::of(&serde_json::from_str(json)?)
    }

    fn of(proof: &Proof) -> Result<Self, SwapError> {
        let y = proof.y().map_err(|error| SwapError::WrongSignatures(error.to_string()))?;
        Ok(Self {
            y: y.to_hex(),
            amount: proof.amount.to_u64(),
            keyset: proof.keyset_id.to_string(),
            json: serde_json::to_string(proof)?,
        })
    }

    /// The point, as [`crate::check_request`] takes it.
    #[must_use]
    pub fn point(&self) -> Option<[u8; 33]> {
        let mut bytes = [0; 33];
        for (byte, digits) in bytes.iter_mut().zip(self.y.as_bytes().chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        }
        (self.y.len() == 66).then_some(bytes)
    }

    /// The proof without what shows that the mint signed it. Who exchanges it needs no such evidence, and together
    /// with the mint could see from it when it was signed.
    ///
    /// # Errors
    ///
    /// When what is stored cannot be read.
    pub fn without_dleq(&self) -> Result<String, SwapError> {
        let proof: Proof = serde_json::from_str(&self.json)?;
        Ok(serde_json::to_string(&Proof { dleq: None, ..proof })?)
    }
}

/// Why a wallet cannot take a token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It is no token.
    #[error("this is not a Cashu token: paste all of it, from \"cashuB\" or \"cashuA\" on")]
    Unreadable,
    /// It is too long.
    #[error(
        "the token has more than {MAX_TOKEN} bytes or {MAX_PROOFS} proofs: have it sent in parts"
    )]
    TooLong,
    /// It is of several mints.
    #[error("the token has ecash of several mints: have it sent as one token for each mint")]
    SeveralMints,
    /// The mint does not have the keyset.
    #[error(
        "the token has ecash of a keyset that its mint does not name: the mint may have made a new start"
    )]
    UnknownKeyset,
    /// It can only be spent by somebody else.
    #[error(
        "the token is locked to a key (NUT-11) that this wallet does not have: have it sent without a lock"
    )]
    Locked,
    /// The same proof is in it twice.
    #[error("the token has the same proof twice: it is worth less than it says")]
    Duplicate,
}

/// A token as a wallet reads it. That the mint signed it is not known before it is exchanged.
#[derive(Clone, Debug)]
pub struct WalletToken {
    /// The mint's URL, as [`crate::mint_url`] writes it.
    pub mint: String,
    /// The unit.
    pub unit: String,
    /// What it says it is worth.
    pub amount: u64,
    token: Token,
}

impl WalletToken {
    /// Reads a token.
    ///
    /// # Errors
    ///
    /// When it is none, or none that a wallet can take.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        if text.len() > MAX_TOKEN {
            return Err(TokenError::TooLong);
        }
        let text = text.strip_prefix("cashu:").unwrap_or(text);
        let token = Token::from_str(text).map_err(|_| TokenError::Unreadable)?;
        let mint = token.mint_url().map_err(|_| TokenError::SeveralMints)?.to_string();
        let mint = crate::mint_url(&mint).ok_or(TokenError::Unreadable)?;
        let secrets = token.token_secrets();
        if secrets.is_empty() {
            return Err(TokenError::Unreadable);
        }
        if secrets.len() > MAX_PROOFS {
            return Err(TokenError::TooLong);
        }
        if secrets.iter().any(|secret| secret.to_string().trim_start().starts_with('[')) {
            return Err(TokenError::Locked);
        }
        let amount = token.value().map_err(|_| TokenError::Duplicate)?.to_u64();
        if amount > MAX_AMOUNT {
            return Err(TokenError::TooLong);
        }
        let unit = token.unit().unwrap_or(CurrencyUnit::Sat).to_string();
        Ok(Self { mint, unit, amount, token })
    }

    /// Its proofs. `keysets` are the mint's, because a token has but the beginning of a keyset's name.
    ///
    /// # Errors
    ///
    /// When it has an unknown keyset, or the same proof twice.
    pub fn proofs(&self, keysets: &Keysets) -> Result<Vec<Held>, TokenError> {
        let infos = keysets.infos();
        let proofs = self.token.proofs(&infos).map_err(|_| TokenError::UnknownKeyset)?;
        let mut points = BTreeSet::new();
        let mut held = Vec::new();
        for proof in proofs {
            if keysets.get(&proof.keyset_id).is_none() {
                return Err(TokenError::UnknownKeyset);
            }
            let proof = Proof { witness: None, dleq: None, p2pk_e: None, ..proof };
            let proof = Held::of(&proof).map_err(|_| TokenError::Unreadable)?;
            if !points.insert(proof.y.clone()) {
                return Err(TokenError::Duplicate);
            }
            held.push(proof);
        }
        Ok(held)
    }

    /// A hash of its secrets: the same however the token is written.
    #[must_use]
    pub fn hash(&self) -> String {
        let secrets: BTreeSet<_> =
            self.token.token_secrets().into_iter().map(ToString::to_string).collect();
        let mut hash = digest::Context::new(&digest::SHA256);
        for secret in secrets {
            hash.update(&(secret.len() as u64).to_be_bytes());
            hash.update(secret.as_bytes());
        }
        hash.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Chooses proofs that are worth at least `amount` after the mint's fee for exchanging them: places in `proofs`.
/// `None` if all of them together are not.
///
/// It takes few, because each costs. If there are many, it takes some of the smallest along, so that a purse does not
/// fill with them.
#[must_use]
pub fn choose(keysets: &Keysets, proofs: &[Held], amount: u64) -> Option<Vec<usize>> {
    let cost = |place: &usize| {
        let id = proofs.get(*place).and_then(|proof| Id::from_str(&proof.keyset).ok());
        id.and_then(|id| keysets.get(&id)).map_or(0, |set| set.info.input_fee_ppk)
    };
    let value = |place: &usize| proofs.get(*place).map_or(0, |proof| proof.amount);
    let enough = |chosen: &[usize]| {
        let sum = chosen.iter().map(value).fold(0u64, u64::saturating_add);
        let cost = chosen.iter().map(cost).fold(0u64, u64::saturating_add).div_ceil(1000);
        sum.checked_sub(cost).is_some_and(|left| left >= amount)
    };
    let mut places: Vec<_> = (0..proofs.len()).collect();
    // What costs more than it is worth stays.
    places.retain(|place| value(place).saturating_mul(1000) > cost(place));
    places.sort_by_key(|place| std::cmp::Reverse(value(place)));
    let mut chosen: Vec<usize> = Vec::new();
    // From the largest that does not exceed what is missing; else the smallest that does.
    while !enough(&chosen) {
        if chosen.len() >= MAX_PROOFS {
            return None;
        }
        let sum = chosen.iter().map(value).fold(0u64, u64::saturating_add);
        let missing = amount.saturating_sub(sum);
        let free = |place: &&usize| !chosen.contains(*place);
        let below = places.iter().filter(free).find(|place| value(place) <= missing);
        let next = below.or_else(|| places.iter().rev().find(free));
        chosen.push(*next?);
    }
    // One that came early may be too much by now.
    for place in chosen.clone().into_iter().rev() {
        let without: Vec<_> = chosen.iter().copied().filter(|it| *it != place).collect();
        if enough(&without) {
            chosen = without;
        }
    }
    if proofs.len() > MANY_PROOFS {
        let room = MAX_PROOFS.saturating_sub(chosen.len()).min(MAX_SMALL);
        let taken = chosen.clone();
        let small = places.iter().rev().filter(|place| !taken.contains(*place)).take(room);
        chosen.extend(small);
    }
    Some(chosen)
}

#[cfg(test)]
mod tests;
