//! The counters of the packet path and the guard, as the control plane shows them.

use serde::{Deserialize, Serialize};

/// How many packets the super-packets of each size have at most; the last size has more.
pub const BATCHES: [u64; 7] = [1, 2, 4, 8, 16, 32, 64];

/// Packets and the super-packets that they crossed a boundary in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boundary {
    /// System-call-sized units: GRO buffers, TUN packets, GSO batches.
    pub super_packets: u64,
    /// WireGuard datagrams or IP packets within them.
    pub packets: u64,
    /// The super-packets by their size: see [`BATCHES`].
    pub batches: [u64; BATCHES.len() + 1],
}

/// The four places where the number of packets per super-packet decides the speed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boundaries {
    /// Datagrams from consumers, as received from the UDP sockets.
    pub udp_receive: Boundary,
    /// Packets towards the internet, as written to the TUN device.
    pub tun_write: Boundary,
    /// Packets from the internet, as read from the TUN device.
    pub tun_read: Boundary,
    /// Datagrams to consumers, as sent on the UDP sockets.
    pub udp_send: Boundary,
}

/// One drop counter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drops {
    /// [`weir_common::reason::Stage::as_str`].
    pub stage: String,
    /// [`weir_common::DropReason::as_str`].
    pub reason: String,
    /// Packets dropped since the start.
    pub packets: u64,
}

/// What the guard passed and counted, by message type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuardCount {
    /// `initiation`, `response`, `cookie_reply`, `data`, `fragment`, `return` for return traffic of the
    /// node's own NAT, or `other` for everything else.
    pub message: String,
    /// Frames.
    pub datagrams: u64,
    /// Their UDP payload in bytes (frame bytes for `other`, `fragment` and `return`).
    pub bytes: u64,
}
