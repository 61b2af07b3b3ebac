//! A session as its worker has it.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use weir_common::{Account, Slot, account::SessionState};

use super::{endpoint::Endpoint, runs::RunIndex, tunnel::Tunnel};
use crate::{control::PeerSpec, kernel::accounts::Accounts};

/// Everything that the owning worker knows of a session.
pub struct Peer {
    /// Its place.
    pub slot: Slot,
    /// Its keys and timers.
    pub tunnel: Tunnel,
    /// Where it was last heard, authentically.
    pub endpoint: Option<Endpoint>,
    /// Whether its timers run.
    pub active: bool,
    /// Whether it is to be greeted: it was connected to a node that died.
    pub greet: bool,
    /// Its latest run of this turn: turn number and place.
    pub last_run: (u64, Option<RunIndex>),
    address_v4: Ipv4Addr,
    address_v6: Ipv6Addr,
    accounts: Arc<Accounts>,
}

impl Peer {
    /// A peer with this tunnel, found again where the account says that it was.
    #[must_use]
    pub fn new(spec: &PeerSpec, tunnel: Tunnel, accounts: Arc<Accounts>) -> Self {
        let endpoint =
            accounts.get(spec.slot).and_then(|account| Endpoint::load(&account.whereabouts));
        Self {
            slot: spec.slot,
            tunnel,
            endpoint,
            active: false,
            greet: endpoint.is_some(),
            last_run: (0, None),
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

    /// Whether traffic passes.
    #[inline]
    pub fn is_open(&self) -> bool {
        self.account().is_some_and(|account| account.state() == SessionState::Open)
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
                from.save(&account.whereabouts);
            }
        }
    }
}
