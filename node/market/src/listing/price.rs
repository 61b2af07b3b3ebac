//! Prices: exact decimal amounts of a currency for a unit of use.

use std::{cmp::Ordering, fmt, str::FromStr};

use serde::{Serialize, Serializer};

/// Digits after the point that an amount keeps.
const DECIMALS: usize = 18;
/// An amount of 1.
const ONE: u128 = 10_u128.pow(DECIMALS as u32);

/// An exact decimal amount, not negative, with up to 18 digits after the point.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Amount(u128);

impl Amount {
    /// So many 10^-18 parts.
    #[must_use]
    pub const fn from_atto(parts: u128) -> Self {
        Self(parts)
    }

    /// A whole number; `None` where it is too large.
    #[must_use]
    pub fn whole(number: u128) -> Option<Self> {
        number.checked_mul(ONE).map(Self)
    }

    fn times(self, up: u128, down: u128) -> Option<Self> {
        Some(Self(self.0.checked_mul(up)? / down))
    }
}

/// Why a text is not a price.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAPrice {
    /// The number.
    #[error("{0:?} is not an amount: write for example 200 or 0.1")]
    Amount(String),
    /// The currency.
    #[error("{0:?} is not a currency: write for example sat or MYST")]
    Currency(String),
    /// The unit.
    #[error("{0:?} is not a unit: GiB, TiB, hour, day, week or month")]
    Unit(String),
    /// The whole.
    #[error("{0:?} is not a price: write for example 200sat/GiB")]
    Form(String),
}

fn short(text: &str) -> String {
    text.chars().take(32).collect()
}

impl FromStr for Amount {
    type Err = NotAPrice;

    fn from_str(text: &str) -> Result<Self, NotAPrice> {
        let wrong = || NotAPrice::Amount(short(text));
        let (whole, parts) = text.split_once('.').unwrap_or((text, ""));
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let (whole, parts) = (whole, parts.trim_end_matches('0'));
        let is_number = !whole.is_empty() && !text.ends_with('.') && digits(whole) && digits(parts);
        if !is_number || parts.len() > DECIMALS || whole.len() > 39 {
            return Err(wrong());
        }
        let parts: u128 = format!("{parts:0<DECIMALS$}").parse().map_err(|_| wrong())?;
        let whole: u128 = whole.parse().map_err(|_| wrong())?;
        let all = whole.checked_mul(ONE).and_then(|whole| whole.checked_add(parts));
        all.map(Self).ok_or_else(wrong)
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, parts) = (self.0 / ONE, self.0 % ONE);
        if parts == 0 {
            return write!(f, "{whole}");
        }
        let parts = format!("{parts:0DECIMALS$}");
        write!(f, "{whole}.{}", parts.trim_end_matches('0'))
    }
}

/// A currency by its code: one to twelve letters, as it was written.
#[derive(Clone, Debug, Eq)]
pub struct Currency(String);

impl Currency {
    /// The satoshi.
    #[must_use]
    pub fn sat() -> Self {
        Self("sat".to_owned())
    }

    /// The Mysterium network's token.
    #[must_use]
    pub fn myst() -> Self {
        Self("MYST".to_owned())
    }

    /// The code.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl PartialEq for Currency {
    fn eq(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }
}

impl FromStr for Currency {
    type Err = NotAPrice;

    fn from_str(text: &str) -> Result<Self, NotAPrice> {
        let is_letters = text.bytes().all(|byte| byte.is_ascii_alphabetic());
        let is_code = (1..=12).contains(&text.len()) && is_letters;
        is_code.then(|| Self(text.to_owned())).ok_or_else(|| NotAPrice::Currency(short(text)))
    }
}

/// What a price is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Unit {
    /// 2^30 billed bytes, up and down together.
    GiB,
    /// 2^40 billed bytes.
    TiB,
    /// An hour.
    #[serde(rename = "hour")]
    Hour,
    /// A day.
    #[serde(rename = "day")]
    Day,
    /// A week.
    #[serde(rename = "week")]
    Week,
    /// Thirty days.
    #[serde(rename = "month")]
    Month,
}

impl Unit {
    /// The word in a listing.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::GiB => "GiB",
            Self::TiB => "TiB",
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
        }
    }

    /// The smallest unit of the same quantity, and how many of it this is.
    const fn base(self) -> (Self, u128) {
        match self {
            Self::GiB => (Self::GiB, 1),
            Self::TiB => (Self::GiB, 1024),
            Self::Hour => (Self::Hour, 1),
            Self::Day => (Self::Hour, 24),
            Self::Week => (Self::Hour, 24 * 7),
            Self::Month => (Self::Hour, 24 * 30),
        }
    }
}

impl FromStr for Unit {
    type Err = NotAPrice;

    fn from_str(text: &str) -> Result<Self, NotAPrice> {
        let all = [Self::GiB, Self::TiB, Self::Hour, Self::Day, Self::Week, Self::Month];
        let found = all.into_iter().find(|unit| unit.as_str().eq_ignore_ascii_case(text));
        found.ok_or_else(|| NotAPrice::Unit(short(text)))
    }
}

/// So much of a currency for a unit of use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Price {
    /// How much.
    pub amount: Amount,
    /// Of what.
    pub currency: Currency,
    /// For what.
    pub unit: Unit,
}

impl Price {
    /// Compares two prices of one currency for one quantity; `None` where they cannot be.
    #[must_use]
    pub fn compare(&self, other: &Self) -> Option<Ordering> {
        let (one, two) = (self.in_base()?, other.in_base()?);
        (one.currency == two.currency && one.unit == two.unit).then(|| one.amount.cmp(&two.amount))
    }

    /// The same price for the smallest unit, in satoshi if it is of bitcoin.
    #[must_use]
    pub fn in_base(&self) -> Option<Self> {
        let (unit, count) = self.unit.base();
        let (up, down, currency) = match self.currency.0.to_ascii_lowercase().as_str() {
            "btc" => (100_000_000, 1, Currency::sat()),
            "msat" => (1, 1000, Currency::sat()),
            "sats" => (1, 1, Currency::sat()),
            _ => (1, 1, self.currency.clone()),
        };
        Some(Self { amount: self.amount.times(up, down * count)?, currency, unit })
    }

    /// The amount as a fraction, for comparisons of many.
    #[must_use]
    pub fn approximate(&self) -> f64 {
        self.amount.0 as f64 / ONE as f64
    }
}

impl fmt::Display for Price {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.amount, self.currency.0, self.unit.as_str())
    }
}

impl FromStr for Price {
    type Err = NotAPrice;

    /// Reads `200sat/GiB` and `0.1 MYST/hour`.
    fn from_str(text: &str) -> Result<Self, NotAPrice> {
        let form = || NotAPrice::Form(short(text));
        let (money, unit) = text.trim().split_once('/').ok_or_else(form)?;
        let end = money.find(|letter: char| letter.is_ascii_alphabetic()).ok_or_else(form)?;
        let (amount, currency) = money.split_at(end);
        Ok(Self {
            amount: amount.trim().parse()?,
            currency: currency.trim().parse()?,
            unit: unit.trim().parse()?,
        })
    }
}

impl Serialize for Price {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct as _;
        let mut price = serializer.serialize_struct("Price", 3)?;
        price.serialize_field("amount", &self.amount.to_string())?;
        price.serialize_field("currency", self.currency.as_str())?;
        price.serialize_field("unit", self.unit.as_str())?;
        price.end()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn price(text: &str) -> Price {
        text.parse().expect("a price")
    }

    proptest! {
        #[test]
        fn an_amount_is_read_as_it_was_written(parts in any::<u128>()) {
            let amount = Amount(parts);
            prop_assert_eq!(amount.to_string().parse(), Ok(amount));
        }

        #[test]
        fn no_text_makes_the_reader_panic(text in ".{0,64}") {
            drop(text.parse::<Price>());
            drop(text.parse::<Amount>());
        }
    }

    #[test]
    fn prices_are_compared_where_they_can_be() {
        assert_eq!(price("200sat/GiB").compare(&price("200000 sat/TiB")), Some(Ordering::Greater));
        assert_eq!(price("1 hour/hour").compare(&price("1hour/day")), Some(Ordering::Greater));
        assert_eq!(
            price("0.00000200 BTC/GiB").compare(&price("200 SAT/GiB")),
            Some(Ordering::Equal)
        );
        assert_eq!(price("1 sat/GiB").compare(&price("1 MYST/GiB")), None);
        assert_eq!(price("1 sat/GiB").compare(&price("1 sat/hour")), None);
    }

    #[test]
    fn other_texts_are_refused() {
        for bad in [
            "",
            "sat/GiB",
            "1/GiB",
            "1 sat",
            "-1sat/GiB",
            "1e9sat/GiB",
            "1.sat/GiB",
            "1 sat/GB",
            "1 s@t/GiB",
            "999999999999999999999999999999999999999999sat/GiB",
        ] {
            assert!(bad.parse::<Price>().is_err(), "{bad}");
        }
    }
}
