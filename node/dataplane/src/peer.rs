//! A session as its worker has it.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{Arc, atomic::Ordering::Relaxed},
};

use weir_common::{
    Account, DropReason, Slot,
    account::{SessionState, add_single_writer},
    meter::{Meter, Origin},
};

use crate::{
    limit::flows::FlowLimiter,
    limit::meters::PeerMeters,
    limit::policer::{Bucket, Direction, lower},
    pipeline::gso_batch::{BatchIndex, BatchKind},
};
use weir_accounts::Endpoint;
use weir_accounts::{Accounts, PeerSpec};
use weir_wireguard::tunnel::Tunnel;

/// After so many quarters of a second all that a silent session had reached is older than what
/// [`FlowLimiter`] must remember.
const FORGET_AFTER: u32 = 100;

/// What a data message means to its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It is billed, and passes.
    Metered,
    /// The session is paused, by its state (which this is) or because its credit is used up: it is
    /// not billed, and passes only if it goes to or comes from the gateway.
    Free(SessionState),
    /// It does not pass.
    Refused,
}

impl Admission {
    /// Why a message from the consumer does not pass.
    #[must_use]
    pub fn refusal(self) -> DropReason {
        match self {
            Self::Free(SessionState::Open) => DropReason::Credit,
            _ => DropReason::SessionState,
        }
    }

    /// Why a message to the consumer does not pass.
    #[must_use]
    pub fn refusal_down(self) -> DropReason {
        match self {
            Self::Free(SessionState::Open) => DropReason::EgressCredit,
            _ => DropReason::EgressState,
        }
    }

    /// How a data message to the consumer is sent, if it passes at all.
    #[must_use]
    pub fn kind(self) -> BatchKind {
        match self {
            Self::Metered => BatchKind::Metered,
            Self::Free(_) | Self::Refused => BatchKind::Free,
        }
    }
}

/// Everything that the owning worker knows of a session.
pub struct Peer {
    /// Its place.
    pub slot: Slot,
    /// Its keys and timers.
    pub tunnel: Tunnel,
    /// Where it was last heard, authentically.
    pub endpoint: Option<Endpoint>,
    /// Whether its timers batch.
    pub active: bool,
    /// Whether it is to be greeted: it was connected to a node that died.
    pub resume: bool,
    /// Its latest batch of this iteration: iteration number and place.
    pub last_batch: (u64, Option<BatchIndex>),
    /// What may be done for it that nobody has authenticated, or pays for.
    pub meters: PeerMeters,
    /// Turn number, and what was sealed in that iteration for the bill.
    unsent: (u64, u64),
    /// Up and down.
    buckets: [Bucket; 2],
    /// Only while it sends: most sessions are idle.
    flow_limiter: Option<Box<FlowLimiter>>,
    /// Quarters of a second since it sent, or less: see [`Peer::grow_silent`].
    silence: u32,
    address_v4: Ipv4Addr,
    address_v6: Ipv6Addr,
    accounts: Arc<Accounts>,
}

impl Peer {
    /// A peer with this tunnel, found again where the account says that it was.
    #[must_use]
    pub fn new(spec: &PeerSpec, tunnel: Tunnel, accounts: Arc<Accounts>) -> Self {
        let endpoint = accounts.get(spec.slot).and_then(|account| Endpoint::load(&account.worker));
        Self {
            slot: spec.slot,
            tunnel,
            endpoint,
            active: false,
            resume: endpoint.is_some(),
            last_batch: (0, None),
            meters: PeerMeters::default(),
            unsent: (0, 0),
            buckets: [Bucket::default(); 2],
            flow_limiter: None,
            silence: 0,
            address_v4: spec.address_v4,
            address_v6: spec.address_v6,
            accounts,
        }
    }

    /// Its account. `None` only for a slot beyond the accounts, which never gets a peer.
    #[inline]
    pub fn account(&self) -> Option<&Account> {
        self.accounts.get(self.slot)
    }

    /// What a data message of `len` bytes, either way, means to the session now. `iteration` is the
    /// worker's. Notes in the account that the credit is used up, if the message does not fit.
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

    /// Whether a message comes from the session's endpoint.
    #[inline]
    pub fn origin(&self, from: &Endpoint) -> Origin {
        match &self.endpoint {
            Some(endpoint) if endpoint.remote == from.remote => Origin::Endpoint,
            _ => Origin::Elsewhere,
        }
    }

    /// From which bucket a data message is taken before it is opened, if from any; as the guard
    /// does it.
    ///
    /// # Errors
    ///
    /// Says why it is not opened at all.
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

    /// A billed data message of `len` bytes will be sent this iteration. It is in the account only once
    /// the kernel has taken it, but uses up credit now.
    #[inline]
    pub fn will_send(&mut self, iteration: u64, len: usize) {
        let before = if self.unsent.0 == iteration { self.unsent.1 } else { 0 };
        self.unsent = (iteration, before + len as u64);
    }

    /// The rate that the session is held to, in bytes of inner packets per second, where no session
    /// has more than `level`; 0 is no limit for both.
    #[inline(always)]
    pub fn rate(&self, direction: Direction, level: u64) -> u64 {
        let Some(account) = self.account() else { return level };
        let own = match direction {
            Direction::Up => &account.control.rate_up,
            Direction::Down => &account.control.rate_down,
        };
        lower(own.load(Relaxed), level)
    }

    /// Whether an inner packet of `len` bytes is within `rate`, which is not 0, at `now` in
    /// nanoseconds. Notes in the account if it is not.
    #[inline]
    pub fn is_within(&mut self, direction: Direction, rate: u64, now: u64, len: usize) -> bool {
        let passes = self.buckets[direction as usize].passes(rate, now, len as u64);
        if !passes && let Some(account) = self.account() {
            let limited = match direction {
                Direction::Up => &account.worker.limited_up,
                Direction::Down => &account.worker.limited_down,
            };
            add_single_writer(limited, len as u64);
        }
        passes
    }

    /// What it has reached lately. Memory is taken for it when it is first asked for after silence.
    #[inline]
    pub fn flow_limiter(&mut self) -> &mut FlowLimiter {
        self.silence = 0;
        self.flow_limiter.get_or_insert_default()
    }

    /// A quarter of a second has passed, or more. What a silent session had reached is forgotten in
    /// the end.
    pub fn grow_silent(&mut self) {
        self.silence = self.silence.saturating_add(1);
        if self.silence >= FORGET_AFTER {
            self.flow_limiter = None;
        }
    }

    /// Its timers do not batch any more: it has no keys, and sends nothing.
    pub fn sleep(&mut self) {
        self.active = false;
        self.flow_limiter = None;
    }

    /// Whether `source` is the address assigned to the session.
    #[inline]
    pub fn owns(&self, source: IpAddr) -> bool {
        match source {
            IpAddr::V4(source) => source == self.address_v4,
            IpAddr::V6(source) => source == self.address_v6,
        }
    }

    /// An authentic message came from `from`: answers go there from now on.
    #[inline]
    pub fn heard_from(&mut self, from: Endpoint) {
        if self.endpoint != Some(from) {
            self.endpoint = Some(from);
            if let Some(account) = self.account() {
                from.save(&account.worker);
            }
        }
    }
}
