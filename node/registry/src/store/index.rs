//! Where events are by kind, key and tag, newest first.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use super::merge::newest_first;
use crate::{filter::Wanted, record::Record};

/// A place in the order in which events are served: newest first; of one second, the lowest
/// identifier first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position {
    created_at: Reverse<u64>,
    /// The first eight bytes of the identifier.
    id: u64,
    pub(super) slot: u32,
}

impl Position {
    pub(super) fn of(record: &Record, slot: u32) -> Self {
        let id = record.id.first_chunk().map_or(0, |first| u64::from_be_bytes(*first));
        Self { created_at: Reverse(record.created_at), id, slot }
    }

    /// Before all others.
    pub(super) const FIRST: Self = Self { created_at: Reverse(u64::MAX), id: 0, slot: 0 };

    /// Before all that were created at this time, and after all that are newer.
    pub(super) fn newest_of(created_at: u64) -> Self {
        Self { created_at: Reverse(created_at), id: 0, slot: 0 }
    }

    pub(super) fn created_at(self) -> u64 {
        self.created_at.0
    }
}

pub(super) type Positions = BTreeSet<Position>;

#[derive(Debug, Default)]
pub(super) struct Index {
    all: Positions,
    kinds: HashMap<u16, Positions>,
    keys: HashMap<[u8; 32], Positions>,
    tags: HashMap<u8, HashMap<Arc<str>, Positions>>,
}

impl Index {
    /// Adds a record, whose tags' values it shares with those of other records.
    pub(super) fn add(&mut self, record: &mut Record, slot: u32) {
        let position = Position::of(record, slot);
        self.all.insert(position);
        self.kinds.entry(record.kind).or_default().insert(position);
        self.keys.entry(record.key).or_default().insert(position);
        for (letter, value) in &mut record.tags {
            let values = self.tags.entry(*letter).or_default();
            if let Some((known, _)) = values.get_key_value(value) {
                *value = Arc::clone(known);
            }
            values.entry(Arc::clone(value)).or_default().insert(position);
        }
    }

    pub(super) fn remove(&mut self, record: &Record, slot: u32) {
        let position = Position::of(record, slot);
        self.all.remove(&position);
        if let Some(positions) = self.kinds.get_mut(&record.kind) {
            positions.remove(&position);
        }
        if let Some(positions) = self.keys.get_mut(&record.key) {
            positions.remove(&position);
            if positions.is_empty() {
                self.keys.remove(&record.key);
            }
        }
        for (letter, value) in &record.tags {
            let Some(values) = self.tags.get_mut(letter) else { continue };
            let Some(positions) = values.get_mut(value) else { continue };
            positions.remove(&position);
            if positions.is_empty() {
                values.remove(value);
            }
        }
    }

    pub(super) fn all(&self) -> impl Iterator<Item = Position> {
        self.all.iter().copied()
    }

    pub(super) fn of_kind(&self, kind: u16) -> Option<&Positions> {
        self.kinds.get(&kind)
    }

    pub(super) fn of_key(&self, key: &[u8; 32]) -> Option<&Positions> {
        self.keys.get(key)
    }

    pub(super) fn of_tag(&self, letter: u8, value: &str) -> Option<&Positions> {
        self.tags.get(&letter)?.get(value)
    }

    /// Events among which are all that match, newest first, from the index that has the fewest.
    pub(super) fn candidates<'i>(
        &'i self,
        filter: &'i Wanted,
        ids: &'i HashMap<[u8; 32], u32>,
        position: impl Fn(u32) -> Option<Position>,
    ) -> Box<dyn Iterator<Item = Position> + 'i> {
        if let Some(wanted) = &filter.ids {
            let found = wanted.iter().filter_map(|id| position(*ids.get(id)?));
            let found: Positions = found.collect();
            return Box::new(found.into_iter());
        }
        let mut choices: Vec<Vec<&Positions>> = vec![vec![&self.all]];
        if let Some(kinds) = &filter.kinds {
            choices.push(kinds.iter().filter_map(|kind| self.kinds.get(kind)).collect());
        }
        if let Some(keys) = &filter.authors {
            choices.push(keys.iter().filter_map(|key| self.keys.get(key)).collect());
        }
        for (letter, values) in &filter.tags {
            let sets = values.iter().filter_map(|value| self.of_tag(*letter, value));
            choices.push(sets.collect());
        }
        let size = |sets: &Vec<&Positions>| sets.iter().map(|set| set.len()).sum::<usize>();
        let best = choices.into_iter().min_by_key(size).unwrap_or_default();
        newest_first(best, filter.until, filter.since)
    }
}
