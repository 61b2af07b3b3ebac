//! What a watcher says of an exit at which it has bought and measured, in weir's own types.

use std::{fmt, str::FromStr};

use nostr::key::PublicKey;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser::SerializeStruct as _};

use crate::{event::Address, place::Place};

/// A watcher's name: the key that signs its attestations.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WatcherKey([u8; 32]);

/// Not a watcher's key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a watcher's key: write its 64 hexadecimal digits, as weir watch prints them")]
pub struct NotAWatcher(String);

impl WatcherKey {
    /// Its bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    pub(crate) fn public(self) -> PublicKey {
        PublicKey::from_byte_array(self.0)
    }
}

impl From<PublicKey> for WatcherKey {
    fn from(key: PublicKey) -> Self {
        Self(key.to_bytes())
    }
}

impl FromStr for WatcherKey {
    type Err = NotAWatcher;

    fn from_str(text: &str) -> Result<Self, NotAWatcher> {
        let key = PublicKey::from_hex(text.trim());
        key.map(Self::from).map_err(|_| NotAWatcher(text.chars().take(80).collect()))
    }
}

impl fmt::Display for WatcherKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.public().to_hex())
    }
}

impl fmt::Debug for WatcherKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for WatcherKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for WatcherKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// A watcher's measurement of an exit. It is the word of the watcher: only consumers who believe
/// that watcher look at it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Attestation {
    /// The exit's listing.
    #[serde(serialize_with = "as_text")]
    pub exit: Address,
    /// What came of it.
    pub reason: Reason,
    /// Where the exit's address is: the one by which it leaves, in the watcher's own database.
    #[serde(serialize_with = "place")]
    pub seen: Place,
    /// Milliseconds from the first datagram to the end of the handshake.
    pub handshake_ms: Option<u32>,
    /// The round trip to the exit inside the tunnel, in milliseconds.
    pub rtt_ms: Option<u32>,
    /// Mbit/s to the watcher.
    pub down: Option<u32>,
    /// Mbit/s from the watcher.
    pub up: Option<u32>,
    /// Whether the payment was credited as the listed price says.
    pub is_price_honoured: Option<bool>,
    /// What the exit billed, as a share of what the watcher counted.
    pub billed: Option<Share>,
    /// How often the exit was good lately.
    pub uptime: Option<Uptime>,
}

impl Attestation {
    /// One that says nothing but what came of it.
    #[must_use]
    pub fn new(exit: Address, reason: Reason) -> Self {
        Self {
            exit,
            reason,
            seen: Place::default(),
            handshake_ms: None,
            rtt_ms: None,
            down: None,
            up: None,
            is_price_honoured: None,
            billed: None,
            uptime: None,
        }
    }
}

fn as_text<S: Serializer>(exit: &Address, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(exit)
}

fn place<S: Serializer>(place: &Place, serializer: S) -> Result<S::Ok, S::Error> {
    let mut fields = serializer.serialize_struct("Place", 3)?;
    fields.serialize_field("country", &place.country)?;
    fields.serialize_field("asn", &place.asn)?;
    fields.serialize_field("ip_type", &place.ip_type.map(|it| it.as_str()))?;
    fields.end()
}

/// What came of a measurement: the first fault in the order in which a consumer meets them. These are
/// all reason words; docs/market.md explains them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// Everything that was measured is as it should be.
    Ok,
    /// Nobody answers where the exit sells, or another exit does. Nothing was paid.
    NoSeller,
    /// The exit refused a payment that is right by its listing, and did not take it.
    Refused,
    /// The exit was paid, and sent nothing that can be used.
    PaidNotSold,
    /// The exit completes no handshake.
    NoHandshake,
    /// The exit was paid and completes the handshake, but carries nothing.
    PaidNoTraffic,
    /// The exit's address is elsewhere than its listing says.
    WrongExit,
    /// The exit's resolvers do not answer, or not with the truth.
    DnsBroken,
    /// The exit bills more than it carried, by more than 1 %.
    Overbilled,
    /// The exit credited less than the listed price buys.
    PriceNotHonoured,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Ok,
        Self::NoSeller,
        Self::Refused,
        Self::PaidNotSold,
        Self::NoHandshake,
        Self::PaidNoTraffic,
        Self::WrongExit,
        Self::DnsBroken,
        Self::Overbilled,
        Self::PriceNotHonoured,
    ];

    /// The word in an attestation.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::NoSeller => "no-seller",
            Self::Refused => "refused",
            Self::PaidNotSold => "paid-not-sold",
            Self::NoHandshake => "no-handshake",
            Self::PaidNoTraffic => "paid-no-traffic",
            Self::WrongExit => "wrong-exit",
            Self::DnsBroken => "dns-broken",
            Self::Overbilled => "overbilled",
            Self::PriceNotHonoured => "price-not-honoured",
        }
    }

    /// Reads the word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == word)
    }

    /// Whether the exit is good.
    #[must_use]
    pub const fn is_ok(self) -> bool {
        matches!(self, Self::Ok)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Reason {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = String::deserialize(deserializer)?;
        Self::from_word(&word).ok_or_else(|| de::Error::custom("not a reason word"))
    }
}

/// A share in thousandths, written with a point and three digits: `1.000`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share(u32);

/// Not a share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a share is a number from 0 to 100 with up to three digits after the point")]
pub struct NotAShare;

impl Share {
    /// The largest one: a hundred times the whole.
    pub const MAX: Self = Self(100_000);
    /// The whole.
    pub const ONE: Self = Self(1000);

    /// This number of thousandths, at most [`Self::MAX`].
    #[must_use]
    pub const fn from_thousandths(thousandths: u32) -> Self {
        if thousandths > Self::MAX.0 { Self::MAX } else { Self(thousandths) }
    }

    /// `part` of `whole`, rounded down; `None` if there is no whole.
    #[must_use]
    pub fn of(part: u64, whole: u64) -> Option<Self> {
        let thousandths = (u128::from(part) * 1000).checked_div(whole.into())?;
        Some(Self::from_thousandths(u32::try_from(thousandths).unwrap_or(u32::MAX)))
    }

    /// The thousandths.
    #[must_use]
    pub const fn thousandths(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}", self.0 / 1000, self.0 % 1000)
    }
}

impl FromStr for Share {
    type Err = NotAShare;

    fn from_str(text: &str) -> Result<Self, NotAShare> {
        let (whole, parts) = text.split_once('.').unwrap_or((text, "0"));
        let is_digits = |text: &str, max: usize| {
            (1..=max).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
        };
        if !is_digits(whole, 3) || !is_digits(parts, 3) {
            return Err(NotAShare);
        }
        let number = |text: &str| text.parse::<u32>().map_err(|_| NotAShare);
        let thousandths = number(whole)? * 1000 + number(&format!("{parts:0<3}"))?;
        if thousandths > Self::MAX.0 { Err(NotAShare) } else { Ok(Self(thousandths)) }
    }
}

impl Serialize for Share {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(f64::from(self.0) / 1000.0)
    }
}

/// The share of a watcher's measurements in the last days in which the exit was good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Uptime {
    /// The share.
    pub share: Share,
    /// The number of days.
    pub days: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_a_word_of_its_own_and_only_one_is_good() {
        for reason in Reason::ALL {
            assert_eq!(Reason::from_word(reason.as_str()), Some(reason));
        }
        assert_eq!(Reason::ALL.into_iter().filter(|reason| reason.is_ok()).count(), 1);
        assert_eq!(Reason::from_word("OK"), None);
    }

    #[test]
    fn a_share_has_three_digits_and_a_bound() {
        for (text, thousandths) in [("1.000", 1000), ("0.5", 500), ("1", 1000), ("100", 100_000)] {
            assert_eq!(text.parse(), Ok(Share(thousandths)), "{text}");
        }
        for text in ["", ".5", "1.", "1.0000", "-1", "100.001", "1e3", "+1", "1000"] {
            assert_eq!(text.parse::<Share>(), Err(NotAShare), "{text}");
        }
        assert_eq!(Share(997).to_string(), "0.997");
        assert_eq!(Share::of(3, 0), None);
        assert_eq!(Share::of(102, 100), Some(Share(1020)));
        assert_eq!(Share::of(u64::MAX, 1), Some(Share::MAX));
    }
}
