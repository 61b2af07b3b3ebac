//! Rotates the running node's key without a gap: the old one is accepted until it is retired.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use tracing::info;
use weir_common::mac1::{Mac1Key, Mac1Keys};

use super::ebpf::GuardControl;
use weir_config::Shared;
use weir_sessions::{
    keys::{KeyChangeError, KeyRing, NodeKeys, rotation},
    wg_quick::PeerTemplate,
};
use weir_wireguard::identity::{Identities, Identity, Pair};
use weir_wireguard::keys::{self, PrivateKey};

/// The identities of a node with these keys.
pub(super) fn identities(key: &PrivateKey, previous: Option<&PrivateKey>) -> Pair {
    let identity = |key: &PrivateKey| Identity::new(key.secret().to_bytes());
    Pair { current: identity(key), previous: previous.map(identity) }
}

/// The keys for which the guard accepts handshakes.
pub(super) fn mac1_keys(key: &PrivateKey, previous: Option<&PrivateKey>) -> Mac1Keys {
    let mac1 = |key: &PrivateKey| Mac1Key::new(&key.public().0);
    match previous {
        Some(previous) => Mac1Keys::both(mac1(previous), mac1(key)),
        None => Mac1Keys::one(mac1(key)),
    }
}

/// The node's key file, and the parts of the node that use the keys.
pub(super) struct Ring {
    pub(super) path: PathBuf,
    pub(super) identities: Arc<Identities>,
    pub(super) guard: GuardControl,
    pub(super) template: Shared<PeerTemplate>,
    /// One change at a time.
    pub(super) changing: Mutex<()>,
}

impl KeyRing for Ring {
    fn keys(&self) -> NodeKeys {
        let print = |identity: &Identity| {
            keys::print_public(&weir_common::PublicKey(identity.public().to_bytes()))
        };
        let pair = self.identities.get();
        NodeKeys {
            public_key: print(&pair.current),
            previous_public_key: pair.previous.as_ref().map(print),
        }
    }

    fn rotate(&self) -> Result<NodeKeys, KeyChangeError> {
        let _one = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let key = rotation::rotate(&self.path)?;
        // The guard first: no consumer can have the new key before the guard accepts it.
        self.guard.add_mac1_key(Mac1Key::new(&key.public().0)).map_err(KeyChangeError::Guard)?;
        let current = Identity::new(key.secret().to_bytes());
        let previous = Some(self.identities.get().current);
        self.identities.set(Pair { current, previous });
        self.template
            .change(|template| PeerTemplate { node_key: key.public(), ..template.clone() });
        info!("the node has a new key; the old one is accepted until it is retired");
        Ok(self.keys())
    }

    fn retire(&self) -> Result<NodeKeys, KeyChangeError> {
        let _one = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        rotation::retire(&self.path)?;
        self.identities.set(Pair { current: self.identities.get().current, previous: None });
        self.guard.retire_mac1_key().map_err(KeyChangeError::Guard)?;
        info!("the node's old key is retired");
        Ok(self.keys())
    }
}
