//! Why an exit does not sell.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A reason by its name in the protocol.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// The token is not one, or is worth nothing.
    InvalidToken,
    /// The token is of a mint that the exit does not take.
    WrongMint,
    /// The token is not locked to the exit's key, or not for long enough.
    WrongP2pk,
    /// The price has changed, or the token does not pay for anything.
    AmountMismatch,
    /// The token, or the voucher, was used before.
    DoubleSpent,
    /// The authorization has expired.
    ExpiredAuth,
    /// The request, or the authorization, is malformed or for another exit.
    BadRequest,
    /// The exit does not sell now, or not to this key.
    Policy,
    /// The payment buys less than the exit sells at once.
    BelowMinPurchase,
    /// The payment buys more than the exit sells at once.
    AboveMaxPurchase,
    /// The exit is full.
    NoIpAvailable,
    /// Too many requests. weir's own.
    RateLimited,
    /// The exit has trouble, or its mint cannot be reached: the payment is still the buyer's, or
    /// the same request again is answered. weir's own.
    Unavailable,
    /// The voucher is unknown, revoked or expired. weir's own.
    InvalidVoucher,
    /// Another exit's word.
    Other(String),
}

impl Reason {
    /// Every reason that weir gives.
    pub const ALL: [Self; 14] = [
        Self::InvalidToken,
        Self::WrongMint,
        Self::WrongP2pk,
        Self::AmountMismatch,
        Self::DoubleSpent,
        Self::ExpiredAuth,
        Self::BadRequest,
        Self::Policy,
        Self::BelowMinPurchase,
        Self::AboveMaxPurchase,
        Self::NoIpAvailable,
        Self::RateLimited,
        Self::Unavailable,
        Self::InvalidVoucher,
    ];

    /// The word in an answer.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::InvalidToken => "invalid-token",
            Self::WrongMint => "wrong-mint",
            Self::WrongP2pk => "wrong-p2pk",
            Self::AmountMismatch => "amount-mismatch",
            Self::DoubleSpent => "double-spent",
            Self::ExpiredAuth => "expired-auth",
            Self::BadRequest => "bad-request",
            Self::Policy => "policy",
            Self::BelowMinPurchase => "below-min-purchase",
            Self::AboveMaxPurchase => "above-max-purchase",
            Self::NoIpAvailable => "no-ip-available",
            Self::RateLimited => "rate-limited",
            Self::Unavailable => "unavailable",
            Self::InvalidVoucher => "invalid-voucher",
            Self::Other(word) => word,
        }
    }

    /// Reads the word.
    #[must_use]
    pub fn from_word(word: &str) -> Self {
        let known = Self::ALL.into_iter().find(|reason| reason.as_str() == word);
        known.unwrap_or_else(|| Self::Other(word.chars().take(64).collect()))
    }

    /// The HTTP status of such a refusal: 402 for the payment, 401 for the authorization, 429 and
    /// 503 for what may go better later, else 400.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Self::InvalidToken
            | Self::WrongMint
            | Self::WrongP2pk
            | Self::AmountMismatch
            | Self::DoubleSpent
            | Self::InvalidVoucher => 402,
            Self::ExpiredAuth => 401,
            Self::RateLimited => 429,
            Self::NoIpAvailable | Self::Unavailable => 503,
            Self::BadRequest
            | Self::Policy
            | Self::BelowMinPurchase
            | Self::AboveMaxPurchase
            | Self::Other(_) => 400,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Reason {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Reason {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::from_word(&String::deserialize(deserializer)?))
    }
}

/// Why an exit does not sell, for programs and for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {message}")]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// For programs.
    pub reason: Reason,
    /// For people: what is wrong, and the fix.
    pub message: String,
}

impl Refusal {
    /// A refusal for this reason.
    #[must_use]
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { status: reason.status(), reason, message: message.into() }
    }

    /// The authorization is missing, cannot be read, or is not signed: 401.
    #[must_use]
    pub fn unauthorized(message: impl Into<String>) -> Self {
        Self { status: 401, reason: Reason::BadRequest, message: message.into() }
    }
}
