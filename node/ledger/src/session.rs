//! A session as the ledger has it.

use std::{fmt, str::FromStr};

use rand_core::{OsRng, RngCore};
use weir_common::{
    PublicKey, Slot,
    account::{Counters, SessionState},
};

/// The identifier of a session: random, never used again, never zero. Shown as 16 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(u64);

impl SessionId {
    /// A fresh identifier.
    #[must_use]
    pub fn random() -> Self {
        loop {
            // Zero is what a vacant account names.
            if let Some(id) = Self::new(OsRng.next_u64()) {
                return id;
            }
        }
    }

    /// The identifier of this number; `None` for zero.
    #[must_use]
    pub const fn new(id: u64) -> Option<Self> {
        if id == 0 { None } else { Some(Self(id)) }
    }

    /// The number, as accounts hold it.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The text is not a session identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a session identifier, which has 16 hex digits")]
pub struct NotAnId;

impl FromStr for SessionId {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<Self, NotAnId> {
        if text.len() != 16 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(NotAnId);
        }
        let id = u64::from_str_radix(text, 16).map_err(|_| NotAnId)?;
        Self::new(id).ok_or(NotAnId)
    }
}

/// One consumer's right to use the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Its identifier.
    pub id: SessionId,
    /// The index from which its addresses and its account follow.
    pub slot: Slot,
    /// What the operator calls it; unique among the live sessions.
    pub name: Option<String>,
    /// The consumer's static key; unique among the live sessions.
    pub public_key: PublicKey,
    /// When it was made, in seconds since 1970.
    pub created: u64,
    /// What it may do. Never [`SessionState::Vacant`].
    pub state: SessionState,
}

/// The rates that a session has of its own, in bits per second of packets inside the tunnel. `None`
/// is the node's rate for sessions, 0 is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OwnRates {
    /// From the consumer.
    pub up: Option<u64>,
    /// To the consumer.
    pub down: Option<u64>,
}

/// What a session has used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Its cumulative counters.
    pub counters: Counters,
    /// Seconds for which it was open.
    pub seconds: u64,
    /// When traffic was last counted, in seconds since 1970.
    pub last_activity: u64,
}

/// How much a session may use in all, since it was made. `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Credit {
    /// Billed bytes, up and down together.
    pub bytes: Option<u64>,
    /// Seconds served.
    pub seconds: Option<u64>,
}

/// The bytes that are billed: up and down together.
#[must_use]
pub fn billed(counters: &Counters) -> u64 {
    counters.bytes_up.saturating_add(counters.bytes_down)
}

/// Why a session is paused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pause {
    /// Somebody said so, and must say when it goes on.
    Operator,
    /// The credit is used up: more of it ends the pause.
    Credit,
}

impl Pause {
    /// The word in the ledger and in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Credit => "credit",
        }
    }
}

/// The word for a state, in the ledger, in JSON and as a metric's label.
#[must_use]
pub const fn state_name(state: SessionState) -> &'static str {
    match state {
        SessionState::Vacant => "vacant",
        SessionState::Open => "open",
        SessionState::Paused => "paused",
        SessionState::Closed => "closed",
    }
}

/// Seconds since 1970 now; 0 when the clock stands before that.
#[must_use]
pub fn unix_now() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_read_back_as_written() {
        for id in [1, 0xdead_beef, u64::MAX] {
            let id = SessionId::new(id).expect("not zero");
            assert_eq!(id.to_string().len(), 16);
            assert_eq!(id.to_string().parse(), Ok(id));
        }
    }

    #[test]
    fn what_is_no_identifier_is_refused() {
        for text in ["", "0000000000000000", "+00000000000000a", "00000000000000g0", "1"] {
            assert_eq!(text.parse::<SessionId>(), Err(NotAnId), "{text}");
        }
    }
}
