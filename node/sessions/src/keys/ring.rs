//! The node's keys, as the control plane sees them.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use weir_wireguard::keys::KeyFileError;

/// The node's public keys, in base64.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeKeys {
    /// What new consumers are told.
    pub public_key: String,
    /// What others still have, and the node still takes.
    pub previous_public_key: Option<String>,
}

/// Why the node's keys are not changed, or not everywhere.
#[derive(Debug, thiserror::Error)]
pub enum KeyChangeError {
    /// The files cannot be, or must not be changed. Nothing has changed.
    #[error(transparent)]
    Files(#[from] KeyFileError),
    /// The guard in the kernel does not take it.
    #[error(
        "the keys on disk have changed, but the node does not use them yet: {0:#}. Fix: restart \
         weir."
    )]
    Guard(anyhow::Error),
}

/// Whoever can change the node's keys.
pub trait KeyRing: Send + Sync {
    /// The keys now.
    fn keys(&self) -> NodeKeys;

    /// Makes a new key for new consumers; the present one becomes the previous one.
    ///
    /// # Errors
    ///
    /// If there is a previous one already, or the change cannot be made.
    fn rotate(&self) -> Result<NodeKeys, KeyChangeError>;

    /// Takes the previous key no more.
    ///
    /// # Errors
    ///
    /// If there is none, or the change cannot be made.
    fn retire(&self) -> Result<NodeKeys, KeyChangeError>;
}

/// A shared [`KeyRing`].
pub type SharedKeyRing = Arc<dyn KeyRing>;
