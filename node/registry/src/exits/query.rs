//! The query string of `GET /v1/exits` and of the page.

use weir_config::IpType;
use weir_market::listing::{Amount, Country, Currency, Price, State, Unit};

use super::cheapest;
use crate::record::Record;

/// The rows of an answer if the query does not say.
const DEFAULT_ROWS: usize = 100;
/// The maximum number of rows of an answer.
pub const MAX_ROWS: usize = 500;
/// The maximum number of countries in a query.
const MAX_COUNTRIES: usize = 64;
/// The longest query string, in bytes.
const MAX_QUERY: usize = 2048;

/// The order of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sort {
    /// The lowest price first.
    #[default]
    Price,
    /// The newest listing first.
    Newest,
    /// The highest measured capacity first.
    Speed,
}

impl Sort {
    /// All orders.
    pub const ALL: [Self; 3] = [Self::Price, Self::Newest, Self::Speed];

    /// The word in a query.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Price => "price",
            Self::Newest => "newest",
            Self::Speed => "speed",
        }
    }
}

/// Why a query is not answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// Not a query string.
    #[error("the query string is too long, or is not one")]
    Form,
    /// An unknown key.
    #[error(
        "there is no parameter {0:?}: use country, ip_type, max_price, sort, state, limit and offset"
    )]
    Key(String),
    /// A value that is not one.
    #[error("{key} is {value:?}: {fix}")]
    Value {
        /// The parameter.
        key: &'static str,
        /// What it was.
        value: String,
        /// What to write.
        fix: String,
    },
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExitsQuery {
    /// Any of these countries; empty: all.
    pub countries: Vec<Country>,
    /// The kind of line.
    pub ip_type: Option<IpType>,
    /// The highest price.
    pub max_price: Option<Price>,
    /// The order.
    pub sort: Sort,
    /// Whether exits that are sold out are included.
    pub with_sold: bool,
    /// The number of rows.
    pub limit: usize,
    /// How many come before.
    pub offset: usize,
}

impl Default for ExitsQuery {
    fn default() -> Self {
        Self {
            countries: Vec::new(),
            ip_type: None,
            max_price: None,
            sort: Sort::default(),
            with_sold: false,
            limit: DEFAULT_ROWS,
            offset: 0,
        }
    }
}

fn wrong(key: &'static str, value: &str, fix: impl Into<String>) -> QueryError {
    QueryError::Value { key, value: value.chars().take(64).collect(), fix: fix.into() }
}

impl ExitsQuery {
    /// Reads a query string. A parameter without a value is as one that is not there, because forms
    /// send those.
    ///
    /// # Errors
    ///
    /// When a parameter is unknown or has a value that is not one.
    pub fn parse(text: &str) -> Result<Self, QueryError> {
        if text.len() > MAX_QUERY {
            return Err(QueryError::Form);
        }
        let pairs: Vec<(String, String)> =
            serde_urlencoded::from_str(text).map_err(|_| QueryError::Form)?;
        let mut query = Self::default();
        for (key, value) in pairs {
            let value = value.trim();
            if !value.is_empty() {
                query.set(&key, value)?;
            }
        }
        Ok(query)
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), QueryError> {
        match key {
            "country" => self.set_countries(value)?,
            "ip_type" => {
                let fix = "write residential, cellular, business, hosting or unknown";
                let found = IpType::from_word(value);
                self.ip_type = Some(found.ok_or_else(|| wrong("ip_type", value, fix))?);
            }
            "max_price" => {
                let price: Price =
                    value.parse().map_err(|error| wrong("max_price", value, format!("{error}")))?;
                self.max_price = Some(price);
            }
            "sort" => {
                let found = Sort::ALL.into_iter().find(|sort| sort.as_str() == value);
                let fix = "write price, newest or speed";
                self.sort = found.ok_or_else(|| wrong("sort", value, fix))?;
            }
            "state" => {
                self.with_sold = match value {
                    "active" => false,
                    "all" => true,
                    _ => return Err(wrong("state", value, "write active or all")),
                };
            }
            "limit" => {
                let fix = format!("write a number from 1 to {MAX_ROWS}");
                let limit = value.parse().ok().filter(|limit| (1..=MAX_ROWS).contains(limit));
                self.limit = limit.ok_or_else(|| wrong("limit", value, fix))?;
            }
            "offset" => {
                let fix = "write a whole number";
                self.offset = value.parse().map_err(|_| wrong("offset", value, fix))?;
            }
            _ => return Err(QueryError::Key(key.chars().take(64).collect())),
        }
        Ok(())
    }

    fn set_countries(&mut self, value: &str) -> Result<(), QueryError> {
        for word in value.split(',').filter(|word| !word.is_empty()) {
            let country =
                word.trim().parse().map_err(|error| wrong("country", word, format!("{error}")))?;
            if self.countries.len() >= MAX_COUNTRIES {
                return Err(wrong("country", word, format!("name at most {MAX_COUNTRIES}")));
            }
            if !self.countries.contains(&country) {
                self.countries.push(country);
            }
        }
        Ok(())
    }

    /// Whether a listing is asked for.
    #[must_use]
    pub fn matches(&self, record: &Record) -> bool {
        let Some(summary) = &record.summary else { return false };
        let is_cheap = self.max_price.as_ref().is_none_or(|max| {
            let best = cheapest(summary, max);
            best.is_some_and(|best| best.compare(max).is_some_and(|order| order.is_le()))
        });
        let is_there = self.countries.is_empty()
            || summary.country.is_some_and(|country| self.countries.contains(&country));
        (self.with_sold || summary.state == State::Active)
            && is_there
            && self.ip_type.is_none_or(|ip_type| summary.ip_type == ip_type)
            && is_cheap
    }

    /// A price in the currency and for the unit by which prices are compared: those of the highest
    /// price, else satoshi for a GiB.
    #[must_use]
    pub fn compared(&self) -> Price {
        self.max_price.clone().unwrap_or_else(|| Price {
            amount: Amount::default(),
            currency: Currency::sat(),
            unit: Unit::GiB,
        })
    }

    /// The query string of the same query from another row on.
    #[must_use]
    pub fn from_row(&self, offset: usize) -> String {
        let countries: Vec<String> = self.countries.iter().map(ToString::to_string).collect();
        let mut pairs = vec![("country", countries.join(","))];
        pairs.push(("ip_type", self.ip_type.map_or("", |it| it.as_str()).to_owned()));
        let price = self.max_price.as_ref().map_or_else(String::new, ToString::to_string);
        pairs.push(("max_price", price));
        pairs.push(("sort", self.sort.as_str().to_owned()));
        if self.with_sold {
            pairs.push(("state", "all".to_owned()));
        }
        pairs.push(("limit", self.limit.to_string()));
        pairs.push(("offset", offset.to_string()));
        pairs.retain(|(_, value)| !value.is_empty());
        serde_urlencoded::to_string(&pairs).unwrap_or_default()
    }
}
