//! The registry itself: what is stored, who may publish, and who hears of it. It does no I/O.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nostr::event::Event;
use tokio::sync::broadcast;
use weir_market::event::{ATTESTATION, Address, LISTING, SEALED};

use crate::{
    admission::{Origin, judge},
    filter::Wanted,
    metrics::Metrics,
    network::Network,
    quota::Quotas,
    record::Record,
    refusal::Refusal,
    store::{Capacity, Store},
};

/// Events that a subscriber may lag behind before its subscriptions end.
const MAX_LAG: usize = 4096;
/// Seconds for which the new keys of a peer count.
const DAY: u64 = 24 * 3600;

/// The present time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Seconds since 1970.
    pub unix: u64,
    /// Nanoseconds of a clock that does not go backwards.
    pub tick: u64,
}

/// The rules of a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// The bounds of the store.
    pub capacity: Capacity,
    /// New keys of one network a day.
    pub keys_per_network: u32,
    /// Events per second of one network.
    pub events_per_second: u32,
    /// Bits of proof of work of a listing.
    pub proof_of_work: u8,
    /// Whether a listing waits until its node has answered.
    pub dial_back: bool,
}

impl Default for Rules {
    fn default() -> Self {
        let capacity = Capacity { events: 50_000, bytes: 512 << 20 };
        Self {
            capacity,
            keys_per_network: 5,
            events_per_second: 10,
            proof_of_work: 0,
            dial_back: false,
        }
    }
}

/// A registry.
#[derive(Debug)]
pub struct Registry {
    rules: Rules,
    state: Mutex<State>,
    live: broadcast::Sender<Arc<Record>>,
    metrics: Metrics,
}

#[derive(Debug)]
struct State {
    store: Store,
    quotas: Quotas,
    /// Changes since the start.
    changes: u64,
}

/// How many new keys a peer may bring a day, so that one that went wrong cannot fill the registry.
#[derive(Debug, Default)]
pub struct PeerAllowance {
    since: u64,
    used: usize,
}

impl PeerAllowance {
    fn take(&mut self, max: usize, now: u64) -> Result<(), Refusal> {
        if now >= self.since.saturating_add(DAY) {
            *self = Self { since: now, used: 0 };
        }
        if self.used >= max {
            return Err(Refusal::PeerKeys);
        }
        self.used += 1;
        Ok(())
    }
}

impl Registry {
    /// An empty one.
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        let state = State {
            store: Store::new(rules.capacity),
            quotas: Quotas::new(rules.keys_per_network, rules.events_per_second),
            changes: 0,
        };
        let (live, _) = broadcast::channel(MAX_LAG);
        Self { rules, state: Mutex::new(state), live, metrics: Metrics::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The rules.
    #[must_use]
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// The counters.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Takes an event that a client in this network publishes.
    ///
    /// # Errors
    ///
    /// Says why it is not stored.
    pub fn publish(&self, event: &Event, from: Network, now: Now) -> Result<(), Refusal> {
        let done = self.try_publish(event, from, now);
        match &done {
            Ok(()) => self.metrics.stored(),
            Err(refusal) => self.metrics.refused(refusal),
        }
        done
    }

    fn try_publish(&self, event: &Event, from: Network, now: Now) -> Result<(), Refusal> {
        let is_letter = event.kind.as_u16() == SEALED;
        self.lock().quotas.take_event(from, now.tick)?;
        let until = judge(event, self.rules.proof_of_work, Origin::Published, now.unix)?;
        let record = Record::new(event, until);
        let key = record.key;
        {
            let mut state = self.lock();
            state.store.check(&record)?;
            if record.kind == ATTESTATION {
                check_subject(&state.store, &record)?;
                state.quotas.take_attestation(from, now.tick)?;
            }
            // Each letter has a key of its own (NIP-59), so letters have a rate instead.
            if is_letter {
                state.quotas.take_letter(from, now.tick)?;
            } else if !state.store.knows(&key) {
                state.quotas.check_key(from, &key, now.unix, now.tick)?;
            }
        }
        verify(event)?;
        let mut state = self.lock();
        let is_new = !is_letter && !state.store.knows(&key);
        if is_new {
            state.quotas.check_key(from, &key, now.unix, now.tick)?;
        }
        self.store(&mut state, record)?;
        if is_new {
            state.quotas.count_key(from, key, now.unix, now.tick);
        }
        Ok(())
    }

    /// Takes an event that a peer has.
    ///
    /// # Errors
    ///
    /// Says why it is not stored.
    pub fn copy(
        &self,
        event: &Event,
        allowance: &mut PeerAllowance,
        now: Now,
    ) -> Result<(), Refusal> {
        if event.kind.as_u16() == SEALED {
            return Err(Refusal::Kind(SEALED));
        }
        let until = judge(event, self.rules.proof_of_work, Origin::Copied, now.unix)?;
        let record = Record::new(event, until);
        self.lock().store.check(&record)?;
        verify(event)?;
        let mut state = self.lock();
        if !state.store.knows(&record.key) {
            allowance.take(self.rules.capacity.events / 2, now.unix)?;
        }
        self.store(&mut state, record)?;
        self.metrics.copied();
        Ok(())
    }

    /// Takes an event from the snapshot that is kept until then.
    ///
    /// # Errors
    ///
    /// Says why it is not stored.
    pub fn restore(&self, event: &Event, until: u64, now: u64) -> Result<(), Refusal> {
        let longest = judge(event, self.rules.proof_of_work, Origin::Copied, now)?;
        verify(event)?;
        self.store(&mut self.lock(), Record::new(event, until.min(longest)))
    }

    fn store(&self, state: &mut State, record: Record) -> Result<(), Refusal> {
        let record = state.store.insert(record)?;
        state.changes += 1;
        if self.rules.dial_back && record.kind == LISTING {
            state.store.hide(record.id);
        } else {
            self.announce(record);
        }
        Ok(())
    }

    /// Tells the subscribers of an event. Without any, nobody hears it.
    fn announce(&self, record: Arc<Record>) {
        self.live.send(record).ok();
    }

    /// Serves a listing whose node has answered.
    pub fn show(&self, id: &[u8; 32]) {
        let shown = self.lock().store.show(id);
        if let Some(record) = shown {
            self.announce(record);
        }
    }

    /// Does not serve a listing, as long as its node does not answer.
    pub fn hide(&self, id: [u8; 32]) {
        self.lock().store.hide(id);
    }

    /// The listings whose nodes have not answered yet.
    #[must_use]
    pub fn hidden(&self) -> Vec<Arc<Record>> {
        self.lock().store.waiting().cloned().collect()
    }

    /// Hears of each event that is stored from now on.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Record>> {
        self.live.subscribe()
    }

    /// Whether a network may ask once more.
    #[must_use]
    pub fn may_ask(&self, from: Network, now: Now) -> bool {
        let may = self.lock().quotas.take_request(from, now.tick);
        if !may {
            self.metrics.request_refused();
        }
        may
    }

    /// The events that match; see [`Store::query`].
    #[must_use]
    pub fn query(&self, filters: &[Wanted], now: u64) -> Vec<Arc<Record>> {
        self.lock().store.query(filters, now)
    }

    /// All listings that are served, newest first.
    #[must_use]
    pub fn listings(&self, now: u64) -> Vec<Arc<Record>> {
        self.lock().store.served(now).cloned().collect()
    }

    /// All events, those that are not served too, newest first.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Record>> {
        self.lock().store.all().cloned().collect()
    }

    /// Whether an event is stored.
    #[must_use]
    pub fn contains(&self, id: &[u8; 32]) -> bool {
        self.lock().store.contains(id)
    }

    /// Forgets what has expired.
    pub fn expire(&self, now: u64) {
        let mut state = self.lock();
        let count = state.store.expire(now);
        state.changes += count as u64;
    }

    /// A number that grows with each change.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.lock().changes
    }

    /// What is stored, in numbers.
    #[must_use]
    pub fn size(&self) -> Size {
        let state = self.lock();
        Size {
            listings: state.store.listings(),
            hidden: state.store.hidden(),
            events: state.store.len(),
            bytes: state.store.bytes(),
        }
    }
}

/// How much is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Listings.
    pub listings: usize,
    /// Those of them that are not served yet.
    pub hidden: usize,
    /// All events.
    pub events: usize,
    /// Their memory, in bytes.
    pub bytes: usize,
}

/// Refuses an attestation about an exit that is not listed. One that a peer or the snapshot has was
/// looked at when it was published, and its exit may be away just now.
fn check_subject(store: &Store, record: &Record) -> Result<(), Refusal> {
    let exit = record.tag(b'd').and_then(Address::parse);
    let is_listed = exit.is_some_and(|exit| store.at(&exit).is_some());
    if is_listed { Ok(()) } else { Err(Refusal::UnknownExit) }
}

fn verify(event: &Event) -> Result<(), Refusal> {
    event.verify().map_err(|_| Refusal::Signature)
}

#[cfg(test)]
mod tests;
