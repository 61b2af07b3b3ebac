//! The node as its operator sees it, in JSON.

use std::sync::Arc;

use crate::{
    flows::{Egress, NatTotals},
    market::view::MarketView,
    purchase::PurchaseCounts,
};
use serde::{Deserialize, Serialize};
use weir_accounts::{Boundaries, Drops, GuardCount};
use weir_sessions::limits::LimitsNow;

/// Something of the machine that is not as the node needs it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostCondition {
    /// What it is about: `host::watch::Part::as_str`.
    pub part: String,
    /// What is wrong, and its effect.
    pub problem: String,
    /// What to do about it.
    pub fix: String,
}

/// How often a part of the machine was put back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostRestored {
    /// What it is about: `host::watch::Part::as_str`.
    pub part: String,
    /// How often, since the start.
    pub times: u64,
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
    /// How consumers' packets leave, and why so.
    #[serde(default)]
    pub egress: Egress,
    /// The use of the node's flow table; absent where the kernel translates.
    #[serde(default)]
    pub nat: Option<NatTotals>,
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
    /// The limits in force.
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
    /// Conditions of the host that the node cannot work with as it should.
    #[serde(default)]
    pub host: Vec<HostCondition>,
    /// How often the node put back what others had changed, by part of the machine.
    #[serde(default)]
    pub restored: Vec<HostRestored>,
    /// How often the node has looked at what it has changed on the machine.
    #[serde(default)]
    pub host_looks: u64,
    /// Why the ledger cannot be written; absent while it can. There is no new session and no new
    /// credit then.
    #[serde(default)]
    pub ledger_error: Option<String>,
    /// How the connection to the fleet's server is: `connected`, or not; absent without one.
    #[serde(default)]
    pub fleet: Option<String>,
}

/// Describes the node.
pub trait NodeView: Send + Sync {
    /// What became of orders; `None` while nothing is sold to strangers.
    fn purchases(&self) -> Option<PurchaseCounts> {
        None
    }

    /// The node now.
    fn status(&self) -> Status;

    /// Every part of the machine that a [`HostCondition`] can be about.
    fn host_parts(&self) -> &'static [&'static str];

    /// The node's listing; `None` if it publishes none.
    fn market(&self) -> Option<MarketView> {
        None
    }
}

/// A shared [`NodeView`].
pub type SharedView = Arc<dyn NodeView>;
