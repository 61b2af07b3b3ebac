//! The static keys of the sessions.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use boringtun::x25519::SharedSecret;
use weir_common::{DropReason, Slot};

use weir_accounts::Accounts;
use weir_wireguard::{
    identity::Identity,
    initiation::{Claim, agree},
};

/// The static keys of the sessions.
#[derive(Default)]
pub(crate) struct Directory(RwLock<Keys>);

/// The keys by key and by slot, so that no change scans all of them.
#[derive(Default)]
struct Keys {
    known: HashMap<[u8; 32], Known>,
    of_slot: HashMap<Slot, [u8; 32]>,
}

/// A session.
struct Known {
    slot: Slot,
    /// The secrets that the key shares with at most two of the node's keys. Each costs a scalar
    /// multiplication.
    shared: Mutex<Vec<([u8; 32], Arc<SharedSecret>)>>,
}

impl Known {
    fn shared(&self, identity: &Identity, key: [u8; 32]) -> Option<Arc<SharedSecret>> {
        let node = identity.public().to_bytes();
        let mut kept = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, shared)) = kept.iter().find(|(of, _)| *of == node) {
            return Some(Arc::clone(shared));
        }
        let shared = Arc::new(agree(identity, key)?);
        if kept.len() >= 2 {
            kept.remove(0);
        }
        kept.push((node, Arc::clone(&shared)));
        Some(shared)
    }
}

impl Directory {
    /// Adds a slot's key, in place of the one that it had.
    pub(crate) fn insert(&self, key: [u8; 32], slot: Slot) {
        let known = Known { slot, shared: Mutex::default() };
        let mut keys = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(before) = keys.of_slot.insert(slot, key) {
            keys.known.remove(&before);
        }
        keys.known.insert(key, known);
    }

    /// Removes the slot's key. No [`Directory::authenticate`] of it is under way afterwards.
    pub(crate) fn remove(&self, slot: Slot) {
        let mut keys = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let Some(key) = keys.of_slot.remove(&slot) else { return };
        // Another slot may have it by now.
        if keys.known.get(&key).is_some_and(|known| known.slot == slot) {
            keys.known.remove(&key);
        }
    }

    /// Authenticates an initiation, checks that it is newer than all that its session has sent, and
    /// notes it as the newest.
    ///
    /// # Errors
    ///
    /// Fails if no session has the key, if the sender does not have it, or if the initiation is a
    /// replay.
    pub(super) fn authenticate(
        &self,
        claim: &Claim,
        identity: &Identity,
        accounts: &Accounts,
    ) -> Result<Slot, DropReason> {
        let keys = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let known = keys.known.get(&claim.static_public).ok_or(DropReason::UnknownPeer)?;
        let shared = known.shared(identity, claim.static_public);
        let timestamp = shared.and_then(|shared| claim.prove(&shared));
        let timestamp = timestamp.ok_or(DropReason::HandshakeInvalid)?;
        let account = accounts.get(known.slot).ok_or(DropReason::UnknownPeer)?;
        let newest = &account.worker.newest_initiation;
        if !timestamp.is_after(newest) {
            return Err(DropReason::HandshakeReplay);
        }
        timestamp.save(newest);
        Ok(known.slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot_of(directory: &Directory, key: [u8; 32]) -> Option<Slot> {
        directory.0.read().expect("no panic").known.get(&key).map(|known| known.slot)
    }

    #[test]
    fn a_slots_key_goes_with_it_and_anothers_stays() {
        let directory = Directory::default();
        directory.insert([1; 32], Slot(1));
        directory.insert([2; 32], Slot(2));
        directory.remove(Slot(1));
        assert_eq!(slot_of(&directory, [1; 32]), None);
        assert_eq!(slot_of(&directory, [2; 32]), Some(Slot(2)));
        directory.insert([3; 32], Slot(2));
        assert_eq!(slot_of(&directory, [2; 32]), None, "a slot has one key");
        // A consumer that comes back before its former session's slot is told to go.
        directory.insert([3; 32], Slot(4));
        directory.remove(Slot(2));
        assert_eq!(slot_of(&directory, [3; 32]), Some(Slot(4)));
        let keys = directory.0.read().expect("not poisoned");
        assert_eq!((keys.known.len(), keys.of_slot.len()), (1, 1), "nothing is left behind");
    }
}
