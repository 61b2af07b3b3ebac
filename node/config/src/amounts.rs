//! Rates and amounts of data, as people write them: `200 Mbit/s`, `2 TB`, `off`.

use std::{fmt, str::FromStr};

/// A rate in bits per second; `off` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct BitRate(u64);

/// A number of bytes; `off` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteCount(u64);

/// A maximum number; `off` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct AtMost(u32);

/// The error of a text that is not a valid rate, number or amount.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {}", self.problem(), self.fix())]
pub struct NotAnAmount {
    text: String,
    what: &'static str,
    examples: &'static str,
}

impl NotAnAmount {
    /// The reason, without the fix.
    pub(crate) fn problem(&self) -> String {
        format!("{:?} is not {}", self.text, self.what)
    }

    /// The fix.
    pub(crate) fn fix(&self) -> String {
        format!("write for example {}", self.examples)
    }
}

const RATE_UNITS: &[(&str, u64)] = &[
    ("Tbit/s", 1_000_000_000_000),
    ("Gbit/s", 1_000_000_000),
    ("Mbit/s", 1_000_000),
    ("kbit/s", 1000),
    ("bit/s", 1),
];
const BYTE_UNITS: &[(&str, u64)] = &[
    ("PB", 1_000_000_000_000_000),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1000),
    ("B", 1),
];
const BINARY_UNITS: &[(&str, u64)] =
    &[("PiB", 1 << 50), ("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

impl BitRate {
    /// No limit.
    pub const OFF: Self = Self(0);

    /// From bits per second; 0 for no limit.
    #[must_use]
    pub const fn new(bits: u64) -> Self {
        Self(bits)
    }

    /// Bits per second; 0 for no limit.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Bytes per second, as in the accounts: 0 for no limit, and at least 1 for a limit.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0.div_ceil(8)
    }
}

impl ByteCount {
    /// From a number of bytes; 0 for no limit.
    #[must_use]
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// The bytes; 0 for no limit.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl AtMost {
    /// From a number; 0 for no limit.
    #[must_use]
    pub const fn new(most: u32) -> Self {
        Self(most)
    }

    /// The number; 0 for no limit.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl FromStr for BitRate {
    type Err = NotAnAmount;

    fn from_str(text: &str) -> Result<Self, NotAnAmount> {
        let unit_of = |unit: &str| {
            let unit = unit.strip_suffix("/s").unwrap_or(unit);
            let same =
                |known: &&(&str, u64)| known.0[..known.0.len() - 2].eq_ignore_ascii_case(unit);
            RATE_UNITS.iter().find(same).map(|known| known.1)
        };
        amount(text, unit_of).map(Self).ok_or_else(|| NotAnAmount {
            text: text.to_owned(),
            what: "a rate",
            examples: "\"200 Mbit/s\", \"1.5 Gbit/s\" or \"off\"",
        })
    }
}

impl FromStr for ByteCount {
    type Err = NotAnAmount;

    fn from_str(text: &str) -> Result<Self, NotAnAmount> {
        let unit_of = |unit: &str| {
            let same = |known: &&(&str, u64)| known.0.eq_ignore_ascii_case(unit);
            BYTE_UNITS.iter().chain(BINARY_UNITS).find(same).map(|known| known.1)
        };
        amount(text, unit_of).map(Self).ok_or_else(|| NotAnAmount {
            text: text.to_owned(),
            what: "an amount of data",
            examples: "\"500 GB\", \"2 TB\" or \"off\"",
        })
    }
}

/// Parses a number, possibly with a fraction, and its unit; `off` gives 0. Refuses a value that is
/// not a whole number of the smallest unit, and zero, which would mean no limit.
fn amount(text: &str, unit_of: impl Fn(&str) -> Option<u64>) -> Option<u64> {
    if text == "off" {
        return Some(0);
    }
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(end);
    let unit = unit_of(unit.trim_start_matches(' '))?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let scale = 10u64.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let parts = u128::from(whole.parse::<u64>().ok()?) * u128::from(scale)
        + u128::from(fraction.parse::<u64>().ok()?);
    let product = parts.checked_mul(unit.into())?;
    let value = u64::try_from(product / u128::from(scale)).ok()?;
    (product % u128::from(scale) == 0 && value > 0).then_some(value)
}

/// The value with the largest unit of which it is a whole number.
fn show(f: &mut fmt::Formatter<'_>, value: u64, units: &[(&str, u64)]) -> fmt::Result {
    match units.iter().find(|(_, size)| value.is_multiple_of(*size)) {
        Some((name, size)) if value > 0 => write!(f, "{} {name}", value / size),
        _ => f.write_str("off"),
    }
}

impl fmt::Display for BitRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(f, self.0, RATE_UNITS)
    }
}

impl fmt::Display for AtMost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("off"),
            most => write!(f, "{most}"),
        }
    }
}

impl fmt::Display for ByteCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(f, self.0, BYTE_UNITS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_as_people_write_them() {
        for (text, bits) in [
            ("off", 0),
            ("200 Mbit/s", 200_000_000),
            ("200mbit", 200_000_000),
            ("1.5 Gbit/s", 1_500_000_000),
            ("9600 bit/s", 9600),
            ("64 kbit/s", 64_000),
            ("0.5kbit", 500),
        ] {
            assert_eq!(text.parse(), Ok(BitRate::new(bits)), "{text}");
        }
        assert_eq!(BitRate::new(9).bytes(), 2, "a limit is never no limit");
    }

    #[test]
    fn amounts_are_decimal_or_binary() {
        for (text, bytes) in [
            ("2 TB", 2_000_000_000_000),
            ("1.5GiB", 3 << 29),
            ("7 B", 7),
            ("20 gb", 20_000_000_000),
        ] {
            assert_eq!(text.parse(), Ok(ByteCount::new(bytes)), "{text}");
        }
    }

    #[test]
    fn what_is_unclear_is_refused() {
        for text in [
            "",
            "5",
            "Mbit/s",
            "5 MB/s",
            "-5 Mbit/s",
            "0 Mbit/s",
            "0.5 bit/s",
            "1..5 Mbit",
            "99999999999 Tbit/s",
            "off ",
        ] {
            assert!(text.parse::<BitRate>().is_err(), "{text}");
        }
        for text in ["5", "5 Mbit", "0 B", "1.0001 kB", "99999999 PB", ".5 B", "5. TB"] {
            assert!(text.parse::<ByteCount>().is_err(), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_written_is_read_back(value: u64) {
            let (rate, count) = (BitRate::new(value), ByteCount::new(value));
            proptest::prop_assert_eq!(rate.to_string().parse(), Ok(rate));
            proptest::prop_assert_eq!(count.to_string().parse(), Ok(count));
        }
    }
}
