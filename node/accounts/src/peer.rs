//! The sessions that the packet path serves.

use std::net::{Ipv4Addr, Ipv6Addr};

use weir_common::{PublicKey, Slot};
use zeroize::Zeroizing;

/// What the packet path needs to know about a session.
#[derive(Clone)]
pub struct PeerSpec {
    /// Its slot. Its account already names the session and carries its counters.
    pub slot: Slot,
    /// The consumer's static key.
    pub public_key: PublicKey,
    /// The pre-shared key, if there is one.
    pub preshared_key: Option<Zeroizing<[u8; 32]>>,
    /// The only inner IPv4 source that the session may have.
    pub address_v4: Ipv4Addr,
    /// The only inner IPv6 source that the session may have.
    pub address_v6: Ipv6Addr,
}

/// The packet path as the control plane sees it. The owning worker carries calls out in order, in its
/// next iteration.
pub trait PeerControl: Send + Sync {
    /// Adds a session.
    fn add(&self, peer: PeerSpec);
    /// Removes a session. Returns once the owning worker has let go of the slot, so that the
    /// account can be given to another.
    fn remove(&self, slot: Slot);
}
