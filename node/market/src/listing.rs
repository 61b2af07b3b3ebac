//! What an exit says about itself, in weir's own types.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize, Serializer};
use weir_common::PublicKey;
use weir_config::HostPort;
pub use weir_config::IpType;

mod price;

pub use price::{Amount, Currency, NotAPrice, Price, Unit};

/// An exit's description of itself. What it says is a claim of its key's owner, not a fact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Listing {
    /// The name of this listing among those of its key: the `d` tag.
    pub id: String,
    /// A name for people.
    pub title: String,
    /// Whether it is for sale now.
    pub state: State,
    /// The country of the exit's address.
    pub country: Option<Country>,
    /// Where the country comes from.
    pub country_basis: Basis,
    /// The kind of line that the exit's address belongs to.
    #[serde(serialize_with = "ip_type_word")]
    pub ip_type: IpType,
    /// Where the IP type comes from.
    pub ip_type_basis: Basis,
    /// The autonomous system of the exit's address.
    pub asn: Option<u32>,
    /// What it costs. Each is an alternative.
    pub prices: Vec<Price>,
    /// How it can be paid.
    pub payments: Vec<Payment>,
    /// Where WireGuard answers. Empty: only after a purchase is it known.
    pub endpoints: Vec<Endpoint>,
    /// How the exit is reached.
    pub reach: Reach,
    /// What it carries, as measured by `weir bench` on it.
    pub measured: Option<Capacity>,
    /// How many more sessions it takes, rounded down to one digit.
    pub free_slots: Option<u32>,
    /// Abilities, such as `ipv6`.
    pub features: Vec<String>,
}

/// Whether an exit is for sale.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It takes sessions.
    #[default]
    Active,
    /// It is full, or its quota is used up.
    Sold,
}

/// Where a claim comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Basis {
    /// The operator wrote it.
    #[default]
    Claimed,
    /// The operator's database has it for the exit's address.
    Database,
}

impl Basis {
    /// The word in a listing.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Claimed => "claimed",
            Self::Database => "database",
        }
    }
}

/// How an exit is reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reach {
    /// At an address of its own machine.
    Direct,
    /// Through a port that a router forwards.
    Mapped,
    /// By a handshake that the exit starts too.
    Punch,
    /// Through another exit.
    Relay,
    /// It does not say.
    #[default]
    Unknown,
}

impl Reach {
    /// The word in a listing.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Mapped => "mapped",
            Self::Punch => "punch",
            Self::Relay => "relay",
            Self::Unknown => "unknown",
        }
    }

    /// Reads the word; others are unknown.
    #[must_use]
    pub fn from_word(word: &str) -> Self {
        match word {
            "direct" => Self::Direct,
            "mapped" => Self::Mapped,
            "punch" => Self::Punch,
            "relay" => Self::Relay,
            _ => Self::Unknown,
        }
    }
}

/// A country by its two letters (ISO 3166-1 alpha-2).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Country([u8; 2]);

/// Not a country's code.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a country: write its two letters of ISO 3166-1, such as DE")]
pub struct NotACountry(String);

impl Country {
    /// Its two letters.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // Only ASCII letters get here.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl FromStr for Country {
    type Err = NotACountry;

    fn from_str(text: &str) -> Result<Self, NotACountry> {
        match text.as_bytes() {
            &[a, b] if a.is_ascii_alphabetic() && b.is_ascii_alphabetic() => {
                Ok(Self([a.to_ascii_uppercase(), b.to_ascii_uppercase()]))
            }
            _ => Err(NotACountry(text.chars().take(32).collect())),
        }
    }
}

impl fmt::Display for Country {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for Country {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Country {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// Where WireGuard answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Endpoint {
    /// The key with which it answers.
    #[serde(serialize_with = "key_text")]
    pub key: PublicKey,
    /// Its addresses and UDP ports, of either family.
    #[serde(serialize_with = "addresses_text")]
    pub addresses: Vec<HostPort>,
}

fn ip_type_word<S: Serializer>(ip_type: &IpType, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(ip_type.as_str())
}

fn key_text<S: Serializer>(key: &PublicKey, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&weir_wireguard::keys::print_public(key))
}

fn addresses_text<S: Serializer>(all: &[HostPort], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(all.iter().map(ToString::to_string))
}

/// What an exit carries, in Mbit/s of inner packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capacity {
    /// From consumers to the internet.
    pub up: u32,
    /// From the internet to consumers.
    pub down: u32,
    /// When it was measured, in seconds since 1970.
    pub measured_at: u64,
}

/// A way to pay: the values of a `payment` tag, kept as they are when weir does not know the method.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Payment(Vec<String>);

impl Payment {
    /// A way to pay of these words: the method and what it needs. `None` without a method.
    #[must_use]
    pub fn new<I: IntoIterator<Item = S>, S: Into<String>>(words: I) -> Option<Self> {
        let words: Vec<String> = words.into_iter().map(Into::into).collect();
        words.first().is_some_and(|method| !method.is_empty()).then_some(Self(words))
    }

    /// Promises of the Mysterium network, made inside the tunnel at `/v1/pay`.
    #[must_use]
    pub fn tunnel_mysterium(chain: u64, hub: &str) -> Self {
        Self(["weir-tunnel", "mysterium", &chain.to_string(), hub].map(str::to_owned).into())
    }

    /// Ecash of a mint, locked to this key (compressed, in hex), paid inside the tunnel at
    /// `/v1/pay/ecash`.
    #[must_use]
    pub fn tunnel_cashu(mint: &str, lock: &str) -> Self {
        Self(["weir-tunnel", "cashu", mint, lock].map(str::to_owned).into())
    }

    /// Ecash of a mint, locked to this key, paid at an HTTPS address for a configuration.
    #[must_use]
    pub fn cashu(mint: &str, lock: &str, purchase: &str) -> Self {
        Self(["cashu", mint, lock, purchase].map(str::to_owned).into())
    }

    /// Vouchers.
    #[must_use]
    pub fn voucher() -> Self {
        Self(vec!["voucher".to_owned()])
    }

    /// The method's name: `cashu`, `lightning`, `voucher`, or `weir-tunnel` with its second word.
    #[must_use]
    pub fn method(&self) -> String {
        match self.0.as_slice() {
            [tunnel, what, ..] if tunnel == "weir-tunnel" => format!("{tunnel}/{what}"),
            [method, ..] => method.clone(),
            [] => String::new(),
        }
    }

    /// All words.
    #[must_use]
    pub fn words(&self) -> &[String] {
        &self.0
    }
}

/// Rounds a number of free slots down to one digit, so that single sessions do not show.
#[must_use]
pub fn rounded(slots: u32) -> u32 {
    let step = 10_u32.pow(slots.checked_ilog10().unwrap_or(0));
    slots / step * step
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn countries_are_two_letters_of_any_case() {
        assert_eq!("de".parse::<Country>().map(|it| it.to_string()), Ok("DE".to_owned()));
        for bad in ["", "D", "DEU", "1E", "é", "D\u{0}"] {
            assert!(bad.parse::<Country>().is_err(), "{bad}");
        }
    }

    #[test]
    fn free_slots_keep_one_digit() {
        let all = [0, 1, 9, 10, 19, 99, 100, 3999, 4096, u32::MAX].map(rounded);
        assert_eq!(all, [0, 1, 9, 10, 10, 90, 100, 3000, 4000, 4_000_000_000]);
    }

    #[test]
    fn a_payment_has_a_method_and_keeps_what_weir_does_not_know() {
        assert_eq!(Payment::tunnel_cashu("https://mint", "02aa").method(), "weir-tunnel/cashu");
        let foreign = Payment::new(["barter", "two", "goats"]).expect("a method");
        assert_eq!((foreign.method().as_str(), foreign.words().len()), ("barter", 3));
        assert_eq!(Payment::new(Vec::<String>::new()), None);
        assert_eq!(Payment::new([""]), None);
    }
}
