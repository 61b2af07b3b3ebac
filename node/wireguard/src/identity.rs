//! The node's keys: the one that new consumers are told, and one on its way out.

use std::sync::{
    Arc, PoisonError, RwLock,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use x25519_dalek::{PublicKey, StaticSecret};

/// The node's static key pair. Clones share it, so that a tunnel holds no copy of a private key.
#[derive(Clone)]
pub struct Identity(Arc<KeyPair>);

struct KeyPair {
    private: StaticSecret,
    public: PublicKey,
}

impl Identity {
    /// The identity with this private key.
    #[must_use]
    pub fn new(private: [u8; 32]) -> Self {
        let private = StaticSecret::from(private);
        let public = PublicKey::from(&private);
        Self(Arc::new(KeyPair { private, public }))
    }

    /// The public key.
    #[must_use]
    pub fn public(&self) -> &PublicKey {
        &self.0.public
    }

    /// The private key, for finding out whose an initiation is.
    #[must_use]
    pub fn private(&self) -> &StaticSecret {
        &self.0.private
    }
}

/// The identities to which consumers may connect. The handshake thread looks at them for each
/// initiation, and the packet path never does.
pub struct Identities {
    pair: RwLock<Pair>,
    changes: AtomicU64,
}

/// One identity, or two.
#[derive(Clone)]
pub struct Pair {
    /// What new consumers are told.
    pub current: Identity,
    /// What others still have.
    pub previous: Option<Identity>,
}

impl Pair {
    /// Both, the current one first.
    pub fn iter(&self) -> impl Iterator<Item = &Identity> {
        std::iter::once(&self.current).chain(&self.previous)
    }
}

impl Identities {
    /// These.
    #[must_use]
    pub fn new(pair: Pair) -> Arc<Self> {
        Arc::new(Self { pair: RwLock::new(pair), changes: AtomicU64::new(0) })
    }

    /// The identities now.
    #[must_use]
    pub fn get(&self) -> Pair {
        self.pair.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes them; from the next handshake on.
    pub fn set(&self, pair: Pair) {
        *self.pair.write().unwrap_or_else(PoisonError::into_inner) = pair;
        self.changes.fetch_add(1, Relaxed);
    }

    /// How often they have changed: cheaper to ask than [`Identities::get`].
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.changes.load(Relaxed)
    }
}
