//! Restores the sessions of the ledger at the start of a node.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, RwLock},
};

use weir_accounts::{Accounts, PeerControl};
use weir_common::{Account, PublicKey, Slot, account::Counters};
use weir_ledger::{Session, SessionId, SharedLedger, counters};

use super::{AddressOf, Entry, SessionError, SessionTable, Sessions, limits};
use crate::{FlowControl, slots::Slots};

impl Sessions {
    /// Restores the ledger's sessions. Each gets its account back; if the account already names
    /// the session, the higher counters are kept. The packet path then serves all of them. The flows of
    /// ended sessions are removed from the kernel first.
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
        let mut preshared_keys = ledger.preshared_keys()?;
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
            let preshared_key = preshared_keys.remove(&session.id);
            let entry = Entry::new(session, saved, extra);
            table.insert(Entry { agreement, rates, preshared_key, ..entry });
        }
        let signer = ledger.signer().to_owned();
        drop(ledger);
        let sessions = Self {
            ledger: shared,
            table: RwLock::new(table),
            accounts,
            peers,
            flows: flows.into(),
            address_of,
            node_key,
            signer,
            max,
        };
        let ids: Vec<SessionId> = sessions.read().by_id.keys().copied().collect();
        for id in ids {
            sessions.apply_credit(id);
            sessions.apply_rates(id);
        }
        for entry in sessions.read().by_id.values() {
            sessions.serve(entry);
        }
        Ok(sessions)
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
