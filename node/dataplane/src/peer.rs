//! A session as its worker holds it.

pub(crate) mod admission;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{Arc, atomic::Ordering::Relaxed},
};

use weir_common::{
    Account, DropReason, Slot,
    account::{SessionState, add_single_writer},
    meter::{Meter, Origin},
};

use self::admission::Admission;
use crate::{
    limit::{
        destinations::ExactLimiter,
        flows::FlowLimiter,
        meters::PeerMeters,
        policer::{Direction, Policer, lower},
    },
    pipeline::gso_batch::BatchIndex,
};
use weir_accounts::{Accounts, Endpoint, PeerSpec};
use weir_wireguard::tunnel::Tunnel;

/// The number of ticks, of a second or more, after which a silent session's flows are
/// older than what [`FlowLimiter`] must remember.
const FLOW_LIMITER_TIMEOUT: u32 = 100;

/// A session at its worker.
pub struct Peer {
    /// The session's slot.
    pub slot: Slot,
    /// The keys and timers.
    pub tunnel: Tunnel,
    /// Where the consumer last sent authenticated data from.
    pub endpoint: Option<Endpoint>,
    /// Whether to initiate a handshake, because the consumer was connected to a node that died.
    pub resume: bool,
    /// The number of an iteration, and the latest batch to the consumer in it.
    pub last_batch: (u64, Option<BatchIndex>),
    /// The meters of unauthenticated and unpaid work.
    pub meters: PeerMeters,
    /// The number of an iteration, and the billed bytes that were sealed in it.
    unsent: (u64, u64),
    /// Up and down.
    policers: [Policer; 2],
    /// Allocated only while the consumer sends: most sessions are idle.
    flow_limiter: Option<Box<FlowLimiter>>,
    /// The same past the kernel, where the flow table knows the flows.
    exact_limiter: Option<Box<ExactLimiter>>,
    /// The number of ticks since the consumer last sent: see [`Peer::grow_silent`].
    silence: u32,
    address_v4: Ipv4Addr,
    address_v6: Ipv6Addr,
    accounts: Arc<Accounts>,
}

impl Peer {
    /// Creates a peer. Its endpoint is the one in the account, if there is one.
    #[must_use]
    pub fn new(spec: &PeerSpec, tunnel: Tunnel, accounts: Arc<Accounts>) -> Self {
        let endpoint = accounts.get(spec.slot).and_then(|account| Endpoint::load(&account.worker));
        Self {
            slot: spec.slot,
            tunnel,
            endpoint,
            resume: endpoint.is_some(),
            last_batch: (0, None),
            meters: PeerMeters::default(),
            unsent: (0, 0),
            policers: [Policer::default(); 2],
            flow_limiter: None,
            exact_limiter: None,
            silence: 0,
            address_v4: spec.address_v4,
            address_v6: spec.address_v6,
            accounts,
        }
    }

    /// The account. `None` only for a slot beyond the last, which never gets a peer.
    #[inline]
    pub fn account(&self) -> Option<&Account> {
        self.accounts.get(self.slot)
    }

    /// Decides about a data message of `len` bytes, up or down, in iteration number `iteration`. If
    /// the message exceeds the credit, notes in the account that the credit is used up.
    #[inline]
    pub fn admission(&self, iteration: u64, len: usize) -> Admission {
        let Some(account) = self.account() else { return Admission::Refused };
        match account.standing() {
            SessionState::Open => {}
            SessionState::Paused => return Admission::Free(account.state()),
            SessionState::Vacant | SessionState::Closed => return Admission::Refused,
        }
        let Some(limit) = account.limit() else { return Admission::Metered };
        let unsent = if self.unsent.0 == iteration { self.unsent.1 } else { 0 };
        if account.billed().saturating_add(unsent).saturating_add(len as u64) <= limit {
            return Admission::Metered;
        }
        account.worker.spent.store(limit, Relaxed);
        Admission::Free(SessionState::Open)
    }

    /// Whether a message from this address comes from the session's endpoint.
    #[inline]
    pub fn origin(&self, from: &Endpoint) -> Origin {
        match &self.endpoint {
            Some(endpoint) if endpoint.remote == from.remote => Origin::Endpoint,
            _ => Origin::Elsewhere,
        }
    }

    /// The meter of a data message before it is opened, if it has one. The guard decides by the same rule.
    ///
    /// # Errors
    ///
    /// Returns why the message is not opened.
    #[inline]
    pub fn meter_of_data(&self, origin: Origin) -> Result<Option<Meter>, DropReason> {
        let standing = self.account().map_or(SessionState::Closed, Account::standing);
        match (standing, origin) {
            (SessionState::Vacant | SessionState::Closed, _) => Err(DropReason::SessionState),
            (_, Origin::Elsewhere) => Ok(Some(Meter::RoamingData)),
            (SessionState::Paused, Origin::Endpoint) => Ok(Some(Meter::PausedData)),
            (SessionState::Open, Origin::Endpoint) => Ok(None),
        }
    }

    /// Takes a billed data message of `len` bytes, which will be sent in this iteration, from the
    /// credit. The account counts it only when the kernel has taken it.
    #[inline]
    pub fn will_send(&mut self, iteration: u64, len: usize) {
        let before = if self.unsent.0 == iteration { self.unsent.1 } else { 0 };
        self.unsent = (iteration, before + len as u64);
    }

    /// The lower of the session's rate and the fair share, in bytes of inner packets per second. 0
    /// means no limit, for the share too.
    #[inline(always)]
    pub fn rate(&self, direction: Direction, share: u64) -> u64 {
        let Some(account) = self.account() else { return share };
        let own = match direction {
            Direction::Up => &account.control.rate_up,
            Direction::Down => &account.control.rate_down,
        };
        lower(own.load(Relaxed), share)
    }

    /// Whether an inner packet of `len` bytes is within `rate`, which is not 0, at `now` in
    /// nanoseconds. Counts the packet in the account if it is not.
    #[inline]
    pub fn is_within(&mut self, direction: Direction, rate: u64, now: u64, len: usize) -> bool {
        let [up, down] = &mut self.policers;
        let policer = match direction {
            Direction::Up => up,
            Direction::Down => down,
        };
        let passes = policer.passes(rate, now, len as u64);
        if !passes && let Some(account) = self.account() {
            let limited = match direction {
                Direction::Up => &account.worker.limited_up,
                Direction::Down => &account.worker.limited_down,
            };
            add_single_writer(limited, len as u64);
        }
        passes
    }

    /// The flow limiter. The first call after a silence allocates it.
    #[inline]
    pub fn flow_limiter(&mut self) -> &mut FlowLimiter {
        self.silence = 0;
        self.flow_limiter.get_or_insert_default()
    }

    /// The exact limiter, for sessions whose flows are in the flow table.
    pub(crate) fn exact_limiter(&mut self) -> &mut ExactLimiter {
        self.silence = 0;
        self.exact_limiter.get_or_insert_default()
    }

    /// Notes that a second or more has passed. Drops the flow limiter of a session that has been
    /// silent for long. Returns whether there still is one, so that this must be called again.
    pub fn grow_silent(&mut self) -> bool {
        self.silence = self.silence.saturating_add(1);
        if self.silence >= FLOW_LIMITER_TIMEOUT {
            self.flow_limiter = None;
            self.exact_limiter = None;
        }
        self.flow_limiter.is_some() || self.exact_limiter.is_some()
    }

    /// Notes that the timers have stopped: the peer has no keys, and sends nothing.
    pub fn sleep(&mut self) {
        self.flow_limiter = None;
        self.exact_limiter = None;
    }

    /// Whether `source` is an inner address of the session.
    #[inline]
    pub fn owns(&self, source: IpAddr) -> bool {
        match source {
            IpAddr::V4(source) => source == self.address_v4,
            IpAddr::V6(source) => source == self.address_v6,
        }
    }

    /// Moves the endpoint to `from`, where an authentic message came from.
    #[inline]
    pub fn move_endpoint(&mut self, from: Endpoint) {
        if self.endpoint != Some(from) {
            self.endpoint = Some(from);
            if let Some(account) = self.account() {
                from.save(&account.worker);
            }
        }
    }
}
