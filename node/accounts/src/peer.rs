//! What the control plane tells the packet path.

use std::net::{Ipv4Addr, Ipv6Addr};

use weir_common::{PublicKey, Slot};

/// What the packet path must know of a session.
#[derive(Clone, Debug)]
pub struct PeerSpec {
    /// Its place. Its account already names the session and carries its counters.
    pub slot: Slot,
    /// The consumer's static key.
    pub public_key: PublicKey,
    /// The only inner IPv4 source that the session may have.
    pub address_v4: Ipv4Addr,
    /// The only inner IPv6 source that the session may have.
    pub address_v6: Ipv6Addr,
}

/// The packet path, as the control plane sees it. Calls return at once; they take effect at the
/// owning worker's next turn, in order.
pub trait PeerControl: Send + Sync {
    /// Serves a session from now on.
    fn add(&self, peer: PeerSpec);
    /// Serves it no more. Returns once the owning worker has let go of the slot, so that the
    /// account can be given to another.
    fn remove(&self, slot: Slot);
}
