//! What people and programs ask for: exits of a country, by price. The query, and the answer.

use std::{cmp::Reverse, collections::BTreeMap, sync::Arc};

use serde::Serialize;
use weir_config::IpType;
use weir_market::listing::{Country, Price, State};

use crate::record::{Record, Summary};

mod query;
mod view;

pub use query::{ExitsQuery, MAX_ROWS, QueryError, Sort};
pub use view::ExitView;

/// The answer to `GET /v1/exits`.
#[derive(Debug, Serialize)]
pub struct ExitsAnswer {
    /// The number of exits that match.
    pub total: usize,
    /// Where the next answer begins, if there is more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_offset: Option<usize>,
    /// The exits of this answer.
    pub exits: Vec<ExitView>,
}

/// A country's exits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CountryCount {
    /// Its two letters; empty for exits that name none.
    pub country: String,
    /// Exits for sale.
    pub exits: usize,
    /// The same by the kind of line.
    pub ip_types: BTreeMap<&'static str, usize>,
}

/// The exits that match, in the order of the query.
#[must_use]
pub fn select(all: Vec<Arc<Record>>, query: &ExitsQuery) -> Vec<Arc<Record>> {
    let mut found: Vec<_> = all.into_iter().filter(|record| query.matches(record)).collect();
    let created = |record: &Arc<Record>| Reverse(record.created_at);
    match query.sort {
        Sort::Newest => found.sort_by_cached_key(|record| (created(record), record.id)),
        Sort::Speed => found.sort_by_cached_key(|record| {
            let measured = record.summary.as_ref().and_then(|it| it.measured);
            let speed = measured.map_or(0, |it| it.up.min(it.down));
            (Reverse(speed), created(record), record.id)
        }),
        Sort::Price => {
            let like = query.compared();
            found.sort_by_cached_key(|record| {
                let price = record.summary.as_ref().and_then(|it| cheapest(it, &like));
                let amount = price.and_then(|it| it.in_base()).map(|it| it.amount);
                // Exits without such a price come last.
                (amount.is_none(), amount, created(record), record.id)
            });
        }
    }
    found
}

/// The answer with the rows that the query wants.
#[must_use]
pub fn answer(found: &[Arc<Record>], query: &ExitsQuery) -> ExitsAnswer {
    let rows = found.iter().skip(query.offset).take(query.limit);
    let end = query.offset.saturating_add(query.limit);
    ExitsAnswer {
        total: found.len(),
        next_offset: (end < found.len()).then_some(end),
        exits: rows.filter_map(|record| ExitView::of(record)).collect(),
    }
}

/// The lowest of a listing's prices that can be compared with one.
#[must_use]
pub fn cheapest<'s>(summary: &'s Summary, like: &Price) -> Option<&'s Price> {
    let mut best: Option<&Price> = None;
    for price in &summary.prices {
        if price.compare(like).is_none() {
            continue;
        }
        if best.is_none_or(|best| price.compare(best).is_some_and(|order| order.is_lt())) {
            best = Some(price);
        }
    }
    best
}

/// How many exits for sale each country has, those with the most first.
#[must_use]
pub fn countries<'r>(all: impl Iterator<Item = &'r Arc<Record>>) -> Vec<CountryCount> {
    let mut counts: BTreeMap<Option<Country>, BTreeMap<&'static str, usize>> = BTreeMap::new();
    for record in all {
        let Some(summary) = record.summary.as_ref().filter(|it| it.state == State::Active) else {
            continue;
        };
        let types = counts.entry(summary.country).or_default();
        *types.entry(summary.ip_type.as_str()).or_default() += 1;
    }
    let mut all: Vec<CountryCount> = counts
        .into_iter()
        .map(|(country, ip_types)| CountryCount {
            country: country.map_or_else(String::new, |it| it.to_string()),
            exits: ip_types.values().sum(),
            ip_types,
        })
        .collect();
    all.sort_by_key(|it| Reverse(it.exits));
    all
}

/// The words for the kinds of line.
#[must_use]
pub fn ip_types() -> [IpType; 5] {
    [IpType::Residential, IpType::Cellular, IpType::Business, IpType::Hosting, IpType::Unknown]
}

#[cfg(test)]
mod tests;
