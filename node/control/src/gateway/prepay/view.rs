//! Payments in advance as JSON.

use serde::{Deserialize, Serialize};
use weir_ledger::{billed, state_name};
use weir_sessions::Snapshot;

/// What became of a voucher or a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Given {
    /// `voucher` or `ecash`.
    pub method: String,
    /// `credited`; `before`, if the session has given it before; or `pending`, while the mint exchanges it.
    pub status: String,
    /// The bytes that it adds.
    pub bytes: u64,
    /// The seconds that it adds.
    pub seconds: u64,
    /// What the session has left now.
    pub left: Left,
}

/// What a session has left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// `open`, `paused` or `closed`.
    pub state: String,
    /// Why it is paused: `credit`, `operator`, `quota` or `schedule`.
    pub paused_for: Option<String>,
    /// Billed bytes so far.
    pub used_bytes: u64,
    /// Bytes that it may still use, those included that it pays for as it goes; null without a limit.
    pub bytes: Option<u64>,
    /// Seconds that it may still use, in the same way; null without a limit.
    pub seconds: Option<u64>,
}

impl Left {
    pub(super) fn new(snapshot: &Snapshot) -> Self {
        let used_bytes = billed(&snapshot.counters);
        Self {
            state: state_name(snapshot.session.state).to_owned(),
            paused_for: snapshot.paused_for.map(str::to_owned),
            used_bytes,
            bytes: snapshot.byte_limit.map(|limit| limit.saturating_sub(used_bytes)),
            seconds: snapshot.second_limit.map(|limit| limit.saturating_sub(snapshot.seconds)),
        }
    }
}
