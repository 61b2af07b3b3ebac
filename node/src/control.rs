//! What the control plane and the packet path say to each other.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use weir_common::Slot;

use crate::{
    host::watch::{Condition, Part},
    session::keys::KeyFileError,
};

/// A consumer's public key (X25519).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PublicKey(pub [u8; 32]);

impl std::fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        use base64::Engine as _;
        f.write_str(&base64::engine::general_purpose::STANDARD.encode(self.0))
    }
}

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

/// The flows of consumers in the kernel, as the control plane sees them. They go by the inner
/// addresses, which the next session in a slot gets: it must not get the flows with them.
pub trait FlowControl: Send + Sync {
    /// Removes every flow of these consumers. None is left when this returns `Ok`.
    ///
    /// # Errors
    ///
    /// When the kernel does not remove them; some may be left then.
    fn forget(&self, consumers: &[(Ipv4Addr, Ipv6Addr)]) -> io::Result<()>;

    /// Removes the flows of all other consumers there could be.
    ///
    /// # Errors
    ///
    /// As [`FlowControl::forget`].
    fn forget_all_but(&self, consumers: &[(Ipv4Addr, Ipv6Addr)]) -> io::Result<()>;
}

/// How many packets the super-packets of each size have at most; the last size has more.
pub const BATCHES: [u64; 7] = [1, 2, 4, 8, 16, 32, 64];

/// Packets and the super-packets that they crossed a boundary in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boundary {
    /// System-call-sized units: GRO buffers, TUN frames, GSO runs.
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
    /// `initiation`, `response`, `cookie_reply`, `data`, or `other` for everything not to our port.
    pub message: String,
    /// Frames.
    pub datagrams: u64,
    /// Their UDP payload in bytes (frame bytes for `other`).
    pub bytes: u64,
}

/// A quota of a day or a month.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuotaNow {
    /// Billed bytes that all sessions together may have; 0 is no limit.
    pub bytes: u64,
    /// What they have had.
    pub used: u64,
    /// When the count begins anew, in seconds since 1970.
    pub resets: u64,
}

/// What of the limits holds now. Rates are in bits per second, of packets inside the tunnel; 0 is
/// no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitsNow {
    /// All consumers' uploads together.
    pub rate_up: u64,
    /// All consumers' downloads together.
    pub rate_down: u64,
    /// The most that one session gets of that, up.
    pub share_up: u64,
    /// The most that one session gets of that, down.
    pub share_down: u64,
    /// The new flows per second that each session may begin.
    pub session_new_flows: u32,
    /// The different destinations that each session may reach in ten seconds.
    pub session_destinations: u32,
    /// The flows of each family that each session may have at once.
    #[serde(default)]
    pub session_flows: u32,
    /// Why all sessions are paused: `quota` or `schedule`.
    pub paused_for: Option<String>,
    /// The quota of the day.
    pub day: QuotaNow,
    /// The quota of the month.
    pub month: QuotaNow,
}

/// Something of the machine that is not as the node needs it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostCondition {
    /// What it is about: [`Part::as_str`].
    pub part: String,
    /// What is wrong, and its effect.
    pub problem: String,
    /// What to do about it.
    pub fix: String,
}

impl From<&Condition> for HostCondition {
    fn from(condition: &Condition) -> Self {
        let Condition { part, said, fix } = condition;
        Self { part: part.as_str().into(), problem: said.clone(), fix: fix.clone() }
    }
}

/// How often a part of the machine was put back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostRestored {
    /// What it is about: [`Part::as_str`].
    pub part: String,
    /// How often, since the start.
    pub times: u64,
}

impl From<(Part, u64)> for HostRestored {
    fn from((part, times): (Part, u64)) -> Self {
        Self { part: part.as_str().into(), times }
    }
}

/// The node as its operator sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// weir's version.
    pub version: String,
    /// Seconds since the node began to serve.
    pub uptime_seconds: f64,
    /// The interface towards the internet and the consumers.
    pub uplink: String,
    /// Its MTU.
    pub uplink_mtu: u32,
    /// `native`, `generic` or `off`.
    pub xdp_mode: String,
    /// `af_xdp` (from the guard, past the kernel's network stack) or `sockets` (through the stack).
    pub receive: String,
    /// `uring` or `syscall`.
    pub io: String,
    /// What the node has given up: capabilities, files, system calls. In words.
    pub sandbox: String,
    /// Offloads found or missing, in words: what an operator would want to know.
    pub offloads: Vec<String>,
    /// The cores on which the workers run, one worker each.
    pub worker_cores: Vec<usize>,
    /// The node's public key in base64.
    pub public_key: String,
    /// `host:port` as consumers are told.
    pub endpoint: String,
    /// The TUN device.
    pub interface: String,
    /// The MTU inside the tunnel.
    pub mtu: u32,
    /// Sessions that exist.
    pub sessions: usize,
    /// How many there can be.
    pub max_sessions: u32,
    /// What of the limits holds now.
    pub limits: LimitsNow,
    /// The aggregation factors.
    pub boundaries: Boundaries,
    /// Every reason, also those with zero packets.
    pub drops: Vec<Drops>,
    /// The guard's counts by message type; empty without XDP.
    pub guard: Vec<GuardCount>,
    /// Fraction of the time since the start that each worker was busy, 0 to 1.
    pub worker_busy_ratio: Vec<f64>,
    /// Time for which each worker was busy, in seconds.
    pub worker_busy_seconds: Vec<f64>,
    /// Billed bytes from all consumers, ended sessions included.
    pub bytes_up: u64,
    /// Billed bytes to all consumers, ended sessions included.
    pub bytes_down: u64,
    /// Handshakes that consumers completed.
    pub handshakes: u64,
    /// Handshakes that were answered by asking for a cookie, because there were many.
    pub cookies: u64,
    /// Seconds since all counters were last in the ledger.
    pub ledger_age_seconds: f64,
    /// Billed bytes of sessions that pay as they go, which their payments do not cover yet.
    pub unpaid_bytes: u64,
    /// What consumers have promised in all, in wei: a decimal number.
    pub earned_wei: String,
    /// What of this machine is not as the node needs it.
    #[serde(default)]
    pub host: Vec<HostCondition>,
    /// How often the node put back what others had changed, by part of the machine.
    #[serde(default)]
    pub restored: Vec<HostRestored>,
    /// Why the ledger cannot be written; absent while it can. There is no new session and no new
    /// credit then.
    #[serde(default)]
    pub ledger_error: Option<String>,
    /// How the connection to the fleet's server is: `connected`, or not; absent without one.
    #[serde(default)]
    pub fleet: Option<String>,
}

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

/// Whoever can describe the node.
pub trait NodeView: Send + Sync {
    /// The node now.
    fn status(&self) -> Status;
}

/// A shared [`NodeView`].
pub type SharedView = Arc<dyn NodeView>;
