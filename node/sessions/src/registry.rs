//! The live sessions.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{Ipv4Addr, Ipv6Addr},
    ops::Bound,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use weir_common::{
    Account, Slot,
    account::{Counters, SessionState},
};

use crate::{FlowControl, Snapshot, name, slots::Slots};
use weir_accounts::{Accounts, Endpoint, PeerControl, PeerSpec};
use weir_common::PublicKey;
use weir_ledger::{
    Ledger, LedgerError, Pause, Session, SessionId, SharedLedger, billed, counters, credit::Extra,
    unix_now,
};
use weir_wireguard::keys::{KeyError, PrivateKey};

mod clock;
mod credit;
mod error;
mod flows;
mod limits;
pub mod pay;
mod table;
mod usage;

pub use credit::{Enforced, Extension};
pub use error::SessionError;
use table::{Entry, SessionTable};

/// The inner addresses of a slot; `None` where the pool ends.
pub type AddressOf = Box<dyn Fn(Slot) -> Option<(Ipv4Addr, Ipv6Addr)> + Send + Sync>;

/// The fewest digits by which a session can be named: fewer are more often a slip than an intent.
pub const MIN_PREFIX: usize = 4;

/// The longest reference of an extension of credit, in bytes.
pub const MAX_REFERENCE: usize = 128;

/// What a new session is to be.
#[derive(Clone, Debug, Default)]
pub struct NewSession {
    /// What to call it.
    pub name: Option<String>,
    /// The consumer's key; the node makes a pair where it is missing.
    pub public_key: Option<PublicKey>,
    /// Whether it is paused until there is credit.
    pub prepaid: bool,
    /// What a prepaid session may use before that, in billed bytes.
    pub free_bytes: u64,
}

/// A session that was just made.
#[derive(Debug)]
pub struct Added {
    /// The session.
    pub snapshot: Snapshot,
    /// The private half, if the node made the pair. It is kept nowhere else.
    pub private_key: Option<PrivateKey>,
}

/// The live sessions, in step with the ledger, the accounts and the packet path.
pub struct Sessions {
    /// Locked for the whole of each change; always before `table`.
    ledger: SharedLedger,
    /// Locked for moments only.
    table: RwLock<SessionTable>,
    accounts: Arc<Accounts>,
    peers: Arc<dyn PeerControl>,
    flows: flows::Flows,
    address_of: AddressOf,
    node_key: PublicKey,
    max: u32,
}

impl std::fmt::Debug for Sessions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sessions").field("max", &self.max).finish_non_exhaustive()
    }
}

impl Sessions {
    /// Takes up the sessions of the ledger: gives each its account, keeping the counters of one
    /// that already names it where they are higher, and has all of them served. What is in the
    /// kernel of sessions that are none any more is removed first.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be read, or has a session for which there is no slot or address, and
    /// when the kernel keeps the flows of former sessions.
    pub fn open(
        ledger: SharedLedger,
        accounts: Arc<Accounts>,
        peers: Arc<dyn PeerControl>,
        flows: Arc<dyn FlowControl>,
        address_of: AddressOf,
        node_key: PublicKey,
    ) -> Result<Self, SessionError> {
        let max = usable_slots(accounts.len(), &address_of);
        let shared = ledger;
        let mut ledger = shared.lock();
        let sessions = ledger.live()?;
        let taken: BTreeSet<Slot> = sessions.iter().map(|(session, _)| session.slot).collect();
        if let Some((session, _)) = sessions.iter().find(|(session, _)| session.slot.0 >= max) {
            return Err(SessionError::NoRoom { id: session.id, slot: session.slot, max });
        }
        let slots = Slots::new(max, &taken, ledger.freed_slots()?);
        let addresses: Vec<_> = taken.iter().filter_map(|slot| address_of(*slot)).collect();
        flows.forget_all_but(&addresses).map_err(SessionError::Flows)?;
        let mut extras = ledger.extras()?;
        let mut agreements = ledger.agreements()?;
        let mut rates = ledger.rates()?;
        let mut table = SessionTable {
            by_id: BTreeMap::new(),
            by_key: HashMap::new(),
            by_name: HashMap::new(),
            slots,
            ended: ledger.ended()?,
            common: limits::Common::default(),
        };
        for account in (0..accounts.len())
            .map(Slot)
            .filter(|slot| !taken.contains(slot))
            .filter_map(|slot| accounts.get(slot))
            .filter(|account| !counters::is_vacant(account))
        {
            account.vacate();
        }
        for (session, saved) in sessions {
            if let Some(account) = accounts.get(session.slot) {
                take_up(account, &session, &saved);
            }
            let extra = extras.remove(&session.id).unwrap_or_default();
            let agreement = agreements.remove(&session.id);
            let rates = rates.remove(&session.id).unwrap_or_default();
            table.insert(Entry { agreement, rates, ..Entry::new(session, saved, extra) });
        }
        drop(ledger);
        let sessions = Self {
            ledger: shared,
            table: RwLock::new(table),
            accounts,
            peers,
            flows: flows.into(),
            address_of,
            node_key,
            max,
        };
        let ids: Vec<SessionId> = sessions.read().by_id.keys().copied().collect();
        for id in ids {
            sessions.apply_credit(id);
            sessions.apply_rates(id);
        }
        for entry in sessions.read().by_id.values() {
            sessions.serve(&entry.session);
        }
        Ok(sessions)
    }

    /// Makes a session and has it served.
    ///
    /// # Errors
    ///
    /// When the name or the key is bad or taken, when the node is full, and when the ledger cannot
    /// be written. Nothing has changed then.
    pub fn add(&self, new: NewSession) -> Result<Added, SessionError> {
        if let Some(name) = &new.name {
            name::check(name)?;
        }
        let private_key = new.public_key.is_none().then(PrivateKey::random);
        let made = private_key.as_ref().map(PrivateKey::public);
        // One of the two is always there; the node's own key is refused just below.
        let public_key = new.public_key.or(made).unwrap_or(self.node_key);
        if public_key == self.node_key {
            return Err(KeyError::OwnKey.into());
        }

        let mut ledger = self.ledger.lock();
        self.check_room()?;
        if !self.read().slots.has_free() {
            // The kernel may let go by now of what it did not before.
            self.forget_left();
        }
        let mut session = self.write().reserve(new.name, public_key, self.max)?;
        let mut extra = Extra::default();
        if new.prepaid {
            extra.credit.bytes = Some(new.free_bytes);
            if new.free_bytes == 0 {
                session.state = SessionState::Paused;
                extra.pause = Some(Pause::Credit);
            }
        }
        let counters = match ledger.insert(&session, &extra) {
            Ok(counters) => counters,
            Err(error) => {
                self.write().slots.put_back(session.slot);
                return Err(error.into());
            }
        };
        if let Some(account) = self.accounts.get(session.slot) {
            account.assign(session.id.get(), &counters);
            account.set_state(session.state);
        }
        let id = session.id;
        self.write().insert(Entry::new(session.clone(), counters, extra));
        self.apply_credit(id);
        self.apply_rates(id);
        let snapshot = self.get(&id.to_string())?;
        self.serve(&session);
        Ok(Added { snapshot, private_key })
    }

    /// All sessions, the oldest first.
    #[must_use]
    pub fn list(&self) -> Vec<Snapshot> {
        let live = self.read();
        let mut all: Vec<_> =
            live.by_id.values().map(|entry| self.snapshot(&live, entry)).collect();
        drop(live);
        all.sort_by_key(|snapshot| (snapshot.session.created, snapshot.session.slot));
        all
    }

    /// At most `limit` sessions in the order of their identifiers, from the one after `after` on: of
    /// one page after the other, each session that is there throughout is in exactly one.
    #[must_use]
    pub fn page(&self, after: Option<SessionId>, limit: usize) -> Vec<Snapshot> {
        let live = self.read();
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let page = live.by_id.range((from, Bound::Unbounded)).take(limit);
        page.map(|(_, entry)| self.snapshot(&live, entry)).collect()
    }

    /// The session of this name, public key, identifier, or first digits of an identifier.
    ///
    /// # Errors
    ///
    /// When there is none, or more than one.
    pub fn get(&self, which: &str) -> Result<Snapshot, SessionError> {
        let live = self.read();
        Ok(self.snapshot(&live, live.find(which)?))
    }

    /// Ends a session: it is served no more, its final counters are in the ledger, its flows in
    /// the kernel are gone, and its slot is free. Waits for the worker that owns it. A slot whose
    /// flows the kernel keeps is given to nobody until they are gone.
    ///
    /// # Errors
    ///
    /// When there is no such session, or the ledger cannot be written; the session goes on then.
    pub fn remove(&self, which: &str) -> Result<Snapshot, SessionError> {
        self.end(which, "removed")
    }

    /// As [`Sessions::remove`], for a reason that the ledger and the last usage record have.
    ///
    /// # Errors
    ///
    /// As [`Sessions::remove`].
    pub fn end(&self, which: &str, reason: &str) -> Result<Snapshot, SessionError> {
        let mut ledger = self.ledger.lock();
        let session = self.read().find(which)?.session.clone();
        let ended = self.end_locked(&mut ledger, &session, reason);
        // Others need not wait for the kernel.
        drop(ledger);
        self.forget_left();
        ended
    }

    fn end_locked(
        &self,
        ledger: &mut Ledger,
        session: &Session,
        reason: &str,
    ) -> Result<Snapshot, SessionError> {
        let account = self.accounts.get(session.slot);
        if let Some(account) = account {
            account.set_state(SessionState::Closed);
        }
        self.peers.remove(session.slot);
        let live = self.read();
        let snapshot = live
            .by_id
            .get(&session.id)
            .map(|entry| (self.snapshot(&live, entry), self.used(entry, unix_now())));
        drop(live);
        let Some((snapshot, last)) = snapshot else {
            return Err(SessionError::NotFound(session.id.to_string()));
        };
        if let Err(error) = ledger.end(session.id, &last, reason) {
            if let Some(account) = account {
                account.set_state(session.state);
            }
            self.serve(session);
            return Err(error.into());
        }
        let mut live = self.write();
        live.remove(session);
        live.ended = counters::sum(&live.ended, &last.counters);
        if let Some(account) = account {
            account.vacate();
        }
        live.slots.leave(session.slot);
        drop(live);
        self.ledger.announce(ledger);
        let session = Session { state: SessionState::Closed, ..session.clone() };
        Ok(Snapshot { session, ..snapshot })
    }

    /// Writes the counters that have changed since the last time to the ledger, in one
    /// transaction. Returns how many sessions they were of.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be written; the next call tries again with all of them.
    pub fn checkpoint(&self) -> Result<usize, LedgerError> {
        // Flows that the kernel kept when their session ended.
        self.forget_left();
        let mut ledger = self.ledger.lock();
        let changed: Vec<_> = self
            .read()
            .by_id
            .iter()
            .map(|(id, entry)| (*id, self.counters(entry), entry.saved))
            .filter(|(_, counters, saved)| counters != saved)
            .map(|(id, counters, _)| (id, counters))
            .collect();
        if changed.is_empty() {
            self.ledger.set_saved();
            return Ok(0);
        }
        ledger.checkpoint(&changed)?;
        self.ledger.set_saved();
        let now = unix_now();
        let mut live = self.write();
        for (id, counters) in &changed {
            if let Some(entry) = live.by_id.get_mut(id) {
                if billed(&entry.saved) != billed(counters) {
                    entry.last_activity = entry.last_activity.max(now);
                }
                entry.saved = *counters;
            }
        }
        Ok(changed.len())
    }

    /// What all sessions that ever were have used together. Never falls.
    #[must_use]
    pub fn totals(&self) -> Counters {
        let live = self.read();
        live.by_id
            .values()
            .map(|entry| self.counters(entry))
            .fold(live.ended, |total, used| counters::sum(&total, &used))
    }

    /// How many sessions are live.
    #[must_use]
    pub fn len(&self) -> usize {
        self.read().by_id.len()
    }

    /// Whether no session is live.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many sessions there can be.
    #[must_use]
    pub fn max(&self) -> u32 {
        self.max
    }

    /// Whether a session is paused now, by its state or because its credit is used up.
    #[must_use]
    pub fn is_paused(&self, id: SessionId) -> bool {
        let slot = self.read().by_id.get(&id).map(|entry| entry.session.slot);
        let account = slot.and_then(|slot| self.accounts.get(slot));
        account.is_some_and(|account| account.standing() == SessionState::Paused)
    }

    /// The endpoint that the consumer last sent authenticated data from. It must not reach a log, a
    /// metric or the disk.
    #[must_use]
    pub fn last_endpoint(&self, session: &Session) -> Option<Endpoint> {
        let account = self.accounts.get(session.slot)?;
        // Read first: the slot may just be given to another session.
        let endpoint = Endpoint::load(&account.worker);
        endpoint.filter(|_| counters::names(account, session.id))
    }

    fn serve(&self, session: &Session) {
        if let Some((address_v4, address_v6)) = (self.address_of)(session.slot) {
            let (slot, public_key) = (session.slot, session.public_key);
            self.peers.add(PeerSpec { slot, public_key, address_v4, address_v6 });
        }
    }

    /// A session's counters: those of its account, never lower than what the ledger has.
    fn counters(&self, entry: &Entry) -> Counters {
        let account = self.accounts.get(entry.session.slot);
        match account.filter(|account| counters::names(account, entry.session.id)) {
            Some(account) => counters::highest(&account.counters(), &entry.saved),
            None => entry.saved,
        }
    }

    fn snapshot(&self, live: &SessionTable, entry: &Entry) -> Snapshot {
        let addresses = (self.address_of)(entry.session.slot);
        let (address_v4, address_v6) =
            addresses.unwrap_or((Ipv4Addr::UNSPECIFIED, Ipv6Addr::UNSPECIFIED));
        Snapshot {
            session: entry.session.clone(),
            address_v4,
            address_v6,
            counters: self.counters(entry),
            seconds: entry.clock.seconds(),
            credit: entry.credit,
            own_rates: entry.rates,
            rates: live.common.rates_of(entry.rates),
            paused_for: match (entry.pause, live.common.held) {
                (Some(Pause::Operator), _) => Some(Pause::Operator.as_str()),
                (_, Some(held)) => Some(held.as_str()),
                (pause, None) => pause.map(Pause::as_str),
            },
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, SessionTable> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, SessionTable> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many slots have both an account and addresses.
fn usable_slots(accounts: u32, address_of: &AddressOf) -> u32 {
    let (mut usable, mut beyond) = (0, accounts);
    while usable < beyond {
        let middle = usable + (beyond - usable) / 2;
        match address_of(Slot(middle)) {
            Some(_) => usable = middle + 1,
            None => beyond = middle,
        }
    }
    usable
}

/// Gives a session of the ledger its account back.
fn take_up(account: &Account, session: &Session, saved: &Counters) {
    if counters::names(account, session.id) {
        counters::raise(account, saved);
    } else {
        account.assign(session.id.get(), saved);
    }
    account.set_state(session.state);
}

#[cfg(test)]
mod credit_tests;
#[cfg(test)]
mod flows_tests;
#[cfg(test)]
mod pay_tests;
#[cfg(any(test, feature = "test-util"))]
#[doc(hidden)]
pub mod payer;
#[cfg(any(test, feature = "test-util"))]
#[doc(hidden)]
pub mod rig;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod usage_tests;
