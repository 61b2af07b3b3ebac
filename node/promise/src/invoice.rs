//! What the node asks for: cumulative, so that a lost invoice or answer costs nobody anything.

use alloy_primitives::{Address, B256, U256, keccak256};
use rand_core::{OsRng, RngCore as _};
use zeroize::Zeroizing;

/// What the first invoice of a session asks for: it shows that the consumer can pay at all.
pub const FIRST: U256 = U256::ONE;

/// An invoice. It is not signed: it reaches the consumer through the tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Invoice {
    /// The session's agreement.
    pub agreement_id: U256,
    /// What the session has cost so far, in wei.
    pub agreement_total: U256,
    /// The fee that the promise must have.
    pub fee: U256,
    /// Keccak-256 of the preimage R.
    pub hashlock: B256,
    /// The node's address.
    pub provider: Address,
    /// The chain.
    pub chain_id: u64,
}

/// The preimage of a hashlock. Whoever has it and the promise can settle the promise: it is kept
/// on disk before its hash is shown, and never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Preimage(Zeroizing<[u8; 32]>);

impl std::fmt::Debug for Preimage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Preimage(..)")
    }
}

impl Preimage {
    /// A new one.
    #[must_use]
    pub fn random() -> Self {
        let mut bytes = Zeroizing::new([0; 32]);
        OsRng.fill_bytes(&mut *bytes);
        Self(bytes)
    }

    /// One that was kept.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes, for the ledger and for settlement.
    #[must_use]
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// Its hash, which the invoice and the promise have.
    #[must_use]
    pub fn hashlock(&self) -> B256 {
        keccak256(*self.0)
    }
}
