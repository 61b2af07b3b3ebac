//! The live sessions.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    ops::Bound,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use weir_common::{
    Slot,
    account::{Counters, SessionState},
};

use crate::{Snapshot, name};
use weir_accounts::{Accounts, Endpoint, PeerControl, PeerSpec};
use weir_common::PublicKey;
use weir_ledger::{
    LedgerError, Pause, Session, SessionId, SharedLedger, billed, counters, credit::Extra, unix_now,
};
use weir_wireguard::keys::{KeyError, PresharedKey, PrivateKey};
use zeroize::Zeroizing;

mod clock;
mod credit;
mod error;
mod flows;
mod limits;
pub mod pay;
mod prepay;
mod recovery;
mod removal;
mod sale;
mod table;
mod usage;

pub use credit::{Enforced, Extension};
pub use error::SessionError;
pub use sale::Sale;
use table::{Entry, SessionTable};

/// The inner addresses of a slot; `None` where the pool ends.
pub type AddressOf = Box<dyn Fn(Slot) -> Option<(Ipv4Addr, Ipv6Addr)> + Send + Sync>;

/// The minimum number of digits by which a session can be named. Fewer are more likely a slip.
pub const MIN_PREFIX: usize = 4;

/// The longest reference of an extension of credit, in bytes.
pub const MAX_REFERENCE: usize = 128;

/// The properties of a new session.
#[derive(Clone, Debug, Default)]
pub struct NewSession {
    /// Its name.
    pub name: Option<String>,
    /// The consumer's key. Without one, the node generates a key pair.
    pub public_key: Option<PublicKey>,
    /// The key that both sides mix into their handshakes, if there is to be one.
    pub preshared_key: Option<PresharedKey>,
    /// Whether it is paused until there is credit.
    pub prepaid: bool,
    /// Billed bytes that a prepaid session may use before it has credit.
    pub free_bytes: u64,
}

/// A new session.
#[derive(Debug)]
pub struct Added {
    /// The session.
    pub snapshot: Snapshot,
    /// The private key, if the node generated the pair. It is stored nowhere else.
    pub private_key: Option<PrivateKey>,
    /// The pre-shared key, if there is one.
    pub preshared_key: Option<PresharedKey>,
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
    /// The public key that signs usage records.
    signer: String,
    max: u32,
}

impl std::fmt::Debug for Sessions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sessions").field("max", &self.max).finish_non_exhaustive()
    }
}

impl Sessions {
    /// Creates a session and serves it.
    ///
    /// # Errors
    ///
    /// Fails if the name or the key is invalid or taken, the node is full, or the ledger cannot be
    /// written. Nothing has changed then.
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
            // The kernel may by now release flows that it kept before.
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
        let preshared_key = new.preshared_key;
        let counters = match ledger.insert_with_key(&session, &extra, preshared_key.as_ref()) {
            Ok(counters) => counters,
            Err(error) => {
                self.write().slots.put_back(session.slot);
                return Err(error.into());
            }
        };
        let key = preshared_key.clone();
        let snapshot = self.begin(session, counters, extra, key)?;
        Ok(Added { snapshot, private_key, preshared_key })
    }

    /// Serves a session that is in the ledger, which is locked.
    fn begin(
        &self,
        session: Session,
        counters: Counters,
        extra: Extra,
        preshared_key: Option<PresharedKey>,
    ) -> Result<Snapshot, SessionError> {
        if let Some(account) = self.accounts.get(session.slot) {
            account.assign(session.id.get(), &counters);
            account.set_state(session.state);
        }
        let id = session.id;
        let entry = Entry::new(session, counters, extra);
        self.write().insert(Entry { preshared_key, ..entry });
        self.apply_credit(id);
        self.apply_rates(id);
        let snapshot = self.get(&id.to_string())?;
        if let Some(entry) = self.read().by_id.get(&id) {
            self.serve(entry);
        }
        Ok(snapshot)
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

    /// At most `limit` sessions after `after`, in the order of their identifiers. A session that
    /// exists while all pages are read is in exactly one of them.
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

    /// The total usage of all sessions, ended ones included. It never falls.
    #[must_use]
    pub fn totals(&self) -> Counters {
        let live = self.read();
        live.by_id
            .values()
            .map(|entry| self.counters(entry))
            .fold(live.ended, |total, used| counters::sum(&total, &used))
    }

    /// The ledger, for what is not of sessions. Whoever locks it keeps every change of a session waiting.
    #[must_use]
    pub fn ledger(&self) -> &SharedLedger {
        &self.ledger
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

    fn serve(&self, entry: &Entry) {
        let session = &entry.session;
        if let Some((address_v4, address_v6)) = (self.address_of)(session.slot) {
            let (slot, public_key) = (session.slot, session.public_key);
            let preshared_key = entry.preshared_key.as_ref();
            let preshared_key = preshared_key.map(|key| Zeroizing::new(*key.as_bytes()));
            self.peers.add(PeerSpec { slot, public_key, preshared_key, address_v4, address_v6 });
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
        let seconds = entry.clock.seconds();
        let limit = credit::byte_limit(entry, seconds);
        Snapshot {
            session: entry.session.clone(),
            address_v4,
            address_v6,
            counters: self.counters(entry),
            seconds,
            credit: entry.credit,
            byte_limit: (limit != u64::MAX).then_some(limit),
            second_limit: credit::second_limit(entry),
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
