//! What an exit says about itself at `GET /info`.

use serde::{Deserialize, Serialize};
use serde_json::Number;

use crate::listing::Price;

/// The revision of the protocol that weir speaks.
pub const SPEC_VERSION: &str = "vpn-marketplace/1";

/// The document. Fields that a reader does not need may be absent in those of others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Info {
    /// The program.
    #[serde(default)]
    pub software: String,
    /// The program's version.
    #[serde(default)]
    pub version: String,
    /// The protocol's revision.
    #[serde(default)]
    pub spec_version: String,
    /// The key that signs the listing, in hex.
    pub pubkey: String,
    /// The name by which buyers know the exit: the `server` of their authorizations.
    pub endpoint: String,
    /// A name for people.
    #[serde(default)]
    pub title: String,
    /// Ways to connect.
    #[serde(default)]
    pub protocols: Vec<String>,
    /// Where it is.
    #[serde(default)]
    pub region: Region,
    /// What it costs.
    #[serde(default)]
    pub prices: Vec<InfoPrice>,
    /// The operator's promises.
    #[serde(default)]
    pub policies: Vec<String>,
    /// Ways to pay.
    #[serde(default)]
    pub payment_methods: Vec<String>,
    /// The mints whose tokens it takes.
    #[serde(default)]
    pub mints: Vec<String>,
    /// Where it sells for ecash.
    #[serde(default)]
    pub cashu_purchase_endpoints: Vec<String>,
    /// The key that tokens are to be locked to (compressed, in hex). weir's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p2pk: Option<String>,
    /// The fewest bytes that it sells at once. weir's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_bytes: Option<u64>,
    /// The most bytes that it sells at once. weir's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<u64>,
    /// Where WireGuard answers. weir's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wireguard: Option<WireGuard>,
}

/// Where an exit is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Region {
    /// The country, by its two letters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub country: Option<String>,
    /// A part of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sub: Option<String>,
    /// A geohash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub geohash: Option<String>,
}

/// A price in numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InfoPrice {
    /// How much.
    pub amount: Number,
    /// Of what.
    pub currency: String,
    /// For what.
    pub unit: String,
}

impl InfoPrice {
    /// The price in weir's own type; `None` for one that it does not know.
    #[must_use]
    pub fn price(&self) -> Option<Price> {
        format!("{} {}/{}", self.amount, self.currency, self.unit).parse().ok()
    }
}

/// Where WireGuard answers, and with which key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireGuard {
    /// The key, in base64.
    pub public_key: String,
    /// The address and port.
    pub endpoint: String,
}
