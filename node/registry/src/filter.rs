//! Filters (NIP-01), and whether an event matches one.

use std::collections::BTreeSet;

use nostr::filter::Filter;
use weir_market::event::SEALED;

use crate::record::Record;

/// The maximum number of filters of one subscription.
pub const MAX_FILTERS: usize = 10;
/// The maximum number of values in one filter, all its lists together.
pub const MAX_VALUES: usize = 1024;
/// The events that a filter without a limit gets at most.
pub const DEFAULT_LIMIT: usize = 500;
/// The maximum limit of a filter.
pub const MAX_LIMIT: usize = 5000;

/// Why a filter is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// Too many filters.
    #[error("invalid: a subscription has at most {MAX_FILTERS} filters")]
    Filters,
    /// Too many values.
    #[error("invalid: a filter has at most {MAX_VALUES} values in its lists")]
    Values,
    /// Full-text search.
    #[error("unsupported: this registry has no search (NIP-50)")]
    Search,
}

/// A filter, as the store looks at it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Identifiers. An empty list matches nothing, here and below.
    pub ids: Option<BTreeSet<[u8; 32]>>,
    /// Keys.
    pub authors: Option<BTreeSet<[u8; 32]>>,
    /// Kinds.
    pub kinds: Option<BTreeSet<u16>>,
    /// The earliest creation.
    pub since: Option<u64>,
    /// The latest creation.
    pub until: Option<u64>,
    /// Tags by their letter: each must have one of the values.
    pub tags: Vec<(u8, BTreeSet<String>)>,
    /// The maximum number of stored events.
    pub limit: usize,
}

impl Wanted {
    /// Reads a filter.
    ///
    /// # Errors
    ///
    /// When it has too many values, or wants what there is not.
    pub fn read(filter: &Filter) -> Result<Self, FilterError> {
        if filter.search.is_some() {
            return Err(FilterError::Search);
        }
        let count = |values: Option<usize>| values.unwrap_or(0);
        let tags: usize = filter.generic_tags.values().map(BTreeSet::len).sum();
        let values = count(filter.ids.as_ref().map(BTreeSet::len))
            + count(filter.authors.as_ref().map(BTreeSet::len))
            + count(filter.kinds.as_ref().map(BTreeSet::len))
            + tags;
        if values > MAX_VALUES {
            return Err(FilterError::Values);
        }
        let ids = filter.ids.as_ref();
        let authors = filter.authors.as_ref();
        let kinds = filter.kinds.as_ref();
        Ok(Self {
            ids: ids.map(|all| all.iter().map(|id| id.to_bytes()).collect()),
            authors: authors.map(|all| all.iter().map(|key| key.to_bytes()).collect()),
            kinds: kinds.map(|all| all.iter().map(|kind| kind.as_u16()).collect()),
            since: filter.since.map(|time| time.as_secs()),
            until: filter.until.map(|time| time.as_secs()),
            tags: filter
                .generic_tags
                .iter()
                .map(|(letter, values)| (letter.as_byte(), values.clone()))
                .collect(),
            limit: filter.limit.unwrap_or(DEFAULT_LIMIT).min(MAX_LIMIT),
        })
    }

    /// Reads the filters of a subscription.
    ///
    /// # Errors
    ///
    /// As [`Self::read`], and when there are too many.
    pub fn read_all<'f>(
        filters: impl ExactSizeIterator<Item = &'f Filter>,
    ) -> Result<Vec<Self>, FilterError> {
        if filters.len() > MAX_FILTERS {
            return Err(FilterError::Filters);
        }
        filters.map(Self::read).collect()
    }

    /// Whether an event matches. A sealed letter matches only a filter that names its recipient, so
    /// that nobody collects the letters to all.
    #[must_use]
    pub fn matches(&self, record: &Record) -> bool {
        let is_in_time = self.since.is_none_or(|since| record.created_at >= since)
            && self.until.is_none_or(|until| record.created_at <= until);
        let has_tags = self.tags.iter().all(|(letter, values)| {
            record.tags.iter().any(|(of, value)| of == letter && values.contains(&**value))
        });
        is_in_time
            && self.kinds.as_ref().is_none_or(|kinds| kinds.contains(&record.kind))
            && self.authors.as_ref().is_none_or(|authors| authors.contains(&record.key))
            && self.ids.as_ref().is_none_or(|ids| ids.contains(&record.id))
            && has_tags
            && (record.kind != SEALED || self.tags.iter().any(|(letter, _)| *letter == b'p'))
    }
}
