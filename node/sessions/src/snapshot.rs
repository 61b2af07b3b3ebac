//! What others see of a session.

use std::net::{Ipv4Addr, Ipv6Addr};

use weir_common::account::Counters;
use weir_ledger::{Credit, OwnRates, Session};

/// A session with what is known of it at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The session.
    pub session: Session,
    /// Its inner IPv4 address.
    pub address_v4: Ipv4Addr,
    /// Its inner IPv6 address.
    pub address_v6: Ipv6Addr,
    /// Its cumulative counters.
    pub counters: Counters,
    /// Seconds served.
    pub seconds: u64,
    /// How much it may use that was given or paid in advance.
    pub credit: Credit,
    /// The billed bytes at which it must stop, or pay as it goes; `None` without a limit.
    pub byte_limit: Option<u64>,
    /// The seconds served at which it must stop, or pay as it goes; `None` without a limit.
    pub second_limit: Option<u64>,
    /// The rates that it has of its own.
    pub own_rates: OwnRates,
    /// The rates that it is held to, up and down, in bits per second; 0 is no limit.
    pub rates: [u64; 2],
    /// Why it is paused: `operator`, `credit`, `quota` or `schedule`.
    pub paused_for: Option<&'static str>,
}

/// Why no session at all has traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// The node's quota of the day or the month is used up.
    Quota,
    /// The node is closed at this time of the week.
    Schedule,
}

impl Hold {
    /// The word in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Quota => "quota",
            Self::Schedule => "schedule",
        }
    }
}
