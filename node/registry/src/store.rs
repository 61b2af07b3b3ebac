//! The events, in memory, with indexes. Nothing here reads a clock.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use weir_market::event::{Address, DELETION, LISTING, SEALED, deleted};

use crate::{admission::max_per_key, filter::Wanted, record::Record, refusal::Refusal};

mod index;
mod merge;

use index::{Index, Position};

/// The maximum number of letters to one recipient. A newer one takes the place of the oldest.
const MAX_LETTERS: usize = 64;

/// The bounds of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Events of each [`Class`].
    pub events: usize,
    /// The memory of all events, in bytes. Opinions and letters together have half of it, so that
    /// they leave room for listings and deletions.
    pub bytes: usize,
}

/// Events that share a bound, so that those of one class cannot keep out those of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Listing,
    Deletion,
    /// What watchers and people say about listings.
    Opinion,
    Letter,
}

impl Class {
    const fn of(kind: u16) -> Self {
        match kind {
            LISTING => Self::Listing,
            DELETION => Self::Deletion,
            SEALED => Self::Letter,
            _ => Self::Opinion,
        }
    }

    const fn is_secondary(self) -> bool {
        matches!(self, Self::Opinion | Self::Letter)
    }
}

/// What a deletion is aimed at.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Target {
    Address(Address),
    Id { key: [u8; 32], id: [u8; 32] },
}

/// The events that are served.
#[derive(Debug)]
pub struct Store {
    capacity: Capacity,
    slots: Vec<Option<Arc<Record>>>,
    free: Vec<u32>,
    ids: HashMap<[u8; 32], u32>,
    addresses: HashMap<Address, u32>,
    /// When the deletions of each target were created.
    tombstones: HashMap<Target, Vec<u64>>,
    index: Index,
    /// Events by when they are to be forgotten.
    ends: BTreeSet<(u64, u32)>,
    /// How many events of each kind each key has.
    counts: HashMap<([u8; 32], u16), u32>,
    /// Listings that are not served before their node has answered.
    hidden: HashSet<[u8; 32]>,
    /// The number of events of each class, and their memory in bytes.
    classes: [(usize, usize); 4],
}

impl Store {
    /// No events.
    #[must_use]
    pub fn new(capacity: Capacity) -> Self {
        Self {
            capacity,
            slots: Vec::new(),
            free: Vec::new(),
            ids: HashMap::new(),
            addresses: HashMap::new(),
            tombstones: HashMap::new(),
            index: Index::default(),
            ends: BTreeSet::new(),
            counts: HashMap::new(),
            hidden: HashSet::new(),
            classes: [(0, 0); 4],
        }
    }

    /// The number of listings.
    #[must_use]
    pub fn listings(&self) -> usize {
        self.classes[Class::Listing as usize].0
    }

    /// The number of all events.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there is no event.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// The memory of all events, in bytes, as [`Record::cost`] estimates it.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.classes.iter().map(|(_, bytes)| bytes).sum()
    }

    /// Listings that are not served yet.
    #[must_use]
    pub fn hidden(&self) -> usize {
        self.hidden.len()
    }

    /// Whether an event is stored.
    #[must_use]
    pub fn contains(&self, id: &[u8; 32]) -> bool {
        self.ids.contains_key(id)
    }

    /// Whether a key has any event here.
    #[must_use]
    pub fn knows(&self, key: &[u8; 32]) -> bool {
        self.index.of_key(key).is_some()
    }

    fn record(&self, slot: u32) -> Option<&Arc<Record>> {
        self.slots.get(slot as usize)?.as_ref()
    }

    /// Says why an event would not be stored, before its signature is verified.
    ///
    /// # Errors
    ///
    /// As [`Self::insert`].
    pub fn check(&self, record: &Record) -> Result<(), Refusal> {
        if self.contains(&record.id) {
            return Err(Refusal::Duplicate);
        }
        if self.is_deleted(record) {
            return Err(Refusal::Deleted);
        }
        let replaced = record.address().and_then(|address| self.addresses.get(&address));
        let replaced = replaced.and_then(|slot| self.record(*slot));
        if let Some(before) = replaced {
            let is_newer = record.created_at > before.created_at
                || (record.created_at == before.created_at && record.id < before.id);
            if !is_newer {
                return Err(Refusal::Older);
            }
        } else {
            self.check_room(record)?;
        }
        let cost = record.cost().saturating_sub(replaced.map_or(0, |before| before.cost()));
        let secondary =
            self.classes[Class::Opinion as usize].1 + self.classes[Class::Letter as usize].1;
        let is_full = self.bytes() + cost > self.capacity.bytes
            || Class::of(record.kind).is_secondary() && secondary + cost > self.capacity.bytes / 2;
        if is_full { Err(Refusal::Full) } else { Ok(()) }
    }

    /// Whether there may be one more.
    fn check_room(&self, record: &Record) -> Result<(), Refusal> {
        let count = self.counts.get(&(record.key, record.kind)).copied().unwrap_or(0) as usize;
        if count >= max_per_key(record.kind) {
            return Err(Refusal::KeyFull(count, record.kind));
        }
        let (count, _) = self.classes[Class::of(record.kind) as usize];
        if count >= self.capacity.events { Err(Refusal::Full) } else { Ok(()) }
    }

    fn is_deleted(&self, record: &Record) -> bool {
        let by_address = record.address().map(Target::Address);
        let is_after = |times: &Vec<u64>| times.iter().any(|time| *time >= record.created_at);
        let target = Target::Id { key: record.key, id: record.id };
        // A deletion cannot be deleted (NIP-09).
        record.kind != DELETION
            && (by_address.is_some_and(|it| self.tombstones.get(&it).is_some_and(is_after))
                || self.tombstones.contains_key(&target))
    }

    /// Stores a verified event. What it replaces or deletes goes.
    ///
    /// # Errors
    ///
    /// Says why it is not stored.
    pub fn insert(&mut self, record: Record) -> Result<Arc<Record>, Refusal> {
        self.check(&record)?;
        if let Some(slot) = record.address().and_then(|it| self.addresses.get(&it).copied()) {
            self.remove(slot);
        }
        if record.kind == SEALED {
            self.make_room_for_letter(&record);
        }
        let targets = targets(&record);
        for target in &targets {
            self.delete(target, record.created_at);
            self.tombstones.entry(target.clone()).or_default().push(record.created_at);
        }
        Ok(self.put(record))
    }

    fn put(&mut self, mut record: Record) -> Arc<Record> {
        let slot = self.free.pop().unwrap_or(self.slots.len() as u32);
        if slot as usize == self.slots.len() {
            self.slots.push(None);
        }
        self.index.add(&mut record, slot);
        self.ids.insert(record.id, slot);
        if let Some(address) = record.address() {
            self.addresses.insert(address, slot);
        }
        self.ends.insert((record.until, slot));
        *self.counts.entry((record.key, record.kind)).or_default() += 1;
        let (events, bytes) = &mut self.classes[Class::of(record.kind) as usize];
        *events += 1;
        *bytes += record.cost();
        let record = Arc::new(record);
        if let Some(place) = self.slots.get_mut(slot as usize) {
            *place = Some(Arc::clone(&record));
        }
        record
    }

    /// Removes what a deletion of that time is aimed at.
    fn delete(&mut self, target: &Target, created_at: u64) {
        let slot = match target {
            Target::Address(address) => self.addresses.get(address).copied(),
            Target::Id { id, .. } => self.ids.get(id).copied(),
        };
        let Some(slot) = slot else { return };
        let Some(record) = self.record(slot) else { return };
        let goes = match target {
            Target::Address(_) => record.created_at <= created_at,
            Target::Id { key, .. } => record.key == *key && record.kind != DELETION,
        };
        if goes {
            self.remove(slot);
        }
    }

    fn make_room_for_letter(&mut self, letter: &Record) {
        let Some(recipient) = letter.tag(b'p') else { return };
        let Some(all) = self.index.of_tag(b'p', recipient) else { return };
        let letters = all.iter().rev().map(|position| position.slot);
        let letters: Vec<u32> =
            letters.filter(|slot| self.record(*slot).is_some_and(|it| it.kind == SEALED)).collect();
        // The oldest by when it came, which is what `until` says.
        let oldest = letters.iter().min_by_key(|slot| self.record(**slot).map(|it| it.until));
        if let Some(oldest) = oldest.copied().filter(|_| letters.len() >= MAX_LETTERS) {
            self.remove(oldest);
        }
    }

    fn remove(&mut self, slot: u32) {
        let Some(record) = self.slots.get_mut(slot as usize).and_then(Option::take) else { return };
        self.free.push(slot);
        self.index.remove(&record, slot);
        self.ids.remove(&record.id);
        self.hidden.remove(&record.id);
        if let Some(address) = record.address() {
            self.addresses.remove(&address);
        }
        for target in targets(&record) {
            if let Some(times) = self.tombstones.get_mut(&target) {
                if let Some(at) = times.iter().position(|time| *time == record.created_at) {
                    times.swap_remove(at);
                }
                if times.is_empty() {
                    self.tombstones.remove(&target);
                }
            }
        }
        self.ends.remove(&(record.until, slot));
        if let Some(count) = self.counts.get_mut(&(record.key, record.kind)) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&(record.key, record.kind));
            }
        }
        let (events, bytes) = &mut self.classes[Class::of(record.kind) as usize];
        *events -= 1;
        *bytes -= record.cost();
    }

    /// Forgets what has expired at `now`. Returns how many events that were.
    pub fn expire(&mut self, now: u64) -> usize {
        let before = self.len();
        while let Some(&(until, slot)) = self.ends.first().filter(|(until, _)| *until <= now) {
            self.ends.remove(&(until, slot));
            self.remove(slot);
        }
        before - self.len()
    }

    /// Serves a listing only once [`Self::show`] says so.
    pub fn hide(&mut self, id: [u8; 32]) {
        if self.contains(&id) {
            self.hidden.insert(id);
        }
    }

    /// Serves a listing from now on. Returns it if it was hidden.
    pub fn show(&mut self, id: &[u8; 32]) -> Option<Arc<Record>> {
        self.hidden
            .remove(id)
            .then(|| self.ids.get(id).and_then(|slot| self.record(*slot).cloned()))?
    }

    /// The listing at an address, hidden or not.
    #[must_use]
    pub fn at(&self, address: &Address) -> Option<&Arc<Record>> {
        self.addresses.get(address).and_then(|slot| self.record(*slot))
    }

    /// The listings that are not served yet.
    pub fn waiting(&self) -> impl Iterator<Item = &Arc<Record>> {
        self.hidden.iter().filter_map(|id| self.record(*self.ids.get(id)?))
    }

    /// The events that match any of the filters at `now`, each once, newest first; of one second, the
    /// lowest identifier first.
    #[must_use]
    pub fn query(&self, filters: &[Wanted], now: u64) -> Vec<Arc<Record>> {
        let mut found: Vec<Arc<Record>> = Vec::new();
        for filter in filters {
            let candidates = self.index.candidates(filter, &self.ids, |slot| {
                self.record(slot).map(|record| Position::of(record, slot))
            });
            let matching = candidates
                .filter_map(|position| self.record(position.slot))
                .filter(|record| record.until > now && filter.matches(record))
                .filter(|record| !self.hidden.contains(&record.id))
                .take(filter.limit);
            found.extend(matching.cloned());
        }
        if filters.len() > 1 {
            found.sort_by(|a, b| b.created_at.cmp(&a.created_at).then(a.id.cmp(&b.id)));
            found.dedup_by(|a, b| a.id == b.id);
        }
        found
    }

    /// All events, hidden ones too, newest first.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Record>> {
        self.index.all().filter_map(|position| self.record(position.slot))
    }

    /// All listings that are served, newest first.
    pub fn served(&self, now: u64) -> impl Iterator<Item = &Arc<Record>> {
        let listings = self.index.of_kind(LISTING).into_iter().flatten();
        listings
            .filter_map(|position| self.record(position.slot))
            .filter(move |record| record.until > now && !self.hidden.contains(&record.id))
    }
}

/// What a deletion is aimed at; nothing if it is not a deletion.
fn targets(record: &Record) -> Vec<Target> {
    if record.kind != DELETION {
        return Vec::new();
    }
    let Some(event) = record.event() else { return Vec::new() };
    let what = deleted(&event);
    let addresses = what.addresses.into_iter().map(Target::Address);
    addresses.chain(what.ids.into_iter().map(|id| Target::Id { key: record.key, id })).collect()
}

#[cfg(test)]
mod tests;
