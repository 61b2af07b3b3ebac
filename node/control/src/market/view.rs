//! The node's listing as its operator sees it, in JSON.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Whether the node is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MarketState {
    /// The first listing is not made yet.
    Starting,
    /// There is a listing.
    Published,
    /// The operator has withdrawn it.
    Withdrawn,
}

impl MarketState {
    /// Every state.
    pub const ALL: [Self; 3] = [Self::Starting, Self::Published, Self::Withdrawn];

    /// The word in JSON and in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Published => "published",
            Self::Withdrawn => "withdrawn",
        }
    }
}

/// Whether a relay has what was published last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RelayState {
    /// It was not asked yet.
    Pending,
    /// It has it.
    Accepted,
    /// It has refused it.
    Refused,
    /// It did not answer.
    Unreachable,
}

impl RelayState {
    /// The word in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Accepted => "accepted",
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
        }
    }
}

/// A relay, and what it answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayView {
    /// Its URL.
    pub url: String,
    /// Whether it has what was published last.
    pub state: RelayState,
    /// Its last answer in its words, or why there was none. May be empty.
    pub answer: String,
    /// When that was, in seconds since 1970.
    pub answered_at: Option<u64>,
    /// When the node tries again; null if it need not.
    pub next_try: Option<u64>,
    /// Events that it has taken, since the start.
    pub accepted: u64,
    /// Events that it has refused, retries included.
    pub refused: u64,
    /// Attempts without an answer.
    pub failed: u64,
}

/// The node's listing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MarketView {
    /// Whether it is published.
    pub state: MarketState,
    /// The key that signs it, in hex: the node's name in the market.
    pub key: String,
    /// What it says; null if there is none.
    pub listing: Option<Value>,
    /// The signed event that was published last, which may be a deletion.
    pub event: Option<Value>,
    /// When the listing was signed, in seconds since 1970.
    pub published_at: Option<u64>,
    /// When it ceases to count.
    pub expires_at: Option<u64>,
    /// What would make it better, in words.
    pub notes: Vec<String>,
    /// The registries and relays.
    pub relays: Vec<RelayView>,
}

/// Any value that can be JSON, as JSON.
pub(super) fn json(value: &impl Serialize) -> Value {
    serde_json::to_value(value).unwrap_or_default()
}
