//! Makes everything that lists the limits from one list: the macro `limits!`.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    amounts::{AtMost, BitRate, ByteCount},
    kinds::Auto,
    schedule::{NotAWindow, Window},
};

/// The largest rate or amount: what SQLite and JSON readers hold exactly.
pub(super) const MAX_AMOUNT: i64 = 1 << 53;

/// A type of limit: how it is written in the API and at the command line.
pub trait Limit: Sized {
    /// The limit in JSON. 0 is no limit, of rates, bytes and numbers alike.
    type Json: Clone + Serialize + DeserializeOwned;

    /// The limit as the API writes it.
    fn to_json(&self) -> Self::Json;

    /// Parses a limit from the API's JSON.
    ///
    /// # Errors
    ///
    /// Fails if it is not of this type. Does not check its range.
    fn from_json(json: &Self::Json) -> Result<Self, BadLimit>;

    /// Parses the value of a `KEY=VALUE` argument of `weir limits set`.
    ///
    /// # Errors
    ///
    /// Fails if it is not of this type. Does not check its range.
    fn from_text(text: &str) -> Result<Self, String>;

    /// The number that is checked against a range, if it is one.
    fn number(&self) -> Option<i64>;

    /// What to write in the configuration for a number from `low` to `high`.
    fn fix(low: i64, high: i64) -> String {
        format!("write a number from {low} to {high}")
    }
}

/// Why a value is not a valid limit.
#[derive(Debug, thiserror::Error)]
pub enum BadLimit {
    /// An invalid time of the week.
    #[error(transparent)]
    Window(#[from] NotAWindow),
    /// A number out of its range.
    #[error("{key} {value} is out of range: write a number from {low} to {high}")]
    Range {
        /// Which.
        key: &'static str,
        /// The value.
        value: i64,
        /// The minimum.
        low: i64,
        /// The maximum.
        high: i64,
    },
}

/// Why `weir limits set` rejects an argument.
#[derive(Debug, thiserror::Error)]
pub enum BadAssignment {
    /// No limit has this key.
    #[error("there is no limit {0:?}")]
    Unknown(String),
    /// The value is invalid for this limit.
    #[error("{key}: {problem}")]
    Value {
        /// Which limit.
        key: &'static str,
        /// What is wrong with the value.
        problem: String,
    },
}

/// A limit of the configuration that is out of its range.
pub(crate) struct OutOfRange {
    pub(crate) key: &'static str,
    pub(crate) value: i64,
    /// The fix.
    pub(crate) fix: String,
}

/// Whether a limit is within its range, if it has one.
pub(super) fn check<L: Limit>(
    key: &'static str,
    limit: &L,
    range: Option<RangeInclusive<i64>>,
) -> Result<(), BadLimit> {
    let (Some(range), Some(value)) = (range, limit.number()) else { return Ok(()) };
    if range.contains(&value) {
        return Ok(());
    }
    Err(BadLimit::Range { key, value, low: *range.start(), high: *range.end() })
}

/// The same, for a configuration.
pub(super) fn misfit<L: Limit>(
    key: &'static str,
    limit: &L,
    range: Option<RangeInclusive<i64>>,
) -> Option<OutOfRange> {
    match check(key, limit, range) {
        Err(BadLimit::Range { value, low, high, .. }) => {
            Some(OutOfRange { key, value, fix: L::fix(low, high) })
        }
        _ => None,
    }
}

/// How a limit of each session is shown while it is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The name of its metric, without `weir_`.
    pub metric: &'static str,
    /// What the metric is.
    pub help: &'static str,
    /// What `weir limits` calls it.
    pub label: &'static str,
    /// What `weir limits` writes behind the number.
    pub unit: &'static str,
}

/// Declares the limits. An entry is
///
/// ```text
/// /// What it limits: for the configuration's default file and for the API.
/// key: Type = default, in low..=high, gauge "metric": "its help", line "label": "unit";
/// ```
///
/// `in` is the range of a number, in the configuration and in a change alike. `gauge` and `line` are
/// for a number that limits each session. Its value in force becomes a field of the status, a metric,
/// and a line of `weir limits`.
///
/// From the list come the section of the configuration, its check, the request that changes limits,
/// the keys of `weir limits set`, the keys that a reload changes, and the fields and metrics above.
/// What is left to write for a new limit is its effect, in `limits::Limiter`.
macro_rules! limits {
    (
        $(#[doc = $about:literal])*
        $name:ident {
            $(
                $(#[doc = $doc:literal])*
                $key:ident: $type:ty = $default:expr
                $(, in $range:expr)?
                $(, gauge $metric:literal: $help:literal, line $label:literal: $unit:literal)?;
            )*
        }
    ) => {
        section! {
            $(#[doc = $about])*
            $name {
                $($(#[doc = $doc])* $key: $type = $default;)*
            }
        }

        impl $name {
            /// The keys, with the name of their section before them.
            pub const FULL_KEYS: &'static [&'static str] =
                &[$(concat!("limits.", stringify!($key)),)*];

            /// Each limit that is out of its range.
            pub(crate) fn out_of_range(&self) -> Vec<$crate::limit::OutOfRange> {
                let each = [$($crate::limit::misfit(
                    stringify!($key),
                    &self.$key,
                    None$(.or(Some($range)))?,
                ),)*];
                each.into_iter().flatten().collect()
            }
        }

        /// Limits to be changed; what is absent stays as it is. Rates are in bits per second, and 0
        /// is no limit, of rates, bytes and numbers alike.
        #[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct Change {
            $(
                $(#[doc = $doc])*
                #[serde(skip_serializing_if = "Option::is_none")]
                pub $key: Option<<$type as $crate::limit::Limit>::Json>,
            )*
        }

        impl Change {
            /// The key of each limit.
            pub const KEYS: &'static [&'static str] = &[$(stringify!($key),)*];

            /// All of these limits.
            #[must_use]
            pub fn all(limits: &$name) -> Self {
                Self { $($key: Some($crate::limit::Limit::to_json(&limits.$key)),)* }
            }

            /// Has the limit `key` become what `text` says in the words of the configuration.
            ///
            /// # Errors
            ///
            /// When there is no such limit, or the text is none.
            pub fn assign(
                &mut self,
                key: &str,
                text: &str,
            ) -> Result<(), $crate::limit::BadAssignment> {
                use $crate::limit::{BadAssignment, Limit};
                match key {
                    $(stringify!($key) => {
                        let limit = <$type as Limit>::from_text(text).map_err(|problem| {
                            BadAssignment::Value { key: stringify!($key), problem }
                        })?;
                        self.$key = Some(limit.to_json());
                    })*
                    _ => return Err(BadAssignment::Unknown(key.to_owned())),
                }
                Ok(())
            }

            fn put_into(&self, limits: &mut $name) -> Result<(), $crate::limit::BadLimit> {
                $(if let Some(json) = &self.$key {
                    limits.$key = $crate::limit::Limit::from_json(json)?;
                    $crate::limit::check(
                        stringify!($key),
                        &limits.$key,
                        None$(.or(Some($range)))?,
                    )?;
                })*
                Ok(())
            }
        }

        /// The numbers that currently apply to each session; 0 is no limit.
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize,
        )]
        #[serde(default)]
        pub struct EachSession {
            $($(
                #[doc = $help]
                pub $key: u32,
            )?)*
        }

        impl EachSession {
            /// Each of them, and how it is shown.
            #[must_use]
            pub fn shown(&self) -> Vec<($crate::limit::Shown, u32)> {
                vec![$($((
                    $crate::limit::Shown {
                        metric: $metric,
                        help: $help,
                        label: $label,
                        unit: $unit,
                    },
                    self.$key,
                ),)?)*]
            }
        }
    };
}

fn saturated(value: u64) -> Option<i64> {
    Some(i64::try_from(value).unwrap_or(i64::MAX))
}

/// A whole number; 0 for `off`.
fn count(text: &str) -> Result<u32, String> {
    let digits = if text == "off" { "0" } else { text };
    digits.parse().map_err(|_| format!("{text:?} is not a whole number"))
}

impl Limit for BitRate {
    type Json = u64;

    fn to_json(&self) -> u64 {
        self.bits()
    }

    fn from_json(json: &u64) -> Result<Self, BadLimit> {
        Ok(Self::new(*json))
    }

    fn from_text(text: &str) -> Result<Self, String> {
        text.parse().map_err(|error: super::amounts::NotAnAmount| error.to_string())
    }

    fn number(&self) -> Option<i64> {
        saturated(self.bits())
    }

    fn fix(_: i64, high: i64) -> String {
        format!("write at most \"{high} bit/s\", or \"off\"")
    }
}

impl Limit for ByteCount {
    type Json = u64;

    fn to_json(&self) -> u64 {
        self.bytes()
    }

    fn from_json(json: &u64) -> Result<Self, BadLimit> {
        Ok(Self::new(*json))
    }

    fn from_text(text: &str) -> Result<Self, String> {
        text.parse().map_err(|error: super::amounts::NotAnAmount| error.to_string())
    }

    fn number(&self) -> Option<i64> {
        saturated(self.bytes())
    }

    fn fix(_: i64, high: i64) -> String {
        format!("write at most \"{high} B\", or \"off\"")
    }
}

impl Limit for AtMost {
    type Json = u32;

    fn to_json(&self) -> u32 {
        self.get()
    }

    fn from_json(json: &u32) -> Result<Self, BadLimit> {
        Ok(Self::new(*json))
    }

    fn from_text(text: &str) -> Result<Self, String> {
        count(text).map(Self::new)
    }

    fn number(&self) -> Option<i64> {
        Some(self.get().into())
    }

    fn fix(_: i64, high: i64) -> String {
        format!("write a number from 1 to {high}, or \"off\"")
    }
}

/// A number that weir may choose, in JSON: a whole number, or `"auto"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a whole number or \"auto\"")]
pub enum AutoNumber {
    /// The operator's; 0 is no limit.
    Number(u32),
    /// weir's.
    Auto(AutoWord),
}

/// `"auto"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AutoWord {
    /// Chosen by weir.
    Auto,
}

impl Limit for Auto<AtMost> {
    type Json = AutoNumber;

    fn to_json(&self) -> AutoNumber {
        match self {
            Self::Auto => AutoNumber::Auto(AutoWord::Auto),
            Self::Set(at_most) => AutoNumber::Number(at_most.get()),
        }
    }

    fn from_json(json: &AutoNumber) -> Result<Self, BadLimit> {
        Ok(match json {
            AutoNumber::Auto(AutoWord::Auto) => Self::Auto,
            AutoNumber::Number(number) => Self::Set(AtMost::new(*number)),
        })
    }

    fn from_text(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            _ => AtMost::from_text(text)
                .map(Self::Set)
                .map_err(|problem| format!("{problem}, nor \"auto\"")),
        }
    }

    fn number(&self) -> Option<i64> {
        self.set().and_then(Limit::number)
    }

    fn fix(low: i64, high: i64) -> String {
        AtMost::fix(low, high)
    }
}

impl Limit for u32 {
    type Json = Self;

    fn to_json(&self) -> Self {
        *self
    }

    fn from_json(json: &Self) -> Result<Self, BadLimit> {
        Ok(*json)
    }

    fn from_text(text: &str) -> Result<Self, String> {
        count(text)
    }

    fn number(&self) -> Option<i64> {
        Some((*self).into())
    }
}

impl Limit for i32 {
    type Json = Self;

    fn to_json(&self) -> Self {
        *self
    }

    fn from_json(json: &Self) -> Result<Self, BadLimit> {
        Ok(*json)
    }

    fn from_text(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| format!("{text:?} is not a whole number"))
    }

    fn number(&self) -> Option<i64> {
        Some((*self).into())
    }
}

impl Limit for Vec<Window> {
    type Json = Vec<String>;

    fn to_json(&self) -> Vec<String> {
        self.iter().map(ToString::to_string).collect()
    }

    fn from_json(json: &Vec<String>) -> Result<Self, BadLimit> {
        Ok(json.iter().map(|text| text.parse()).collect::<Result<_, NotAWindow>>()?)
    }

    fn from_text(text: &str) -> Result<Self, String> {
        let windows = text.split(';').map(str::trim).filter(|text| !["", "off"].contains(text));
        windows.map(|text| text.parse().map_err(|error: NotAWindow| error.to_string())).collect()
    }

    fn number(&self) -> Option<i64> {
        None
    }
}
